"""A causal LM of transformers: loading, layers by name, loss, gradient, scoring."""
