"""Schedule and scores of retention measurements: the key `evaluate`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from geomix.config.data import Count, CountOrNone, Data, Name, Strict
from geomix.config.names import role_of
from geomix.measures.scores import DEFAULT, SCORES, on_request


def _no_set_of_a_stage(name: str) -> str:
    if role_of(name) != "extra":
        raise ValueError(f"'{name}' is the name of a set that geomix makes; take another")
    return name


class KLConfig(Strict):
    """Probe for the KL divergence of a stage's model from the one that the stage started with."""

    examples: Count = 64
    """Number of examples of each set, its first ones."""
    positions: Count = 512
    """Most answer tokens of these examples. A stage stores 4 bytes per token and vocabulary entry
    on disk, for each set."""


def _none_is_never(value: Any) -> Any:
    """Expand `epochs: null` to `epochs: 0`."""
    return 0 if value is None else value


def _known_scores(names: tuple[str, ...]) -> tuple[str, ...]:
    """Reject names of no score, and of those that are measured in any case."""
    for name in names:
        if name not in SCORES:
            raise ValueError(SCORES.unknown(name))
        if name == "kl":
            raise ValueError("kl is measured where evaluate.kl says so; leave it out here")
        if name in DEFAULT:
            raise ValueError(f"{name} is measured in any case; leave it out")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is given twice")
    return names


def _listed_scores(schema: dict[str, Any]) -> None:
    """List the known scores in the schema."""
    schema["items"] = {"type": "string", "enum": on_request()}


class EvaluateConfig(Strict):
    """Schedule of retention measurements: always at stage boundaries, and in between.

    At the boundaries everything is measured, on every example. In between only loss and exact match
    are.
    """

    epochs: Annotated[
        CountOrNone,
        BeforeValidator(_none_is_never, json_schema_input_type=CountOrNone | None),
    ] = 1
    """Epochs between two measurements; 0 and null measure only at the boundaries of stages, and as
    `steps` requests."""
    steps: Count | None = None
    """Also measure after every so many steps of a stage: the stability gap closes before an epoch
    ends."""
    sample: Count | None = 128
    """Examples of each set measured in between, its first ones; null takes all, as does the set
    that a `stop.exact_match` checks."""
    scores: Annotated[
        tuple[str, ...],
        AfterValidator(_known_scores),
        Field(json_schema_extra=_listed_scores),
    ] = ()
    """Scores that are measured beside those of every evaluation, by name."""
    kl: KLConfig | None = None
    """Mean KL divergence from the model that the stage started with; null does not measure it."""
    batch_size: Count = 128
    """Examples in one scoring pass."""
    sets: dict[Annotated[Name, AfterValidator(_no_set_of_a_stage)], Data] = Field(default={})
    """Sets, by name, that are evaluated and never trained on: familiar facts (the paper's tables 5
    and 6), another source, paraphrases."""

    @model_serializer(mode="wrap")
    def _without_scores(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `scores` where there are none: configurations of before stay what they were."""
        found: dict[str, Any] = handler(self)
        if not self.scores:
            found.pop("scores", None)
        return found
