"""What an observer of training writes down: probe sets, residual streams, gradients."""
