"""Stages, one training step, optimiser and checkpoints; announces its events to observers."""
