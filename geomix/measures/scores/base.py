"""What a score is: its name, its unit, and how it is made of what an evaluation knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Row = Mapping[str, Any]
"""An example's line: what a file of verdicts holds of it."""

Reduction = Literal["token", "example"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an evaluation knows of one example.

    Attributes:
        prompt: the example's prompt.
        target: the example's target.
        prediction: what greedy decoding gives; None where only the exact match was asked for and
            the answer was decoded no further than to where it can no longer be one.
        cut: whether the prediction is only the answer's beginning: no end token came within the
            target's length and a few tokens more (twice the length where the target ends in a
            number of its own). All scores are those of that beginning: overlaps of a model that
            goes on without end are higher than the whole answer's would be.
        exact: whether the two agree after stripping and lower-casing; never where one is empty.
        nll: summed negative log-likelihood of the target tokens, in nats.
        tokens: how many target tokens, the end token included.
        aliases: every accepted answer beside the target.
        entropy: bits of the answer given its prompt and all of its generator but the seed; None
            where that is not known (`geomix.data.example.Example`).
        token_nll: negative log-likelihood of each token of the answer given those before it, the
            end token last, in nats; in a conversation, of the last answer.
        greedy: where the token is the likeliest one, given the true ones before it.
    """

    prompt: str
    target: str
    prediction: str | None
    cut: bool = False
    exact: bool
    nll: float
    tokens: int
    aliases: tuple[str, ...] = ()
    entropy: float | None = None
    token_nll: tuple[float, ...] = ()
    greedy: tuple[bool, ...] = ()


class Asked(Protocol):
    """A whole set and the model, for a pass of the score's own.

    Attributes:
        examples: the set's, tokenised (`geomix.data.example.TokenisedExample`).
        loaded: model, tokenizer and device (`geomix.models.load.LoadedModel`), in evaluation mode.
    """

    @property
    def examples(self) -> Sequence[Any]:
        """Of the whole set."""

    @property
    def loaded(self) -> Any:
        """The model."""

    def log_probabilities(
        self, prompts: Sequence[int], answers: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float64]]:
        """How likely some answers of the set are after one prompt each, in nats.

        Args:
            prompts: indices of examples, whose prompts are read, each once.
            answers: for each of these, indices of the examples whose answers are scored.

        Returns:
            For each prompt, ln p(answer | prompt) of its answers, end tokens included.
        """


@dataclass(frozen=True, slots=True)
class ScoreCost:
    """What a score's own pass takes for one set, beside the evaluation's.

    Attributes:
        prompts: that are read.
        answers: that are scored after them, forward alone.
    """

    prompts: int = 0
    answers: int = 0


class Score:
    """One number a set. Its first line of documentation is its summary.

    Attributes:
        name: its key in `evaluate.scores` and its column in files.
        heading: of a table's column, at most eight characters.
        axis: of a figure.
        unit: `percent`, `bits`, `nats`; "" where it has none.
        larger_is_better: whether a larger number means that more is known.
        within: whether it is measured within a stage too, not at its boundaries alone. There
            predictions are decoded no further than the exact match needs.
        column: of an example's line whose mean the score is; "" where it is no mean.
        brings: names of scores that are read from its columns: they are measured with it.
        part_of: name of the score that brings it.
        lacking: why a set may have no such score, after "no evaluation of this run has it".
    """

    name: ClassVar[str]
    heading: ClassVar[str]
    axis: ClassVar[str]
    unit: ClassVar[str] = "percent"
    larger_is_better: ClassVar[bool] = True
    within: ClassVar[bool] = False
    column: ClassVar[str] = ""
    brings: ClassVar[tuple[str, ...]] = ()
    part_of: ClassVar[str] = ""
    lacking: ClassVar[str] = ""

    def of_example(self, answer: Answer) -> dict[str, Any]:  # noqa: ARG002
        """Columns that join the example's line; None is a number that it does not have."""
        return {}

    def ask(self, asked: Asked, which: Sequence[int]) -> list[dict[str, Any]]:  # noqa: ARG002
        """Columns that a further pass over the model gives.

        Args:
            asked: the whole set and the model.
            which: indices of the examples whose columns are wanted; several processes share a set.

        Returns:
            The columns of each of `which`, of what JSON can hold.
        """
        return [{} for _ in which]

    def of_set(self, rows: Sequence[Row], reduction: Reduction) -> float | None:  # noqa: ARG002
        """The set's number from its examples' lines; None where it has none.

        Args:
            rows: of all examples, at least one, with the columns that `of_example` and `ask` gave.
            reduction: the mean that training minimises.

        Returns:
            By default the mean of the column's numbers, times 100 for a percentage.
        """
        known = [row[self.column] for row in rows if row.get(self.column) is not None]
        if not self.column or not known:
            return None
        total: float = sum(known)
        return (100.0 * total if self.unit == "percent" else total) / len(known)

    def cost(self, examples: Sequence[Any]) -> ScoreCost:  # noqa: ARG002
        """What `ask` takes for a set of examples (`geomix.data.example.Example`)."""
        return ScoreCost()

    @property
    def asks(self) -> bool:
        """Whether it needs a pass of its own."""
        return type(self).ask is not Score.ask

    def text(self, value: float) -> str:
        """A number of it as tables print it."""
        return f"{value:.4g}" if self.unit == "nats" else f"{value:.1f}"
