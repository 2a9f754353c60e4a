"""Gathering of several processes' shares of a probe set into one record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomix.models.distributed import Workers
from geomix.snapshots.schema import ModuleRecord, ProbeRecord

_PER_EXAMPLE = ("loss", "exact", "sketches")
_RAGGED = ("positions", "targets")
_KEPT = ("activations", "gradients", "lens_rank", "lens_logprob")
_NOTHING = np.zeros(0, dtype=np.uint8)


def gather_record(record: ProbeRecord, examples: int, workers: Workers) -> ProbeRecord:
    """Return the record of a whole set in the first process; elsewhere this process's own.

    Args:
        record: of this process's share (`Workers.share`): of P processes, number r has the examples
            r, r + P and so on; padding beyond the set is dropped.
        examples: of the whole set.
        workers: the processes.
    """
    if workers.world == 1:
        return record
    arrays = _arrays(record, workers.world)
    names = sorted({name for one in workers.everyone(list(arrays)) for name in one})
    parts = {name: workers.collected(arrays.get(name, _NOTHING)) for name in names}
    if not workers.main:
        return record
    order = [(index % workers.world, index // workers.world) for index in range(examples)]
    bounds = [np.cumsum([0, *counts]) for counts in parts["counts"]]
    found: dict[str, Any] = {
        name: np.array([parts[name][rank][place] for rank, place in order])
        for name in _PER_EXAMPLE
        if name in names
    }
    for name in set(names) - {*_PER_EXAMPLE, "counts"}:
        rows = [parts[name][r][bounds[r][place] : bounds[r][place + 1]] for r, place in order]
        found[name] = np.concatenate([one for one in rows if len(one)])
    counts = [parts["counts"][rank][place] for rank, place in order]
    if record.sketches is not None:
        found["sketches"] = replace(record.sketches, values=found["sketches"])
    modules = [name.removeprefix("output:") for name in names if name.startswith("output:")]
    return replace(
        record,
        offsets=np.cumsum([0, *counts], dtype=np.int64),
        modules={
            name: ModuleRecord(found.pop(f"output:{name}"), found.pop(f"gradient:{name}"))
            for name in modules
        },
        **found,
    )


def _arrays(record: ProbeRecord, world: int) -> dict[str, NDArray[Any]]:
    """Return the existing arrays, by name.

    Each process's weights are `world` times those of the whole set (`Workers.share`), and so are
    its gradients of activations and of single examples; this divides them.
    """
    found: dict[str, NDArray[Any]] = {"counts": np.diff(record.offsets)}
    if record.sketches is not None:
        found["sketches"] = record.sketches.values / np.float32(world)
    for name in ("loss", "exact", *_RAGGED, *_KEPT):
        array = getattr(record, name)
        if array is not None:
            found[name] = array / np.float32(world) if name == "gradients" else array
    for name, module in record.modules.items():
        found[f"output:{name}"] = module.activations
        found[f"gradient:{name}"] = module.gradients / np.float32(world)
    return found
