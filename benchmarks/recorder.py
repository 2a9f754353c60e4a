"""What a snapshot costs against a plain forward and backward pass over the same probe examples.

Both use the same batches of the demo's probe sets on the built-in model, in turn, in one process.
Also what the import of nnsight costs, and what a snapshot weighs on disk.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from geomix.config_file import PRESETS, load
from geomix.data.probes import probe_sets
from geomix.data.registry import SOURCES
from geomix.data.stage import plan_stages
from geomix.data.template import tokenise_all
from geomix.model.gradient import backward_over, batches_of, plain_forward
from geomix.model.load import load_model
from geomix.record.recorder import Recorder
from geomix.train.events import Moment

ROUNDS = 7


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    start = time.perf_counter()
    import nnsight  # noqa: F401

    print(f"import nnsight (after torch): {time.perf_counter() - start:.2f} s")
    config = load(PRESETS / "demo.yaml", sources=tuple(SOURCES)).arms["plain"]
    assert config.record is not None
    loaded = load_model(config.model, torch.device("cpu"))
    probes = {
        name: tokenise_all(loaded.tokenizer, texts[: config.record.probes])
        for name, texts in probe_sets(config, plan_stages(config)).items()
    }
    reduction, size = config.stages[0].train.loss, config.record.batch_size
    tokens = sum(len(e.ids) for examples in probes.values() for e in examples)
    moment = Moment(loaded.model, 0, "kvr", 0, 1, 0, None)

    def plain() -> None:
        forward = plain_forward(loaded.model)
        for examples in probes.values():
            batches = batches_of(examples, reduction, size, loaded.pad_id, loaded.device)
            for _ in backward_over(forward, batches):
                pass
            loaded.model.zero_grad(set_to_none=True)

    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(
            Path(folder),
            probes,
            at=["boundaries"],
            reduction=reduction,
            batch_size=size,
            pad_id=loaded.pad_id,
            activations=config.record.activations,
        )

        def snapshot() -> None:
            recorder.observe(moment)

        for work in (plain, snapshot):  # warm up
            work()
        rounds = [(seconds(plain), seconds(snapshot)) for _ in range(ROUNDS)]
        (file,) = Path(folder).glob("*.h5")
        weight = file.stat().st_size / 1e6
    ratio = statistics.median(s / p for p, s in rounds)
    sizes = ", ".join(f"{name} {len(examples)}" for name, examples in probes.items())
    print(f"probe sets: {sizes}; {tokens} tokens; {torch.get_num_threads()} threads")
    print(f"plain forward and backward: {statistics.median(p for p, _ in rounds):.2f} s")
    print(f"snapshot, written to disk:  {statistics.median(s for _, s in rounds):.2f} s")
    print(f"ratio, median of {ROUNDS} pairs: {ratio:.2f}; file {weight:.1f} MB")


if __name__ == "__main__":
    main()
