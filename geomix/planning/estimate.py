"""Estimated cost of a stage: padding and memory, before anything is downloaded or trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from geomix.config.data import JINJA_SUFFIX
from geomix.config.run import RunConfig
from geomix.config.training import TrainConfig
from geomix.data.batch import with_padding_loss
from geomix.data.chat import chat_format
from geomix.data.example import Example, TokenisedExample
from geomix.data.plan import StagePlan
from geomix.data.tokenise import tokenise_all
from geomix.models.positions import positions_of
from geomix.planning.base_model import (
    Base,
    Kind,
    base_of,
    groups_in,
    memory_in,
    modules_in,
    size_in,
)
from geomix.planning.memory import (
    Memory,
    MicroBatch,
    Size,
    largest,
    micro_batches,
)
from geomix.training.setup import weights_dtype

PACKED = 50
"""Most batches of a stage that are laid out; more are extrapolated from these."""


@dataclass(frozen=True, slots=True)
class Packing:
    """Packing of a stage's examples into rows.

    Attributes:
        padding: share of padding in all tokens of the batches, 0 to 1.
        packed: number of batches laid out, the first ones.
        batches: of an epoch.
        micro: the largest forward pass among them, in tokens and separately in targets.
        passes: most forward passes of a step, in each process.
        tokens: of the batches laid out, padding included.
    """

    padding: float
    packed: int
    batches: int
    micro: MicroBatch
    passes: int
    tokens: int


@cache
def _tokens(model: str, template: str) -> dict[Example, TokenisedExample]:  # noqa: ARG001
    """Return the cache of a model's examples tokenised in a format: arms and stages share most."""
    return {}


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm of an experiment with its examples, ready to be estimated.

    Attributes:
        config: of the arm.
        plans: of its stages.
        probes: sets that are recorded, whole.
        evaluated: sets that are evaluated besides the stages' own.
    """

    config: RunConfig
    plans: Sequence[StagePlan]
    probes: Mapping[str, Sequence[Example]]
    evaluated: Mapping[str, Sequence[Example]]

    @property
    def base(self) -> Base:
        """The arm's base model."""
        return base_of(self.config.model)

    def kind(self, index: int) -> Kind:
        """Return a stage's kind of training; a reused stage leaves the model as loaded."""
        stage = self.config.stages[index]
        train = stage.train if stage.from_ is None else TrainConfig(precision=stage.train.precision)
        trained = train.model_dump_json(include={"lora", "trainable"})
        dtype = weights_dtype(self.config, index)
        again = train.gradient_checkpointing
        return Kind(self.config.model, dtype, train.precision, trained, again)

    def size(self, index: int) -> Size | None:
        """Return the size of the model as a stage trains it; None if its shape is unknown."""
        return None if self.base.config is None else size_in(self.kind(index))

    def groups(self, index: int) -> tuple[int, int]:
        """Return the bytes that FSDP gathers at once: outside of the layers, and the largest."""
        return groups_in(self.kind(index))

    def packing(self, index: int, processes: int = 1) -> Packing:
        """Lay out the first epoch of a stage as training does, in each of so many processes."""
        plan, stage = self.plans[index], self.config.stages[index]
        batches = plan.batches(self.config.seed, index, 0, stage.train.batch_size)
        packed = [plan.by_set(batch) for batch in batches[:PACKED]]
        tokens = {
            name: dict(zip(wanted, self._tokenise([part.examples[i] for i in wanted]), strict=True))
            for name, part in plan.sets.items()
            for wanted in [sorted({i for batch in packed for i in batch[name]})]
        }
        real, slots, shapes, passes = 0, 0, [MicroBatch(1, 1, 1)], 0
        longest = self._padded_to(plan)
        for batch in packed:
            sources = {n: [tokens[n][i] for i in indices] for n, indices in batch.items()}
            sources = {n: [e for e in s if len(e.ids) <= self._longest] for n, s in sources.items()}
            real += sum(len(e.ids) for examples in sources.values() for e in examples)
            if "padding-loss" in self.config.paper_literal:
                sources = with_padding_loss(sources, longest)
            for rank in range(processes):
                shares = [examples[rank::processes] for examples in sources.values()]
                found = self._shapes(shares, stage.train.micro_batch_size, index)
                slots += sum(shape.tokens for shape in found)
                passes = max(passes, len(found))
                shapes += found
        padding = 1 - real / slots if slots else 0.0
        return Packing(padding, len(packed), len(batches), largest(shapes), passes, slots)

    def _shapes(
        self, sets: Iterable[Sequence[TokenisedExample]], size: int, index: int
    ) -> list[MicroBatch]:
        width = self._width(index)
        return [shape for examples in sets for shape in micro_batches(examples, size, width)]

    def memory(self, index: int, packing: Packing) -> int | None:
        """Return the peak bytes of a step; None if the model's shape is unknown."""
        found = self.memory_parts(index, packing)
        if found is None:
            return None
        return found.step(packing.passes) + self.copies(index) * found.gradients

    def copies(self, index: int) -> int:
        """Return how many copies of gradients or weights are held beside a training step."""
        train, sets = self.config.stages[index].train, len(self.plans[index].sets)
        return sets * train.update_shares + self._between(index)

    def memory_parts(self, index: int, packing: Packing) -> Memory | None:
        """Return the parts of a step's memory; None if the model's shape is unknown."""
        if self.base.config is None:
            return None
        return memory_in(self.kind(index), packing.micro)

    def snapshot_memory(self) -> int | None:
        """Return the peak bytes of a snapshot; None if nothing is recorded or the shape is unknown.

        All stages' snapshots use the first one's precision, and each stage's trained parameters; a
        reused stage has no optimiser, and all of its parameters train.
        """
        most = 0
        for index, stage in enumerate(self.config.stages):
            found = self.snapshot_parts(index)
            if found is None:
                return None
            absent = 0 if stage.from_ is None else found.adam
            beside = self._path(index) * found.gradients
            most = max(most, found.snapshot(self.held) - absent + beside)
        return most

    def snapshot_parts(self, index: int, processes: int = 1) -> Memory | None:
        """Return the parts of a snapshot's memory in a stage; None as in `snapshot_memory`."""
        record = self.config.record
        if record is None or self.base.config is None:
            return None
        sets = self.recorded().values()
        shares = [examples[rank::processes] for examples in sets for rank in range(processes)]
        shapes = self._shapes(shares, record.batch_size, 0)
        precision = self.config.stages[0].train.precision
        return memory_in(replace(self.kind(index), precision=precision), largest(shapes))

    def record_copies(self, index: int) -> int:
        """Return how many further copies of gradients or weights a stage's snapshot holds."""
        return self.held + self._path(index)

    @property
    def held(self) -> int:
        """Number of probe sets' gradients in memory at once."""
        return 1 if self._on_disk else len(self.probes)

    @property
    def _on_disk(self) -> bool:
        return self.config.record is not None and self.config.record.scratch == "disk"

    def parts(self, index: int) -> int:
        """Return how many parts of each update a stage records, without the whole one."""
        train = self.config.stages[index].train
        known = train.update_shares and self.config.stages[index].from_ is None
        return len(self.plans[index].sets) + bool(train.weight_decay) if known else 0

    def _path(self, index: int) -> int:
        """Return the copies for the path: the previous weights, the midpoint's, and the parts."""
        midpoints = self.config.record is not None and self.config.record.midpoints
        return 2 + self.parts(index) + self._pairs(index) if midpoints else 0

    def _pairs(self, index: int) -> int:
        """Return the copies for pairs of segments: one segment's gradients, weights and parts."""
        if self.config.record is None or not self.config.record.pairs:
            return 0
        return (0 if self._on_disk else self.held) + 1 + self.parts(index)

    def _between(self, index: int) -> int:
        """Return the copies that the path holds during a step, whose own parts are new."""
        if not self._path(index):
            return 0
        held = (0 if self._on_disk else self.held) + 1 + 2 * self.parts(index)
        return held + self._pairs(index)

    def recorded(self) -> dict[str, list[TokenisedExample]]:
        """Return the examples whose gradients are recorded, by probe set."""
        record = self.config.record
        assert record is not None
        return {name: self._tokenise(e[: record.probes]) for name, e in self.probes.items()}

    def modules(self) -> int:
        """Return the number of modules whose outputs are recorded.

        Raises:
            UserError: a pattern matches none.
        """
        patterns = self.config.record.modules if self.config.record else ()
        return modules_in(self.config.model, patterns) if patterns else 0

    def _tokenise(self, examples: Sequence[Example]) -> list[TokenisedExample]:
        name = self.config.chat_template if self.base.own_tokenizer else "tulu"
        # A template's file may have changed by the next call; any other name is its own key.
        known = {} if name.endswith(JINJA_SUFFIX) else _tokens(self.config.model, name)
        new = [example for example in dict.fromkeys(examples) if example not in known]
        chat = chat_format(name, self.base.tokenizer)
        known.update(zip(new, tokenise_all(self.base.tokenizer, new, chat), strict=True))
        return [known[example] for example in examples]

    def _padded_to(self, plan: StagePlan) -> int | None:
        """Return the tokens to which a stage's examples are padded; None for a batch's longest."""
        if "pad-to-set" not in self.config.paper_literal:
            return None
        trained = [e for part in plan.sets.values() if part.trained for e in part.examples]
        lengths = [len(e.ids) for e in self._tokenise(trained)]
        return max((n for n in lengths if n <= self._longest), default=0)

    @property
    def _longest(self) -> int:
        if self.base.config is None:  # the model is not on this machine
            return self.config.max_tokens
        return positions_of(self.base.config).up_to(self.config.max_tokens)

    def _width(self, index: int) -> int | None:
        train = self.config.stages[index].train
        if train.pack is None or not self.base.packs:
            return None
        return min(train.pack, self._longest)
