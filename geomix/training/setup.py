"""Preparation of a model and its optimiser for one stage, and restoration of an ordinary model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from geomix.config.run import RunConfig
from geomix.models.distributed import Workers, gathered
from geomix.models.load import LoadedModel
from geomix.models.meta import weightless
from geomix.training.checkpoint import Checkpoint, restore, training_state
from geomix.training.methods.applied import Applied, applied, check_methods
from geomix.training.observer import SecondMoments
from geomix.training.optimiser import EPS, make_optimiser, second_moments
from geomix.training.stage import Stage
from geomix.training.step import Stepper, row_width, seed_dropout
from geomix.training.trainable import (
    adapters,
    attach,
    merge,
    set_trained,
    trained_names,
    without_adapters,
)
from geomix.training.update_shares import Shares
from geomix.util.errors import UserError


@dataclass
class Setup:
    """Training setup of one stage: its trainable parameters, the optimiser, the steps.

    Attributes:
        loaded: the model, in the stage's precision, its adapters attached.
        workers: the processes that share the training.
        stepper: takes the steps.
        tuner: argument of `merge`; None without adapters.
    """

    loaded: LoadedModel
    workers: Workers
    stepper: Stepper
    tuner: Any

    @classmethod
    def of(
        cls,
        config: RunConfig,
        stage: Stage,
        loaded: LoadedModel,
        workers: Workers,
        start: Checkpoint | None,
        methods: Applied | None = None,
    ) -> Setup:
        """Prepare the model for a stage, at its start or at a checkpoint."""
        model, train = loaded.model, stage.config.train
        model.to(weights_dtype(config, stage.index))
        where = f"stages[{stage.index}].train"
        tuner = None
        if train.lora is not None:
            seed_dropout(config.seed, stage.index, 2**32, 0)  # A is the same in every process
            tuner = attach(model, train.lora, f"{where}.lora")
        else:
            set_trained(model, trained_names(model, train.trainable, f"{where}.trainable"))
        checkpointing(model, on=train.gradient_checkpointing)
        workers.prepare(model)
        optimiser = make_optimiser(model, train)
        shares = None
        if train.update_shares:
            named = {name: p for name, p in model.named_parameters() if p.requires_grad}
            shares = Shares(named, train.betas[0])
        if start is not None:
            restore(start, model, optimiser, shares, methods)
        stepper = Stepper(
            model,
            optimiser,
            train,
            loaded.pad_id,
            loaded.device,
            row_width(train, loaded),
            workers,
            workers.wrapped(model),
            shares,
            methods,
        )
        return cls(loaded, workers, stepper, tuner)

    def state(self) -> dict[str, Tensor]:
        """Return the complete training state without the weights."""
        stepper = self.stepper
        return training_state(self.loaded.model, stepper.optimiser, stepper.shares, stepper.methods)

    def weights(self) -> dict[str, Tensor] | None:
        """Return the model's weights if it does not hold them as saved; else None."""
        return whole_weights(self.loaded, self.workers)

    def second_moments(self, stage: int, step: int) -> SecondMoments:
        """Return Adam's v̂ after a step of the stage."""
        model, optimiser = self.loaded.model, self.stepper.optimiser
        return SecondMoments(stage, step, EPS, partial(second_moments, model, optimiser))

    def update(self) -> Callable[[], Mapping[str, Mapping[str, Tensor]]] | None:
        """Return a function for the parts of the last step; None if they are unknown."""
        shares = self.stepper.shares
        return None if shares is None else partial(shares.parts, self.stepper.optimiser)

    def finish(self) -> Mapping[str, Tensor]:
        """Make the model an ordinary one again, with all parameters trainable; return Adam's v̂."""
        model = self.loaded.model
        found = second_moments(model, self.stepper.optimiser)
        moments = {name: gathered(moment) for name, moment in found.items()}
        if self.tuner is not None:
            merge(self.tuner)
        set_trained(model, {name for name, _ in model.named_parameters()})
        checkpointing(model, on=False)
        model.eval()
        return moments


def whole_weights(loaded: LoadedModel, workers: Workers) -> dict[str, Tensor] | None:
    """Return the weights by name, unsharded and without adapters; None if held that way."""
    model = loaded.model
    if workers.world > 1 and workers.kind == "fsdp":
        parameters = dict(model.named_parameters(remove_duplicate=False))
        seen: dict[int, Tensor] = {}
        for parameter in parameters.values():  # tied ones once
            if id(parameter) not in seen:
                seen[id(parameter)] = gathered(parameter.detach())
        saved = model.state_dict(keep_vars=True)
        return {k: seen[id(v)] if id(v) in seen else v.detach() for k, v in saved.items()}
    return without_adapters(model.state_dict()) if adapters(model) else None


def weights_dtype(config: RunConfig, stage: int) -> torch.dtype:
    """Return the dtype of a stage's weights."""
    pure = config.stages[stage].train.precision == "bf16-pure"
    return torch.bfloat16 if pure or "bf16-weights" in config.paper_literal else torch.float32


def checkpointing(model: Any, *, on: bool) -> None:
    """Recompute the layers' activations in the backward pass, or store them."""
    is_on = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    if on == is_on:
        return
    name = "activation_checkpointing"  # transformers' new name for it
    kind = name if hasattr(model, f"{name}_enable") else "gradient_checkpointing"
    if on:
        getattr(model, f"{kind}_enable")({"use_reentrant": False})
    else:
        getattr(model, f"{kind}_disable")()


def check_setup(config: RunConfig, loaded: LoadedModel) -> None:
    """Find obstacles to training a later stage before the first one starts.

    Raises:
        UserError: a pattern matches no parameter, or no module can have an adapter.
    """
    for index, stage in enumerate(config.stages):
        where = f"stages[{index}].train"
        if stage.train.update_shares and applied(stage.method) is not None:
            raise UserError(
                f"{where}.update_shares: a method changes the update, which is then no sum over "
                "sources; leave one of them out"
            )
        if stage.train.gradient_checkpointing and not getattr(
            loaded.model, "supports_gradient_checkpointing", False
        ):
            raise UserError(f"{where}.gradient_checkpointing: this model has none; leave it out")
        if stage.train.lora is None:
            trained_names(loaded.model, stage.train.trainable, f"{where}.trainable")
        else:
            with torch.device("meta"):
                empty = weightless(loaded.model.config, torch.float32)
            attach(empty, stage.train.lora, f"{where}.lora")


def check_workers(config: RunConfig, workers: Workers) -> None:
    """Reject settings that several processes cannot share.

    Raises:
        UserError: says what to change.
    """
    for index, stage in enumerate(config.stages):
        check_methods(stage.method, f"stages[{index}]", workers)
    if workers.world == 1 or workers.kind == "ddp":
        return
    if config.record is not None and config.record.sketches is not None:
        raise UserError(
            "parallel: fsdp: record.sketches needs whole weights in each process; leave it out or "
            "set parallel: ddp"
        )
    if any(stage.train.lora for stage in config.stages):
        raise UserError("parallel: fsdp: adapters are not sharded; set parallel: ddp with lora")
    if len({weights_dtype(config, index) for index in range(len(config.stages))}) > 1:
        raise UserError("parallel: fsdp: bf16-pure must be the precision of all stages or of none")
