"""Repeated recording keeps no memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os, sys
from dataclasses import replace
from pathlib import Path
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.recording.recorder import Recorder
from geomix.training.observer import TrainingEvent
from tests.recording.architectures import ARCHITECTURES

def mebibytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

def examples(n):
    ids = [tuple(2 + (7 * i + j) % 39 for j in range(9 + i % 3)) for i in range(n)]
    return [
        TokenisedExample(row, (IGNORED,) * 6 + row[6:], Example("prompt", "target")) for row in ids
    ]

model = ARCHITECTURES["llama"]()
recorder = Recorder(
    Path(sys.argv[1]),
    {"D_A": examples(24), "D_B": examples(16)},
    at=["every:1"],
    reduction="token",
    batch_size=8,
    pad_id=0,
    lens=True,
    modules=["*.mlp"],
    gradients=True,
    midpoints=True,
)
event = TrainingEvent(model, 0, "kvr", 0, 600, 0, None)
for step in range(1, 501):
    for parameter in model.parameters():
        parameter.data += 1e-6
    recorder.observe(replace(event, step=step))
    if step in (50, 500):
        print(mebibytes())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux for its memory")
def test_five_hundred_snapshots_take_no_more_memory_than_fifty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment,
    )
    early, late = (float(line) for line in done.stdout.split())
    assert len(list(tmp_path.glob("*.h5"))) == 500
    with capsys.disabled():
        print(f"\nresident after 50 snapshots {early:.1f} MiB, after 500 {late:.1f} MiB")
    assert late - early < 4
