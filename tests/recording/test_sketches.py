"""Sketches of single examples' gradients, as the recorder stores them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import xarray

from geomix.data.example import TokenisedExample
from geomix.gradients.capture import CaptureName
from geomix.gradients.example_products import Sketcher, _groups, sketches
from geomix.gradients.per_example import PerExample
from geomix.measures.sketch import matrix_shape, projection
from geomix.models.forward import batches_of
from geomix.recording.recorder import Recorder
from geomix.snapshots.file import read_snapshot
from geomix.training.observer import TrainingEvent
from geomix.util.errors import UserError

from .test_recorder import recorder, trained

Make = Callable[[], Any]
Examples = Callable[[int, int], list[TokenisedExample]]
MakeMoment = Callable[..., TrainingEvent]
CPU = torch.device("cpu")


@pytest.mark.parametrize("autocast", [None, partial(torch.autocast, "cpu", dtype=torch.bfloat16)])
@pytest.mark.parametrize("capture", ["nnsight", "hooks"])
def test_they_sum_to_the_sketch_of_the_gradient_of_the_set(
    capture: CaptureName,
    autocast: Any,
    tmp_path: Path,
    llama: Make,
    examples: Examples,
    moment: MakeMoment,
) -> None:
    """Both are in the file, out of one pass; the second is projected here, with numpy."""
    probes = {"d_a": examples(7, 1), "d_b": examples(4, 2)}
    options: dict[str, Any] = {"autocast": autocast} if autocast else {}
    observer = recorder(
        tmp_path, probes, sketches=(16, 3), gradients=True, width=30, capture=capture, **options
    )
    observer.observe(moment(llama()))
    path = tmp_path / "stage0-step000000.h5"
    snapshot = read_snapshot(path)
    for name, record in snapshot.probes.items():
        assert record.sketches is not None
        assert record.sketches.seed == 3
        found = record.sketches.values
        assert found.shape == (len(probes[name]), len(snapshot.parameters), 16)
        assert found.dtype == np.float32
        with h5py.File(path) as file:
            for m, parameter in enumerate(snapshot.parameters):
                gradient = file[f"gradients/{name}/{parameter}"][:]
                onto = projection(3, parameter, gradient.shape, 16)
                sketch = (
                    onto.rows.numpy() @ gradient.reshape(matrix_shape(gradient.shape)).squeeze()
                )
                if onto.columns is not None:
                    sketch = sketch @ onto.columns.numpy().T
                rounding = 2e-2 if autocast else 1e-5
                off = np.linalg.norm(found[:, m].sum(0) - sketch.ravel())
                assert off < rounding * np.linalg.norm(gradient), parameter


def test_the_file_holds_what_the_examples_give_alone(
    tmp_path: Path, gpt2: Make, examples: Examples, moment: MakeMoment
) -> None:
    data, model = examples(6, 1), gpt2()
    recorder(tmp_path, {"d_a": data}, sketches=(16, 0), batch_size=4).observe(moment(model))
    alone = sketches(
        PerExample(model), batches_of(data, "token", 1, 0, CPU), seed=0, entries=16
    ).numpy()
    path = tmp_path / "stage0-step000000.h5"
    with xarray.open_dataset(path, group="probes/d_a", engine="h5netcdf") as dataset:
        found = dataset["sketches"]
        assert found.dims == ("example", "parameter", "entry")
        assert list(found["parameter"].values) == [name for name, _ in model.named_parameters()]
        assert found.attrs["seed"] == 0
        np.testing.assert_allclose(found.values, alone, rtol=0, atol=1e-5 * np.abs(alone).max())
    assert read_snapshot(path, activations=False).probes["d_a"].sketches is None


@pytest.mark.parametrize("capture", ["nnsight", "hooks"])
def test_training_is_the_same_with_and_without_them(
    capture: CaptureName, tmp_path: Path, gpt2: Make, examples: Examples
) -> None:
    probes = {"d_a": examples(5, 1)}
    make = partial(recorder, at=["log:3"], capture=capture, sketches=(4, 0))
    observer: Recorder = make(tmp_path, probes)
    alone = trained(gpt2(), examples(6, 0), None)
    assert torch.equal(alone, trained(gpt2(), examples(6, 0), observer))
    assert len(list(tmp_path.iterdir())) > 1


def test_a_sketch_of_another_shape_is_damage(
    tmp_path: Path, llama: Make, examples: Examples, moment: MakeMoment
) -> None:
    recorder(tmp_path, {"d_a": examples(5, 1)}, sketches=(4, 0)).observe(moment(llama()))
    path = tmp_path / "stage0-step000000.h5"
    with h5py.File(path, "r+") as file:
        group = file["probes/d_a"]
        values = group["sketches"][:]
        del group["sketches"]
        group.create_dataset("sketches", data=values[:, 1:]).attrs["seed"] = 0
    with pytest.raises(UserError, match="damaged"):
        read_snapshot(path)


def test_the_rules_are_found_anew_where_others_train(
    tmp_path: Path, llama: Make, examples: Examples, moment: MakeMoment
) -> None:
    """As between two stages, or two models."""
    observer, model = recorder(tmp_path, {"d_a": examples(3, 1)}, sketches=(4, 0)), llama()
    for frozen in range(3):
        for p in list(model.parameters())[:frozen]:
            p.requires_grad_(False)
        kept = observer.snapshot(moment(model))
        again = observer.snapshot(moment(model))
        one, other = (s.probes["d_a"].sketches for s in (kept, again))
        assert one is not None
        assert other is not None
        assert one.values.shape[1] == len(list(model.parameters())) - frozen
        assert np.array_equal(one.values, other.values)
    assert observer.snapshot(moment(llama())).trainable == len(list(model.parameters()))


def test_autocast_does_not_round_the_sketches(llama: Make, examples: Examples) -> None:
    """The recorder asks for them within the autocast of its run."""
    sketcher = Sketcher(PerExample(llama(), capture="hooks"), 0, 16)
    data = batches_of(examples(4, 1), "token", 4, 0, CPU)
    for batch, factors in sketcher.examples.passes(data):
        expected = sketcher.sketch(factors, batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(sketcher.sketch(factors, batch), expected)


def test_parameters_are_grouped_by_what_their_factors_take() -> None:
    """10 tokens of 4 bytes: a 3 × 2 matrix takes 200, a vector of two 120; never an empty group."""
    shapes = {"a": (3, 2), "b": (3, 2), "c": (2,), "d": (3, 2)}
    parameters = {name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()}
    assert [*_groups(parameters, 10, 400)] == [["a", "b"], ["c", "d"]]
    assert [*_groups(parameters, 10, 1)] == [["a"], ["b"], ["c"], ["d"]]
