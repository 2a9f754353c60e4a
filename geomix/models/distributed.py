"""Training of one model by several processes: division of the work, and agreement.

Each process has the whole configuration and the same global batches. It computes the gradient of
its share of every batch; the sum over the processes is the batch's gradient for any number of them.
Only process 0 writes. They are started by `torchrun` or `accelerate launch`.
"""

from __future__ import annotations

import datetime
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from geomix.models.layers import decoder_layers
from geomix.models.load import CPU, default_device
from geomix.util.errors import UserError

Kind = Literal["ddp", "fsdp"]

TIMEOUT = datetime.timedelta(hours=1)
"""Longest wait for a live process, as while process 0 records or writes. A dead one is noticed at
once: by its lost connection, and by the launcher."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Workers:
    """Processes of a training, seen from one of them.

    Attributes:
        rank: index of this process, from 0.
        world: number of processes.
        kind: `ddp`: each holds the whole model; `fsdp`: each holds a shard of every parameter,
            gradient and moment.
        device: where this one computes.
    """

    rank: int = 0
    world: int = 1
    kind: Kind = "ddp"
    device: torch.device = CPU

    @property
    def main(self) -> bool:
        """True in the process that writes."""
        return self.rank == 0

    def share(self, pairs: Sequence[tuple[T, float]]) -> list[tuple[T, float]]:
        """Return this process's part of weighted examples: equally many in each, to stay in step.

        If the number is not divisible, an example is repeated with a weight of zero. Weights are
        multiplied by the number of processes, whose gradients are averaged.
        """
        spare = -len(pairs) % self.world
        filled = [*pairs, *[(example, 0.0) for example, _ in pairs[:1]] * spare]
        mine = filled[self.rank :: self.world]
        return [(example, weight * self.world) for example, weight in mine]

    def mine(self, first: int | None) -> int | None:
        """Return how many of a set's first examples are in this process's share; None for all."""
        return None if first is None else len(range(self.rank, first, self.world))

    def prepare(self, model: nn.Module) -> None:
        """Shard the model's parameters over the processes, in place, once per run."""
        if self.world == 1 or self.kind == "ddp" or isinstance(model, FSDPModule):
            return
        mesh = init_device_mesh(self.device.type, (self.world,))
        for _, layer in decoder_layers(model):
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)

    def wrapped(self, model: nn.Module) -> nn.Module:
        """Return the module that runs the training's forward pass, for one stage."""
        if self.world == 1 or self.kind == "fsdp":
            return model
        return DistributedDataParallel(
            model,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            find_unused_parameters=_has_experts(model),
        )

    def alone(self, model: nn.Module | None, *, last: bool) -> AbstractContextManager[object]:
        """Return the context of a micro-batch; only the last one's gradient is exchanged."""
        if isinstance(model, DistributedDataParallel) and not last:
            found: AbstractContextManager[object] = model.no_sync()
            return found
        return nullcontext()

    def total(self, value: float) -> float:
        """Sum a value over the processes; the result has the same bits in each."""
        if self.world == 1:
            return value
        held = torch.tensor([value], dtype=torch.float64, device=_wire(self.device))
        distributed.all_reduce(held)
        return float(held.item())

    def any(self, *flags: bool) -> list[bool]:
        """Return which flags are set in any process."""
        if self.world == 1:
            return list(flags)
        held = torch.tensor([int(flag) for flag in flags], device=_wire(self.device))
        distributed.all_reduce(held, op=distributed.ReduceOp.MAX)
        return [bool(flag) for flag in held.tolist()]

    def spread(self, items: Sequence[T], work: Callable[[Sequence[T]], list[Any]]) -> list[Any]:
        """Divide work on items among the processes; every process gets all results, in order.

        Args:
            items: the same in every process.
            work: returns for each item a value that JSON can hold.
        """
        if self.world == 1:
            return work(items)
        mine = items[self.rank :: self.world]
        parts = self._gathered(work(mine) if mine else [])
        found: list[Any] = [None] * len(items)
        for rank, part in enumerate(parts):
            found[rank :: self.world] = part
        return found

    def first(self, work: Callable[[], T]) -> T:
        """Do work in process 0 alone; every process gets its result, which JSON can hold.

        Raises:
            UserError: process 0 failed; it reports why itself.
        """
        if self.world == 1:
            return work()
        done: list[T] = []
        try:
            done += [work()] if self.main else []
        finally:
            found: list[T] = self._gathered(done)[0]
        if not found:
            raise UserError("process 0 failed")
        return found[0]

    def _gathered(self, value: Any) -> list[Any]:
        """Gather each process's value, by rank; as JSON, since nothing is ever unpickled."""
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        wire = _wire(self.device)
        sizes = [size.to(wire) for size in sizes]
        distributed.all_gather(sizes, torch.tensor([len(data)], device=wire))
        longest = max(int(size.item()) for size in sizes)
        filled = torch.zeros(longest, dtype=torch.uint8, device=wire)
        filled[: len(data)] = data.to(wire)
        parts = [torch.zeros_like(filled) for _ in range(self.world)]
        distributed.all_gather(parts, filled)
        return [
            json.loads(bytes(part[: int(size.item())].tolist()))
            for part, size in zip(parts, sizes, strict=True)
        ]

    def averaged(
        self, gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]
    ) -> list[Tensor | None]:
        """Average gradients over processes that each computed its share of the examples.

        Args:
            gradients: as in `.grad` here, outside of `wrapped`; None where the loss does not depend
                on the parameter.
            parameters: theirs.

        Returns:
            Under `ddp` the whole mean in each process, under `fsdp` this one's shards of it.
        """
        if self.world == 1:
            return list(gradients)
        if self.kind == "fsdp":  # its backward pass has exchanged them
            return [None if gradient is None else local(gradient) for gradient in gradients]
        reached = self.any(*[gradient is not None for gradient in gradients])
        found: list[Tensor | None] = []
        for gradient, parameter, anywhere in zip(gradients, parameters, reached, strict=True):
            if not anywhere:
                found.append(None)
                continue
            mean = torch.zeros_like(parameter) if gradient is None else gradient
            distributed.all_reduce(mean)
            found.append(mean.div_(self.world))
        return found

    def summed(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum each process's values from its shards; unchanged where each holds the whole."""
        if self.world == 1 or self.kind == "ddp":
            return values
        held = torch.from_numpy(values).to(_wire(self.device))
        distributed.all_reduce(held)
        return held.cpu().numpy()

    def collected(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """Gather the arrays of all processes, of any shapes, by rank in process 0 only."""
        if self.world == 1:
            return [values]
        shapes = self._gathered([values.dtype.str, list(values.shape)])
        sizes = [math.prod(shape) * np.dtype(kind).itemsize for kind, shape in shapes]
        filled = torch.zeros(max(sizes), dtype=torch.uint8, device=_wire(self.device))
        data = np.frombuffer(values.tobytes(), dtype=np.uint8)
        filled[: len(data)] = torch.tensor(data).to(filled.device)
        parts = [torch.zeros_like(filled) for _ in shapes] if self.main else None
        distributed.gather(filled, parts)
        return [
            np.frombuffer(part.cpu().numpy()[:size].tobytes(), kind).reshape(shape)
            for part, size, (kind, shape) in zip(parts or (), sizes, shapes, strict=self.main)
        ]

    def everyone(self, value: Any) -> list[Any]:
        """Gather every process's value, by rank, in every process; a value that JSON can hold."""
        return [value] if self.world == 1 else self._gathered(value)

    def leave(self) -> None:
        """Leave the process group, if there is one."""
        if self.world > 1 and distributed.is_initialized():
            distributed.destroy_process_group()

    @contextmanager
    def unsharded(self, model: nn.Module) -> Iterator[None]:
        """Hold the whole model in every process, so that each can run it alone."""
        if self.world == 1 or not isinstance(model, FSDPModule):
            yield
            return
        parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for part in parts:
            part.unshard()
            part.set_reshard_after_forward(False, recurse=False)
        try:
            yield
        finally:
            for part in parts:
                part.set_reshard_after_forward(True, recurse=False)
                part.reshard()


ALONE = Workers()
"""The one process of an ordinary training, on the CPU."""


def workers_here(kind: Kind) -> Workers:
    """Return the processes that this one was started with: one, unless a launcher set more.

    Args:
        kind: how they share the training.
    """
    rank, world = _launched()
    if world == 1:
        return Workers(device=default_device())
    absent = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if absent or not 0 <= rank < world:
        wrong = f"{absent[0]} is not set" if absent else f"RANK is {rank}"
        raise UserError(
            f"WORLD_SIZE is {world}, and {wrong}; start several processes with torchrun or "
            "accelerate launch, or unset WORLD_SIZE"
        )
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=TIMEOUT)
    return Workers(state.process_index, state.num_processes, kind, state.device)


def _launched() -> tuple[int, int]:
    """Return this process's rank, and the number of processes from the launcher."""
    found = []
    for name, usual in (("RANK", "0"), ("WORLD_SIZE", "1")):
        value = os.environ.get(name) or usual
        if name == "RANK" and os.environ.get("WORLD_SIZE") in (None, "", "1"):
            value = usual  # left behind by something else
        if not value.isdecimal() or (name == "WORLD_SIZE" and int(value) == 0):
            raise UserError(f"{name} is '{value}', no number of processes; unset it")
        found.append(int(value))
    return found[0], found[1]


def lost(error: RuntimeError) -> bool:
    """Return whether an error reports that another process has gone."""
    reasons = ("onnection closed", "onnection reset", "roken pipe", "Gloo", "gloo")
    return isinstance(error, distributed.DistError) or any(part in str(error) for part in reasons)


def whole(tensor: Tensor) -> Tensor:
    """Return a sharded tensor gathered in every process; any other unchanged."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_like(shard: Tensor, other: Tensor) -> Tensor:
    """Wrap this process's shard as a tensor sharded like another, if that is sharded."""
    if not isinstance(other, DTensor):
        return shard
    return DTensor.from_local(
        shard, other.device_mesh, other.placements, shape=other.shape, stride=other.stride()
    )


def local(tensor: Tensor) -> Tensor:
    """Return this process's shard of a sharded tensor, in the same memory; any other unchanged."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor in process 0's memory (empty elsewhere); keep any other unchanged."""
    if not isinstance(tensor, DTensor):
        return tensor
    full = tensor.full_tensor()
    return full.cpu() if distributed.get_rank() == 0 else full.new_empty(0)


def like(tensor: Tensor, other: Tensor) -> Tensor:
    """Place a whole tensor like another one: on its device, with its sharding."""
    if isinstance(other, DTensor):
        device = other.device_mesh.device_type
        return distribute_tensor(tensor.to(device), other.device_mesh, other.placements)
    return tensor.to(other.device)


def shard_of(tensor: Tensor, other: Tensor) -> Tensor:
    """Return this process's shard of a tensor, whole or sharded, by another tensor's sharding."""
    return local(tensor if isinstance(tensor, DTensor) else like(tensor, other))


def _wire(device: torch.device) -> torch.device:
    """Return the device for exchanging small values: NCCL knows GPUs only."""
    return device if device.type == "cuda" else torch.device("cpu")


def _has_experts(model: nn.Module) -> bool:
    """Return whether a batch may leave parameters without a gradient (a mixture of experts)."""
    config = getattr(model, "config", None)
    return any(getattr(config, f"num_{kind}experts", None) for kind in ("", "local_", "routed_"))
