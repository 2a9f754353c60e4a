"""Waiting threads and their cost: training beside other busy programs.

torch's threads wait for each other at the end of every parallel loop. By default they spin first,
and beside another program a spinning thread holds the core that the one it waits for needs. Each
setting trains the built-in model in a process of its own; the processes take turns, in an order
that is turned round every time, on a quiet machine and beside one and six busy processes. Printed
are training steps a second, medians over the turns, and their ratios to libgomp's own default on
the quiet machine.

`python benchmarks/threads.py` prints the table; `--quick` takes one short turn. `--demo` runs the
whole demo instead (`geomix train`, then `geomix analyze grad-angle`), quiet and beside one busy
process, with threads that spin as libgomp lets them and as geomix sets them; `--set KEY=VALUE`
makes it another one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
SETTINGS: dict[str, dict[str, str]] = {
    "libgomp's default": {"GOMP_SPINCOUNT": "300000"},  # what it does where nothing is set
    "as geomix starts": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=50000": {"GOMP_SPINCOUNT": "50000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
BUSY = (0, 1, 6)
ROUNDS, SECONDS = 5, 4.0


def environment(setting: dict[str, str]) -> dict[str, str]:
    """Return this process's environment, with OpenMP's variables only as in `setting`."""
    plain = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return {**plain, "TOKENIZERS_PARALLELISM": "false", **setting}


@contextmanager
def busy(number: int) -> Iterator[None]:
    """Keep a number of processes busy counting within the block."""
    counting = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(counting) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def serve() -> None:
    """Train the built-in model; each line that comes in is for how many seconds."""
    import geomix  # noqa: F401, I001 (before torch, as where geomix is started)
    import torch
    from geomix.data.sources import kvr
    from geomix.data.batch import chunks, collate, token_weights
    from geomix.data.tokenise import tokenise_all
    from geomix.models.forward import plain_forward
    from geomix.models.load import load_model, quiet_libraries
    from geomix.models.loss import weighted_loss

    quiet_libraries()
    loaded = load_model("builtin", torch.device("cpu"))
    examples = tokenise_all(loaded.tokenizer, kvr.examples(160, 0, "train"))
    batches = [
        collate(part, token_weights(part, "token"), loaded.pad_id, 128)
        for part in chunks(examples, 32)
    ]
    parameters = list(loaded.model.train().parameters())
    optimiser = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    forward = plain_forward(loaded.model)

    def step(number: int) -> None:
        batch = batches[number % len(batches)]
        torch.autograd.backward(weighted_loss(forward(batch), batch))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()

    print(json.dumps(torch.get_num_threads()), flush=True)
    for line in sys.stdin:
        step(0)
        start, steps = time.perf_counter(), 0
        while time.perf_counter() < start + float(line):
            step(steps)
            steps += 1
        print(json.dumps(steps / (time.perf_counter() - start)), flush=True)


class Trainer:
    """A process that trains under a setting, when it is asked to.

    Attributes:
        threads: that torch has there.
    """

    def __init__(self, setting: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(setting),
        )
        self.threads = int(self._answer())

    def _answer(self) -> float:
        assert self._process.stdout is not None
        return float(json.loads(self._process.stdout.readline()))

    def train(self, seconds: float) -> float:
        """Return the steps per second."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def compare(rounds: int, seconds: float) -> None:
    trainers = {name: Trainer(setting) for name, setting in SETTINGS.items()}
    most = max(trainer.threads for trainer in trainers.values())
    print(f"training steps a second of the built-in model, {most} threads but for the last row")
    table: dict[str, list[float]] = {name: [] for name in trainers}
    for number in BUSY:
        found: dict[str, list[float]] = {name: [] for name in trainers}
        with busy(number):
            for turn in range(rounds):
                names: Sequence[str] = list(trainers)
                for name in names if turn % 2 == 0 else reversed(names):
                    found[name].append(trainers[name].train(seconds))
        for name, values in found.items():
            table[name].append(statistics.median(values))
    for trainer in trainers.values():
        trainer.close()
    whole = table["libgomp's default"][0]
    heads = [f"beside {n} busy" if n else "quiet" for n in BUSY]
    print(f"{'':26}" + "".join(f"{head:>22}" for head in heads))
    for name, values in table.items():
        print(f"{name:26}" + "".join(f"{v:12.2f}/s {v / whole:6.2f} x" for v in values))


def demo(more: Sequence[str]) -> None:
    quiet: dict[str, float] = {}
    for number in (0, 1):
        for name in ("libgomp's default", "as geomix starts"):
            with tempfile.TemporaryDirectory() as folder, busy(number):
                start = time.perf_counter()
                for words in ("train --quiet --out run", "analyze grad-angle run"):
                    line = [*words.split(), *(more if words.startswith("train") else ())]
                    subprocess.run(
                        [sys.executable, "-m", "geomix", *line],
                        cwd=folder,
                        env=environment(SETTINGS[name]),
                        check=True,
                        capture_output=True,
                    )
                seconds = time.perf_counter() - start
            quiet.setdefault(name, seconds)
            where = f"beside {number} busy" if number else "quiet"
            ratio = f"{seconds / quiet[name]:6.2f} x its quiet time"
            print(f"demo, {name:18} {where:14} {seconds:7.0f} s {ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="What threads that wait cost.")
    parser.add_argument("--quick", action="store_true", help="one turn of a second")
    parser.add_argument("--demo", action="store_true", help="the whole demo, quiet and not")
    parser.add_argument("--set", action="append", default=[], help="a key of the demo: KEY=VALUE")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve()
        return
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}")
    if asked.demo:
        demo([word for setting in asked.set for word in ("--set", setting)])
    else:
        compare(1 if asked.quick else ROUNDS, 1.0 if asked.quick else SECONDS)


if __name__ == "__main__":
    main()
