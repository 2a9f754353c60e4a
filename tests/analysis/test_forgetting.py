"""`geomix analyze forgetting` on a small run, against transformers and autograd alone."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

import geomix
from geomix.cli import main
from geomix.data.tokenise import tokenise_all
from geomix.models.load import load_tokenizer
from tests.analysis.calls import unprint

CONFIG: dict[str, Any] = {
    "name": "small",
    "train": {"lr": 3e-3, "loss": "example", "batch_size": 4},
    "stages": [
        {"data": {"source": "kvr", "limit": 6}, "stop": {"epochs": 1}},
        {"data": {"source": "triples", "limit": 4}, "stop": {"epochs": 5}},
    ],
    "record": {
        "at": ["boundaries", "every:1"],
        "probes": 2,
        "adam": False,
        "activations": 0,
        "lens": False,
        "weights": True,
    },
    "evaluate": {"epochs": 0},
    "arms": {
        "plain": {},
        "mixed": {"stages.0.mix": {"source": "random-words", "ratio": 1, "words": 4}},
        "control": {
            "stages.0.mix": {
                "source": "random-words",
                "ratio": 1,
                "words": 4,
                "passage_free": True,
            }
        },
    },
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> geomix.Run:
    folder = tmp_path_factory.mktemp("runs") / "forgetting"
    return geomix.train({**CONFIG, "model": str(tiny_model)}, out=folder, say=lambda _: None)


@pytest.fixture(scope="module")
def done(run: geomix.Run) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        unprint(patch)  # a test draws them again
        return geomix.analyze.forgetting(run, expansions=2, draws=2)


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["analyze", "forgetting", *arguments])
    assert result.exit_code == 2, result.output
    (line,) = result.output.splitlines()
    return str(line)


@dataclass
class Alone:
    """D_A's loss by transformers, its derivatives by autograd, at weights from a file."""

    network: Any
    examples: list[tuple[Tensor, Tensor]]
    stage: Path

    @classmethod
    def of(cls, arm: geomix.Run, model: Path) -> Alone:
        network = AutoModelForCausalLM.from_pretrained(model, attn_implementation="eager").eval()
        tokens = tokenise_all(load_tokenizer(str(model)), arm.examples("D_A"))
        pairs = [(torch.tensor([e.ids]), torch.tensor([e.labels])) for e in tokens]
        return cls(network, pairs, sorted((arm.path / "stages").iterdir())[1])

    def weights(self, name: str) -> dict[str, Tensor]:
        folders = {
            "A": min(self.stage.parent.iterdir()),
            "B": self.stage,
        }
        if name in folders:
            place = folders[name] / "checkpoints" / "final"
        else:
            place = self.stage / "weights" / f"step-{int(name):06d}"
        found: dict[str, Tensor] = load_file(place / "model.safetensors")
        return found

    def at(self, weights: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The loss, differentiable, and the parameters."""
        self.network.load_state_dict(weights, strict=False)
        losses = [self.network(input_ids=ids, labels=labels).loss for ids, labels in self.examples]
        return torch.stack(losses).double().mean(), list(self.network.parameters())

    def gradient(self, weights: dict[str, Tensor]) -> list[Tensor]:
        loss, parameters = self.at(weights)
        return list(torch.autograd.grad(loss, parameters))

    def between(self, one: str, other: str) -> list[Tensor]:
        first, last = self.weights(one), self.weights(other)
        return [last[n] - first[n] for n, _ in self.network.named_parameters()]


def dot(u: list[Tensor], v: list[Tensor]) -> float:
    return float(
        sum(
            torch.dot(a.flatten().double(), b.flatten().double()) for a, b in zip(u, v, strict=True)
        )
    )


def rows(done: Any, table: str, **where: object) -> list[dict[str, Any]]:
    found = done.tables[table].to_dict("records")
    return [row for row in found if all(row[key] == value for key, value in where.items())]


def test_orders_are_those_of_autograd_alone(run: geomix.Run, done: Any, tiny_model: Path) -> None:
    alone = Alone.of(run.arm("plain"), tiny_model)
    x = alone.between("A", "B")
    loss, parameters = alone.at(alone.weights("A"))
    gradient = torch.autograd.grad(loss, parameters, create_graph=True)
    slope = torch.stack([(g * d).sum() for g, d in zip(gradient, x, strict=True)]).sum()
    curved = torch.autograd.grad(slope, parameters)
    (found,) = rows(done, "", arm="plain")
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-5)
    change = alone.at(alone.weights("B"))[0].item() - loss.item()
    assert found["change"] == pytest.approx(change, rel=1e-3)
    assert found["first"] == pytest.approx(slope.item(), rel=1e-3)
    assert found["second"] == pytest.approx(dot(list(curved), x) / 2, rel=2e-3)
    assert found["length"] == pytest.approx(dot(x, x) ** 0.5, rel=1e-5)
    assert found["rest"] == pytest.approx(change - found["first"] - found["second"], rel=1e-3)
    ends = dot(alone.gradient(alone.weights("B")), x)
    assert found["first_at_end"] == pytest.approx(ends, rel=1e-3)
    assert (found["facts"], found["reduction"]) == ("6 facts", "example")


def test_a_segments_factors_are_those_of_autograd_alone(
    run: geomix.Run, done: Any, tiny_model: Path
) -> None:
    alone = Alone.of(run.arm("plain"), tiny_model)
    way = alone.between("1", "2")
    first = alone.weights("1")
    names = [n for n, _ in alone.network.named_parameters()]
    middle = first | {n: first[n] + d / 2 for n, d in zip(names, way, strict=True)}
    nodes = [alone.gradient(w) for w in (first, middle, alone.weights("2"))]
    mean = [(a + 4 * b + c) / 6 for a, b, c in zip(*nodes, strict=True)]
    (found,) = rows(done, "segments", arm="plain", partition="K", segment=2)
    assert found["norm"] == pytest.approx(dot(mean, mean) ** 0.5, rel=1e-3)
    assert found["length"] == pytest.approx(dot(way, way) ** 0.5, rel=1e-5)
    cosine = dot(mean, way) / (dot(mean, mean) * dot(way, way)) ** 0.5
    assert found["cosine"] == pytest.approx(cosine, abs=1e-4)
    assert (found["from_step"], found["to_step"]) == (1, 2)
    losses = [alone.at(w)[0].item() for w in (first, alone.weights("2"))]
    assert found["measured"] == pytest.approx(losses[1] - losses[0], abs=1e-5)


def test_a_slope_along_a_segment_is_that_of_autograd_alone(
    run: geomix.Run, done: Any, tiny_model: Path
) -> None:
    alone = Alone.of(run.arm("mixed"), tiny_model)
    way = alone.between("1", "2")
    expected = dot(alone.gradient(alone.weights("1")), way)
    (found,) = rows(done, "sharpness", arm="mixed", checkpoint="θ_A+1", set="D_A")
    assert found["slope"] == pytest.approx(expected, rel=1e-3)
    assert (found["critical"] == "undefined (conflict)") == (expected >= 0)
    starts = {row["checkpoint"] for row in rows(done, "sharpness", arm="mixed")}
    assert starts == {"θ_A", "θ_A+1", "θ_A+2", "θ_A+4"}


def test_groups_sum_to_the_whole_and_differences_to_their_parts(done: Any) -> None:
    whole = sum(row["change"] for row in rows(done, "segments", arm="plain", partition="K"))
    groups = rows(done, "groups", of="plain")
    assert groups[0]["group"] == "embedding+head (tied)"
    assert sum(row["change"] for row in groups) == pytest.approx(whole, rel=1e-6)
    sums = {
        row["contrast"]: row["total"]
        for row in rows(done, "contrasts", partition="K", segment="sum")
    }
    assert list(sums) == ["plain → control", "control → mixed", "plain → mixed"]
    assert sums["plain → mixed"] == pytest.approx(
        sums["plain → control"] + sums["control → mixed"], abs=1e-9
    )


def test_the_null_has_the_length_and_not_the_direction(done: Any) -> None:
    real, *draws = rows(done, "null", arm="plain")
    assert [row["draw"] for row in (real, *draws)] == ["real", "permuted 1", "permuted 2"]
    ends = [row["length"] for row in rows(done, "reach", arm="plain", t=1.0, curve="measured")]
    np.testing.assert_allclose(ends, ends[0], rtol=1e-6)
    assert len({row["change"] for row in (real, *draws)}) == 3


@pytest.mark.usefixtures("unprinted")
def test_an_arm_without_kept_weights_has_its_orders_and_no_path(
    run: geomix.Run, done: Any, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(run.arm("plain").path, tmp_path / "copy"))
    shutil.rmtree(max((copy / "stages").iterdir()) / "weights")
    bare = geomix.analyze.forgetting(copy, expansions=0, draws=0)
    (found,), (known,) = rows(bare, ""), rows(done, "", arm="plain")
    assert found["change"] == pytest.approx(known["change"], abs=1e-6)
    assert set(bare.tables) == {"", "reach", "null", "sharpness"}
    assert bare.result.without_path == ("copy (1)",)
    assert "No path: copy (1)" in bare.answer
    assert "Verdict: copy: stage 2 (triples) forgets D_A: undetermined" in bare.answer
    shutil.rmtree(max((copy / "stages").iterdir()) / "checkpoints")
    assert "no weights of θ_B" in refused(str(copy))


def test_the_answer_fits_a_terminal_and_its_files_are_there(run: geomix.Run, done: Any) -> None:
    lines = done.answer.splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines[:-3])) <= 80
    assert lines[0].startswith("How did stage 2 (triples) change the loss of D_A")
    assert "No interval: one seed" in done.answer
    assert "Verdict: control forgets less of D_A than plain: undetermined" in done.answer
    names = {file.name for file in done.files}
    assert {"forgetting_stage1.json", "forgetting_stage1_reach.png"} <= names
    facts = json.loads((run.analysis_folder / "forgetting_stage1.json").read_text())
    assert facts["findings"][0]["verdict"] == "undetermined"
    for figure, table in (("reach", "reach"), ("path-factors", "factors")):
        source = run.figure_folder / f"forgetting_stage1_{table}.csv"
        again = run.path / f"{figure}.png"
        command = ["figure", figure, str(source), "--out", str(again)]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
    with (run.analysis_folder / "forgetting_stage1_expansions.csv").open() as file:
        assert {row["expansions"] for row in csv.DictReader(file)} == {"1", "2"}


def test_what_cannot_be_measured_is_one_line(run: geomix.Run) -> None:
    path = str(run.path)
    assert "give 0 or a power of two" in refused(path, "--expansions", "12")
    assert "no set 'D_Z'; there are D_A, D_B" in refused(path, "--set", "D_Z")
    assert "--stage 7: no such stage" in refused(path, "--stage", "7")
