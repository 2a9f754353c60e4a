"""The theory's scorecard: `study.py run` trains and measures what is missing, run by run.

Of each run the tables stay, and the weights within stages go: 20 runs would hold 30 GB.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from geomix.api import analyze, open_run

HERE = Path(__file__).resolve().parent
RUNS = Path("runs/theory-scorecard")
SEEDS = range(10)
GEOMIX = Path(sys.executable).with_name("geomix")
SECOND: dict[str, dict[str, Any]] = {
    "triples": {"source": "triples", "limit": 30},
    "arithmetic": {"source": "arithmetic", "limit": 30},
}
"""Examples of D_B."""

WORDS = {"source": "random-words", "ratio": 2, "words": 20}
LONG = WORDS | {"words": 60}
PROSE = {"source": "prose", "ratio": 2, "words": 20}
REPLAY_STEPS = 80
"""Steps of stage 2 with a replay of 5 facts: 35 examples, 4 batches, 20 epochs."""

ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("plain", {}),
    "words": ("words", {"stages.0.mix": WORDS}),
    "long": ("long", {"stages.0.mix": LONG}),
    "words-control": ("words-control", {"stages.0.mix": WORDS | {"passage_free": True}}),
    "long-control": ("long-control", {"stages.0.mix": LONG | {"passage_free": True}}),
    "prose": ("plain", {"stages.1.mix": PROSE}),
    "prose-control": ("plain", {"stages.1.mix": PROSE | {"passage_free": True}}),
    "replay": ("plain", {"stages.1.replay": 0.1}),
    "replay-control": ("plain", {"stages.1.stop": {"steps": REPLAY_STEPS}}),
}
"""Arm → the first stage that it starts from, and what is its own."""

TABLES = {
    "delta2_seeds": "delta2_seeds.csv",
    "delta2_condition": "delta2_condition.csv",
    "forgetting": "forgetting_stage1.csv",
    "forgetting_contrasts": "forgetting_stage1_contrasts.csv",
    "curvature": "curvature.csv",
}
"""Table of the study → the file in a run's analysis folder."""


def folder_of(seed: int, second: str) -> Path:
    """Return the run of one seed and D_B, with all arms."""
    return RUNS / second / f"seed-{seed}"


def run(seeds: Sequence[int], jobs: int) -> None:
    """Train first stages, then train and measure each run, as many at once as `jobs`."""
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(_first, seeds))
        list(pool.map(lambda one: _one(*one), [(s, d_b) for d_b in SECOND for s in seeds]))


def _first(seed: int) -> None:
    config = yaml.safe_load((HERE / "first.yaml").read_text(encoding="utf-8"))
    _train(RUNS / "first" / f"seed-{seed}", config, seed)


def _one(seed: int, second: str) -> None:
    folder = folder_of(seed, second)
    if (folder / "measured").exists():
        return
    config = yaml.safe_load((HERE / "second.yaml").read_text(encoding="utf-8"))
    config["stages"][1]["data"] = SECOND[second]
    config["arms"] = {}
    for arm, (first, own) in ARMS.items():
        theirs = RUNS / "first" / f"seed-{seed}" / "arms" / first
        config["arms"][arm] = {"stages.0.from": str(theirs.resolve())} | own
    _train(folder, config, seed)
    for analysis in (
        ["delta2"],
        ["forgetting", "--expansions", "16", "--segments", "20"],
        ["curvature"],
    ):
        _call(["analyze", analysis[0], folder, *analysis[1:]], folder)
    for kept in folder.glob("arms/*/stages/*/weights"):
        shutil.rmtree(kept)
    (folder / "measured").touch()


def _train(folder: Path, config: dict[str, Any], seed: int) -> None:
    if not folder.is_dir():
        file = folder.with_suffix(".yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(config | {"seed": seed}, sort_keys=False), encoding="utf-8")
        _call(["train", "--quiet", file, "--out", folder], folder)
    elif open_run(folder).status()["state"] != "done":
        _call(["train", "--quiet", "--resume", folder], folder)


def _call(words: Sequence[str | Path], folder: Path) -> None:
    with folder.with_suffix(".log").open("ab") as log:
        one = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([GEOMIX, *words], check=True, stdout=log, stderr=log, env=one)


def collect() -> None:
    """Write the study's tables beside this file, from the runs that are measured."""
    done = [(s, d) for d in SECOND for s in SEEDS if (folder_of(s, d) / "measured").exists()]
    for name, file in TABLES.items():
        rows: list[dict[str, Any]] = []
        for seed, second in done:
            with (folder_of(seed, second) / "analysis" / file).open(encoding="utf-8") as lines:
                found = list(csv.DictReader(lines))
            rows += [{"d_b": second, "seed": seed} | _without(row) for row in found]
        _write(HERE / f"{name}.csv", rows)
        if name == "forgetting_contrasts":
            _write(HERE / "factors.csv", list(_factors(rows)))
    _write(HERE / "retention.csv", list(_ends(done)))
    for second in SECOND:
        _scorecard(second, [folder_of(seed, one) for seed, one in done if one == second])
    print(f"{len(done)} of {len(SECOND) * len(SEEDS)} runs are measured")


def _scorecard(second: str, runs: Sequence[Path]) -> None:
    """Score the theory's claims over the runs of one D_B; two runs at least have an interval."""
    if len(runs) < 2:
        return
    found = analyze.theory(runs, smallest=0.05, smallest_share=0.1, planned=len(SEEDS))
    _write(HERE / f"scorecard-{second}.csv", found.tables[""].to_dict("records"))
    found.figures[""].save(HERE / f"scorecard-{second}.svg")


def _factors(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the whole path's parts of each contrast in nats, one row per factor."""
    for row in rows:
        if row["segment"] == "sum" and row["form"] == "Shapley, nats":
            at = {key: row[key] for key in ("d_b", "seed", "contrast", "partition", "fails")}
            for factor in ("norm", "cosine", "length", "total"):
                yield at | {"factor": factor, "value": row[factor]}


def _without(row: dict[str, str]) -> dict[str, str]:
    """Return a row without the keys that name the machine's folders."""
    return {key: value for key, value in row.items() if key not in ("seed", "run", "d_b")}


def _ends(done: Sequence[tuple[int, str]]) -> Iterator[dict[str, Any]]:
    """Yield scores at the end of each stage, one row per seed, arm and set."""
    for seed, second in done:
        for row in open_run(folder_of(seed, second)).retention().to_dict("records"):
            if row["checkpoint"] != "θ_0" and row["set"] in ("D_A", "D_B"):
                yield {"d_b": second, "seed": seed} | row


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        table.writeheader()
        table.writerows(rows)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    running = commands.add_parser("run")
    running.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    running.add_argument("--jobs", type=int, default=2)
    commands.add_parser("collect")
    asked = parser.parse_args()
    if asked.what == "run":
        run(asked.seeds, asked.jobs)
    collect()


if __name__ == "__main__":
    main()
