"""`geomix analyze delta2` on a tiny run, against transformers and autograd on the saved files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import geomix
from geomix.analysis.answer import MOST_LINES, WIDTH
from geomix.analysis.delta2.arms import Pair, arms_of
from geomix.analysis.delta2.statistics import Estimate, estimates
from geomix.analysis.delta2.verdicts import judge
from geomix.analysis.driver import Outcome
from geomix.cli import main
from geomix.data.provenance import read_listed
from geomix.data.tokenise import tokenise_all
from geomix.measures.verdict import Rule
from geomix.util.errors import UserError

ARMS = ("plain", "mixed", "control")


def near(value: float) -> Any:
    """The same number from float32 gradients of two implementations."""
    return pytest.approx(value, rel=2e-3, abs=1e-7)


@pytest.fixture(scope="module")
def run(small_arms: geomix.Run, tmp_path_factory: pytest.TempPathFactory) -> geomix.Run:
    return copied(small_arms, tmp_path_factory.mktemp("delta2") / "run")


def copied(run: geomix.Run, to: Path) -> geomix.Run:
    return geomix.open_run(shutil.copytree(run.path, to))


@pytest.fixture(scope="module")
def done(run: geomix.Run) -> Outcome[Any]:
    return geomix.analyze.delta2(run, draws=3)


@dataclass
class Autograd:
    """Transformers' model and loss, and `torch.autograd` alone."""

    model: Path
    run: geomix.Run

    def __post_init__(self) -> None:
        kinds = {"attn_implementation": "eager"}
        self.network = AutoModelForCausalLM.from_pretrained(self.model, **kinds).eval()
        self.named = dict(self.network.named_parameters())
        self.tokenizer = AutoTokenizer.from_pretrained(self.model)

    def weights(self, arm: str, name: str) -> dict[str, Tensor]:
        if name == "0":
            found: dict[str, Tensor] = load_file(self.model / "model.safetensors")
            return found
        first, second = sorted((self.run.arm(arm).path / "stages").iterdir())
        folder = {
            "A": first / "checkpoints" / "final",
            "A+1": second / "weights" / "step-000001",
            "B": second / "checkpoints" / "final",
        }[name]
        return dict(load_file(folder / "model.safetensors"))

    def at(self, weights: Mapping[str, Tensor]) -> None:
        self.network.load_state_dict(dict(weights), strict=False)

    def loss(self, arm: str, name: str, reduction: str) -> Tensor:
        """A set's mean loss, an example at a time."""
        examples = tokenise_all(self.tokenizer, read_listed(self.run.arm(arm).path, name))
        sums, counts = [], []
        for e in examples:
            ids, labels = torch.tensor([e.ids]), torch.tensor([e.labels])
            loss = self.network(input_ids=ids, labels=labels).loss
            count = int((labels[:, 1:] != -100).sum())
            sums.append(loss * count if reduction == "token" else loss)
            counts.append(count if reduction == "token" else 1)
        return torch.stack(sums).sum() / sum(counts)

    def flat(self, tensors: Any) -> Tensor:
        return torch.cat([t.reshape(-1) for t in tensors]).double()

    def gradient(self, arm: str, name: str, reduction: str) -> Tensor:
        loss = self.loss(arm, name, reduction)
        return self.flat(torch.autograd.grad(loss, list(self.named.values())))

    def product(self, arm: str, name: str, reduction: str, v: Tensor) -> Tensor:
        parameters = list(self.named.values())
        loss = self.loss(arm, name, reduction)
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)
        whole = torch.cat([g.reshape(-1) for g in gradient])
        return self.flat(torch.autograd.grad(whole @ v.float(), parameters))

    def vector(self, weights: Mapping[str, Tensor]) -> Tensor:
        return self.flat(weights[name] for name in self.named)


@pytest.fixture(scope="module")
def autograd(run: geomix.Run, tiny_model: Path) -> Autograd:
    return Autograd(tiny_model, run)


@dataclass
class Known:
    """One arm, computed without geomix."""

    start: float
    end: float
    later_end: float
    own: Tensor
    later: Tensor
    theta: Tensor
    way: Tensor


@pytest.fixture(scope="module")
def known(autograd: Autograd) -> dict[str, Known]:
    found = {}
    for arm in ARMS:
        start, end = autograd.weights(arm, "A"), autograd.weights(arm, "B")
        autograd.at(end)
        end_a, end_b = (autograd.loss(arm, name, kind).item() for name, kind in SETS)
        autograd.at(start)
        own, later = (autograd.gradient(arm, name, kind) for name, kind in SETS)
        loss = autograd.loss(arm, "D_A", "example").item()
        theta = autograd.vector(start)
        way = autograd.vector(end) - theta
        found[arm] = Known(loss, end_a, end_b, own, later, theta, way)
    return found


SETS = (("D_A", "example"), ("D_B", "token"))


def seed_value(done: Outcome[Any], comparison: str, quantity: str) -> float:
    rows = done.tables["seeds"]
    found = rows[(rows.comparison == comparison) & (rows.quantity == quantity)]
    assert len(found) == 1, (comparison, quantity)
    return float(found.value.iloc[0])


@pytest.mark.parametrize(
    "pair", [("plain", "control"), ("control", "mixed"), ("plain", "mixed")], ids=" → ".join
)
def test_delta_and_the_exact_terms(
    done: Outcome[Any], known: dict[str, Known], pair: tuple[str, str]
) -> None:
    one, other = (known[arm] for arm in pair)
    s_a, s_b = other.own - one.own, other.later - one.later
    slopes = [float(arm.own @ arm.way) for arm in (one, other)]
    total, first, second = one.end - other.end, one.start - other.start, slopes[0] - slopes[1]
    expected = {
        "Δ": total,
        "Δ₁": first,
        "Δ₂": second,
        "Δ₃": total - first - second,
        "Δ₂/η exact": float(other.later @ other.own - one.later @ one.own),
        "g_B·s_A": float(one.later @ s_a),
        "g_A·s_B": float(one.own @ s_b),
        "s_A·s_B": float(s_a @ s_b),
        "g_B·g'_A": float(one.later @ other.own),
        "ρ = ‖g'_A‖/‖s_A‖": float(other.own.norm() / s_a.norm()),
        "‖δ‖": float((other.theta - one.theta).norm()),
    }
    name = " → ".join(pair)
    scale = max(abs(total), abs(float(one.later @ one.own)), 1e-3)
    for quantity, value in expected.items():
        found = seed_value(done, name, quantity)
        assert found == pytest.approx(value, rel=2e-3, abs=1e-5 * scale), quantity


def test_parts_add_over_the_arms(done: Outcome[Any]) -> None:
    for quantity in ("Δ", "Δ₁", "Δ₂", "Δ₃"):
        parts = [seed_value(done, f"{a} → {b}", quantity) for a, b in
                 (("plain", "control"), ("control", "mixed"))]  # fmt: skip
        whole = seed_value(done, "plain → mixed", quantity)
        assert sum(parts) == pytest.approx(whole, abs=1e-12)


def test_second_derivatives_along_delta(
    done: Outcome[Any], known: dict[str, Known], autograd: Autograd
) -> None:
    one, other = known["plain"], known["mixed"]
    way = other.theta - one.theta
    autograd.at(autograd.weights("plain", "A"))
    h_a, h_b = (autograd.product("plain", name, kind, way) for name, kind in SETS)
    expected = {
        "κ_A = δᵀH_Aδ/‖δ‖²": way @ h_a / (way @ way),
        "κ_B = δᵀH_Bδ/‖δ‖²": way @ h_b / (way @ way),
        "cos(H_Aδ, H_Bδ)": h_a @ h_b / h_a.norm() / h_b.norm(),
        "linear at t = 1: g_B·H_Aδ": one.later @ h_a,
        "linear at t = 1: g_A·H_Bδ": one.own @ h_b,
        "linear at t = 1: H_Aδ·H_Bδ": h_a @ h_b,
        "‖s_A − H_Aδ‖/‖s_A‖": (other.own - one.own - h_a).norm() / (other.own - one.own).norm(),
    }
    for quantity, value in expected.items():
        found = seed_value(done, "plain → mixed", quantity)
        assert found == near(float(value)), quantity


def test_rows_about_assumptions(
    done: Outcome[Any], known: dict[str, Known], autograd: Autograd
) -> None:
    one, other = known["plain"], known["mixed"]
    way = other.theta - one.theta
    autograd.at(autograd.weights("plain", "0"))
    g_m = autograd.gradient("mixed", "D_M", "example")
    g_a = autograd.gradient("mixed", "D_A", "example")
    autograd.at(autograd.weights("plain", "A"))
    x = 0.5 * (g_m - g_a)  # six passages beside six facts, example loss
    h_a, h_b = (autograd.product("plain", name, kind, x) for name, kind in SETS)
    printed = [autograd.product("plain", name, kind, g_m) for name, kind in SETS]
    expected = {
        "w_M": torch.tensor(0.5),
        "‖g_M(θ_0)‖": g_m.norm(),
        "cos(δ, −g_M(θ_0))": -way @ g_m / way.norm() / g_m.norm(),
        "one step's forgetting, η¹": -one.later @ one.own,
        "Δ₂ printed, η²: −g_B·H_A x": -one.later @ printed[0],
        "Δ₂ printed, η³: H_B x·H_A x": printed[0] @ printed[1],
        "Δ₂ weighted, η²: −g_A·H_B x": -one.own @ h_b,
        "Δ₂ weighted, η³: H_B x·H_A x": h_a @ h_b,
    }
    for quantity, value in expected.items():
        found = seed_value(done, "plain → mixed", quantity)
        assert found == near(float(value)), quantity


def test_cross_terms_of_draws(
    done: Outcome[Any], known: dict[str, Known], autograd: Autograd
) -> None:
    """A mean loss adds v·g_A(θ_0); draws differ from one another and from their null."""
    table = done.tables["draws"]
    plain = known["plain"]
    autograd.at(autograd.weights("plain", "A"))
    v = autograd.product("plain", *SETS[0], plain.later)
    v += autograd.product("plain", *SETS[1], plain.own)
    autograd.at(autograd.weights("plain", "0"))
    offset = float(v @ autograd.gradient("plain", "D_A", "example"))
    assert table.v_ga0.tolist() == [near(offset)] * 3
    assert len(set(table["T"])) == len(set(table["T_shuffled"])) == 3
    assert table.weight.tolist() == [0.5] * 3


def test_the_condition_along_the_steps(done: Outcome[Any], autograd: Autograd) -> None:
    table = done.tables["condition"]
    assert set(table.arm) == {"plain", "mixed"}  # the control's path says nothing new
    plain = table[table.arm == "plain"]
    assert set(plain.in_place) == {"replay", "held-out"}  # plain has no D_M
    assert plain.checkpoint.drop_duplicates().tolist() == ["A", "A+1", "A+2", "B"]
    autograd.at(autograd.weights("mixed", "A+1"))
    g_a = autograd.gradient("mixed", "D_A", "example")
    g_b, g_r = (autograd.gradient("mixed", name, "token") for name in ("D_B", "replay"))
    row = table[(table.arm == "mixed") & (table.checkpoint == "A+1")]
    row = row[row.in_place == "replay"].iloc[0]
    assert row.gb_ga == near(float(g_b @ g_a))
    assert row.gm_ga == near(float(g_r @ g_a))
    # Token loss weighs the sets by their targets: of D_B and of two facts of D_A.
    stage = json.loads(
        next(autograd.run.arm("mixed").path.glob("stages/1-*/data.json")).read_text()
    )
    tokens = {name: one["target_tokens"] for name, one in stage["sets"].items()}
    beta = tokens["D_B"] / (tokens["D_B"] + tokens["replay"])
    assert (row.beta_1, row.beta_2) == pytest.approx((beta, 1 - beta))
    margin = (1 - beta) * float(g_r @ g_a) - (1 - beta) * float(g_b @ g_a)
    assert row.margin == near(margin)


def test_groups_add_up(done: Outcome[Any]) -> None:
    table = done.tables["by_layer"]
    for quantity in ("Δ₂", "Δ₂/η exact", "g_B·s_A", "g_A·s_B", "s_A·s_B"):
        mine = table[(table.comparison == "plain → mixed") & (table.quantity == quantity)]
        whole = float(mine["mean"][mine.group == "all"].iloc[0])
        parts = float(mine["mean"][mine.group != "all"].sum())
        assert parts == pytest.approx(whole, rel=1e-9, abs=1e-12), quantity
        assert whole == pytest.approx(seed_value(done, "plain → mixed", quantity), rel=1e-9)


def test_the_answer_is_short_and_claims_nothing(done: Outcome[Any]) -> None:
    lines = done.answer.splitlines()
    assert len(lines) <= MOST_LINES
    assert all(len(line) <= WIDTH for line in lines if "/" not in line)
    assert lines[0] == "Who forgets less of D_A than plain, and by which part?"
    assert "D_A: 6 facts, example loss" in lines[1]
    text = " ".join(" ".join(lines).split())
    assert "Verdict: undetermined: a verdict needs 10 paired seeds, and there is 1." in text
    assert "Floor: missing." in text
    for pair in ("plain → control", "control → mixed", "plain → mixed"):
        assert pair in text
    assert {one.verdict for one in done.findings} == {"undetermined"}


def test_files_have_one_table_a_level(done: Outcome[Any], run: geomix.Run) -> None:
    names = {path.name for path in done.files}
    for ending in ("", "_local", "_assumptions", "_arms", "_seeds", "_by_layer", "_condition"):
        assert f"delta2{ending}.csv" in names
    for figure in ("delta2_parts", "delta2_condition"):
        assert {f"{figure}.pdf", f"{figure}.png", f"{figure}.csv", f"{figure}.txt"} <= names
    # No number with an η of our choosing stands anywhere.
    assumed = done.tables["assumptions"]
    assert not [key for key in assumed.quantity if "learning" in key]
    found = json.loads((run.analysis_folder / "delta2.json").read_text())
    assert (found["reference"], found["D_A"], found["reduction"]) == ("plain", "6 facts", "example")


@pytest.mark.usefixtures("done")
def test_the_figures_are_drawn_again_from_their_tables(run: geomix.Run, tmp_path: Path) -> None:
    for name in ("delta-parts", "stage2-condition"):
        table = run.figure_folder / f"delta2_{name.split('-')[-1]}.csv"
        out = tmp_path / name
        again = CliRunner().invoke(main, ["figure", name, str(table), "--out", str(out)])
        assert again.exit_code == 0, again.output
        assert out.with_suffix(".png").is_file()


def test_signs_of_the_linear_model_stay_within_its_reach(done: Outcome[Any]) -> None:
    for by_seed in done.result.comparisons.values():
        for one in by_seed.values():
            inside = one.linear.inside
            if inside is not None:
                assert inside.t <= min(one.linear.reach_a.t, one.linear.reach_b.t)
    keys = {one.key for one in estimates(done.result, "local")}
    assert not {key for key in keys if "t = 1" in key}  # the whole δ is a row about assumptions


SEEDED = {"source": "kvr", "limit": 4, "seed": 0}


@pytest.fixture(scope="module")
def reordered(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> list[geomix.Run]:
    """Two seeds of the run and one of the data: the same examples in another order."""
    folder = tmp_path_factory.mktemp("floor")
    mix = {"source": "random-words", "ratio": 1, "words": 3, "seed": 0}
    passages = [{**mix, "name": name} for name in ("one", "two")]
    second = {"data": {"source": "arithmetic", "limit": 4, "seed": 0}, "stop": {"epochs": 1}}
    config = {
        "model": str(tiny_model),
        "train": {"lr": 1e-2, "batch_size": 2, "loss": "example"},
        "stages": [{"data": SEEDED, "stop": {"epochs": 1}}, second],
        "record": {"at": ["boundaries"], "probes": 2, "activations": 0, "lens": False},
        "evaluate": {"epochs": 0},
        "arms": {"plain": {}, "mixed": {"stages.0.mix": passages}},
    }
    return [
        geomix.train({**config, "seed": seed}, out=folder / str(seed), say=str) for seed in (0, 1)
    ]


@pytest.mark.usefixtures("unprinted")
def test_another_order_of_the_same_examples_is_the_floor(reordered: list[geomix.Run]) -> None:
    found = geomix.analyze.delta2(reordered, smallest=0.01, planned=2)
    theta = [
        load_file(
            next(run.arm("plain").path.glob("stages/0-*/checkpoints/final/model.safetensors"))
        )
        for run in reordered
    ]
    length = sum(float((theta[0][n] - theta[1][n]).double().square().sum()) for n in theta[0])
    floors = found.result.floors["plain"]
    assert set(floors) == {(0, 1), (1, 0)}
    assert floors[0, 1].length == pytest.approx(length**0.5, rel=1e-5)
    assert floors[0, 1].parts.total == -floors[1, 0].parts.total
    (delta,) = (one for one in estimates(found.result, "headline") if one.key == "Δ")
    sizes = [abs(one.parts.total) for label in floors_of(found) for one in label.values()]
    assert delta.floor == max(sizes)
    assert delta.n == 2
    assert "Floor, 2 pairs of trainings" in found.answer
    (judged,) = (one for one in found.findings if one.claim == "plain → mixed: Δ > 0")
    inside = abs(delta.mean) <= delta.floor
    assert ("the floor" in judged.sentence) == inside
    assert found.tables["arms"].shape[0] == 4
    # Two mixes are one D_M at θ_0, of eight passages beside four facts, and two sets along the way.
    rows = found.tables["seeds"]
    weights = rows.value[(rows.quantity == "w_M") & (rows.comparison == "plain → mixed")]
    assert weights.tolist() == pytest.approx([2 / 3, 2 / 3])
    condition = found.tables["condition"]
    named = set(condition.in_place[condition.arm == "mixed"])
    assert named == {"D_M-one", "D_M-two", "held-out"}


def floors_of(found: Outcome[Any]) -> list[Any]:
    return list(found.result.floors.values())


@pytest.mark.usefixtures("unprinted")
def test_the_parts_alone_take_no_second_derivative(reordered: list[geomix.Run]) -> None:
    """Nor anything along the steps; of fewer facts, which is told."""
    found = geomix.analyze.delta2(reordered[0], parts=True, facts=3)
    assert "D_A: 3 of 4 facts" in found.answer
    assert "The linear model" not in found.answer
    assert {path.stem.split(".")[0] for path in found.files if path.suffix != ".csv"} == {
        "delta_parts"
    }
    assert set(found.tables) == {"", "local", "arms", "seeds", "by_layer"}
    table = found.tables["arms"]
    ends = {row.label: row.end for row in table.itertuples()}
    difference = ends["plain"] - ends["mixed"]
    assert seed_value(found, "plain → mixed", "Δ") == pytest.approx(difference, rel=1e-12)


PAIR = Pair("control", "mixed", True)


def estimated(mean: float, half: float, n: int = 5, floor: float = float("nan")) -> Estimate:
    return Estimate(PAIR, "Δ", "nats", mean, mean - half, mean + half, n, floor, "+")


@pytest.mark.parametrize(
    ("mean", "half", "n", "floor", "expected"),
    [
        (0.3, 0.1, 5, 0.05, "supported"),
        (-0.3, 0.1, 5, 0.05, "refuted"),
        (0.01, 0.02, 5, 0.001, "negligible"),
        (0.3, 0.4, 5, 0.05, "undetermined"),
        (0.3, 0.1, 4, 0.05, "undetermined"),  # fewer than planned
        (0.3, 0.1, 5, 0.31, "undetermined"),  # another order of the examples does as much
        (0.3, float("nan"), 1, float("nan"), "undetermined"),
    ],
)
def test_verdicts(mean: float, half: float, n: int, floor: float, expected: str) -> None:
    one = estimated(mean, half, n, floor)
    found, why = judge(one, Rule(0.05, 5))
    assert found == expected
    assert bool(why) == (expected == "undetermined" and half != 0.4)
    assert judge(one, Rule())[0] == "undetermined"


def test_an_arm_with_a_control_is_not_judged_against_the_reference(run: geomix.Run) -> None:
    arms = arms_of([run], None)
    assert [(str(pair), pair.judged) for pair in arms.pairs] == [
        ("plain → control", True),
        ("control → mixed", True),
        ("plain → mixed", False),
    ]
    reversed_ = arms_of([run], "control")
    assert [str(pair) for pair in reversed_.pairs] == ["control → plain", "control → mixed"]
    one = Estimate(arms.pairs[2], "Δ", "nats", 0.5, 0.4, 0.6, 9, 0.0, "+")
    found, why = judge(one, Rule(0.1, 5))
    assert found == "undetermined"
    assert "not judged" in why


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reference", "plane"], "no such arm; there are: plain, mixed, control"),
        (["--draws", "1"], "at least 2"),
        (["--draws", "20", "--parts"], "give --draws without it"),
    ],
)
def test_wrong_options_are_one_line(run: geomix.Run, options: list[str], message: str) -> None:
    told = CliRunner().invoke(main, ["analyze", "delta2", str(run.path), *options])
    assert told.exit_code == 2
    assert message in told.stderr
    assert len(told.stderr.splitlines()) == 1


def test_what_cannot_be_compared_is_rejected(small_arms: geomix.Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"one arm \(plain\) has nothing to be compared with"):
        arms_of([small_arms.arm("plain")], None)
    broken = copied(small_arms, tmp_path / "broken")
    shutil.rmtree(next(broken.arm("mixed").path.glob("stages/1-*/checkpoints/final")))
    with pytest.raises(UserError, match=r"mixed: no weights at the end of stage 2; finish it"):
        arms_of([broken], None)
    other = copied(small_arms, tmp_path / "other")
    data = next(other.arm("mixed").path.glob("stages/0-*/data.json"))
    content = json.loads(data.read_text())
    content["sets"]["D_A"]["sha256"] = "another"
    data.write_text(json.dumps(content))
    with pytest.raises(UserError, match="Δ compares what two arms forget of the same facts"):
        arms_of([other], None)


def test_adapters_are_rejected(small_arms: geomix.Run, tmp_path: Path) -> None:
    run = copied(small_arms, tmp_path / "adapters")
    for arm in run.arms:
        resolved = json.loads(arm.resolved_file.read_text())
        resolved["config"]["stages"][0]["train"]["lora"] = {"rank": 2}
        resolved["config"]["record"] = None
        arm.resolved_file.write_text(json.dumps(resolved))
    with pytest.raises(UserError, match=r"trains adapters \(train.lora\).*train it without"):
        arms_of([run], None)
