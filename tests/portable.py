"""The tests as on other processors, with other threads and other seeds.

`python tests/portable.py [FILE]...` runs all tests, or those files, under each of `SETTINGS`, and
says of each how many passed and failed; the exit status is 1 where any failed. What a test asserts
must hold whatever way rounding and seeds turn a training: ATen's and oneDNN's kernels are those of
processors with fewer instructions, sums are cut among threads, and `GEOMIX_SEED_SHIFT` (read in
`conftest.py`) draws other weights.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence

Setting = dict[str, str]

SETTINGS: list[Setting] = [
    {
        "ATEN_CPU_CAPABILITY": aten,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "OMP_NUM_THREADS": threads,
        "GEOMIX_SEED_SHIFT": shift,
    }
    for aten, onednn, threads, shift in (
        ("default", "SSE41", "1", "1"),
        ("default", "AVX2", "2", "2"),
        ("avx2", "SSE41", "2", "2"),
        ("avx2", "AVX2", "1", "1"),
    )
]
"""Every value with every other one of another column, but for threads and seeds."""

RUN = ["--numprocesses", "auto", "--maxprocesses", "4", "--dist", "loadfile"]
RUN += ["--no-loadscope-reorder"]  # `conftest.py` has put the longest files first


def main(arguments: Sequence[str]) -> int:
    """Run all settings; 1 where a test failed under any."""
    failed = False
    for setting in SETTINGS:
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--color=no", *RUN, *arguments],
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **setting},
            check=False,
            stdout=subprocess.PIPE,
            text=True,
        )
        lines = done.stdout.splitlines()
        found = [line for line in lines if re.match(r"(FAILED|ERROR) ", line)]
        words = [f"{name}={value}" for name, value in setting.items()]
        seconds = time.monotonic() - start
        print(f"{' '.join(words)}: {lines[-1] if lines else 'nothing ran'} ({seconds:.0f} s)")
        print("".join(f"    {line}\n" for line in found), end="", flush=True)
        failed |= done.returncode != 0
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
