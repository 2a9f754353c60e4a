"""Memory of a training step, measured by running the step on tensors without data.

The model is built from its configuration, prepared as for training and given fake tensors (shapes,
types and lifetimes, no data), and one micro-batch goes through the very functions that training
calls. What is alive is counted after every operation, so that whatever autograd keeps is counted
for any architecture: under sdpa the inputs of every matrix product, normalisation and activation,
q, k, v and the output of the attention, with bf16 autocast also the bfloat16 copies of the weights.

Rows count as packed: with several examples in a row, attention gets a mask and, where key and value
heads are shared, a copy of them for every head.

Not counted: memory that kernels use inside an operation, the caching allocator's rounding, and the
libraries themselves (a CUDA context is about 0.5 GB).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from geomix.data.batch import Batch, chunks, packed_rows
from geomix.data.example import TokenisedExample
from geomix.models.loss import weighted_loss
from geomix.models.meta import weightless
from geomix.planning.alive import Alive
from geomix.planning.depth import SHALLOW, alike, peak, truncate
from geomix.training.step import training_forward

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Size of one forward pass.

    Attributes:
        rows: of tokens.
        width: tokens of a row, padding included.
        targets: positions at which a target token is predicted, where the output head runs.
    """

    rows: int
    width: int
    targets: int

    @property
    def tokens(self) -> int:
        """All tokens, padding included."""
        return self.rows * self.width


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a training step, in bytes.

    Attributes:
        weights: parameters and buffers.
        gradients: of the trained parameters.
        adam: both moments.
        activations: those that autograd keeps at the end of the forward pass, without logits.
        logits: the logits, the loss's copies of them, and their gradient.
        pass_alone: peak of a forward and backward pass that starts without gradients, including
            weights but not Adam's moments.
        pass_after: the same if the gradients of an earlier pass exist and are added to.
    """

    weights: int
    gradients: int
    adam: int
    activations: int
    logits: int
    pass_alone: int
    pass_after: int

    def step(self, passes: int) -> int:
        """Return the peak bytes of a step with this many forward passes."""
        highest = self.pass_alone if passes <= 1 else self.pass_after
        return self.adam + max(highest, self.weights + self.gradients)

    def snapshot(self, sets: int) -> int:
        """Return the peak bytes while the gradients of so many probe sets are recorded.

        The gradients of the previous sets are kept beside those being computed.
        """
        highest = max(self.pass_after if sets else 0, self.weights + self.gradients)
        return self.adam + max(sets - 1, 0) * self.gradients + highest


@dataclass(frozen=True, slots=True)
class Size:
    """Size of a model.

    Attributes:
        parameters: all of them, tied ones once.
        trainable: those that are trained.
        tensors: number of trained tensors.
        layers: decoder layers.
        features: of the residual stream.
        item: bytes of one parameter.
    """

    parameters: int
    trainable: int
    tensors: int
    layers: int
    features: int
    item: int


def micro_batches(
    examples: Sequence[TokenisedExample], size: int, width: int | None
) -> list[MicroBatch]:
    """Return the forward passes over examples of one source."""
    found = []
    for part in chunks(examples, size):
        rows, filled = packed_rows([len(e.ids) for e in part], width)
        found.append(MicroBatch(len(rows), filled, sum(e.target_tokens for e in part)))
    return found


def largest(shapes: Sequence[MicroBatch]) -> MicroBatch:
    """Return the pass with the most tokens, with the most targets of any."""
    most = max(shapes, key=lambda shape: shape.tokens)
    return MicroBatch(most.rows, most.width, max(shape.targets for shape in shapes))


def size_of(model: nn.Module) -> Size:
    """Return the size of a model, which may be on the meta device."""
    parameters = list(model.parameters())
    trained = [p for p in parameters if p.requires_grad]
    text = model.config.get_text_config()  # type: ignore[union-attr, operator]
    return Size(
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in trained),
        tensors=len(trained),
        layers=text.num_hidden_layers,
        features=text.hidden_size,
        item=parameters[0].element_size(),
    )


def memory_of(
    config: Any,
    micro: MicroBatch,
    precision: str,
    dtype: torch.dtype = torch.float32,
    prepare: Callable[[nn.Module], nn.Module] = lambda model: model,
    *,
    whole: bool = False,
) -> Memory:
    """Measure the memory of a training step on micro-batches of one size.

    Args:
        config: of transformers.
        micro: the size.
        precision: of the forward pass, as in the configuration.
        dtype: of the weights, gradients and moments.
        prepare: freezes parameters, adds some, or turns gradient checkpointing on, in place.
        whole: measure every layer, even if the layers are alike and two depths would suffice.
    """

    def measured(layers: int | None = None) -> _Measured:
        with torch.device("meta"):  # peft cannot put adapters on fake tensors
            model = prepare(weightless(config, dtype))
        if layers is not None:
            truncate(model, layers)
        return _measure(model, micro, precision, dtype)

    with torch.device("meta"):
        layers = 0 if whole else alike(prepare(weightless(config, dtype)))
    if layers > SHALLOW + 2:  # else it is not less work
        found = _deeper(measured(SHALLOW), measured(SHALLOW + 1), layers - SHALLOW)
        if found is not None:
            return found
    return _memory(measured())


@dataclass(frozen=True, slots=True)
class _Measured:
    """Bytes of one model, and those of a pass after each of its operations.

    Attributes:
        held: weights and buffers, gradients, activations, logits, as in `Memory`.
        passes: the backward pass without gradients; forward and backward pass beside them.
    """

    held: tuple[int, int, int, int]
    passes: tuple[list[int], list[int], list[int]]


def _measure(model: nn.Module, micro: MicroBatch, precision: str, dtype: torch.dtype) -> _Measured:
    """Run the passes of a training step on fake tensors, for a model on the meta device."""
    with FakeTensorMode(allow_non_fake_inputs=True), Alive() as alive:
        _materialise(model, dtype)
        trained = [p for p in model.parameters() if p.requires_grad]
        gradients = sum(p.numel() * p.element_size() for p in trained)
        weights = alive.now
        batch = _batch(micro)
        base = alive.now
        forward = training_forward(model, precision, _CPU)

        logits = forward(batch)
        kept = alive.now - base - logits.nbytes

        alive.begin()
        torch.autograd.backward(weighted_loss(logits, batch))
        first = alive.trace()
        alone = logits.detach().requires_grad_()
        del logits
        before = alive.now - alone.nbytes
        alive.begin()
        torch.autograd.backward(weighted_loss(alone, batch))
        of_logits = max(alive.trace()) - before
        del alone
        alive.begin()
        logits = forward(batch)
        again = alive.trace()
        alive.begin()
        torch.autograd.backward(weighted_loss(logits, batch))
    return _Measured((weights, gradients, kept, of_logits), (first, again, alive.trace()))


def _memory(found: _Measured) -> Memory:
    first, *after = (max(trace) for trace in found.passes)
    return _of(found.held, first, max(after))


def _deeper(few: _Measured, more: _Measured, further: int) -> Memory | None:
    """Extrapolate to a model with `further` layers more; None if the two depths do not fit."""
    peaks = [peak(a, b, further) for a, b in zip(few.passes, more.passes, strict=True)]
    first, *after = (p for p in peaks if p is not None)
    if len(after) + 1 < len(peaks):
        return None
    held = (a + further * (b - a) for a, b in zip(few.held, more.held, strict=True))
    return _of(tuple(held), first, max(after))


def _of(held: tuple[int, ...], alone: int, after: int) -> Memory:
    weights, gradients, activations, logits = held
    return Memory(weights, gradients, 2 * gradients, activations, logits, alone, after)


def _materialise(model: nn.Module, dtype: torch.dtype) -> None:
    """Move a model from the meta device to the CPU, in place; its parameters become `dtype`.

    Adapters take the type of the weights when they are added to real ones. Tied tensors stay tied.
    """
    moved: dict[Tensor, Tensor] = {}

    def here(tensor: Tensor) -> Tensor:
        if tensor not in moved:
            if isinstance(tensor, nn.Parameter):
                empty = torch.empty(tensor.shape, dtype=dtype, device=_CPU)
                moved[tensor] = nn.Parameter(empty, requires_grad=tensor.requires_grad)
            else:
                moved[tensor] = torch.empty_like(tensor, device=_CPU)
        return moved[tensor]

    for module in model.modules():
        # Rotary embeddings also keep their frequencies in a plain attribute.
        holders: tuple[dict[str, Any], ...] = (module._parameters, module._buffers, vars(module))
        for held in holders:
            held.update({key: here(t) for key, t in held.items() if isinstance(t, Tensor)})


def _batch(micro: MicroBatch) -> Batch:
    def whole(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.int64)

    n = micro.targets
    return Batch(
        ids=whole(micro.rows, micro.width),
        positions=whole(micro.rows, micro.width),
        rows=whole(n),
        columns=whole(n),
        targets=whole(n),
        owners=whole(n),
        weights=torch.zeros(n, dtype=torch.float64),
        examples=micro.rows,
    )
