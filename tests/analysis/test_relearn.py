"""`geomix analyze relearn`: exchanged weights with known answers, and a run as a user has it."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from transformers import AutoModelForCausalLM

import geomix
from geomix.analysis import driver
from geomix.analysis.relearn import RATES, STEPS, Asked, RelearnAnalysis
from geomix.analysis.relearn.bench import Bench
from geomix.analysis.relearn.measure import bench_of
from geomix.analysis.relearn.result import ANOTHER, RANDOM, Member
from geomix.api import Run
from geomix.cli import main
from geomix.data.example import TokenisedExample
from geomix.experiments.precise import PreciseArm
from geomix.experiments.retrain import epochs_of
from geomix.gradients.vectors import Vector
from geomix.measures.relearning import savings

QUICK = Asked(draws=1, budget=0)


def train(model: Path, folder: Path, seed: int = 0, **data: Any) -> Run:
    """A run that learns twelve facts of D_A, and loses some of them in a few steps on D_B."""
    first = {"data": {"source": "kvr", "limit": 12, **data}}
    second = {"data": {"source": "triples", "limit": 8}, "stop": {"steps": 8}}
    config = {
        "model": str(model),
        "seed": seed,
        "train": {"lr": 1e-2, "batch_size": 6, "loss": "example", "schedule": "constant"},
        "stages": [
            {**first, "stop": {"epochs": 80, "exact_match": 100}},
            {**second, "train": {"lr": 2e-3}},
        ],
        "record": None,
        "evaluate": {"epochs": 5},
    }
    return geomix.train(config, out=folder)


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tiny_model, tmp_path_factory.mktemp("relearn") / "run")


@pytest.fixture(scope="module")
def arm(run: Run) -> PreciseArm:
    return PreciseArm.open(run, attention=None)


@pytest.fixture
def bench(arm: PreciseArm) -> Iterator[Bench]:
    found, _ = bench_of(arm, None, 0, Asked())
    yield found
    for parameter in arm.parameters.values():
        parameter.grad = None


def member(bench: Bench, start: Vector, asked: Asked, budget: int = 0) -> Member:
    """The measurement, with the weights that the bench holds."""
    scores = {"base": bench.scores(bench.base), "start": bench.scores(start)}
    scores["end"] = bench.scores(bench.end)
    courses = list(bench.courses(scores["start"].right & ~scores["end"].right, asked))
    relearnt = list(bench.relearnt(asked, budget))
    texts = [("", "")] * len(bench.facts)
    return Member(0, "", texts, True, scores, (1, 1.0), courses, relearnt, budget, {})


def test_a_model_that_lost_nothing_saves_everything(bench: Bench, arm: PreciseArm) -> None:
    """θ_B := θ_A: the lost set is empty, there are no courses, and s = 1."""
    bench.end = arm.weights("A")
    found = member(bench, bench.end, Asked(), budget=240)
    assert found.courses == []
    assert not found.lost.any()
    assert found.states("D_A") == ["kept"] * 12
    saved = found.saved("D_A")["savings"][0]
    assert (saved.value, saved.bound) == (1.0, "")


def test_a_model_that_never_learnt_saves_nothing_to_the_bit(bench: Bench, arm: PreciseArm) -> None:
    """θ_B := θ_0: s = 0, and the cues do what they do from θ_0."""
    bench.end, bench.held_out = bench.base, []
    found = member(bench, arm.weights("A"), replace(QUICK, criterion=50), budget=240)
    (own, other), saved = found.relearnt[:2], found.saved("D_A")["savings"][0]
    assert (own.exact, own.bits) == (other.exact, other.bits)
    assert (saved.value, saved.bound) == (0.0, "")
    for rate in RATES:
        mine, null = (found.of(kind, rate)[0] for kind in ("D_A", "θ_0"))
        np.testing.assert_array_equal(mine.bits, null.bits)
        np.testing.assert_array_equal(mine.right, null.right)


def test_reinitialised_weights_save_about_nothing(
    bench: Bench, arm: PreciseArm, tiny_model: Path
) -> None:
    """Other random weights of the same kind need about as many steps as θ_0."""
    import torch

    config = AutoModelForCausalLM.from_pretrained(tiny_model).config
    with torch.random.fork_rng():
        torch.manual_seed(7)
        fresh = dict(AutoModelForCausalLM.from_config(config).named_parameters())
    bench.end = {name: fresh[name].detach() for name in arm.parameters}
    own, base = list(bench.relearnt(Asked(), 400))[:2]
    assert own.reached != base.reached
    assert abs(savings(own.reached, base.reached, 400).value) < 0.3


def test_what_was_learnt_once_is_learnt_faster(bench: Bench, arm: PreciseArm) -> None:
    found = member(bench, arm.weights("A"), QUICK, budget=240)
    saved = found.saved("D_A")
    assert saved["savings"][0].value > 0.3
    assert saved["net"][0].value > 0.3


def test_scores_are_those_that_the_run_stored(bench: Bench, arm: PreciseArm, run: Run) -> None:
    """The evaluation at the end of each stage: exact match, and nats of every answer."""
    for letter, folder in (("A", "0-kvr"), ("B", "1-triples")):
        file = max((run.path / "stages" / folder / "eval").glob("epoch-*.jsonl"))
        stored = [json.loads(line) for line in file.read_text().splitlines()]
        mine = [one for one in stored if one["set"] == "D_A"]
        found = bench.scores(arm.weights(letter))
        assert found.right.tolist() == [one["exact"] for one in mine]
        entropy = [fact.text.entropy or 0.0 for fact in bench.facts]
        nats = (np.array(entropy) - found.bits) * math.log(2)
        np.testing.assert_allclose(nats, [one["nll"] for one in mine], atol=1e-4)


def test_cues_are_not_scored_and_nulls_have_as_many(bench: Bench, arm: PreciseArm) -> None:
    found = member(bench, arm.weights("A"), Asked(draws=2, budget=0))
    assert found.kinds == ["D_A", "held-out", "D_B", RANDOM, "θ_0"]
    assert len(found.courses) == 2 * len(RATES) * len(found.kinds)
    lost = int(found.lost.sum())
    assert bench.course_count(lost, Asked(draws=2)) == len(found.courses)
    assert bench.course_count(1, Asked(draws=2)) == 0
    for one in found.courses:
        assert one.steps == (0, *STEPS)
        assert not (one.cues & ~found.lost).any()
        assert 0 < one.cues.sum() < found.lost.sum()
        others = found.lost & ~one.cues
        assert one.share(found.lost) == pytest.approx(100 * one.right[:, others].mean(axis=1))
    first, second = (found.of("D_A", 1.0)[draw].cues for draw in range(2))
    assert (first != second).any()
    for course in found.courses:
        begin = found.scores["base" if course.kind == "θ_0" else "end"]
        np.testing.assert_array_equal(course.bits[0], begin.bits)
    own = found.of("D_A", 1.0)[0]
    assert own.bits[-1, own.cues].mean() > own.bits[0, own.cues].mean() + 1  # these were retrained


def test_random_signs_go_as_far_in_every_tensor(
    bench: Bench, arm: PreciseArm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their displacements, seen as the model moves there, against those of the cues."""
    moved: list[dict[str, float]] = []
    lengths: dict[int, dict[str, float]] = {}
    at = (0, 1.0, np.arange(12) < 4)
    bench._course("D_A", at, bench.end, list(bench.facts[:4]), lengths)
    move = arm.move_to

    def seen(weights: Vector) -> None:
        moved.append({n: float((t - bench.end[n]).norm()) for n, t in weights.items()})
        move(weights)

    monkeypatch.setattr(arm, "move_to", seen)
    bench._random(at, lengths)
    assert len(moved) == 1 + len(STEPS)
    for step, there in zip(STEPS, moved[1:], strict=True):
        for name, length in there.items():
            assert length == pytest.approx(lengths[step][name], rel=1e-3)


def test_orders_of_two_sets_of_one_size_are_the_same(facts: list[TokenisedExample]) -> None:
    one, other = facts[:5], facts[5:10]
    mine, theirs = (list(epochs_of(part, 2, (0,), 7)) for part in (one, other))
    places = [[one.index(fact) for fact in batch] for batch in mine]
    assert places == [[other.index(fact) for fact in batch] for batch in theirs]
    assert [len(batch) for batch in mine] == [2, 2, 1, 2, 2, 1, 2]
    assert sorted(i for batch in places[:3] for i in batch) == [*range(5)]
    assert places[:3] != places[3:6]


def files(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.parent.name not in ("analysis", "figures")
    }


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["analyze", "relearn", *arguments], env={"COLUMNS": "80"})


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "analysis" / f"{name}.csv").open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.usefixtures("unprinted")
def test_a_user_s_call_leaves_the_run_alone_and_repeats_itself(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.path, folder)
    before = files(folder)
    result = call(str(folder), "--draws", "1", "--budget", "4")
    assert result.exit_code == 0, result.output
    told = result.stdout.splitlines()
    assert told[0] == "Are the facts of D_A that θ_B has lost hidden or gone?"
    assert all(len(line) <= 80 for line in told)
    assert len(told) <= 25
    assert "give a run of another seed" in " ".join(result.stdout.split())
    after = files(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"analysis.lock"}
    facts = table(folder, "relearn_facts")
    counts = {s: sum(row["state"] == s for row in facts) for s in ("kept", "hidden", "gone")}
    (states, *nulls) = table(folder, "relearn_states")
    assert {name: int(states[name]) for name in counts} == counts
    assert {row["cues"] for row in nulls} == {"held-out", "D_B", "random", "θ_0"}
    assert {row["bound"] for row in table(folder, "relearn_savings")} <= {"", "<", ">"}
    first = (folder / "analysis" / "relearn.json").read_bytes()
    assert call(str(folder), "--draws", "1", "--budget", "4").exit_code == 0
    assert (folder / "analysis" / "relearn.json").read_bytes() == first


@pytest.mark.usefixtures("unprinted")
def test_runs_of_other_seeds_are_the_null_of_another_set(
    run: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """The cues teach a model that never saw D_A no other fact of it."""
    shutil.copytree(run.path, tmp_path / "one")
    one, other = Run(tmp_path / "one"), train(tiny_model, tmp_path / "other", seed=1)
    done = driver.run(RelearnAnalysis(), [one, other], QUICK)
    for found in done.result.members:
        assert found.lacking == {}
        assert ANOTHER in found.kinds
        assert found.recovered(ANOTHER, 1, 1.0) == 0
    assert done.findings[0].n == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "held-out"), "--set held-out: give an earlier stage's own set"),
        (("--set", "D_B"), "has no stage after its own that could forget it"),
        (("--step", "3"), "--step 3: there are 1, 2, 4, 8, 16"),
        (("--rate", "0.5"), "--rate 0.5: there are 1, 0.3"),
    ],
)
def test_what_is_not_there_is_one_line(run: Run, arguments: tuple[str, ...], said: str) -> None:
    result = call(str(run.path), *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_weights_that_are_missing_are_one_line(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "stages" / "1-triples" / "checkpoints")
    result = call(str(tmp_path / "run"))
    assert result.exit_code == 2
    assert "no weights of θ_B; there are 0, A" in " ".join(result.output.split())
