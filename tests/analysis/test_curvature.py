"""`geomix analyze curvature` against dense Hessians, and on losses in closed form."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import geomix
from geomix.analysis.curvature import Asked, CurvatureAnalysis
from geomix.analysis.curvature.answer import answer, findings
from geomix.analysis.curvature.at_checkpoint import CheckpointCurvature
from geomix.analysis.curvature.measure import measure
from geomix.analysis.curvature.operators import Operator, SetHessian
from geomix.analysis.curvature.result import WHOLE, Along, Curvature, Place, Spectrum
from geomix.analysis.driver import run as analyse
from geomix.cli import main
from geomix.experiments.precise import PreciseArm
from geomix.gradients.vectors import dot, minus, norm
from geomix.runs.directory import RunDirectory
from geomix.util.errors import UserError

PLACE = Place("plain", 0, "θ_A")


def quadratic(name: str, matrix: np.ndarray[Any, Any]) -> SetHessian:
    """A set whose loss is ½ xᵀMx of one tensor `w`."""
    tensor = torch.from_numpy(matrix)

    def product(v: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"w": tensor @ v["w"]}

    return SetHessian(name, "1 facts", 0.5, product, product, product)


def at_point(matrices: Mapping[str, Any], way: Any = None, asked: Asked | None = None) -> Curvature:
    """The spectra of quadratics at one point."""
    size = len(next(iter(matrices.values())))

    class Arm:
        def here(self) -> dict[str, Tensor]:
            return {"w": torch.zeros(size, dtype=torch.float64)}

    result = Curvature()
    hessians = [quadratic(name, m) for name, m in matrices.items()]
    arm: Any = Arm()
    displacement = None if way is None else ("θ_B − θ_A", {"w": torch.from_numpy(way)})
    CheckpointCurvature(PLACE, arm, asked or Asked(), hessians, result).measure(displacement)
    return result


def test_the_ends_of_quadratics_and_the_curvature_along_a_displacement() -> None:
    rng = np.random.default_rng(0)
    draw = rng.normal(size=(60, 60))
    a, b = draw @ np.diag(rng.normal(size=60)) @ draw.T, np.eye(60) * 3.0
    way = rng.normal(size=60)
    result = at_point({"D_A": a, "D_B": b}, way, Asked(products=50))
    one, other = result.spectra
    expected = np.linalg.eigvalsh(a)
    np.testing.assert_allclose(one.bottom, expected[:3], rtol=1e-2)
    np.testing.assert_allclose(one.top, expected[::-1][:3], rtol=1e-2)
    assert one.verdict == "refuted"
    assert other.verdict == "undetermined", "not all eigenvalues were computed"
    assert [other.bottom[0], other.top[0]] == pytest.approx([3, 3])
    assert one.along == pytest.approx(way @ a @ way / (way @ way))
    assert other.permuted == pytest.approx(3)
    assert one.rounding == 0
    kappas = {(x.name, x.displacement): x for x in result.along}
    null = kappas["D_A", "θ_B − θ_A, permuted"]
    assert null.length == pytest.approx(np.linalg.norm(way))
    assert null.hessian != pytest.approx(one.along)
    assert kappas["D_A", "θ_B − θ_A"].gauss_newton == pytest.approx(one.along)
    assert null.spread > 0


def test_a_symmetrised_product_of_semidefinite_matrices_is_called_indefinite() -> None:
    a, b = np.diag([1, 0.01]), np.array([[0.5, 0.5], [0.5, 0.5]])
    result = at_point({"D_A": a, "D_B": b}, None, Asked(symmetrised=True))
    assert [one.verdict for one in result.spectra] == ["supported", "supported", "refuted"]
    product = result.spectra[-1]
    assert product.matrix == "½(H_A H_B + H_B H_A)"
    assert product.bottom[0] == pytest.approx(-0.10101, abs=1e-4)
    assert product.state == "full"
    assert product.products == 8, "four for each of the matrix's own"
    claims = findings(result)
    assert [c.verdict for c in claims] == ["supported", "supported", "refuted"]
    assert math.isnan(claims[0].low), "one seed has no interval"


def test_products_are_capped_and_what_was_found_is_told() -> None:
    rng = np.random.default_rng(1)
    draw = rng.normal(size=(200, 200))
    matrix = draw + draw.T
    result = at_point({"D_A": matrix, "D_B": matrix @ matrix}, None, Asked(products=6))
    for one in result.spectra:
        assert one.products == 6
        assert one.state == "not converged"
        assert one.residuals[0] > 0
    lines = "\n".join(answer(result, "curvature", RunDirectory(Path("run")), []))
    assert "Not converged: 2 of 2 spectra" in lines
    assert "H_B: undetermined; no negative eigenvalue was proved in 6 products" in lines
    both = at_point({"D_A": matrix, "D_B": matrix}, None, Asked(products=12, symmetrised=True))
    assert both.spectra[-1].products == 12


def test_traces_and_densities() -> None:
    values = np.concatenate([np.full(54, 1e-6), [4.0, 4, 2, 2, 1, -1.5]])
    vectors = np.linalg.qr(np.random.default_rng(2).normal(size=(60, 60)))[0]
    matrix = (vectors * values) @ vectors.T
    result = at_point({"D_A": matrix}, None, Asked(trace=True, density=True))
    (one,) = result.spectra
    assert abs(one.trace - values.sum()) <= max(one.trace_half_width, 1e-6)
    shares = [b.share for b in result.bins]
    assert sum(shares) == pytest.approx(1)
    middle = max(result.bins, key=lambda b: b.share)
    assert middle.low < 0 < middle.high
    assert abs(middle.share - 54 / 60) <= 2 * middle.half_width + 0.05
    assert result.bins[0].low == pytest.approx(-4)
    assert result.bins[-1].high == pytest.approx(4)
    assert all(b.starts == 10 for b in result.bins)


@pytest.fixture(scope="module")
def copied(small_arms: geomix.Run, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("curvature") / "run"
    shutil.copytree(small_arms.path, folder)
    return RunDirectory(folder)


@pytest.fixture(scope="module")
def measured(copied: RunDirectory) -> Curvature:
    return measure([copied], Asked(products=8).listed(), str)


def test_a_run_is_measured_at_its_checkpoints(measured: Curvature, copied: RunDirectory) -> None:
    """κ, δ and the Rayleigh quotients, by products of an arm opened here."""
    rows = measured.tables()[""]
    assert [(r["arm"], r["matrix"]) for r in rows] == [
        (arm, matrix) for arm in ("plain", "mixed", "control") for matrix in ("H_A", "H_B")
    ]
    assert {r["checkpoint"] for r in rows} == {"θ_A"}
    assert {r["facts"] for r in rows} == {"6 facts", "4 facts"}
    plain, mixed = (PreciseArm.open(copied.arms[i]) for i in (0, 1))
    plain.move_to("A")
    objective = plain.objective("D_A")
    way = minus(plain.weights("B"), plain.weights("A"))
    assert rows[0]["loss"] == pytest.approx(objective.loss(), rel=1e-6)
    kappa = dot(way, objective.hessian_product(way)) / dot(way, way)
    assert rows[0]["along"] == pytest.approx(kappa, rel=1e-4)
    outer = dot(way, objective.gauss_newton_product(way)) / dot(way, way)
    named = {(a.place.arm, a.name, a.displacement): a for a in measured.along}
    assert named["plain", "D_A", "θ_B − θ_A"].gauss_newton == pytest.approx(outer, rel=1e-4)
    delta = minus(mixed.weights("A"), plain.weights("A"))
    images = [plain.objective(name).hessian_product(delta) for name in ("D_A", "D_B")]
    turned = {one.other: one for one in measured.turned}
    assert set(turned) == {"mixed", "control"}
    expected = dot(*images) / norm(images[0]) / norm(images[1])
    assert turned["mixed"].cosine == pytest.approx(expected, abs=1e-4)
    assert turned["mixed"].length == pytest.approx(norm(delta))


def test_what_was_computed_is_not_computed_again(
    copied: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that is ended after the first checkpoint; the next one begins with the second."""
    asked, made = Asked(at=("A", "B"), products=4, sets=("D_A",), facts=2), list[str]()
    single = RunDirectory(copied.arms[2].path)
    whole, first = CheckpointCurvature.measure, measure([single], asked, str)

    def watched(point: CheckpointCurvature, way: Any) -> None:
        made.append(point.place.checkpoint)
        if len(made) == 2:
            raise KeyboardInterrupt
        whole(point, way)

    monkeypatch.setattr(CheckpointCurvature, "measure", watched)
    monkeypatch.setattr(CurvatureAnalysis, "save", lambda *_: [])
    with pytest.raises(KeyboardInterrupt):
        analyse(CurvatureAnalysis(), [single], asked)
    result = analyse(CurvatureAnalysis(), [single], asked).result
    assert made == ["θ_A", "θ_B", "θ_B"]
    assert str(result.tables()) == str(first.tables())
    assert not (single.path / "analysis.partial").exists()


def test_a_negative_ritz_value_is_a_proof(measured: Curvature) -> None:
    """Each refuted matrix is below 0 even beyond residual and rounding."""
    for one in measured.spectra:
        bound = one.bottom[0] + one.residuals[0] + one.rounding
        assert (one.verdict == "refuted") == (bound < -1e-3 * one.top[0])
        assert 0 <= one.rounding < 1e-3 * max(one.top[0], -one.bottom[0])
        assert one.bottom[0] <= one.along <= one.top[0]
        assert one.bottom[0] <= one.permuted <= one.top[0]


def test_a_block_is_that_of_the_dense_hessian(copied: RunDirectory) -> None:
    """The final norm's block by its 32 columns: a full decomposition can support, too."""
    asked = Asked(at=("B",), by="layer", products=34, sets=("D_A",), facts=2)
    single = RunDirectory(copied.arms[0].path)
    result = measure([single], asked.listed(), str)
    by_block = {one.block: one for one in result.spectra}
    assert list(by_block) == ["embedding+head (tied)", "layer 1", "layer 2", "final norm"]
    arm = PreciseArm.open(single)
    arm.move_to("B")
    name = "model.norm.weight"
    units = torch.eye(arm.here()[name].numel())
    with arm.objective("D_A", facts=2).kept() as products:
        columns = [products.hessian({name: unit})[name].double() for unit in units]
    values = np.linalg.eigvalsh(torch.stack(columns).numpy())
    found = by_block["final norm"]
    assert (found.parameters, found.state, found.products) == (32, "full", 32)
    assert found.bottom[0] == pytest.approx(values[0], abs=1e-5 * values[-1])
    assert found.top[0] == pytest.approx(values[-1], rel=1e-5)
    assert found.verdict in ("refuted", "supported")
    assert sum(one.parameters for one in result.spectra) == sum(
        p.numel() for p in arm.parameters.values()
    )


def test_differences_say_by_how_much_they_disagree(copied: RunDirectory) -> None:
    asked = Asked(sets=("D_A",), products=4, differences=True)
    exact = measure([RunDirectory(copied.arms[0].path)], replace(asked, differences=False), str)
    found = measure([RunDirectory(copied.arms[0].path)], asked, str)
    assert found.spectra[0].along == pytest.approx(exact.spectra[0].along, rel=0.05)
    assert 0 < found.along[0].disagreement < 0.5
    assert math.isnan(exact.along[0].disagreement)
    lines = answer(found, "curvature", copied, [])
    assert any("two step lengths disagree by" in line for line in lines)


@pytest.mark.usefixtures("unprinted")
def test_the_command_answers_first(copied: RunDirectory) -> None:
    arm = copied.arms[1]
    asked = ["analyze", "curvature", str(arm.path), "--products", "5", "--facts", "3"]
    done = CliRunner().invoke(main, asked, catch_exceptions=False)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("How curved are the losses at θ_A")
    assert len(lines) <= 25
    assert all(len(line) <= 80 for line in lines if str(arm.path) not in line)
    assert "3 of 6 facts" in done.stdout
    assert "at most" in done.stdout
    assert "at most" in done.stderr, "said before it begins, too"
    written = json.loads((arm.analysis_folder / "curvature.json").read_text())
    assert len(written["tables"]["curvature"]) == 2
    assert {file.split(".")[0] for file in written["files"]} >= {
        "analysis/curvature",
        "analysis/curvature_displacements",
        "figures/curvature",
    }


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked(at=("C",)), "--at C: .* has weights of 0, "),
        (Asked(sets=("D_Q",)), "--sets D_Q: .* has D_A, D_B, replay, held-out"),
        (Asked(sets=("D_A",), symmetrised=True), "--symmetrised: .* needs two --sets"),
    ],
)
def test_what_is_not_there_is_named(copied: RunDirectory, asked: Asked, message: str) -> None:
    with pytest.raises(UserError, match=message):
        measure([RunDirectory(copied.arms[0].path)], asked, str)


def test_lists_are_taken_apart() -> None:
    asked = Asked(at=("0,θ_A", "A+4"), sets=("D_A,D_M", "D_A")).listed()
    assert (asked.at, asked.sets) == (("0", "A", "A+4"), ("D_A", "D_M"))


def spectrum(seed: int, low: float, verdict: Any) -> Spectrum:
    place = Place("plain", seed, "θ_A")
    numbers = (100, "6 facts", 0.1, (low, 0.0), (5.0, 1.0), (0.01, 0.01), 0.001, 0.5, 0.1, 20)
    return Spectrum(place, "H_A", WHOLE, *numbers, "converged", verdict)


def test_seeds_are_counted() -> None:
    """One counterexample refutes, and the count is told."""
    seeds = [
        spectrum(0, -1.0, "refuted"),
        spectrum(1, -2.0, "refuted"),
        spectrum(2, 0.1, "undetermined"),
    ]
    result = Curvature(seeds, budget="at most 9 products")
    (finding,) = findings(result)
    assert finding.verdict == "refuted"
    assert finding.n == 3
    assert finding.estimate == pytest.approx(-2.9 / 3)
    assert finding.sentence.startswith("refuted in 2 of 3 seeds")
    lines = answer(result, "curvature", RunDirectory(Path("run")), [])
    assert any("no, 2/3" in line for line in lines)


def test_the_analysis_puts_it_all_together(
    copied: RunDirectory, unprinted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Curvature([spectrum(0, -1.0, "refuted")], [Along(PLACE, "D_A", "θ_B − θ_A", 1.0, 0.5)])
    monkeypatch.setattr(CurvatureAnalysis, "measure", lambda *_: found)
    done = analyse(CurvatureAnalysis(), [copied], Asked())
    assert set(done.tables) == {"", "displacements"}
    assert list(done.figures) == [""]
    assert "no" in done.answer


def test_an_operator_is_symmetric_on_its_block(copied: RunDirectory) -> None:
    arm = PreciseArm.open(copied.arms[0])
    arm.move_to("A")
    like = {n: t for n, t in arm.here().items() if ".layers.0." in n}
    hessians = []
    for name in ("D_A", "D_B"):
        objective = arm.objective(name)
        halves = arm.objective(name, batch_size=2)
        product, again = objective.hessian_product, halves.hessian_product
        hessians.append(SetHessian(name, "", 0.0, product, again, None))
    operator = Operator("½(H_A H_B + H_B H_A)", (hessians[0], hessians[1]), like)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, operator.size))
    one, other = operator(x), operator(y)
    bound = 1e-5 * float(np.linalg.norm(x) * np.linalg.norm(other))
    assert x @ other == pytest.approx(y @ one, abs=bound)
    assert sum(h.products for h in hessians) == 8
    assert operator.rounding(x) < 1e-4 * np.linalg.norm(one)
