"""Speed of the engine's training, against a bare loop over its own rows and against its peers.

Each contender trains the built-in model in a process of its own, on one thread, on the same facts
with the same optimiser; they take turns, in an order that is turned round every time. Counted are
real tokens, those of prompts and targets and not padding, a second of the process's CPU time.

- `bare`: forward, backward, clip and fused AdamW over the rows that the engine packs, all collated
  beforehand: the ceiling.
- `geomix`: a run as `geomix train` makes it, defaults throughout but `record: null`: tokenising,
  packing, metrics, the live display, retention after every epoch, the stage's checkpoint. Its
  second row leaves out the CPU time of the measurements of retention, in the same run.
- `trainer`: transformers' Trainer, each batch padded to its longest, the engine's own batches. Its
  losses must be the engine's, step by step.
- `trainer grouped`: with `train_sampling_strategy="group_by_length"`, so batches of its own.
- `trl`: TRL's SFTTrainer in float32, else at its defaults (it recomputes activations), batches
  drawn by itself; `trl kept`: without recomputing; `trl packed`: the same with `packing=True`: rows
  of the model's full length, as many a step as hold about a batch's worth of tokens.

Trainer's and SFTTrainer's rows are tokenised before the clock starts, the engine's after it.

`python benchmarks/train.py` prints both tables; `--quick` takes a small job and one turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONTENDERS = ("bare", "geomix", "trainer", "trainer grouped", "trl", "trl kept", "trl packed")
SAME_BATCHES = ("bare", "geomix", "trainer")
"""The others draw their own batches. All but geomix train the first epochs only: a speed needs no
more, while what geomix does at a stage's boundaries belongs to the whole of it."""
SAME = 1e-4  # of the loss: far above float32's noise, far below another training
STEPS = 20  # the first ones, over which that is asked: a high rate lets rounding grow
ROUNDS = 3

FULL = (
    {"facts": 2000, "mixed": False, "epochs": 20, "timed": 2, "lr": 5e-5},
    {"facts": 2000, "mixed": False, "epochs": 20, "timed": 2, "lr": 2e-3},
    {"facts": 100, "mixed": True, "epochs": 20, "timed": 2, "lr": 2e-3},
)
"""The paper's first stage at the default learning rate, at which so small a model learns next to
nothing, and at one that memorises; then with random words mixed in."""

QUICK = (
    {"facts": 128, "mixed": False, "epochs": 4, "timed": 2, "lr": 5e-5},
    {"facts": 8, "mixed": True, "epochs": 2, "timed": 1, "lr": 2e-3},
)
WARM = {"facts": 16, "mixed": False, "epochs": 1, "timed": 1, "lr": 5e-5}


class Process:
    """A contender in its own process.

    Attributes:
        absent: the packages for want of which it does not run.
    """

    def __init__(self, name: str) -> None:
        script = Path(__file__).with_name("train_contenders.py")
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [sys.executable, script, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        self.absent: list[str] = self.answer()

    def ask(self, job: dict[str, Any]) -> None:
        """Begin a job."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Wait for what the process says next."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise SystemExit(self._errors.read())
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._errors.close()


Found = dict[str, list[dict[str, Any]]]
"""Measurements of each contender, turn by turn."""


def turns(names: Sequence[str], job: dict[str, Any], rounds: int) -> Found:
    """Let the contenders take turns; every second round goes backwards."""
    processes = {name: Process(name) for name in names}
    for name, process in list(processes.items()):
        if process.absent:
            print(f"absent: {name} (pip install --group bench: {', '.join(process.absent)})")
            processes.pop(name).close()
    for process in processes.values():
        process.ask(WARM)
    for process in processes.values():
        process.answer()
    found: Found = {name: [] for name in processes}
    for number in range(rounds):
        for name in found if number % 2 == 0 else reversed(found):
            processes[name].ask(job)
            found[name].append(processes[name].answer())
    for process in processes.values():
        process.close()
    return found


def speeds(found: Found) -> dict[str, list[float]]:
    """Real tokens a CPU second of each row of the table, round by round."""
    table: dict[str, list[float]] = {}
    for name, runs in found.items():
        table[name] = [run["tokens"] / run["cpu"] for run in runs]
        if name == "geomix":
            trained = [run["tokens"] / (run["cpu"] - run["evaluating"]) for run in runs]
            table["  without retention"] = trained
    return table


def middle(values: Sequence[float]) -> str:
    """Median, and from the least to the greatest."""
    return f"{statistics.median(values):5.2f} ({min(values):.2f}–{max(values):.2f})"


def show(job: dict[str, Any], found: Found) -> None:
    first, whole = found["bare"][0], found["geomix"][0]
    mix = ", 2:1 random-words" if job["mixed"] else ""
    print(
        f"\n{job['facts']} KVR facts{mix}, lr {job['lr']:g}, {job['epochs']} epochs, "
        f"{whole['steps']} steps, exact match in the end {whole['exact']:.0f} %, "
        f"{whole['tokens']} real tokens, of which all but geomix train {first['tokens']}; "
        f"{len(found['bare'])} turn(s); medians, and from the least to the greatest of the turns"
    )
    print(f"{'':20} {'tokens/CPU s':>12} {'/wall s':>8}  {'x bare':18} {'x trainer':18} peak MiB")
    table = speeds(found)
    for name, values in table.items():
        runs = found.get(name, [])
        columns = [
            middle([one / other for one, other in zip(values, table[to], strict=True)])
            if to in table
            else ""
            for to in ("bare", "trainer")
        ]
        wall = f"{statistics.median(r['tokens'] / r['wall'] for r in runs):8.0f}" if runs else ""
        peak = f"{max(run['peak'] for run in runs):8.0f}" if runs else ""
        print(
            f"{name:20} {statistics.median(values):12.0f} {wall:>8}  "
            f"{columns[0]:18} {columns[1]:18} {peak}"
        )
    for name in [name for name in SAME_BATCHES[1:] if name in found]:
        pairs = list(zip(found[name][0]["losses"], first["losses"], strict=False))[:STEPS]
        apart = max(abs(one - other) / other for one, other in pairs)
        assert apart < SAME, f"{name} is another training: losses {apart:.1e} apart"
        print(f"losses of {name} and bare: at most {apart:.1e} apart in {len(pairs)} steps")
    runs = found["geomix"]
    share = statistics.median(run["evaluating"] / run["cpu"] for run in runs)
    print(f"geomix spends {share:.0%} of its CPU time on retention")


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast the engine trains.")
    parser.add_argument("--quick", action="store_true", help="small jobs, one turn")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, help="besides bare and geomix")
    parser.add_argument("--job", type=int, help="only this table, from 0")
    asked = parser.parse_args()
    wanted = ("bare", "geomix", *(asked.only or CONTENDERS))
    names = [name for name in CONTENDERS if name in wanted]
    print(f"one thread a process; load of the machine before: {os.getloadavg()[0]:.1f}")
    jobs = QUICK if asked.quick else FULL
    for job in [job for n, job in enumerate(jobs) if asked.job in (None, n)]:
        show(job, turns(names, job, 1 if asked.quick else ROUNDS))
    print(f"\nload of the machine after: {os.getloadavg()[0]:.1f} (1.0 is this script alone)")


if __name__ == "__main__":
    main()
