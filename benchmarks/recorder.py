"""Cost of a snapshot, and of the preset `light` in a training.

A snapshot against a plain forward and backward pass over the same probe examples: the same batches
of the demo's probe sets on the built-in model, in turn, in one process; with what the demo keeps,
and with every key of the recorder switched on. Then `light` on the paper's first two stages (2,000
key-value pairs for 20 epochs, twice): all of its snapshots against all of their steps, of which
some are taken. Also what the import of nnsight costs, and what a snapshot weighs on disk.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from geomix.config.load import PRESETS, load
from geomix.config.run import RunConfig
from geomix.config.schedule import snapshots
from geomix.data.plan import plan_stages, planned_steps
from geomix.data.probes import probe_sets
from geomix.data.sources import SOURCES
from geomix.data.tokenise import tokenise_all
from geomix.models.forward import backward_over, batches_of, plain_forward
from geomix.models.load import LoadedModel, load_model
from geomix.recording.recorder import Recorder
from geomix.training.observer import SecondMoments, TrainingEvent
from geomix.training.optimiser import EPS, make_optimiser, second_moments
from geomix.training.step import Stepper, row_width

ROUNDS = 7
STEPS = 40

PAPER = {
    "stages": [
        {"data": {"source": "kvr", "limit": 2000}, "stop": {"epochs": 20}},
        {"data": {"source": "kvr", "limit": 2000, "split": "id"}, "stop": {"epochs": 20}},
    ]
}


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """On the clock, and of the CPU: other work on the machine disturbs these less."""
    start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def observed(config: RunConfig, loaded: LoadedModel, folder: Path, **more: Any) -> Recorder:
    """Build the run's recorder, with some keys replaced."""
    record = config.record
    assert record is not None
    train = config.stages[0].train
    probes = {
        name: tokenise_all(loaded.tokenizer, texts[: record.probes])
        for name, texts in probe_sets(config, plan_stages(config)).items()
    }
    options = {"activations": record.activations, "lens": record.lens, "adam": record.adam, **more}
    return Recorder(
        folder,
        probes,
        at=["every:1"],
        reduction=train.loss,
        batch_size=record.batch_size,
        pad_id=loaded.pad_id,
        width=row_width(train, loaded),
        **options,
    )


def ratio(name: str, config: RunConfig, loaded: LoadedModel, **more: Any) -> None:
    """Time a snapshot and the plain passes, in turn."""
    second = {n: torch.rand_like(p) ** 4 for n, p in loaded.model.named_parameters()}
    moments = SecondMoments(0, 1, EPS, lambda: second)
    with tempfile.TemporaryDirectory() as folder:
        recorder = observed(config, loaded, Path(folder), **more)
        step = 0

        def plain() -> None:
            forward = plain_forward(loaded.model)
            for examples in recorder.probes.values():
                batches = batches_of(
                    examples,
                    recorder.reduction,
                    recorder.batch_size,
                    loaded.pad_id,
                    loaded.device,
                    recorder.width,
                )
                for _ in backward_over(forward, batches):
                    pass
                loaded.model.zero_grad(set_to_none=True)

        def snapshot() -> None:
            nonlocal step
            step += 1
            model = loaded.model
            recorder.observe(
                TrainingEvent(model, 0, "kvr", step, 99, 0, None, second_moments=moments)
            )

        for work in (plain, snapshot):  # warm up
            work()
        rounds = [(seconds(plain), seconds(snapshot)) for _ in range(ROUNDS)]
        weight = max(file.stat().st_size for file in Path(folder).glob("*.h5")) / 1e6
    for kind, index in (("clock", 0), ("CPU", 1)):
        ratios = sorted(shot[index] / bare[index] for bare, shot in rounds)
        bare, shot = (statistics.median(pair[i][index] for pair in rounds) for i in (0, 1))
        print(
            f"{name:12} {kind:6} plain {bare:.2f} s, snapshot {shot:.2f} s, ratio "
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); "
            f"file {weight:.1f} MB"
        )


def share_of_light(loaded: LoadedModel) -> None:
    """Compare the seconds of all snapshots with those of all steps, without evaluations."""
    config = RunConfig.model_validate(PAPER)
    record, train = config.record, config.stages[0].train
    assert record is not None
    plans = plan_stages(config)
    examples = tokenise_all(loaded.tokenizer, plans[0].own)
    model = loaded.model.train()
    optimiser = make_optimiser(model, train)
    width = row_width(train, loaded)
    stepper = Stepper(model, optimiser, train, loaded.pad_id, loaded.device, width)
    batches = plans[0].batches(0, 0, 0, train.batch_size)
    steps: list[float] = []
    shots: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        recorder = observed(config, loaded, Path(folder))
        for number, batch in enumerate(batches[:STEPS], start=1):
            chosen = {"D_A": [examples[i] for i in batch]}
            steps.append(seconds(partial(stepper.step, chosen))[1])
            if number % 5 == 0:
                second = SecondMoments(0, number, EPS, lambda: second_moments(model, optimiser))
                now = TrainingEvent(model, 0, "kvr", number, 99, 0, None, second_moments=second)
                shots.append(seconds(partial(recorder.observe, now))[1])
    done = [planned_steps(s, p) for s, p in zip(config.stages, plans, strict=True)]
    count = sum(snapshots(record.at, i, n, reused=False) for i, n in enumerate(done))
    step, shot = statistics.median(steps), statistics.median(shots[1:])
    share = 100 * count * shot / (sum(done) * step)
    print(
        f"light on the paper's first two stages: {count} snapshots of {shot:.2f} s beside "
        f"{sum(done):,} steps of {step:.3f} CPU seconds: {share:.1f} %"
    )


def main() -> None:
    start = time.perf_counter()
    import nnsight  # noqa: F401

    print(f"import nnsight (after torch): {time.perf_counter() - start:.2f} s")
    config = load(PRESETS / "demo.yaml", sources=tuple(SOURCES)).arms["plain"]
    loaded = load_model(config.model, torch.device("cpu"))
    print(f"{torch.get_num_threads()} threads; the demo's probe sets on the built-in model")
    ratio("bare", config, loaded, activations=0, lens=False, adam=False)
    ratio("as the demo", config, loaded)
    ratio("with sketches", config, loaded, sketches=(64, 0))
    ratio("everything", config, loaded, modules=["*.mlp"], gradients=True, scratch=True)
    share_of_light(loaded)


if __name__ == "__main__":
    main()
