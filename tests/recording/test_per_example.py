"""Per-example gradients, from single passes, of every architecture against plain autograd.

The oracle (`alone.py`) is one backward pass an example. In float64, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor

from geomix.data.batch import Batch
from geomix.gradients.capture import CaptureName
from geomix.gradients.example_products import gram_matrices, products_along, sketches
from geomix.gradients.inner_products import undisturbed
from geomix.gradients.per_example import PerExample
from geomix.gradients.rules import by_autograd
from geomix.measures.factors import Whole
from geomix.measures.sketch import matrix_shape, projection
from geomix.models.forward import backward_over, batches_of, plain_forward
from geomix.models.packing import packs

from .alone import CPU, EXAMPLES, Gradients, assert_same, batches, formed, one_by_one
from .architectures import ARCHITECTURES, EACH_ARCHITECTURE, Float64

BOTH: tuple[CaptureName, ...] = ("nnsight", "hooks")


@pytest.fixture
def float64() -> Iterator[None]:
    with Float64():
        yield


def gradient_of(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


in_float64 = pytest.mark.usefixtures("float64")


@cache
def known(name: str) -> tuple[Any, Gradients]:
    with Float64():
        model = ARCHITECTURES[name]().double()
        return model, one_by_one(model)


@in_float64
@pytest.mark.parametrize("capture", BOTH)
@pytest.mark.parametrize("name", EACH_ARCHITECTURE)
def test_every_gradient_of_every_architecture(name: str, capture: CaptureName) -> None:
    """Padded, packed where the model can, each alone: the same gradients."""
    model, expected = known(name)
    examples = PerExample(model, capture=capture)
    assert not [path for path, rule in examples._rules.items() if rule is by_autograd]
    widths = [(4, None), (1, None), *([(4, 24)] if packs(model.eval(), 2, 3) else [])]
    for size, width in widths:
        assert_same(formed(examples, batches(size, width)), expected)
    rows = [len(b.ids) for b in batches(4, 24)]
    assert sum(rows) < len(EXAMPLES)  # there are packed rows
    assert model.training is False
    assert all(p.grad is None for p in model.parameters())


@in_float64
def test_most_architectures_are_packed() -> None:
    alone = [name for name in ARCHITECTURES if not packs(known(name)[0].eval(), 2, 3)]
    assert alone == ["opt"]  # it takes positions, and attends across them


@in_float64
def test_the_order_of_the_examples_only_orders_the_gradients() -> None:
    model, expected = known("qwen3")
    order = [4, 2, 6, 0, 3, 1, 5]
    given = list(batches_of([EXAMPLES[i] for i in order], "token", 3, 0, CPU, 24))
    assert_same(formed(PerExample(model), given), {n: g[order] for n, g in expected.items()})


@in_float64
def test_the_sum_over_examples_is_the_gradient_of_the_set() -> None:
    """Under `example` reduction, whose weights differ from example to example."""
    model, _ = known("gemma3")
    given = list(batches_of(EXAMPLES, "example", 3, 0, CPU, 24))
    found = formed(PerExample(model), given)
    with undisturbed(model):
        for _ in backward_over(plain_forward(model), iter(given)):
            pass
        expected = {n: gradient_of(p)[None] for n, p in model.named_parameters()}
    assert_same({n: g.sum(0, keepdim=True) for n, g in found.items()}, expected)


@in_float64
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "mixtral", "opt"])
def test_products_sketches_and_gram_matrices(name: str) -> None:
    """The tied embedding is included, whose two parts have cross terms."""
    model, gradients = known(name)
    examples = PerExample(model)
    generator = torch.Generator().manual_seed(0)
    direction = {
        n: torch.randn(p.shape, generator=generator, dtype=torch.float64)
        for n, p in reversed(examples.parameters.items())
    }
    along = products_along(examples, batches(3), direction)
    expected = [torch.einsum("n...,...->n", gradients[n], v) for n, v in direction.items()]
    torch.testing.assert_close(along, torch.stack(expected, 1), rtol=1e-8, atol=1e-12)
    found = sketches(examples, batches(3), seed=5, entries=16)
    assert found.dtype == torch.float32
    for m, (n, p) in enumerate(examples.parameters.items()):
        onto = projection(5, n, p.shape, 16)
        if onto.columns is None:
            sketch = gradients[n] @ onto.rows.double().T
        else:
            matrices = gradients[n].view(len(EXAMPLES), *matrix_shape(p.shape))
            sketch = (onto.rows.double() @ matrices @ onto.columns.double().T).flatten(1)
        scale = float(sketch.abs().max())
        torch.testing.assert_close(found[:, m].double(), sketch, rtol=0, atol=1e-6 * scale + 1e-15)
    for memory in (1 << 30, 1):
        grams = dict(gram_matrices(examples, batches(3), memory))
        assert [*grams] == [*examples.parameters]
        for n, value in grams.items():
            flat = gradients[n].flatten(1)
            torch.testing.assert_close(value, flat @ flat.T, rtol=1e-8, atol=1e-15)


@in_float64
def test_only_what_is_asked_for_is_watched() -> None:
    model, gradients = known("llama")
    name = "model.layers.1.mlp.up_proj.weight"
    examples = PerExample(model, capture="hooks")
    calls: list[int] = []
    handles = [
        module.register_full_backward_hook(lambda *_: calls.append(1))
        for module in [model.model.layers[0].mlp]
    ]
    found = products_along(examples, batches(), {name: gradients[name][0]})
    for handle in handles:
        handle.remove()
    assert not calls  # the backward pass ends where it is not needed
    expected = gradients[name].flatten(1) @ gradients[name][0].flatten()
    torch.testing.assert_close(found[:, 0], expected)


@in_float64
def test_both_captures_agree_bit_for_bit() -> None:
    for name in ("gpt2", "gemma2", "qwen2-moe"):
        model, _ = known(name)
        ours, theirs = (formed(PerExample(model, capture=c), batches(4, 24)) for c in BOTH)
        assert all(torch.equal(ours[n], theirs[n]) for n in ours)


@in_float64
def test_the_gradient_of_the_set_comes_out_of_the_same_pass() -> None:
    model, expected = known("llama")
    examples = PerExample(model)
    with undisturbed(model):
        along = [
            [isinstance(factor, Whole) for factor in factors["model.norm.weight"]]
            for _, factors in examples.passes(batches(), weights=True)
        ]
        found = {n: gradient_of(p)[None] for n, p in examples.parameters.items()}
    assert along == [[True], [True]]
    assert_same(found, {n: g.sum(0, keepdim=True) for n, g in expected.items()})


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "mixtral"])
def test_half_precision_products_are_in_float32(name: str, weights: torch.dtype) -> None:
    """Under autocast, and of weights in bfloat16: a bfloat16 gradient's error, and no more."""
    model = ARCHITECTURES[name]().to(weights)
    wide = weights == torch.float32
    autocast = partial(torch.autocast, "cpu", dtype=torch.bfloat16, enabled=wide)
    examples = PerExample(model, autocast=autocast)
    found = formed(examples, batches(4, 24))
    with undisturbed(model):

        def forward(batch: Batch) -> Tensor:
            with autocast():
                return plain_forward(model)(batch)

        for _ in backward_over(forward, iter(batches(4, 24))):
            pass
        expected = {n: gradient_of(p) for n, p in examples.parameters.items()}
    for n, gradients in found.items():
        assert gradients.dtype == torch.float32
        rounding = (gradients.sum(0) - expected[n]).norm() / expected[n].float().norm()
        assert rounding < 0.03, n
