"""The retention matrix of a run: each set's scores at the boundaries of its stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geomix.measures.scores import ALWAYS, DEFAULT, SCORES
from geomix.runs.directory import RunDirectory
from geomix.util.reading import as_written


@dataclass(frozen=True, slots=True)
class RetentionRow:
    """Scores of one set at one checkpoint of one arm.

    Attributes:
        arm: its name.
        moment: `θ_0`, `after stage 1`, `after stage 2`, …; `stage 2, step 40` if a stage has not
            ended.
        set: `D_A`, `D_B`, …
        n: examples scored.
        scores: the measured ones, by name, in the registry's order.
    """

    arm: str
    moment: str
    set: str
    n: int
    scores: Mapping[str, float]

    @property
    def exact_match(self) -> float:
        """Share of exact matches, 0 to 100."""
        return self.scores["exact_match"]

    def facts(self) -> dict[str, Any]:
        """Return everything in one mapping; default scores that were not measured are None."""
        where = {"arm": self.arm, "moment": self.moment, "set": self.set, "n": self.n}
        return {**where, **dict.fromkeys(DEFAULT), **self.scores}


def retention_rows(run: RunDirectory) -> list[RetentionRow]:
    """Return every set's scores at the base model and at the end of each stage, arm by arm.

    A stage that has not ended shows its newest evaluation. A line that a resumed run wrote again
    counts once.

    Raises:
        UserError: a `metrics.jsonl` cannot be read.
    """
    found: list[RetentionRow] = []
    for arm in run.arms:
        with as_written(arm.metrics_file):
            found += _arm_rows(arm)
    return found


def asked_scores(run: RunDirectory) -> list[str]:
    """Return the scores that the configurations of a run's arms name; only those known here."""
    found: dict[str, None] = {}
    for arm in run.arms:
        if arm.resolved_file.exists():
            evaluate = arm.resolved()["config"].get("evaluate") or {}
            found |= dict.fromkeys(evaluate.get("scores", ()))
    return [name for name in found if name in SCORES]


def _arm_rows(arm: RunDirectory) -> list[RetentionRow]:
    lines = [line for line in arm.metrics() if line["event"] == "evaluation"]
    ended = {line["stage"] for line in lines if line["moment"] == "end"}
    newest = {line["stage"]: line["step"] for line in lines}
    found: dict[tuple[str, str], RetentionRow] = {}
    for line in lines:
        stage, step = line["stage"], line["step"]
        boundary = {"start": "θ_0", "end": f"after stage {stage + 1}"}.get(line["moment"])
        if boundary is None and (stage in ended or step < newest[stage]):
            continue
        label = boundary or f"stage {stage + 1}, step {step}"
        always = {name: float(line[name]) for name in ALWAYS}
        scores = {name: float(line[name]) for name in SCORES if line.get(name) is not None}
        found[label, line["set"]] = RetentionRow(
            arm.name, label, line["set"], int(line["n"]), always | scores
        )
    return list(found.values())
