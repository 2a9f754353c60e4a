"""`geomix analyze forgetting-path`, through the real command on small runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from geomix.analysis.forgetting_path.notes import location, verdict
from geomix.analysis.forgetting_path.split import ArmSplit, measure
from geomix.api import Run
from geomix.cli import main
from geomix.util.errors import UserError
from geomix.util.hdf5 import TEXTS, text_hash

CONFIG = """name: small
train: {lr: 3e-3, loss: token, batch_size: 4, update_shares: true, weight_decay: 0.1}
stages:
  - {data: {source: kvr, limit: 8}, stop: {epochs: 2}}
  - {data: {source: triples, limit: 6}, replay: 0.5, stop: {epochs: 1}}
record: {preset: path, probes: 6, adam: false}
evaluate: {epochs: 0}
"""


def train(folder: Path, model: Path, *settings: str) -> Run:
    file = folder.parent / f"{folder.name}.yaml"
    file.write_text(CONFIG)
    given = [word for setting in (f"model={model}", *settings) for word in ("--set", setting)]
    command = ["train", str(file), "--out", str(folder), "--quiet", *given]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    return Run(folder)


def asked(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["analyze", "forgetting-path", *arguments])


def refused(*arguments: str) -> str:
    result = asked(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.output.splitlines()
    return str(line)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    return train(tmp_path_factory.mktemp("runs") / "zero", tiny_model)


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    return Run(Path(shutil.copytree(run.path, tmp_path / "copy")))


def recorded(run: Run) -> tuple[dict[str, float], dict[str, float]]:
    """From the files alone: measured change of D_A's loss, and Simpson's sums by place or part."""
    sums: dict[str, float] = {}
    losses: list[float] = []
    for file in run.snapshots():
        with h5py.File(file) as shot:
            probe = shot["probes/D_A"]
            tokens = np.diff(probe["offsets"][:])
            losses.append(float((probe["loss"][:] * tokens).sum() / tokens.sum()))
            if shot.attrs["stage"] == 0:
                start = losses[-1]
                continue
            a = [name.decode() for name in shot["parameters/set"][:]].index("D_A")
            parts = [name.decode() for name in shot["path/part"][:]]
            for m, layer in enumerate(shot["parameters/layer"][:]):
                for j, part in enumerate(parts):
                    first, middle, last = shot["path/products"][m, a, :, j]
                    value = (first + 4 * middle + last) / 6
                    for key in (part, *([f"layer {layer}"] if part == "total" else [])):
                        sums[key] = sums.get(key, 0.0) + value
    return {"measured": losses[-1] - start}, sums


@pytest.mark.usefixtures("unprinted")
def test_the_command_says_what_the_files_add_up_to(run: Run) -> None:
    result = asked(str(run.path), "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    (check,) = (c for c in told["checks"] if c["set"] == "D_A")
    measured, sums = recorded(run)
    assert check["measured"] == pytest.approx(measured["measured"], rel=1e-9)
    assert check["simpson"] == pytest.approx(sums["total"], rel=1e-9)
    assert abs(check["measured"]) > 0.01
    assert check["error"] == pytest.approx(abs(sums["total"] / check["measured"] - 1), rel=1e-6)
    assert check["error"] < 0.01
    rows = {(r["group"], r["part"]): r["change"] for r in told["rows"] if r["set"] == "D_A"}
    parts = {part for _, part in rows}
    assert parts >= {"total", "D_B", "decay"}
    assert len(parts) == 4  # and the replayed examples
    for part in parts:
        assert rows["all", part] == pytest.approx(sums[part], rel=1e-9)
    for layer in (1, 2):
        assert rows[f"layer {layer}", "total"] == pytest.approx(sums[f"layer {layer}"], rel=1e-9)
    apart = sum(rows["all", part] for part in parts - {"total"})
    assert apart == pytest.approx(rows["all", "total"], rel=1e-3)
    groups = {group for group, _ in rows} - {"all"}
    whole = sum(rows[group, "total"] for group in groups)
    assert whole == pytest.approx(rows["all", "total"], rel=1e-9)


def test_half_the_snapshots_say_what_the_pairs_say(
    run: Run, tmp_path: Path, tiny_model: Path
) -> None:
    """The same training, recorded after every other step and at its end: another path of pieces."""
    other = train(tmp_path / "other", tiny_model, "record.at=[boundaries, every:2]")
    (fine,), (rough,) = (measure([each], by="parameter").arms for each in (run, other))
    assert fine.segments[0] == 2 * rough.segments[0] - 1  # the last piece has no partner
    assert np.array_equal(fine.measured, rough.measured)
    most = np.abs(rough.trapezoid).max()
    np.testing.assert_allclose(fine.coarser, rough.trapezoid, rtol=1e-4, atol=1e-6 * most)
    a = fine.sets.index("D_A")
    for got, axis in zip(
        fine.moved("D_A")[0], ((slice(1, None), 0), (0, slice(1, None))), strict=True
    ):
        one, two = fine.trapezoid[0][:, a][axis], rough.trapezoid[0][:, a][axis]
        assert got == pytest.approx(np.abs(one - two).sum() / np.abs(one).sum(), rel=1e-3)
        assert got > 1e-4


def test_tables_and_files(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = asked(str(run.path), "--by", "module", "--set", "D_B", "--full")
    assert result.exit_code == 0, result.output
    assert "Verdict, zero: the attribution of D_B" in " ".join(result.output.split())
    lines = result.output.splitlines()
    names = [line for line in lines if line.startswith(str(run.path))]
    assert not [line for line in lines if len(line) > 80 and str(run.path) not in line]
    assert [Path(name).name for name in names] == [
        "forgetting_path_stage1_by_module.h5",
        "forgetting_path_stage1_by_module.json",
        "forgetting_path_stage1_D_B.pdf",
        "forgetting_path_stage1_D_B.png",
        "forgetting_path_stage1_D_B.csv",
        "forgetting_path_stage1_D_B.txt",
    ]
    assert all(Path(name).is_file() for name in names)
    with h5py.File(names[0]) as file:
        arm = file["zero"]
        assert arm["simpson"].shape == arm["coarser"].shape
        table = json.loads(Path(names[1]).read_text())
        change = [r["change"] for r in table["rows"]]
        np.testing.assert_allclose(arm["simpson"][0].transpose(1, 0, 2).ravel(), change)


@pytest.mark.usefixtures("unprinted")
def test_a_stage_is_asked_for_by_number_from_1_or_by_name(run: Run) -> None:
    first, last = measure([run], 0), measure([run])
    assert (first.title, last.title) == ("stage 1 (kvr)", "stage 2 (triples)")
    for stage, index in (("1", 0), ("kvr", 0), ("2", 1), ("triples", 1)):
        result = asked(str(run.path), "--stage", stage, "--json")
        assert json.loads(result.output)["stage"] == index  # keys in files count from 0
    said = " ".join(asked(str(run.path), "--stage", "kvr", "--full").output.split())
    assert "in stage 1 (kvr)" in said
    assert "stage 0 " not in said
    refusal = refused(str(run.path), "--stage", "0")
    assert "--stage 0: no such stage; there are 1 (kvr), 2 (triples) (numbers count" in refusal
    assert "no stage has this name" in refused(str(run.path), "--stage", "tripels")


@pytest.mark.usefixtures("unprinted")
def test_the_answer_comes_first_and_the_tables_on_demand(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    short = asked(str(run.path)).output.splitlines()
    assert short[0] == "Where did the loss of D_A change in stage 2 (triples)?"
    assert len(short) <= 25
    assert max(len(line) for line in short if str(run.path) not in line) <= 80
    said = " ".join(" ".join(short).split())
    result = measure([run])
    assert verdict(result.arms[0], "D_A") in said
    assert location(result, result.arms[0], "D_A") in said
    assert "No interval: one seed" in said
    for word in ("analysis/forgetting_path_stage1.*", "figures/forgetting_path_stage1_D_A.*"):
        assert word in said
        assert list(run.path.glob(word))
    full = asked(str(run.path), "--full").output
    assert "trape" in full
    assert "trape" not in said
    assert full.startswith(
        "\n".join(short[: short.index("All tables: the same command with --full.")])
    )


@pytest.mark.usefixtures("unprinted")
def test_runs_of_several_seeds_have_an_interval(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    other = train(tmp_path / "one", tiny_model, "seed=1")
    result = measure([run, other])
    (arm,) = result.arms
    assert (arm.arm, arm.seeds) == ("small", (0, 1))
    one, two = (measure([each]).arms[0].simpson[0, 0, 0, 0] for each in (run, other))
    (row,) = (
        r
        for r in result.rows()
        if (r["set"], r["group"], r["part"]) == (arm.sets[0], "all", "total")
    )
    assert row["change"] == pytest.approx((one + two) / 2)
    assert row["half_width"] == pytest.approx(12.706 * abs(one - two) / 2, rel=1e-4)
    assert "2 seeds" in location(result, arm, "D_A")
    assert refused(str(run.path), str(run.path)).endswith(
        "seed 0 is given twice; give runs of other seeds"
    )
    assert asked(str(run.path), str(other.path)).exit_code == 0


def holding(arm: ArmSplit) -> ArmSplit:
    """An arm whose total is what was measured, wherever its training went."""
    return replace(arm, measured=arm.simpson[:, 0, :, 0])


def test_a_verdict_needs_both_checks(copy: Run) -> None:
    found = holding(measure([copy]).arms[0])
    stable = replace(found, coarser=1.05 * found.trapezoid)
    assert "can be trusted" in verdict(stable, "D_A")
    elsewhere = replace(found, coarser=1.15 * found.trapezoid)
    assert "is not to be trusted" in verdict(elsewhere, "D_A")
    assert "is not to be trusted" in verdict(replace(stable, measured=found.measured / 1.02), "D_A")
    for file in copy.snapshots():
        with h5py.File(file, "a") as shot:
            if "path" in shot and "pairs" in shot["path"]:
                del shot["path/pairs"]
                shot.attrs[TEXTS] = text_hash(shot)
    assert "is half checked" in verdict(holding(measure([copy]).arms[0]), "D_A")
    for file in copy.snapshots():
        with h5py.File(file, "a") as shot:
            if "path" in shot:
                shot["path/products"][:] *= -9
    assert "is not to be trusted" in verdict(measure([copy]).arms[0], "D_A")


def test_what_is_missing_is_one_line(copy: Run) -> None:
    path = str(copy.path)
    assert "--stage 3: no such stage; there are 1 (kvr), 2 (triples)" in refused(
        path, "--stage", "3"
    )
    with pytest.raises(UserError, match=r"no snapshots within stage 4; .* stage 1 \(kvr\), 2 \(tr"):
        measure([copy], 3)
    assert "--set D_Z" in refused(path, "--set", "D_Z")
    stage0 = [file for file in copy.snapshots() if file.name.startswith("stage0")]
    later = [file for file in copy.snapshots() if file.name.startswith("stage1")]
    later[1].unlink()
    assert "has a gap between steps 1 and 3" in refused(path)
    with h5py.File(later[0], "a") as shot:
        del shot["path"]
        shot.attrs["path"] = "not asked for"
        shot.attrs[TEXTS] = text_hash(shot)
    assert "recorded without `midpoints`" in refused(path)
    stage0[-1].unlink()
    assert "the loss at the start of stage 2 is not recorded" in refused(path)
    for file in copy.snapshots():
        file.unlink()
    assert "no snapshots; train with `record: {preset: path}`" in refused(path)
