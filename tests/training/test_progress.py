"""Display during training: one line that fits, and its contents."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.cells import cell_len

from geomix.cli.progress import Display, Shown, Standing, shown
from geomix.util.console import Console
from geomix.util.progress import told_by


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def step(number: int, loss: float = 0.1234, stage: int = 0) -> dict[str, Any]:
    return {"event": "step", "stage": stage, "step": number, "loss": loss}


def score(name: str, match: float, at: int = 0, stage: int = 0) -> dict[str, Any]:
    moment = {"event": "evaluation", "stage": stage, "step": at, "moment": "epoch"}
    return {**moment, "set": name, "exact_match": match}


def advanced(standing: Standing, clock: Clock, steps: int, seconds: float) -> Standing:
    for number in range(1, steps + 1):
        clock.now += seconds
        standing.logged(step(number))
    return standing


@pytest.fixture
def trained() -> Standing:
    """Step 120 of 500 of the first of two stages, arm 3 of 3; 0.1 s a step of 32 examples."""
    clock = Clock()
    standing = Standing("control", "3/3", clock)
    standing.stage("kvr", 0, 2, 500, 32.0)
    for name, match in (("D_A", 45.4), ("D_B", 0.0)):
        standing.logged(score(name, match))
    return advanced(standing, clock, 120, 0.1)


def test_the_live_line_says_where_the_run_is(trained: Standing) -> None:
    """320 examples a second and 380 steps of 0.1 s left, worked out by hand."""
    line = trained.line(80)
    assert line == (
        "control 3/3  kvr 1/2  120/500  loss 0.123  D_A 45% D_B 0%  320 ex/s  0:38 left"
    )
    assert len(line) <= 80


@pytest.mark.parametrize("width", [80, 60, 40, 24, 8])
@pytest.mark.parametrize("name", ["kvr", "a-stage-of-my-own-with-a-long-name", "日本" * 20])
def test_it_fits_the_terminal(width: int, name: str) -> None:
    clock = Clock()
    standing = Standing("passage-free-control", "10/12", clock)
    standing.stage(name, 1, 3, 1_000_000, 32.0)
    for number, scored in enumerate(("D_A", "D_B", "D_C", "D_M1", "D_M2", "familiar-popqa")):
        standing.logged(score(scored, 99.0 - number))
    line = advanced(standing, clock, 60, 123.0).line(width)
    assert cell_len(line) <= width
    assert "\n" not in line
    assert line.startswith(("passage", name[:3]))


def test_the_narrower_the_less_but_the_retention_stays(trained: Standing) -> None:
    assert trained.line(75).startswith("control 3/3  kvr 1/2")
    assert "ex/s" not in trained.line(75)
    assert trained.line(60) == "kvr 1/2  120/500  loss 0.123  D_A 45% D_B 0%  0:38 left"
    assert trained.line(47) == "kvr 1/2  120/500  D_A 45% D_B 0%  0:38 left"
    assert trained.line(33) == "kvr 1/2  120/500  D_A 45% D_B 0%"


def test_a_new_measurement_replaces_the_one_before() -> None:
    standing = Standing()
    standing.stage("kvr", 0, 1, 9, 1.0)
    standing.logged(score("D_A", 10.0, at=1))
    standing.logged(score("D_M", 20.0, at=1))
    assert "D_A 10% D_M 20%" in standing.line(80)
    standing.logged(score("D_A", 30.0, at=2))
    assert "D_A 30%" in standing.line(80)
    assert "D_M" not in standing.line(80)


def test_a_stage_gone_on_with_counts_from_where_it_was() -> None:
    """20 of 100 steps are left at 2 s each, however few were taken in this process."""
    clock = Clock()
    standing = Standing(clock=clock)
    standing.stage("kvr", 0, 1, 100, 8.0)
    for number in range(71, 81):
        clock.now += 2.0
        standing.logged(step(number))
    assert standing.line(80) == "kvr 1/1  80/100  loss 0.123  4 ex/s  0:40 left"


def test_the_speed_is_that_of_the_last_steps() -> None:
    clock = Clock()
    standing = Standing(clock=clock)
    standing.stage("kvr", 0, 1, 1000, 1.0)
    advanced(standing, clock, 100, 10.0)
    for number in range(101, 201):
        clock.now += 0.5
        standing.logged(step(number))
    assert "2 ex/s  6:40 left" in standing.line(80)


@pytest.mark.parametrize(
    ("seconds", "says"), [(7, "0:07"), (727, "12:07"), (11527, "3:12:07"), (360000, "100:00:00")]
)
def test_the_time_left(seconds: int, says: str) -> None:
    clock = Clock()
    standing = Standing(clock=clock)
    standing.stage("kvr", 0, 1, 3, 1.0)
    for number in (1, 2):
        clock.now += seconds
        standing.logged(step(number))
    assert f" {says} left" in standing.line(80)


def written(terminal: bool, width: int = 80) -> tuple[Console, Callable[[], list[str]]]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=width, color_system=None)
    return console, lambda: out.getvalue().splitlines()


def test_without_a_terminal_a_line_a_stage_and_ever_rarer_ones_between() -> None:
    """At 0:30 and 1:00; then at twice the time of the last line, that of the first stage's end."""
    clock = Clock()
    console, lines = written(terminal=False)
    report = Shown(console, ["plain", "mixed"], clock)
    with told_by(report.teller, looking=False):
        display = report.arm("plain")
        for stage, (name, steps) in enumerate([("kvr", 100), ("triples", 110)]):
            display.stage(name, stage, 2, steps, 4.0)
            for number in range(1, steps + 1):
                clock.now += 1.0
                display.logged(step(number, stage=stage))
                report.teller.look()
        report.close()
    assert lines() == [
        "plain 1/2  kvr 1/2  30/100  loss 0.123  4 ex/s  1:10 left",
        "plain 1/2  kvr 1/2  60/100  loss 0.123  4 ex/s  0:40 left",
        "plain: kvr         100 steps  100 s  loss 0.12    ",
        "plain 1/2  triples 2/2  100/110  loss 0.123  4 ex/s  0:10 left",
        "plain: triples     110 steps  110 s  loss 0.12    ",
    ]


@pytest.mark.parametrize("width", [80, 60])
def test_on_a_terminal_no_line_wraps_and_the_live_one_goes(width: int) -> None:
    """Each drawing erases its line first: what stands behind the escape code is what is seen."""
    console, lines = written(terminal=True, width=width)
    with shown(console, ["plain", "passage-free-control"]) as report:
        display = report.arm("passage-free-control")
        display.stage("arithmetic", 0, 2, 500, 32.0)
        for name in ("D_A", "D_B", "D_M", "held-out-of-my-own"):
            display.logged(score(name, 100.0))
        for number in (1, 2):
            display.logged(step(number))
        console.print(report)
    drawn = [line for line in lines() if "arithmetic 1/2" in line]
    assert drawn
    assert all(cell_len(line.split("\r")[-1].split("\x1b[2K")[-1]) <= width for line in drawn)
    assert any("passage-free-control: arithmetic    2 steps" in line for line in lines())


def test_names_are_text_not_markup() -> None:
    console, lines = written(terminal=False)
    display = Display(console, Standing())
    display.stage("[red]x[/red]", 0, 1, 1, 1.0)
    display.close()
    assert lines()[0].startswith("[red]x[/red]")
