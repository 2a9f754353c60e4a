"""Results from per-example gradients: products with a direction, sketches, Gram matrices.

Shapes: N examples, M parameter tensors, K entries of a sketch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from geomix.data.batch import Batch
from geomix.gradients.calls import Call
from geomix.gradients.per_example import Factors, PerExample, exactly
from geomix.measures.factors import along, projected
from geomix.measures.gram import gram_matrix
from geomix.measures.sketch import matrix_shape, projection


def products_along(
    examples: PerExample, batches: Iterable[Batch], direction: Mapping[str, Tensor]
) -> Tensor:
    """Return every example's gradient times one direction, by ghost products.

    Args:
        examples: of the model in its present state.
        batches: N examples in all.
        direction: by parameter, of its shape: a set's gradient, an update. Unnamed parameters are
            left out, and cost nothing.

    Returns:
        `(N, M)` float64, in the order of `direction`; nats for a gradient times an update.
    """
    rows = []
    for batch, factors in examples.passes(batches, direction):
        found = torch.zeros(batch.examples, len(direction), dtype=torch.float64)
        for m, (name, value) in enumerate(direction.items()):
            if factors[name]:
                matrix = value.detach().reshape(matrix_shape(value.shape))
                found[:, m] = along(factors[name], matrix).cpu()
        rows.append(found)
    return torch.cat(rows)


class Sketcher:
    """Random projections of every example's gradient, one parameter at a time.

    Args:
        examples: of the model in its present state.
        seed: of the projections, see `geomix.measures.sketch.projection`.
        entries: K, a square.
    """

    def __init__(self, examples: PerExample, seed: int, entries: int) -> None:
        self.examples = examples
        self.seed = seed
        self.entries = entries
        self._onto = {
            name: projection(seed, name, p.shape, entries).to(p.device)
            for name, p in examples.parameters.items()
        }

    def sketch(self, factors: Factors, batch: Batch) -> Tensor:
        """Sketch the examples of one batch, `(B, M, K)` float32 on the CPU."""
        found = torch.zeros(batch.examples, len(self._onto), self.entries)
        with exactly(batch.ids.device):
            for m, (name, onto) in enumerate(self._onto.items()):
                if factors[name]:
                    found[:, m] = projected(factors[name], onto).float().cpu()
        return found

    def of(self, calls: Sequence[Call], batch: Batch) -> Tensor:
        """Sketch the same from the calls of a pass that kept them (`Capture`)."""
        return self.sketch(self.examples.factors(calls, batch, self._onto), batch)


def sketches(
    examples: PerExample, batches: Iterable[Batch], seed: int, entries: int = 64
) -> Tensor:
    """Sketch every example's gradient, see `Sketcher`.

    Args:
        examples: of the model in its present state.
        batches: N examples in all.
        seed: of the projections.
        entries: K, a square.

    Returns:
        `(N, M, K)` float32; inner products of sketches are unbiased for those of gradients, per
        parameter, and so are their sums over parameters.
    """
    sketcher = Sketcher(examples, seed, entries)
    passes = examples.passes(batches)
    return torch.cat([sketcher.sketch(factors, batch) for batch, factors in passes])


def gram_matrices(
    examples: PerExample, batches: Sequence[Batch], memory: int = 1 << 30
) -> Iterator[tuple[str, Tensor]]:
    """Yield inner products of all pairs of per-example gradients, parameter by parameter.

    Args:
        examples: of the model in its present state.
        batches: N examples in all.
        memory: most bytes of factors; materialised gradients may take half as many more. If the
            factors of all parameters do not fit, the batches are run once for every group of
            parameters that does.

    Yields:
        A parameter's name and `(N, N)` float64, symmetric; the sum over the parameters is the Gram
        matrix of whole gradients.
    """
    tokens = sum(batch.ids.numel() for batch in batches)
    counts = [batch.examples for batch in batches]
    for names in _groups(examples.parameters, tokens, memory):
        held = [factors for _, factors in examples.passes(batches, names)]
        for name in names:
            shape = matrix_shape(examples.parameters[name].shape)
            mine = [factors.pop(name) for factors in held]
            yield name, gram_matrix(mine, counts, shape, memory // 2)


def _groups(
    parameters: Mapping[str, nn.Parameter], tokens: int, memory: int
) -> Iterator[list[str]]:
    """Yield groups of parameters, in order, whose factors fit in the memory together."""
    group: list[str] = []
    used = 0
    for name, parameter in parameters.items():
        needed = 4 * tokens * sum(matrix_shape(parameter.shape))
        if group and used + needed > memory:
            yield group
            group, used = [], 0
        group.append(name)
        used += needed
    yield group
