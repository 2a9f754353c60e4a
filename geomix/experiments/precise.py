"""An arm's model for second derivatives: float32, evaluation mode, eager attention.

One model moves from checkpoint to checkpoint by exchanging its weights. Its sets are the whole
training sets, with the run's tokens and the loss reduction that training minimised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from geomix.config.names import HELD_OUT, REPLAY, checkpoint_name, letter_of, role_of
from geomix.config.recording import RecordConfig
from geomix.config.run import RunConfig
from geomix.data.chat import ChatFormat
from geomix.data.example import TokenisedExample
from geomix.data.tokenise import tokenise_all
from geomix.experiments.chat_templates import kept_templates
from geomix.experiments.checkpoints import Revisit, StoredCheckpoint, stored_checkpoints
from geomix.experiments.prepare import base_of, load_base, prepared_arms
from geomix.gradients.products import SetObjective, exchange
from geomix.gradients.vectors import Vector
from geomix.models.forward import batches_of
from geomix.models.load import LoadedModel, default_device, quiet_libraries
from geomix.runs.configs import stored_configs
from geomix.runs.directory import RunDirectory
from geomix.training.base_model import check_base
from geomix.training.stage import Stage
from geomix.training.trainable import trained_names
from geomix.util.errors import UserError

_ONE_BATCH = 4096
"""Most tokens, padding included, of a set that is one batch, whose graph can be kept."""

_SMALL = 1 << 27
"""Most parameters for one batch per set; larger models use batches of `record.batch_size`."""


@dataclass(eq=False)
class PreciseArm:
    """An arm with a model of its own, at one checkpoint at a time (`Weights`).

    Attributes:
        arm: its run directory.
        config: its configuration.
        loaded: the model, differentiable twice.
        parameters: those that train in any stage, by name.
        stages: its stages, with their examples as tokens.
        past: what its checkpoints are read with.
        stored: its checkpoints by name, in order.
    """

    arm: RunDirectory
    config: RunConfig
    loaded: LoadedModel
    parameters: dict[str, nn.Parameter]
    stages: list[Stage]
    past: Revisit
    stored: dict[str, StoredCheckpoint]
    _held: tuple[str, dict[str, Tensor]] | None = field(default=None)

    @classmethod
    def open(cls, arm: RunDirectory, *, attention: str | None = "eager") -> PreciseArm:
        """Load θ_0 and the examples of an arm, or of a run without arms.

        Args:
            arm: has started.
            attention: the implementation; None keeps the model's own, which may not be
                differentiable twice.

        Raises:
            UserError: a stage trained adapters, a source's data has changed, or the base model has.
        """
        quiet_libraries()
        (config,) = stored_configs(arm).values()
        for index, stage in enumerate(config.stages):
            if stage.train.lora is not None:
                raise UserError(
                    f"{arm.path}: stage {index + 1} trained adapters (train.lora), which its "
                    "checkpoints have merged; second derivatives need a run that trains weights"
                )
        recorded = config if config.record else config.model_copy(update={"record": RecordConfig()})
        device = default_device()
        ready = prepared_arms({"": recorded}, device, templates=kept_templates(arm))
        loaded, ready.loaded = ready.loaded or load_base(base_of(config), device), None
        check_base(arm, config.model, loaded)
        if attention is not None:
            loaded.model.set_attn_implementation(attention)  # type: ignore[operator]
        loaded.model.float().eval()
        past = Revisit(arm, recorded, ready, ready.prepared[""], ready.chats[""])
        parameters = _trained(config, loaded.model)
        stored = checkpoints_of(arm)
        return cls(arm, config, loaded, parameters, past.stages(), past, stored)

    @property
    def chat(self) -> ChatFormat:
        """The chat format that its examples were tokenised with."""
        return self.past.chat

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Checkpoints with weights, in order: `0`, `A`, `A+4`, …, `B`."""
        return tuple(self.stored)

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of sets for `objective`: `D_A`, `D_B`, …, `D_M`, `replay`, `held-out`."""
        replayed = [REPLAY] if any(REPLAY in stage.tokenised for stage in self.stages) else []
        probes = self.past.prepared.probes
        own = [stage.plan.name for stage in self.stages]
        return (
            *own,
            *(name for name in probes if role_of(name) == "mixed"),
            *replayed,
            *([HELD_OUT] * (HELD_OUT in probes)),
        )

    def weights(self, name: str) -> dict[str, Tensor]:
        """Return the trainable parameters at a checkpoint: float32, on the model's device.

        Raises:
            UserError: there is no such checkpoint, or it is damaged.
        """
        name = name.strip().removeprefix("theta_").removeprefix("θ_")
        if name not in self.stored:
            there = ", ".join(self.stored)
            raise UserError(f"{self.arm.path}: no weights of {name[:40]!r}; there are {there}")
        if self._held is None or self._held[0] != name:
            self._held = None
            found = self.past.weights(self.stored[name])
            self._held = name, {n: found[n].to(p) for n, p in self.parameters.items()}
        return dict(self._held[1])

    def here(self) -> dict[str, Tensor]:
        """Return the present weights of the parameters that train; read-only."""
        return {name: p.data for name, p in self.parameters.items()}

    def move_to(
        self, weights: str | Vector, direction: Vector | None = None, t: float = 0.0
    ) -> None:
        """Set the model's weights; nothing is written in place.

        Args:
            weights: θ, or the name of a checkpoint.
            direction: x; the model moves to θ + t·x, along the tensors of x.
            t: the fraction of x.

        Raises:
            UserError: there is no such checkpoint, or it is damaged.
        """
        there: Vector = self.weights(weights) if isinstance(weights, str) else weights
        if direction is not None and t:
            moved = {name: there[name].add(x, alpha=t) for name, x in direction.items()}
            there = {**there, **moved}
        exchange(self.parameters, there)

    def objective(
        self,
        name: str,
        stage: int | None = None,
        facts: int | None = None,
        batch_size: int | None = None,
    ) -> SetObjective:
        """Return the mean loss of a whole set, with the reduction of the stage that trained on it.

        Args:
            name: one of `sets`.
            stage: index from 0 of the stage whose D_M or replay, and whose reduction, is used; by
                default that of D_A's stage for D_A and so on, the first that mixes or replays for
                these, and the first one for the held-out set.
            facts: largest number of examples, the first ones; all by default.
            batch_size: examples in a pass; by default all of a small set, so that a graph can be
                kept, else `record.batch_size`.

        Raises:
            UserError: the arm has no such set.
        """
        examples, stage = self._examples(name, stage)
        return self.objective_of(examples, stage, facts, batch_size)

    def objective_of(
        self,
        examples: Sequence[TokenisedExample],
        stage: int = 0,
        facts: int | None = None,
        batch_size: int | None = None,
    ) -> SetObjective:
        """Return the mean loss of any examples, with the reduction of a stage; see `objective`."""
        chosen = examples if facts is None else examples[:facts]
        reduction = self.config.stages[stage].train.loss
        device, pad = self.loaded.device, self.loaded.pad_id
        size = batch_size or self._batch_size(chosen)
        batches = list(batches_of(chosen, reduction, size, pad, device))
        model = self.loaded.model
        found = (len(chosen), len(examples))
        return SetObjective(model, batches, reduction, self.parameters, *found)

    def examples(self, name: str, stage: int | None = None) -> list[TokenisedExample]:
        """Return the examples of a set as tokens; arguments as for `objective`."""
        return self._examples(name, stage)[0]

    def _examples(self, name: str, stage: int | None) -> tuple[list[TokenisedExample], int]:
        asked = self.stages if stage is None else [self.stages[stage]]
        for one in asked:  # D_M of the first stage that mixes is the probe set D_M
            if name in one.tokenised:
                return one.tokenised[name], one.index
        probes = self.past.prepared.probes
        if name not in probes:
            there = ", ".join(self.sets)
            raise UserError(f"{self.arm.path}: no set {name[:40]!r}; there are {there}")
        found = tokenise_all(self.loaded.tokenizer, probes[name], self.past.chat)
        own = next((s.index for s in self.stages if s.plan.name == name), 0)
        return found, own if stage is None else stage

    def _batch_size(self, examples: Sequence[TokenisedExample]) -> int:
        longest = max(len(example.ids) for example in examples)
        size = sum(p.numel() for p in self.loaded.model.parameters())
        if size <= _SMALL and longest * len(examples) <= _ONE_BATCH:
            return len(examples)
        record = self.past.config.record
        assert record is not None
        return record.batch_size


def checkpoints_of(arm: RunDirectory) -> dict[str, StoredCheckpoint]:
    """Return the names of the checkpoints with weights: `0`, `A`, `A+4`; nothing is loaded.

    Args:
        arm: has begun, and has no arms of its own.

    Raises:
        UserError: the steps of a finished stage are not known.
    """
    (config,) = stored_configs(arm).values()
    return {_name(checkpoint): checkpoint for checkpoint in stored_checkpoints(arm, config, bool)}


def _name(checkpoint: StoredCheckpoint) -> str:
    if checkpoint.last:
        return letter_of(checkpoint.stage)
    start = checkpoint_name(checkpoint.stage).removeprefix("θ_")
    return start + (f"+{checkpoint.step}" if checkpoint.step else "")


def _trained(config: RunConfig, model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that any stage trains; only these then require a gradient."""
    names: set[str] = set()
    for index, stage in enumerate(config.stages):
        names |= trained_names(model, stage.train.trainable, f"stages[{index}].train.trainable")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    return {name: p for name, p in model.named_parameters() if name in names}
