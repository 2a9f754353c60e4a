"""The compared sets, `--sets`, in runs of three stages and of several mixes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from geomix.analysis.checkpoints import NamedCheckpoint
from geomix.analysis.grad_angle.answer import answer, decisive, findings
from geomix.analysis.grad_angle.asked import Asked
from geomix.analysis.grad_angle.contrasts import contrasts
from geomix.analysis.grad_angle.measure import measure
from geomix.analysis.grad_angle.notes import notes, remaining
from geomix.analysis.grad_angle.pair import Pair, null_of, preferred
from geomix.analysis.grad_angle.result import GradAngle
from geomix.analysis.grad_angle.tables import render
from geomix.api import Run
from geomix.cli import main
from geomix.util.console import Console
from geomix.util.errors import UserError
from tests.analysis.calls import grad_angle

Make = Callable[..., Any]

SETS = ("D_A", "D_B", "D_C", "D_M-random-words", "D_M-prose", "held-out")
MOMENTS = ((0, 0, 9), (0, 9, 9), (1, 1, 7), (1, 7, 7), (2, 1, 5), (2, 5, 5))
"""θ_0, θ_A, θ_A+1, θ_B, θ_B+1, θ_C."""


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory,
    random_gradients: Make,
    write_arm: Make,
    write_run: Make,
) -> Run:
    """Three stages in two arms of one seed."""
    made: Run = write_run(tmp_path_factory.mktemp("sets") / "r", ["one", "two"])
    for seed, arm in enumerate(("one", "two")):
        write_arm(made.path / "arms" / arm, random_gradients(2, seed), SETS, 2, moments=MOMENTS)
    return made


def by_hand(draw: Any, first: str, second: str, stage: int, step: int) -> float:
    one, other = (np.concatenate([*draw(n, stage, step).values()]) for n in (first, second))
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@cache
def compared(run: Run, *sets: str) -> GradAngle:
    """Measured once for the tests of a pair, which change nothing in it."""
    return measure([run], Asked(sets=sets))


def text(result: GradAngle, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render(result))
    return console.export_text()


@pytest.mark.parametrize(
    ("sets", "label", "null"),
    [
        (("D_A", "D_B"), "θ_A+1", ("held-out", "D_B")),
        (("D_B", "D_A"), "θ_A+1", ("D_B", "held-out")),
        (("D_A", "D_C"), "θ_B+1", ("held-out", "D_C")),
        (("D_B", "D_C"), "θ_B+1", None),
        (("D_A", "D_M-prose"), "θ_A+1", ("held-out", "D_M-prose")),
        (("D_C", "D_M-prose"), "θ_B+1", None),
    ],
)
def test_the_answer_is_of_the_pair_where_both_have_been_met(
    run: Run, random_gradients: Make, sets: tuple[str, str], label: str, null: Any
) -> None:
    result = compared(run, *sets)
    assert decisive(result) == label
    assert result.pair.null == null
    stage, step = {"θ_A+1": (1, 1), "θ_B+1": (2, 1)}[label]
    lines = answer(result, run, [])
    one, other = (f"g_{name.removeprefix('D_')}" for name in sets)
    assert lines[0] == f"Do the gradients of {sets[0]} and {sets[1]} conflict?"
    assert max(map(len, lines)) <= 80
    whole = " ".join(lines)
    assert f"{one}, {other}" in whole
    assert ("held-out" in " ".join(lines[1:8])) == (null is not None)
    for seed, found in enumerate(findings(result)):
        drawn = random_gradients(2, seed)
        expected = by_hand(drawn, *sets, stage, step)
        assert found.estimate == pytest.approx(-expected)
        assert found.claim == f"{('one', 'two')[seed]}: −cos({one}, {other}) > 0 at {label}"
        (row,) = (line.split() for line in lines if line.startswith(("one", "two")[seed]))
        assert row[1] == f"{expected:+.3f}"
        if null:
            assert row[3] == f"{by_hand(drawn, null[0], null[1], stage, step):+.3f}"
    assert ("Held-out examples are of D_A's distribution" in whole) == (null is None)


def test_contrasts_are_of_the_pair_and_of_its_null(run: Run, random_gradients: Make) -> None:
    one, two = random_gradients(2, 0), random_gradients(2, 1)
    for sets in (("D_A", "D_C"), ("D_B", "D_C"), ("D_C", "D_A")):
        found = {c.moment: c for c in contrasts(compared(run, *sets)) if c.second == sets[1]}
        assert list(found) == ["θ_A", "θ_A+1", "θ_B", "θ_B+1", "θ_C"]
        contrast = found["θ_B+1"]
        assert (contrast.first, contrast.arm, contrast.against) == (sets[0], "two", "one")
        expected = by_hand(two, *sets, 2, 1) - by_hand(one, *sets, 2, 1)
        assert contrast.difference == pytest.approx(expected)
        null = null_of(*sets)
        if null is None:
            assert np.isnan(contrast.beyond_null)
        else:
            same = by_hand(two, *null, 2, 1) - by_hand(one, *null, 2, 1)
            assert contrast.beyond_null == pytest.approx(expected - same)


def test_without_a_null_no_seed_however_clear_supports_a_conflict(
    tmp_path: Path, write_arm: Make, write_run: Make, random_gradients: Make
) -> None:
    """D_C's gradient is minus D_B's in ten seeds; with D_A in D_B's place there is a null."""

    def opposed(seed: int) -> Any:
        drawn = random_gradients(2, seed)

        def draw(name: str, stage: int, step: int) -> Any:
            found = drawn(name, stage, step)
            if name not in ("D_C", "held-out"):
                found = {p: -g + 0.1 * found[p] for p, g in drawn("D_C", stage, step).items()}
            return found

        return draw

    runs = []
    for seed in range(10):
        runs.append(write_run(tmp_path / f"s{seed}", ["plain"], seed))
        arm, sets = runs[-1].path / "arms" / "plain", ("D_A", "D_B", "D_C", "held-out")
        write_arm(arm, opposed(seed), sets, 2, moments=MOMENTS[-2:])
        write_run(arm, None, seed)
    judged = {}
    for first in ("D_A", "D_B"):
        result = measure(runs, Asked(sets=(first, "D_C"), smallest=0.1))
        (found,) = findings(result)
        judged[first] = found.verdict
        assert found.estimate > 0.9
    assert judged == {"D_A": "supported", "D_B": "undetermined"}


def test_tables_hold_all_sets_in_80_columns(run: Run) -> None:
    """Five gradients and four more directions do not fit beside each other: norms stand below."""
    printed = text(compared(run, "D_B", "D_C"))
    assert max(map(len, printed.splitlines())) <= 80
    heads = [line for line in printed.splitlines() if "B·A" in line]
    assert heads
    for name in ("B·A", "B·C", "B·M", "B·held", "|g_C|", "prose", "random…"):
        assert name in printed
    assert "Whole model: norms" in printed


def test_notes_name_the_pair_and_the_checkpoint_at_which_it_was_learnt(run: Run) -> None:
    result = compared(run, "D_B", "D_C")
    said = " ".join(notes(result))
    assert "cos(g_B, g_C) is" in said
    assert "at θ_B+1, the first recorded step of stage 3" in said
    assert "|g_B| at θ_B over |g_B| at θ_0" in said
    arm = result.arms[0]
    b = arm.directions.index("D_B")
    lengths = np.sqrt(arm.inner.sum(axis=2)[0, :, b, b])
    at = {label: lengths[m] for m, label in enumerate(arm.labels)}
    assert remaining(arm, result.pair) == pytest.approx(at["θ_B"] / at["θ_0"])
    assert remaining(arm) != remaining(arm, result.pair)


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (("D_B",), "--sets D_B: give two different sets"),
        (("D_B", "D_B"), "--sets D_B,D_B: give two different sets"),
        (("D_A", "D_B", "D_C"), "--sets D_A,D_B,D_C: give two different sets"),
        (("D_B", ""), "--sets D_B,: give two different sets"),
        (("D_B", "D_D"), "no probe set D_D .it holds D_A, D_B, D_C, .*; give --sets two of these"),
    ],
)
def test_bad_pairs_are_rejected(run: Run, sets: tuple[str, ...], says: str) -> None:
    with pytest.raises(UserError, match=says):
        compared(run, *sets)


def test_the_command_names_its_files_by_the_pair_and_figures_are_drawn_again(
    random_gradients: Make, write_arm: Make, tmp_path: Path
) -> None:
    run, sets = Run(tmp_path / "run"), ("D_B", "D_C", "held-out")
    write_arm(run.path, random_gradients(1), sets, 1, moments=MOMENTS[3:5])
    result, _, files = grad_angle([run], Asked(sets=("D_B,D_C",)))
    assert result.stem == "grad_angle_D_B_D_C"
    names = {file.name for file in files}
    figures = ("", "_row", "_plane", "_layer_module")
    assert {f"grad_angle_D_B_D_C{f}.png" for f in figures} < names
    stored = json.loads((run.analysis_folder / "grad_angle_D_B_D_C.json").read_text())
    assert stored["sets"] == ["D_B", "D_C"]
    for name, ending in (("plane", "_plane"), ("cosine-row", "_row")):
        csv = run.figure_folder / f"grad_angle_D_B_D_C{ending}.csv"
        drawn = tmp_path / f"again{ending}"
        words = ["figure", name, str(csv), "--out", str(drawn)]
        done = CliRunner().invoke(main, [*words, "--sets", "D_B,D_C"])
        assert done.exit_code == 0, done.output
        assert drawn.with_suffix(".png").read_bytes() == csv.with_suffix(".png").read_bytes()
    bad = CliRunner().invoke(main, [*words, "--sets", "D_B,D_Z"])
    assert isinstance(bad.exception, UserError) or "the table has no D_Z" in bad.output


def test_pairs() -> None:
    assert Pair() == Pair("D_A", "D_B") == Pair.of(["D_A", "D_B"])
    assert [Pair("D_A", "D_M").stage, Pair("D_D", "D_B").stage] == [1, 3]
    assert Pair("D_A", "held-out").null is None
    assert Pair("D_M", "D_B").learnt is None
    moments = [NamedCheckpoint(s, n, n == 9, "token") for s in range(3) for n in (0, 4, 9)]
    ranked = sorted(moments, key=lambda moment: preferred(moment, Pair("D_B", "D_C")))
    assert [m.label for m in ranked[:2]] == ["θ_B+4", "θ_B"]
