"""`geomix figure retention`: runs and arms in one figure, and the table behind it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from geomix.api import Run
from geomix.cli import main
from geomix.config.run import RunConfig
from geomix.runs.configs import distinctions

EXACT = {(0, 0): 0.0, (0, 40): 100.0, (1, 10): 70.0, (1, 30): 40.0}
"""(stage, step) → exact match on D_A of seed 0; other seeds have as much more as their number."""


def make(folder: Path, seed: int = 0, lr: float = 1e-3, sets: tuple[str, ...] = ("D_A",)) -> Run:
    """A run whose evaluations are planted."""
    stage = {"data": {"source": "kvr", "limit": 100}, "stop": {"epochs": 2}}
    config = RunConfig.model_validate(
        {"name": "toy", "seed": seed, "train": {"lr": lr}, "stages": [stage, stage]}
    )
    run = Run(folder)
    (folder / "stages" / "0-kvr").mkdir(parents=True)
    resolved = {"name": "toy", "hash": config.content_hash(), "arms": None}
    run.resolved_file.write_text(json.dumps({**resolved, "config": config.model_dump(mode="json")}))
    lines = [
        {"event": "evaluation", "stage": stage, "step": step, "moment": "epoch", "set": name}
        | {"n": 100, "exact_match": exact - (seed if exact else 0), "loss": exact / 100}
        for name in sets
        for (stage, step), exact in EXACT.items()
    ]
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def table(folder: Path) -> list[dict[str, Any]]:
    (file,) = folder.glob("figures/retention*.csv")
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def call(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["figure", "retention", *arguments])


def test_a_run_gives_pdf_png_and_the_numbers(tmp_path: Path) -> None:
    run = make(tmp_path / "one", sets=("D_A", "D_B", "held-out", "D_M"))
    result = call(str(run.path))
    assert result.exit_code == 0, result.output
    assert [Path(line).suffix for line in result.output.split()] == [".pdf", ".png", ".csv", ".txt"]
    assert "n = 1" in (run.figure_folder / "retention.txt").read_text()
    rows = table(run.path)
    assert list(dict.fromkeys(row["set"] for row in rows)) == ["D_A", "D_B"]
    mine = {(int(r["stage"]), int(r["step"])): float(r["exact_match"]) for r in rows[:5]}
    assert mine == EXACT | {(1, 0): EXACT[0, 40]}  # stage 2 begins where stage 1 ended
    assert {r["half_width"] for r in rows} == {""}
    assert [rows[0]["stage_name"], rows[2]["stage_name"]] == ["kvr", ""]


def test_seeds_are_one_line_with_an_interval_and_other_runs_another(tmp_path: Path) -> None:
    """The mean of 40 and 38 is 39, and Student's half width is 12.706."""
    runs = [make(tmp_path / f"s{seed}", seed) for seed in (0, 2)]
    other = make(tmp_path / "fast", lr=1e-2)
    result = call(*(str(run.path) for run in (*runs, other)))
    assert result.exit_code == 0, result.output
    last = [row for row in table(runs[0].path) if (row["stage"], row["step"]) == ("1", "30")]
    assert [row["n"] for row in last] == ["2", "1"]
    assert [row["arm"] for row in last] == ["toy, lr 0.001", "toy, lr 0.01"]
    assert float(last[0]["exact_match"]) == pytest.approx(39.0)
    assert float(last[0]["half_width"]) == pytest.approx(12.7062, rel=1e-4)


def test_another_score_and_a_set_by_name(tmp_path: Path) -> None:
    run = make(tmp_path / "one", sets=("D_A", "held-out"))
    result = call(str(run.path), "--set", "held-out", "--metric", "loss", "--log")
    assert result.exit_code == 0, result.output
    rows = table(run.path)
    assert {row["set"] for row in rows} == {"held-out"}
    expected = [v / 100 for v in (0.0, 100.0, 100.0, 70.0, 40.0)]
    assert [float(row["loss"]) for row in rows] == pytest.approx(expected)
    assert (run.figure_folder / "retention_loss_log.png").is_file()


def test_a_logarithmic_figure_stands_beside_the_linear_one(tmp_path: Path) -> None:
    run = make(tmp_path / "one")
    assert call(str(run.path)).exit_code == call(str(run.path), "--log").exit_code == 0
    linear, log = (run.figure_folder / f"retention{kind}" for kind in ("", "_log"))
    assert linear.with_suffix(".csv").read_bytes() == log.with_suffix(".csv").read_bytes()
    assert linear.with_suffix(".png").read_bytes() != log.with_suffix(".png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "D_C"), "no evaluation of D_C; there are: D_A"),
        (("--metric", "rouge_l"), "no evaluation has rouge_l of D_A"),
    ],
)
def test_what_is_not_there_is_one_line(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = call(str(make(tmp_path / "one").path), *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
    assert not (tmp_path / "one" / "figures").exists()


def config(ratio: int, **more: Any) -> RunConfig:
    stage = {"data": {"source": "kvr"}, "mix": {"source": "random-words", "ratio": ratio}}
    return RunConfig.model_validate({"stages": [stage, {"data": {"source": "kvr"}}], **more})


def test_configurations_of_one_name_are_told_apart_by_what_differs() -> None:
    assert distinctions([config(2), config(1, seed=3)]) == ["ratio 2", "ratio 1"]
    assert distinctions([config(2), config(2, seed=3)]) == []  # nothing
    faster = config(2).model_dump(mode="json")
    for stage, lr in zip(faster["stages"], (0.5, 0.25), strict=True):
        stage["train"] = {"lr": lr}
    found = distinctions([config(2), RunConfig.model_validate(faster)])
    assert found[1] == "stage 1 lr 0.5, stage 2 lr 0.25"
    others = {
        "seed": 1,
        "train": {"lr": 0.1, "batch_size": 3, "precision": "fp32", "loss": "example"},
    }
    assert distinctions([config(2), config(1, **others)]) == []  # too much for a name
