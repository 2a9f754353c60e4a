"""The memory that `geomix train --dry-run` predicts for a training step, against what one takes.

Every case runs in a process of its own: random Llama models, two steps of the engine's own
`Stepper` on two sources. On a CPU the peak of the resident memory counts, less what the
process held after a step of a tiny one (glibc gives freed blocks back at once); on a GPU
`torch.cuda.max_memory_allocated`.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from geomix.config.training import LoraConfig, TrainConfig
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.planning.memory import MicroBatch, memory_of
from geomix.training.optimiser import make_optimiser
from geomix.training.step import Stepper
from geomix.training.trainable import attach

#       vocabulary, features, inner, layers, heads
MODELS = {
    "5 M": (2_048, 256, 704, 5, 4),
    "20 M": (8_192, 384, 1_024, 8, 6),
    "60 M": (32_000, 512, 1_536, 8, 8),
}
#        rows, width, targets a row
BATCHES = [(4, 64, 16), (16, 128, 16), (4, 512, 64)]
PRECISIONS = ["fp32", "bf16"]
LORA = LoraConfig()
ADAPTED = "20 M"
"""The model that is trained with adapters too."""
TINY = {
    "vocab_size": 16,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def model_config(name: str) -> LlamaConfig:
    vocabulary, features, inner, layers, heads = MODELS[name]
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=features,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
    )


def resident(which: str) -> int:
    """VmRSS or VmHWM of this process, bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(which))


def adapted(model: nn.Module) -> nn.Module:
    """Add low-rank adapters to the model, in place."""
    attach(model, LORA, "train.lora.targets")
    return model


def trained(
    config: LlamaConfig, rows: int, width: int, targets: int, precision: str, *, lora: bool
) -> None:
    """Run two training steps of a random model on two sources."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    labels = (IGNORED,) * (width - targets) + (7,) * targets
    example = TokenisedExample(tuple([5] * width), labels, Example("", ""))
    train = TrainConfig.model_validate(
        {"precision": precision, "micro_batch_size": rows, "batch_size": 2 * rows}
    )
    model = LlamaForCausalLM(config).to(device).train()
    if lora:
        adapted(model)
    optimiser = make_optimiser(model, train)
    stepper = Stepper(model, optimiser, train, 0, device, width)
    for _ in range(2):
        sources = {"D_A": [example] * rows, "D_M": [example] * rows}
        stepper.step(sources)


def measured(name: str, rows: int, width: int, targets: int, precision: str, lora: bool) -> int:
    """Peak bytes of two training steps."""
    tiny = LlamaConfig(**TINY)
    trained(tiny, 2, 8, 4, precision, lora=lora)  # what libraries take at their first use
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trained(model_config(name), rows, width, targets, precision, lora=lora)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resident("VmHWM") - before


def cases() -> Iterator[tuple[str, int, int, int, str, bool]]:
    """Model, rows, width, targets of a row, precision, and whether it has adapters."""
    for lora in (False, True):
        for name in [ADAPTED] if lora else MODELS:
            for batch in BATCHES:
                for precision in PRECISIONS:
                    yield (name, *batch, precision, lora)


def main() -> None:
    where = "GPU" if torch.cuda.is_available() else "CPU, one thread"
    print(f"peak MiB of two training steps ({where})")
    print(
        f"{'model':>9} {'rows x width':>13} {'precision':>9} {'predicted':>9} {'measured':>9} "
        " error"
    )
    worst = 0.0
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    for name, rows, width, targets, precision, lora in cases():
        case = json.dumps([name, rows, width, targets, precision, lora])
        command = [sys.executable, __file__, case]
        done = subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )
        found = int(done.stdout)
        micro = MicroBatch(rows, width, rows * targets)
        prepare = adapted if lora else nn.Module.train
        said = memory_of(model_config(name), micro, precision, prepare=prepare).step(passes=2)
        error = said / found - 1
        worst = max(worst, abs(error))
        print(
            f"{name + ' LoRA' * lora:>9} {f'{rows} x {width}':>13} {precision:>9} "
            f"{said / 2**20:9.0f} {found / 2**20:9.0f} {error:+6.1%}",
            flush=True,
        )
    print(f"largest error {worst:.1%}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(measured(*json.loads(sys.argv[1])))
    else:
        main()
