"""The model of a run at a checkpoint, given by name: `0`, `A`, `B`, `A+4`."""

from __future__ import annotations

import re
from pathlib import Path

from geomix.config.names import LETTERS
from geomix.models.load import LoadedModel, default_device, load_model
from geomix.runs.directory import RunDirectory
from geomix.training.checkpoint import FINAL, KEPT, check
from geomix.util.errors import UserError

_NAME = re.compile(r"(?:θ_|theta_)?(0|[A-Z])(?:\+([0-9]{1,9}))?")


def model_at(run: RunDirectory, checkpoint: str, *, precise: bool = False) -> LoadedModel:
    """Load the model at a checkpoint, with its tokenizer."""
    folder = folder_of(run, checkpoint)
    name = run.resolved()["config"]["model"] if folder is None else str(check(folder).path)
    loaded = load_model(name, default_device())
    if precise:
        loaded.model.set_attn_implementation("eager")  # type: ignore[operator]
        loaded.model.float()
    loaded.model.eval()
    return loaded


def folder_of(run: RunDirectory, checkpoint: str) -> Path | None:
    """Return the folder of a checkpoint; None for θ_0, which is the base model itself.

    Raises:
        UserError: the run has no such checkpoint, or did not keep its weights.
    """
    found = _NAME.fullmatch(checkpoint.strip())
    if found is None:
        raise UserError(f"{checkpoint[:40]!r}: no checkpoint; give 0, A, B, or A+4")
    stages = len(run.resolved()["config"]["stages"])
    ended = 0 if found[1] == "0" else LETTERS.find(found[1]) + 1
    step = int(found[2] or 0)
    if (ended == 0 and found[1] != "0") or ended > stages - (step > 0):
        raise UserError(f"{run.path}: no checkpoint {checkpoint}; it has {stages} stages")
    if step:
        there = [f"{ended}-*/{part}/step-{step:06d}" for part in (KEPT, "checkpoints")]
    elif ended:
        there = [f"{ended - 1}-*/checkpoints/{FINAL}"]
    else:
        return None
    for pattern in there:
        for folder in (run.path / "stages").glob(pattern):
            return folder
    keep = "; weights within a stage are kept with record: {weights: true}" if step else ""
    raise UserError(f"{run.path}: no weights of {checkpoint}{keep}")
