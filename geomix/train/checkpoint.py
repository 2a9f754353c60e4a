"""Checkpoints: what is needed to go on, complete whenever it exists, and checked when it is read.

A checkpoint is a folder that `from_pretrained` reads, with the place in the run (`position.json`)
beside the weights. At the end of a stage it also has Adam's v̂; within one, all of the optimiser's
state. `manifest.json`, written last, holds the hash of every file. There is no random state: what
is random in a step is a function of the seed and the step.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from geomix.atomic import write_json, written_folder
from geomix.errors import UserError
from geomix.model.load import LoadedModel
from geomix.train.optimiser import load_optimiser, optimiser_state, second_moments

SECOND_MOMENTS = "adam_second_moments.safetensors"
OPTIMISER = "optimiser.safetensors"
POSITION = "position.json"
MANIFEST = "manifest.json"

FINAL = "final"
"""Name of the checkpoint at the end of a stage; those within are `step-000120`."""


@dataclass(frozen=True, slots=True)
class Position:
    """The place in a run up to which everything is done.

    Attributes:
        stage: index of the stage, from 0; at the end of one, the next.
        epoch: epochs finished in it, evaluation included.
        batch: batches finished in the epoch that has begun.
        step: optimiser steps done in the stage.
        metrics: bytes of `metrics.jsonl` that belong to what is done.
        stopping: what the stage's stopping rule has seen.
    """

    stage: int
    epoch: int = 0
    batch: int = 0
    step: int = 0
    metrics: int = 0
    stopping: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was found complete.

    Attributes:
        path: its folder.
        position: the place in the run.
    """

    path: Path
    position: Position


def save(
    path: Path,
    loaded: LoadedModel,
    optimiser: torch.optim.Optimizer,
    position: Position,
) -> None:
    """Write a checkpoint; what stands under that name was complete and stays.

    Args:
        path: its folder: `final` at the end of a stage, which keeps v̂ alone of the optimiser.
        loaded: the trained model and its tokenizer.
        optimiser: the stage's.
        position: the place in the run.

    Raises:
        UserError: it cannot be written, as on a full disk.
    """
    if path.exists():
        return
    if path.name == FINAL:
        kept = (SECOND_MOMENTS, second_moments(loaded.model, optimiser))
    else:
        kept = (OPTIMISER, optimiser_state(loaded.model, optimiser))
    try:
        with written_folder(path) as folder:
            loaded.model.save_pretrained(folder)  # type: ignore[operator]
            loaded.tokenizer.save_pretrained(folder)
            name, tensors = kept
            save_file({key: t.contiguous() for key, t in tensors.items()}, folder / name)
            write_json(folder / POSITION, asdict(position))
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            hashes = {file.relative_to(folder).as_posix(): _hash(file) for file in files}
            write_json(folder / MANIFEST, hashes)
    except Exception as error:
        if type(error) not in (SafetensorError, Exception):  # tokenizers raises a bare one
            raise
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: the checkpoint cannot be written ({reason})") from None


def check(path: Path) -> Checkpoint:
    """Read a checkpoint's place in the run, and compare all of its files with their hashes.

    Raises:
        UserError: it is not complete, or not as it was written.
        PermissionError: it may not be read, which says nothing of it.
    """
    try:
        hashes = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        for name, expected in hashes.items():
            if _hash(path / name) != expected:
                raise UserError(f"{path}: {name} is damaged")
        position = Position(**json.loads((path / POSITION).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UserError(f"{path}: incomplete, it lacks {Path(error.filename).name}") from None
    except PermissionError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: not as geomix writes a checkpoint") from None
    return Checkpoint(path, position)


def restore(
    checkpoint: Checkpoint, model: torch.nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """Give the optimiser the state that it had; the weights are loaded as a model's.

    Args:
        checkpoint: within a stage; at the end of one there is nothing to restore.
        model: whose parameters the optimiser trains.
        optimiser: of the stage that goes on.
    """
    if checkpoint.path.name != FINAL:
        load_optimiser(model, optimiser, load_file(checkpoint.path / OPTIMISER))


def _hash(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
