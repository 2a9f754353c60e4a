"""Detection, by test, of models in which one row of a batch affects another row's output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from geomix.data.batch import Batch
from geomix.models.forward import plain_forward
from geomix.models.packing import tolerance
from geomix.models.positions import positions_of

_SHORT, _LONG, _LONG_EXPERTS = 4, 128, 1024
"""Tokens of the neighbours: as many as the tested text, at most this many, and at most this many
for models with experts, which may take only so many tokens of a batch."""

_WORK = {"cpu": 2e11}
_WORK_OF_OTHERS = 2e13
"""Most floating-point operations of the long neighbours: a second or so."""


@torch.no_grad()
def neighbour_problem(model: Any, first: int, last: int) -> str | None:
    """Describe how a text's logits depend on the other rows of its batch; None if they do not.

    A text is run alone, then as the last row after long ones, in evaluation mode and, without
    dropout, in training mode. This finds batch statistics, experts that take a limited number of
    tokens, and position factors chosen for a whole pass.

    Args:
        model: a causal LM in evaluation mode; it is left unchanged.
        first: an ordinary token id.
        last: another one.
    """
    mine = [first, last, last, first]
    length = _long(model)
    for training in (False, True):
        if _differs(model, mine, length, training=training):
            mode = " in training" if training else ""
            return (
                f"what it gives for a text changes{mode} with the other texts of the batch (found "
                f"with neighbours of {length} tokens), as batch statistics or experts of limited "
                "capacity do; geomix needs a model that treats each text by itself"
            )
    return None


def _long(model: Any) -> int:
    """Return the tokens of a neighbour: as many as the model takes, within a second or so."""
    weights = sum(p.numel() for p in model.parameters())
    work = _WORK.get(next(model.parameters()).device.type, _WORK_OF_OTHERS)
    affordable = int(work / (2 * 2 * weights))  # two rows, two operations a weight
    experts = any("expert" in key for key in model.config.to_dict())
    most = min(_LONG_EXPERTS if experts else _LONG, affordable)
    return positions_of(model.config).up_to(max(_SHORT, most))


def _differs(model: Any, mine: Sequence[int], length: int, *, training: bool) -> bool:
    """Return whether neighbours of this length change the text's logits."""
    forward = plain_forward(model)
    device = next(model.parameters()).device
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()} if training else {}
    model.train(training)
    try:
        with _WithoutDropout():
            alone = forward(_rows([], mine).to(device)).float()
            again = forward(_rows([], mine).to(device)).float()
            most = alone.abs().max() * tolerance(model)
            if (alone - again).abs().max() > most:  # it draws random numbers: nothing to compare
                return False
            neighbours = [[token] * length for token in (mine[0], mine[1])]
            beside = forward(_rows(neighbours, mine).to(device)).float()
            return bool((beside - alone).abs().max() > most)
    finally:
        model.train(False)
        for name, buffer in model.named_buffers():
            if name in kept:
                buffer.copy_(kept[name])


class _WithoutDropout(TorchFunctionMode):
    """Context in which functional dropout keeps everything."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func is functional.dropout:
            return args[0] if args else given["input"]
        if func is functional.scaled_dot_product_attention:
            given["dropout_p"] = 0.0
            args = args[:4]
        return func(*args, **given)


def _rows(neighbours: Sequence[Sequence[int]], mine: Sequence[int]) -> Batch:
    """Build a batch with one row a text, mine last; logits are computed for mine."""
    texts = [*neighbours, mine]
    width, n = max(map(len, texts)), len(mine)
    ids = torch.full((len(texts), width), mine[0])
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
    positions: Tensor = torch.arange(width).expand(len(texts), width)
    return Batch(
        ids=ids,
        positions=positions,
        rows=torch.full((n,), len(neighbours)),
        columns=torch.arange(n),
        targets=torch.tensor(mine),
        owners=torch.zeros(n, dtype=torch.int64),
        weights=torch.ones(n, dtype=torch.float64),
        examples=1,
    )
