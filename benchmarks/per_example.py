"""Cost of per-example gradients of 256 facts beside plain passes, on the built-in model.

Ghost products with one direction and sketches against a plain forward and backward pass; the Gram
matrix against one backward pass an example, with and without the products of the gradients that
those passes give; and, where it is installed, bergson's collection of projected gradients. All in
turn, in one process. The ways' numbers must agree.
"""

from __future__ import annotations

import argparse
import io
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geomix.data.batch import Batch
from geomix.data.example import TokenisedExample
from geomix.data.sources import kvr
from geomix.data.tokenise import tokenise_all
from geomix.gradients.example_products import gram_matrices, products_along, sketches
from geomix.gradients.inner_products import undisturbed
from geomix.gradients.per_example import PerExample
from geomix.models.forward import backward_over, batches_of, plain_forward
from geomix.models.load import LoadedModel, load_model, quiet_libraries

EXAMPLES = 256
BATCH = 32
PROJECTION = 8
"""Sketches of 8 × 8 entries a parameter, on both sides."""


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds, and what it gave."""
    start = time.perf_counter()
    found = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, found


class Ways:
    """The ways that are compared."""

    def __init__(self, loaded: LoadedModel, examples: list[TokenisedExample]) -> None:
        self.loaded = loaded
        self.examples = examples
        self.single = self.batches(1)
        self.batched = self.batches(BATCH)
        self.direction = self.plain()

    def batches(self, size: int) -> list[Batch]:
        """Build the set."""
        loaded = self.loaded
        return list(batches_of(self.examples, "token", size, loaded.pad_id, loaded.device))

    def plain(self) -> dict[str, Tensor]:
        """Forward and backward in batches: the set's gradient."""
        model = self.loaded.model
        with undisturbed(model):
            for _ in backward_over(plain_forward(model), iter(self.batched)):
                pass
            return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    def one_by_one(self) -> Tensor:
        """Run one forward and backward pass per example: `(N, parameters)`."""
        model = self.loaded.model
        size = sum(p.numel() for p in model.parameters())
        rows = torch.empty(len(self.single), size, device=self.loaded.device)
        with undisturbed(model):
            for i, _ in enumerate(backward_over(plain_forward(model), iter(self.single))):
                flat = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
                torch.cat(flat, out=rows[i])
                model.zero_grad(set_to_none=True)
        return rows

    def along(self) -> Tensor:
        """Every example's product with the set's gradient."""
        return products_along(PerExample(self.loaded.model), self.batched, self.direction)

    def sketches(self) -> Tensor:
        """Every example's sketch."""
        return sketches(PerExample(self.loaded.model), self.batched, 0, PROJECTION**2)

    def gram(self) -> Tensor:
        """Return products of whole gradients, summed over the parameters."""
        found = gram_matrices(PerExample(self.loaded.model), self.batched)
        return torch.stack([value for _, value in found]).sum(0)


def bergson(loaded: LoadedModel, examples: list[TokenisedExample]) -> Callable[[], None] | None:
    """Return bergson's collection of projected gradients per example, to disk; None without it.

    It covers the linear maps within the layers: no embedding, norm or head.
    """
    try:
        from bergson import GradientProcessor, IndexConfig, collect_gradients
        from datasets import Dataset
    except ImportError:
        return None
    data = Dataset.from_dict(
        {
            "input_ids": [list(e.ids) for e in examples],
            "labels": [list(e.labels) for e in examples],
        }
    )
    groups = [list(range(i, i + BATCH)) for i in range(0, len(examples), BATCH)]

    def collect() -> None:
        logging.disable(logging.INFO)
        with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
            collect_gradients(
                loaded.model,
                data,
                GradientProcessor(projection_dim=PROJECTION, projection_seed=0),
                IndexConfig(run_path=str(Path(folder) / "index")),
                batches=groups,
            )

    return collect


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    quiet_libraries()
    device = torch.device(given.device)
    loaded = load_model("builtin", device)
    examples = tokenise_all(loaded.tokenizer, kvr.examples(EXAMPLES, 0, "train"))
    ways = Ways(loaded, examples)
    table: dict[str, Callable[[], Any]] = {
        "plain": ways.plain,
        "ghost products": ways.along,
        "sketches": ways.sketches,
        "one backward an example": ways.one_by_one,
        "Gram matrix": ways.gram,
    }
    theirs = bergson(loaded, examples)
    if theirs is None:
        print("bergson is not installed: left out (pip install bergson)")
    else:
        table["bergson, projected"] = theirs
    found = {name: timed(work, device)[1] for name, work in table.items()}  # also warms up
    rows = found.pop("one backward an example")
    products = rows @ rows.T
    close(found["Gram matrix"], products)
    flat = torch.cat([value.flatten() for value in ways.direction.values()])
    close(found["ghost products"].sum(1), rows @ flat)
    del rows
    seconds: dict[str, list[float]] = {name: [] for name in table}
    seconds["products of its gradients"] = []
    for _ in range(given.rounds):
        for name, work in table.items():
            took, value = timed(work, device)
            seconds[name].append(took)
            if name == "one backward an example":
                products_took, _ = timed(partial(torch.mm, value, value.T), device)
                seconds["products of its gradients"].append(products_took)
            del value
    report(seconds, sum(len(e.ids) for e in examples), given)


def close(found: Tensor, expected: Tensor) -> None:
    """Both ways give the same numbers, but for single precision."""
    expected = expected.double().cpu()
    off = float((found - expected).abs().max() / expected.abs().max())
    assert off < 1e-4, off


def report(seconds: dict[str, list[float]], tokens: int, given: argparse.Namespace) -> None:
    """Medians, and ratios within each round."""
    threads = f"{torch.get_num_threads()} thread(s)" if given.device == "cpu" else given.device
    print(
        f"{EXAMPLES} facts, {tokens} tokens, batches of {BATCH}; {threads}; {given.rounds} rounds"
    )
    for name, taken in seconds.items():
        print(f"{name:28}{statistics.median(taken):8.3f} s")

    def ratio(one: list[float], other: list[float]) -> float:
        return statistics.median(a / b for a, b in zip(one, other, strict=True))

    plain, alone, gram = (
        seconds[name] for name in ("plain", "one backward an example", "Gram matrix")
    )
    whole = [a + b for a, b in zip(alone, seconds["products of its gradients"], strict=True)]
    print(f"ghost products / plain: {ratio(seconds['ghost products'], plain):.2f} (at most 1.5)")
    print(f"sketches / plain: {ratio(seconds['sketches'], plain):.2f}")
    print(f"one backward an example / Gram matrix: {ratio(alone, gram):.1f}; ", end="")
    print(f"with the products {ratio(whole, gram):.1f} (at least 10 was asked)")
    if "bergson, projected" in seconds:
        print(
            f"bergson / sketches: {ratio(seconds['bergson, projected'], seconds['sketches']):.1f}"
        )


if __name__ == "__main__":
    main()
