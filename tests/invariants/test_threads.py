"""Threads that wait sleep, unless a user says otherwise; what is computed stays the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from geomix.util import threads

RUN = """model: builtin
stages:
  - data: {source: kvr, limit: 8}
    stop: {steps: 3}
record: null
evaluate: {epochs: 0}
"""
SPINNING = {"GOMP_SPINCOUNT": "20000"}  # for some tenths of a millisecond


def environment(**own: str) -> dict[str, str]:
    """Two threads, and of the settings of waiting threads only those given."""
    kept = {name: value for name, value in os.environ.items() if name not in threads.OWN}
    here = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**kept, "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path, **own}


def python(folder: Path, *arguments: str, **own: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(**own),
        check=True,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="torch has another OpenMP runtime there")
def test_no_bit_depends_on_how_threads_wait_nor_on_how_strings_hash(tmp_path: Path) -> None:
    """As geomix starts and with a user's setting; the runtime itself says which one it has."""
    (tmp_path / "run.yaml").write_text(RUN)
    said = {}
    for name, own in (
        ("sleep", {"PYTHONHASHSEED": "0"}),
        ("spin", {"PYTHONHASHSEED": "1", **SPINNING}),
    ):
        train = ("-m", "geomix", "train", "run.yaml", "--quiet", "--out", name)
        said[name] = python(tmp_path, *train, OMP_DISPLAY_ENV="VERBOSE", **own).stderr
    assert "GOMP_SPINCOUNT = '0'" in said["sleep"]
    assert "GOMP_SPINCOUNT = '20000'" in said["spin"]
    assert all("OMP_NUM_THREADS = '2'" in text for text in said.values())
    one, other = (
        tmp_path / name / "stages/0-kvr/checkpoints/final/model.safetensors" for name in said
    )
    assert load_file(one).keys() == load_file(other).keys()
    assert one.read_bytes() == other.read_bytes()
    lines = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in said]
    assert lines[0] == lines[1]


@pytest.mark.parametrize(
    "started", ["geomix", "geomix.__main__", "geomix.cli", "geomix.runs.directory"]
)
def test_whatever_is_imported_first_the_setting_comes_before_torch(
    tmp_path: Path, started: str
) -> None:
    program = (
        f"import sys, os, {started}; assert 'torch' not in sys.modules; "
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    assert python(tmp_path, "-c", program).stdout == "PASSIVE\n"


@pytest.mark.parametrize("name", threads.OWN)
def test_a_users_own_setting_wins(tmp_path: Path, name: str) -> None:
    program = f"import os, geomix; print([os.environ.get(n) for n in {threads.OWN}])"
    expected = [("ACTIVE" if own == name else None) for own in threads.OWN]
    assert python(tmp_path, "-c", program, **{name: "ACTIVE"}).stdout == f"{expected}\n"


def test_where_torch_is_loaded_nothing_is_changed_or_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in threads.OWN:
        monkeypatch.delenv(name, raising=False)
    assert "torch" in sys.modules
    threads.let_waiting_threads_sleep()
    assert not any(name in os.environ for name in threads.OWN)
    assert capfd.readouterr() == ("", "")
