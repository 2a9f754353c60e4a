"""Stages, training step, optimiser and checkpoints; announces training events to observers."""
