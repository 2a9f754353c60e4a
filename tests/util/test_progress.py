"""Progress lines of phases: no long silence, and few lines however long it takes."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from geomix.cli import main
from geomix.cli.progress import shown
from geomix.util import progress
from geomix.util.console import Console
from geomix.util.progress import Teller, during, phase, said, told_by

TEXT = """
model: {model}
train: {{batch_size: 4, lr: 1e-2}}
stages:
  - data: {{source: kvr, limit: 6}}
    stop: {{epochs: 1}}
record: {{at: [boundaries], probes: 2}}
evaluate: {{epochs: 0}}
"""


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Told:
    """A teller whose lines are kept."""

    def __init__(self, idle: Callable[[], str] = str) -> None:
        self.clock, self.lines = Clock(), list[str]()
        self.teller = Teller(self.lines.append, idle, self.clock)

    def after(self, seconds: float) -> list[str]:
        """Let time pass, look, and give the lines that are new."""
        self.clock.now += seconds
        before = len(self.lines)
        self.teller.look()
        return self.lines[before:]


def test_a_phase_says_what_is_under_way_the_more_rarely_the_longer_it_takes() -> None:
    told = Told()
    with told_by(told.teller, looking=False), phase("scoring D_A"):
        assert told.after(29) == []
        with phase("examples", 2000) as advance:
            assert told.after(1) == ["scoring D_A, examples 0/2,000  0:30"]
            advance(500)
            assert told.after(29) == []
            assert told.after(1) == ["scoring D_A, examples 500/2,000  1:00, 1:33 left"]
        assert told.after(59) == []
        assert told.after(1) == ["scoring D_A  2:00"]
    assert told.after(120) == [], "nothing is under way"


def spoken(told: Told, seconds: int) -> list[int]:
    """Let seconds pass, one at a time; return those at which a line came."""
    begun = told.clock.now
    return [int(told.clock.now - begun) for _ in range(seconds) if told.after(1)]


def test_lines_are_rare_but_never_more_than_ten_minutes_apart() -> None:
    with told_by((told := Told()).teller, looking=False), phase("scoring D_A"):
        found = spoken(told, 4 * 3600)
    assert found[:7] == [30, 60, 120, 240, 480, 960, 1560]
    assert {after - before for before, after in pairwise(found[5:])} == {600}


@pytest.mark.parametrize(("slower", "most"), [(1, 2), (4, 4), (100, 66)])
def test_a_slow_machine_prints_few_more_lines(slower: int, most: int) -> None:
    """Beside the six permanent lines of a run of three arms that takes 390 s on a quiet machine."""
    told = Told(lambda: "under way")
    printed = 0
    with told_by(told.teller, looking=False):
        for seconds in (55, 35, 115, 35, 115, 35):
            printed += len(spoken(told, seconds * slower))
            said()
    assert 0 < printed <= most


def test_short_phases_one_after_the_other_are_not_silent_either() -> None:
    told = Told()
    with told_by(told.teller, looking=False):
        found = []
        for number in range(8):
            with phase(f"loading {number}"):
                found += told.after(10)
    assert [line.split("  ")[0] for line in found] == ["loading 2", "loading 5"]


def test_a_line_that_others_print_counts() -> None:
    told = Told()
    with told_by(told.teller, looking=False), phase("saving"):
        told.clock.now += 25
        said()
        assert told.after(20) == []
        assert told.after(10) == ["saving  0:55"]


def test_between_phases_a_slow_step_is_told() -> None:
    told = Told(lambda: "kvr 1/2  3/9")
    assert told.after(31) == ["kvr 1/2  3/9"]
    assert told.after(29) == []


def test_a_phase_ends_however_its_block_does() -> None:
    told = Told()
    with told_by(told.teller, looking=False):
        with pytest.raises(ValueError, match="torn"), phase("reading"):
            raise ValueError("torn")
        assert told.teller.phases == []

    @during(lambda name, **_: f"loading {name}")
    def load(name: str, *, twice: int = 1) -> str:
        return told.teller.line() + name * twice

    assert load("a", twice=2) == "aa", "nobody shows it"
    with told_by(told.teller, looking=False):
        assert load("a") == "loading a  0:00a"


def test_the_live_line_waits_for_a_moment() -> None:
    told = Told()
    with told_by(told.teller, looking=False), phase("x" * 100):
        assert told.teller.live() == ""
        told.clock.now += 2
        assert told.teller.live() == f"…{'x' * 59}  0:02"


def test_a_thread_looks_at_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the command is in one call."""
    monkeypatch.setattr(progress, "silence", lambda _: 0.0)
    monkeypatch.setattr(progress, "_LOOKS", 0.001)
    heard = threading.Event()
    with told_by(Teller(lambda _: heard.set()), looking=True), phase("loading"):
        assert heard.wait(60)


def test_training_shows_its_phases_where_it_shows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal in the place of the live line, elsewhere as lines."""
    monkeypatch.setattr(progress, "_LIVE_SECONDS", 0.0)
    terminal = Console(file=io.StringIO(), force_terminal=True, width=60)
    with shown(terminal, [""]) as report, phase("loading a model"):
        file = Console(file=io.StringIO(), width=60)
        file.print(report)
        assert file.file.getvalue().startswith("loading a model  0:00")  # type: ignore[attr-defined]
    elsewhere = Console(file=io.StringIO(), width=60)
    monkeypatch.setattr(progress, "silence", lambda _: 0.0)
    with shown(elsewhere, [""]) as report, phase("loading a model"):
        report.teller.look()
    assert "loading a model  0:00" in elsewhere.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Phases that began while they were displayed."""
    found: list[str] = []
    begin = Teller.begin

    def noted(self: Teller, what: str, *rest: Any) -> Any:
        found.append(what)
        return begin(self, what, *rest)

    monkeypatch.setattr(Teller, "begin", noted)
    return found


def invoked(*arguments: str) -> None:
    done = CliRunner().invoke(main, [*arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def has(found: Sequence[str], *patterns: str) -> None:
    for pattern in patterns:
        assert any(re.match(pattern, what) for what in found), (pattern, found)


def test_all_that_may_take_long_is_told(
    tiny_model: Path, tmp_path: Path, begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training, recording, exporting and an analysis; nothing where a program reads."""
    for name in ("_figures", "_example_figures"):
        monkeypatch.setattr(f"geomix.analysis.grad_angle.outputs.{name}", lambda *_: ())
    (tmp_path / "c.yaml").write_text(
        TEXT.format(model=tiny_model)
        .replace("limit: 6}", "limit: 6, familiar: drop}")
        .replace("record", "  - {data: {source: arithmetic, limit: 4}, stop: {epochs: 1}}\nrecord")
    )
    run = str(tmp_path / "run")
    invoked("train", str(tmp_path / "c.yaml"), "--out", run)
    has(begun, "reading the data", "loading ", "tokenising", "choosing", "asking what the base")
    has(begun, "hashing", "scoring D_A", "examples", "recording stage 1, step 0", "saving ")
    begun.clear()
    invoked("record", run, "--at", "boundaries")
    has(begun, "reading the data", "loading ")
    begun.clear()
    invoked("export", run, "--to", str(tmp_path / "out"), "--format", "numpy")
    has(begun, "exporting .*out, snapshots")
    begun.clear()
    invoked("analyze", "grad-angle", run, "--examples", "2", "--at", "A")
    has(begun, "run: gradients at θ_A, sets", "run: angles at θ_A", "run: single examples at θ_A")
    has(begun, "checking ", "drawing the figures")
    begun.clear()
    (tmp_path / "c.yaml").write_text(TEXT.format(model=tiny_model))
    invoked("train", str(tmp_path / "c.yaml"), "--out", f"{run}2", "--json")
    assert begun == []


def test_what_is_piped_stays_so(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """stderr is a terminal, stdout is not."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress.telling() as say:
        print("a file")
        say("a line")
    out, err = capfd.readouterr()
    assert out == "a file\n"
    assert "a line" in err
