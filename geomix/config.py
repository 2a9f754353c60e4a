"""What a run is: one small tree. Every key that a YAML file may hold is a field here."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import InitErrorDetails, PydanticCustomError


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


FILE_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""What the name of a file of the user's own examples ends in."""


def is_file(source: str) -> bool:
    """Whether a source is the path of a file of the user's own examples."""
    return source.endswith(FILE_SUFFIXES)


def is_hub_id(source: str) -> bool:
    """Whether a source has the form of a hub id, `owner/name`."""
    return not is_file(source) and bool(re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", source))


def _known_source(name: str, info: ValidationInfo) -> str:
    """Refuse what is no registered source, file or hub id; the caller says what is registered."""
    known = (info.context or {}).get("sources")
    if known is None or name in known or is_file(name) or is_hub_id(name):
        return name
    files = ", ".join(FILE_SUFFIXES)
    raise ValueError(
        f"unknown source '{name}'; known: {', '.join(known)}, a file ({files}) or owner/name"
    )


JINJA_SUFFIX = ".jinja"
"""What the name of a file that holds a Jinja chat template ends in."""


def known_chat_template(name: str) -> str:
    """Give back what can name a chat format; a file is not opened.

    Raises:
        ValueError: it is no name, path or plain format.
    """
    if name in ("tulu", "tokenizer") or name.endswith(JINJA_SUFFIX):
        return name
    places = [name.find(part) for part in ("{prompt}", "{target}")]
    once = all(name.count(part) == 1 for part in ("{prompt}", "{target}"))
    if once and places == sorted(places):
        return name
    raise ValueError(
        "give 'tulu', 'tokenizer', a path ending in .jinja, or a text that holds {prompt} and "
        "then {target}, each once"
    )


def _source_alone(value: Any) -> Any:
    """`data: kvr` stands for `data: {source: kvr}`."""
    return {"source": value} if isinstance(value, str) else value


def _ratio_alone(value: Any) -> Any:
    """`replay: 0.1` stands for `replay: {ratio: 0.1}`."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"ratio": value} if number else value


def _looking_back(stages: list[StageConfig]) -> list[StageConfig]:
    """Refuse a replay of stages that do not come before it."""
    mistakes: list[InitErrorDetails] = []
    for index, stage in enumerate(stages):
        if stage.replay is None:
            continue
        named = stage.replay.stages or []
        if index == 0:
            why = "the first stage has none before it to replay"
        elif max(named, default=0) >= index:
            why = f"stage {index} can replay only those before it, 0 to {index - 1}"
        elif len(set(named)) < len(named):
            why = "a stage is named twice"
        else:
            continue
        loc: tuple[int | str, ...] = (index, "replay", *(["stages"] if index else []))
        error = PydanticCustomError("replay", "{why}", {"why": why})
        mistakes.append({"type": error, "loc": loc, "input": named or stage.replay.ratio})
    if mistakes:
        raise ValidationError.from_exception_data("stages", mistakes)
    return stages


def _scheduled(at: list[str | int]) -> list[str | int]:
    """Refuse what `geomix.record.schedule` cannot read."""
    for item in at:
        if not re.fullmatch("boundaries|(log|every):[1-9][0-9]{0,8}|[0-9]{1,9}", str(item)) or (
            isinstance(item, str) and item.isdigit()
        ):
            raise ValueError(
                f"{item!r:.30} is not 'boundaries', 'log:N', 'every:N' (N from 1) "
                "or a step's number from 0"
            )
    return at


Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
"""A number of things, of which there is at least one."""

CountOrNone = Annotated[int, Field(ge=0, le=1_000_000_000)]
"""A number of things, or 0."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
"""What can name a folder."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""What both numpy's and torch's generators take."""


class Columns(_Strict):
    """Which columns of the user's own rows are meant."""

    prompt: str = "prompt"
    """Column of the prompt; not looked at where `template` is given."""
    target: str = "target"
    """Column of the target."""
    aliases: str | None = None
    """Column that lists every accepted answer; null where only the target is one."""


class SourceConfig(_Strict):
    """Where examples come from."""

    source: Annotated[str, AfterValidator(_known_source)]
    """A source of `geomix data list`, a file (JSON, JSONL, CSV, TSV, Parquet), or a hub id."""
    seed: Seed | None = None
    """Seed of a generated source, and of the order in which a finite one's rows are taken; null
    takes the run's."""
    path: str | None = None
    """Local copy of a named source in its upstream format; null reads the hub."""
    subset: str | None = None
    """Part of a source: LAMA's `trex`, APPS's `interview`; of a hub id, `configuration:split`."""
    vocabulary: Literal["generated", "nltk"] = "generated"
    """What `random-words` draws from: the built-in list, or the NLTK words corpus."""
    columns: Columns | None = None
    """Columns of a file or hub id; null means `prompt` and `target`."""
    template: str | None = None
    """Prompt of a file's or hub id's rows, columns in braces: `Where is {place}?`"""
    allow_repeat: bool = False
    """Whether a source that holds fewer examples than are asked for is repeated to their number,
    whole rounds first; else that is an error."""


class FamiliarConfig(_Strict):
    """Which facts are meant, by what the base model knows of them before the first stage.

    A fact is familiar if the first line of the base model's greedy continuation is one of its
    answers, stripped and lower-cased.
    """

    facts: Literal["drop", "only"]
    """`drop` leaves the familiar ones out, as the paper does for training; `only` takes them."""
    prompt: Literal["few-shot", "plain"] = "few-shot"
    """What is continued: the prompt behind solved examples of the held-out split, or alone."""
    shots: Annotated[int, Field(ge=1, le=100)] = 4
    """How many solved examples."""


def _facts_alone(value: Any) -> Any:
    """`familiar: drop` stands for `familiar: {facts: drop}`."""
    return {"facts": value} if isinstance(value, str) else value


class DataConfig(SourceConfig):
    """The examples of one stage."""

    limit: Annotated[int, Field(ge=1, le=10_000_000)] = 100
    """How many examples."""
    split: Literal["train", "id", "held-out"] = "train"
    """`id`: unseen examples of the same distribution (the paper's in-domain stage 2)."""
    familiar: Annotated[FamiliarConfig | None, BeforeValidator(_facts_alone)] = None
    """Whether facts that the base model knows are left out, or are the only ones; null asks not."""


class MixConfig(SourceConfig):
    """Examples of D_M that are added to a stage."""

    ratio: Annotated[float, Field(ge=0, le=1_000)] = 2.0
    """Examples of D_M for each example of the stage's own data; the paper's 1:2 is 2, and 0 mixes
    nothing in: the zero arm of a study of ratios."""
    words: Annotated[int, Field(ge=1, le=100_000)] = 50
    """Length of a passage in words."""
    passage_free: bool = False
    """The control: this mix's own batches, steps and schedule with the D_M examples left out."""


class ReplayConfig(_Strict):
    """Examples of earlier stages that a stage trains on again."""

    ratio: Annotated[float, Field(gt=0, le=1)]
    """Share of each earlier stage's own examples; to replay nothing leave `replay` out."""
    stages: Annotated[list[CountOrNone], Field(min_length=1)] | None = None
    """Which earlier stages, the first is 0; null means all of them."""
    seed: Seed | None = None
    """Seed of the choice; null takes the run's."""


class StopConfig(_Strict):
    """When a stage ends."""

    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Passes over the stage's examples."""


class TrainConfig(_Strict):
    """How a stage trains. Given at the top for all stages; a stage's own `train` overrides keys."""

    lr: PositiveFloat = 5e-5
    """Peak learning rate of AdamW."""
    batch_size: Count = 32
    """Examples in a step, mixed-in ones included."""
    micro_batch_size: Count = 128
    """Most examples in one forward pass; a step's gradient is the same whatever it is."""
    pack: Count | None = 128
    """Width, in tokens, of rows that several examples of one source share; null gives each its own.
    Where an example is longer, it sets the width. The gradient is the same up to rounding."""
    loss: Literal["token", "example"] = "token"
    """Reduction: mean over target tokens, or over examples of each one's token mean."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the learning rate after the warm-up, anew in every stage."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the stage's steps over which the learning rate rises from zero."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.95,
    )
    """AdamW's decay rates of the first and second moment."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's decoupled weight decay."""
    clip: PositiveFloat | None = 1.0
    """Largest norm of a step's gradient; null does not clip."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16` computes in bfloat16 and keeps float32 weights."""


class StageConfig(_Strict):
    """One stage of fine-tuning."""

    name: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$", max_length=100)] = ""
    """Name of its folder; by default that of its source."""
    data: Annotated[DataConfig, BeforeValidator(_source_alone)]
    """The stage's own examples."""
    mix: Annotated[MixConfig | None, BeforeValidator(_source_alone)] = None
    """Examples mixed in."""
    replay: Annotated[ReplayConfig | None, BeforeValidator(_ratio_alone)] = None
    """Examples of earlier stages mixed in; a number is their ratio."""
    stop: StopConfig = StopConfig()
    """When it ends."""
    train: TrainConfig = TrainConfig()
    """How it trains, the top-level `train` already merged in."""


class RecordConfig(_Strict):
    """What the recorder writes while the run trains.

    The probe sets' loss has the first stage's reduction and precision in the whole run.
    """

    at: Annotated[list[str | int], AfterValidator(_scheduled)] = ["boundaries", "log:4"]
    """When: `boundaries`, `log:N` and `every:N` steps in each stage, or a step's number."""
    probes: Count = 128
    """Most examples in a probe set; a larger set is represented by its first examples."""
    batch_size: Count = 32
    """Examples in one forward and backward pass of a snapshot."""
    mix: Annotated[MixConfig | None, BeforeValidator(_source_alone)] = None
    """The D_M probe set of a run that mixes nothing in; else the first stage's mix is taken."""
    activations: CountOrNone = 16
    """Of how many examples a set the residual activations and their gradients are kept."""


def _no_set_of_a_stage(name: str) -> str:
    if re.fullmatch("D_[A-Z]|held-out|replay", name):
        raise ValueError(f"'{name}' is the name of a set that geomix makes; take another")
    return name


class EvaluateConfig(_Strict):
    """When retention is measured: always at stage boundaries, and in between."""

    epochs: CountOrNone = 1
    """Every how many epochs; 0 for the boundaries only."""
    batch_size: Count = 128
    """Examples in one scoring pass."""
    sets: dict[Annotated[Name, AfterValidator(_no_set_of_a_stage)], DataConfig] = {}
    """Sets that are evaluated and never trained on, by name: familiar facts (the paper's tables 5
    and 6), another source, paraphrases."""


class RunConfig(_Strict):
    """A run: a base model and the stages that it goes through."""

    name: Name = "run"
    """Name of the run; its folder's name ends in it. By default that of the YAML file."""
    model: Annotated[str, Field(min_length=1)] = "builtin"
    """`builtin`, a local folder, or a hub id of any causal LM of transformers."""
    seed: Seed = 0
    """Seed of the generated data and of the order of the examples."""
    chat_template: Annotated[str, AfterValidator(known_chat_template)] = "tulu"
    """`tulu` (Tulu v2, the paper's), `tokenizer` (the tokenizer's own), the path of a `.jinja`
    file, or a text that holds `{prompt}` and then `{target}`; the end token follows the target."""
    max_tokens: Count = 2048
    """Tokens of the longest example that is used, with the chat format around it, the paper's
    length; no more than the model has positions. Longer ones are never cut: they are left out,
    counted in `data.json`, and others of their source take their places."""
    stages: Annotated[list[StageConfig], Field(min_length=1), AfterValidator(_looking_back)]
    """The stages, in order."""
    train: TrainConfig = TrainConfig()
    """How every stage trains, unless its own `train` says otherwise."""
    record: RecordConfig | None = RecordConfig()
    """What is recorded; null records nothing."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """When retention is measured."""

    def stage_name(self, index: int) -> str:
        """The stage's own name, else its source's (of a file, the file's name)."""
        stage = self.stages[index]
        name = stage.name or stage.data.source.rsplit("/", 1)[-1]
        for suffix in FILE_SUFFIXES if is_file(name) and not stage.name else ():
            name = name.removesuffix(suffix)
        return name

    def content_hash(self) -> str:
        """Hash of everything that decides the run's outcome: its name left out."""
        content = self.model_dump(mode="json", exclude={"name"})
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()
