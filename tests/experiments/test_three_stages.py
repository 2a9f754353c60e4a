"""Three stages, two mixes in the first, a replay in the third: a run through every command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from matplotlib.figure import Figure

import geomix
from geomix.api import Run
from geomix.cli import main
from geomix.data.provenance import read_listed
from geomix.runs.retention import retention_rows

MIXES = [
    {"source": "random-words", "ratio": 1, "words": 3},
    {"source": "prose", "ratio": 0.5, "words": 3, "name": "text"},
]
SETS = ["D_A", "D_B", "D_C", "D_M-random-words", "D_M-text", "held-out"]


def configured(model: Path) -> dict[str, Any]:
    def stage(source: str, **more: Any) -> dict[str, Any]:
        return {"data": {"source": source, "limit": 4}, "stop": {"epochs": 1}, **more}

    return {
        "model": str(model),
        "train": {"lr": 0.01, "batch_size": 4, "update_shares": True},
        "stages": [
            stage("kvr", mix=MIXES),
            stage("arithmetic"),
            stage("triples", replay={"ratio": 0.5, "stages": ["kvr", "arithmetic"]}),
        ],
        "record": {"preset": "path", "probes": 3, "weights": True, "mix": MIXES},
        "evaluate": {"epochs": 1},
        "arms": {
            "both": {},
            "one": {"stages.0.mix.1.passage_free": True},
            "plain": {"stages.0.mix": None},
        },
    }


@pytest.fixture
def unprinted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn, and their files are empty."""
    monkeypatch.setattr(Figure, "savefig", lambda _, file, **__: file.touch())


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("three") / "r"
    return geomix.train(configured(tiny_model), out=folder, say=lambda _: None)


def lines(run: Run, arm: str, event: str) -> list[dict[str, Any]]:
    return [line for line in run.arm(arm).metrics() if line["event"] == event]


def called(*words: str | Path) -> Result:
    done = CliRunner().invoke(main, [str(word) for word in words], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return done


def test_shares_and_weights_are_of_each_mix(run: Run) -> None:
    for arm, trained in (("both", (True, True)), ("one", (True, False))):
        steps = [line for line in lines(run, arm, "step") if line["stage"] == 0]
        for line in steps:
            assert list(line["weights"]) == ["D_A", "D_M-random-words", "D_M-text"]
            assert sum(line["weights"].values()) == pytest.approx(1)
            assert sum(line["update_shares"].values()) == pytest.approx(1)
        for name, is_trained in zip(["D_M-random-words", "D_M-text"], trained, strict=True):
            assert any(line["weights"][name] > 0 for line in steps) == is_trained
            assert any(line["update_shares"][name] != 0 for line in steps) == is_trained
    counts = [len(lines(run, arm, "step")) for arm in ("both", "one", "plain")]
    assert counts[0] == counts[1] > counts[2]
    described = json.loads((run.arm("one").path / "stages/0-kvr/data.json").read_text())
    trained_of = {name: part["trained"] for name, part in described["sets"].items()}
    assert trained_of == {"D_A": True, "D_M-random-words": True, "D_M-text": False}


def test_every_arm_probes_the_same_passages(run: Run) -> None:
    probes = [json.loads(run.arm(a).probes_file.read_text()) for a in ("both", "one", "plain")]
    assert [list(found) for found in probes] == [SETS] * 3
    assert probes[0] == probes[1] == probes[2]
    mixed = read_listed(run.arm("both").path, "D_M-text")
    assert probes[2]["D_M-text"]["examples"][0]["target"] == mixed[0].target


def test_each_mix_is_evaluated_at_the_boundaries(run: Run) -> None:
    rows = retention_rows(run)
    found = {(row.set, row.moment) for row in rows if row.arm == "both"}
    for moment in ("θ_0", "after stage 1", "after stage 2", "after stage 3"):
        for name in SETS[:-1]:
            assert (name, moment) in found
    assert {row.set for row in rows if row.arm == "plain"} == {"D_A", "D_B", "D_C"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sets", "source"),
    [("D_B,D_C", "weights"), ("D_A,D_M-text", "record")],
)
@pytest.mark.usefixtures("unprinted")
def test_angles_of_any_two_sets(run: Run, sets: str, source: Any) -> None:
    """From weights each mix has its null of shuffled labels, under its own name."""
    found = geomix.analyze.grad_angle(run.arm("both"), sets=sets, source=source, examples=2)
    table = found.tables[""]
    assert set(table["moment"]) >= {"θ_A", "θ_B", "θ_B+1", "θ_C"}
    first, second = sets.split(",")
    pair = table[(table["first"] == first) & (table["second"] == second)]
    assert len(pair)
    assert pair["cosine"].abs().max() <= 1
    nulls = {"shuffled-random-words", "shuffled-text"} if source == "weights" else set()
    names = {*table["first"], *table["second"]}
    assert {name for name in names if name.startswith("shuffled")} == nulls
    lines = found.answer.splitlines()
    assert lines[0] == f"Do the gradients of {first} and {second} conflict?"
    assert len(lines) <= 25
    assert len(found.findings) == 1


@pytest.mark.parametrize(
    ("stage", "parts"),
    [
        pytest.param(
            *("1", {"D_A", "D_M-random-words", "D_M-text", "total"}), marks=pytest.mark.slow
        ),
        pytest.param("arithmetic", {"D_B", "total"}, marks=pytest.mark.slow),
        ("3", {"D_C", "replay", "total"}),
    ],
)
@pytest.mark.usefixtures("unprinted")
def test_the_path_of_each_stage_splits_by_source(run: Run, stage: str, parts: set[str]) -> None:
    """The parts of every change sum to the whole, and the whole is the change that was measured."""
    found = geomix.analyze.forgetting_path(run.arm("both"), stage=stage)
    table = pd.DataFrame(found.result.rows())
    assert set(table["part"]) == parts
    whole = table.query("group == 'all'").pivot_table(index="set", columns="part", values="change")
    np.testing.assert_allclose(whole.drop(columns="total").sum(axis=1), whole["total"], atol=1e-5)
    assert list(whole.index) == sorted(SETS)


@pytest.mark.usefixtures("unprinted")
def test_show_figures_and_export(run: Run, tmp_path: Path) -> None:
    shown = called("show", run.path).output
    table = shown[shown.index("Stages") : shown.index("Results")]
    for word in ("random-words", "1:0.5", "passage-free", "replay"):
        assert word in table
    assert max(map(len, shown.splitlines())) <= 80
    drawn = called("figure", "retention", run.path).output.split()
    rows = pd.read_csv(next(file for file in drawn if file.endswith(".csv")))
    assert set(rows["set"]) == {"D_A", "D_B", "D_C"}
    assert set(rows["stage"]) == {0, 1, 2}
    called("export", run.arm("both").path, "--to", tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out" / "probes.example.parquet")
    assert set(table["set"]) == set(SETS)


@pytest.mark.slow
def test_recording_afterwards_gives_the_same(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    config = configured(tiny_model)
    record = config["record"]
    later = geomix.train(
        {**config, "arms": {"both": {}}, "record": None}, out=tmp_path / "later", say=lambda _: None
    )
    keys = {"probes": 3, "activations": 0, "lens": False, "mix": MIXES}
    assert record["probes"] == keys["probes"]
    called(
        "record",
        later.path,
        *(w for k, v in keys.items() for w in ("--set", f"record.{k}={json.dumps(v)}")),
    )
    online, offline = run.arm("both").records, later.arm("both").records
    for probe in SETS:
        one, other = (records.at(2)[f"probes/{probe}"].loss.values for records in (online, offline))
        np.testing.assert_allclose(one, other, rtol=1e-5)
