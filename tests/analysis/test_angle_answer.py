"""The answer that `geomix analyze grad-angle` leads with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geomix.analysis.answer import aligned, file_map, fitted, names_of, seeds_of
from geomix.analysis.grad_angle.answer import answer, decisive
from geomix.analysis.grad_angle.asked import Asked
from geomix.analysis.grad_angle.measure import measure
from geomix.api import Run
from tests.analysis.calls import command

Make = Callable[..., Any]
EVERY = ((0, 0, 40), (0, 40, 40), (1, 1, 20), (1, 20, 20))
"""Stage, step and the stage's steps: θ_0, θ_A, θ_A+1, θ_B."""

BRIEF = EVERY[::2]
"""θ_0 and θ_A+1, all that the answer is about."""


def conflicting(random_gradients: Make, seed: int, share: float) -> Callable[..., Any]:
    """After θ_A, D_B's gradient is `share` times D_A's plus noise; the held-out set's is noise."""
    drawn = random_gradients(3, seed)

    def draw(name: str, stage: int, step: int) -> dict[str, Any]:
        found: dict[str, Any] = drawn(name, stage, step)
        if name == "D_B" and stage > 0:
            a = drawn("D_A", stage, step)
            found = {p: share * a[p] + g for p, g in found.items()}
        return found

    return draw


def seeds(
    folder: Path,
    n: int,
    shares: dict[str, float],
    gradients: Make,
    write_arm: Make,
    write_run: Make,
    moments: Sequence[tuple[int, int, int]],
) -> list[Run]:
    """Runs of n seeds with these arms."""
    runs = []
    for seed in range(n):
        run = write_run(folder / f"s{seed}", list(shares), seed)
        for k, (arm, share) in enumerate(shares.items()):
            path = run.path / "arms" / arm
            write_arm(path, conflicting(gradients, 100 * k + seed, share), moments=moments)
            write_run(path, None, seed)
        runs.append(run)
    return runs


@pytest.fixture
def make(random_gradients: Make, write_arm: Make, write_run: Make) -> Make:
    return lambda folder, n, shares, moments=BRIEF: seeds(
        folder, n, shares, random_gradients, write_arm, write_run, moments
    )


def flat(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


@pytest.mark.usefixtures("unprinted")
def test_one_seed_has_numbers_a_reason_and_no_claim(
    tmp_path: Path,
    make: Make,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (run,) = make(tmp_path, 1, {"plain": -1.0, "mixed": 1.0}, EVERY)
    command([run], Asked(), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 25
    assert max(len(line) for line in lines if str(run.path) not in line) <= 80
    assert lines[0] == "Do the gradients of D_A and D_B conflict?"
    assert "s0, seed 0: cosines of the whole model, at θ_A+1 (step 1 of stage 2)" in lines
    result = measure([run])
    for arm in result.arms:
        (row,) = (line.split() for line in lines if line.startswith(arm.arm))
        cosine = [arm.cosine("θ_A+1", "D_A", "D_B")[0], arm.cosine("θ_0", "D_A", "D_B")[0]]
        assert row[1:3] == [f"{value:+.3f}" for value in cosine]
        assert row[3] == f"{arm.cosine('θ_A+1', 'held-out', 'D_B')[0]:+.3f}"
    assert row[4] == f"{cosine[0] - result.arms[0].cosine('θ_A+1', 'D_A', 'D_B')[0]:+.3f}"
    said = flat(lines)
    assert "Verdict: undetermined whether they conflict, and whether mixed changes that" in said
    assert "a verdict needs 10 seeds" in said
    assert "supported" not in said
    assert "a small step down D_B's gradient raises D_A's loss" in said
    named = [line.split()[0] for line in lines if line.startswith(("  analysis/", "  figures/"))]
    found = {file for name in named for file in run.path.glob(name)}
    assert found == {
        file for folder in ("analysis", "figures") for file in run.path.glob(f"{folder}/*")
    }
    text = (run.analysis_folder / "grad_angle.txt").read_text()
    command([run], Asked(), as_json=False, full=True)
    assert text.strip() in capsys.readouterr().out


def test_ten_seeds_have_intervals_and_a_verdict(tmp_path: Path, make: Make) -> None:
    runs = make(tmp_path, 10, {"plain": -1.0, "mixed": 1.0, "noise": 0.0})
    result = measure(runs, Asked(smallest=0.05))
    assert result.rule.smallest == 0.05
    rule = replace(result.rule, smallest=Asked().smallest)
    undeclared = flat(answer(replace(result, rule=rule), Run(tmp_path), []))
    assert "supported" not in undeclared
    assert "declare it with --smallest" in undeclared
    lines = answer(result, Run(tmp_path), [])
    assert max(map(len, lines)) <= 80
    (row,) = (line.split() for line in lines if line.startswith("mixed"))
    values = result.arms[1].cosine("θ_A+1", "D_A", "D_B")
    half = 2.2622 * float(np.std(values, ddof=1)) / 10**0.5  # Student's t of 9 degrees, 97.5 %
    assert row[1] == f"{values.mean():+.3f}±.{round(1000 * half):03d}"
    said = flat(lines)
    assert "Verdict, plain (n = 10): supported that the gradients of D_A and D_B conflict" in said
    assert "Verdict, mixed (n = 10): refuted that the gradients of D_A and D_B conflict" in said
    assert "by 0.05 or more; they agree" in said
    assert "Verdict, noise (n = 10): undetermined whether the gradients of D_A and" in said
    assert "A smaller angle than in plain, beyond held-out's: supported in mixed (n = 10)" in said


def test_fewer_than_ten_seeds_have_intervals_and_no_verdict(tmp_path: Path, make: Make) -> None:
    lines = answer(measure(make(tmp_path, 3, {"plain": -1.0})), Run(tmp_path), [])
    assert "±" in next(line for line in lines if line.startswith("plain"))
    assert "undetermined whether they conflict: there are 3 seeds" in flat(lines)


def test_headings_are_no_formulas_and_a_boundless_interval_has_a_reason(
    tmp_path: Path, make: Make
) -> None:
    result = measure(make(tmp_path, 2, {"plain": -1.0, "mixed": 1.0}))
    for arm in result.arms:
        m, a, b = (arm.labels.index("θ_A+1"), *map(arm.directions.index, ("D_A", "D_B")))
        arm.inner[0, m, :, a, b] *= -1  # two seeds that say the opposite
        arm.inner[0, m, :, b, a] *= -1
    lines = answer(result, Run(tmp_path), [])
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 80
    head = next(i for i, line in enumerate(lines) if "difference" in line)
    assert lines[head].split()[-3:] == ["difference", "|g_A|,", "times"]
    assert lines[head + 1].endswith("from plain   that at θ_0")
    (row,) = (line.split() for line in lines if line.startswith("mixed"))
    assert row[1].endswith("±>1")
    assert flat(lines).count("±>1: a 95 % interval wider than any cosine; 2 seeds say") == 1


def test_many_arms_with_long_names_still_fit(tmp_path: Path, make: Make) -> None:
    runs = make(tmp_path, 2, {f"a-name-of-an-arm-that-is-long-{k}": 0.1 * k for k in range(9)})
    result = replace(measure(runs), remarks=("one " * 40, "two", "three"), missing=("four",))
    files = [tmp_path / folder / f"{result.stem}{k}.csv" for folder in ("a", "b") for k in "12345"]
    lines = answer(result, Run(tmp_path), files)
    assert len(lines) <= 25
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    assert "… and 4 more arms, in the files" in lines
    assert "… and 2 more remarks, in the files" in lines


def test_what_limits_the_numbers_is_said(
    tmp_path: Path, random_gradients: Make, write_arm: Make
) -> None:
    probes = {"D_A": (64, 2000), "D_B": (50, 50)}
    write_arm(tmp_path, random_gradients(), sets=("D_A", "D_B"), probes=probes)
    result = measure([Run(tmp_path)])
    said = flat(answer(result, Run(tmp_path), []))
    assert "No held-out set was recorded" in said
    few = replace(result.arms[0], probes={"held-out": (6, 6)})
    told = flat(answer(replace(result, arms=(few,)), Run(tmp_path), []))
    assert "held-out: 6 examples only, a weak null." in told
    assert "Probed were 64 of 2,000 of D_A: the noise of a sample pulls a cosine towards 0" in said
    assert "a small Adam step on D_B" in flat(
        answer(replace(result, metric="adam"), Run(tmp_path), [])
    )


def test_the_moment_that_answers(tmp_path: Path, random_gradients: Make, write_arm: Make) -> None:
    write_arm(tmp_path, random_gradients())
    run = Run(tmp_path)
    assert decisive(measure([run])) == "θ_A+1"
    assert decisive(measure([run], Asked(at=("A", "B")))) == "θ_A"
    assert decisive(measure([run], Asked(at=("B",)))) == "θ_B"
    zero = measure([run], Asked(at=("0",)))
    assert decisive(zero) == "θ_0"
    assert "at θ_0" in flat(answer(zero, run, []))


def test_words_and_lines() -> None:
    assert names_of(["a"]) == "a"
    assert names_of("abc") == "a, b and c"
    assert names_of("abcdefg") == "a, b, c, d and 3 more"
    assert seeds_of([0, 0]) == "seed 0"
    assert seeds_of([2, 0]) == "2 seeds (0, 2)"
    assert aligned([["", "b"], ["θ", "long"]]) == ["      b", "θ  long"]
    assert fitted(["a", "", "b"], ["c"]) == ["a", "", "b", "", "c"]
    assert fitted(["a", ""] * 9, ["c"] * 9) == ["a"] * 9 + ["c"] * 9
    assert fitted(["a"] * 9, ["c"] * 20)[-1] == "  … and the other files there"
    files = [Path("r/figures") / f"s_pairs_{arm}.pdf" for arm in "xy"]
    files += [Path("r/analysis/s.h5"), Path("r/analysis/s.json"), Path("r/analysis/s.txt")]
    meanings = {"figures/_pairs": "pairs", "analysis/": "all", "analysis/.txt": "text"}
    found = [line.split() for line in file_map(Run(Path("r")), files, "s", meanings)[1:]]
    assert found == [
        ["figures/s_pairs*", "pairs"],
        ["analysis/s.*", "all"],
        ["analysis/s.txt", "text"],
    ]
