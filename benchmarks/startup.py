"""Response time of the command line, against a bare interpreter in the same run.

Prints the median wall time of `geomix --help`, of `import geomix`, of `python -c pass`, and of the
refusal of a configuration with ten mistakes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 9
BROKEN = """modle: x
seed: yes
stages:
  - data: {source: kvrr, limit: 0}
    mix: {source: random-words, ratoi: 2}
    stop: {epochs: 0}
train: {lr: fast, pack: no}
arms: {one: {stages.0.mix.words: 0}, two: {seed: -1}}
"""
REFUSED = "geomix train broken.yaml"
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


def seconds(command: list[str], status: int) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True)
    elapsed = time.perf_counter() - start
    assert done.returncode == status, done.stderr.decode()
    return elapsed


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    (folder / "broken.yaml").write_text(BROKEN)
    COMMANDS[REFUSED] = [*COMMANDS["geomix --help"][:1], "train", str(folder / "broken.yaml")]
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):  # in turn, so that a slow spell of the machine meets all of them
        for name, command in COMMANDS.items():
            times[name].append(seconds(command, 2 if name == REFUSED else 0))
    bare = statistics.median(times["python -c pass"])
    print(f"{'command':25} {'median s':>9} {'x bare':>7}   (of {RUNS} runs)")
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:25} {median:9.3f} {median / bare:7.1f}")


if __name__ == "__main__":
    main()
