"""Single examples at one moment of a run, against what the run recorded and against autograd."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from geomix.analysis.grad_angle.example_gram import ExampleGeometry, example_geometry
from geomix.analysis.grad_angle.example_tables import (
    angle_rows,
    conflict_rows,
    cosine_rows,
    fact_rows,
    pairwise_rows,
    quantile_rows,
    rank_rows,
)
from geomix.analysis.parameter_groups import grouped
from geomix.api import open_run
from geomix.cli import main
from geomix.data.chat import chat_format
from geomix.data.example import Example
from geomix.data.tokenise import tokenise_all
from geomix.experiments.checkpoints import Revisit, StoredCheckpoint
from geomix.experiments.prepare import prepared_arms
from geomix.gradients.inner_products import undisturbed
from geomix.measures.cosine import Floats
from geomix.models.forward import backward_over, batches_of, plain_forward
from geomix.models.load import CPU
from geomix.runs.configs import stored_configs
from geomix.snapshots.file import read_snapshot
from geomix.util.errors import UserError

RUN = """stages:
  - data: {source: kvr, limit: 6}
    mix: {source: random-words, ratio: 1, words: 2}
    stop: {epochs: 2}
  - data: {source: arithmetic, limit: 4}
    stop: {epochs: 2}
train: {lr: 1e-2, batch_size: 3, pack: 64, loss: LOSS}
record: {at: [boundaries], probes: 5, batch_size: 2}
"""


@pytest.fixture(scope="module", params=["token", "example"])
def past(
    request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Revisit:
    """A trained run of two stages."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "run.yaml").write_text(RUN.replace("LOSS", request.param))
    arguments = ["train", str(folder / "run.yaml"), "--out", str(folder / "made"), "--quiet"]
    result = CliRunner().invoke(main, [*arguments, "--set", f"model={tiny_model}"])
    assert result.exit_code == 0, result.output
    run = open_run(folder / "made")
    ready = prepared_arms(stored_configs(run), CPU)
    return Revisit(run, stored_configs(run)[""], ready, ready.prepared[""], ready.chats[""])


def points(past: Revisit) -> dict[str, StoredCheckpoint]:
    found = past.checkpoints(print)
    ends = {point.stage: point for point in found if point.last}
    return {"θ_0": found[0], "θ_A": ends[0], "θ_B": ends[1]}


def looked(past: Revisit, moment: str, by: str = "layer", most: int = 99) -> ExampleGeometry:
    point = points(past)[moment]
    return example_geometry(past, point, past.stages()[point.stage], by, most)  # type: ignore[arg-type]


@pytest.mark.parametrize("moment", ["θ_0", "θ_A", "θ_B"])
@pytest.mark.parametrize("by", ["layer", "parameter"])
def test_a_sets_rows_and_columns_sum_to_the_recorded_inner_product(
    past: Revisit, moment: str, by: str
) -> None:
    """Independent: online, autograd of whole sets, at the same weights; group by group."""
    point = points(past)[moment]
    name = f"stage{point.stage}-step{point.step:06d}.h5"
    (path,) = [file for file in past.arm.snapshots() if file.name == name]
    snapshot = read_snapshot(path)
    found = looked(past, moment, by)
    assert found.checkpoint == moment
    assert found.sets == snapshot.sets
    groups, index = grouped(snapshot, by)  # type: ignore[arg-type]
    assert found.groups == ("all", *groups)
    parts = [
        snapshot.inner_products,
        *(snapshot.inner_products[index == g] for g in range(len(groups))),
    ]
    assert found.gram.shape[0] == len(parts) > 3
    for g, part in enumerate(parts):
        expected = part.sum(axis=0)
        scale = np.sqrt(np.outer(np.diagonal(expected), np.diagonal(expected)))
        for i in range(len(found.sets)):
            for j in range(len(found.sets)):
                block = found.gram[g][np.ix_(found.owners == i, found.owners == j)]
                assert abs(block.sum() - expected[i, j]) < 1e-4 * scale[i, j]
    sizes = [snapshot.sizes.sum(), *(snapshot.sizes[index == g].sum() for g in range(len(groups)))]
    assert found.sizes.tolist() == sizes


def alone(past: Revisit, moment: str, example: Example, share: float) -> Floats:
    """One backward pass over one example, a share of its set's mean loss."""
    point = points(past)[moment]
    loaded, _ = past.event(point, past.stages()[point.stage])
    chat = chat_format(past.config.chat_template, loaded.tokenizer)
    tokens = tokenise_all(loaded.tokenizer, [example], chat)
    with undisturbed(loaded.model):
        batches = batches_of(tokens, "token", 1, loaded.pad_id, CPU)
        for _ in backward_over(plain_forward(loaded.model), batches):
            pass
        flat = [p.grad.flatten() for p in loaded.model.parameters() if p.grad is not None]
    return share * torch.cat(flat).double().numpy()


def test_the_worst_conflict_is_between_the_examples_that_it_names(past: Revisit) -> None:
    found = looked(past, "θ_A")
    rows = list(conflict_rows(found, "D_A", "D_M", 99))
    products = [row["inner_product"] for row in rows]
    assert products == sorted(products)
    assert products[-1] < 0
    row = rows[0]
    loaded, _ = past.event(points(past)["θ_A"], past.stages()[0])
    chat = chat_format(past.config.chat_template, loaded.tokenizer)
    gradients = []
    for key in ("first", "second"):
        examples = past.prepared.probes[row[f"{key}_set"]][:5]
        example = examples[row[f"{key}_example"]]
        assert (example.prompt, example.target) == (row[f"{key}_prompt"], row[f"{key}_target"])
        tokens = [e.target_tokens for e in tokenise_all(loaded.tokenizer, examples, chat)]
        mine = tokens[row[f"{key}_example"]]
        share = mine / sum(tokens) if found.reduction == "token" else 1 / len(tokens)
        gradients.append(alone(past, "θ_A", example, share))
    assert row["inner_product"] == pytest.approx(gradients[0] @ gradients[1], rel=1e-4)
    lengths = np.linalg.norm(gradients[0]) * np.linalg.norm(gradients[1])
    assert row["cosine"] == pytest.approx(gradients[0] @ gradients[1] / lengths, rel=1e-4)


def test_facts_sum_to_their_set(past: Revisit) -> None:
    found = looked(past, "θ_B")
    (row,) = [
        r
        for r in cosine_rows(found)
        if (r["group"], r["first"], r["second"]) == ("all", "D_A", "D_B")
    ]
    facts = list(fact_rows(found, "D_A", "D_B"))
    assert sorted(fact["first_example"] for fact in facts) == [0, 1, 2, 3, 4]
    assert sum(fact["inner_product"] for fact in facts) == pytest.approx(row["inner_product"])
    assert [fact["inner_product"] for fact in facts] == sorted(f["inner_product"] for f in facts)


def test_what_can_be_read_off_is_said(past: Revisit) -> None:
    """All four D_B examples are probed, five of six of D_A; the held-out set is always a sample."""
    found = looked(past, "θ_A")
    assert dict(zip(found.sets, found.sampled, strict=True)) == {
        "D_A": 5 / 6,
        "D_B": 1.0,
        "D_M": 5 / 6,
        "held-out": 0.0,
    }
    for row in cosine_rows(found):
        bound = np.sqrt(max(row["reliability_first"], 0) * max(row["reliability_second"], 0))
        assert row["bound"] == pytest.approx(bound, nan_ok=True)
        assert (row["verdict"] == "undetermined") == (not row["bound"] >= 0.5)
        if row["verdict"] == "interval":
            assert row["low"] <= row["cosine"] <= row["high"]
    whole = example_geometry(_probing_all(past), points(past)["θ_A"], past.stages()[0], "layer", 99)
    verdicts = {(r["first"], r["second"]): r["verdict"] for r in cosine_rows(whole)}
    assert verdicts["D_A", "D_B"] == "exact"
    assert verdicts["D_A", "held-out"] != "exact"


def _probing_all(past: Revisit) -> Revisit:
    assert past.config.record is not None
    record = past.config.record.model_copy(update={"probes": 99})
    config = past.config.model_copy(update={"record": record})
    return Revisit(past.arm, config, past.ready, past.prepared, past.chat)


def test_every_table_is_full(past: Revisit) -> None:
    found = looked(past, "θ_0", most=3)
    groups, sets = len(found.groups), len(found.sets)
    assert len(found.owners) == 3 * sets
    assert found.probes["D_A"] == (3, 6)
    pairs = sets * (sets - 1) // 2
    quantiles = list(quantile_rows(found))
    assert len(quantiles) == groups * (pairs + sets)
    for row in quantiles:
        assert row["pairs"] == (3 if row["first"] == row["second"] else 9)
        assert -1 <= row["q0"] <= row["q50"] <= row["q100"] <= 1
        assert row["q0"] <= row["mean"] <= row["q100"]
    ranks = list(rank_rows(found))
    assert len(ranks) == groups * sets
    assert all(1 <= row["participation_ratio"] <= 3 + 1e-9 for row in ranks)
    assert all(1 / 3 <= row["largest_share"] <= 1 for row in ranks)
    assert all(1 <= row["directions_90"] <= 3 for row in ranks)
    angles = list(angle_rows(found))
    assert len(angles) == groups * pairs
    for row in angles:
        assert 0 <= row["smallest_degrees"] <= row["largest_degrees"] <= 90
        assert 0 < row["random_overlap"] < 1
    cells = list(pairwise_rows(found, "D_A", "D_B"))
    n = len(found.owners)
    assert len(cells) == n * (n + 1) // 2
    (worst,) = [row for row in fact_rows(found, "D_A", "D_B") if row["rank"] == 1]
    assert (cells[0]["set"], cells[0]["example"]) == ("D_A", worst["first_example"])


def test_without_probe_sets(past: Revisit) -> None:
    config = past.config.model_copy(update={"record": None})
    bare = Revisit(past.arm, config, past.ready, past.prepared, past.chat)
    with pytest.raises(UserError, match="no probe sets"):
        example_geometry(bare, points(past)["θ_0"], past.stages()[0], "layer", 9)


def test_matrices_too_large_are_refused(past: Revisit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geomix.analysis.grad_angle.example_gram._MOST_BYTES", 1000)
    with pytest.raises(UserError, match="look at fewer examples"):
        looked(past, "θ_0")
