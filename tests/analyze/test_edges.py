"""`geomix analyze grad-angle` where a disk is full, a terminal old or a file broken."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geomix.analyze.angle_measure import measure
from geomix.analyze.angle_notes import notes
from geomix.analyze.angle_sources import Asked
from geomix.analyze.grad_angle import command
from geomix.errors import UserError
from geomix.run import Run

Make = Callable[..., Any]


def test_arms_of_several_seeds_are_not_called_one_seed(
    tmp_path: Path, random_gradients: Make, write_arm: Make, write_run: Make
) -> None:
    run = write_run(tmp_path, ["one", "two"])
    for seed, arm in enumerate(("one", "two")):
        write_arm(run.path / "arms" / arm, random_gradients(), sets=("D_A", "D_B"))
        write_run(run.path / "arms" / arm, seed=seed)
    said = notes(measure([run], Asked()))
    assert not any(line.startswith("One seed") for line in said)
    assert any(line.startswith("Arms of 2 seeds, one run each: no interval") for line in said)
    assert (
        "No held-out set was recorded (a file that has no rows left over has none): "
        "nothing to read D_A's cosines against."
    ) in said


def test_an_ascii_terminal_gets_the_json(
    tmp_path: Path, random_gradients: Make, write_arm: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_arm(tmp_path, random_gradients())
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stdout)
    command([Run(tmp_path)], Asked(), as_json=True)
    stdout.seek(0)
    assert json.loads(stdout.read())["rows"][0]["moment"] == "θ_0"


@pytest.mark.parametrize("text", ['{"D_A": {"n": 1e999, "of": 2}}', "[" * 100000, '{"D_A": 3}'])
def test_a_broken_list_of_probes_is_one_line(
    tmp_path: Path, random_gradients: Make, write_arm: Make, text: str
) -> None:
    write_arm(tmp_path, random_gradients())
    Run(tmp_path).probes_file.write_text(text)
    with pytest.raises(UserError, match=r"probes\.json: cannot be read") as caught:
        measure([Run(tmp_path)], Asked())
    assert len(caught.value.lines) == 1


def test_a_full_disk_while_saving_is_an_error_of_python(
    tmp_path: Path, random_gradients: Make, write_arm: Make
) -> None:
    """In a process of its own: HDF5 would take the whole process down."""
    write_arm(tmp_path, random_gradients())
    code = """
import resource, sys
from pathlib import Path
from geomix.analyze.angle_files import save
from geomix.analyze.angle_measure import measure
from geomix.run import Run
run = Run(Path(sys.argv[1]))
result = measure([run])
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
try:
    save(result, [], run.analysis_folder)
except OSError as error:
    print(error.filename)
"""
    writer = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(writer, capture_output=True, text=True, check=False)
    file = tmp_path / "analysis" / "grad_angle.h5"
    assert (done.returncode, done.stdout.strip()) == (0, str(file)), done.stderr
    assert list(file.parent.iterdir()) == []
