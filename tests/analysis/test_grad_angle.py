"""`geomix analyze grad-angle` on runs whose gradients are planted."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from geomix.analysis.checkpoints import (
    NamedCheckpoint,
    as_asked,
    chosen,
    figure_checkpoints,
    key_checkpoints,
)
from geomix.analysis.grad_angle.asked import Asked
from geomix.analysis.grad_angle.measure import measure
from geomix.analysis.grad_angle.notes import notes
from geomix.analysis.grad_angle.result import AngleRow, GradAngle
from geomix.analysis.parameter_groups import Kind
from geomix.api import Run
from geomix.util.errors import UserError
from tests.analysis.calls import command, grad_angle, unprint

Make = Callable[..., Any]
LAYERS = 3
PROBES = {"D_A": (100, 100), "D_M": (9, 20), "held-out": (5, 5)}


def rows_of(run: Run, by: Kind = "layer", **where: Any) -> list[AngleRow]:
    rows = list(measure([run], Asked(by=by)).rows())
    return [r for r in rows if all(getattr(r, k) == v for k, v in where.items())]


def test_the_planted_layer_is_found(
    tmp_path: Path, parameters: Make, random_gradients: Make, write_arm: Make
) -> None:
    """One layer opposes, one agrees, all others are orthogonal by construction."""
    places = parameters(LAYERS)
    drawn = random_gradients(LAYERS)

    def draw(name: str, stage: int, step: int) -> dict[str, np.ndarray]:
        gradient = {p: np.zeros(size) for p, (_, _, size) in places.items()}
        for p, (layer, _, _) in places.items():
            base = drawn("base", 0, 0)[p]
            if layer == 2:
                gradient[p] = base if name == "D_A" else -2 * base
            elif layer == 3:
                gradient[p] = base if name == "D_A" else 0.5 * base
            else:
                gradient[p][0 if name == "D_A" else 1] = 3.0
        return gradient

    write_arm(tmp_path, draw, sets=("D_A", "D_B"))
    found = {r.group: r for r in rows_of(Run(tmp_path), moment="θ_0")}
    assert {g: round(r.cosine, 12) + 0.0 for g, r in found.items() if g != "all"} == {
        "embedding+head (tied)": 0,
        "layer 1": 0,
        "layer 2": -1,
        "layer 3": 1,
        "final norm": 0,
    }
    assert next(iter(found)) == "all"
    assert found["layer 2"].angle_degrees == pytest.approx(180)
    assert found["layer 1"].angle_degrees == pytest.approx(90)
    assert found["layer 2"].norm_second == pytest.approx(2 * found["layer 2"].norm_first)


@pytest.mark.parametrize("by", ["layer", "module", "parameter"])
def test_the_whole_model_is_the_concatenated_gradient(
    tmp_path: Path, random_gradients: Make, write_arm: Make, by: Kind
) -> None:
    """Independent: numpy on concatenated vectors; no inner product of the record is used."""
    draw = random_gradients(LAYERS)
    write_arm(tmp_path, draw)
    for row in rows_of(Run(tmp_path), by, group="all"):
        a, b = (
            np.concatenate(list(draw(s, row.stage, row.step).values()))
            for s in (row.first, row.second)
        )
        assert row.inner_product == pytest.approx(a @ b, rel=1e-12, abs=1e-12)
        assert row.norm_first == pytest.approx(np.linalg.norm(a), rel=1e-12)
        assert row.norm_second == pytest.approx(np.linalg.norm(b), rel=1e-12)
        assert row.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_every_group_is_measured_on_its_own_parameters(
    tmp_path: Path, parameters: Make, random_gradients: Make, write_arm: Make
) -> None:
    draw = random_gradients(LAYERS)
    write_arm(tmp_path, draw)
    a, b = draw("D_A", 0, 40), draw("D_B", 0, 40)
    pair = {"moment": "θ_A", "first": "D_A", "second": "D_B"}
    modules = {r.group: r for r in rows_of(Run(tmp_path), "module", **pair)}
    mine = [p for p, (_, module, _) in parameters(LAYERS).items() if module == "mlp.up_proj"]
    assert len(mine) == LAYERS
    assert modules["mlp.up_proj"].inner_product == pytest.approx(sum(a[p] @ b[p] for p in mine))
    one = {r.group: r for r in rows_of(Run(tmp_path), "parameter", **pair)}
    name = "model.layers.2.mlp.up_proj.weight"
    assert one[name].inner_product == pytest.approx(a[name] @ b[name])
    assert one[name].place == "layer 3"
    assert len(one) == len(parameters(LAYERS)) + 1


def test_an_untied_head_is_a_group_of_its_own(
    tmp_path: Path, random_gradients: Make, write_arm: Make
) -> None:
    write_arm(tmp_path, random_gradients(LAYERS, tied=False), tied=False)
    groups = measure([Run(tmp_path)]).groups
    assert groups == ("all", "embedding", "layer 1", "layer 2", "layer 3", "final norm", "head")


@pytest.mark.usefixtures("unprinted")
def test_a_zero_gradient_is_null_in_json_and_empty_in_csv(
    tmp_path: Path, random_gradients: Make, write_arm: Make
) -> None:
    drawn = random_gradients(LAYERS)

    def draw(name: str, stage: int, step: int) -> dict[str, np.ndarray]:
        scale = 0.0 if (name, stage, step) == ("D_A", 0, 40) else 1.0
        return {p: scale * g for p, g in drawn(name, stage, step).items()}

    write_arm(tmp_path, draw)
    grad_angle([Run(tmp_path)])
    table = json.loads((tmp_path / "analysis" / "grad_angle.json").read_text())["rows"]
    zero = next(r for r in table if r["moment"] == "θ_A" and r["first"] == "D_A")
    assert zero["cosine"] is zero["angle_degrees"] is None
    assert zero["norm_first"] == 0
    with (tmp_path / "figures" / "grad_angle.csv").open(newline="") as file:
        line = next(r for r in csv.DictReader(file) if r["moment"] == "θ_A" and r["first"] == "D_A")
    assert (line["cosine"], line["norm_first"]) == ("", "0.0")


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory,
    random_gradients: Make,
    write_arm: Make,
    write_run: Make,
) -> Run:
    """Two arms and a third that has not begun."""
    found: Run = write_run(tmp_path_factory.mktemp("runs") / "demo", ["plain", "mixed", "control"])
    for seed, arm in enumerate(("plain", "mixed")):
        folder = found.path / "arms" / arm
        write_arm(folder, random_gradients(LAYERS, seed), probes=PROBES)
    write_run(found.path / "arms" / "control")
    return found


@pytest.fixture(scope="module")
def saved(run: Run) -> tuple[GradAngle, list[Path]]:
    """Without figures in their files: `test_sets` has the same ones drawn."""
    with pytest.MonkeyPatch.context() as patch:
        unprint(patch)
        result, _, files = grad_angle([run])
    return result, files


def test_the_files_that_are_written(run: Run, saved: tuple[GradAngle, list[Path]]) -> None:
    result, files = saved
    written = sorted(str(p.relative_to(run.path)) for p in run.path.glob("*/grad_angle*"))
    figures = (
        "",
        "_layer_module",
        "_plane",
        "_row",
    )  # no metrics, so that nothing goes along training
    assert written == sorted(
        [f"analysis/grad_angle.{end}" for end in ("h5", "json", "txt")]
        + [
            f"figures/grad_angle{name}.{end}"
            for name in figures
            for end in ("csv", "pdf", "png", "txt")
        ]
    )
    assert sorted(str(f.relative_to(run.path)) for f in files) == written
    assert result.missing == ("control",)


def test_csv_json_and_arrays_hold_the_same_numbers(
    run: Run, saved: tuple[GradAngle, list[Path]]
) -> None:
    result, _ = saved
    rows = [asdict(row) for row in result.rows()]
    assert len(rows) == 2 * 4 * 6 * 6  # arms × moments × groups × pairs
    known = json.loads((run.analysis_folder / "grad_angle.json").read_text())["rows"]
    one_seed = {"half_width": None}
    assert known == [{**row, **one_seed, "values": [row["cosine"]]} for row in rows]
    with (run.figure_folder / "grad_angle.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    for row in rows:
        row |= {"half_width": "", "values": repr(row["cosine"])}
    assert [{k: str(v) for k, v in row.items()} for row in rows] == table
    with h5py.File(run.analysis_folder / "grad_angle.h5") as file:
        assert list(file["mixed/moment"].asstr()) == ["θ_0", "θ_A", "θ_A+1", "θ_B"]
        for row in rows[:: len(rows) // 7]:
            arm = file[row["arm"]]
            labels = {n: list(arm[n].asstr()) for n in ("moment", "group", "direction")}
            m, g = labels["moment"].index(row["moment"]), labels["group"].index(row["group"])
            i, j = (labels["direction"].index(row[k]) for k in ("first", "second"))
            assert arm["cosine"][0, m, g, i, j] == row["cosine"]
            assert arm["norm"][0, m, g, j] == row["norm_second"]
            axes = [d.keys()[0] for d in arm["cosine"].dims]
            assert axes == ["run", "moment", "group", "direction", "other"]


@pytest.mark.usefixtures("unprinted")
def test_the_same_run_gives_the_same_bytes(run: Run, saved: tuple[GradAngle, list[Path]]) -> None:
    """All but the figures, which `tests/figures` draws twice from one table."""
    _, files = saved
    before = [file.read_bytes() for file in files]
    _, _, again = grad_angle([run])
    assert [file.read_bytes() for file in again] == before


@pytest.mark.usefixtures("unprinted")
def test_json_on_stdout_and_nothing_else(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    command([run], Asked(), as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((run.analysis_folder / "grad_angle.json").read_text())
    assert printed["arms"]["plain"]["probes"]["D_M"] == {"n": 9, "of": 20}


@pytest.mark.usefixtures("unprinted")
def test_the_table_fits_80_columns(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command([run], Asked(), as_json=False, full=True)
    text = capsys.readouterr().out
    tables = text[text.index("Whole model") :]
    tables = tables[: tables.index(str(run.path)[:20])]
    assert max(len(line) for line in tables.splitlines()) <= 80
    (row,) = (
        r
        for r in rows_of(run, arm="mixed", moment="θ_A+1", group="all")
        if (r.first, r.second) == ("D_A", "D_B")
    )
    line = tables.splitlines()[1:][[x.strip() for x in tables.splitlines()].index("mixed") + 2]
    assert line.split()[:2] == ["θ_A+1", f"{row.cosine:+.3f}"]
    assert "embedding+head (tied)" in tables


def test_what_must_be_said_is_said(run: Run) -> None:
    said = notes(measure([run]))
    rows = rows_of(run, arm="plain", group="all", first="D_A", second="D_B")
    at = {row.moment: row for row in rows}
    ratio = at["θ_A"].norm_first / at["θ_0"].norm_first
    assert f"{ratio:.3g} (plain)" in next(line for line in said if line.startswith("|g_A| at θ_A"))
    assert f"{at['θ_0'].cosine:+.3f} at θ_0 and {at['θ_A+1'].cosine:+.3f} at θ_A+1" in said[0]
    text = " ".join(said)
    assert "One seed: no interval over seeds; nothing is claimed beyond this run." in said
    assert (
        "D_A 100 of 100 (the whole set: exact), D_M 9 of 20 (a subsample), "
        "held-out 5 of 5 (a sample of D_A's template)" in text
    )
    assert "left out: control" in text
    assert said[0].startswith("Verdict, plain: undetermined with one seed; the whole model's cos(")
    assert "held-out: unseen examples" in text
    assert "No held-out" not in text


def moments(stages: list[list[int]]) -> list[NamedCheckpoint]:
    return [
        NamedCheckpoint(stage, step, step == steps[-1], "token")
        for stage, steps in enumerate(stages)
        for step in steps
    ]


def test_moments_have_the_names_of_the_paper() -> None:
    labels = [m.label for m in moments([[0, 2, 9], [1, 9], [4, 9]])]
    assert labels == ["θ_0", "θ_0+2", "θ_A", "θ_A+1", "θ_B", "θ_B+4", "θ_C"]


def test_a_moment_has_one_name_however_it_is_asked_for() -> None:
    """So that its files have one."""
    given = ("θ_A", "A", "A+0", " theta_A+4", "A+4", "+04", "+4", "0", "+0")
    assert as_asked(given) == ("A", "A+4", "+4", "0", "+0")
    assert as_asked(()) == ()
    moments = [NamedCheckpoint(*m, "token") for m in ((0, 0, False), (0, 9, True), (1, 4, False))]
    for item in given:
        mine = [chosen([item])(moment) for moment in moments]
        assert mine == [chosen(as_asked([item]))(moment) for moment in moments]


def test_key_moments_are_common_to_the_arms() -> None:
    long, short = moments([[0, 9], [1, 3, 7, 20]]), moments([[0, 4], [1, 3, 9, 11]])
    assert key_checkpoints([long]) == ["θ_0", "θ_A", "θ_A+1", "θ_A+3", "θ_B"]
    assert key_checkpoints([long], middle=False) == ["θ_0", "θ_A", "θ_A+1", "θ_B"]
    assert key_checkpoints([long, short]) == ["θ_0", "θ_A", "θ_A+1", "θ_A+3", "θ_B"]
    unlike = moments([[0, 9], [2, 20]])
    assert key_checkpoints([long, unlike]) == ["θ_0", "θ_A", "θ_B"]
    begun = moments([[0, 9]])
    assert key_checkpoints([long, begun]) == key_checkpoints([long])
    assert len(figure_checkpoints([moments([[0, 9], [1, 3, 9], [1, 3, 9]])])) == 6


def test_users_mistakes_are_one_line_each(
    tmp_path: Path, random_gradients: Make, write_arm: Make, write_run: Make
) -> None:
    empty = write_run(tmp_path / "empty")
    with pytest.raises(
        UserError,
        match=r"empty: no snapshots, and no stage that has ended; train with `record:` on",
    ):
        measure([empty])

    one_stage = tmp_path / "one-stage"
    write_arm(one_stage, random_gradients(), sets=("D_A", "held-out"))
    with pytest.raises(UserError, match=r"no probe set D_B \(it holds D_A, held-out\)"):
        measure([Run(one_stage)])

    unlike = write_run(tmp_path / "unlike", ["small", "large"])
    for arm, layers in (("small", 2), ("large", 4)):
        write_arm(unlike.path / "arms" / arm, random_gradients(layers), layers=layers)
    with pytest.raises(UserError, match="must train one model") as caught:
        measure([unlike])
    assert len(caught.value.lines) == 1

    stages = tmp_path / "stages"
    write_arm(stages, random_gradients(4), layers=4, moments=[(0, 0, 1)])
    write_arm(stages, random_gradients(2), layers=2, moments=[(1, 1, 1)])
    with pytest.raises(UserError, match=r"stage 2 trains other .* than stage 1") as caught:
        measure([Run(stages)])
    assert "train.trainable" in str(caught.value)
    assert "arm" not in str(caught.value).removeprefix(str(stages))
    assert len(caught.value.lines) == 1

    (unlike.path / "arms" / "small" / "records" / "probes.json").write_text('{"D_A": 3}')
    with pytest.raises(UserError, match=r"probes\.json: cannot be read"):
        measure([Run(unlike.path / "arms" / "small")])


def test_a_damaged_snapshot_is_named(
    tmp_path: Path, random_gradients: Make, write_arm: Make
) -> None:
    write_arm(tmp_path, random_gradients())
    path = Run(tmp_path).snapshots()[2]
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=path.stem):
        measure([Run(tmp_path)])


@pytest.mark.parametrize(
    ("steps", "labels"), [([[[1, 2, 3]]], ["θ_0+1", "θ_0+3"]), ([[[], [2]], [[], [3]]], None)]
)
def test_there_is_always_a_moment_to_show(
    steps: list[list[list[int]]], labels: list[str] | None
) -> None:
    """Also of the first stage's inside alone, and of arms that have none in common."""
    between = [
        [
            NamedCheckpoint(i, s, end=False, reduction="token")
            for i, at in enumerate(run)
            for s in at
        ]
        for run in steps
    ]
    assert key_checkpoints(between) == figure_checkpoints(between) == (labels or ["θ_A+2", "θ_A+3"])
