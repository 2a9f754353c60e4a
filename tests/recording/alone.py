"""Per-example gradients by definition: each example alone, in its own backward pass.

It knows no rule, no placement and no capture: `param.grad` is read after a plain pass.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geomix.data.batch import Batch, collate, token_weights
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.gradients.inner_products import trainable_parameters, undisturbed
from geomix.gradients.per_example import PerExample
from geomix.measures.factors import materialised
from geomix.measures.sketch import matrix_shape
from geomix.models.forward import backward_over, batches_of, plain_forward

from .architectures import VOCABULARY

CPU = torch.device("cpu")
Gradients = dict[str, Tensor]
"""Gradients `(N, *shape)` by parameter."""


def some_examples() -> list[TokenisedExample]:
    """Return examples of different lengths, one much longer; some with a target of one token.

    The padding's token, whose embedding has no gradient in some models, stands among the others.
    """
    choose = random.Random(0)
    made = []
    for prompt, target in [(3, 2), (9, 1), (1, 5), (10, 8), (4, 1), (2, 3), (6, 4)]:
        ids = tuple(choose.randrange(VOCABULARY) for _ in range(prompt + target))
        made.append(TokenisedExample(ids, (IGNORED,) * prompt + ids[prompt:], Example("p", "t")))
    return made


EXAMPLES = some_examples()


def batches(size: int = 4, width: int | None = None, n: int | None = None) -> list[Batch]:
    return list(batches_of(EXAMPLES[:n], "token", size, 0, CPU, width))


def one_by_one(model: nn.Module, examples: Sequence[TokenisedExample] = EXAMPLES) -> Gradients:
    parameters = trainable_parameters(model)
    found: dict[str, list[Tensor]] = {name: [] for name in parameters}
    with undisturbed(model):
        weights = token_weights(examples, "token")
        for example, weight in zip(examples, weights, strict=True):
            model.zero_grad(set_to_none=True)
            for _ in backward_over(plain_forward(model), iter([collate([example], [weight], 0)])):
                for name, p in parameters.items():
                    found[name].append(torch.zeros_like(p) if p.grad is None else p.grad)
    return {name: torch.stack(each) for name, each in found.items()}


def formed(examples: PerExample, given: Sequence[Batch]) -> Gradients:
    """Every per-example gradient, from its factors."""
    found: dict[str, list[Tensor]] = {name: [] for name in examples.parameters}
    for batch, factors in examples.passes(given):
        for name, p in examples.parameters.items():
            height, _ = matrix_shape(p.shape)
            shape = (batch.examples, *p.shape)
            some = factors[name]
            dense = materialised(some, batch.examples, 0, height) if some else torch.zeros(shape)
            found[name].append(dense.view(shape))
    return {name: torch.cat(each) for name, each in found.items()}


def assert_same(found: Gradients, expected: Gradients, exact: float = 1e-9) -> None:
    """Tensor by tensor, to a share of the largest gradient an entry has in the same module."""
    assert found.keys() == expected.keys()
    largest: dict[str, float] = {}
    for name, value in expected.items():
        module = name.rpartition(".")[0]
        largest[module] = max(largest.get(module, 0.0), float(value.abs().max()))
    for name, value in expected.items():
        assert largest[name.rpartition(".")[0]] > 0, name
        most = exact * largest[name.rpartition(".")[0]]
        off = float((found[name] - value).abs().max())
        assert off <= most, f"{name}: off by {off}"
