"""Requests to end: noted if there is something to save, immediate if there is nothing."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from geomix.cli import main
from geomix.util.errors import Interrupted
from geomix.util.signals import EXIT, asked_to_end, ending_at_once


def go_on_after(number: int) -> None:
    os.kill(os.getpid(), number)
    pytest.fail("went on")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_ends_a_block_that_has_nothing_to_save(number: int) -> None:
    with asked_to_end() as stop:
        with pytest.raises(Interrupted), ending_at_once():
            go_on_after(number)
        assert stop()
        with pytest.raises(Interrupted), ending_at_once():
            pytest.fail("began, though the process had been asked to end")
    with asked_to_end() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()


def test_a_ctrl_c_of_nobody_who_saves_stays_one() -> None:
    with pytest.raises(KeyboardInterrupt), ending_at_once():
        raise KeyboardInterrupt


def test_a_load_that_does_not_end_is_ended_before_a_run_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a library catches: here a loop that takes every exception for its own."""

    def very_long(*arguments: object, **keys: object) -> None:
        for _ in range(100):
            with suppress(Exception):
                os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", very_long)
    done = CliRunner().invoke(main, ["train", "demo", "--out", "run", "--quiet"])
    assert (done.exit_code, done.stderr) == (EXIT, "geomix: nothing was begun\n")
    assert not (tmp_path / "run").exists()
