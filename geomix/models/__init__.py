"""A causal LM of transformers: loading, forward pass, loss, decoding, scoring."""
