"""Evaluations of an arm in temporal order, with the stored scores of every example."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomix.runs.directory import RunDirectory, scores_file

ExampleLine = dict[str, Any]
"""An example's line: `set`, `exact`, `nll` and the columns of further scores."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation whose example scores exist.

    Attributes:
        stage: index of the stage, from 0.
        step: optimiser steps done of it.
        steps: optimiser steps since θ_0.
        ends: whether the stage ends here.
        file: the examples' lines.
    """

    stage: int
    step: int
    steps: int
    ends: bool
    file: Path

    def lines(self) -> dict[str, list[ExampleLine]]:
        """Return the examples' lines by set, in order.

        Raises:
            ValueError: the file is not as geomix writes it; LookupError likewise.
        """
        found: dict[str, list[ExampleLine]] = {}
        with self.file.open(encoding="utf-8") as lines:
            for line in lines:
                one: ExampleLine = json.loads(line)
                found.setdefault(one["set"], []).append(one)
        return found


def evaluations(arm: RunDirectory) -> list[Evaluation]:
    """Return the evaluations of an arm, each once, in temporal order.

    Raises:
        UserError: a line of `metrics.jsonl` is not a JSON object.
    """
    before, stage, last = 0, 0, 0
    found: dict[Path, Evaluation] = {}
    for line in arm.metrics():
        if line["stage"] != stage:
            before, stage = before + last, line["stage"]
        last = line["step"]
        if line["event"] == "evaluation":
            for folder in arm.path.glob(f"stages/{stage:d}-*"):
                file = scores_file(folder, line["moment"], line["epoch"], last)
                if file.exists():  # one file, though a rule that ends the stage makes it two
                    ends = line["moment"] == "end"
                    found[file] = Evaluation(stage, last, before + last, ends, file)
    return list(found.values())


def tokens_by_step(arm: RunDirectory) -> dict[tuple[int, int], int]:
    """Return the tokens trained on in each optimiser step, by stage and step.

    Raises:
        UserError: a line of `metrics.jsonl` is not a JSON object.
    """
    steps = (line for line in arm.metrics() if line["event"] == "step")
    return {(line["stage"], line["step"]): int(line["tokens"]) for line in steps}


def common_facts(lines: Sequence[Sequence[ExampleLine]]) -> list[list[ExampleLine]]:
    """Return the first lines of each evaluation, as many as every one has.

    Within a stage only a set's first examples may be scored (`evaluate.sample`).
    """
    facts = min(map(len, lines), default=0)
    return [list(one[:facts]) for one in lines]
