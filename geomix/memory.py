"""How much memory a training step will take: the step itself, run on tensors that hold nothing.

The model is made from its configuration, prepared as training does and given fake tensors (shapes,
types and lifetimes, no data), and one micro-batch goes through the very functions that training
calls. What is alive is counted after every operation, so that whatever autograd keeps is counted
for any architecture: under sdpa the inputs of every matrix product, normalisation and activation,
q, k, v and the output of the attention, with bf16 autocast also the bfloat16 copies of the weights.

Rows count as packed: with several examples in a row, attention gets a mask and, where key and value
heads are shared, a copy of them for every head.

Not seen: what kernels take inside an operation, the caching allocator's rounding, and the
libraries themselves (a CUDA context is about 0.5 GB).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from geomix.data.batch import Batch, chunks, laid_out
from geomix.data.example import TokenisedExample
from geomix.model.loss import weighted_loss
from geomix.model.shape import weightless
from geomix.train.step import training_forward

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The size of one forward pass.

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
        """All of them, padding included."""
        return self.rows * self.width


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that a training step takes.

    Attributes:
        weights: parameters and buffers.
        gradients: of the trained parameters.
        adam: both moments.
        activations: what autograd keeps at the end of the forward pass, logits excluded.
        logits: the logits, what the loss keeps of them, and their gradient.
        pass_alone: most that is alive in a forward and backward pass that begins without gradients,
            weights included and Adam's moments not.
        pass_after: the same where the gradients of an earlier pass are there to be added to.
    """

    weights: int
    gradients: int
    adam: int
    activations: int
    logits: int
    pass_alone: int
    pass_after: int

    def step(self, passes: int) -> int:
        """Most bytes that are alive in a step of so many forward passes."""
        highest = self.pass_alone if passes <= 1 else self.pass_after
        return self.adam + max(highest, self.weights + self.gradients)

    def snapshot(self, sets: int) -> int:
        """Most bytes while the gradients of so many probe sets are recorded in such passes.

        Those of the sets before are kept beside the one that is being computed.
        """
        highest = max(self.pass_after if sets else 0, self.weights + self.gradients)
        return self.adam + max(sets - 1, 0) * self.gradients + highest


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a model.

    Attributes:
        parameters: all of them, tied ones once.
        trainable: those that are trained.
        tensors: how many tensors the trained ones are.
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
    """The forward passes over examples of one source."""
    found = []
    for part in chunks(examples, size):
        rows, filled = laid_out([len(e.ids) for e in part], width)
        found.append(MicroBatch(len(rows), filled, sum(e.target_tokens for e in part)))
    return found


def largest(shapes: Sequence[MicroBatch]) -> MicroBatch:
    """The one with the most tokens, and the most targets of any."""
    most = max(shapes, key=lambda shape: shape.tokens)
    return MicroBatch(most.rows, most.width, max(shape.targets for shape in shapes))


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that operations make, as long as they are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known: dict[int, weakref.ref[Any]] = {}
        self.now = 0
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return out

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return

        def gone(_: object) -> None:
            del self._known[key]
            self.now -= size

        self._known[key] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)


def size_of(model: nn.Module) -> Size:
    """The size of a model, which may be on the meta device."""
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
) -> Memory:
    """The memory of a training step on micro-batches of one size.

    Args:
        config: of transformers.
        micro: the size.
        precision: of the forward pass, as the configuration has it.
        dtype: of the weights, gradients and moments.
        prepare: freezes parameters, adds some, or turns gradient checkpointing on, in place.
    """
    with torch.device("meta"):  # peft cannot put adapters on fake tensors
        model = prepare(weightless(config, dtype))
    with FakeTensorMode(allow_non_fake_inputs=True), _Alive() as alive:
        _materialise(model, dtype)
        trained = [p for p in model.parameters() if p.requires_grad]
        gradients = sum(p.numel() * p.element_size() for p in trained)
        weights = alive.now
        batch = _batch(micro)
        base = alive.now
        forward = training_forward(model, precision, _CPU)

        logits = forward(batch)
        kept = alive.now - base - logits.nbytes

        alive.most = alive.now
        torch.autograd.backward(weighted_loss(logits, batch))
        pass_alone = alive.most
        alone = logits.detach().requires_grad_()
        del logits
        before = alive.now - alone.nbytes
        alive.most = alive.now
        torch.autograd.backward(weighted_loss(alone, batch))
        of_logits = alive.most - before
        del alone
        alive.most = alive.now
        torch.autograd.backward(weighted_loss(forward(batch), batch))
        pass_after = alive.most
    return Memory(weights, gradients, 2 * gradients, kept, of_logits, pass_alone, pass_after)


def _materialise(model: nn.Module, dtype: torch.dtype) -> None:
    """Move a model from the meta device to the CPU, in place; its parameters become `dtype`.

    Adapters take the type of the weights when they are put on real ones. Tied tensors stay tied.
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
        places: tuple[dict[str, Any], ...] = (module._parameters, module._buffers, vars(module))
        for held in places:
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
