"""A run's records as labelled arrays, compared with what h5py reads from the files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

from geomix.api import Run, open_run
from geomix.recording.recorder import Recorder
from geomix.snapshots.file import file_name, read_snapshot, write_snapshot
from geomix.snapshots.records import Records
from geomix.util.errors import UserError

Make = Callable[[], Any]
Resolved = Callable[..., Run]
Arrays = Callable[[Path], dict[str, Any]]
NAMES = ["stage0-step000000", "stage0-step000004", "stage1-step000003"]


def test_a_snapshot_has_every_number_under_its_name(run: Run, arrays: Arrays) -> None:
    """The second snapshot, which has all that the first has and more, and the third are read."""
    for place, tree in [*zip(run.records.snapshots, run.records, strict=True)][1:]:
        count = 0
        groups = dict(tree)
        for name, values in arrays(place.path).items():
            group, _, own = name.rpartition("/")
            assert np.array_equal(groups[group][own].values, values), name
            count += 1
        assert count == sum(len(one.variables) for one in tree.values())
        assert tree.attrs["step"] == place.step
        assert tree["probes/D_A"].exact.dtype == bool
        assert tree["probes/D_A"].activations.attrs["units"] == "1"


def test_labels_choose_what_they_say(run: Run) -> None:
    group = run.records["stage0-step000004"]["parameters"]
    snapshot = read_snapshot(run.snapshots()[1])
    products = group.inner_products.sel(set="D_B", other_set="D_A")
    mine = [i for i, layer in enumerate(snapshot.parameter_layers) if layer == 1]
    assert np.array_equal(
        products.where(group.layer == 1, drop=True).values, snapshot.inner_products[mine, 1, 0]
    )
    assert group.module.values.tolist() == list(snapshot.parameter_modules)
    assert set(group.coords) == {"parameter", "set", "other_set", "layer", "module", "size"}


def test_it_is_found_by_its_place(run: Run) -> None:
    records = run.records
    assert [place.name for place in records.snapshots] == NAMES
    assert [(p.stage, p.stage_name, p.step) for p in records.snapshots] == [
        (0, "a-set", 0),
        (0, "a-set", 4),
        (1, "b-set", 3),
    ]
    assert len(records) == 3
    for found, step in ((records.at(0), 4), (records.at(0, 0), 0), (records[NAMES[2]], 3)):
        assert found.attrs["step"] == step
    known = r"no snapshot .*stage0-step000000, stage0-step000004"
    with pytest.raises(UserError, match=known):
        records.at(0, 3)
    with pytest.raises(UserError, match=known):
        _ = records["stage0-step000003"]


def copied(run: Run, step: int) -> Path:
    """The second snapshot once more, as one of another step of its stage."""
    path = run.snapshot_folder / file_name(0, step)
    shutil.copy(run.snapshots()[1], path)
    with h5py.File(path, "a") as file:
        file.attrs["step"], file.attrs["steps"] = step, max(step, 4)
    return path


def test_no_file_is_opened_before_a_look(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5, 65):
        copied(run, number)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("opened")

    with monkeypatch.context() as patch:
        patch.setattr(h5py, "File", refuse)
        assert len(open_run(run.path).records.snapshots) == 63
    record = run.records["stage0-step000030"]["probes/D_A"]
    with monkeypatch.context() as patch:
        patch.setattr(h5py, "File", refuse)
        part = record.activations.isel(layer=1)  # still not read
        with pytest.raises(AssertionError, match="opened"):
            _ = part.values


def test_inner_products_are_one_array_over_all_snapshots(run: Run) -> None:
    found = run.records.inner_products
    assert found.dims == ("snapshot", "parameter", "set", "other_set")
    assert found.snapshot.values.tolist() == NAMES
    assert found.step.values.tolist() == [0, 4, 3]
    assert found.stage_name.values.tolist() == ["a-set", "a-set", "b-set"]
    whole = read_snapshot(run.snapshots()[0])
    assert found.parameter.values.tolist() == list(whole.parameters)
    assert found.layer.values.tolist() == whole.parameter_layers.tolist()
    assert found["size"].values.tolist() == whole.sizes.tolist()
    for i, path in enumerate(run.snapshots()):
        snapshot = read_snapshot(path)
        mine = found[i].sel(parameter=list(snapshot.parameters))
        assert np.array_equal(mine.values, snapshot.inner_products)
    untrained = found[2].sel(parameter=[p for p in whole.parameters if "layers.1" not in p])
    assert untrained.size
    assert np.isnan(untrained.values).all()


def test_where_all_axes_agree_nothing_is_read_or_filled(run: Run) -> None:
    run.snapshots()[2].unlink()
    found = run.records.inner_products
    assert not found.variable._in_memory
    for i, path in enumerate(run.snapshots()):
        assert np.array_equal(found[i].values, read_snapshot(path).inner_products)


def test_attributes_that_differ_are_coordinates_of_the_snapshots(run: Run) -> None:
    path = run.records.series("path/products")
    assert path.snapshot.values.tolist() == NAMES[1:2]  # no piece of the path ends elsewhere
    assert path.attrs["from_step"] == 0
    later = copied(run, 9)
    with h5py.File(later, "a") as file:
        file["path/products"].attrs["from_step"] = 4
    path = run.records.series("path/products")
    assert path.products_from_step.values.tolist() == [0, 4]
    assert "from_step" not in path.attrs
    assert path.attrs["units"] == "nat"
    adam = run.records.series("parameters/inner_products_adam")
    assert adam.sizes["snapshot"] == 2
    assert adam.attrs["eps"] == 1e-8


def test_a_probe_set_over_all_snapshots(run: Run) -> None:
    found = run.records.probes("D_B")
    read = [read_snapshot(path).probes["D_B"] for path in run.snapshots()]
    assert found.offsets.dims == ("edge",)
    for name in ("offsets", "positions", "targets"):
        assert np.array_equal(found[name].values, getattr(read[0], name))
    for name in ("loss", "exact", "activations", "gradients"):
        whole = np.stack([getattr(record, name) for record in read])
        assert not found[name].variable._in_memory
        assert np.array_equal(found[name].values, whole)
    again = run.records.probes("D_B")
    whole = np.stack([record.activations for record in read if record.activations is not None])
    for key in (
        (slice(None, None, -1), 2, slice(1, None), slice(None, None, -3)),
        (slice(1, 1), 0, 1, slice(None)),
        (-1, slice(None), slice(0, 2), 5),
    ):
        assert np.array_equal(again.activations[key].values, whole[key])
    rows = again.activations.isel(kept_position=[3, 0, 3], snapshot=[2, 0])
    assert np.array_equal(rows.values, whole[[2, 0]][:, [3, 0, 3]])


def test_the_probes_texts_are_coordinates(run: Run) -> None:
    texts = [{"prompt": f"p{i}", "target": f"t{i}"} for i in range(5)]
    run.probes_file.write_text(json.dumps({"D_A": {"n": 5, "of": 5, "examples": texts}}))
    found = run.records.probes("D_A")
    assert found.prompt.values.tolist() == [f"p{i}" for i in range(5)]
    assert found.target.dims == ("example",)
    assert "prompt" not in run.records.probes("D_B").coords


@pytest.mark.parametrize("said", ['{"examples": 5}', '{"examples": [1, 2, 3, 4, 5]}', "7"])
def test_broken_texts_are_one_line(run: Run, said: str) -> None:
    run.probes_file.write_text(f'{{"D_A": {said}}}')
    with pytest.raises(UserError, match=r"probes\.json: cannot be read .*D_A\.examples, a list"):
        run.records.probes("D_A")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("path/products", "record.midpoints: true"),
        ("gradients/D_A/lm_head.weight", "record.gradients: true"),
        ("probes/D_A/modules/model.layers.0.mlp/activations", "record.modules"),
        ("probes/D_A/activations", "record.activations"),
        ("probes/D_A/lens_rank", "record.lens: true"),
        ("probes/D_A/sketches", "record.sketches"),
        ("parameters/inner_products_adam", "record.adam: true"),
    ],
)
def test_what_was_not_kept_is_said_with_the_key_that_keeps_it(
    run: Run, llama: Make, examples: Any, moment: Any, name: str, key: str
) -> None:
    for path in run.snapshots():
        path.unlink()
    with pytest.raises(UserError, match=f"'{name}'; it is kept with {key}.*; nothing is recorded"):
        run.records.series(name)
    options: dict[str, Any] = {"reduction": "token", "batch_size": 3, "pad_id": 0, "at": [0]}
    options["activations"] = 0
    bare = Recorder(run.snapshot_folder, {"D_A": examples(2, 1)}, capture="hooks", **options)
    bare.observe(moment(llama()))
    with pytest.raises(UserError, match=f"'{name}'; it is kept with {key}.*; there are "):
        run.records.series(name)


def test_records_say_what_there_is(run: Run, tmp_path: Path, resolved: Resolved) -> None:
    said = repr(run.records)
    assert said == (
        f"<records of {run.path}: 3 snapshots, steps of stage 1 (a-set) at 0, 4; "
        "stage 2 (b-set) at 3; probe sets D_A, D_B>"
    )
    whole = resolved(tmp_path / "whole", ["one", "two"])
    assert repr(whole.records) == f"<records of {whole.path}: in its arms one, two>"
    empty = resolved(tmp_path / "empty")
    assert repr(empty.records) == f"<records of {empty.path}: no snapshot yet>"
    run.snapshots()[2].write_bytes(b"")
    assert "damaged" in repr(run.records)


def test_another_probe_set_is_not_passed_off_as_the_same(
    run: Run, llama: Make, examples: Any, moment: Any
) -> None:
    other = {"D_A": examples(5, 9), "D_B": examples(4, 2)}
    options: dict[str, Any] = {"reduction": "token", "batch_size": 3, "pad_id": 0, "at": [1]}
    Recorder(run.snapshot_folder, other, capture="hooks", **options).observe(moment(llama(), 1, 1))
    with pytest.raises(UserError, match="D_A is not the same in all snapshots"):
        run.records.probes("D_A")


def test_what_is_not_there_is_said(run: Run, tmp_path: Path, resolved: Resolved) -> None:
    with pytest.raises(UserError, match=r"no probe set 'D_C'; there are D_A, D_B$"):
        run.records.probes("D_C")
    with pytest.raises(UserError, match=r"no snapshot holds 'parameters/x'.*inner_products"):
        run.records.series("parameters/x")
    empty = resolved(tmp_path / "empty")
    with pytest.raises(UserError, match=r"'stage0-step000000'; nothing is recorded yet"):
        _ = empty.records["stage0-step000000"]
    with pytest.raises(UserError, match="inner_products'; nothing is recorded"):
        _ = empty.records.inner_products


def test_each_arm_has_its_own_records(run: Run, tmp_path: Path, resolved: Resolved) -> None:
    whole = resolved(tmp_path / "whole", ["one", "two"])
    shutil.copytree(run.path, whole.path / "arms" / "one")
    with pytest.raises(UserError, match=r"its arms have the records \(one, two\)"):
        _ = whole.records.snapshots
    assert [place.name for place in whole.arms[0].records.snapshots] == NAMES


def damage(path: Path, how: str) -> None:
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif how == "foreign":
        path.write_text("not HDF5")
    elif how == "empty":
        path.write_bytes(b"")
    else:
        with h5py.File(path, "a") as file:
            if how == "incomplete":
                del file.attrs["complete"]
            elif how == "renamed":
                file.attrs["step"] = 2
            elif how == "linked":
                file["more"] = h5py.ExternalLink("other.h5", "/")
            elif how == "whole gradient":
                name = next(iter(file["parameters/parameter"].asstr()))
                del file[f"gradients/D_A/{name}"]
                file[f"gradients/D_A/{name}"] = np.zeros((3, 3), np.float32)
            elif how == "newer":
                file.attrs["schema"] = 99
            else:
                file.attrs["format"] = "something else"


@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        "foreign",
        "empty",
        "incomplete",
        "newer",
        "another format",
        "renamed",
        "linked",
        "whole gradient",
    ],
)
def test_a_damaged_file_gives_the_line_of_the_store(run: Run, how: str) -> None:
    path = run.snapshots()[1]
    damage(path, how)
    with pytest.raises(UserError) as expected:
        read_snapshot(path)
    looks: list[Callable[[Records], Any]] = [
        lambda records: records[NAMES[1]],
        lambda records: records.inner_products,
        lambda records: records.probes("D_A"),
    ]
    for look in looks:
        with pytest.raises(UserError) as told:
            look(run.records)
        assert str(told.value) == str(expected.value)
    assert run.records[NAMES[0]].attrs["step"] == 0  # the others can be read


def test_numbers_that_changed_on_disk_are_noticed_when_they_are_read(run: Run) -> None:
    path = run.snapshots()[1]
    with h5py.File(path) as file:
        place = file["probes/D_A/activations"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place + 5] ^= 1
    path.write_bytes(content)
    record = run.records[NAMES[1]]["probes/D_A"]
    assert record.gradients.values.size
    with pytest.raises(UserError, match=rf"{path.name}: damaged, truncated or not HDF5"):
        _ = record.activations.values
    with pytest.raises(UserError, match=rf"{path.name}: damaged"):
        _ = run.records.probes("D_A").activations.values


@pytest.mark.parametrize("name", ["probes/D_A/layer", "gradients/D_A/axis0_16"])
def test_a_coordinate_that_changed_on_disk_is_noticed(run: Run, name: str) -> None:
    path = run.snapshots()[1]
    with h5py.File(path) as file:
        place = file[name].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path.name}: damaged, truncated or not HDF5"):
        _ = run.records[NAMES[1]][name.rpartition("/")[0]]


def _nothing(group: Any) -> None:
    group["null"] = h5py.Empty("f8")


def _reference(group: Any) -> None:
    group.create_dataset("refers", data=group.ref, dtype=h5py.ref_dtype)


def _compound(group: Any) -> None:
    group["pairs"] = np.zeros(3, dtype=[("a", "f4"), ("b", "i4")])


def _longer(group: Any) -> None:
    del group["loss"]
    group["loss"] = np.zeros(5)
    group["longer"] = np.arange(6)
    group["longer"].make_scale("edge")
    group["loss"].dims[0].attach_scale(group["longer"])


def _far(group: Any) -> None:
    del group["loss"]
    group["loss"] = np.zeros(5)
    scale = group.file["far"] = np.arange(5)
    group.file["far"].make_scale("far")
    group["loss"].dims[0].attach_scale(group.file["far"])
    assert len(scale)


@pytest.mark.parametrize("crafted", [_nothing, _reference, _compound, _longer, _far])
def test_what_is_neither_labelled_numbers_nor_texts_is_one_line(
    run: Run, crafted: Callable[[Any], None], tmp_path: Path
) -> None:
    path = run.snapshots()[1]
    with h5py.File(path, "a") as file:
        crafted(file["probes/D_A"])
    looks: list[Callable[[], Any]] = [
        lambda: run.records[NAMES[1]]["probes/D_A"],
        lambda: run.records.probes("D_A"),
        lambda: run.records.export(tmp_path / "out"),
        lambda: run.records.export(tmp_path / "out", "numpy"),
    ]
    for look in looks:
        with pytest.raises(UserError, match=rf"^{path}: damaged") as told:
            look()
        assert len(told.value.lines) == 1


def test_an_error_of_hdf5_itself_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of H5DSget_scale_name where a bit of a scale's name is flipped."""

    def fail(*_: Any) -> None:
        raise RuntimeError("Unspecified error in H5DSget_scale_name (return value <0)")

    monkeypatch.setattr(h5py.h5ds, "get_scale_name", fail)
    with pytest.raises(UserError, match=r"step000004\.h5: damaged.*H5DSget_scale_name"):
        _ = run.records[NAMES[1]]["probes/D_A"]


def test_an_index_that_is_not_there_is_the_callers(run: Run) -> None:
    loss = run.records[NAMES[1]]["probes/D_A"].loss
    with pytest.raises(IndexError):
        _ = loss[99].values
    with pytest.raises(IndexError):
        _ = run.records.probes("D_A").loss[0, 99].values
    assert loss[[4, -1]].values.tolist() == loss.values[[4, -1]].tolist()


def test_a_snapshot_that_is_replaced_is_looked_at_anew(run: Run) -> None:
    loss = run.records[NAMES[1]]["probes/D_A"].loss
    shutil.copy(run.snapshots()[0], run.snapshots()[1])
    with pytest.raises(UserError, match="holds step 0 of stage 1, which its name does not say"):
        _ = loss.values


def test_xarray_reads_the_files_alone(run: Run) -> None:
    path = run.snapshots()[0]
    ours = run.records[NAMES[0]]
    for group in ("parameters", "probes/D_A", "probes/D_B/modules/model.layers.1.mlp"):
        mine = ours[group]
        with xr.open_dataset(path, group=group, engine="h5netcdf") as theirs:  # with a lock
            assert set(mine.variables) == set(theirs.variables)
            for name, variable in theirs.variables.items():
                assert mine[name].dims == variable.dims
                assert np.array_equal(mine[name].values, variable.values)


def test_a_file_that_is_open_elsewhere_in_the_process_is_not_called_damaged(run: Run) -> None:
    """HDF5 refuses to open a file twice with and without a lock."""
    path = run.snapshots()[0]
    with xr.open_dataset(path, group="parameters", engine="h5netcdf") as theirs:
        mine = run.records[NAMES[0]]["parameters"]
        assert np.array_equal(mine.inner_products.values, theirs.inner_products.values)
        assert read_snapshot(path).step == 0


WRITER = """
import os, sys, time
from dataclasses import replace
from pathlib import Path
from geomix.snapshots.file import file_name, read_snapshot, write_snapshot
source, folder, *marks = map(Path, sys.argv[1:])
snapshot = read_snapshot(source)

def looks():
    return [len(mark.read_bytes()) for mark in marks]

def wait(event, arguments):
    # Before each change to a file both readers look anew: one look may be under way, the next is
    # wholly within the pause.
    made = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE
    if not (made or event in ("os.rename", "os.remove")) or "snapshots" not in str(arguments[0]):
        return
    before, until = looks(), time.monotonic() + 60
    while min(now - then for now, then in zip(looks(), before)) < 2:
        assert time.monotonic() < until, "a reader looks no more"
        time.sleep(0.005)

sys.addaudithook(wait)
for step in (5, 6):
    write_snapshot(folder / file_name(0, step), replace(snapshot, step=step, steps=200))
"""

READER = """
import sys
from pathlib import Path
from geomix import open_run
run, mark, done, seen = open_run(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), 0
while not done.exists():
    records = run.records
    found = records.inner_products
    assert len(found) >= seen, (len(found), seen)
    seen = len(found)
    assert found.step.values.tolist()[2:] == list(range(5, seen + 3))
    assert float(found[-1].sum()) == float(found[1].sum()), "not the numbers that were written"
    last = records.probes("D_A").activations[-1]
    assert last.values.shape == records.at(0)["probes/D_A"].activations.shape
    with mark.open("ab") as looks:
        looks.write(b".")
assert seen == 4
"""


def test_a_reader_looks_at_every_moment_of_a_writing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Around each change to a file: what is half written is not there yet."""
    run.snapshots()[2].unlink()
    written = read_snapshot(run.snapshots()[1])
    seen: list[int] = []
    looking = False

    def look() -> None:
        nonlocal looking
        if looking:
            return
        looking = True
        found = open_run(run.path).records.inner_products
        assert found.step.values.tolist()[2:] == list(range(5, len(found) + 3))
        assert float(found[-1].sum()) == float(found[1].sum())
        seen.append(len(found))
        looking = False

    def watched(act: Callable[..., Any]) -> Callable[..., Any]:
        def acted(*arguments: Any, **named: Any) -> Any:
            look()
            done = act(*arguments, **named)
            look()
            return done

        return acted

    for owner, name in ((Path, "replace"), (Path, "unlink"), (os, "close")):
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    for step in (5, 6):
        write_snapshot(
            run.snapshot_folder / file_name(0, step), replace(written, step=step, steps=200)
        )
    assert seen == sorted(seen)
    assert set(seen) == {2, 3, 4}


@pytest.mark.slow
def test_two_readers_beside_one_writer(run: Run, tmp_path: Path) -> None:
    """Both look before each change to a file that the writer makes."""
    run.snapshots()[2].unlink()
    source = run.snapshots()[1]
    command = [sys.executable, "-W", "error", "-c"]
    marks = [str(tmp_path / name) for name in ("one", "other")]
    for mark in marks:
        Path(mark).touch()
    end = tmp_path / "done"
    readers = [
        subprocess.Popen([*command, READER, str(run.path), mark, str(end)]) for mark in marks
    ]
    writer = [*command, WRITER, str(source), str(run.snapshot_folder), *marks]
    done = subprocess.run(writer, check=False, capture_output=True, text=True)
    end.touch()
    assert [reader.wait(timeout=100) for reader in readers] == [0, 0]
    assert done.returncode == 0, done.stderr
    assert all(Path(mark).stat().st_size > 2 * 2 * 4 for mark in marks)


def test_the_package_and_the_list_of_snapshots_come_without_heavy_imports(run: Run) -> None:
    code = """
import sys, geomix
assert not {"torch", "xarray", "h5py", "numpy", "pandas", "pydantic"} & set(sys.modules)
assert len(geomix.open_run(sys.argv[1]).records.snapshots) == 3
assert not {"torch", "xarray", "h5py", "pandas"} & set(sys.modules)
_ = geomix.open_run(sys.argv[1]).records.inner_products
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(run.path)], check=True)
