"""Requests to end: noted if there is something to save, immediate if there is nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_a_load_that_does_not_end_is_ended_before_a_run_is_begun(tmp_path: Path) -> None:
    """Whatever a library catches: here a loop that takes every exception for its own."""
    code = """
import os, signal, sys
from transformers import AutoModelForCausalLM

def forever(*_, **__):
    while True:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Exception:
            pass

AutoModelForCausalLM.from_pretrained = forever
from geomix.__main__ import run
sys.argv = ["geomix", "train", "demo", "--out", "run", "--quiet"]
run()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert (done.returncode, done.stderr) == (EXIT, "geomix: nothing was begun\n")
    assert not (tmp_path / "run").exists()
