"""How soon the command line answers, against a bare interpreter in the same run.

Prints the median wall time of `geomix --help`, of `import geomix` and of `python -c pass`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 9
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import geomix": [sys.executable, "-c", "import geomix"],
    "geomix --help": [str(Path(sys.executable).with_name("geomix")), "--help"],
    "geomix train --dry-run": [
        str(Path(sys.executable).with_name("geomix")),
        "train",
        "--dry-run",
    ],
}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):  # in turn, so that a slow spell of the machine meets all of them
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    bare = statistics.median(times["python -c pass"])
    print(f"{'command':24} {'median s':>9} {'x bare':>7}   (of {RUNS} runs)")
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:24} {median:9.3f} {median / bare:7.1f}")


if __name__ == "__main__":
    main()
