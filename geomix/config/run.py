"""The configuration of a run: one small tree, with a field for every key of a YAML file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveFloat,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from geomix.config.data import (
    Count,
    Data,
    Mix,
    MixConfig,
    Name,
    Replay,
    Seed,
    Strict,
    known_chat_template,
    mixes_of,
    source_name,
)
from geomix.config.document import Key, Origin, origin_at
from geomix.config.evaluate import EvaluateConfig
from geomix.config.methods import Methods
from geomix.config.recording import RecordConfig
from geomix.config.training import StopConfig, TrainConfig


def _looking_back(stages: list[StageConfig]) -> list[StageConfig]:
    """Reject a replay of stages that do not come before it; convert named stages to indices."""
    mistakes: list[InitErrorDetails] = []
    found = list(stages)
    for index, stage in enumerate(stages):
        if stage.replay is None:
            continue
        named = stage.replay.stages or []
        earlier = [_name_of(one) for one in stages[:index]]
        matches = [_matches(one, earlier) for one in named]
        indices = [match for each in matches for match in each]
        listed = ", ".join(f"{position} ({name})" for position, name in enumerate(earlier))
        if index == 0:
            why = "the first stage has none before it to replay"
        elif any(len(each) > 1 for each in matches):
            why = f"several stages have this name; give the index: {listed}"
        elif not all(matches):
            why = f"only the stages before it can be replayed: {listed}"
        elif len(set(indices)) < len(indices):
            why = "a stage is named twice"
        else:
            if named:
                replay = stage.replay.model_copy(update={"stages": indices})
                found[index] = stage.model_copy(update={"replay": replay})
            continue
        loc: tuple[int | str, ...] = (index, "replay", *(["stages"] if index else []))
        error = PydanticCustomError("replay", "{why}", {"why": why})
        mistakes.append({"type": error, "loc": loc, "input": named or stage.replay.ratio})
    if mistakes:
        raise ValidationError.from_exception_data("stages", mistakes)
    return found


def _matches(asked: int | str, names: list[str]) -> list[int]:
    """Return the indices of the stages that an index or a name means."""
    return [index for index, name in enumerate(names) if asked in (index, name)]


def _reused_first(stages: list[StageConfig]) -> list[StageConfig]:
    """Reject a reused stage after a trained one: it would undo the training."""
    trained = [index for index, stage in enumerate(stages) if stage.from_ is None]
    late = [i for i, stage in enumerate(stages) if trained and stage.from_ and i > trained[0]]
    if late:
        why = {"why": f"stages[{trained[0]}] is trained before it, which this would undo"}
        error = PydanticCustomError("from", "{why}", why)
        raise ValidationError.from_exception_data(
            "stages",
            [{"type": error, "loc": (i, "from"), "input": stages[i].from_} for i in late],
        )
    return stages


class StageConfig(Strict):
    """One stage of fine-tuning."""

    name: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$", max_length=100)] = ""
    """Name of the stage's folder; by default that of its source."""
    from_: Annotated[str, Field(min_length=1)] | None = Field(default=None, alias="from")
    """Finished stage of another run to reuse instead of training this one: the run's folder (its
    stage of the same index is meant, of a run with arms that of the arm of the same name), an arm's
    (`RUN/arms/plain`) or the stage's (`RUN/stages/0-kvr`). It must have been trained on the same
    examples. The stages before it must be reused too."""
    data: Data
    """The stage's own examples."""
    mix: Mix = None
    """Examples mixed in; a list mixes several sources in, each a set of its own."""
    replay: Replay = None
    """Examples of earlier stages mixed in; a number is their ratio."""
    method: Methods = ()
    """Methods that extend plain fine-tuning: a method's name, or `{name: …, strength: …}` with the
    method's own keys, or a list of these, which act in its order."""
    stop: StopConfig = StopConfig()
    """End of the stage."""
    train: TrainConfig = TrainConfig()
    """Training of the stage, with the top-level `train` already merged in."""

    @property
    def mixes(self) -> dict[str, MixConfig]:
        """The stage's mixes by set name: `D_M`, `D_M-prose`."""
        return mixes_of(self.mix)

    @model_serializer(mode="wrap")
    def _without_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit `method` if there is none, so that earlier configurations keep their hash."""
        found: dict[str, Any] = handler(self)
        if not self.method:
            found.pop("method", None)
        return found


def _name_of(stage: StageConfig) -> str:
    return stage.name or source_name(stage.data.source)


class CheckpointConfig(Strict):
    """Schedule of the checkpoints from which a killed run resumes.

    The end of every stage is always kept, and SIGTERM or Ctrl-C saves before the run ends. None of
    this affects the training.
    """

    minutes: PositiveFloat | None = 10.0
    """Minutes between two saves; null disables the clock."""
    steps: Count | None = None
    """Steps of a stage between two saves."""
    keep: Count = 2
    """Number of checkpoints kept within a stage, the newest ones; they are removed at its end."""


Tracker = Literal[
    "tensorboard", "wandb", "trackio", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab"
]
"""Trackers that accelerate's `log_with` knows."""

Quirk = Literal[
    "padding-loss",
    "pad-to-set",
    "fixed-order",
    "drop-last",
    "bf16-weights",
    "empty-answers",
    "newline-loss",
    "zero-warmup",
]
"""A difference between the paper's published code and its text."""


def _all_or_none(value: Any) -> Any:
    """Expand `paper_literal: true` to the list of all quirks."""
    return (get_args(Quirk) if value else ()) if isinstance(value, bool) else value


_WITHOUT_EFFECT = {"name", "checkpoint", "parallel", "trackers"}
"""Keys that do not affect a run's outcome."""


@dataclass(frozen=True, slots=True)
class _Written:
    """Origins of the keys; they do not count when configurations are compared."""

    origins: Mapping[Key, Origin] = field(default_factory=dict, compare=False)


class RunConfig(Strict):
    """A run: a base model and the stages that it goes through."""

    name: Name = "run"
    """Name of the run; its folder's name ends in it. By default that of the YAML file."""
    model: Annotated[str, Field(min_length=1)] = "builtin"
    """Base model: `builtin`, a local folder, or a hub id of any causal LM of transformers."""
    seed: Seed = 0
    """Seed of the generated data and of the order of the examples."""
    chat_template: Annotated[str, AfterValidator(known_chat_template)] = "tulu"
    """Chat format: `tulu` (Tulu v2, the paper's), `tokenizer` (the tokenizer's own), the path of a
    `.jinja` file, or a text that holds `{prompt}` and then `{target}`; the end token follows the
    target."""
    paper_literal: Annotated[
        tuple[Quirk, ...],
        BeforeValidator(_all_or_none, json_schema_input_type=bool | list[Quirk]),
    ] = ()
    """Deviations of the paper's published code from its text: `true` for all, or a list.
    `padding-loss`: rows are padded to their batch's longest with end tokens that carry loss;
    `fixed-order`: every epoch has the first one's order; `drop-last`: the last, partial batch is
    never trained on; `bf16-weights`: no float32 copy of the weights; `empty-answers`: WebQA's
    questions without an answer are kept, and score as right; `pad-to-set`: with `padding-loss`, to
    the longest example of all that the stage trains on; `newline-loss`: in a conversation, the line
    break after an inner answer carries loss; `zero-warmup`: the warm-up's first step has rate 0."""
    max_tokens: Count = 2048
    """Tokens of the longest example that is used, including the chat format; the default is the
    paper's length. At most the model's number of positions. Longer examples are never truncated:
    they are left out, counted in `data.json`, and others of their source replace them."""
    stages: Annotated[
        list[StageConfig],
        Field(min_length=1),
        AfterValidator(_looking_back),
        AfterValidator(_reused_first),
    ]
    """The stages, in order."""
    train: TrainConfig = TrainConfig()
    """Training of every stage, unless its own `train` overrides it."""
    record: RecordConfig | None = RecordConfig()
    """Recording; null records nothing."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Retention measurements."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Checkpoints from which a killed run resumes."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Parallelism of several processes, started by `torchrun` or `accelerate launch`: with `ddp`
    each holds the whole model, with `fsdp` (FSDP2) a shard of all that it needs."""
    trackers: tuple[Tracker, ...] = ()
    """Experiment trackers that also receive the metrics, each a package of its own: `tensorboard`,
    `wandb`, … They find their own tokens; none is written into the run."""

    @model_validator(mode="after")
    def _kept_whole(self) -> RunConfig:
        """Reject recorded weights while adapters train, since these would not be merged in yet."""
        lora = [i for i, stage in enumerate(self.stages) if stage.train.lora and not stage.from_]
        if self.record is not None and self.record.weights and lora:
            why = {"why": f"stages[{lora[0]}] trains adapters, which they would lack; leave it out"}
            error = PydanticCustomError("weights", "{why}", why)
            raise ValidationError.from_exception_data(
                "RunConfig",
                [{"type": error, "loc": ("record", "weights"), "input": self.record.weights}],
            )
        return self

    @model_validator(mode="after")
    def _is_measured(self) -> RunConfig:
        """Reject a stopping rule on exact match if that is never measured within a stage."""
        if self.evaluate.epochs == 0 and self.evaluate.steps is None:
            why = {"why": "never looked at with evaluate.epochs: 0; set that to 1"}
            mistakes: list[InitErrorDetails] = [
                {
                    "type": PydanticCustomError("stop", "{why}", why),
                    "loc": ("stages", index, "stop", "exact_match"),
                    "input": stage.stop.exact_match,
                }
                for index, stage in enumerate(self.stages)
                if stage.stop.exact_match is not None
            ]
            if mistakes:
                raise ValidationError.from_exception_data("RunConfig", mistakes)
        return self

    _written: _Written = PrivateAttr(default=_Written())

    def written_in(self, origins: Mapping[Key, Origin]) -> Self:
        """Return the same configuration with the origins of its keys, for messages."""
        found = self.model_copy()
        found._written = _Written(dict(origins))
        return found

    def location(self, *key: str | int) -> str:
        """Return a key with its origin: `my.yaml:5 stages[0].data.source`, as far as known."""
        return str(origin_at(self._written.origins, key)).lstrip()

    def stage_name(self, index: int) -> str:
        """Return the stage's own name, else its source's (for a file, the file's name)."""
        return _name_of(self.stages[index])

    def content_hash(self, *without: str) -> str:
        """Return a hash of everything that decides the run's outcome, without its name etc.

        Args:
            without: further keys to ignore.
        """
        content = self.model_dump(mode="json", exclude=_WITHOUT_EFFECT | {*without})
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def flat(config: RunConfig) -> dict[str, Any]:
    """Return the keys that decide a run's outcome, dotted, for a comparison of two runs."""
    found: dict[str, Any] = {}

    def walk(value: Any, key: str) -> None:
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            value = dict(enumerate(value))
        if not isinstance(value, dict) or not value:
            found[key] = value
            return
        for name, item in value.items():
            walk(item, f"{key}.{name}".lstrip("."))

    walk(config.model_dump(mode="json", exclude=_WITHOUT_EFFECT), "")
    return found
