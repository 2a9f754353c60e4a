"""State of a run in a few words."""

from __future__ import annotations

from rich.text import Text

from geomix.runs.directory import RunDirectory

_STYLES = {"done": "green", "failed": "red", "interrupted": "yellow", "running": "cyan"}


def state_text(run: RunDirectory) -> Text:
    """Return `done`, `running in stage 1, step 40`, or `failed: why`."""
    if not run.status_file.exists():
        return Text("not started")
    status = run.status()
    text = Text(status["state"], style=_STYLES.get(status["state"], ""))
    if "stage" in status:
        text.append(f" in stage {status['stage'] + 1}, step {status.get('step', 0)}")
    if "arm" in status:
        text.append(f" in arm {status['arm']}")
    if "why" in status:
        text.append(f": {status['why']}")
    return text
