"""Language models memorise and forget: staged fine-tuning and the geometry of its gradients."""

from geomix.util.threads import let_waiting_threads_sleep

let_waiting_threads_sleep()  # before anything loads torch

from geomix.api import Run, analyze, open_run, train  # noqa: E402

__all__ = ["Run", "analyze", "open_run", "train"]


def __dir__() -> list[str]:
    """List what users need, for tab completion."""
    return [*__all__]
