"""`geomix analyze curve`: planted courses, and runs that lack what it needs."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from geomix.analysis import driver
from geomix.analysis.curve import Asked, CurveAnalysis
from geomix.api import Run
from geomix.cli import main
from geomix.config.run import RunConfig
from geomix.experiments.path_length import path_length
from geomix.models.load import load_model

pytestmark = pytest.mark.usefixtures("unprinted")

STEPS = (1, 2, 3, 5, 8, 13, 21, 30)
LOST, TAUGHT = 22.0, 2.0
"""Nats of an answer at θ_0 and at θ_A."""


def fading(tau: float) -> Callable[[int], float]:
    return lambda step: math.exp(-step / tau)


SIX = fading(6)


def make(
    folder: Path,
    left: Callable[[int], float] = SIX,
    seed: int = 0,
    steps: Sequence[int] = STEPS,
    facts: int = 3,
    sampled: int = 3,
) -> Run:
    """A run of two stages whose D_A fades as planted; every fact misses it by the same as another.

    Within stage 2 only the first `sampled` facts are scored; those beyond have other losses.
    """
    stage = {"data": {"source": "kvr", "limit": 100}, "stop": {"epochs": 2}}
    config = RunConfig.model_validate({"name": "toy", "seed": seed, "stages": [stage, stage]})
    run = Run(folder)
    run.path.mkdir(parents=True)
    resolved = {"name": "toy", "hash": config.content_hash(), "arms": None, "first_layer": 1}
    run.resolved_file.write_text(json.dumps({**resolved, "config": config.model_dump(mode="json")}))
    lines: list[dict[str, Any]] = []

    def evaluate(stage: int, step: int, moment: str, share: float, count: int, own: float) -> None:
        name = {"start": "start", "end": "epoch-002"}.get(moment, f"step-{step:06d}")
        file = folder / "stages" / f"{stage}-kvr" / "eval" / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        nll = LOST - share * (LOST - TAUGHT)
        mine = [
            {"set": "D_A", "nll": nll + (i - 1 if i < 3 else 50), "exact": share > 0.5}
            for i in range(count)
        ]
        other = {"set": "D_B", "nll": 1.0, "exact": own > 0.5}
        file.write_text("".join(json.dumps(one) + "\n" for one in [*mine, other]))
        lines.extend(
            {"event": "evaluation", "stage": stage, "step": step, "epoch": 2, "moment": moment}
            | {"set": name}
            for name in ("D_A", "D_B")
        )

    evaluate(0, 0, "start", 0, facts, 0)
    lines += [{"event": "step", "stage": 0, "step": i, "tokens": 5} for i in range(1, 11)]
    evaluate(0, 10, "end", 1, facts, 0)
    for step in range(1, steps[-1] + 1):
        lines.append({"event": "step", "stage": 1, "step": step, "tokens": 7})
        if step in steps[:-1]:
            evaluate(1, step, "step", left(step), sampled, 0)
    evaluate(1, steps[-1], "end", left(steps[-1]), facts, 1)
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def analysed(runs: Sequence[Run], **asked: Any) -> driver.Outcome[Any]:
    return driver.run(CurveAnalysis(), runs, Asked(**asked))


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["analyze", "curve", *arguments], env={"COLUMNS": "80"})


def table(run: Run, name: str = "curve") -> list[dict[str, str]]:
    with (run.analysis_folder / f"{name}.csv").open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_a_planted_law_is_found_in_steps_and_in_tokens(tmp_path: Path) -> None:
    run = make(tmp_path / "one")
    result = call(str(run.path))
    assert result.exit_code == 0, result.output
    rows = {(row["against"], row["law"]): row for row in table(run)}
    for axis, tau in (("steps", 6), ("tokens", 42)):
        assert rows[axis, "exponential"]["state"] == "best"
        assert float(rows[axis, "exponential"]["tau"]) == pytest.approx(tau, rel=1e-5)
    assert rows["length", ""]["state"].startswith("no fit: weights of 0 checkpoints")
    assert all(len(line) <= 80 for line in result.output.splitlines())
    assert len(result.output.splitlines()) <= 25
    points = table(run, "curve_points")
    assert [float(one["retention"]) for one in points] == pytest.approx(
        [1.0, *map(fading(6), STEPS)]
    )
    assert [int(one["tokens"].split(".")[0]) for one in points] == [0, *(7 * s for s in STEPS)]


def test_the_dip_of_exact_match_and_of_the_log_probability(tmp_path: Path) -> None:
    """Right above a share of ½; −2 nats at θ_A, −22 at worst."""
    course = dict(zip(STEPS, (0.9, 0.4, 0.2, 0.3, 0.6, 0.7, 0.6, 0.8), strict=True))
    run = make(tmp_path / "one", course.__getitem__)
    analysed([run])
    rows = {row["score"]: row for row in table(run, "curve_gap")}
    exact, likely = rows["exact_match"], rows["log_probability"]
    assert [exact[key] for key in ("depth", "at", "recovered")] == ["100.0", "2", "100.0"]
    assert float(likely["start"]) == pytest.approx(-TAUGHT)
    assert float(likely["depth"]) == pytest.approx(0.8 * (LOST - TAUGHT))
    assert (likely["at"], likely["widest"], likely["evaluations"]) == ("3", "9", "9")
    (worst,) = table(run, "curve_worst_case")
    assert (worst["after"], worst["min_acc"], worst["wc_acc"]) == ("D_B", "0.0", "50.0")


def test_only_facts_that_every_evaluation_scored_count(tmp_path: Path) -> None:
    """The other two have 50 nats more at the stage's ends, where all five are scored."""
    run = make(tmp_path / "one", facts=5)
    analysed([run])
    points = table(run, "curve_points")
    assert {one["facts"] for one in points} == {"3"}
    assert float(points[0]["log_probability"]) == pytest.approx(-TAUGHT)


def test_seeds_are_one_curve_with_an_interval_over_seeds(tmp_path: Path) -> None:
    runs = [make(tmp_path / f"s{s}", fading(6 + s / 4), s) for s in range(5)]
    done = analysed(runs, against=("steps",), planned=5)
    best = next(row for row in done.result.arms[0].fitted[0].choice.candidates if row.tau[1] > 0)
    value, low, high = best.tau
    assert value == pytest.approx(6.5, rel=0.01)
    assert (low, high) == pytest.approx((6.01, 6.99), rel=0.01)  # 2.776 · 0.395 / √5 around it
    (law, *_) = done.findings
    assert (law.n, law.verdict) == (5, "supported")
    undetermined, *_ = analysed(runs, against=("steps",), planned=6).findings
    assert undetermined.verdict == "undetermined"
    assert "needs 6 seeds" in undetermined.sentence


@pytest.mark.parametrize(
    ("steps", "why"),
    [((1, 3, 9, 27, 40), "5 evaluations of the 6"), (range(11, 20), "a factor of 1.7")],
)
def test_too_few_evaluations_have_no_law_but_a_dip(
    tmp_path: Path, steps: Sequence[int], why: str
) -> None:
    run = make(tmp_path / "one", steps=tuple(steps))
    result = call(str(run.path))
    assert result.exit_code == 0, result.output
    assert why in " ".join(result.output.split())
    assert "exact %" in result.output
    assert all(row["state"].startswith("no fit") for row in table(run))


def test_a_set_that_was_hardly_learnt_has_no_law(tmp_path: Path) -> None:
    run = make(tmp_path / "one", lambda _: 1)
    for file in run.path.glob("stages/*/eval/*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        even = [{**row, "nll": 2.5 if file.stem == "start" else 2.0} for row in rows]
        file.write_text("".join(json.dumps(row) + "\n" for row in even))
    analysed([run])
    assert {row["state"].split(";")[0] for row in table(run) if row["against"] == "steps"} == {
        "no fit: hardly learnt: 0.72 bits an answer more than θ_0, of 1 at least"
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "held-out"), "--set held-out: give a stage's own set"),
        (("--set", "D_B"), "no evaluation of D_B after its own stage"),
        (("--against", "hours"), "--against hours: there are: steps, tokens, length"),
    ],
)
def test_what_is_not_there_is_one_line(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = call(str(make(tmp_path / "one").path), *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
    assert not (tmp_path / "one" / "analysis").exists()


def test_a_damaged_line_is_one_line(tmp_path: Path) -> None:
    run = make(tmp_path / "one")
    (run.path / "stages" / "1-kvr" / "eval" / "step-000003.jsonl").write_text('{"nll": 3}\n')
    result = call(str(run.path))
    assert result.exit_code == 2
    assert "step-000003.jsonl: not as geomix writes it" in " ".join(result.output.split())


def test_the_path_is_the_sum_of_its_chords(small_arms: Run) -> None:
    """Against the weights of whole models, subtracted; the tied head counts once."""
    stages = small_arms.path / "arms" / "plain" / "stages"
    folders = [stages / "0-kvr" / "checkpoints" / "final"]
    folders += sorted((stages / "1-arithmetic" / "weights").glob("step-*"))
    folders += [stages / "1-arithmetic" / "checkpoints" / "final"]
    assert len(folders) == 4
    found = path_length(folders)
    cpu = torch.device("cpu")
    flat = [
        torch.cat([p.detach().double().ravel() for p in load_model(str(f), cpu).model.parameters()])
        for f in folders
    ]
    chords = [float((b - a).norm()) for a, b in pairwise(flat)]
    np.testing.assert_allclose(found, [0, *np.cumsum(chords)], rtol=1e-9)
    assert found[-1] > float((flat[-1] - flat[0]).norm())
