"""Output of `geomix train`: to people, to scripts, to programs."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

STAGES = """stages:
  - {data: {source: kvr, limit: 4}, stop: {epochs: 2}}
  - {data: {source: arithmetic, limit: 4}, stop: {epochs: 1}}
train: {lr: 1e-2, batch_size: 2}
evaluate: {epochs: 0}
record: null
"""
ARMS = STAGES + "arms: {plain: {}, slow: {train.lr: 1e-4}}\n"


def lines_of(run: Path) -> list[str]:
    return (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()


def test_json_is_the_metrics_as_they_stand_in_the_file(desk: Any) -> None:
    result = desk.run(desk.train(STAGES, "--json"))
    assert result.exit_code == 0, result.output
    first, *between, last = result.stdout.splitlines()
    assert json.loads(first) == {"event": "run", "path": "made"}
    assert json.loads(last) == {"event": "end", "state": "done"}
    assert between == lines_of(desk.folder / "made")
    assert sum('"event": "step"' in line for line in between) == 6
    assert "made" in result.stderr


def test_json_says_whose_lines_follow(desk: Any) -> None:
    result = desk.run(desk.train(ARMS, "--json"))
    assert result.exit_code == 0, result.output
    expected = ['{"event": "run", "path": "made"}']
    for arm in ("plain", "slow"):
        path = f"made/arms/{arm}"
        expected += [json.dumps({"event": "arm", "name": arm, "path": path})]
        expected += lines_of(desk.folder / path)
    assert result.stdout.splitlines() == [*expected, '{"event": "end", "state": "done"}']


def test_json_ends_with_what_became_of_the_run(desk: Any) -> None:
    result = desk.run(desk.train(STAGES, "--json", "--set", "train.lr=1e30"))
    assert result.exit_code == 2
    assert json.loads(result.stdout.splitlines()[-1]) == {"event": "end", "state": "failed"}
    assert "lower train.lr" in result.stderr


def test_json_of_a_mistake_is_empty(desk: Any) -> None:
    desk.refuses(desk.train(STAGES, "--json", "--set", "stages.0.data.limit=0"), "limit")
    desk.refuses(desk.train(STAGES, "--json", "--set", "model=nowhere"), "nowhere")


def test_quiet_prints_the_folder_alone(desk: Any) -> None:
    result = desk.run(desk.train(ARMS, "--quiet"))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "made\n", "")
    again = desk.run(["train", "--resume", "made", "--quiet"])
    assert (again.exit_code, again.stdout, again.stderr) == (0, "made\n", "")


def test_quiet_goes_with_no_other_output(desk: Any) -> None:
    desk.refuses(desk.train(STAGES, "--quiet", "--json"), "--quiet")
    desk.refuses(desk.train(STAGES, "--quiet", "--dry-run"), "--quiet")


def test_people_are_told_a_line_a_stage(desk: Any) -> None:
    result = desk.run(desk.train(ARMS))
    assert result.exit_code == 0, result.output
    told = [line.split(" s ")[0].rsplit(maxsplit=1)[0] for line in result.stdout.splitlines()[:5]]
    assert told == [
        "run →",
        "plain: kvr           4 steps",
        "plain: arithmetic    2 steps",
        "slow: kvr            4 steps",
        "slow: arithmetic     2 steps",
    ]


def test_a_program_sees_an_interruption_and_the_rest(geomix: Any) -> None:
    """Asked to end at its sixth line; the two outputs together are the file's lines."""
    (geomix.folder / "told.yaml").write_text(STAGES, encoding="utf-8")
    given = ["told.yaml", "--out", "told", "--set", f"model={geomix.model}", "--json"]
    asked = geomix("train", *given, at=[("told/metrics.jsonl", 6, signal.SIGTERM)])
    assert asked.status == 75, asked.err
    *begun, end = asked.out.splitlines()
    assert json.loads(end) == {"event": "end", "state": "interrupted"}
    rest = geomix("train", "--resume", "told", "--json")
    assert rest.status == 0, rest.err
    first, *more, end = rest.out.splitlines()
    assert json.loads(first) == {"event": "run", "path": "told"}
    assert json.loads(end) == {"event": "end", "state": "done"}
    assert begun[1:] + more == lines_of(geomix.folder / "told")
    assert len(begun) > 5
    assert len(more) == 3  # a step and two sets


@pytest.mark.parametrize("how", ["--json", "--quiet"])
def test_a_damaged_checkpoint_is_told_beside_the_output(geomix: Any, how: str) -> None:
    out = f"damaged{how}"
    (geomix.folder / "told.yaml").write_text(STAGES, encoding="utf-8")
    given = ["told.yaml", "--out", out, "--set", f"model={geomix.model}", "--quiet"]
    steps = ["--set", "checkpoint.steps=1"]
    asked = geomix("train", *given, *steps, at=[(f"{out}/metrics.jsonl", 6, signal.SIGTERM)])
    assert (asked.status, asked.out) == (75, out + "\n"), asked.err
    newest = max((geomix.folder / out).rglob("position.json"))
    newest.write_text("{}", encoding="utf-8")
    rest = geomix("train", "--resume", out, how)
    assert rest.status == 0, rest.err
    assert "skipped: " in rest.err
    assert "skipped" not in rest.out
