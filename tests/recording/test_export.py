"""Exported records, read back and compared with what h5py reads from the snapshots."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from geomix.api import Run
from geomix.cli import main
from geomix.snapshots.records import export_run
from geomix.util.errors import UserError
from geomix.util.hdf5 import TEXTS, put, text_hash
from geomix.util.new_folder import MARKER

Arrays = Callable[[Path], dict[str, Any]]


def is_scale(path: Path, name: str) -> bool:
    with h5py.File(path) as file:
        return bool(file[name].is_scale)


def test_numpy_archives_hold_every_number(run: Run, arrays: Arrays, tmp_path: Path) -> None:
    files = run.records.export(tmp_path / "out", "numpy")
    assert [file.name for file in files] == [f"{path.stem}.npz" for path in run.snapshots()]
    for path, file in zip(run.snapshots(), files, strict=True):
        expected = arrays(path)
        with np.load(file, allow_pickle=False) as found:
            assert set(found) == {*expected, "attributes"}
            for name, values in expected.items():
                assert np.array_equal(found[name], values.astype(found[name].dtype)), name
                assert found[name].shape == values.shape
                if values.dtype.kind == "f":
                    assert found[name].dtype == values.dtype
            told = json.loads(str(found["attributes"]))
        with h5py.File(path) as content:
            assert told[""] == {
                k: getattr(v, "item", lambda v=v: v)() for k, v in content.attrs.items()
            }
            for name in expected:
                for key in ("units", "description"):
                    if key in content[name].attrs:
                        assert told[name][key] == content[name].attrs[key]


def test_tables_hold_every_number(run: Run, arrays: Arrays, tmp_path: Path) -> None:
    """Each value is looked up in its table by its labels, not by its place."""
    run.records.export(tmp_path / "out")
    folder, compared = tmp_path / "out", 0
    whole = pd.read_parquet(folder / "arrays.parquet").set_index(["stage", "step", "path"])
    for place in run.records.snapshots:
        found = arrays(place.path)
        for name, values in found.items():
            if is_scale(place.path, name):
                continue
            group, _, own = name.rpartition("/")
            compared += 1
            if group.startswith("gradients/"):
                row = whole.loc[(place.stage, place.step, name)]
                assert np.array_equal(row["values"].reshape(row["shape"]), values)
                continue
            with h5py.File(place.path) as file:
                dims = [axis[0].name.rpartition("/")[2] for axis in file[name].dims]
            vector = dims[-1] == "feature"
            dims = dims[:-1] if vector else dims
            kind, *inner = group.split("/")
            kind = "probes.modules" if len(inner) > 1 else kind
            table = pd.read_parquet(folder / f"{kind}.{'-'.join(dims)}.parquet")
            rows = table[(table.stage == place.stage) & (table.step == place.step)]
            for column, value in zip(("set", "module"), inner[::2], strict=False):
                rows = rows[rows[column] == value]
            labels = [found[f"{group}/{dim}"] for dim in dims]
            index = pd.MultiIndex.from_product(labels)
            column = rows.set_index(dims)[own].reindex(index if len(dims) > 1 else labels[0])
            assert len(rows) == len(column)
            got = np.stack(list(column)) if vector else column.to_numpy()
            assert np.array_equal(got.reshape(values.shape), values), name
    parameters, probes, modules = 5, 2 * 9, 2 * 4 * 2
    assert compared == len(whole) + 3 * (parameters + probes + modules) + 2  # one path, one Adam's
    assert len(whole) == 2 * (20 + 20 + 9)


def test_tables_have_the_units_of_their_columns(run: Run, tmp_path: Path) -> None:
    run.records.export(tmp_path / "out")
    schema = pq.read_schema(tmp_path / "out" / "probes.kept_position-layer.parquet")
    assert schema.field("gradients").metadata[b"units"] == b"nat"
    assert str(schema.field("gradients").type) == "list<element: float>"
    schema = pq.read_schema(tmp_path / "out" / "parameters.parameter-set-other_set.parquet")
    names = ["stage", "step", "parameter", "set", "other_set"]
    assert schema.names == [*names, "inner_products", "inner_products_adam"]
    told = pd.read_parquet(tmp_path / "out" / "attributes.parquet")
    steps = told[(told.path == "") & (told.attribute == "step")]
    assert [json.loads(value) for value in steps.value] == [0, 4, 3]


def test_an_array_that_some_snapshots_lack_is_null_there(run: Run, tmp_path: Path) -> None:
    with h5py.File(run.snapshots()[1], "a") as file:
        group, dims = file["parameters"], ("parameter", "set", "other_set")
        values = group["inner_products"][...] + 1
        put(group, "inner_products_more", values, dims, units="1", text="some")
        file.attrs[TEXTS] = text_hash(file)
    run.records.export(tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out" / "parameters.parameter-set-other_set.parquet")
    here = (table.stage == 0) & (table.step == 4)
    assert table.inner_products_more[~here].isna().all()
    assert np.array_equal(table.inner_products_more[here], table.inner_products[here] + 1)


def test_an_array_without_labels_is_a_row(run: Run, tmp_path: Path) -> None:
    path = run.snapshots()[0]
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    with h5py.File(path, "a") as file:
        file.create_group("more/D_A")["numbers"] = values
        file.attrs[TEXTS] = text_hash(file)
    run.records.export(tmp_path / "out")
    rows = pq.read_table(tmp_path / "out" / "arrays.parquet").to_pylist()
    (row,) = [row for row in rows if row["path"] == "more/D_A/numbers"]
    assert np.array_equal(np.reshape(row["values"], row["shape"]), values)
    found = run.records[path.stem]["more/D_A"]
    assert np.array_equal(found["numbers"].values, values)


def test_the_command_exports_each_arm(run: Run, resolved: Any, tmp_path: Path) -> None:
    whole = resolved(tmp_path / "whole", ["one", "two", "three"])
    for arm in ("one", "two"):
        shutil.copytree(run.path, whole.path / "arms" / arm)
        (whole.path / "arms" / arm / "records" / "probes.json").write_text("{}")
    out = tmp_path / "out"
    arguments = ["export", str(whole.path), "--to", str(out), "--format", "numpy"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    expected = [*(f"{path.stem}.npz" for path in run.snapshots()), "probes.json"]
    for arm in ("one", "two"):
        assert sorted(file.name for file in (out / arm).iterdir()) == sorted(expected)
    assert len(done.stdout.splitlines()) == 8
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 2
    assert "there already; name a folder that is not there yet" in again.stderr


class Killed(BaseException):
    """Exception with which a test ends an export, so that it cannot clean up."""


@pytest.fixture
def arms(run: Run, resolved: Any, tmp_path: Path) -> Run:
    """A run of two arms with a snapshot each."""
    whole: Run = resolved(tmp_path / "whole", ["one", "two"])
    for arm in whole.arms:
        shutil.copytree(run.path, arm.path)
        arm.probes_file.write_text("{}")
        for path in arm.snapshots()[1:]:
            path.unlink()
    return whole


def files_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def killed(run: Run, out: Path, form: Any, monkeypatch: pytest.MonkeyPatch, at: int) -> int:
    """Export, and end as a kill does before the at-th change; how many changes there were."""
    changes = 0

    def before(act: Callable[..., Any]) -> Callable[..., Any]:
        def acted(*arguments: Any, **named: Any) -> Any:
            nonlocal changes
            changes += 1
            if changes >= at:
                raise Killed
            return act(*arguments, **named)

        return acted

    with monkeypatch.context() as patch:
        for name in ("mkdir", "rename", "unlink", "rmdir"):
            patch.setattr(Path, name, before(getattr(Path, name)))
        for owner, name in ((shutil, "copyfile"), (np, "savez")):
            patch.setattr(owner, name, before(getattr(owner, name)))
        try:
            export_run(run, out, form)
        except Killed:
            return changes
    return changes


@pytest.mark.parametrize(
    ("form", "anywhere"),
    [("parquet", False), ("numpy", False), pytest.param("numpy", True, marks=pytest.mark.slow)],
)
def test_a_killed_export_can_be_given_again(
    arms: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any, anywhere: bool
) -> None:
    """Early, in what is removed after the last file, and (`anywhere`) before each change."""
    whole = export_run(arms, tmp_path / "undisturbed", form)
    names = [str(file.relative_to(tmp_path / "undisturbed")) for file in whole]
    expected = files_of(tmp_path / "undisturbed")
    place = tmp_path / "place"
    place.mkdir()
    changes = killed(arms, tmp_path / "counted", form, monkeypatch, 10**6)
    places = [*range(1, changes + 1)] if anywhere else [2, changes - 1, changes]
    assert changes >= 7
    for at in places:
        out = place / "out"
        assert killed(arms, out, form, monkeypatch, at) >= at
        found = export_run(arms, out, form)
        assert [str(file.relative_to(out)) for file in found] == names, at
        assert files_of(out) == expected, at
        assert list(place.iterdir()) == [out], at
        with pytest.raises(UserError, match="there already"):
            export_run(arms, out, form)
        shutil.rmtree(out)


def test_another_export_does_not_take_what_a_killed_one_finished(
    arms: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    changes = killed(arms, tmp_path / "counted", "numpy", monkeypatch, 10**6)
    killed(arms, out, "numpy", monkeypatch, changes)  # all but the marker's removal
    assert (out / MARKER).is_file()
    with pytest.raises(UserError, match="there already"):
        export_run(arms, out, "parquet")
    with pytest.raises(UserError, match="there already"):
        export_run(arms.arms[0], out, "numpy")
    assert export_run(arms, out, "numpy")


def test_a_folder_of_the_users_is_never_taken(arms: Run, tmp_path: Path) -> None:
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / "thesis.tex").write_text("mine")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"out\.partial: in the way, and not geomix's own; move it"):
        export_run(arms, tmp_path / "out", "numpy")
    with pytest.raises(UserError, match="there: there already"):
        export_run(arms, tmp_path / "there", "numpy")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / MARKER).write_text("{}")
    (tmp_path / "linked.partial").symlink_to(elsewhere)
    with pytest.raises(UserError, match="in the way"):
        export_run(arms, tmp_path / "linked", "numpy")
    assert files_of(partial) == {"thesis.tex": b"mine"}
    assert files_of(elsewhere) == {MARKER: b"{}"}
    assert not (tmp_path / "out").exists()


def test_two_exports_at_once_do_not_meet(arms: Run, tmp_path: Path) -> None:
    partial = tmp_path / "out.partial"
    partial.mkdir()
    with (partial / MARKER).open("w") as marker:
        fcntl.flock(marker, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="out: another process is writing it"):
            export_run(arms, tmp_path / "out", "numpy")
    assert export_run(arms, tmp_path / "out", "numpy")


def test_a_link_to_nowhere_is_refused(run: Run, resolved: Any, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    whole = resolved(tmp_path / "whole", ["one"])
    shutil.copytree(run.path, whole.path / "arms" / "one")
    for one in (run, whole):
        done = CliRunner().invoke(main, ["export", str(one.path), "--to", str(link)])
        assert done.exit_code == 2, done.output
        assert "a link to a folder that is not there" in done.stderr
    with pytest.raises(UserError, match="link: there already"):
        run.records.export(link)
    assert not (tmp_path / "nowhere").exists()
    assert list(link.parent.glob("link*")) == [link]


def test_what_cannot_be_exported_leaves_nothing(run: Run, resolved: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="format 'csv': one of parquet, numpy"):
        run.records.export(tmp_path / "out", "csv")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="nothing is recorded yet"):
        resolved(tmp_path / "empty").records.export(tmp_path / "out")
    path = run.snapshots()[2]
    path.write_bytes(path.read_bytes()[:-100])
    forms: list[Any] = ["parquet", "numpy"]
    for form in forms:
        with pytest.raises(UserError, match=f"{path.name}: damaged"):
            run.records.export(tmp_path / "out", form)
    assert not list(tmp_path.glob("out*"))
