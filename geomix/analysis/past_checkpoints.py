"""The arms of a run at their checkpoints: probe sets, their gradients, and Adam's metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from geomix.analysis.checkpoints import NamedCheckpoint
from geomix.analysis.directions import shuffled
from geomix.analysis.layout import Gradient
from geomix.config.names import role_of
from geomix.config.recording import RecordConfig
from geomix.config.run import RunConfig
from geomix.data.batch import Batch
from geomix.data.example import Example, TokenisedExample
from geomix.data.tokenise import tokenise_all
from geomix.experiments.arms import arm_of
from geomix.experiments.chat_templates import kept_templates
from geomix.experiments.checkpoints import Revisit, StoredCheckpoint, stored_checkpoints
from geomix.experiments.prepare import prepared_arms
from geomix.gradients.inner_products import take_gradients
from geomix.models.forward import backward_over, batches_of, plain_forward
from geomix.models.load import LoadedModel, default_device
from geomix.runs.configs import stored_configs
from geomix.runs.directory import RunDirectory
from geomix.training.checkpoint import check, saved_second_moments
from geomix.training.observer import SecondMoments
from geomix.training.step import autocast, row_width

_SEED = 0
"""Seed of the permutation of labels."""


def ignored(_: str) -> None:
    """Ignore a message that is reported elsewhere."""


def revisits(run: RunDirectory) -> dict[str, Revisit]:
    """Return the arms of a run that have started, by name ("" without arms), with their examples.

    Raises:
        UserError: a source's data has changed, or a model cannot be loaded.
    """
    known = {
        name: config
        for name, config in stored_configs(run).items()
        if arm_of(run, name).resolved_file.is_file()
    }
    arms = {
        name: config if config.record else config.model_copy(update={"record": RecordConfig()})
        for name, config in known.items()
    }
    ready = prepared_arms(arms, default_device(), templates=kept_templates(run))
    return {
        name: Revisit(arm_of(run, name), config, ready, ready.prepared[name], ready.chats[name])
        for name, config in arms.items()
    }


def adams(past: Revisit) -> tuple[SecondMoments, Path] | None:
    """Return v̂ at the end of an arm's first stage, the common metric of all comparisons.

    Returns:
        It, and the checkpoint that holds it; None if no stage has ended.
    """
    stored = next((p for p in past.checkpoints(ignored) if p.last), None)
    if stored is None or stored.folder is None:
        return None
    return saved_second_moments(check(stored.folder), stored.stage, stored.step), stored.folder


def named_checkpoints(arm: RunDirectory, config: RunConfig) -> list[NamedCheckpoint]:
    """Return the checkpoints of an arm that have weights."""
    return [_named(config, stored) for stored in stored_checkpoints(arm, config, ignored)]


def named_checkpoint(past: Revisit, stored: StoredCheckpoint) -> NamedCheckpoint:
    """Return the named checkpoint of a point."""
    return _named(past.config, stored)


def _named(config: RunConfig, stored: StoredCheckpoint) -> NamedCheckpoint:
    loss = config.stages[0].train.loss
    return NamedCheckpoint(stored.stage, stored.step, stored.last, loss)


def gradients(
    past: Revisit, loaded: LoadedModel, parameters: Mapping[str, nn.Parameter]
) -> Iterator[tuple[str, Gradient]]:
    """Yield each probe set's gradient, and after D_M's that of D_M with shuffled labels.

    Args:
        past: the arm.
        loaded: its model, within `undisturbed`.
        parameters: those that are trained.
    """
    for name, batches in probe_batches(past, loaded).items():
        yield name, _gradient(past, loaded, parameters, batches)
        if role_of(name) == "mixed":
            yield shuffled(name), _gradient(past, loaded, parameters, with_shuffled_labels(batches))


def probe_batches(
    past: Revisit, loaded: LoadedModel, most: int | None = None
) -> dict[str, list[Batch]]:
    """Return the probe sets as they are recorded, in batches of the set's mean loss.

    Args:
        past: the arm.
        loaded: its model.
        most: largest number of examples of a set, its first ones; then the mean is over these.
    """
    record, train = past.config.record, past.config.stages[0].train
    assert record is not None
    width = row_width(train, loaded)
    return {
        name: list(
            batches_of(examples, train.loss, record.batch_size, loaded.pad_id, loaded.device, width)
        )
        for name, examples in probe_examples(past, loaded, most).items()
    }


def probe_examples(
    past: Revisit, loaded: LoadedModel, most: int | None = None
) -> dict[str, list[TokenisedExample]]:
    """Return the recorded examples of each probe set, as tokens; `most` as in `probe_batches`."""
    return {
        name: tokenise_all(loaded.tokenizer, examples, past.chat)
        for name, examples in probe_texts(past, most).items()
    }


def probe_texts(past: Revisit, most: int | None = None) -> dict[str, list[Example]]:
    """Return the recorded examples of each probe set; `most` as in `probe_batches`."""
    record = past.config.record
    assert record is not None
    count = record.probes if most is None else min(most, record.probes)
    return {name: examples[:count] for name, examples in past.prepared.probes.items()}


def _gradient(
    past: Revisit,
    loaded: LoadedModel,
    parameters: Mapping[str, nn.Parameter],
    batches: Sequence[Batch],
) -> Gradient:
    plain = plain_forward(loaded.model)
    precise = partial(autocast, past.config.stages[0].train.precision, loaded.device)

    def forward(batch: Batch) -> Tensor:
        with precise():
            return plain(batch)

    for _ in backward_over(forward, iter(batches)):
        pass
    return take_gradients(parameters)


def with_shuffled_labels(batches: Sequence[Batch]) -> list[Batch]:
    """Return the same inputs with the target tokens permuted over the set."""
    targets = torch.cat([batch.targets for batch in batches])
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(_SEED))
    sizes = [len(batch.targets) for batch in batches]
    parts = torch.split(targets[order.to(targets.device)], sizes)
    return [replace(batch, targets=part) for batch, part in zip(batches, parts, strict=True)]
