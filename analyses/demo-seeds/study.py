"""The demo over five seeds.

`study.py run` trains what is missing and writes `retention.csv`; `study.py table` prints that.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path

from geomix.api import Run, open_run

HERE = Path(__file__).resolve().parent
TABLE = HERE / "retention.csv"
RUNS = Path("runs/demo-seeds")
SEEDS = range(5)
ARMS = ("plain", "mixed", "control")
COLUMNS = ("D_A after stage 1", "D_A after stage 2", "D_B after stage 2")


def run() -> None:
    """Train each seed that is not done yet, and write the table beside this file."""
    geomix = Path(sys.executable).with_name("geomix")
    for seed in SEEDS:
        folder = RUNS / f"seed-{seed}"
        if folder.is_dir():
            if open_run(folder).status()["state"] == "done":
                continue
            sys.exit(f"{folder}: not finished; remove it and start again")
        overrides = ["--set", f"seed={seed}", "--set", "record=null", "--set", "evaluate.epochs=0"]
        subprocess.run([geomix, "train", "--out", folder, *overrides], check=True)
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["seed", "arm", *COLUMNS])
        for seed in SEEDS:
            for arm in open_run(RUNS / f"seed-{seed}").arms:
                rows.writerow([seed, arm.name, *scores(arm)])


def scores(arm: Run) -> list[float]:
    """Exact match, 0–100, in the order of `COLUMNS`."""
    ends = {
        (line["stage"], line["set"]): float(line["exact_match"])
        for line in arm.metrics()
        if line["event"] == "evaluation" and line["moment"] == "end"
    }
    return [ends[0, "D_A"], ends[1, "D_A"], ends[1, "D_B"]]


def table() -> None:
    """Print the table; `geomix study verdict` judges the differences between its arms."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        found = {
            (int(row["seed"]), row["arm"]): [float(row[column]) for column in COLUMNS]
            for row in csv.DictReader(file)
        }
    print(f"{'exact match, %':10} " + "  ".join(f"{column:>18}" for column in COLUMNS))
    for arm in ARMS:
        values = [found[seed, arm] for seed in SEEDS]
        cells = [" ".join(f"{v[i]:3.0f}" for v in values) for i in range(len(COLUMNS))]
        print(f"{arm:14} " + "  ".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["run", "table"], nargs="?", default="table")
    if parser.parse_args().what == "run":
        run()
    table()
