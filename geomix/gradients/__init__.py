"""Gradients captured in a pass, and products of whole sets and of single examples."""
