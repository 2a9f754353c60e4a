"""Quantities: what is declared is what is collected, gathered, written and read."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import pytest
import torch

from geomix.config.quantities import QuantityOptions
from geomix.config.recording import RecordConfig
from geomix.models.distributed import ALONE
from geomix.recording.quantities.base import Arrays, ProbeBatch, Quantity
from geomix.recording.quantities.collected import gathered
from geomix.recording.quantities.tokens import Tokens
from geomix.recording.recorder import Recorder
from geomix.snapshots.file import read_snapshot
from geomix.snapshots.variables import Variable
from geomix.util.errors import UserError
from geomix.util.hdf5 import scale

NAMED = QuantityOptions(name="tokens")


def recorder(folder: Path, probes: Any, quantities: dict[str, Quantity], **more: Any) -> Recorder:
    options: dict[str, Any] = {"at": [0], "reduction": "token", "pad_id": 0, "capture": "hooks"}
    options |= {"batch_size": 3, "activations": 0}
    return Recorder(folder, probes, quantities=quantities, **{**options, **more})


@pytest.mark.parametrize("more", [{"batch_size": 1}, {"batch_size": 9, "width": 40}])
def test_tokens_are_those_of_one_plain_pass(
    tmp_path: Path, llama: Any, examples: Any, moment: Any, more: dict[str, Any]
) -> None:
    data, model = examples(5, 1), llama()
    quantities: dict[str, Quantity] = {"tokens": Tokens(NAMED)}
    recorder(tmp_path, {"D_A": data}, quantities, **more).observe(moment(model))
    path = tmp_path / "stage0-step000000.h5"
    read_snapshot(path)
    nll, entropy = [], []
    model.eval()
    for example in data:
        with torch.no_grad():
            logs = model(input_ids=torch.tensor([example.ids])).logits[0].log_softmax(-1)
        for place in range(example.target_start, len(example.ids)):
            nll.append(-float(logs[place - 1, example.ids[place]]))
            entropy.append(-float((logs[place - 1].exp() * logs[place - 1]).sum()))
    with h5py.File(path) as file:
        group = file["probes/D_A/quantities/tokens"]
        assert group["nll"][:] == pytest.approx(nll, abs=1e-4)
        assert group["entropy"][:] == pytest.approx(entropy, abs=1e-4)
        offsets = file["probes/D_A/offsets"][:]
        means = [group["nll"][a:b].mean() for a, b in pairwise(offsets)]
        assert means == pytest.approx(file["probes/D_A/loss"][:].tolist(), abs=1e-5)


def test_without_quantities_a_snapshot_is_the_same_file(
    tmp_path: Path, llama: Any, examples: Any, moment: Any
) -> None:
    """And one that has them is the same elsewhere."""
    files = []
    asked: dict[str, dict[str, Quantity]] = {"bare": {}, "more": {"tokens": Tokens(NAMED)}}
    for name, quantities in asked.items():
        recorder(tmp_path / name, {"D_A": examples(3, 1)}, quantities).observe(moment(llama()))
        files.append(tmp_path / name / "stage0-step000000.h5")
    with h5py.File(files[0]) as bare, h5py.File(files[1]) as more:
        assert set(more["probes/D_A"]) - set(bare["probes/D_A"]) == {"quantities"}
        assert np.array_equal(more["probes/D_A/loss"], bare["probes/D_A/loss"])


class Wrong(Quantity):
    """Gives not what it declares."""

    variables = (Variable("x", ("position",), "float32", "1", "anything"),)
    gives: ClassVar[Any] = None

    def collect(self, seen: ProbeBatch) -> Arrays:
        """Give what the test says."""
        return dict(self.gives(len(seen.batch.targets)))


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (lambda n: {"y": np.zeros(n)}, r"wrong gives \['y'\], declares \['x'\]"),
        (lambda n: {"x": np.zeros(n + 1)}, r"wrong x has \d+ rows, not \d+"),
        (lambda n: {"x": np.zeros((n, 2))}, r"wrong x has the shape \(\d+, 2\), declares"),
    ],
)
def test_what_is_not_as_declared_is_told(
    tmp_path: Path, llama: Any, examples: Any, moment: Any, gives: Any, said: str
) -> None:
    wrong = Wrong(NAMED)
    wrong.gives = gives  # type: ignore[misc]
    with pytest.raises(UserError, match=said):
        recorder(tmp_path, {"D_A": examples(3, 1)}, {"wrong": wrong}).observe(moment(llama()))
    assert not list(tmp_path.glob("*.h5"))


def test_a_damaged_quantity_is_rejected(
    tmp_path: Path, llama: Any, examples: Any, moment: Any
) -> None:
    quantities: dict[str, Quantity] = {"tokens": Tokens(NAMED)}
    recorder(tmp_path, {"D_A": examples(3, 1)}, quantities).observe(moment(llama()))
    path = tmp_path / "stage0-step000000.h5"
    with h5py.File(path, "r+") as file:
        group = file["probes/D_A/quantities/tokens"]
        for name in ("nll", "entropy", "position"):
            del group[name]
        scale(group, "position", np.arange(2), "row of the ragged arrays")
    with pytest.raises(UserError, match=str(path)):
        read_snapshot(path)


class Pretended:
    """Process 0 of several whose rows are known."""

    world, main, rank = 3, True, 0

    def __init__(self, parts: list[list[np.ndarray]]) -> None:
        self.parts = parts

    def collected(self, _: np.ndarray) -> list[np.ndarray]:
        return self.parts.pop(0)


def test_rows_of_several_processes_come_in_the_sets_order() -> None:
    """Seven examples with 1 to 3 tokens, dealt out to three processes; two get one too many."""
    counts = np.array([1, 3, 2, 1, 2, 3, 1])
    rows = np.arange(counts.sum())
    bounds = np.cumsum([0, *counts])
    each = [[rows[bounds[i] : bounds[i + 1]] for i in range(r, 7, 3)] for r in range(3)]
    for extra in (1, 2):
        each[extra].append(np.array([-1]))
    parts = [np.concatenate(part) for part in each]
    edges = [np.cumsum([0, *map(len, part)]) for part in each]
    variable = Tokens.variables[0]
    workers: Any = Pretended([parts, edges])
    found = gathered(parts[0], variable, np.diff(edges[0]), 7, workers)
    assert found.tolist() == rows.tolist()
    assert gathered(parts[1], variable, np.diff(edges[1]), 7, ALONE) is parts[1]


def test_the_key_is_absent_where_nothing_is_asked_for() -> None:
    assert "quantities" not in RecordConfig().model_dump()
    asked = RecordConfig.model_validate({"quantities": "tokens"})
    assert asked.model_dump()["quantities"] == ({"name": "tokens"},)


def test_the_size_is_that_of_the_declared_variables() -> None:
    known = {"example": 4, "position": 10, "parameter": 7}
    assert Tokens(NAMED).size(known) == 2 * 10 * 4
