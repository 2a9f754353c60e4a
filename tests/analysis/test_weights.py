"""Results of `geomix analyze grad-angle` from weights, against the record and plain autograd."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from geomix.analysis.grad_angle.answer import answer
from geomix.analysis.grad_angle.asked import Asked
from geomix.analysis.grad_angle.contrasts import contrasts, secant_rows
from geomix.analysis.grad_angle.measure import measure
from geomix.analysis.grad_angle.result import GradAngle
from geomix.analysis.grad_angle.tables import render
from geomix.analysis.past_checkpoints import probe_batches, revisits, with_shuffled_labels
from geomix.api import Run, open_run
from geomix.cli import main
from geomix.measures.intervals import t_interval
from geomix.training.checkpoint import check
from geomix.util.console import Console
from geomix.util.errors import UserError
from tests.analysis.calls import grad_angle

CONFIG = """stages:
  - data: {source: kvr, limit: 6}
    stop: {epochs: 2}
  - data: {source: arithmetic, limit: 4}
    stop: {epochs: 2}
train: {lr: 1e-2, batch_size: 3, loss: example}
record: {at: [boundaries, 2], probes: 6, weights: true, activations: 0,
         mix: {source: random-words, ratio: 1, words: 3}}
evaluate: {epochs: 0}
arms:
  plain: {}
  mixed:
    stages.0.mix: {source: random-words, ratio: 1, words: 3}
"""


def train(folder: Path, model: Path, seed: int = 0, config: str = CONFIG, *more: str) -> Run:
    file = folder.with_suffix(".yaml")
    file.write_text(config)
    asked = ["train", str(file), "--quiet", "--out", str(folder), "--set", f"model={model}"]
    asked += ["--set", f"seed={seed}", *more]
    done = CliRunner().invoke(main, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return open_run(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    return train(tmp_path_factory.mktemp("kept") / "run", tiny_model)


@pytest.fixture(scope="module")
def seen(run: Run) -> GradAngle:
    return measure([run], Asked(by="parameter", source="weights"))


def weights_of(arm: Run, label: str, model: Path) -> dict[str, Tensor]:
    """The saved tensors of a moment, read without geomix."""
    stages = sorted((arm.path / "stages").iterdir())
    base, _, step = label.removeprefix("θ_").partition("+")
    index = "0AB".index(base)
    if step:
        folder = stages[index] / "weights" / f"step-{int(step):06d}"
    else:
        folder = stages[index - 1] / "checkpoints" / "final" if index else model
    found: dict[str, Tensor] = load_file(folder / "model.safetensors")
    return found


def gradient(arm: Run, weights: dict[str, Tensor], model: Path, name: str) -> dict[str, Tensor]:
    """Return a set's mean-loss gradient, example by example, unpadded, by transformers alone."""
    network = AutoModelForCausalLM.from_pretrained(model)
    network.load_state_dict(weights, strict=False)
    (past,) = (p for p in revisits(arm).values())
    loaded = past.event(past.checkpoints(str)[0], past.stages()[0])[0]
    for batch in probe_batches(past, loaded)[name]:
        for owner in range(batch.examples):
            mine = batch.owners == owner
            row = int(batch.rows[mine][0])
            columns = batch.columns[mine]
            starts = [i for i, p in enumerate(batch.positions[row].tolist()) if p == 0]
            begin = max(s for s in starts if s <= int(columns[0]))
            ids = batch.ids[row, begin : int(columns[-1]) + 1]
            logits = network(input_ids=ids[None]).logits[0, columns - begin]
            nll = torch.nn.functional.cross_entropy(logits, batch.targets[mine], reduction="none")
            torch.autograd.backward((nll * batch.weights[mine].float()).sum())
    return {n: p.grad.double() for n, p in network.named_parameters() if p.grad is not None}


def test_the_weights_give_what_was_recorded(run: Run, seen: GradAngle) -> None:
    recorded = measure([run], Asked(by="parameter", source="record"))
    for one, other in zip(recorded.arms, seen.arms, strict=True):
        assert one.labels == other.labels
        assert one.labels == ["θ_0", "θ_0+2", "θ_A", "θ_A+2", "θ_B"]
        count = len(one.sets)
        assert other.directions[:count] == one.sets
        np.testing.assert_allclose(
            other.inner[..., :count, :count], one.inner, rtol=1e-9, atol=1e-14
        )
        assert set(other.sources) == {"weights"}


@pytest.mark.parametrize("label", ["θ_A", "θ_A+2", "θ_B"])
def test_gradients_updates_and_secants_against_plain_autograd(
    run: Run, seen: GradAngle, tiny_model: Path, label: str
) -> None:
    arm = next(a for a in run.arms if a.name == "mixed")
    found = next(a for a in seen.arms if a.arm == "mixed")
    here = weights_of(arm, label, tiny_model)
    start, end = (weights_of(arm, at, tiny_model) for at in ("θ_A", "θ_B"))
    g = gradient(arm, here, tiny_model, "D_A")
    m = found.labels.index(label)
    a, u = found.directions.index("D_A"), found.directions.index("update")
    s = found.sets.index("D_A")
    before = gradient(arm, start, tiny_model, "D_A")
    for i, name in enumerate(seen.layout.parameters):
        down = (start[name] - end[name]).double()
        way = (here[name] - start[name]).double()
        got = found.inner[0, m, i]
        scale = g[name].norm() * down.norm()
        assert got[a, a] == pytest.approx(float(g[name].square().sum()), rel=1e-4)
        assert got[u, u] == pytest.approx(float(down.square().sum()), rel=1e-6)
        assert got[a, u] == pytest.approx(float((g[name] * down).sum()), abs=1e-5 * float(scale))
        if label != "θ_A":
            secants = found.secants
            loose = 1e-5 * float(g[name].norm() * way.norm()) + 1e-12
            assert secants.here[0, m, i, s] == pytest.approx(
                float((g[name] * way).sum()), abs=loose
            )
            first = float((before[name] * way).sum())
            assert secants.start[0, m, i, s] == pytest.approx(first, abs=loose)
            turned = float((g[name] - before[name]).square().sum())
            assert secants.turned[0, m, i, s] == pytest.approx(turned, rel=1e-3)
            assert secants.moved[0, m, i] == pytest.approx(float(way.square().sum()), rel=1e-6)


def test_gradients_may_lie_on_the_disk(tiny_model: Path, tmp_path: Path, seen: GradAngle) -> None:
    config = CONFIG.replace("weights: true", "weights: true, scratch: disk")
    run = train(tmp_path / "disk", tiny_model, 0, config, "--arm", "mixed")
    (one,) = measure([run], Asked(by="parameter", source="weights")).arms
    (other,) = (arm for arm in seen.arms if arm.arm == "mixed")
    np.testing.assert_array_equal(one.inner, other.inner)
    np.testing.assert_array_equal(one.secants.here, other.secants.here)
    assert not list(run.path.glob("arms/*/analysis/*"))


def test_where_a_stage_begins_there_is_no_secant(seen: GradAngle) -> None:
    moments = {row["moment"] for row in secant_rows(seen)}
    assert "θ_0" not in moments
    assert {"θ_0+2", "θ_A", "θ_A+2", "θ_B"} <= moments


def test_secants_are_advised_where_they_are_printed(run: Run, seen: GradAngle) -> None:
    """Only weights give them; the record alone has none to look at."""
    without = measure([run], Asked(by="parameter", source="record"))
    for result, has in ((seen, True), (without, False)):
        console = Console(file=io.StringIO(), width=1000)
        console.print(render(result))
        printed = console.file.getvalue()  # type: ignore[attr-defined]
        assert ("Secants from the stage's start" in printed) == has
        assert ("and at the secants above." in printed) == has
        assert ("and at the secants, which need the weights." in printed) == (not has)
        lines = " ".join(" ".join(answer(result, run, [])).split())
        assert ("says little: --full prints the secants." in lines) == has
        assert ("says little." in lines) == (not has)


def test_the_heads_make_up_the_whole(run: Run, tiny_model: Path, seen: GradAngle) -> None:
    heads = measure([run], Asked(by="head", at=("A+2",)))
    (arm,) = (a for a in heads.arms if a.arm == "plain")
    (whole,) = (a for a in seen.arms if a.arm == "plain")
    there = whole.inner[0, whole.labels.index("θ_A+2")].sum(axis=0)
    np.testing.assert_allclose(heads.grouped_inner(arm)[0, 0, 0], there, rtol=1e-9)
    np.testing.assert_allclose(heads.grouped_inner(arm)[0, 0, 1:].sum(axis=0), there, rtol=1e-9)
    names = heads.groups
    assert [n for n in names if n.startswith("layer 2")] == [
        *(f"layer 2 head {i}" for i in range(4)),
        *(f"layer 2 kv head {i}" for i in range(2)),
    ]
    assert names[-1] == "no head"
    run_arm = next(a for a in run.arms if a.name == "plain")
    g = gradient(run_arm, weights_of(run_arm, "θ_A+2", tiny_model), tiny_model, "D_A")
    q = g["model.layers.1.self_attn.q_proj.weight"][16:24]
    o = g["model.layers.1.self_attn.o_proj.weight"][:, 16:24]
    expected = float(q.square().sum() + o.square().sum())
    index, a = names.index("layer 2 head 2"), arm.directions.index("D_A")
    assert heads.grouped_inner(arm)[0, 0, index, a, a] == pytest.approx(expected, rel=1e-4)


def test_one_v_for_all_arms(run: Run, seen: GradAngle, tiny_model: Path) -> None:
    """Every arm's products are weighed by the first arm's v̂ at θ_A."""
    adam = measure([run], Asked(by="parameter", metric="adam", at=("B",)))
    plain, mixed = run.arms
    folder = next((plain.path / "stages").glob("0-*")) / "checkpoints" / "final"
    assert check(folder)
    v = load_file(folder / "adam_second_moments.safetensors")
    g = gradient(mixed, weights_of(mixed, "θ_B", tiny_model), tiny_model, "D_A")
    (arm,) = (a for a in adam.arms if a.arm == "mixed")
    a = arm.directions.index("D_A")
    for i, name in enumerate(adam.layout.parameters):
        expected = float((g[name].square() / (v[name].double().sqrt() + 1e-8)).sum())
        assert arm.inner[0, 0, i, a, a] == pytest.approx(expected, rel=1e-4)
    u = arm.directions.index("update")
    start, end = (weights_of(mixed, at, tiny_model) for at in ("θ_A", "θ_B"))
    for i, name in enumerate(adam.layout.parameters):
        down, root = (start[name] - end[name]).double(), v[name].double().sqrt() + 1e-8
        loose = 1e-4 * float(g[name].norm() * down.norm())
        pairing = float((g[name] * down).sum())  # that of a gradient with a step has no metric
        assert arm.inner[0, 0, i, a, u] == pytest.approx(pairing, abs=loose)
        assert arm.inner[0, 0, i, u, u] == pytest.approx(float((down**2 * root).sum()), rel=1e-4)


def test_shuffled_labels_are_the_same_tokens_elsewhere(run: Run, seen: GradAngle) -> None:
    past = revisits(run)["plain"]
    loaded = past.event(past.checkpoints(str)[0], past.stages()[0])[0]
    batches = probe_batches(past, loaded)["D_M"]
    shuffled = with_shuffled_labels(batches)
    before, after = (torch.cat([b.targets for b in found]) for found in (batches, shuffled))
    assert not torch.equal(before, after)
    assert torch.equal(before.sort().values, after.sort().values)
    assert all(torch.equal(one.ids, two.ids) for one, two in zip(batches, shuffled, strict=True))
    arm = seen.arms[0]
    m, s = arm.directions.index("D_M"), arm.directions.index("shuffled")
    whole = arm.inner[0].sum(axis=1)
    assert not np.isclose(whole[:, m, m], whole[:, s, s]).all()


def test_a_run_that_recorded_nothing_is_computed_from_its_checkpoints(
    run: Run, seen: GradAngle, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(run.arm("plain").path, tmp_path / "arm"))
    shutil.rmtree(copy / "records")
    (found,) = measure([open_run(copy)], Asked(by="parameter")).arms
    np.testing.assert_array_equal(found.inner, seen.arms[0].inner)


def test_a_run_without_weights_is_read_from_its_record(run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    for arm in open_run(copy).arms:
        for stage in (arm.path / "stages").iterdir():
            shutil.rmtree(stage / "checkpoints")
            shutil.rmtree(stage / "weights")
    found = measure([open_run(copy)])
    assert set(found.arms[0].sources) == {"record"}
    assert "update" not in found.directions
    assert measure([open_run(copy)], Asked(by="head")).arms[0].labels == ["θ_0"]
    for what in (Asked(by="head", source="record"), Asked(metric="adam"), Asked(at=("A+3",))):
        with pytest.raises(UserError) as caught:
            measure([open_run(copy)], what)
        assert len(caught.value.lines) == 1
    shutil.rmtree(copy / "arms" / "plain" / "records")
    shutil.rmtree(copy / "arms" / "mixed" / "records")
    with pytest.raises(UserError, match="no snapshots, and no stage that has ended"):
        measure([open_run(copy)])


@pytest.mark.parametrize("source", ["auto", "record", "weights"])
def test_a_moment_that_nobody_has_shows_before_anything_is_computed(
    run: Run, monkeypatch: pytest.MonkeyPatch, source: Any
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("looked at")

    monkeypatch.setattr("geomix.analysis.grad_angle.measure.arm_measurements", never)
    with pytest.raises(UserError, match=r"--at \+3: neither recorded nor .* θ_A\+2, .*θ_B$"):
        measure([run], Asked(at=("A", "+3"), source=source))
    with pytest.raises(AssertionError, match="looked at"):
        measure([run], Asked(at=("A", "+2"), source=source))


@pytest.mark.usefixtures("undrawn", "unprinted")
def test_files_of_an_earlier_call_that_asked_for_more_do_not_stay(run: Run) -> None:
    asked = Asked(at=("A+2",), examples=2)
    more = grad_angle([run], asked)[2]
    rest = grad_angle([run], replace(asked, examples=0, source="record"))[2]
    gone = {path.name for path in set(more) - set(rest)}
    assert {name.partition(".")[0] for name in gone} == {
        *(f"grad_angle_at_A+2_pairs_{arm}" for arm in ("plain", "mixed")),
        "grad_angle_at_A+2_conflicts",
    }
    assert all(path.is_file() for path in rest)
    assert not any(path.exists() for path in set(more) - set(rest))


@pytest.fixture(scope="module")
def unasked(run: Run) -> GradAngle:
    """Measure the default checkpoints."""
    return measure([run])


def test_stage_1_is_not_computed_again_unasked(run: Run, unasked: GradAngle) -> None:
    found = unasked
    sources = dict(zip(found.arms[0].labels, found.arms[0].sources, strict=True))
    assert sources["θ_0"] == sources["θ_0+2"] == "record"
    assert sources["θ_A"] == sources["θ_A+2"] == sources["θ_B"] == "weights"
    asked = measure([run.arm("plain")], Asked(at=("0", "+2")))
    assert asked.arms[0].labels == ["θ_0", "θ_A+2"]
    assert set(asked.arms[0].sources) == {"weights"}
    assert (found.stem, asked.stem) == ("grad_angle", "grad_angle_at_0_+2")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, run: Run) -> list[Run]:
    folder = tmp_path_factory.mktemp("seeds")
    return [run, *(train(folder / f"seed-{s}", tiny_model, s) for s in (1,))]


def test_seeds_give_means_with_intervals(seeds: list[Run], unasked: GradAngle) -> None:
    together = measure(seeds, Asked(at=("A+2",)))
    alone = [unasked, measure([seeds[1]], Asked(at=("A+2",)))]
    for arm in ("plain", "mixed"):
        values = [
            row.cosine
            for one in alone
            for row in one.rows()
            if (row.arm, row.group, row.first, row.second) == (arm, "layer 1", "D_A", "D_B")
            and row.moment == "θ_A+2"
        ]
        (row,) = (
            row
            for row in together.rows()
            if (row.arm, row.group, row.first, row.second) == (arm, "layer 1", "D_A", "D_B")
        )
        assert row.values == pytest.approx(values)
        assert (row.cosine, row.half_width) == pytest.approx(t_interval(values))
        assert row.n == 2
        assert (row.told == "undetermined") == (abs(row.cosine) <= row.half_width)
    (contrast,) = (c for c in contrasts(together) if c.second == "D_B")
    plain, mixed = together.arms
    differences = mixed.cosine("θ_A+2", "D_A", "D_B") - plain.cosine("θ_A+2", "D_A", "D_B")
    expected = t_interval(list(differences))
    assert (contrast.difference, contrast.half_width) == pytest.approx(expected)
    null = mixed.cosine("θ_A+2", "held-out", "D_B") - plain.cosine("θ_A+2", "held-out", "D_B")
    beyond = t_interval(list(differences - null))
    assert (contrast.beyond_null, contrast.beyond_half_width) == pytest.approx(beyond)
    assert contrast.verdict == "undetermined"  # two seeds


def test_a_seed_given_twice_is_refused(seeds: list[Run]) -> None:
    with pytest.raises(UserError, match="seed 0 is given twice"):
        measure([seeds[0], seeds[0]])


def test_other_tokenizers_are_refused(seeds: list[Run], tmp_path: Path) -> None:
    copy = tmp_path / "other"
    shutil.copytree(seeds[1].path, copy)
    for file in copy.glob("arms/*/base.json"):
        known = json.loads(file.read_text())
        file.write_text(json.dumps({**known, "tokenizer": "sha256 0"}))
    with pytest.raises(UserError, match=r"its tokenizer .* is not that of") as caught:
        measure([seeds[0], open_run(copy)])
    assert len(caught.value.lines) == 1


def test_a_damaged_checkpoint_is_named_and_what_to_do(run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    (file,) = copy.glob("arms/mixed/stages/1-*/weights/step-000002/model.safetensors")
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(UserError, match=r"step-000002: .* damaged; --from record takes") as caught:
        measure([open_run(copy)], Asked(at=("A+2",)))
    assert len(caught.value.lines) == 1
    assert "θ_A+2" in measure([open_run(copy)], Asked(source="record")).arms[1].labels
    with pytest.raises(UserError, match=r"damaged$"):
        measure([open_run(copy)], Asked(at=("A+2",), source="weights"))


OWN_DATA = """stages:
  - data: {source: DATA, limit: 5}
    stop: {epochs: 2}
  - data: {source: arithmetic, limit: 4}
    stop: {epochs: 2}
train: {lr: 1e-2, batch_size: 3}
record: RECORD
"""


@pytest.fixture
def own(tmp_path: Path, tiny_model: Path) -> Callable[[str], Run]:
    """Trains on a file of the user's own, which is then gone."""
    data = tmp_path / "facts.jsonl"

    def make(record: str) -> Run:
        data.write_text("".join(f'{{"prompt": "q{i}", "target": "{i}"}}\n' for i in range(5)))
        config = OWN_DATA.replace("DATA", str(data)).replace("RECORD", record)
        made = train(tmp_path / record[:4], tiny_model, config=config)
        data.unlink()
        return made

    return make


def test_without_its_data_a_run_is_read_from_the_record_and_says_so(own: Any) -> None:
    found = measure([own("{activations: 0}")])
    assert set(found.arms[0].sources) == {"record"}
    (remark,) = found.remarks
    assert "facts.jsonl" in remark
    assert "from the record alone" in remark


def test_without_its_data_and_a_record_it_is_one_line(own: Any) -> None:
    with pytest.raises(UserError, match=r"facts\.jsonl") as caught:
        measure([own("null")])
    assert len(caught.value.lines) == 1


def test_rows_are_plain_values(seen: GradAngle) -> None:
    row = asdict(next(seen.rows()))
    assert all(isinstance(v, int | float | str | tuple) for v in row.values())
