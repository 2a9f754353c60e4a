"""Output of `geomix show`, and the retention table at the end of `geomix train`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console, RenderableType

from geomix.api import Run
from geomix.cli import main
from geomix.cli.show import not_learnt, retention_table, show_run
from geomix.config.run import RunConfig
from geomix.measures.scores import ALWAYS, DEFAULT, SCORES
from geomix.runs.retention import RetentionRow, retention_rows
from geomix.util.errors import UserError

SETS = ("D_A", "D_B", "D_M", "held-out")


def printed(renderable: RenderableType, width: int = 80) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    with console.file:
        console.print(renderable)
        return "\n".join(line.rstrip() for line in console.export_text().splitlines()) + "\n"


def evaluation(
    stage: int, step: int, moment: str, name: str, exact: float, loss: float
) -> dict[str, Any]:
    return {
        "event": "evaluation",
        "stage": stage,
        "step": step,
        "epoch": 1,
        "moment": moment,
        "set": name,
        "n": 100,
        "exact_match": exact,
        "loss": loss,
    }


def write(
    folder: Path,
    status: dict[str, Any] | None,
    lines: Iterable[dict[str, Any]] = (),
    arms: list[str] | None = None,
    mix: dict[str, Any] | None = None,
    second: dict[str, Any] | None = None,
    **keys: Any,
) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    config = RunConfig.model_validate(
        {
            "name": "toy",
            **keys,
            "stages": [
                {"data": {"source": "kvr", "limit": 100}, "mix": mix, "stop": {"epochs": 30}},
                {
                    "data": {"source": "kvr", "limit": 50, "split": "id"},
                    "stop": {"epochs": 40},
                    **(second or {}),
                },
            ],
        }
    )
    run = Run(folder)
    resolved = {"name": folder.name, "hash": config.content_hash(), "arms": arms}
    text = json.dumps({**resolved, "config": config.model_dump(mode="json")})
    run.resolved_file.write_text(text)
    if status:
        run.status_file.write_text(json.dumps(status))
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def finished() -> list[dict[str, Any]]:
    exact = {
        ("start", 0): (0.0, 1.0, 2.0, 3.0),
        ("end", 0): (99.0, 1.5, 40.0, 3.5),
        ("end", 1): (12.5, 88.0, 30.0, 3.25),
    }
    lines: list[dict[str, Any]] = [{"event": "step", "stage": 0, "step": 120, "loss": 0.1}]
    for (moment, stage), values in exact.items():
        for name, value in zip(SETS, values, strict=True):
            lines.append(evaluation(stage, (120, 80)[stage], moment, name, value, 5 - value / 25))
    lines.insert(6, evaluation(0, 60, "epoch", "D_A", 50.0, 1.0))
    return [*lines, {"event": "step", "stage": 1, "step": 80, "loss": 0.1}]


def test_retention_is_the_base_and_the_end_of_each_stage(tmp_path: Path) -> None:
    rows = retention_rows(write(tmp_path / "toy", {"state": "done"}, finished()))
    assert [r.moment for r in rows[::4]] == ["θ_0", "after stage 1", "after stage 2"]
    assert rows[4] == RetentionRow(
        "toy", "after stage 1", "D_A", 100, {"exact_match": 99.0, "loss": 5 - 99 / 25}
    )
    assert [r.exact_match for r in rows if r.set == "D_B"] == [1.0, 1.5, 88.0]
    assert len(rows) == 12, "the epoch inside a finished stage is no row"


def test_a_stage_under_way_shows_its_newest_evaluation_only(tmp_path: Path) -> None:
    lines = finished()[:10]
    lines += [evaluation(1, step, "epoch", "D_A", 80.0 - step, 0.5) for step in (2, 4)]
    rows = retention_rows(write(tmp_path / "toy", {"state": "running"}, lines))
    assert (rows[-1].moment, rows[-1].exact_match) == ("stage 2, step 4", 76.0)
    assert all(row.moment != "stage 2, step 2" for row in rows)


def test_a_resumed_run_counts_its_last_line(tmp_path: Path) -> None:
    lines = [evaluation(0, 9, "end", "D_A", value, 0.1) for value in (10.0, 20.0)]
    (row,) = retention_rows(write(tmp_path / "toy", {"state": "done"}, lines))
    assert row.exact_match == 20.0


def test_the_table_holds_every_number_in_80_columns(tmp_path: Path) -> None:
    write(tmp_path / "toy", {"state": "done"}, arms=["plain", "a-rather-long-arm-name"])
    for arm in ("plain", "a-rather-long-arm-name"):
        write(tmp_path / "toy" / "arms" / arm, {"state": "done"}, finished())
    text = printed(retention_table(Run(tmp_path / "toy")))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["D_A", "D_A", "D_B", "D_B", "D_M", "D_M", "held-out", "held-out"]
    after = next(line for line in lines if "after stage 2" in line)
    assert after.split()[3:] == ["12.5", "4.5", "88.0", "1.48", "30.0", "3.8", "3.2", "4.87"]
    assert text.index("plain") < text.index("a-rather-long-arm-name")


def test_more_sets_than_fit_give_two_tables(tmp_path: Path) -> None:
    lines = [evaluation(0, 0, "start", name, 1.0, 2.0) for name in (*SETS, "D_C", "D_D", "D_E")]
    text = printed(retention_table(write(tmp_path / "toy", {"state": "done"}, lines)))
    assert max(map(len, text.splitlines())) <= 80
    header = text.splitlines()[0].split()
    assert header == ["D_A", "D_B", "D_C", "D_D", "D_E", "D_M", "held-out"]
    assert text.count("exact %") == text.count("loss") == 7


def measured() -> list[dict[str, Any]]:
    """As `finished`, with every metric; only D_A's targets end in a final number."""
    lines = finished()
    for line in lines:
        if line["event"] == "evaluation":
            exact = line["exact_match"]
            more = (exact + 0.25, exact + 0.5, exact + 0.75)
            line.update(zip(("alias_match", "token_f1", "rouge_l"), more, strict=True))
            line["final_number"] = 100 - exact if line["set"] == "D_A" else None
    return lines


@pytest.mark.parametrize(
    ("metric", "heading", "cells"),
    [
        ("exact_match", "exact %", ["12.5", "88.0", "30.0", "3.2"]),
        ("alias_match", "alias %", ["12.8", "88.2", "30.2", "3.5"]),
        ("token_f1", "F1 %", ["13.0", "88.5", "30.5", "3.8"]),
        ("rouge_l", "ROUGE-L", ["13.2", "88.8", "30.8", "4.0"]),
        ("final_number", "number %", ["87.5", "–", "–", "–"]),
    ],
)
def test_the_table_shows_the_metric_that_is_asked_for(
    tmp_path: Path, metric: str, heading: str, cells: list[str]
) -> None:
    run = write(tmp_path / "toy", {"state": "done"}, measured())
    result = CliRunner().invoke(main, ["show", str(run.path), "--metric", metric])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert max(map(len, lines)) <= 80
    table = [line.rstrip() for line in printed(retention_table(run, metric)).splitlines()]
    begin = lines.index("Retention matrix") + 1
    assert [line.rstrip() for line in lines[begin : begin + len(table)]] == table
    assert table[1].count(heading) == 4
    (after,) = (line for line in table if "after stage 2" in line)
    assert after.split()[3::2] == cells


def test_json_holds_every_metric_of_every_row(tmp_path: Path) -> None:
    run = write(tmp_path / "toy", {"state": "done"}, measured())
    result = CliRunner().invoke(main, ["show", str(run.path), "--json"])
    shown = json.loads(result.output)
    assert (shown["name"], shown["status"]) == ("toy", {"state": "done"})
    assert len(shown["retention"]) == 12
    assert shown["retention"][-4] == {
        "arm": "toy",
        "moment": "after stage 2",
        "set": "D_A",
        "n": 100,
        "loss": 4.5,
        "exact_match": 12.5,
        "alias_match": 12.75,
        "token_f1": 13.0,
        "rouge_l": 13.25,
        "final_number": 87.5,
        "cut": None,
        "kl": None,
    }


@pytest.mark.parametrize("metric", sorted({*DEFAULT} - {*ALWAYS}))
def test_a_metric_that_a_run_lacks_is_one_line(tmp_path: Path, metric: str) -> None:
    run = write(tmp_path / "toy", {"state": "done"}, finished())
    result = CliRunner().invoke(main, ["show", str(run.path), "--metric", metric])
    assert result.exit_code == 2
    assert f"no evaluation of this run has {metric}" in result.output
    assert ("'#### number'" in result.output) is (metric == "final_number")
    assert result.output.count("\n") == 1


def test_the_command_line_offers_every_metric() -> None:
    (option,) = (o for o in main.commands["show"].params if o.name == "metric")
    assert list(getattr(option.type, "choices", ())) == list(SCORES)


def test_no_evaluation_yet(tmp_path: Path) -> None:
    run = write(tmp_path / "toy", {"state": "running", "stage": 0, "step": 3})
    assert "no evaluation yet" in printed(show_run(run))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"state": "done"}, "toy  done"),
        ({"state": "failed", "why": "out of memory"}, "toy  failed: out of memory"),
        # Nobody holds the lock, so a run that says it is running was killed.
        ({"state": "running", "stage": 1, "step": 40}, "toy  interrupted in stage 2, step 40"),
        ({"state": "running", "arm": "mixed"}, "toy  interrupted in arm mixed"),
        (None, "toy  not started"),
    ],
)
def test_the_first_line_says_the_state(
    tmp_path: Path, status: dict[str, Any] | None, expected: str
) -> None:
    assert printed(show_run(write(tmp_path / "toy", status))).splitlines()[0].rstrip() == expected


def test_a_running_run_is_running_while_its_lock_is_held(tmp_path: Path) -> None:
    run = write(tmp_path / "toy", {"state": "running", "stage": 0, "step": 7})
    with run.locked():
        assert "running in stage 1, step 7" in printed(show_run(run))


def test_stages_snapshots_and_results_are_listed(tmp_path: Path) -> None:
    mix = {"source": "random-words", "ratio": 2, "words": 20, "passage_free": True}
    run = write(tmp_path / "toy", {"state": "done"}, finished(), mix=mix)
    for file in (
        run.snapshot_folder / "stage0-step000000.h5",
        run.snapshot_folder / "stage0-step000120.h5",
        run.analysis_folder / "grad_angle.json",
        run.figure_folder / "grad_angle.pdf",
        run.figure_folder / "grad_angle.png.partial",
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    text = printed(show_run(run))
    words = " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    assert "100 kvr" in text
    assert "50 kvr (id)" in words
    for word in ("random-words", "1:2,", "passage-free", "2 snapshots", " 120\n", " 80\n"):
        assert word in text
    assert "analysis/grad_angle.json\nfigures/grad_angle.pdf" in text
    assert "partial" not in text


def test_what_a_stage_leaves_out_replays_and_copies_is_shown(tmp_path: Path) -> None:
    data = {"source": "popqa", "limit": 9, "split": "id", "familiar": "only"}
    quirks = ["drop-last", "bf16-weights"]
    second = {"data": data, "replay": 0.05}
    run = write(tmp_path / "toy", {"state": "done"}, second=second, paper_literal=quirks)
    words = " ".join(printed(show_run(run)).split())
    assert "9 popqa (id, familiar) replay 0.05" in words
    assert "as the published code: drop-last, bf16-weights" in words
    assert "published" not in printed(show_run(write(tmp_path / "plain", {"state": "done"})))


def test_a_stages_end_is_shown_with_its_rules(tmp_path: Path) -> None:
    stop = {"epochs": 100, "loss_below": 1e-4, "exact_match": 99.5, "patience": 3}
    run = write(tmp_path / "toy", {"state": "done"}, second={"stop": stop})
    words = " ".join(printed(show_run(run), width=200).split())
    assert " ≤ 100, loss < 0.0001 ×10, exact ≥ 99.5 %, patience 3 0 " in words
    stop |= {"consecutive": True, "times": 4}
    row = printed(show_run(write(tmp_path / "row", {"state": "done"}, second={"stop": stop})), 200)
    assert "loss < 0.0001 ×4 in a row, exact" in " ".join(row.split())


@pytest.mark.parametrize(
    ("state", "says"),
    [("running", True), ("interrupted", True), ("failed", True), ("done", False)],
)
def test_a_run_that_has_not_ended_says_how_to_go_on(tmp_path: Path, state: str, says: bool) -> None:
    """Nobody holds its lock, so one that says it is running was killed."""
    run = write(tmp_path / "toy", {"state": state})
    text = printed(show_run(run), width=200)
    assert (f"next: geomix train --resume {run.path}\n" in text) is says


def test_arms_are_told_apart_and_one_may_not_have_begun(tmp_path: Path) -> None:
    run = write(tmp_path / "toy", {"state": "running", "arm": "mixed"}, arms=["plain", "mixed"])
    write(run.path / "arms" / "plain", {"state": "done"}, finished())
    text = printed(show_run(run))
    assert "arm plain  done" in text
    assert "arm mixed  not started" in text


def test_what_the_arms_share_is_shown_once(tmp_path: Path) -> None:
    run = write(tmp_path / "toy", {"state": "done"}, arms=["plain", "mixed"])
    write(run.path / "arms" / "plain", {"state": "done"}, finished())
    mix = {"source": "random-words", "ratio": 2, "words": 20}
    write(run.path / "arms" / "mixed", {"state": "done"}, finished(), mix=mix)
    text = printed(show_run(run))
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("50 kvr") == 1
    assert text.count("100 kvr") == 2
    order = ("all arms", "50 kvr", "arm plain  done, 0", "100 kvr", "arm mixed", "random-words")
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_transfer_and_forgetting_are_shown_for_each_arm(tmp_path: Path) -> None:
    """Numbers by hand from `finished`: D_A 99 → 12.5, D_B 1 → 1.5 before its own stage."""
    run = write(tmp_path / "toy", {"state": "done"}, arms=["plain", "mixed"])
    for arm in run.arms:
        write(arm.path, {"state": "done"}, finished())
    for stage, verdicts in (("0-kvr/eval/start", "00"), ("1-kvr/eval/epoch-001", "10")):
        file = run.path / "arms" / "mixed" / "stages" / f"{stage}.jsonl"
        file.parent.mkdir(parents=True)
        lines = [json.dumps({"set": "D_A", "exact": sign == "1"}) for sign in verdicts]
        file.write_text("\n".join(lines) + "\n")
    text = printed(show_run(run))
    assert max(map(len, text.splitlines())) <= 80
    rows = [line.split() for line in text.splitlines()]
    assert rows.count(["plain", "-86.5", "+0.5", "86.5"]) == 1
    assert rows.count(["mixed", "-86.5", "+0.5", "86.5"]) == 1
    assert ["mixed", "D_A", "2", "1", "200", "0", "0", "2"] in rows
    result = CliRunner().invoke(main, ["show", str(run.path), "--json"])
    facts = json.loads(result.output)
    matrix = [[0.0, 1.0], [99.0, 1.5], [12.5, 88.0]]
    assert [arm["matrix"] for arm in facts["transfer"]] == [matrix] * 2
    (history,) = facts["forgetting"]
    assert (history["arm"], history["events"], history["learnt"]) == ("mixed", [0, 0], [200, None])


def test_a_run_of_one_stage_has_no_transfer(tmp_path: Path) -> None:
    run = write(tmp_path / "toy", {"state": "running"}, finished()[:6])
    assert "transfer" not in printed(show_run(run))


@pytest.mark.parametrize(
    "line",
    [{}, {"event": "evaluation"}, {**evaluation(0, 0, "start", "D_A", 1, 1), "n": float("inf")}],
)
def test_a_line_that_geomix_does_not_write_is_a_users_mistake(tmp_path: Path, line: Any) -> None:
    run = write(tmp_path / "toy", {"state": "done"}, [line])
    with pytest.raises(UserError, match=r"metrics\.jsonl: not as geomix writes it") as raised:
        show_run(run)
    assert len(raised.value.lines) == 1


def test_a_configuration_that_geomix_does_not_write_is_a_users_mistake(tmp_path: Path) -> None:
    run = write(tmp_path / "toy", {"state": "done"})
    resolved = json.loads(run.resolved_file.read_text())
    resolved["config"]["stages"][1]["data"] = 3
    run.resolved_file.write_text(json.dumps(resolved))
    with pytest.raises(UserError, match=r"resolved\.json: not as geomix writes it"):
        show_run(run)


def test_a_folder_that_is_no_run_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is .* a run of geomix"):
        show_run(Run(tmp_path))


def test_csv_is_tidy(tmp_path: Path) -> None:
    run = write(tmp_path / "toy", {"state": "done"}, measured(), seed=7)
    result = CliRunner().invoke(main, ["show", str(run.path), "--csv"])
    rows = list(csv.DictReader(result.output.splitlines()))
    values = {(r["checkpoint"], r["set"], r["metric"]): r["value"] for r in rows}
    assert len(values) == len(rows) == 3 * (4 * 5 + 1), "final_number is D_A's alone"
    assert values["after stage 2", "D_A", "exact_match"] == "12.5"
    assert values["after stage 1", "D_A", "final_number"] == "1.0"
    assert float(values["after stage 2", "D_B", "loss"]) == pytest.approx(5 - 88 / 25)
    assert {(r["run"], r["arm"], r["seed"], r["n"]) for r in rows} == {("toy", "toy", "7", "100")}
    both = CliRunner().invoke(main, ["show", str(run.path), "--csv", "--json"])
    assert (both.exit_code, both.output) == (2, "geomix: --csv: either this or --json\n")


def test_a_sweep_tells_what_was_never_learned_from_what_was_forgotten(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    (folder / "_sweep").mkdir(parents=True)
    (folder / "_sweep" / "study.yaml").write_text("base: demo\n")
    never = [
        {**line, "exact_match": 0.0} if line.get("set") == "D_A" else line for line in finished()
    ]
    write(folder / "seed=0", {"state": "done"}, finished())
    write(folder / "seed=1", {"state": "done"}, never, seed=1)
    write(folder / "seed=2", {"state": "running"}, finished()[:10], seed=2)
    result = CliRunner().invoke(main, ["show", str(folder)])
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[0] == ["D_A", "D_A", "D_B", "D_M", "held-out"]
    numbers = ["after", "1", *["after", "2"] * 4]
    assert lines[1] == ["exact", "match,", "%", "state", *numbers]
    assert lines[2:] == [
        ["seed=0", "done", "99.0", "12.5", "88.0", "30.0", "3.2"],
        ["seed=1", "done", "0.0", "0.0", "88.0", "30.0", "3.2"],
        ["seed=2", "interrupted", "99.0"],
    ]
    table = CliRunner().invoke(main, ["show", str(folder), "--csv"]).output
    assert {row["run"] for row in csv.DictReader(table.splitlines())} == {
        f"seed={k}" for k in (0, 1, 2)
    }
    shown = json.loads(CliRunner().invoke(main, ["show", str(folder), "--json"]).output)
    assert [one["name"] for one in shown] == ["seed=0", "seed=1", "seed=2"]


def test_the_answer_comes_first_and_says_what_was_not_learnt(tmp_path: Path) -> None:
    run = write(tmp_path / "toy", {"state": "done"}, finished())
    text = printed(show_run(run))
    assert text.index("Retention matrix") < text.index("Stages")
    assert "not learnt" not in text
    lines = finished()
    for line in lines:
        if line.get("moment") == "end" and line["stage"] == 0 and line["set"] == "D_A":
            line["exact_match"] = 26.4
    run = write(tmp_path / "half", {"state": "done"}, lines)
    said = "D_A was not learnt (26 % exact): train longer before reading its forgetting"
    assert not_learnt(run) == [said]
    assert said in printed(show_run(run))


def test_all_of_a_file_is_told_in_numbers_once_they_are_known(tmp_path: Path) -> None:
    run = write(tmp_path / "toy", {"state": "running"})
    resolved = json.loads(run.resolved_file.read_text())
    resolved["config"]["stages"][0]["data"] |= {"source": "facts.csv", "limit": None}
    run.resolved_file.write_text(json.dumps(resolved))
    assert "all facts.csv" in printed(show_run(run))
    folder = run.stage_folder(0, "facts")
    folder.mkdir(parents=True)
    (folder / "data.json").write_text(json.dumps({"sets": {"D_A": {"examples": 54}}}))
    assert "54 facts.csv" in printed(show_run(run))
    run.probes_file.parent.mkdir()
    run.probes_file.write_text(json.dumps({"held-out": {"n": 6, "of": 6}}))
    assert "54 of 60 facts.csv" in " ".join(printed(show_run(run), 200).split())
