"""Retention: the scores of every set, with every example's result stored."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomix.data.batch import Reduction
from geomix.data.example import TokenisedExample
from geomix.measures.scores import DEFAULT, chosen
from geomix.measures.scores.base import Answer, Row, Score
from geomix.models.candidates import Candidates
from geomix.models.distributed import ALONE, Workers
from geomix.models.load import LoadedModel
from geomix.models.score import evaluating, score
from geomix.util.errors import UserError
from geomix.util.files import write_text
from geomix.util.progress import phase


@dataclass(frozen=True, slots=True)
class SetResult:
    """Scores of one set.

    Attributes:
        n: examples scored.
        scores: by name, in the order of its line; None if not measured or undefined.
    """

    n: int
    scores: Mapping[str, float | None]

    def __getitem__(self, name: str) -> float:
        """Return the number of a measured score."""
        value = self.scores[name]
        assert value is not None
        return value

    def facts(self) -> dict[str, Any]:
        """Return the contents of the set's line in `metrics.jsonl`."""
        return {"n": self.n, **self.scores}


def row_of(answer: Answer, scores: Sequence[Score]) -> dict[str, Any]:
    """Return an example's line: texts, then each default score's column, loss, and additions.

    Args:
        answer: the example's result.
        scores: the measured ones; columns of default scores that are not measured are None.
    """
    row: dict[str, Any] = {"prompt": answer.prompt, "target": answer.target}
    row |= {"prediction": answer.prediction, "cut": answer.cut}
    columns = {one.name: one.of_example(answer) for one in scores}
    for one in chosen(()):
        row |= columns.pop(one.name, {})
        if one.column:
            row.setdefault(one.column, None)
    row |= {"nll": answer.nll, "tokens": answer.tokens}
    for more in columns.values():
        _join([row], [more])
    return row


def _join(rows: Sequence[dict[str, Any]], found: Sequence[Row]) -> None:
    """Add columns to the examples' lines; existing ones stay."""
    for row, more in zip(rows, found, strict=True):
        row |= {key: value for key, value in more.items() if key not in row}


def summarise(rows: Sequence[Row], scores: Sequence[Score], reduction: Reduction) -> SetResult:
    """Return one set's scores from the lines of its examples, of which there is at least one."""
    found: dict[str, float | None] = dict.fromkeys(DEFAULT)
    found |= {one.name: one.of_set(rows, reduction) for one in scores}
    return SetResult(len(rows), found)


def evaluate(
    loaded: LoadedModel,
    sets: Mapping[str, Sequence[TokenisedExample]],
    reduction: Reduction,
    batch_size: int,
    file: Path,
    width: int | None = None,
    *,
    scores: Sequence[Score] | None = None,
    empty_right: bool = False,
    exact_only: bool = False,
    workers: Workers = ALONE,
) -> dict[str, SetResult]:
    """Score each set and write its examples' results to `file`, one JSON line an example.

    Args:
        loaded: the model; its mode is restored.
        sets: examples by set name.
        reduction: of the reported loss, the one that training minimises.
        batch_size: examples in one pass.
        file: of the examples' lines.
        width: of packed rows, see `geomix.data.batch.collate`.
        scores: to measure; None is the default ones.
        empty_right: see `geomix.models.score.score`.
        exact_only: whether answers are decoded no further than the exact match needs; scores that
            are not measured within a stage are then left out.
        workers: the processes that share the work; the first one writes.

    Raises:
        UserError: the model has diverged; nothing is written.
    """
    asked = chosen(()) if scores is None else scores
    measured = [one for one in asked if one.within or not exact_only]
    results: dict[str, SetResult] = {}
    lines: list[str] = []
    for name, examples in sets.items():

        def work(
            which: Sequence[int], examples: Sequence[TokenisedExample] = examples
        ) -> list[dict[str, Any]]:
            part = [examples[i] for i in which]
            answers = score(
                loaded, part, batch_size, width, empty_right=empty_right, exact_only=exact_only
            )
            rows = [row_of(answer, measured) for answer in answers]
            asked = Candidates(loaded, examples, batch_size)  # reads only on request
            for one in (one for one in measured if one.asks):
                with evaluating(loaded.model):
                    _join(rows, one.ask(asked, which))
            return rows

        with phase(f"scoring {name}"), workers.unsharded(loaded.model):
            rows = workers.spread(range(len(examples)), work)
        if not all(math.isfinite(row["nll"]) for row in rows):
            raise UserError(f"evaluation of {name}: the loss is not finite; lower train.lr")
        lines += [json.dumps({"set": name, **row}, ensure_ascii=False) for row in rows]
        results[name] = summarise(rows, measured, reduction)
    if workers.main:
        write_text(file, "\n".join(lines) + "\n")
    return results
