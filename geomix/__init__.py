"""How language models memorise and forget: staged fine-tuning and the geometry of its gradients."""

from geomix.run import Run, open_run

__all__ = ["Run", "open_run"]
