"""Checkpoints: everything needed to resume, written atomically and validated when read.

A checkpoint is a folder that `from_pretrained` reads, with the position in the run
(`position.json`) beside the weights. At the end of a stage it also has Adam's v̂, as have those
kept within a stage for analyses (`record.weights`); the others within a stage have the complete
optimiser state. `manifest.json`, written last, holds the hash of every file. There is no random
state: the randomness of a step is a function of the seed and the step.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from geomix.config.training import StopConfig
from geomix.models.distributed import gathered, like
from geomix.models.load import LoadedModel, check_saved
from geomix.training.methods.applied import PREFIX, Applied
from geomix.training.observer import SecondMoments
from geomix.training.optimiser import EPS, load_optimiser, optimiser_state
from geomix.training.stopping import Stopping
from geomix.training.trainable import adapters, load_adapters
from geomix.training.update_shares import Shares
from geomix.util.errors import UserError, one_line
from geomix.util.files import file_hash, write_json, written_folder
from geomix.util.progress import during

SECOND_MOMENTS = "adam_second_moments.safetensors"
OPTIMISER = "optimiser.safetensors"
POSITION = "position.json"
MANIFEST = "manifest.json"

_WEIGHTS = ".safetensors"
_ADAPTER, _SHARE = "adapter=", "share="
"""Prefixes of the names of adapters and of sources' first moments, stored with the optimiser."""

FINAL = "final"
"""Name of the checkpoint at the end of a stage; those within are `step-000120`."""

KEPT = "weights"
"""Name of the folder, beside that of a stage's checkpoints, of those kept for analyses."""


@dataclass(frozen=True, slots=True)
class Position:
    """Position in a run up to which everything is done.

    Attributes:
        stage: index of the stage, from 0; at the end of one, the next.
        epoch: epochs finished in it, evaluation included.
        batch: batches finished in the present epoch.
        step: optimiser steps done in the stage.
        metrics: bytes of `metrics.jsonl` that belong to what is done.
        stopping: state of the stage's stopping rule.
    """

    stage: int
    epoch: int = 0
    batch: int = 0
    step: int = 0
    metrics: int = 0
    stopping: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Reject values that no checkpoint of geomix holds.

        Raises:
            ValueError: a count is invalid, or the stopping rule's state is.
        """
        counts = (self.stage, self.epoch, self.batch, self.step, self.metrics)
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("a place is counted from 0")
        Stopping(StopConfig(), **self.stopping)


def _within_folder(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and not name.startswith("/") and "\\" not in name


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was found complete.

    Attributes:
        path: its folder.
        position: its position in the run.
    """

    path: Path
    position: Position

    @property
    def is_within(self) -> bool:
        """True if training can resume within a stage: it has the complete optimiser state."""
        return _has_state(self.path)


def _has_state(path: Path) -> bool:
    return path.name != FINAL and path.parent.name != KEPT


def described_checkpoint(checkpoint: Checkpoint | None) -> dict[str, Any] | None:
    """Describe a checkpoint's path and position as JSON can hold them."""
    if checkpoint is None:
        return None
    return {"path": str(checkpoint.path), "position": asdict(checkpoint.position)}


def checkpoint_of(described: Mapping[str, Any] | None) -> Checkpoint | None:
    """Return the checkpoint that `described_checkpoint` described."""
    if described is None:
        return None
    return Checkpoint(Path(described["path"]), Position(**described["position"]))


@during(lambda path, *_, **__: f"saving {path}")
def save(
    path: Path,
    loaded: LoadedModel,
    state: Mapping[str, Tensor],
    position: Position,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint; an existing one of that name is complete and stays.

    Args:
        path: its folder: `final` at the end of a stage and those in `weights` have only v̂ of the
            optimiser.
        loaded: the trained model and its tokenizer.
        state: of the optimiser: v̂ by parameter, or the complete state (`training_state`).
        position: the position in the run.
        weights: the model's, if it does not hold them as saved: sharded, or with adapters.

    Raises:
        UserError: it cannot be written, as on a full disk, or could not be read again.
    """
    if path.exists():
        return
    try:
        with written_folder(path) as folder:
            loaded.model.save_pretrained(folder, state_dict=weights)  # type: ignore[operator]
            loaded.tokenizer.save_pretrained(folder)
            check_saved(folder, loaded.model.state_dict() if weights is None else weights)
            name = OPTIMISER if _has_state(path) else SECOND_MOMENTS
            save_file({key: t.contiguous() for key, t in state.items()}, folder / name)
            write_json(folder / POSITION, asdict(position))
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            hashes = {file.relative_to(folder).as_posix(): file_hash(file) for file in files}
            write_json(folder / MANIFEST, hashes)
    except UserError as error:
        raise UserError(f"{path}: the checkpoint is incomplete, training ends: {error}") from None
    except Exception as error:
        if type(error) not in (SafetensorError, Exception):  # tokenizers raises a bare one
            raise
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: the checkpoint cannot be written ({reason})") from None


def adopt(source: Checkpoint, path: Path, position: Position) -> None:
    """Reuse another run's finished stage: the same files, linked where the disk allows it.

    Args:
        source: `final` of the other run's stage.
        path: its new folder; an existing one is complete and stays.
        position: the position in this run.
    """
    if path.exists():
        return
    hashes = json.loads((source.path / MANIFEST).read_text(encoding="utf-8"))
    with written_folder(path) as folder:
        for name in hashes:
            if name != POSITION:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                _link(source.path / name, folder / name)
        write_json(folder / POSITION, asdict(position))
        write_json(folder / MANIFEST, {**hashes, POSITION: file_hash(folder / POSITION)})


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


@during(lambda path: f"checking {path}")
def check(path: Path) -> Checkpoint:
    """Read a checkpoint's position in the run, and compare all of its files with their hashes.

    Raises:
        UserError: it is incomplete, or has changed.
        PermissionError: it may not be read, which does not make it damaged.
    """
    try:
        hashes = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if POSITION not in hashes or not any(name.endswith(_WEIGHTS) for name in hashes):
            raise ValueError("the manifest names no weights")
        if not all(_within_folder(name) for name in hashes):
            raise ValueError("the manifest names files elsewhere")
        for name, expected in hashes.items():
            if file_hash(path / name) != expected:
                raise UserError(f"{path}: {name} is damaged")
        position = Position(**json.loads((path / POSITION).read_text(encoding="utf-8")))
        position.check()
    except FileNotFoundError as error:
        raise UserError(f"{path}: incomplete, it lacks {Path(error.filename).name}") from None
    except PermissionError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: not as geomix writes a checkpoint") from None
    return Checkpoint(path, position)


def saved_second_moments(checkpoint: Checkpoint, stage: int, steps: int) -> SecondMoments:
    """Load Adam's v̂ at the end of a finished stage, or where its weights are kept.

    Args:
        checkpoint: of its end, or in `weights`.
        stage: its index.
        steps: optimiser steps until then.
    """
    return SecondMoments(stage, steps, EPS, partial(_tensors, checkpoint.path / SECOND_MOMENTS))


def _tensors(file: Path) -> dict[str, Tensor]:
    with one_line(f"{file}: cannot be read"):
        found: dict[str, Tensor] = load_file(file)
    return found


def training_state(
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    shares: Shares | None,
    methods: Applied | None = None,
) -> dict[str, Tensor]:
    """Return the complete training state without the weights: tensors by name."""
    found = optimiser_state(model, optimiser)
    found |= {f"{_ADAPTER}{name}": gathered(p.detach()) for name, p in adapters(model).items()}
    if shares is not None:
        found |= {f"{_SHARE}{name}": gathered(value) for name, value in shares.moments.items()}
    return found if methods is None else {**found, **methods.state()}


def restore(
    checkpoint: Checkpoint,
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    shares: Shares | None = None,
    methods: Applied | None = None,
) -> None:
    """Restore the training's state; the weights are loaded with the model.

    Args:
        checkpoint: within a stage; one with only v̂ has nothing to restore.
        model: whose parameters the optimiser trains, its adapters attached.
        optimiser: of the stage that resumes.
        shares: the sources' first moments, if they are kept.
        methods: those of the stage.
    """
    if not checkpoint.is_within:
        return
    state = _tensors(checkpoint.path / OPTIMISER)
    load_adapters(model, _within(state, _ADAPTER))
    parameters = dict(model.named_parameters())
    if shares is not None:
        for name, value in _within(state, _SHARE).items():
            shares.moments[name] = like(value, parameters[name.split(":", 1)[1]])
    if methods is not None:
        methods.restore({k: v for k, v in state.items() if k.startswith(PREFIX)}, parameters)
    rest = {k: v for k, v in state.items() if not k.startswith((_ADAPTER, _SHARE, PREFIX))}
    load_optimiser(model, optimiser, rest)


def _within(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
