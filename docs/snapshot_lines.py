"""The reference page of snapshots, from a file that holds everything a snapshot can."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from markdown_lines import Line, table

from geomix.recording.quantities import QUANTITIES
from geomix.recording.quantities.collected import declared
from geomix.snapshots.file import write_snapshot
from geomix.snapshots.schema import (
    ORIGIN,
    AdamProducts,
    ModuleRecord,
    PathRecord,
    ProbeRecord,
    QuantityRecord,
    SketchRecord,
    Snapshot,
)
from geomix.snapshots.variables import kept_with
from geomix.snapshots.versions import SCHEMA

_STANDS_FOR = {"SET": "<set>", "MODULE": "<module>", "PARAMETER": "<parameter>"}
_ATTRIBUTES = {
    "format": "what kind of file it is",
    "schema": "version of this layout",
    "geomix_version": "what wrote it; torch, transformers and nnsight likewise",
    "stage": "index of the stage, from 0",
    "stage_name": "its name",
    "step": "optimiser steps done in the stage",
    "steps": "optimiser steps of the whole stage",
    "reduction": "`token` or `example`: the mean that gradients and inner products are of",
    "layers": "decoder layers of the model",
    "tied_head": "whether the output head shares the embedding's tensor",
    "trainable": "parameter tensors that train; a snapshot covers them all",
    "coverage": "the same as text, checked by every reader",
    "path": "`recorded`, or why there is no path",
    "model": "θ_0's name",
    "seed": "the run's",
    "precision": "of the passes",
    "chat_template": "the chat format",
    "training_sha256": "hash of all keys of the configuration that decide the training",
    "texts_sha256": "hash of all texts in the file, which HDF5 does not protect",
    "complete": "written last: without it the file is not read",
}


_SNAPSHOT = f"""# Snapshots

A snapshot is one HDF5 file, `RUN/records/snapshots/stage0-step000120.h5` (stages count from 0): the
model at one step, as its probe sets show it. Layout version {SCHEMA}. It is complete whenever it
exists. Every dimension is an HDF5 dimension scale, so xarray shows labelled axes:

```python
import xarray as xr

import geomix

path = geomix.open_run("runs/demo").arms[0].snapshots()[0]
print(xr.open_dataset(path, group="probes/D_A", engine="h5netcdf"))
```

Numbers carry a checksum (Fletcher-32) and no compression: gradients are noise.
[geomix/snapshots/file.py](../../geomix/snapshots/file.py) writes and reads the file,
[geomix/snapshots/schema.py](../../geomix/snapshots/schema.py) describes it in memory. For whole
runs use [`records`](python-api.md).

- **Gradients** are those of a set's *mean* loss in the run's
  [reduction](../explanation/loss-reduction.md), which the attribute `reduction` names.
- **Layers** count alike everywhere: 0 is what comes before the first block, l is block l. So in
  `probes` 0 is the input of the first block and l the output of block l; in `parameters` those of
  block l have l, and those behind the last block the number of blocks + 1. (Files of schema 3 have
  one less in `parameters`; geomix reads them in today's numbers.)
- **Ragged arrays**: example i owns the rows `offsets[i]` to `offsets[i + 1]` of `position`, one for
  each target token. `kept_position` is the first of them: of the examples that keep activations.
- A probe set's group has the attribute `sha256`, of its token ids and labels."""


def snapshot_lines() -> Line:
    """Yield the page: what the file says of itself, by group."""
    yield _SNAPSHOT
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stage1-step000004.h5"
        write_snapshot(path, _example())
        with h5py.File(path) as file:
            yield from ("", "## Attributes of the file", "")
            known = [name for name in file.attrs if not _VERSION.fullmatch(name)]
            order = [
                *(n for n in _ATTRIBUTES if n in file.attrs),
                *sorted(set(known) - set(_ATTRIBUTES)),
            ]
            rows = [(f"`{n}`", _type(file.attrs[n]), _ATTRIBUTES.get(n, "")) for n in order]
            yield from table(("attribute", "type", "meaning"), rows)
            yield from _groups(file)


_VERSION = re.compile("(torch|transformers|nnsight)_version|_NCProperties")


def _groups(file: h5py.File) -> Line:
    groups: dict[str, list[tuple[str, ...]]] = {}
    scales: dict[str, list[str]] = {}

    def visit(name: str, found: Any) -> None:
        group, _, leaf = name.rpartition("/")
        if isinstance(found, h5py.Group):
            return
        shown = _named(name)
        title, leaf = _named(group), shown.rpartition("/")[2]
        if found.is_scale:
            text = _text(found.attrs.get("description", ""))
            scales.setdefault(title, []).append(f"`{leaf}` ({text})" if text else f"`{leaf}`")
            return
        dims = ", ".join(_named(Path(found.dims[i][0].name).name) for i in range(found.ndim))
        unit = _text(found.attrs.get("units", ""))
        kind = "bool" if _text(found.attrs.get("dtype", "")) == "bool" else _dtype(found.dtype)
        more = sorted(set(found.attrs) - _OF_EVERY)
        text = _text(found.attrs.get("description", ""))
        text += f"; attributes {', '.join(f'`{m}`' for m in more)}" if more else ""
        here = re.sub(r"record\.\w+(: true)?", r"`\g<0>`", kept_with(name)) or "always"
        groups.setdefault(title, []).append((f"`{leaf}`", dims, kind, unit, text, here))

    file.visititems(visit)
    for title, rows in sorted(groups.items(), key=lambda item: _ORDER.index(item[0].split("/")[0])):
        yield from ("", f"## `/{title}`", "")
        yield from table(("variable", "dimensions", "dtype", "unit", "meaning", "kept with"), rows)
        yield from ("", f"Coordinates: {', '.join(scales.get(title, ()))}.")


_ORDER = ("probes", "parameters", "path", "gradients")
_OF_EVERY = {
    "description",
    "units",
    "dtype",
    "DIMENSION_LIST",
    "_Netcdf4Dimid",
    "_Netcdf4Coordinates",
}


def _named(name: str) -> str:
    for word, shown in _STANDS_FOR.items():
        name = name.replace(word, shown)
    return re.sub(r"axis(\d)_\d+", r"axis\1_<n>", name)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _type(value: Any) -> str:
    return "text" if isinstance(value, str | bytes) else _dtype(np.asarray(value).dtype)


def _dtype(dtype: Any) -> str:
    return "text" if dtype.kind in "OSU" else str(dtype)


def _example() -> Snapshot:
    """Build a snapshot with everything that a snapshot can hold."""
    n, p, q, layers, width, k, sources = 2, 4, 2, 3, 5, 4, ("total", "D_B", "decay")
    stream = np.zeros((q, layers, width), np.float32)
    probe = ProbeRecord(
        loss=np.zeros(n),
        exact=np.zeros(n, np.bool_),
        offsets=np.array([0, 2, p]),
        positions=np.zeros(p, np.int64),
        targets=np.zeros(p, np.int64),
        activations=stream,
        gradients=stream,
        lens_rank=np.zeros((q, layers), np.int32),
        lens_logprob=np.zeros((q, layers), np.float32),
        modules={"MODULE": ModuleRecord(stream[:, 0], stream[:, 0])},
        sketches=SketchRecord(np.zeros((n, 1, k), np.float32), 0),
        quantities={
            name: QuantityRecord(
                declared(kind),
                {one.name: np.zeros([p] * len(one.dims), one.dtype) for one in kind.variables},
            )
            for name, kind in QUANTITIES.items()
        },
    )
    products = np.zeros((1, 1, 1))
    nodes, ends = np.zeros((1, 1, 3, len(sources))), np.zeros((1, 1, 2, len(sources)))
    return Snapshot(
        stage=1, stage_name="triples", step=4, steps=10, reduction="token", sets=("SET",),
        probes={"SET": probe}, parameters=("PARAMETER",), sizes=np.array([6]),
        parameter_layers=np.array([0]), parameter_modules=("mlp",), inner_products=products,
        layers=layers - 1, tied_head=True, trainable=1, unreached=np.zeros((1, 1), np.bool_),
        adam=AdamProducts(products, 1, 4, 1e-8),
        path=PathRecord(nodes, sources, 3, 4, ends, 2),
        origin=dict.fromkeys(ORIGIN, "") | {"seed": 0},
        hashes={"SET": ""},
        gradients={"SET": [np.zeros((2, 3), np.float32)]},
    )  # fmt: skip
