"""Transfer and forgetting of matrices and histories that can be counted by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from geomix.api import Run
from geomix.runs.history import (
    Forgetting,
    Transfer,
    average_forgetting,
    backward_transfer,
    first_learnt,
    forgetting_events,
    forgetting_of,
    forward_transfer,
    transfer_of,
)

R = [
    [1.0, 2.0, 4.0],  # θ_0
    [90.0, 7.0, 5.0],
    [60.0, 80.0, 14.0],
    [70.0, 50.0, 99.0],
]


def test_transfer_of_three_stages_by_hand() -> None:
    """The second row is the best of D_A, so 20 are lost of it; D_A came back by 10 since."""
    assert backward_transfer(R) == ((70 - 90) + (50 - 80)) / 2
    assert forward_transfer(R) == ((7 - 2) + (14 - 4)) / 2
    assert average_forgetting(R) == ((90 - 70) + (80 - 50)) / 2


def test_forgetting_is_from_the_best_wherever_it_was_and_may_be_a_gain() -> None:
    later = [*R[:2], [95.0, 80.0, 14.0], R[3]]
    assert average_forgetting(later) == ((95 - 70) + (80 - 50)) / 2
    assert backward_transfer(later) == backward_transfer(R)
    assert average_forgetting([[0.0, 0.0], [50.0, 0.0], [60.0, 9.0]]) == -10
    assert average_forgetting([[99.0, 0.0], [50.0, 0.0], [60.0, 9.0]]) == -10, "θ_0 is no stage"


@pytest.mark.parametrize(
    ("ended", "backward", "forward", "forgetting"),
    [(0, None, None, None), (1, None, 5.0, None), (2, -30.0, 7.5, 30.0)],
)
def test_stages_that_have_not_ended_are_left_out(
    ended: int, backward: float | None, forward: float | None, forgetting: float | None
) -> None:
    so_far = R[: ended + 1]
    assert backward_transfer(so_far) == backward
    assert forward_transfer(so_far) == forward
    assert average_forgetting(so_far) == forgetting


def test_one_stage_transfers_nothing() -> None:
    alone = [[0.0], [90.0]]
    assert backward_transfer(alone) is forward_transfer(alone) is average_forgetting(alone) is None


def test_events_and_first_learnt_by_hand() -> None:
    histories = ["0000", "0111", "0101", "1010", "1111"]
    right = [[fact[i] == "1" for fact in histories] for i in range(4)]
    assert forgetting_events(right) == [0, 0, 1, 2, 0]
    assert first_learnt(right, [0, 5, 10, 20]) == [None, 5, 5, 0, 0]


def write(folder: Path, evaluations: list[tuple[int, str, int, int, dict[str, str]]]) -> Run:
    """A run of stages `one` and `two`: (stage, moment, epoch, step, verdicts by set)."""
    run = Run(folder)
    folder.mkdir(exist_ok=True)
    config = {"seed": 0, "stages": [{"name": "one"}, {"name": "two"}]}
    run.resolved_file.write_text(json.dumps({"config": config, "arms": None}))
    lines: list[dict[str, Any]] = []
    for stage, moment, epoch, step, sets in evaluations:
        name = {"start": "start", "step": f"step-{step:06d}"}.get(moment, f"epoch-{epoch:03d}")
        file = run.stage_folder(stage, ("one", "two", "three")[stage]) / "eval" / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        at = {"stage": stage, "step": step}
        lines.append({**at, "event": "step"})
        verdicts = []
        for key, right in sets.items():
            exact = 100 * right.count("1") / len(right)
            found = {"epoch": epoch, "moment": moment, "set": key, "exact_match": exact}
            lines.append({**at, "event": "evaluation", **found})
            verdicts += [{"set": key, "exact": sign == "1"} for sign in right]
        file.write_text("".join(json.dumps(verdict) + "\n" for verdict in verdicts))
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


HISTORY: list[tuple[int, str, int, int, dict[str, str]]] = [
    (0, "start", 0, 0, {"D_A": "0000", "D_B": "10"}),
    (0, "step", 0, 3, {"D_A": "11"}),
    (0, "epoch", 1, 4, {"D_A": "01"}),
    (0, "epoch", 2, 8, {"D_A": "11"}),
    (0, "end", 2, 8, {"D_A": "1110", "D_B": "00"}),
    (1, "epoch", 1, 2, {"D_A": "01", "D_B": "10"}),
    (1, "end", 2, 6, {"D_A": "0100", "D_B": "11"}),
]


def test_a_run_is_read_in_steps_since_the_base_model(tmp_path: Path) -> None:
    """Two facts of D_A are scored every time; one stage ended by a rule after its evaluation."""
    run = write(tmp_path / "toy", HISTORY)
    one, two = forgetting_of(run)
    assert one == Forgetting("toy", "D_A", 2, [0, 3, 4, 8, 10, 14], [2, 0], [3, 3])
    assert two == Forgetting("toy", "D_B", 2, [0, 8, 10, 14], [1, 0], [0, 14])
    matrix = [[0.0, 50.0], [75.0, 0.0], [25.0, 100.0]]
    assert transfer_of(run) == Transfer("toy", ["D_A", "D_B"], matrix, -50.0, -50.0, 50.0)


def test_steps_count_on_over_all_stages(tmp_path: Path) -> None:
    ends = [(stage, "end", 1, 4 - stage, {"D_A": "1"}) for stage in range(3)]
    assert forgetting_of(write(tmp_path / "toy", ends))[0].steps == [4, 4 + 3, 4 + 3 + 2]


def test_verdicts_that_are_gone_leave_the_others(tmp_path: Path) -> None:
    run = write(tmp_path / "toy", HISTORY)
    (run.stage_folder(0, "one") / "eval" / "epoch-001.jsonl").unlink()
    assert forgetting_of(run)[0].steps == [0, 3, 8, 10, 14]
    assert forgetting_of(run)[0].events == [1, 0]


def test_the_row_of_a_boundary_that_is_just_being_written_is_left_out(tmp_path: Path) -> None:
    *before, (stage, moment, epoch, step, sets) = HISTORY
    found = transfer_of(
        write(tmp_path / "toy", [*before, (stage, moment, epoch, step, {"D_A": sets["D_A"]})])
    )
    assert found is not None
    assert found.matrix == [[0.0, 50.0], [75.0, 0.0]]


def test_before_the_first_evaluation_there_is_nothing(tmp_path: Path) -> None:
    run = write(tmp_path / "toy", [])
    assert transfer_of(run) is None
    assert forgetting_of(run) == []
