"""The theory's scorecard: `study.py run` trains and measures what is missing, run by run.

Of each run the tables stay, in `measured/` beside this file, and the weights within stages go: 20
runs would hold 30 GB. A run whose tables are there is done, on whatever machine it was made.
"""

from __future__ import annotations

import argparse
import csv
import json
import lzma
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from geomix.analysis.theory.claims import scorecard
from geomix.analysis.theory.scores import Rules
from geomix.analysis.theory.sources import Written
from geomix.api import open_run
from geomix.figures.scorecard import draw
from geomix.figures.style import style
from geomix.measures.verdict import Rule

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

MEASURED = ("delta2", "forgetting_stage1", "curvature")
"""Files of a run's analysis folder whose tables stay."""

TABLES = {
    "delta2_seeds": "delta2_seeds",
    "delta2_condition": "delta2_condition",
    "forgetting": "forgetting_stage1",
    "forgetting_contrasts": "forgetting_stage1_contrasts",
    "curvature": "curvature",
}
"""Table of the study → the analysis's table."""

Row = dict[str, Any]


def folder_of(seed: int, second: str) -> Path:
    """Return the run of one seed and D_B, with all arms."""
    return RUNS / second / f"seed-{seed}"


def kept_of(seed: int, second: str) -> Path:
    """Return the file beside this one that has all tables of a run; with it, a run is done."""
    return HERE / "measured" / f"{second}-seed-{seed}.json.xz"


def run(seeds: Sequence[int], jobs: int) -> None:
    """Train first stages, then train and measure each run, as many at once as `jobs`."""
    missing = [s for s in seeds if not all(kept_of(s, second).exists() for second in SECOND)]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(_first, missing))
        list(pool.map(lambda one: _one(*one), [(s, d_b) for d_b in SECOND for s in seeds]))


def _first(seed: int) -> None:
    config = yaml.safe_load((HERE / "first.yaml").read_text(encoding="utf-8"))
    _train(RUNS / "first" / f"seed-{seed}", config, seed)


def _one(seed: int, second: str) -> None:
    folder = folder_of(seed, second)
    if kept_of(seed, second).exists():
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
    _keep(seed, second)
    for weights in folder.glob("arms/*/stages/*/weights"):
        shutil.rmtree(weights)


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


def _keep(seed: int, second: str) -> None:
    """Write all tables of a run that is measured, and its scores, into one file."""
    run = open_run(folder_of(seed, second))
    tables: dict[str, list[Row]] = {}
    for name in MEASURED:
        file = run.analysis_folder / f"{name}.json"
        for ending, rows in json.loads(file.read_text(encoding="utf-8"))["tables"].items():
            key = name if ending in (name, name.split("_")[0]) else f"{name}_{ending}"
            tables[key] = [_without(row) for row in rows]
    tables["retention"] = [
        row
        for row in run.retention().to_dict("records")
        if row["checkpoint"] != "θ_0" and row["set"] in ("D_A", "D_B")
    ]
    file = kept_of(seed, second)
    file.parent.mkdir(exist_ok=True)
    text = json.dumps(tables, ensure_ascii=False, sort_keys=True)
    file.write_bytes(lzma.compress(text.encode(), preset=9))


def collect() -> None:
    """Write the study's tables beside this file, from the runs that are measured."""
    done = [(s, d) for d in SECOND for s in SEEDS if kept_of(s, d).exists()]
    read = {one: json.loads(lzma.decompress(kept_of(*one).read_bytes())) for one in done}

    def rows_of(name: str) -> list[Row]:
        return [{"d_b": d, "seed": s} | row for s, d in done for row in read[s, d][name]]

    for name, table in TABLES.items():
        _write(HERE / f"{name}.csv", rows_of(table))
    _write(HERE / "factors.csv", list(_factors(rows_of("forgetting_stage1_contrasts"))))
    _write(HERE / "retention.csv", rows_of("retention"))
    for second in SECOND:
        _scorecard(second, {s: read[s, d] for s, d in done if d == second})
    print(f"{len(done)} of {len(SECOND) * len(SEEDS)} runs are measured")


def _scorecard(second: str, seeds: Mapping[int, Mapping[str, Sequence[Row]]]) -> None:
    """Score the theory's claims over the runs of one D_B; two runs at least have an interval."""
    if len(seeds) < 2:
        return
    tables: dict[tuple[str, str], list[Row]] = {}
    for seed, found in seeds.items():
        for name, rows in found.items():
            analysis = next((one for one in MEASURED if name.startswith(one)), None)
            if analysis is not None:
                key = (analysis.split("_")[0], name.removeprefix(analysis).lstrip("_"))
                tables.setdefault(key, []).extend({"seed": seed} | row for row in rows)
    rules = Rules(Rule(0.05, len(SEEDS)), Rule(0.1, len(SEEDS)))
    scores = [asdict(one) for one in scorecard(Written(tables, ()), rules)]
    _write(HERE / f"scorecard-{second}.csv", scores)
    with style():
        draw(scores).savefig(HERE / f"scorecard-{second}.svg", metadata={"Date": None})


def _factors(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield the whole path's parts of each contrast in nats, one row per factor."""
    for row in rows:
        if row["segment"] == "sum" and row["form"] == "Shapley, nats":
            at = {key: row[key] for key in ("d_b", "seed", "contrast", "partition", "fails")}
            for factor in ("norm", "cosine", "length", "total"):
                yield at | {"factor": factor, "value": row[factor]}


def _without(row: Row) -> Row:
    """Return a row without the keys that name the machine's folders."""
    return {key: value for key, value in row.items() if key not in ("seed", "run", "d_b")}


def _write(path: Path, rows: Sequence[Row]) -> None:
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
