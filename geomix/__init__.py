"""How language models memorise and forget: staged fine-tuning and the geometry of its gradients."""

from geomix.util.threads import let_waiting_threads_sleep

let_waiting_threads_sleep()  # before anything loads torch

from geomix.api import Run, open_run  # noqa: E402

__all__ = ["Run", "open_run"]
