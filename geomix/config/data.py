"""The data part of a configuration: sources of examples, and which examples to take."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from geomix.config.names import mixed_name
from geomix.config.source_names import is_hub_id, is_path, unknown_source, without_suffix


class Strict(BaseModel):
    """Base model that rejects unknown keys, NaN and infinity; validated values do not change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        serialize_by_alias=True,  # `from` is a Python keyword
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_number_of_truth(cls, value: Any, info: ValidationInfo) -> Any:
        """Reject YAML's `yes` and `on` where a number belongs: true would count as 1."""
        given = value if isinstance(value, list) else [value]
        wants = cls.model_fields[str(info.field_name)].annotation
        if _numeric(wants) and any(isinstance(item, bool) for item in given):
            raise ValueError("give a number; yes, no, on, off, true and false are none")
        return value


def _numeric(annotation: Any) -> bool:
    """Return whether an annotation admits a number, alone or as an item."""
    return annotation in (int, float) or any(map(_numeric, get_args(annotation)))


def _known_source(name: str, info: ValidationInfo) -> str:
    """Reject names that are no registered source, file or hub id; the context lists the sources."""
    known = (info.context or {}).get("sources")
    if known is None or name in known or is_path(name) or is_hub_id(name):
        return name
    raise ValueError(unknown_source(name, known))


JINJA_SUFFIX = ".jinja"
"""Suffix of a file that holds a Jinja chat template."""


def known_chat_template(name: str) -> str:
    """Return a valid name of a chat format; a file is not opened.

    Raises:
        ValueError: it is no name, path or plain format.
    """
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise ValueError("it holds half a character (a lone \\ud800 … \\udfff)")
    if name in ("tulu", "tokenizer") or name.endswith(JINJA_SUFFIX):
        return name
    offsets = [name.find(part) for part in ("{prompt}", "{target}")]
    once = all(name.count(part) == 1 for part in ("{prompt}", "{target}"))
    if once and offsets == sorted(offsets):
        return name
    raise ValueError(
        "give 'tulu', 'tokenizer', a path ending in .jinja, or a text that holds {prompt} and "
        "then {target}, each once"
    )


def _source_alone(value: Any) -> Any:
    """Expand `data: kvr` to `data: {source: kvr}`."""
    return {"source": value} if isinstance(value, str) else value


def _ratio_alone(value: Any) -> Any:
    """Expand `replay: 0.1` to `replay: {ratio: 0.1}`."""
    return {"ratio": value} if isinstance(value, int | float | str) else value


Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
"""A count of at least 1."""

CountOrNone = Annotated[int, Field(ge=0, le=1_000_000_000)]
"""A count of at least 0."""


def _index_or_name(value: Any) -> Any:
    """Parse a stage's index, also given as digits, or its name."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if (type(value) is int and value >= 0) or (isinstance(value, str) and value):
        return value
    raise ValueError("must be a stage's name, or its index in the list `stages`, from 0")


StageRef = Annotated[int | str, BeforeValidator(_index_or_name, json_schema_input_type=int | str)]
"""A stage: its name, or its index in the list `stages`, counted from 0 as in the keys."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

Name = Annotated[str, Field(pattern=NAME, max_length=100)]
"""A valid folder name."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""A seed that numpy's and torch's generators both accept."""


class Columns(Strict):
    """Columns of the user's own rows.

    A name with dots is a path into nested fields, `requested_rewrite.target_new.str`, unless a
    column has that very name; a number in it is an index into a list, from 0: `answers.0`.
    """

    prompt: str = "prompt"
    """Column of the prompt; ignored if `template` is given."""
    target: str = "target"
    """Column of the target."""
    aliases: str | None = None
    """Column that lists every accepted answer; null accepts only the target."""
    subject: str | None = None
    """Column of the entity that the fact is about; it replaces every `{}` of the prompt
    (CounterFact). Null for none."""


class SourceConfig(Strict):
    """Source of the examples."""

    source: Annotated[str, AfterValidator(_known_source)]
    """A source of `geomix data list`, a file (JSON, JSON Lines, CSV, TSV, Parquet, Arrow), a folder
    of them, or a hub id."""
    seed: Seed | None = None
    """Seed of a generated source, and of the order in which a finite source's rows are taken; null
    takes the run's."""
    path: str | None = None
    """Local copy of a named source in its upstream format; null reads the hub."""
    subset: str | None = None
    """Part of a source: LAMA's `trex`, APPS's `interview`; of a hub id, `configuration:split`."""
    vocabulary: Literal["generated", "nltk"] = "generated"
    """Vocabulary of `random-words`: the built-in list, or the NLTK words corpus."""
    columns: Columns | None = None
    """Columns of a file or hub id; null means `prompt` and `target`."""
    template: str | None = None
    """Prompt of a file's or hub id's rows, columns in braces: `Where is {place}?`"""
    allow_repeat: bool = False
    """Repeat a source that holds fewer examples than requested up to that number, whole rounds
    first; if false, too few examples are an error."""


class FamiliarConfig(Strict):
    """Selection of facts by what the base model knows before the first stage.

    A fact is familiar if the first line of the base model's greedy continuation is one of its
    answers, stripped and lower-cased.
    """

    facts: Literal["drop", "only"]
    """Selection: `drop` leaves the familiar facts out, as the paper does for training; `only` keeps
    them alone."""
    prompt: Literal["few-shot", "plain", "chat"] = "few-shot"
    """Prompt that the base model continues: after solved examples of the held-out split
    (`few-shot`), alone (`plain`), or in the run's chat format as in evaluation (`chat`, for a model
    that knows the format)."""
    shots: Annotated[int, Field(ge=1, le=100)] = 4
    """Number of solved examples."""


def _facts_alone(value: Any) -> Any:
    """Expand `familiar: drop` to `familiar: {facts: drop}`."""
    return {"facts": value} if isinstance(value, str | bool) else value


class DataConfig(SourceConfig):
    """The examples of one stage."""

    limit: Annotated[int, Field(ge=1, le=10_000_000)] | None = 100
    """Number of examples, 100 by default. Null takes all: of a published set, the whole split; of a
    file or folder, where null is the default, all rows but the last tenth, which is held out."""
    split: Literal["train", "id", "held-out"] = "train"
    """Split to take; `id` holds unseen examples of the same distribution (the paper's in-domain
    stage 2)."""
    familiar: Annotated[
        FamiliarConfig | None,
        BeforeValidator(
            _facts_alone, json_schema_input_type=FamiliarConfig | Literal["drop", "only"] | None
        ),
    ] = None
    """Facts that the base model knows: leave them out, or take only them; null does not test."""

    @model_validator(mode="before")
    @classmethod
    def _all_of_a_file(cls, values: Any, info: ValidationInfo) -> Any:
        """Set the limit of a file or folder to null if none is given, so that all rows are read."""
        if not isinstance(values, dict) or "limit" in values:
            return values
        source, named = values.get("source"), (info.context or {}).get("sources") or ()
        own = isinstance(source, str) and source not in named and is_path(source)
        return {**values, "limit": None} if own else values


class MixConfig(SourceConfig):
    """D_M examples that are mixed into a stage."""

    ratio: Annotated[float, Field(ge=0, le=1_000)] = 2.0
    """D_M examples for each example of the stage's own data; the paper's 1:2 is 2, and 0 mixes in
    nothing: the zero arm of a study of ratios."""
    words: Annotated[int, Field(ge=1, le=100_000)] = 50
    """Length of a passage in words."""
    passage_free: bool = False
    """Control: the same batches, steps and schedule as this mix, with the D_M examples left out."""
    name: Name | None = None
    """Name of the set: `prose` makes it `D_M-prose`. Null makes it `D_M`; where a stage has several
    mixes, the name of the source stands for it."""

    @model_serializer(mode="wrap")
    def _without_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit a name that is not given, so that earlier configurations keep their hash."""
        found: dict[str, Any] = handler(self)
        if self.name is None:
            found.pop("name", None)
        return found


class ReplayConfig(Strict):
    """Examples of earlier stages that a stage trains on again."""

    ratio: Annotated[float, Field(gt=0, le=1)]
    """Share of each earlier stage's own examples; to replay nothing, leave out `replay`."""
    stages: Annotated[list[StageRef], Field(min_length=1)] | None = None
    """Earlier stages to replay: by name, or by index in the list `stages`, from 0; null takes
    all."""
    seed: Seed | None = None
    """Seed of the choice; null takes the run's."""


Data = Annotated[
    DataConfig, BeforeValidator(_source_alone, json_schema_input_type=DataConfig | str)
]
"""The stage's own data; a text is its source."""

_OneMix = Annotated[MixConfig, BeforeValidator(_source_alone)]
_MIX = TypeAdapter[MixConfig](_OneMix)
_MIXES = TypeAdapter[list[MixConfig]](list[_OneMix])


def _mixes(value: Any, info: ValidationInfo) -> Any:
    """Validate one mix, or several in a list: a mistake is then of one, not of both forms.

    A list of one is that mix, so that both ways to write it make the same run.
    """
    if not isinstance(value, list | tuple):
        return value if value is None else _MIX.validate_python(value, context=info.context)
    if not value:
        raise ValueError("an empty list; to mix nothing in leave it out, or give null")
    found = tuple(_MIXES.validate_python(list(value), context=info.context))
    for index, mix in enumerate(found if len(found) > 1 else ()):
        if not re.fullmatch(NAME, _label(mix)):
            raise ValueError(f"[{index}]: a set cannot be called after its source; give it a name")
    labels = [_label(mix) for mix in found]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ValueError(f"two are called '{twice[0]}'; give one of them another name")
    return found if len(found) > 1 else found[0]


def source_name(source: str) -> str:
    """Shorten a source to a name: without suffix, and only the last part of a path or id."""
    return without_suffix(source.rstrip("/").rsplit("/", 1)[-1])


def _label(mix: MixConfig) -> str:
    return mix.name or source_name(mix.source)


Mix = Annotated[
    MixConfig | tuple[MixConfig, ...] | None,
    BeforeValidator(_mixes, json_schema_input_type=MixConfig | str | None | list[MixConfig | str]),
]
"""Mixed-in examples; a text is their source. Each of several mixes makes a set of its own."""


def mixes_of(mix: MixConfig | tuple[MixConfig, ...] | None) -> dict[str, MixConfig]:
    """Return each mix by the name of its set: `D_M`, `D_M-prose`."""
    if mix is None or isinstance(mix, MixConfig):
        return {} if mix is None else {mixed_name(mix.name or ""): mix}
    return {mixed_name(_label(one)): one for one in mix}


Replay = Annotated[
    ReplayConfig | None,
    BeforeValidator(_ratio_alone, json_schema_input_type=ReplayConfig | float | None),
]
"""A stage's replay; a number is its ratio."""
