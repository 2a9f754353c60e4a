"""Causal LMs of transformers: loading, forward pass, loss, decoding, scoring."""
