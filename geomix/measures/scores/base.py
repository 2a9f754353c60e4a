"""Interface of a score: its name, its unit, and its computation from an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Row = Mapping[str, Any]
"""An example's line in a file of example scores."""

Reduction = Literal["token", "example"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An evaluation's result for one example.

    Attributes:
        prompt: the example's prompt.
        target: the example's target.
        prediction: the greedy continuation; None if only the exact match was requested and decoding
            stopped because the answer could no longer match.
        cut: whether the prediction is truncated: no end token came within the target's length and a
            few tokens more (twice the length if the target ends in a number of its own). All scores
            are those of the truncated answer: overlaps of a model that never stops are higher than
            the whole answer's would be.
        exact: whether the two agree after stripping and lower-casing; never if one is empty.
        nll: summed negative log-likelihood of the target tokens, in nats.
        tokens: number of target tokens, including the end token.
        aliases: every accepted answer beside the target.
        entropy: bits of the answer given its prompt and all of its generator but the seed; None if
            unknown (`geomix.data.example.Example`).
        token_nll: negative log-likelihood of each token of the answer given those before it, the
            end token last, in nats; in a conversation, of the last answer.
        greedy: whether each token is the likeliest one, given the true ones before it.
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
    """Whole set and model, for a score's own pass.

    Attributes:
        examples: the set's, tokenised (`geomix.data.example.TokenisedExample`).
        loaded: model, tokenizer and device (`geomix.models.load.LoadedModel`), in evaluation mode.
    """

    @property
    def examples(self) -> Sequence[Any]:
        """Examples of the whole set."""

    @property
    def loaded(self) -> Any:
        """The model."""

    def log_probabilities(
        self, prompts: Sequence[int], answers: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float64]]:
        """Return the log-likelihoods of some answers of the set after one prompt each, in nats.

        Args:
            prompts: indices of examples, whose prompts are read, each once.
            answers: for each of these, indices of the examples whose answers are scored.

        Returns:
            For each prompt, ln p(answer | prompt) of its answers, end tokens included.
        """


@dataclass(frozen=True, slots=True)
class ScoreCost:
    """Cost of a score's own pass for one set, beside the evaluation's.

    Attributes:
        prompts: number of prompts read.
        answers: number of answers scored after them, in forward passes alone.
    """

    prompts: int = 0
    answers: int = 0


class Score:
    """Score: one number a set. The first line of its docstring is its summary.

    Attributes:
        name: its key in `evaluate.scores` and its column in files.
        heading: of a table's column, at most eight characters.
        axis: of a figure.
        unit: `percent`, `bits`, `nats`; "" if it has none.
        larger_is_better: whether a larger number means better knowledge.
        within: whether it is also measured within a stage, not only at its boundaries. There
            predictions are decoded no further than the exact match needs.
        column: of an example's line whose mean the score is; "" if it is not a mean.
        brings: names of scores computed from its columns: they are measured with it.
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
        """Return columns to add to the example's line; None is an undefined number."""
        return {}

    def ask(self, asked: Asked, which: Sequence[int]) -> list[dict[str, Any]]:  # noqa: ARG002
        """Compute columns in a further pass over the model.

        Args:
            asked: the whole set and the model.
            which: indices of the requested examples; several processes share a set.

        Returns:
            The columns of each of `which`, as JSON can hold them.
        """
        return [{} for _ in which]

    def of_set(self, rows: Sequence[Row], reduction: Reduction) -> float | None:  # noqa: ARG002
        """Return the set's number from its examples' lines; None if it has none.

        Args:
            rows: of all examples, at least one, with the columns from `of_example` and `ask`.
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
        """Return the cost of `ask` for a set of examples (`geomix.data.example.Example`)."""
        return ScoreCost()

    @property
    def asks(self) -> bool:
        """True if it needs a pass of its own."""
        return type(self).ask is not Score.ask

    def text(self, value: float) -> str:
        """Format one of its numbers for tables."""
        return f"{value:.4g}" if self.unit == "nats" else f"{value:.1f}"
