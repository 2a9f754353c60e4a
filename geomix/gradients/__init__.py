"""Gradients captured in a pass, and products of gradients of whole sets and single examples."""
