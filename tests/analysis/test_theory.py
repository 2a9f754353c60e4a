"""`geomix analyze theory` on tables that were written by hand, so that every verdict is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from geomix.analysis.replicates import suffix_of
from geomix.api import Run, analyze
from geomix.cli import main

WriteRun = Callable[..., Run]
Row = dict[str, Any]
SEEDS = range(10)
ARMS = {"plain": 1.0, "control": 0.6, "mixed": 0.3}
PAIRS = {"plain → control": 0.4, "control → mixed": 0.3, "plain → mixed": 0.7}


def shaken(seed: int) -> float:
    """Small, of mean 0 over the ten seeds."""
    return 0.01 * (seed - 4.5)


def orders(seeds: range = SEEDS, needed: str = "8") -> list[Row]:
    return [
        {"arm": arm, "seed": seed, "change": change + shaken(seed), "first": 0.01, "second": 0.2}
        | {"null_change": 0.02, "expansions_needed": needed, "length": 2.0 + change}
        | {"curvature": -change, "reach_hessian_length": 1 - change - shaken(seed)}
        for arm, change in ARMS.items()
        for seed in seeds
    ]


def contrasts(fails: str = "", stable: float = 1.0) -> list[Row]:
    return [
        row
        for title, size in PAIRS.items()
        for seed in SEEDS
        for where in [{"contrast": title, "seed": seed, "segment": "sum", "fails": fails}]
        for row in (
            {**where, "partition": "K", "form": "Shapley, nats"}
            | {"norm": size - 0.1 + shaken(seed), "cosine": 0.1, "length": 0.0, "total": size},
            {**where, "partition": "both", "form": "sign is the same"}
            | {"norm": 1.0, "cosine": stable, "length": 1.0, "total": 3.0},
        )
    ]


def delta(other: float = 1.0, floor: bool = True) -> list[Row]:
    known: list[Row] = []
    for title, size in PAIRS.items():
        for seed in SEEDS:
            values = {"Δ": size, "Δ₁": 0.001, "Δ₂": 0.2, "Δ₃": size - 0.201, "s_A·s_B": 1.0}
            values |= {"g_A·s_B": 1.0, "g'_A·s_B": other, "angle part": 0.1, "norm part": -0.3}
            values |= {"cos(δ, −g_M(θ_0))": 0.01, "‖g_M(θ_0)‖": 1.0, "‖g_A(θ_0)‖": 1.0}
            known += [
                {"comparison": title, "seed": str(seed), "quantity": key}
                | {"value": value + 0.001 * shaken(seed)}
                for key, value in values.items()
            ]
    if floor:
        where = {"comparison": "floor of plain", "seed": "0 → 1", "quantity": "Δ"}
        known.append({**where, "value": -0.05})
    return known


def condition(state: str = "true", trained: bool = True) -> list[Row]:
    return [
        {"arm": "mixed", "seed": seed, "checkpoint": at, "in_place": "D_M", "margin": margin}
        | {"state": state, "trained": trained}
        for seed in SEEDS
        for at, margin in (("θ_A", 1.0), ("θ_A+1", -1.0), ("θ_A+4", -1.0))
    ]


def spectra(refuted: int = 10) -> list[Row]:
    return [
        {"arm": "plain", "seed": seed, "checkpoint": "θ_A", "matrix": "H_A", "block": "all"}
        | {"smallest": -1.0, "largest": 16.0}
        | {"semidefinite": "refuted" if seed < refuted else "undetermined"}
        for seed in SEEDS
    ]


def write(run: Run, name: str, tables: dict[str, list[Row]]) -> None:
    run.analysis_folder.mkdir(exist_ok=True)
    text = json.dumps({"analysis": name, "findings": [], "tables": tables})
    (run.analysis_folder / f"{name}.json").write_text(text)


@pytest.fixture
def run(tmp_path: Path, write_run: WriteRun, unprinted: None) -> Run:
    made = write_run(tmp_path / "run")
    write(made, "forgetting_stage1", {"forgetting_stage1": [], "contrasts": contrasts()})
    forgetting = {"forgetting": orders(), "contrasts": contrasts()}
    write(made, "forgetting_stage1", forgetting)
    write(made, "delta2", {"seeds": delta(), "condition": condition()})
    write(made, "curvature", {"curvature": spectra()})
    return made


def scored(*runs: Run, **given: Any) -> dict[str, Any]:
    options = {"smallest": 0.05, "smallest_share": 0.1} | given
    return {score.claim: score for score in analyze.theory(list(runs), **options).result}


def test_every_claim_gets_the_verdict_that_its_numbers_have(run: Run) -> None:
    found = scored(run)
    told = {claim: score.verdict for claim, score in found.items()}
    assert told["plain: first order at the start has most of the forgetting"] == "refuted"
    assert told["plain: forgetting is more than a permuted displacement's"] == "supported"
    assert told["control → mixed: Δ > 0"] == "supported"
    assert told["control → mixed: Δ₁ > 0"] == "negligible"
    assert told["control → mixed: (e) along the path the angle, not the norm"] == "refuted"
    assert told["control → mixed: (e) one step from θ_A the angle, not the norm"] == "refuted"
    assert told["control → mixed: δ is a step along −g_M(θ_0)"] == "negligible"
    assert told["plain: (c) H_A at θ_A is PSD"] == "refuted"
    assert told["a shorter reach of the Hessian's model goes with more forgetting"] == "supported"
    assert told["a larger curvature along the displacement goes with more forgetting"] == "refuted"


def test_mixed_is_never_judged_against_plain_beside_a_control(run: Run) -> None:
    for claim, score in scored(run).items():
        if claim.startswith("plain → mixed"):
            assert score.verdict == "undetermined"
            assert "control's steps" in score.why


def test_nothing_is_decided_without_what_was_declared(run: Run) -> None:
    found = analyze.theory(run).result
    told = {score.verdict for score in found if score.source != "curvature"}
    assert told == {"undetermined"}
    few = scored(run, planned=20)
    assert few["control → mixed: Δ > 0"].why.startswith("a verdict needs 20 paired seeds")


def test_numbers_stand_beside_their_null(run: Run) -> None:
    found = scored(run)
    delta_row = found["control → mixed: Δ > 0"]
    assert delta_row.measured == pytest.approx(0.3)
    assert delta_row.null == "Δ +0.3; floor ±0.05"
    assert delta_row.n == 10
    assert "no floor" in found["control → mixed: Δ₂ > 0"].null
    order = found["plain: first order at the start has most of the forgetting"]
    assert order.measured == pytest.approx(0.01 - 0.99)
    assert order.null == "2nd 20 %, rest 79 %, N* 8"
    assert found["plain: (c) H_A at θ_A is PSD"].why == "refuted by its bound in 10 of 10 seeds"


def test_a_degenerate_third_term_is_undetermined(run: Run) -> None:
    (key,) = [claim for claim in scored(run) if claim.startswith("control → mixed: (b)")]
    assert "no smallest" not in scored(run)[key].why
    write(run, "delta2", {"seeds": delta(other=0.1)})
    found = scored(run)[key]
    assert (found.verdict, found.why[:10]) == ("undetermined", "degenerate")


def test_a_part_whose_sign_changes_with_the_segments_is_no_finding(run: Run) -> None:
    write(run, "forgetting_stage1", {"forgetting": orders(), "contrasts": contrasts(stable=0.0)})
    found = scored(run)["control → mixed: (e) along the path the angle, not the norm"]
    assert found.verdict == "undetermined"
    assert "half the segments" in found.why
    failing = contrasts(fails="mixed: Simpson's total is off")
    write(run, "forgetting_stage1", {"forgetting": orders(), "contrasts": failing})
    assert not [claim for claim in scored(run) if "along the path" in claim]


def test_the_condition_is_about_arms_that_mix_into_stage_2(run: Run) -> None:
    write(run, "delta2", {"seeds": delta(), "condition": condition(trained=False)})
    assert not [claim for claim in scored(run) if claim.startswith("stage-2 condition")]
    twice = [row | {"in_place": name} for name in ("D_M-a", "D_M-b") for row in condition()]
    write(run, "delta2", {"seeds": delta(), "condition": twice})
    assert not [claim for claim in scored(run) if claim.startswith("stage-2 condition")]
    write(run, "delta2", {"seeds": delta(), "condition": twice[: len(twice) // 2]})
    assert [claim for claim in scored(run) if claim.startswith("stage-2 condition")]


def test_one_seed_is_a_counterexample(run: Run) -> None:
    key = "plain: (c) H_A at θ_A is PSD"
    write(run, "curvature", {"curvature": spectra(refuted=1)})
    assert scored(run)[key].verdict == "refuted"
    assert scored(run)[key].why == "refuted by its bound in 1 of 10 seeds"
    write(run, "curvature", {"curvature": spectra(refuted=0)})
    assert scored(run)[key].verdict == "undetermined"


def test_the_condition_is_counted_with_and_without_passes_by_size(run: Run) -> None:
    at = "stage-2 condition at θ_A says who forgets less (passes by size left out)"
    most = "stage-2 condition at most checkpoints says who forgets less (passes by size left out)"
    found = scored(run)
    assert found[at].null.startswith("10 of 10 agree, p = 0.002")
    assert found[at].verdict == "supported"
    assert found[most].null.startswith("0 of 10 agree")
    assert found[most].verdict == "refuted"
    write(run, "delta2", {"seeds": delta(), "condition": condition("by size")})
    left = scored(run)
    assert at not in left
    assert at.replace("left out", "counted") in left


def test_draws_of_d_m_are_freed_of_what_their_prompt_does(run: Run) -> None:
    rows = [
        {"seed": seed, "draw": k, "T": 1.0 + 0.1 * (k % 2), "T_shuffled": 1.0}
        for seed in range(2)
        for k in range(20)
    ]
    write(run, "delta2", {"seeds": delta(), "draws": rows})
    found = scored(run)["(a) cross terms have a mean above 0 over draws of D_M"]
    assert found.measured == pytest.approx(0.05)
    assert found.null == "interval over draws excludes 0 in 2 of 2 seeds"
    assert found.verdict == "undetermined"
    write(run, "delta2", {"seeds": delta(), "draws": rows[:4]})
    assert (
        "20 are wanted" in scored(run)["(a) cross terms have a mean above 0 over draws of D_M"].why
    )


def test_runs_that_were_analysed_one_by_one_are_put_together(
    tmp_path: Path, write_run: WriteRun, unprinted: None
) -> None:
    runs = [write_run(tmp_path / f"s{seed}", seed=seed) for seed in range(3)]
    for seed, one in enumerate(runs):
        write(one, "forgetting_stage1", {"forgetting": orders(range(seed, seed + 1))})
    found = scored(*runs, planned=3)
    claim = "plain: forgetting is more than a permuted displacement's"
    assert (found[claim].n, found[claim].verdict) == (3, "supported")
    assert found["claims that need delta2"].why.startswith("not measured")
    # What was analysed of all together comes first.
    name = "forgetting_stage1" + suffix_of([str(one.path) for one in runs])
    write(runs[0], name, {"forgetting": orders(range(5))})
    assert scored(*runs, planned=3)[claim].n == 5


def refused(*runs: Run) -> str:
    paths = [str(run.path) for run in runs]
    result = CliRunner().invoke(main, ["analyze", "theory", *paths])
    assert result.exit_code == 2, result.output
    (line,) = result.output.splitlines()
    return str(line)


def test_what_cannot_be_scored_is_one_line(
    tmp_path: Path, write_run: WriteRun, unprinted: None
) -> None:
    one, other = (write_run(tmp_path / name) for name in ("one", "other"))
    assert "no analysis to score; run first: geomix analyze forgetting" in refused(one)
    write(one, "forgetting_stage1", {"forgetting": orders()})
    assert f"{other.path}: no forgetting, which other runs have" in refused(one, other)
    (one.analysis_folder / "forgetting_stage1.json").write_text('{"tables": 3}')
    assert "tables, an object" in refused(one)


def test_the_answer_is_short_and_leads_with_what_is_decided(run: Run) -> None:
    done = analyze.theory(run, smallest=0.05, smallest_share=0.1)
    lines = done.answer.splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 80
    assert lines[3].startswith("supported")
    assert {file.name for file in done.files} >= {"theory.json", "theory.csv", "theory.png"}
    drawn = done.figures[""].figure.axes[0]
    measured = [score for score in done.result if score.n]
    assert len(drawn.get_yticklabels()) == len(measured)
