"""Scores of every evaluation: agreement of answers with their targets, and their loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from geomix.measures.scores.base import Answer, Reduction, Row, Score
from geomix.measures.text import matches_any, rouge_l, same_final_number, token_f1


class ExactMatch(Score):
    """Share of predictions that equal the target, after stripping and lower-casing."""

    name = "exact_match"
    heading = "exact %"
    axis = "exact match (%)"
    within = True
    column = "exact"

    def of_example(self, answer: Answer) -> dict[str, Any]:
        """Return whether the answer is right."""
        return {"exact": answer.exact}


class Loss(Score):
    """Mean negative log-likelihood of the target tokens, in the reduction that training uses."""

    name = "loss"
    heading = "loss"
    axis = "loss (nats)"
    unit = "nats"
    larger_is_better = False
    within = True

    def of_set(self, rows: Sequence[Row], reduction: Reduction) -> float:
        """Average over all tokens, or over examples of each one's token mean."""
        if reduction == "token":
            return float(sum(row["nll"] for row in rows) / sum(row["tokens"] for row in rows))
        return float(sum(row["nll"] / row["tokens"] for row in rows) / len(rows))


class AliasMatch(Score):
    """Share that equals any accepted answer; the exact match if only targets are known."""

    name = "alias_match"
    heading = "alias %"
    axis = "alias match (%)"
    column = "alias"

    def of_example(self, answer: Answer) -> dict[str, Any]:
        """Return whether the answer equals any accepted one."""
        accepted = (answer.target, *answer.aliases)
        right = answer.exact or matches_any(answer.prediction or "", accepted)
        return {"alias": right}


class TokenF1(Score):
    """Mean overlap with the nearest accepted answer, in words (SQuAD)."""

    name = "token_f1"
    heading = "F1 %"
    axis = "token F1 (%)"
    column = "f1"

    def of_example(self, answer: Answer) -> dict[str, Any]:
        """Return the words in common with the nearest accepted answer, 0 to 1."""
        accepted = tuple(dict.fromkeys((answer.target, *answer.aliases)))
        return {"f1": token_f1(answer.prediction or "", accepted)}


class RougeL(Score):
    """Mean longest common subsequence with the target (ROUGE-L, F-measure)."""

    name = "rouge_l"
    heading = "ROUGE-L"
    axis = "ROUGE-L (0–100)"
    column = "rouge_l"

    def of_example(self, answer: Answer) -> dict[str, Any]:
        """Return the longest common subsequence with the target, 0 to 1."""
        return {"rouge_l": rouge_l(answer.prediction or "", answer.target)}


class FinalNumber(Score):
    """Share that ends in the target's number, over targets with `#### number` (GSM8K)."""

    name = "final_number"
    heading = "number %"
    axis = "final number (%)"
    column = "final_number"
    lacking = "only targets with '#### number' have one"

    def of_example(self, answer: Answer) -> dict[str, Any]:
        """Return whether both end in the same number; None if the target has none."""
        return {"final_number": same_final_number(answer.prediction or "", answer.target)}


class Cut(Score):
    """Share of answers without an end in time, of which only the beginning was scored."""

    name = "cut"
    heading = "cut %"
    axis = "answers without an end (%)"
    larger_is_better = False
    column = "cut"


class Divergence(Score):
    """Mean KL divergence from the model that the stage started with, over answer positions."""

    name = "kl"
    heading = "KL"
    axis = "KL from the stage's start (nats)"
    unit = "nats"
    larger_is_better = False
    within = True
    lacking = "evaluate.kl switches it on"

    def of_set(self, rows: Sequence[Row], reduction: Reduction) -> float | None:  # noqa: ARG002
        """Return None: it is measured on a probe (`geomix.training.retention`)."""
        return None
