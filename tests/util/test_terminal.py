"""Text from files is printed without any effect on the terminal."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import click
import pytest
import rich.console
import yaml
from click.testing import CliRunner
from rich.console import Group
from rich.panel import Panel
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from geomix.api import Run
from geomix.cli import _OneLineErrors, main
from geomix.config.run import RunConfig
from geomix.util.console import Console, Live
from geomix.util.terminal import ESCAPED, Screened, echo, echo_json, harmless, screened

HOSTILE = "a\x1b]52;c;aGk=\x07\x1b[31mb\x9bc\x7fd\u202ee\u2066f\rg\x08h"
"""Sets the clipboard, the colour, the direction, and goes back in its line; C0, C1 and DEL."""

ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def terminal() -> Iterator[Tty]:
    """A terminal as stdout and stderr, screened as a command screens it."""
    stream = Tty()
    with redirect_stdout(stream), redirect_stderr(stream), screened():
        yield stream


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_what_would_act_on_a_terminal_is_shown_as_a_sign() -> None:
    acting = "\x00\x07\x08\x0d\x1b\x7f\x9b\u202e\u2066"
    assert harmless(f"a{acting}b") == f"a{ESCAPED * len(acting)}b"


def test_text_of_every_language_stays_as_it_is() -> None:
    text = "é 日本 שלום\u200f \u200d👩\u200d🔬\n\tx"
    assert harmless(text) == text


# Whoever writes, and however.


def _log() -> None:
    logger = logging.Logger("foreign")
    logger.addHandler(logging.StreamHandler())
    logger.error("%s", HOSTILE)


WAYS: dict[str, Any] = {
    "echo": lambda: echo(HOSTILE),
    "echo to stderr": lambda: echo(HOSTILE, err=True),
    "print": lambda: print(HOSTILE),
    "write": lambda: sys.stderr.write(HOSTILE),
    "writelines": lambda: sys.stdout.writelines([HOSTILE]),
    "click": lambda: click.echo(HOSTILE, color=True),
    "a logger": _log,
    "rich, a text": lambda: Console().print(HOSTILE),
    "rich, no layout": lambda: Console().print(HOSTILE, soft_wrap=True),
    "rich, out": lambda: Console().out(HOSTILE),
    "rich, a panel": lambda: Console().print(Panel(Text(HOSTILE), title=HOSTILE)),
    "rich, a rule": lambda: Console().rule(HOSTILE),
    "somebody's rich": lambda: rich.console.Console(color_system=None).print(HOSTILE),
}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_but_text_and_colours_of_our_own_comes_out(way: str) -> None:
    with terminal() as tty:
        WAYS[way]()
    shown = tty.getvalue()
    assert "b" in shown
    assert ESCAPED in shown
    assert "\x1b[31mb" not in shown
    assert not ACTING.search(COLOUR.sub("", shown))


def test_a_table_keeps_its_own_colours_and_shows_the_texts_as_signs() -> None:
    table = Table(HOSTILE, title=HOSTILE, caption=HOSTILE)
    table.add_row(Text(HOSTILE, style="bold green"))
    table.add_row(f"[red]{HOSTILE}[/nothing] :smile:")
    with terminal() as tty:
        Console(width=200).print(Group(table, Text(HOSTILE, style="dim")))
    shown = tty.getvalue()
    assert "\x1b[1;32m" in shown
    assert "\x1b[31m" not in shown
    assert "[red]a" in shown
    assert "[/nothing] :smile:" in shown
    assert not ACTING.search(COLOUR.sub("", shown))


def test_a_cell_is_as_wide_as_what_is_shown() -> None:
    table = Table()
    table.add_row("\x1b" * 9, "x")
    with terminal() as tty:
        Console(width=80).print(table)
    assert len({len(line) for line in COLOUR.sub("", tty.getvalue()).splitlines()}) == 1


@pytest.mark.parametrize("err", [False, True])
def test_a_live_region_moves_and_what_others_print_meanwhile_does_not(err: bool) -> None:
    with terminal() as tty:
        console = Console(width=80, stderr=err)
        with Live(Text("the region"), console=console, auto_refresh=False) as live:
            print(f"beside {HOSTILE}")
            sys.stderr.write(f"warning: {HOSTILE}\n")
            console.print(f"above {HOSTILE}")
            live.update(Text(f"then {HOSTILE}", style="green"), refresh=True)
        assert isinstance(sys.stdout, Screened)
        assert sys.stdout.below is tty
    shown = tty.getvalue()
    assert "\x1b[32mthen" in shown
    for text in ("beside", "above", "warning:"):
        assert f"{text} a{ESCAPED}]52" in shown
    for acting in ("\x1b[31m", "\x1b]", "\u202e", "\x9b"):
        assert acting not in shown


def test_a_bar_of_rich_is_drawn() -> None:
    with terminal() as tty, Progress(console=Console(width=80), auto_refresh=False) as progress:
        progress.add_task(HOSTILE, total=2)
        progress.refresh()
    assert f"a{ESCAPED}]52" in tty.getvalue()
    assert "\x1b]" not in tty.getvalue()


def test_screens_do_not_pile_up_and_leave_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)  # closed before the start
    before: Any = sys.stdout
    with screened(), screened():
        assert isinstance(sys.stdout, Screened)
        assert sys.stdout.below is before
        assert sys.stderr is None
        echo("nobody reads it", err=True)
    assert sys.stdout is before


# JSON and YAML, which others read.


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_is_the_same_once_it_is_parsed(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    value = {HOSTILE: [HOSTILE, "θ 日本 👩\u200d🔬 \udc9b", 1.5, None]}
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", stream)
    with screened():
        echo_json(value)
    stream.seek(0)
    text = stream.read()
    assert json.loads(text) == value
    assert not ACTING.search(text)
    assert ("日本" in text) == (encoding == "utf-8")


def test_a_configuration_is_shown_so_that_it_is_the_same_again(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    text = "Where is {place}\u202e?\x85 é"
    stages = [{"data": {"source": "x.csv", "template": text}}]
    file.write_text(yaml.safe_dump({"name": "n", "model": "builtin", "stages": stages}))
    result = CliRunner().invoke(main, ["config", "show", str(file)])
    assert result.exit_code == 0, result.output
    assert not ACTING.search(result.output)
    assert ESCAPED not in result.output
    assert yaml.safe_load(result.output)["stages"][0]["data"]["template"] == text


# Commands.


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", HOSTILE],
        [HOSTILE],
        ["show", f"--{HOSTILE}"],
        ["analyze", "grad-angle", "--by", HOSTILE],
        ["data", "show", HOSTILE],
        ["config", "show", "demo", "--arm", HOSTILE],
        ["train", f"{HOSTILE}.yaml", "--dry-run"],
        ["sweep", HOSTILE],
        ["train", "demo", "--set", f"name={HOSTILE}"],
    ],
    ids=str,
)
def test_an_argument_is_told_of_without_its_controls(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments, color=True)
    assert result.exit_code == 2
    assert ESCAPED in result.output or "\\x1b" in result.output  # as click writes arguments
    assert not ACTING.search(result.output)


def test_a_fault_is_told_of_without_controls(tmp_path: Path) -> None:
    """A traceback comes after all else; Python prints it."""
    code = f"""
import geomix.cli, geomix.__main__ as program
def faulty(**options): raise RuntimeError({HOSTILE!r})
program.main = faulty
program.run()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert f"RuntimeError: a{ESCAPED}]52" in done.stderr.decode()
    assert not ACTING.search(done.stderr.decode())


def test_a_command_of_anyone_is_screened() -> None:
    @click.command()
    def foreign() -> None:
        print(HOSTILE)

    group = _OneLineErrors()
    group.add_command(foreign)
    assert f"a{ESCAPED}]52" in CliRunner().invoke(group, ["foreign"]).output


@pytest.mark.parametrize("as_json", [False, True])
def test_a_foreign_run_shows_no_controls(tmp_path: Path, as_json: bool) -> None:
    run = Run(tmp_path / "run")
    stages = [{"data": {"source": "kvr", "limit": 3}, "stop": {"epochs": 1}}]
    config = RunConfig.model_validate({"model": "builtin", "stages": stages}).model_dump(
        mode="json"
    )
    config |= {"name": HOSTILE, "model": HOSTILE}
    config["stages"][0]["data"]["source"] = HOSTILE
    resolved = {"hash": HOSTILE, "config": config}
    with run.writing():
        run.resolved_file.write_text(json.dumps(resolved))
        run.base_file.write_text(json.dumps({"name": HOSTILE, "hash": HOSTILE}))
    run.set_status(HOSTILE, why=HOSTILE)
    line = {"event": "evaluation", "moment": "end", "stage": 0, "step": 1, "set": HOSTILE}
    line |= {"n": 1, "exact_match": 50.0, "loss": 0.5}
    run.metrics_file.write_text(json.dumps(line) + "\n")
    (run.path / f"f{HOSTILE}").write_text("")
    options = ["--json"] if as_json else []
    result = CliRunner().invoke(main, ["show", str(run.path), *options], color=True)
    assert result.exit_code == 0, result.output
    assert not ACTING.search(result.output)
    if as_json:
        assert json.loads(result.output)["status"]["state"] == HOSTILE
    else:
        assert ESCAPED in result.output


def test_a_console_writes_into_its_file_inside_jupyter_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    into = io.StringIO()
    Console(file=into, width=60).print("a report")
    assert into.getvalue() == "a report\n"
