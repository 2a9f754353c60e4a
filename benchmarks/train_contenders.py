"""Contenders of `train.py`: each trains a job and reports its cost.

`python train_contenders.py NAME` runs one: a line of JSON comes in for every job, one goes out for
what was measured. `train.py` starts them; it says what each of them is.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

BATCH, CLIP, BETAS, WARMUP = 32, 1.0, (0.9, 0.95), 0.05


@dataclass(frozen=True)
class Job:
    """Training job: a number of facts, with 2:1 passages of random words or without.

    The learning rate is that of all epochs; contenders but geomix train the first `timed` of them.
    """

    facts: int
    mixed: bool
    epochs: int
    timed: int
    lr: float

    @property
    def yaml(self) -> str:
        """The run as a user writes it."""
        mix = "    mix: random-words\n" if self.mixed else ""
        return (
            f"record: null\nstages:\n  - data: {{source: kvr, limit: {self.facts}}}\n{mix}"
            f"    stop: {{epochs: {self.epochs}}}\n    train: {{lr: {self.lr}}}\n"
        )


@dataclass
class Measured:
    """One contender's turn: CPU and wall seconds, the steps' losses, MiB at most so far."""

    cpu: float = 0.0
    wall: float = 0.0
    evaluating: float = 0.0
    losses: list[float] = field(default_factory=list)
    exact: float = 0.0
    peak: float = 0.0

    def start(self) -> None:
        """Training begins."""
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def stop(self) -> None:
        """Training is done."""
        self.cpu, self.wall = time.process_time() - self._cpu, time.perf_counter() - self._wall


class Work:
    """A job made ready: the examples as tokens, and the batches of every epoch."""

    def __init__(self, job: Job) -> None:
        import torch

        from geomix.config.load import load
        from geomix.data.plan import plan_stages
        from geomix.data.sources import SOURCES
        from geomix.data.tokenise import tokenise_all
        from geomix.models.load import load_model

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "bench.yaml"
            file.write_text(job.yaml, encoding="utf-8")
            self.experiment = load(file, (), tuple(SOURCES))
        (config,) = self.experiment.arms.values()
        self.job, self.loaded = job, load_model("builtin", torch.device("cpu"))
        self.plan = plan_stages(config)[0]
        self.width = config.stages[0].train.pack
        self.sets = {
            name: tokenise_all(self.loaded.tokenizer, part.examples)
            for name, part in self.plan.sets.items()
        }
        self.examples = list(chain.from_iterable(self.sets.values()))
        self.epochs = [self.plan.batches(config.seed, 0, e, BATCH) for e in range(job.epochs)]
        self.steps = sum(map(len, self.epochs))

    def tokens(self, epochs: int) -> int:
        """Real tokens of so many epochs."""
        return epochs * sum(len(example.ids) for example in self.examples)

    def rate(self, step: int) -> float:
        """Return the engine's cosine schedule after its warm-up, as a share of the peak."""
        warmup = math.ceil(WARMUP * self.steps)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, self.steps - warmup)))

    def rows(self) -> Iterator[list[Any]]:
        """Return the rows of every step as the engine packs them, each source separately."""
        from geomix.data.batch import collate, token_weights

        for indices in chain.from_iterable(self.epochs[: self.job.timed]):
            sources = self.plan.by_set(indices)
            chosen = {n: [self.sets[n][i] for i in places] for n, places in sources.items()}
            weight = token_weights(list(chain.from_iterable(chosen.values())), "token")[0]
            yield [
                collate(part, [weight] * len(part), self.loaded.pad_id, self.width)
                for part in chosen.values()
                if part
            ]


def bare(work: Work, measured: Measured) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    model: Any = work.loaded.model.train()
    parameters = list(model.parameters())
    steps = list(work.rows())
    measured.start()
    optimiser = torch.optim.AdamW(
        parameters, lr=work.job.lr, betas=BETAS, weight_decay=0.0, fused=True
    )
    for step, batches in enumerate(steps):
        optimiser.param_groups[0]["lr"] = work.job.lr * work.rate(step)
        total = 0.0
        for batch in batches:
            hidden = model.model(
                input_ids=batch.ids, position_ids=batch.positions, use_cache=False
            ).last_hidden_state
            logits = model.lm_head(hidden[batch.rows, batch.columns])
            loss = (cross_entropy(logits, batch.targets, reduction="none") * batch.weights).sum()
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        measured.losses.append(total)
    measured.stop()


def geomix(work: Work, measured: Measured) -> None:
    from geomix.cli.progress import Display, Standing, shown
    from geomix.experiments.run import run_experiment
    from geomix.util.console import Console

    class Watched(Display):
        """The display, which is told when a step and when a measurement is done."""

        seen = 0.0

        def stage(self, *told: Any) -> None:
            super().stage(*told)
            self.seen = time.process_time()

        def logged(self, line: Mapping[str, Any]) -> None:
            if line["event"] == "evaluation":  # the first of its lines is the whole of it
                measured.evaluating += time.process_time() - self.seen
            super().logged(line)
            self.seen = time.process_time()

    with (
        tempfile.TemporaryDirectory() as folder,
        Path(os.devnull).open("w", encoding="utf-8") as terminal,
        shown(Console(file=terminal, force_terminal=True), [""]) as live,
    ):

        def display(arm: str) -> Display:
            measured.start()  # θ_0 is loaded, nothing is tokenised yet
            live.display = Watched(live.console, Standing(arm))
            return live.display

        run = run_experiment(work.experiment, Path(folder) / "run", display)
        measured.stop()
        lines = list(run.metrics())
        measured.losses = [line["loss"] for line in lines if line["event"] == "step"]
        measured.exact = next(x["exact_match"] for x in lines if x.get("moment") == "end")


def trainer(work: Work, measured: Measured, strategy: str = "random") -> None:
    import torch
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    model = work.loaded.model
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=work.job.lr, betas=BETAS, weight_decay=0.0, fused=True
    )
    epochs = iter(work.epochs)

    class Ordered(torch.utils.data.Sampler[int]):
        """The engine's order, epoch by epoch."""

        def __len__(self) -> int:
            return len(work.examples)

        def __iter__(self) -> Iterator[int]:
            return chain.from_iterable(next(epochs))

    losses: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        peer: Any = Trainer(
            model=model,
            args=TrainingArguments(folder, train_sampling_strategy=strategy, **common(work)),
            train_dataset=[
                {"input_ids": list(e.ids), "labels": list(e.labels)} for e in work.examples
            ],
            data_collator=DataCollatorForSeq2Seq(work.loaded.tokenizer),
            processing_class=work.loaded.tokenizer,
            optimizers=(optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, work.rate)),
        )
        if strategy == "random":
            peer._get_train_sampler = lambda *_: Ordered()
            one_step = peer.training_step

            def kept(*given: Any, **named: Any) -> Any:
                losses.append(one_step(*given, **named))
                return losses[-1]

            peer.training_step = kept
        measured.start()
        peer.train()
        measured.stop()
    measured.losses = [loss.item() for loss in losses]


def common(work: Work) -> dict[str, Any]:
    """Return the settings common to Trainer and SFTTrainer; the rest are their defaults."""
    return {
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": work.job.timed,
        "learning_rate": work.job.lr,
        "adam_beta2": BETAS[1],
        "lr_scheduler_type": "cosine",
        "warmup_steps": math.ceil(WARMUP * work.steps),
        "max_grad_norm": CLIP,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
    }


def grouped(work: Work, measured: Measured) -> None:
    trainer(work, measured, "group_by_length")


def trl(work: Work, measured: Measured, **options: Any) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [{"input_ids": list(e.ids), "labels": list(e.labels)} for e in work.examples]
    with tempfile.TemporaryDirectory() as folder:
        peer: Any = SFTTrainer(
            model=work.loaded.model,
            args=SFTConfig(folder, bf16=False, **{**common(work), **options}),
            train_dataset=Dataset.from_list(rows),
            processing_class=work.loaded.tokenizer,
        )
        measured.start()
        peer.train()
        measured.stop()


def trl_kept(work: Work, measured: Measured) -> None:
    trl(work, measured, gradient_checkpointing=False)


def trl_packed(work: Work, measured: Measured) -> None:
    model: Any = work.loaded.model
    length = model.config.max_position_embeddings
    mean = statistics.mean(len(example.ids) for example in work.examples)
    rows = max(1, round(BATCH * mean / length))
    trl(
        work,
        measured,
        gradient_checkpointing=False,
        packing=True,
        max_length=length,
        per_device_train_batch_size=rows,
    )


Contender = Callable[[Work, Measured], None]
CONTENDERS: dict[str, tuple[Contender, tuple[str, ...]]] = {
    "bare": (bare, ()),
    "geomix": (geomix, ()),
    "trainer": (trainer, ("accelerate",)),
    "trainer grouped": (grouped, ("accelerate",)),
    "trl": (trl, ("accelerate", "trl")),
    "trl kept": (trl_kept, ("accelerate", "trl")),
    "trl packed": (trl_packed, ("accelerate", "trl")),
}


def main() -> None:
    """Run a contender whenever a job comes in, and say what was measured."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the peers print to the standard output
    contend, needed = CONTENDERS[sys.argv[1]]
    absent = [package for package in needed if importlib.util.find_spec(package) is None]
    print(json.dumps(absent), file=answers, flush=True)
    if absent:
        return
    import torch

    from geomix.models.load import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(1)
    for line in sys.stdin:
        work, measured = Work(Job(**json.loads(line))), Measured()
        torch.manual_seed(0)
        contend(work, measured)
        measured.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        epochs = work.job.epochs if sys.argv[1] == "geomix" else work.job.timed
        found = {**vars(measured), "tokens": work.tokens(epochs), "steps": work.steps}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
