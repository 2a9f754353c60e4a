"""Stages, one training step, optimiser, checkpoints, evaluation; announces moments."""
