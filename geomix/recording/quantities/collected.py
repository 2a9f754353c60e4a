"""The quantities of one probe set, collected batch by batch and gathered over processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomix.config.quantities import QuantityOptions
from geomix.models.distributed import Workers
from geomix.recording.quantities import QUANTITIES
from geomix.recording.quantities.base import Arrays, ProbeBatch, ProbeSet, Quantity
from geomix.snapshots.schema import QuantityRecord
from geomix.snapshots.variables import Block, Variable
from geomix.util.errors import UserError

_LABELS = {
    "example": "index in the probe set",
    "position": "row of the ragged arrays",
    "parameter": "name in model.named_parameters()",
}
_ROWS = ("example", "position")


def quantities_of(given: Sequence[QuantityOptions]) -> dict[str, Quantity]:
    """Build the quantities of a configuration, by name."""
    built: dict[str, Quantity] = {}
    for options in given:
        kind: Any = QUANTITIES[options.name]
        built[options.name] = kind(options)
    return built


def declared(quantity: Quantity | type[Quantity]) -> Block:
    """Return a quantity's variables as the block of a file, with their coordinates."""
    dims = dict.fromkeys(dim for one in quantity.variables for dim in one.dims)
    known = {**_LABELS, **quantity.coordinates}
    return Block({dim: known.get(dim, dim) for dim in dims}, quantity.variables)


def check_quantities(given: Sequence[QuantityOptions], workers: Workers) -> None:
    """Reject a quantity of whole gradients if those are sharded.

    Raises:
        UserError: it names the quantity.
    """
    for name, quantity in quantities_of(given).items():
        whole = any(one.dims[0] not in _ROWS for one in quantity.variables)
        if whole and workers.world > 1 and workers.kind == "fsdp":
            raise UserError(
                f"parallel: fsdp: record.quantities: {name} needs whole gradients in each process; "
                "set parallel: ddp"
            )


@dataclass
class Collected:
    """The collected quantities of one set.

    Attributes:
        quantities: by name.
        rows: rows of each quantity and variable, batch by batch.
        counts: target tokens of each example, batch by batch.
    """

    quantities: Mapping[str, Quantity]
    rows: dict[tuple[str, str], list[NDArray[Any]]] = field(default_factory=dict)
    counts: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, seen: ProbeBatch) -> None:
        """Add a batch.

        Raises:
            UserError: a quantity returns other arrays than it declares.
        """
        batch = seen.batch
        self.counts.append(torch.bincount(batch.owners.cpu(), minlength=batch.examples).numpy())
        sizes = {"example": batch.examples, "position": len(batch.targets)}
        for name, quantity in self.quantities.items():
            wanted = [one for one in quantity.variables if one.dims[0] in _ROWS]
            for key, array in _checked(name, wanted, quantity.collect(seen)).items():
                first = next(one.dims[0] for one in wanted if one.name == key)
                if len(array) != sizes[first]:
                    _mistaken(name, f"{key} has {len(array)} rows, not {sizes[first]}")
                self.rows.setdefault((name, key), []).append(array)

    def joined(self, probe: ProbeSet, workers: Workers) -> dict[str, QuantityRecord]:
        """Return the records of the whole set; in processes but the first, only of their own rows.

        Args:
            probe: the whole set.
            workers: the processes that share it.
        """
        return {
            name: self._record(name, quantity, probe, workers)
            for name, quantity in self.quantities.items()
        }

    def _record(
        self, name: str, quantity: Quantity, probe: ProbeSet, workers: Workers
    ) -> QuantityRecord:
        counts = np.concatenate(self.counts)
        rows: list[Variable] = []
        rest: list[Variable] = []
        for one in quantity.variables:
            (rows if one.dims[0] in _ROWS else rest).append(one)
        arrays = dict(_checked(name, rest, quantity.finish(probe)))
        for one in rows:
            mine = np.concatenate(self.rows[name, one.name])
            if one.name in quantity.weighted:
                mine = mine / np.asarray(workers.world, mine.dtype)
            arrays[one.name] = gathered(mine, one, counts, len(probe.examples), workers)
        return QuantityRecord(declared(quantity), arrays, quantity.labels())


def gathered(
    mine: NDArray[Any],
    variable: Variable,
    counts: NDArray[np.int64],
    examples: int,
    workers: Workers,
) -> NDArray[Any]:
    """Gather the rows of all processes in the set's order, in process 0; others return their own.

    Of W processes, number r has the examples r, r + W and so on (`Workers.share`).

    Args:
        mine: rows of this process, one per example or one per target token.
        variable: the variable.
        counts: target tokens of each of this process's examples.
        examples: examples of the whole set; further ones of the processes are dropped.
        workers: the processes.
    """
    if workers.world == 1:
        return mine
    each = counts if variable.dims[0] == "position" else np.ones_like(counts)
    parts, bounds = workers.collected(mine), workers.collected(np.cumsum([0, *each]))
    if not workers.main:
        return mine
    order = [(i % workers.world, i // workers.world) for i in range(examples)]
    return np.concatenate([parts[r][bounds[r][k] : bounds[r][k + 1]] for r, k in order])


def _checked(name: str, variables: Sequence[Variable], found: Arrays) -> dict[str, NDArray[Any]]:
    """Validate arrays by their declaration, and move them to the CPU."""
    wanted = [one.name for one in variables]
    if sorted(found) != sorted(wanted):
        _mistaken(name, f"gives {sorted(found)}, declares {sorted(wanted)}")
    arrays: dict[str, NDArray[Any]] = {}
    for one in variables:
        value = found[one.name]
        array = _numpy(value) if isinstance(value, Tensor) else np.asarray(value)
        if array.ndim != len(one.dims):
            _mistaken(name, f"{one.name} has the shape {array.shape}, declares {one.dims}")
        arrays[one.name] = array.astype(one.dtype)
    return arrays


def _numpy(value: Tensor) -> NDArray[Any]:
    held = value.detach().cpu()
    return (held.float() if held.dtype is torch.bfloat16 else held).numpy()


def _mistaken(name: str, why: str) -> None:
    raise UserError(f"record.quantities: {name} {why}")
