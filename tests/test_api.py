"""The Python API of notebooks and scripts."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

import geomix
from geomix.analysis.grad_angle import outputs
from geomix.runs.directory import RunDirectory
from geomix.util.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> geomix.Run:
    config = {
        "model": str(tiny_model),
        "train": {"batch_size": 3},
        "stages": [
            {"data": {"source": "kvr", "limit": 6}, "stop": {"epochs": 1}},
            {"data": {"source": "arithmetic", "limit": 6}, "stop": {"epochs": 2}},
        ],
        "record": {"probes": 3, "at": ["boundaries", 1], "weights": True},
        "arms": {
            "plain": {},
            "mixed": {"stages.0.mix": {"source": "random-words", "ratio": 1, "words": 3}},
        },
    }
    told: list[str] = []
    folder = tmp_path_factory.mktemp("api") / "run"
    made = geomix.train(config, "evaluate.epochs=0", out=folder, arms=["mixed"], say=told.append)
    assert "mixed: stage 1 of 2 (kvr): 4 steps" in told
    assert any(line.startswith("mixed: after stage 2: D_A exact match ") for line in told)
    return made


def test_retention_is_a_table(run: geomix.Run) -> None:
    found = run.retention()
    assert [*found.columns[:4]] == ["arm", "checkpoint", "set", "n"]
    assert {*found["checkpoint"]} == {"θ_0", "after stage 1", "after stage 2"}
    assert {"exact_match", "loss"} <= {*found.columns}


def test_a_model_at_a_checkpoint(run: geomix.Run) -> None:
    arm = run.arm("mixed")
    weights = [
        torch.cat([p.detach().flatten() for p in arm.at(name).model.parameters()])
        for name in ("0", "A", "θ_A+1", "B")
    ]
    assert all(not torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])
    loaded = arm.at("A", precise=True)
    assert not loaded.model.training
    ids = torch.tensor([[1, 5, 9]])
    loss = loaded.model(input_ids=ids, labels=ids).loss
    first = next(iter(loaded.model.parameters()))
    (gradient,) = torch.autograd.grad(loss, first, create_graph=True)
    (second,) = torch.autograd.grad((gradient**2).sum(), first)
    assert float(second.abs().sum()) > 0


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("C", "no checkpoint C; it has 2 stages"),
        ("B+1", r"no checkpoint B\+1; it has 2 stages"),
        ("A+3", r"no weights of A\+3; weights within a stage are kept with record: {weights"),
        ("end", r"'end': no checkpoint; give 0, A, B, or A\+4"),
    ],
)
def test_a_checkpoint_that_is_not_there(run: geomix.Run, name: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        run.arm("mixed").at(name)


def test_examples_are_those_that_were_trained_on(run: geomix.Run) -> None:
    arm = run.arm("mixed")
    assert len(arm.examples("D_A")) == len(arm.examples("D_M")) == 6
    assert arm.examples("D_B") != arm.examples("D_A")
    with pytest.raises(UserError, match="no stage trained on D_C; there are: D_A, D_M, D_B"):
        arm.examples("D_C")
    with pytest.raises(UserError, match=r"it has arms; ask one: run.arm\('mixed'\).examples"):
        run.examples("D_A")
    with pytest.raises(UserError, match="no arm 'plain'; there are: mixed"):
        run.arm("plain")


def test_an_analysis_gives_tables_findings_and_figures(
    run: geomix.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its figures the first, "", is drawn."""
    every = outputs._figures
    monkeypatch.setattr(outputs, "_figures", lambda result: islice(every(result), 1))
    angles = geomix.analyze.grad_angle(run, source="record")
    assert {"arm", "moment", "first", "second", "cosine"} <= {*angles.tables[""].columns}
    (finding,) = angles.findings
    assert (finding.n, finding.verdict) == (1, "undetermined")
    assert angles.figures[""]._repr_png_().startswith(b"\x89PNG")
    assert repr(angles).startswith("Do the gradients of D_A and D_B conflict?")
    assert all(file.is_file() for file in angles.files)


def test_a_mistake_is_a_line_that_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config:\d+ stages\[0\].data.sorce: unknown key"):
        geomix.train({"stages": [{"data": {"sorce": "kvr"}}]}, out=tmp_path / "run")
    with pytest.raises(UserError, match="no such file"):
        geomix.train("demmo")


def test_a_run_is_its_folder(run: geomix.Run) -> None:
    """The public run and the directory that geomix itself opens are one."""
    assert RunDirectory(run.path) == run == geomix.open_run(str(run.path))
    assert len({RunDirectory(run.path), run}) == 1


def test_the_weights_of_a_public_run_are_found(
    run: geomix.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "_figures", lambda _: ())
    angles = geomix.analyze.grad_angle(run, at=["A"], by="head", examples=0)
    assert {*angles.tables[""]["moment"]} == {"θ_A"}


def test_what_users_need_and_no_more_is_completed() -> None:
    assert dir(geomix) == ["Run", "analyze", "open_run", "train"]
    assert (Path(geomix.__file__).parent / "py.typed").is_file()
