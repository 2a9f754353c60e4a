"""Recognition: whether a fact's own answer is likelier after its prompt than the set's others.

s_ij = ln p(y_j | x_i), of whole answers with their end tokens. Of the N candidates of prompt i, b
are likelier than the own answer and t others are as likely:

    top-k    min(1, max(0, (k − b) / (t + 1)))      ties share their places: by chance k/N
    AUC      (N − rank) / (N − 1), rank = 1 + b + t/2
    choice   log2 N + log2 softmax_i(s_i·)          bits, at most log2 N

Candidates are the set's answers, each once, but for those that are accepted for the prompt too. Of
a set of more than `ALL` examples they are `SAMPLE` ones, drawn once: the same at every checkpoint
and in every arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geomix.measures.scores.base import Asked, Score, ScoreCost
from geomix.measures.text import normalise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ALL = 256
"""Most examples of a set whose answers are all candidates."""

SAMPLE = 64
"""Candidates beside the own answer in a larger set."""

TOP = 5

TIE = 1e-5
"""Largest difference, in nats, of answers that count as equally likely: rounding."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Forced choice among candidates.

    Attributes:
        candidates: N, the own answer included.
        better: b, number of likelier candidates.
        ties: t, number of other candidates that are equally likely.
        bits: log2 N + log2 of the own answer's share of the candidates' probability.
    """

    candidates: int
    better: int
    ties: int
    bits: float

    def top(self, k: int) -> float:
        """Return whether the own answer is among the k likeliest, 0 to 1; ties are shared."""
        return min(1.0, max(0.0, (k - self.better) / (self.ties + 1)))

    @property
    def auc(self) -> float:
        """The AUC, P(the own answer beats a random other) + P(tie)/2."""
        return 1 - (self.better + self.ties / 2) / (self.candidates - 1)


def choose(own: float, others: NDArray[np.float64]) -> Choice:
    """Evaluate a forced choice between an answer and others.

    Args:
        own: ln p of the own answer, in nats.
        others: ln p of each other one, `(N − 1,)`.
    """
    import numpy as np

    gaps = others - own
    better, ties = int((gaps > TIE).sum()), int((abs(gaps) <= TIE).sum())
    total = np.logaddexp.reduce([0.0, *gaps])
    bits = np.log2(len(others) + 1) - total / np.log(2)
    return Choice(len(others) + 1, better, ties, float(bits))


def drawn_of(examples: Sequence[Any]) -> list[int]:
    """Return the indices of the examples to compare others with: all, or a fixed few of many."""
    if len(examples) <= ALL:
        return list(range(len(examples)))
    import numpy as np

    rng = np.random.default_rng([len(examples), 0x5245434F])
    return sorted(rng.choice(len(examples), SAMPLE, replace=False).tolist())


def candidates_of(examples: Sequence[Any]) -> list[int]:
    """Return the indices of a set's examples whose answers are candidates, each answer once.

    Args:
        examples: `geomix.data.example.Example`s.
    """
    first: dict[str, int] = {}
    for index in drawn_of(examples):
        first.setdefault(normalise(examples[index].target), index)
    return list(first.values())


def others_of(examples: Sequence[Any], index: int, candidates: Sequence[int]) -> list[int]:
    """Return the examples, among some, that share no accepted answer with a given one."""
    own = _accepted(examples[index])
    return [j for j in candidates if own.isdisjoint(_accepted(examples[j]))]


def _accepted(example: Any) -> set[str]:
    return {normalise(answer) for answer in (example.target, *example.aliases)}


def asked_of(example: Any) -> bool:
    """Return whether there is something to recognise: the prompt does not determine the answer."""
    return example.entropy is None or bool(example.entropy > 0)


class Recognition(Score):
    """Share whose own answer is the likeliest of the set's, in a forced choice."""

    name = "recognition"
    heading = "recog. %"
    axis = "recognition (%)"
    column = "recognised"
    brings = ("recognition_top5", "recognition_auc", "recognition_chance", "choice_bits")
    lacking = "a set needs two answers that its prompts do not say"

    def ask(self, asked: Asked, which: Sequence[int]) -> list[dict[str, Any]]:
        """Return the choice for each example's prompt."""
        examples = [example.text for example in asked.examples]
        candidates = candidates_of(examples)
        others = {
            i: found
            for i in which
            if asked_of(examples[i]) and (found := others_of(examples, i, candidates))
        }
        logs = asked.log_probabilities([*others], [[i, *found] for i, found in others.items()])
        rows = {i: self._row(scores) for i, scores in zip(others, logs, strict=True)}
        return [rows.get(i, dict.fromkeys(self._row(None))) for i in which]

    @staticmethod
    def _row(scores: NDArray[np.float64] | None) -> dict[str, Any]:
        """Return the columns of an example, whose own answer's score comes first."""
        columns = ("candidates", "recognised", "top5", "auc", "chance", "choice_bits")
        if scores is None:
            return dict.fromkeys(columns)
        others = scores[1:][scores[1:] == scores[1:]]  # without nan: no positions
        if not len(others) or scores[0] != scores[0]:
            return dict.fromkeys(columns)
        choice = choose(float(scores[0]), others)
        n = choice.candidates
        values = (n, choice.top(1), choice.top(TOP), choice.auc, 1 / n, choice.bits)
        return dict(zip(columns, values, strict=True))

    def cost(self, examples: Sequence[Any]) -> ScoreCost:
        """Return the cost: a prompt an example, and all candidates after it."""
        asked = sum(map(asked_of, examples))
        return ScoreCost(asked, asked * len(candidates_of(examples)))


class Top5(Score):
    """Share whose own answer is one of the five likeliest of the set's."""

    name = "recognition_top5"
    heading = "top-5 %"
    axis = "recognition, top 5 (%)"
    column = "top5"
    part_of = "recognition"


class Auc(Score):
    """Mean probability that the own answer is likelier than another of the set."""

    name = "recognition_auc"
    heading = "AUC %"
    axis = "recognition, AUC (%)"
    column = "auc"
    part_of = "recognition"


class Chance(Score):
    """Recognition of a model that ignores the prompt: one over the candidates."""

    name = "recognition_chance"
    heading = "chance %"
    axis = "recognition by chance (%)"
    column = "chance"
    part_of = "recognition"


class ChoiceBits(Score):
    """Mean bits of the choice: log2 of the candidates and of the own answer's share."""

    name = "choice_bits"
    heading = "choice"
    axis = "bits of the choice"
    unit = "bits"
    column = "choice_bits"
    part_of = "recognition"
