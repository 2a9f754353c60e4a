"""Figure 3, measured: `study.py train` trains what is missing, `measure` measures, then `verdict`.

What is measured goes into `angles-*.csv`, `retention.csv` and the figures beside this file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from judged import verdicts
from measured import measure_adam, measure_all

from geomix.api import open_run

HERE = Path(__file__).resolve().parent
RUNS = Path("runs/figure3-angles")
SEEDS = range(10)
SECOND: dict[str, dict[str, Any]] = {
    "id-kvr": {"source": "kvr", "split": "id"},
    "triples": {"source": "triples"},
    "arithmetic": {"source": "arithmetic"},
}
"""Configuration of D_B."""

RANDOM = {"source": "random-words", "ratio": 2, "words": 20}
GENERIC = {"source": "prose", "ratio": 2, "words": 20}
ARMS = (
    *("none/none", "random/none", "none/generic"),
    *("random/generic", "control/none", "none/control"),
)
"""Mixed into stage 1 / into stage 2; `control` is the passage-free one of the other mix."""


def train(seeds: list[int], jobs: int) -> None:
    """Train the first stages of all seeds, then every second stage, as many at once as `jobs`."""
    runs = [(seed, second) for second in SECOND for seed in seeds]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(_first, seeds))
        list(pool.map(lambda run: _second(*run), runs))


def folder_of(seed: int, second: str) -> Path:
    """Return the run of one seed and D_B, with all arms."""
    return RUNS / second / f"seed-{seed}"


def _first(seed: int) -> None:
    config = yaml.safe_load((HERE / "first.yaml").read_text(encoding="utf-8"))
    _train(RUNS / "first" / f"seed-{seed}", config, seed)


def _second(seed: int, second: str) -> None:
    config = yaml.safe_load((HERE / "second.yaml").read_text(encoding="utf-8"))
    config["stages"][1]["data"] |= SECOND[second]
    config["arms"] = {arm.replace("/", "-"): _arm(seed, *arm.split("/")) for arm in ARMS}
    _train(folder_of(seed, second), config, seed)


def _arm(seed: int, first: str, then: str) -> dict[str, Any]:
    theirs = RUNS / "first" / f"seed-{seed}" / "arms" / first
    found: dict[str, Any] = {"stages.0.from": str(theirs.resolve())}
    for stage, name, mix in ((0, first, RANDOM), (1, then, GENERIC)):
        if name != "none":
            found[f"stages.{stage}.mix"] = mix | {"passage_free": name == "control"}
    return found


def _train(folder: Path, config: dict[str, Any], seed: int) -> None:
    command: list[str | Path] = [Path(sys.executable).with_name("geomix"), "train", "--quiet"]
    if not folder.is_dir():
        file = folder.with_suffix(".yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(config | {"seed": seed}, sort_keys=False), encoding="utf-8")
        command += [file, "--out", folder]
    elif open_run(folder).status()["state"] == "done":
        return
    else:
        command += ["--resume", folder]
    with folder.with_suffix(".log").open("ab") as log:
        one = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, stdout=log, stderr=log, env=one)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    training = commands.add_parser("train")
    training.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    training.add_argument("--jobs", type=int, default=2)
    measuring = commands.add_parser("measure")
    measuring.add_argument("second", choices=list(SECOND), nargs="*", default=list(SECOND))
    measuring.add_argument("--adam", action="store_true", help="in Adam's metric, at θ_A+4")
    commands.add_parser("verdict")
    asked = parser.parse_args()
    if asked.what == "train":
        train(asked.seeds, asked.jobs)
    elif asked.what == "measure":
        for second in asked.second:
            seeds = [seed for seed in SEEDS if is_done(folder_of(seed, second))]
            runs = [open_run(folder_of(seed, second)) for seed in seeds]
            (measure_adam if asked.adam else measure_all)(second, runs, HERE)
    else:
        print(verdicts(HERE, list(SECOND)))


def is_done(folder: Path) -> bool:
    """Return whether a run has ended."""
    return folder.is_dir() and open_run(folder).status()["state"] == "done"


if __name__ == "__main__":
    main()
