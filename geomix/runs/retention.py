"""The retention matrix of a run: how well each set is known at the boundaries of its stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from geomix.runs.directory import RunDirectory
from geomix.util.reading import as_written

Metric = Literal["exact_match", "alias_match", "token_f1", "rouge_l", "final_number"]

METRICS: dict[Metric, str] = {
    "exact_match": "exact %",
    "alias_match": "alias %",
    "token_f1": "F1 %",
    "rouge_l": "ROUGE-L",
    "final_number": "number %",
}
"""What the retention table can show, and the heading of its column; all 0 to 100."""


@dataclass(frozen=True, slots=True)
class RetentionRow:
    """How well one set is known at one moment of one arm.

    Attributes:
        arm: its name.
        moment: `θ_0`, `after stage 1`, `after stage 2`, …; `stage 2, step 40` where a stage has not
            ended.
        set: `D_A`, `D_B`, …
        n: examples scored.
        exact_match: percent, as is what follows the loss.
        loss: nats, mean in the run's reduction.
        alias_match: of any accepted answer.
        token_f1: overlap in words.
        rouge_l: longest common subsequence.
        final_number: None where no target has one.

    All but `exact_match` are None in a run that was made before they were measured.
    """

    arm: str
    moment: str
    set: str
    n: int
    exact_match: float
    loss: float
    alias_match: float | None = None
    token_f1: float | None = None
    rouge_l: float | None = None
    final_number: float | None = None

    def value(self, metric: Metric) -> float | None:
        """The number that a metric's name stands for."""
        found: float | None = getattr(self, metric)
        return found


def retention_rows(run: RunDirectory) -> list[RetentionRow]:
    """Every set at the base model and at the end of each stage, arm by arm.

    A stage that has not ended shows its newest evaluation. A line that was written again, by a run
    that was resumed, counts once.

    Raises:
        UserError: a `metrics.jsonl` cannot be read.
    """
    found: list[RetentionRow] = []
    for arm in run.arms:
        with as_written(arm.metrics_file):
            found += _arm_rows(arm)
    return found


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
        scores = {name: float(line[name]) for name in METRICS if line.get(name) is not None}
        found[label, line["set"]] = RetentionRow(
            arm.name, label, line["set"], int(line["n"]), loss=float(line["loss"]), **scores
        )
    return list(found.values())
