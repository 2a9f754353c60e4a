"""`geomix analyze kl-law`: a run as a user has it, and planted laws over many points."""

from __future__ import annotations

import csv
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.torch import load_file

import geomix
from geomix.analysis.kl_law import Asked
from geomix.analysis.kl_law.answer import answer
from geomix.analysis.kl_law.findings import findings
from geomix.analysis.kl_law.fits import apart, fitted, lacking
from geomix.analysis.kl_law.measure import _forgotten
from geomix.analysis.kl_law.result import BASE, LAW, RIVAL, START, Key, KLLaw, Point
from geomix.analysis.kl_law.tables import drawn_rows, tables
from geomix.api import Run
from geomix.cli import main
from geomix.measures.verdict import Rule
from geomix.models.set_divergence import SetDivergence


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two arms of three stages, one of which trains adapters in one; KL is measured meanwhile."""
    config = {
        "model": str(tiny_model),
        "train": {"lr": 1e-2, "batch_size": 6, "loss": "example"},
        "stages": [
            {"data": {"source": "kvr", "limit": 8}, "stop": {"epochs": 4}},
            {"data": {"source": "arithmetic", "limit": 6}, "stop": {"epochs": 3}},
            {"data": {"source": "triples", "limit": 6}, "stop": {"epochs": 2}},
        ],
        "record": None,
        "evaluate": {
            "epochs": 0,
            "kl": {},
            "sets": {"other": {"source": "kvr", "split": "held-out", "limit": 5}},
        },
        "arms": {"plain": {}, "adapters": {"stages.1.train.lora": {"rank": 2}}},
    }
    return geomix.train(config, out=tmp_path_factory.mktemp("kl") / "run", say=lambda _: None)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["analyze", "kl-law", *arguments], env={"COLUMNS": "80"})


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    with (folder / "analysis" / f"{name}.csv").open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def stored(run: Run, arm: str, stage: int, name: str) -> dict[str, Any]:
    """The evaluation at the end of a stage."""
    lines = [line for line in run.arm(arm).metrics() if line["event"] == "evaluation"]
    (found,) = (x for x in lines if (x["stage"], x["moment"], x["set"]) == (stage, "end", name))
    return found


def nats(run: Run, arm: str, stage: int) -> float:
    """Mean negative log-likelihood of D_A's answers at the end of a stage, from its file."""
    file = max(run.arm(arm).path.glob(f"stages/{stage}-*/eval/epoch-*.jsonl"))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return float(np.mean([row["nll"] for row in rows if row["set"] == "D_A"]))


@pytest.mark.usefixtures("unprinted")
def test_the_numbers_are_those_that_the_run_measured_itself(run: Run) -> None:
    """Loss and exact match of D_A, KL to the stage's start on every set, and the displacement."""
    result = call(str(run.path))
    assert result.exit_code == 0, result.output
    told = result.stdout.splitlines()
    assert told[0].startswith("Does the KL divergence on the new task predict how much of D_A")
    assert len(told) <= 25
    assert all(len(line) <= 80 for line in told)
    assert "D_A forgotten, of 8 facts: nats" in " ".join(told)
    assert "it needs 30 points of 4 arms, and there are 4 of 2 arms" in " ".join(told)
    points = {(row["arm"], int(row["stage"])): row for row in table(run.path, "kl_law")}
    assert [*points] == [(arm, stage) for arm in ("plain", "adapters") for stage in (2, 3)]
    for (arm, stage), row in points.items():
        lost = nats(run, arm, stage - 1) - nats(run, arm, stage - 2)
        assert row["trained"] == f"D_{' ABC'[stage]}"
        assert float(row["nats"]) == pytest.approx(lost, abs=1e-4)
        assert float(row["bits"]) == pytest.approx(lost / math.log(2), abs=1e-3)
        for key, index in (("exact_start", stage - 2), ("exact_end", stage - 1)):
            assert float(row[key]) == stored(run, arm, index, "D_A")["exact_match"]
    rows = table(run.path, "kl_law_divergences")
    assert {row["set"] for row in rows} == {"D_A", "D_B", "D_C", "other", "held-out"}
    assert len(rows) == 4 * 5 * 2 * 2
    for row in rows:
        assert float(row["per_answer"]) > float(row["per_token"]) > 0
        if (row["to"], row["direction"]) == (START, "forward") and row["set"] != "held-out":
            own = stored(run, row["arm"], int(row["stage"]) - 1, row["set"])["kl"]
            assert float(row["per_token"]) == pytest.approx(own, rel=1e-3)
    folders = [next(run.arm("plain").path.glob(f"stages/{i}-*/checkpoints/final")) for i in (0, 1)]
    start, end = (load_file(folder / "model.safetensors") for folder in folders)
    squares = sum(float((end[name] - start[name]).square().sum()) for name in start)
    assert float(points["plain", 2]["length"]) == pytest.approx(math.sqrt(squares), rel=1e-5)
    assert table(run.path, "kl_law_fits") == []


def test_what_a_stage_took_is_positive() -> None:
    """More nats an answer, fewer exact matches."""
    assert _forgotten((1.0, 90.0), (3.0, 40.0)) == {"nats": 2.0, "exact_match": 50.0}


def test_what_is_not_there_is_one_line(run: Run) -> None:
    for arguments, said in (
        (("--set", "held-out"), "--set held-out: give an earlier stage's own set"),
        (("--set", "D_C"), "has no stage after its own that could forget it"),
        (("--form", "cubic"), "--form cubic: there are linear, quadratic, root"),
        (("--leave", "runs"), "--leave runs: there are both, arms, seeds"),
    ):
        result = call(str(run.path), *arguments)
        assert result.exit_code == 2
        assert said in " ".join(result.output.split())


def divergence(per_token: float) -> SetDivergence:
    return SetDivergence(np.array([3 * per_token]), np.array([6 * per_token]), np.array([3]))


def points(law: Key = LAW, arms: int = 4, seeds: int = 10) -> list[Point]:
    """Points whose forgetting is a quadratic of one predictor, the others being noise."""
    rng = np.random.default_rng(0)
    found = []
    for arm in range(arms):
        for seed in range(seeds):
            kl, length, held = rng.uniform(0.1, 2, 3)
            x = kl if law == LAW else length
            lost = 4 * x + x * x
            sets = {("D_A", START): lost / 8, ("D_B", START): kl, ("D_B", BASE): 2 * kl}
            sets |= {("held-out", START): held}
            if arm:  # a set that one arm lacks is no predictor
                sets["D_M", START] = kl
            forgotten = {"nats": lost, "exact_match": min(100.0, 20 * lost)}
            kls = {key: divergence(value) for key, value in sets.items()}
            at = (f"arm {arm}", seed, f"run {seed}", 1, "D_B", forgotten, (100.0, 50.0), length)
            found.append(Point(*at, kls))
    return found


@cache
def law_of(law: Key = LAW) -> KLLaw:
    made = points(law)
    return KLLaw("D_A", 1, made, "both", "quadratic", fitted(made, "both"), "", blocks=True)


@pytest.mark.parametrize(("law", "verdict"), [(LAW, "supported"), (RIVAL, "refuted")])
def test_a_planted_law_decides(law: Key, verdict: str, run: Run) -> None:
    result = law_of(law)
    lead, *more = findings(result, Rule(0.1, 10))
    assert lead.claim == "KL on D_B predicts nats of D_A lost better than ‖Δθ‖"
    assert lead.verdict == verdict
    assert lead.n == 10
    assert len(more) == 3
    found = result.fit(law)
    assert found is not None
    assert found.skill == pytest.approx(1)
    told = answer(result, [lead, *more], "kl_law", run, [])
    assert len(told) <= 25
    assert all(len(line) <= 80 for line in told)
    assert any(line.startswith("KL on D_A *") for line in told)
    (undeclared, *_) = findings(result, Rule(None, 10))
    assert undeclared.verdict == "undetermined"
    (few, *_) = findings(result, Rule(0.1, 11))
    assert "a verdict needs 11 seeds, and there are 10" in few.sentence


def test_tables_have_every_fit_and_no_predictor_that_a_point_lacks() -> None:
    result = law_of(LAW)
    made = tables(result)
    assert len(made[""]) == 40
    names = {row["predictor"] for row in made["fits"]}
    assert "KL on D_B reverse to θ_0" in names
    assert not any("D_M" in name for name in names)
    assert {row["rival"] for row in made["fits"] if row["on"] == "D_A"} == {False}
    first = made["fits"][0]
    assert (first["predictor"], first["outcome"]) == ("KL on D_B", "nats")
    both = next(row for row in made["fits"] if row["form"] == "quadratic")
    assert (both["a"], both["b"]) == pytest.approx((4, 1))
    by_fits = {(row["predictor"], row["outcome"], row["form"]): row["r2"] for row in made["fits"]}
    for row in made["comparisons"]:
        at = (row["outcome"], row["form"])
        expected = by_fits[row["law"], *at] - by_fits[row["against"], *at]
        assert row["difference"] == pytest.approx(expected)
    kinds = {(row["predictor"], row["kind"]) for row in drawn_rows(result)}
    assert len(kinds) == 6


def test_no_point_serves_to_predict_another_of_its_run() -> None:
    """Also where only arms, or only seeds, are left out."""
    made = points()
    for leave in ("both", "arms", "seeds"):
        there = apart(made, leave)
        for i, one in enumerate(made):
            for j, other in enumerate(made):
                same = one.run == other.run or one.seed == other.seed
                same |= leave in ("both", "arms") and one.arm == other.arm
                assert there[i, j] == (not same)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (points(arms=4, seeds=7), "needs 30 points of 4 arms, and there are 28 of 4 arms"),
        (points(arms=3, seeds=10), "needs 30 points of 4 arms, and there are 30 of 3 arms"),
        (points(arms=15, seeds=2), ""),
        (points(arms=30, seeds=1), "a point needs 10 others of other arms and seeds"),
    ],
)
def test_too_few_points_are_not_fitted(made: list[Point], said: str) -> None:
    assert said in lacking(made, "both")
    assert bool(lacking(made, "both")) == bool(said)


def test_the_defaults_are_the_law_s() -> None:
    asked = Asked()
    assert (asked.name, asked.form, asked.leave, asked.smallest) == (
        "D_A",
        "quadratic",
        "both",
        None,
    )
