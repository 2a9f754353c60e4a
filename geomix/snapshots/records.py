"""`open_run(path).records`: the snapshots of a run as labelled arrays.

    records = geomix.open_run("runs/2026-11-20-demo").arms[0].records
    records.snapshots                                   the index: stage, step, path
    records["stage1-step000120"]["probes/D_A"].loss     one snapshot, a Dataset a group
    records.at(stage=1)                                 the last one of a stage
    records.inner_products.sel(set="D_A", other_set="D_B").groupby("layer").sum()
    records.probes("D_A").activations.sel(layer=2)      over all snapshots

Everything is read lazily, and no file stays open. Every access lists the folder anew, so that a run
can be watched while it is being recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from geomix.config.stage_names import stage_title
from geomix.runs.directory import RunDirectory
from geomix.snapshots.index import SnapshotFile, snapshot_files
from geomix.util.errors import UserError
from geomix.util.reading import all_of, expect, read_json

if TYPE_CHECKING:
    import xarray as xr

    from geomix.snapshots.arrays import SnapshotArrays

Format = Literal["parquet", "numpy"]

_MOST = 12
"""Most names that a message lists."""


@dataclass(frozen=True, slots=True)
class Records:
    """Snapshots that a run's recorder has written so far.

    Attributes:
        run: the run; for a run with arms, one of its arms.
    """

    run: RunDirectory

    @property
    def snapshots(self) -> list[SnapshotFile]:
        """Index of the snapshots, in the order of stage and step; `pandas.DataFrame` accepts it.

        Raises:
            UserError: the run has arms, each with its own records.
        """
        found = snapshot_files(self.run)
        if not found and (arms := self.run.arms) != [self.run]:
            names = ", ".join(arm.name for arm in arms)
            raise UserError(f"{self.run.path}: its arms have the records ({names}); open run.arms")
        return found

    def __repr__(self) -> str:
        """Return the number of snapshots, their steps and probe sets; or a run's arms."""
        try:
            return f"<records of {self.run.path}: {self._summary()}>"
        except UserError as error:  # a repr reports problems and never raises
            return f"<records of {self.run.path}: {error.lines[0]}>"

    def _summary(self) -> str:
        from geomix.snapshots.arrays import group_of

        if not (found := snapshot_files(self.run)):
            arms = [arm.name for arm in self.run.arms if arm != self.run]
            return f"in its arms {', '.join(arms)}" if arms else "no snapshot yet"
        steps: dict[str, list[int]] = {}
        for file in found:
            title = stage_title(file.stage, file.stage_name)
            steps.setdefault(title, []).append(file.step)
        when = (f"{title} at {_shown(map(str, at))}" for title, at in steps.items())
        sets = group_of(found[-1].path, "parameters")["set"].values
        assert sets is not None
        count = f"{len(found)} snapshot{'s' * (len(found) > 1)}"
        return f"{count}, steps of {'; '.join(when)}; probe sets {', '.join(sets)}"

    def __len__(self) -> int:
        return len(self.snapshots)

    def __iter__(self) -> Iterator[SnapshotArrays]:
        return (self._arrays(file) for file in self.snapshots)

    def __getitem__(self, name: str) -> SnapshotArrays:
        """Return one snapshot, by its file's name without suffix.

        Raises:
            UserError: there is none of that name, or its file is damaged.
        """
        known = {file.name: file for file in self.snapshots}
        if name not in known:
            raise UserError(f"{self.run.path}: no snapshot '{name}'; {_listed(known)}")
        return self._arrays(known[name])

    def at(self, stage: int | str, step: int | None = None) -> SnapshotArrays:
        """Return one snapshot, by stage and step.

        Args:
            stage: index of the stage, from 0, or its name.
            step: optimiser steps done in it; None takes the last recorded one.

        Raises:
            UserError: there is none, several stages have the name, or its file is damaged.
        """
        found = [file for file in self.snapshots if stage in (file.stage, file.stage_name)]
        if len({file.stage for file in found}) > 1:
            raise UserError(f"{self.run.path}: several stages are named {stage}; give its index")
        here = {file.step: file for file in found}
        if not here or (step is not None and step not in here):
            asked = f"stage={stage!r}" + (f", step={step}" if step is not None else "")
            known = [file.name for file in self.snapshots]
            raise UserError(f"{self.run.path}: no snapshot at {asked}; {_listed(known)}")
        return self._arrays(here[max(here) if step is None else step])

    @property
    def inner_products(self) -> xr.DataArray:
        """Inner products of the sets' mean-loss gradients, `(snapshot, parameter, set, other_set)`.

        float64, with layer, module and size of each parameter. If stages train different
        parameters, those that a snapshot does not cover are NaN.
        """
        return self.series("parameters/inner_products")

    def series(self, name: str) -> xr.DataArray:
        """Return one variable over all snapshots that hold it.

        Args:
            name: group and variable, such as `probes/D_A/loss` or `parameters/inner_products`.

        Returns:
            Its own dimensions after a first one, `snapshot`, which has the coordinates `stage`,
            `stage_name` and `step`; an attribute that differs between them is another, such as
            `products_from_step`. It is read lazily, unless the snapshots' axes differ: then it has
            the labels of all, and NaN where a snapshot lacks one.

        Raises:
            UserError: no snapshot holds it, or a file is damaged.
        """
        from geomix.snapshots.series import series
        from geomix.snapshots.variables import kept_with

        found = series(self.snapshots, name)
        if found is None:
            key = kept_with(name)
            kept = f"; it is kept with {key}" if key else ""
            known = self._known(name)
            raise UserError(f"{self.run.path}: no snapshot holds '{name}'{kept}; {known}")
        return found

    def probes(self, name: str) -> xr.Dataset:
        """Return all snapshots' variables of one probe set, read lazily.

        Example i owns the positions `offsets[i]` to `offsets[i + 1]`; its prompt and target are
        coordinates.

        Raises:
            UserError: there is no such set, it differs between snapshots, or a file is damaged.
        """
        from geomix.snapshots.series import probes

        found = probes(self.snapshots, name)
        if found is None:
            groups = [group.split("/") for group in self._groups()]
            sets = [rest[0] for kind, *rest in groups if kind == "probes" and len(rest) == 1]
            raise UserError(f"{self.run.path}: no probe set '{name}'; {_listed(sets)}")
        return found.assign_coords(self._texts(name, found.sizes["example"]))

    def export(self, folder: str | Path, format: Format = "parquet") -> list[Path]:  # noqa: A002
        """Write all snapshots for programs that do not read HDF5.

        Args:
            folder: a new one, which appears once all of it is written.
            format: `parquet`, one tidy table a kind of array, or `numpy`, an `.npz` a snapshot.

        Returns:
            The files.

        Raises:
            UserError: the folder exists, nothing is recorded, or a file is damaged.
        """
        from geomix.snapshots.export import Source, export

        if not (files := self.snapshots):
            raise UserError(f"{self.run.path}: nothing is recorded yet")
        source = Source([file.path for file in files], self.run.probes_file)
        return export({"": source}, Path(folder), format)

    def _arrays(self, file: SnapshotFile) -> SnapshotArrays:
        from geomix.snapshots.arrays import SnapshotArrays

        return SnapshotArrays(file.path)

    def _groups(self) -> list[str]:
        """Return the groups of the last snapshot; none if nothing is recorded yet."""
        from geomix.snapshots.arrays import groups_of

        files = self.snapshots
        return [group for group in groups_of(files[-1].path) if group] if files else []

    def _known(self, name: str) -> str:
        """List the variables of a variable's group, else the existing groups, for a message."""
        from geomix.snapshots.arrays import group_of

        group = name.rpartition("/")[0]
        if group not in self._groups():
            return _listed(self._groups())
        found = group_of(self.snapshots[-1].path, group)
        return _listed(f"{group}/{one}" for one, known in found.items() if known.values is None)

    def _texts(self, name: str, examples: int) -> dict[str, Any]:
        """Return prompts and targets of a probe set, if they are stored."""
        if not self.run.probes_file.is_file():
            return {}
        found = read_json(self.run.probes_file).get(name, {})
        texts: Any = found.get("examples", []) if isinstance(found, dict) else None
        expect(self.run.probes_file, f"{name}.examples, a list of objects", all_of(texts, dict))
        if len(texts) != examples:
            return {}
        return {
            key: ("example", np.array([text.get(key) for text in texts], dtype=object))
            for key in ("prompt", "target")
        }


def export_run(run: RunDirectory, folder: Path, form: Format) -> list[Path]:
    """Export a run; of one with arms, each arm with records into a folder of its name.

    The folder appears once all of it is written; after a kill, the same command makes it again.

    Raises:
        UserError: as in `Records.export`.
    """
    arms = run.arms
    if folder.is_symlink() and not folder.exists():
        raise UserError(f"{folder}: a link to a folder that is not there; name a new folder")
    if arms == [run]:
        return Records(run).export(folder, form)
    recorded = [arm for arm in arms if arm.snapshots()]
    if not recorded:
        raise UserError(f"{run.path}: nothing is recorded yet")
    from geomix.snapshots.export import Source, export

    sources = {
        arm.name: Source([file.path for file in Records(arm).snapshots], arm.probes_file)
        for arm in recorded
    }
    return export(sources, folder, form)


def _listed(names: Iterable[str]) -> str:
    """List the existing names, for a message."""
    known = list(names)
    if not known:
        return "nothing is recorded yet"
    return f"there are {_shown(known)}"


def _shown(names: Iterable[str]) -> str:
    """Join names; of many, the first and the last."""
    known = list(names)
    return ", ".join(known if len(known) <= _MOST else [*known[: _MOST // 2], "…", known[-1]])
