"""Memory of a snapshot beside the model, in copies of its gradient.

A random Llama of about 100 million parameters, four probe sets of four short examples each, so that
gradients outweigh activations. Every setting has a process of its own; a thread reads the process's
own memory (`RssAnon`, without files that are mapped) every two milliseconds; what it had after a
snapshot of a tiny model, which imports and warms up everything, is taken off. `plain` is a forward
and backward pass over one set: one gradient, and the activations of a batch.

`python benchmarks/recording_memory.py`
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

SETS, EXAMPLES = 4, 4

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "light": {"adam": True},
    "light, scratch: disk": {"adam": True, "scratch": True},
    "path": {"midpoints": True, "pairs": True},
    "path, scratch: disk": {"midpoints": True, "pairs": True, "scratch": True},
}


class Watch:
    """The most memory of this process while it is entered."""

    def __enter__(self) -> Watch:
        self.most = _own()
        self._ends = False
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        self._thread.join()

    def _look(self) -> None:
        while not self._ends:
            self.most = max(self.most, _own())
            time.sleep(0.002)


def _own() -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.split("RssAnon:")[1].split()[0]) * 1024


def measure(name: str) -> None:
    """Print the extra memory of three moments in copies of the gradient."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from geomix.data.example import IGNORED, Example, TokenisedExample
    from geomix.models.forward import backward_over, batches_of, plain_forward
    from geomix.recording.recorder import Recorder
    from geomix.training.observer import SecondMoments, TrainingEvent

    def model_of(width: int, layers: int) -> Any:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=1000,
            hidden_size=width,
            intermediate_size=11 * width // 4,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=4,
        )
        return LlamaForCausalLM(config).eval()

    ids = torch.randint(0, 1000, (SETS * EXAMPLES, 8), generator=torch.manual_seed(1)).tolist()
    text = Example("", "")
    examples = [TokenisedExample(tuple(one), (*[IGNORED] * 4, *one[4:]), text) for one in ids]
    probes = {f"D_{'ABCD'[s]}": examples[s * EXAMPLES : (s + 1) * EXAMPLES] for s in range(SETS)}

    def plain(model: Any) -> None:
        device = torch.device("cpu")
        batches = batches_of(probes["D_A"], "token", EXAMPLES, 0, device)
        for _ in backward_over(plain_forward(model), batches):
            pass
        model.zero_grad(set_to_none=True)

    def snapshots(model: Any, count: int) -> list[int]:
        """Return each checkpoint's peak memory, with the weights changed between them."""
        known = {n: torch.ones(1).expand(p.shape) for n, p in model.named_parameters()}
        moments = SecondMoments(0, 1, 1e-8, lambda: known)
        with tempfile.TemporaryDirectory() as folder:
            recorder = Recorder(
                Path(folder),
                probes,
                ["every:1"],
                reduction="token",
                batch_size=EXAMPLES,
                pad_id=0,
                activations=0,
                **SETTINGS[name],
            )
            found = []
            for step in range(count):
                with Watch() as watch:
                    at = (0, "stage", step, 9, 0, None)
                    recorder.observe(TrainingEvent(model, *at, second_moments=moments))
                found.append(watch.most)
                with torch.no_grad():
                    for p in model.parameters():
                        p.mul_(0.999)
            return found

    tiny = model_of(32, 2)
    plain(tiny)
    snapshots(tiny, 3)
    model = model_of(1024, 8)
    plain(model)
    before = _own()
    copy = 4 * sum(p.numel() for p in model.parameters())
    if name == "plain":
        with Watch() as watch:
            plain(model)
        most = [watch.most]
    else:
        most = snapshots(model, 4)
    held = " ".join(f"{(one - before) / copy:5.2f}" for one in most)
    print(f"{name:22} {held}   ({copy / 2**20:.0f} MiB a copy, {SETS} sets)")


def main() -> None:
    """Run one process per setting."""
    if len(sys.argv) > 1:
        measure(sys.argv[1])
        return
    print("most memory beside the model's, in copies of its gradient, at four moments in a row")
    for name in SETTINGS:
        subprocess.run([sys.executable, __file__, name], check=True)


if __name__ == "__main__":
    main()
