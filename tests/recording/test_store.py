"""Snapshots on disk."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import geomix.snapshots.file as file_module
from geomix.snapshots import integrity
from geomix.snapshots.arrays import SnapshotArrays
from geomix.snapshots.file import file_name, read_snapshot, write_snapshot
from geomix.snapshots.heaps import _between, _numbers
from geomix.snapshots.schema import AdamProducts, ModuleRecord, PathRecord, ProbeRecord, Snapshot
from geomix.snapshots.versions import OLDEST, SCHEMA
from geomix.util.errors import UserError
from geomix.util.hdf5 import TEXTS, put, scale, text_hash

SETS = ("d_a", "d_b", "ø random words")


def record(seed: int, kept: bool = True) -> ProbeRecord:
    draw = np.random.default_rng(seed)
    offsets = np.array([0, 2, 3, 7])
    residual = [draw.normal(size=(7, 4, 5)).astype(np.float32) if kept else None for _ in range(2)]
    module = ModuleRecord(*draw.normal(size=(2, 7, 6)).astype(np.float32))
    return ProbeRecord(
        loss=draw.normal(size=3),
        exact=np.array([True, False, True]),
        offsets=offsets,
        positions=draw.integers(0, 9, 7),
        targets=draw.integers(0, 99, 7),
        activations=residual[0],
        gradients=residual[1],
        lens_rank=draw.integers(0, 99, (7, 4)).astype(np.int32) if kept else None,
        lens_logprob=draw.normal(size=(7, 4)).astype(np.float32) if kept else None,
        modules={"layers.0.mlp": module} if kept else {},
    )


def snapshot(**changes: Any) -> Snapshot:
    whole = Snapshot(
        stage=1,
        stage_name="lama",
        step=12,
        steps=40,
        reduction="example",
        sets=SETS,
        probes={name: record(i) for i, name in enumerate(SETS)},
        parameters=("embed.weight", "layers.0.mlp.weight"),
        sizes=np.array([12, 30]),
        parameter_layers=np.array([0, 1]),
        parameter_modules=("embed", "mlp"),
        inner_products=np.random.default_rng(9).normal(size=(2, 3, 3)),
        layers=3,
        tied_head=True,
        trainable=2,
        unreached=np.array([[False, True, False], [False] * 3]),
        adam=AdamProducts(np.random.default_rng(8).normal(size=(2, 3, 3)), 1, 12, 1e-8),
        path=PathRecord(
            np.random.default_rng(7).normal(size=(2, 3, 3, 2)),
            ("total", "D_B"),
            11,
            12,
            np.random.default_rng(6).normal(size=(2, 3, 2, 2)),
            10,
        ),
        no_path="",
    )
    return dataclasses.replace(whole, **changes)


def same(one: Any, other: Any) -> bool:
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return all(same(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return type(one) is type(other) and bool(one == other)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "snapshots" / file_name(1, 12)
    ones = {name: [np.ones((4, 3)), np.ones(30)] for name in SETS}
    write_snapshot(path, snapshot(gradients=ones))
    return path


def complaint(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read_snapshot(path)
    assert len(error.value.lines) == 1
    assert "\n" not in error.value.lines[0]
    assert error.value.lines[0].startswith(f"{path}: ")
    return error.value.lines[0]


def test_round_trip(path: Path) -> None:
    assert path.name == "stage1-step000012.h5"
    assert same(read_snapshot(path), snapshot())
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_activations_may_be_left_out_of_reading_and_of_writing(path: Path) -> None:
    without = {name: record(i, kept=False) for i, name in enumerate(SETS)}
    bare = {
        name: dataclasses.replace(
            record(i),
            activations=None,
            gradients=None,
            lens_rank=None,
            lens_logprob=None,
            modules={},
        )
        for i, name in enumerate(SETS)
    }
    assert same(read_snapshot(path, activations=False), snapshot(probes=bare))
    write_snapshot(path, snapshot(probes=without))
    assert same(read_snapshot(path), snapshot(probes=without))


def test_the_file_describes_itself(path: Path) -> None:
    def axes(dataset: h5py.Dataset) -> list[str]:
        return [scale[0].name.rpartition("/")[2] for scale in dataset.dims]

    with h5py.File(path) as file:
        probes, parameters = file["probes/d_a"], file["parameters"]
        assert axes(probes["activations"]) == ["kept_position", "layer", "feature"]
        assert axes(probes["gradients"]) == ["kept_position", "layer", "feature"]
        assert axes(parameters["inner_products"]) == ["parameter", "set", "other_set"]
        assert file.attrs["coverage"] == "covered parameters 2 of 2"
        assert file.attrs["schema"] == SCHEMA
        assert {"geomix_version", "torch_version", "nnsight_version"} <= set(file.attrs)
        assert axes(probes["lens_rank"]) == ["kept_position", "layer"]
        assert axes(file["path/products"]) == ["parameter", "set", "node", "part"]
        assert axes(file["path/pairs"]) == ["parameter", "set", "pair_node", "part"]
        seen = []

        def described(name: str, dataset: Any) -> None:
            if isinstance(dataset, h5py.Group):
                return
            seen.append(name)
            assert dataset.attrs["description"], name
            if not dataset.is_scale:
                assert "units" in dataset.attrs, name
                assert axes(dataset), name
            assert dataset.fletcher32 or dataset.dtype == object, name
            assert dataset.compression is None, name

        file.visititems(described)
        kinds = {"activations", "lens_logprob", "inner_products_adam", "products", "embed.weight"}
        assert kinds <= {name.rpartition("/")[2] for name in seen}


def test_whole_gradients_are_stored_by_set_and_parameter(tmp_path: Path) -> None:
    shapes = ((4, 3), (30,))
    draw = np.random.default_rng(5)
    given = {n: [draw.normal(size=s).astype(np.float32) for s in shapes] for n in SETS}
    path = tmp_path / "one.h5"
    write_snapshot(path, snapshot(gradients={n: iter(one) for n, one in given.items()}))
    assert read_snapshot(path).gradients is None
    with h5py.File(path) as file:
        for name, one in given.items():
            for parameter, values in zip(snapshot().parameters, one, strict=True):
                stored = file[f"gradients/{name}/{parameter}"]
                assert stored.dtype == np.float32
                assert np.array_equal(stored[:], values)
        first = file[f"gradients/d_a/{snapshot().parameters[0]}"]
        assert [len(axis[0]) for axis in first.dims] == [4, 3]


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_snapshot(tmp_path / "a.h5", snapshot(sets=(*SETS, "absent")))
    assert list(tmp_path.iterdir()) == []


def test_missing(tmp_path: Path) -> None:
    assert "no such snapshot" in complaint(tmp_path / "none.h5")


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_truncated(path: Path, kept: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    assert "damaged, truncated or not HDF5" in complaint(path)


def test_a_flipped_bit_in_the_numbers_is_noticed(path: Path) -> None:
    gradients = record(0).gradients
    assert gradients is not None
    whole = bytearray(path.read_bytes())
    whole[whole.index(gradients.tobytes()) + 8] ^= 1
    path.write_bytes(whole)
    assert "damaged" in complaint(path)


@pytest.mark.parametrize("where", ["a name in a coordinate", "an attribute of text", "an axis"])
def test_texts_that_are_not_those_that_were_written_are_noticed(path: Path, where: str) -> None:
    """They lie in a heap of which HDF5 keeps no checksum."""
    if where == "an attribute of text":
        whole = bytearray(path.read_bytes())
        whole[whole.rindex(snapshot().stage_name.encode())] ^= 1
        path.write_bytes(whole)
    else:
        with h5py.File(path, "r+") as file:
            if where == "an axis":
                axis = file["parameters/inner_products"].dims[1]
                axis.detach_scale(file["parameters/set"])
                axis.attach_scale(file["parameters/other_set"])
            else:
                file["parameters/parameter"][0] = "another"
    assert "damaged, its texts are not those that were written" in complaint(path)


@pytest.mark.parametrize("flips", [60, pytest.param(200, marks=pytest.mark.slow)])
def test_no_flipped_bit_anywhere_is_read_as_if_nothing_were(path: Path, flips: int) -> None:
    """Either one line, or the very snapshot that was written."""
    whole, draw = path.read_bytes(), np.random.default_rng(0)
    written, noticed = read_snapshot(path), 0
    for place in draw.integers(8 * len(whole), size=flips):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            found = read_snapshot(path)
        except UserError:
            noticed += 1
        else:
            assert same(found, written), place
    assert noticed > flips / 4


def test_a_file_is_checked_once_in_a_process_and_again_when_it_has_changed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it has been left alone for a while, each time; the time of a change may be forged."""
    checked: list[Any] = []
    check = file_module._check

    def counted(*of: Any) -> None:
        checked.append(of)
        check(*of)

    monkeypatch.setattr(file_module, "_check", counted)
    with monkeypatch.context() as just_written:
        just_written.setattr(integrity, "_SETTLED", 10**15)
        assert same(read_snapshot(path), read_snapshot(path))
    assert len(checked) == 2
    time.sleep(0.2)
    assert same(read_snapshot(path), read_snapshot(path))
    assert len(checked) == 3
    was, whole = path.stat(), bytearray(path.read_bytes())
    whole[whole.rindex(snapshot().stage_name.encode())] ^= 1
    path.write_bytes(whole)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    time.sleep(0.2)
    for _ in range(2):
        assert "damaged, its texts" in complaint(path)


@pytest.mark.parametrize("where", ["its first object", "its size"])
def test_a_heap_of_texts_at_which_hdf5_loops_for_ever_is_one_line(path: Path, where: str) -> None:
    """In a process of its own, which can be ended."""
    whole = bytearray(path.read_bytes())
    at = whole.index(b"GCOL\x01")
    if where == "its size":  # so that it goes on, into 16 zeros wherever they stand
        end = at + int.from_bytes(whole[at + 8 : at + 16], "little")
        whole[at + 8 : at + 16] = (end - at + 32).to_bytes(8, "little")
        whole[end : end + 32] = bytes(32)
    else:
        whole[at + 16 : at + 32] = bytes(16)  # index, references, length
    path.write_bytes(whole)
    code = """
import sys
from pathlib import Path
from geomix.util.errors import UserError
from geomix.snapshots.file import read_snapshot
try:
    read_snapshot(Path(sys.argv[1]))
except UserError as error:
    print(*error.lines, sep="\\n")
"""
    reader = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(reader, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith(f"{path}: damaged, a heap of its texts at byte ")
    assert len(done.stdout.splitlines()) == 1


def test_texts_are_looked_for_between_the_numbers(path: Path) -> None:
    """Whole gradients are not read, however many there are."""
    with h5py.File(path) as file:
        held = _numbers(file)
        inside = {
            file[name].id.get_chunk_info(0).byte_offset
            for name in (f"gradients/{SETS[0]}/embed.weight", "parameters/size", "path/products")
        }
    assert inside < {first for first, _ in held}
    size = path.stat().st_size
    between = list(_between(held, size))
    assert sum(b - a for a, b in between) + sum(length for _, length in held) == size
    assert not any(a <= first < b for a, b in between for first in inside)


@pytest.mark.parametrize("reason", ["not asked for", "the stage begins here"])
def test_a_missing_path_says_why(path: Path, reason: str) -> None:
    bare = snapshot(path=None, no_path=reason, adam=None)
    write_snapshot(path, bare)
    assert same(read_snapshot(path), bare)


def test_text(path: Path) -> None:
    path.write_text("position,layer\n0,1\n")
    assert "not HDF5" in complaint(path)


def test_foreign(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["x"] = [1, 2]
    assert "not a snapshot of geomix" in complaint(path)


def test_newer(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = SCHEMA + 1
    assert f"schema {SCHEMA + 1} is newer" in complaint(path)


def test_older(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = OLDEST - 1
    assert f"schema {OLDEST - 1} is older" in complaint(path)


def test_layers_of_the_schema_before_are_read_in_todays_numbers(path: Path) -> None:
    """Schema 3 had −1 before the first block, which was 0."""
    (now,) = {tuple(read_snapshot(path).parameter_layers)}
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = 3
        file["parameters/layer"][...] = file["parameters/layer"][...] - 1
        file["parameters/layer"].attrs["description"] = "from 0"
        file.attrs[TEXTS] = text_hash(file)
        assert file["parameters/layer"][0] == -1
    assert tuple(read_snapshot(path).parameter_layers) == now
    arrays = SnapshotArrays(path)["parameters"]
    assert tuple(arrays.layer.values) == now
    assert arrays.layer.attrs["description"].startswith("0 before the first block")
    assert tuple(arrays.layer[1:].values) == now[1:]


def test_incomplete(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file.attrs["complete"]
    assert "incomplete" in complaint(path)


@pytest.mark.parametrize("name", ["stage1-step000013.h5", "stage0-step000012.h5"])
def test_the_name_says_what_it_holds(path: Path, name: str) -> None:
    other = path.rename(path.with_name(name))
    said = complaint(other)
    assert "holds step 12 of stage 2" in said
    assert "name it stage1-step000012.h5 (files count stages from 0) or delete it" in said
    assert read_snapshot(other.rename(path.with_name("kept.h5"))).step == 12  # claims nothing


def _external_link(file: h5py.File, other: Path) -> None:
    file["parameters/inner_products"] = h5py.ExternalLink(other, "/values")


def _soft_link(file: h5py.File, _: Path) -> None:
    file["parameters/inner_products"] = h5py.SoftLink("/path/products")


def _external_storage(file: h5py.File, other: Path) -> None:
    place, raw = file["parameters"], [(str(other), 0, h5py.h5f.UNLIMITED)]
    place.create_dataset("inner_products", (2, 3, 3), "f8", external=raw)


def _virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((2, 3, 3), "f8")
    layout[:] = h5py.VirtualSource(other, "values", (2, 3, 3))
    file.create_virtual_dataset("parameters/inner_products", layout)


@pytest.mark.parametrize(
    ("crafted", "kind"),
    [
        (_external_link, "an external link"),
        (_soft_link, "a soft link"),
        (_external_storage, "a dataset with external storage"),
        (_virtual, "a virtual dataset"),
    ],
)
def test_other_files_are_not_read(path: Path, tmp_path: Path, crafted: Any, kind: str) -> None:
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["values"] = np.ones((2, 3, 3))
    with h5py.File(path, "r+") as file:
        del file["parameters/inner_products"]
        crafted(file, other)
    assert f"parameters/inner_products is {kind}" in complaint(path)


def test_a_file_that_says_it_is_not_complete(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["complete"] = False
    assert "incomplete" in complaint(path)


@pytest.mark.parametrize("place", ["probes/d_b", "parameters/inner_products", "parameters/set"])
def test_missing_part(path: Path, place: str) -> None:
    with h5py.File(path, "r+") as file:
        del file[place]
    assert "damaged" in complaint(path)


def test_uncovered_parameters(path: Path) -> None:
    write_snapshot(path, snapshot(trainable=3))
    assert "covered parameters 2 of 3" in complaint(path)


def replaced(file: h5py.File, place: str, values: Any) -> None:
    del file[place]
    file[place] = values


@pytest.mark.parametrize(
    ("place", "values"),
    [
        ("parameters/inner_products", np.zeros((2, 3, 2))),
        ("parameters/inner_products", np.zeros((2, 3, 3), dtype=complex)),
        ("parameters/inner_products", ["a", "b"]),
        ("parameters/layer", [0]),
        ("parameters/layer", [0, 9]),
        ("parameters/size", [1.5, 2.5]),
        ("parameters/module", ["mlp"]),
        ("parameters/module", [1, 2]),
        ("probes/d_a/loss", np.zeros(4)),
        ("probes/d_a/offsets", [0, 9, 3, 7]),
        ("probes/d_a/targets", np.zeros(6, dtype=np.int64)),
        ("probes/d_a/gradients", np.zeros((7, 4, 6))),
        ("probes/d_a/activations", np.zeros((8, 4, 5))),
        ("probes/d_a/activations", np.zeros(8)),
        ("probes/d_a/lens_rank", np.zeros((7, 4))),
        ("probes/d_a/lens_logprob", np.zeros((7, 3))),
        ("probes/d_a/modules/layers.0.mlp/gradients", np.zeros((7, 5))),
        ("parameters/unreached", np.zeros((2, 2), dtype=np.int8)),
        ("parameters/inner_products_adam", np.zeros((2, 3, 2))),
        ("path/products", np.zeros((2, 3, 2, 2))),
        ("path/pairs", np.zeros((2, 3, 3, 2))),
        ("gradients/d_a/embed.weight", np.zeros((3, 3), dtype=np.float32)),
        ("gradients/d_a/embed.weight", np.zeros((4, 3), dtype=np.int64)),
        ("probes/d_a/loss", h5py.Empty("f8")),
        ("parameters/size", h5py.Empty("i8")),
    ],
)
def test_arrays_of_another_shape_or_kind(path: Path, place: str, values: Any) -> None:
    with h5py.File(path, "r+") as file:
        replaced(file, place, values)
    assert "damaged" in complaint(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("stage", -50), ("stage", 9e6), ("stage", np.inf), ("step", -1), ("step", 41), ("layers", -2)],
)
def test_numbers_out_of_range(path: Path, name: str, value: float) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    assert "damaged" in complaint(path)


@pytest.mark.parametrize("room", [9000, 1 << 20])
def test_a_full_disk_while_writing_is_an_error_of_python(path: Path, room: int) -> None:
    """In a process of its own, as HDF5 would take that down; 1 MiB lacks the gradients' room."""
    before = path.read_bytes()
    assert len(before) < 1 << 20
    code = """
import dataclasses, resource, sys
from pathlib import Path
import numpy as np
from geomix.snapshots.file import read_snapshot, write_snapshot
path, room = Path(sys.argv[1]), int(sys.argv[2])
snapshot = read_snapshot(path)
whole = {name: [np.ones((4, 3)), np.ones(30)] for name in snapshot.sets}
snapshot = dataclasses.replace(snapshot, gradients=whole)
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
try:
    write_snapshot(path, snapshot)
except OSError as error:
    print(error.filename)
"""
    command = [sys.executable, "-c", code, str(path), str(room)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(path)), done.stderr
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_chunks_are_even_so_that_none_is_stored_half_empty(tmp_path: Path) -> None:
    """With 1.1 MiB, chunks of 1 MiB would store two."""
    values = np.zeros((1100, 256), dtype=np.float32)
    with h5py.File(tmp_path / "even.h5", "w") as file:
        scale(file, "row", np.arange(1100), "rows")
        scale(file, "feature", np.arange(256), "features")
        put(file, "values", values, ("row", "feature"), units="1", text="zeros")
        assert file["values"].chunks == (550, 256)
    assert (tmp_path / "even.h5").stat().st_size < 1.05 * values.nbytes
