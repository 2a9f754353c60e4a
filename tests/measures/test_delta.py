"""Δ and its parts on losses whose every derivative is known, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from geomix.measures.delta import (
    degeneracy,
    delta_parts,
    drift,
    exact_terms,
    norm_angle_split,
)
from geomix.measures.linear_model import Products, linear_terms, printed_coefficients

Array = NDArray[np.float64]
RNG = np.random.default_rng(3)
SIZE = 5


def symmetric(values: Array) -> Array:
    """With the eigenvalues given, in a random basis."""
    basis = np.linalg.qr(RNG.normal(size=(len(values), len(values))))[0]
    found: Array = basis @ np.diag(values) @ basis.T
    return (found + found.T) / 2


@dataclass(frozen=True)
class Loss:
    """½ (θ − c)ᵀ H (θ − c) + Σ k_i θ_i³ / 6: its gradient and Hessian by hand."""

    hessian: Array
    centre: Array
    cubic: Array

    def value(self, x: Array) -> float:
        way = x - self.centre
        return float(way @ self.hessian @ way / 2 + (self.cubic * x**3).sum() / 6)

    def gradient(self, x: Array) -> Array:
        found: Array = self.hessian @ (x - self.centre) + self.cubic * x**2 / 2
        return found

    def curvature(self, x: Array) -> Array:
        found: Array = self.hessian + np.diag(self.cubic * x)
        return found


def losses(cubic: float) -> tuple[Loss, Loss]:
    a = symmetric(np.array([3.0, 1.0, 0.5, 0.1, -0.4]))
    b = symmetric(np.array([2.0, -1.0, 0.7, 0.3, 0.2]))
    third = cubic * RNG.normal(size=SIZE)
    return (
        Loss(a, RNG.normal(size=SIZE), third),
        Loss(b, RNG.normal(size=SIZE), 2 * third),
    )


def gram(*vectors: Array) -> Array:
    stacked = np.stack(vectors)
    found: Array = stacked @ stacked.T
    return found


def four(a: Loss, b: Loss, here: Array, other: Array) -> Array:
    return gram(a.gradient(here), b.gradient(here), a.gradient(other), b.gradient(other))


def close(value: float | Array, known: float | Array) -> None:
    assert value == pytest.approx(known, rel=1e-12, abs=1e-12)


def test_the_three_parts_are_those_of_the_losses() -> None:
    (a, _), x, y = losses(0.3), RNG.normal(size=(2, SIZE)), RNG.normal(size=(2, SIZE))
    slopes = [float(a.gradient(p[0]) @ (p[1] - p[0])) for p in (x, y)]
    found = delta_parts(
        a.value(x[0]), a.value(x[1]), slopes[0], a.value(y[0]), a.value(y[1]), slopes[1]
    )
    # Written out from the definition of each arm's forgetting, not from the differences.
    forgets = [a.value(p[1]) - a.value(p[0]) for p in (x, y)]
    close(found.total, a.value(x[1]) - a.value(y[1]))
    close(found.first + forgets[0] - forgets[1], found.total)
    close(
        found.second + (forgets[0] - slopes[0]) - (forgets[1] - slopes[1]) + found.first,
        found.total,
    )
    close(found.third, (forgets[0] - slopes[0]) - (forgets[1] - slopes[1]))


def test_of_a_quadratic_the_rest_is_the_half_of_the_curvature() -> None:
    (a, _), x, y = losses(0.0), RNG.normal(size=(2, SIZE)), RNG.normal(size=(2, SIZE))
    ways = [p[1] - p[0] for p in (x, y)]
    slopes = [float(a.gradient(p[0]) @ way) for p, way in zip((x, y), ways, strict=True)]
    found = delta_parts(
        a.value(x[0]), a.value(x[1]), slopes[0], a.value(y[0]), a.value(y[1]), slopes[1]
    )
    close(found.third, sum(s * w @ a.hessian @ w / 2 for s, w in zip((1, -1), ways, strict=True)))


def test_all_parts_add_over_a_chain_of_arms() -> None:
    arms = RNG.normal(size=(3, 3))
    chain = [delta_parts(*arms[i], *arms[i + 1]) for i in range(2)]
    whole = delta_parts(*arms[0], *arms[2])
    for part in ("total", "first", "second", "third"):
        close(sum(getattr(one, part) for one in chain), getattr(whole, part))


@pytest.mark.parametrize("cubic", [0.0, 0.5])
def test_exact_terms_are_those_of_the_gradients(cubic: float) -> None:
    a, b = losses(cubic)
    here, other = RNG.normal(size=(2, SIZE))
    found = exact_terms(four(a, b, here, other))
    s_a, s_b = (one.gradient(other) - one.gradient(here) for one in (a, b))
    close(found.gb_sa, b.gradient(here) @ s_a)
    close(found.ga_sb, a.gradient(here) @ s_b)
    close(found.sa_sb, s_a @ s_b)
    close(found.total, a.gradient(other) @ b.gradient(other) - a.gradient(here) @ b.gradient(here))
    close(found.gb_sa + found.ga_sb + found.sa_sb, float(found.total))
    for x, one in zip((a, b), drift(four(a, b, here, other)), strict=True):
        close(one.norm, float(np.linalg.norm(x.gradient(here))))
        close(one.other_norm, float(np.linalg.norm(x.gradient(other))))
        close(one.moved, float(np.linalg.norm(x.gradient(other) - x.gradient(here))))


def test_terms_add_over_groups_of_parameters() -> None:
    a, b = losses(0.5)
    here, other = RNG.normal(size=(2, SIZE))
    vectors = [a.gradient(here), b.gradient(here), a.gradient(other), b.gradient(other)]
    groups = np.stack([gram(*(v[part] for v in vectors)) for part in (slice(2), slice(2, None))])
    whole, split = exact_terms(gram(*vectors)), exact_terms(groups)
    for part in ("total", "gb_sa", "ga_sb", "sa_sb"):
        close(getattr(split, part).sum(), float(getattr(whole, part)))


def products(a: Loss, b: Loss, here: Array, x: Array) -> Products:
    hax, hbx = (one.curvature(here) @ x for one in (a, b))
    ga, gb = a.gradient(here), b.gradient(here)
    return Products(float(gb @ ga), float(gb @ hax), float(ga @ hbx), float(hax @ hbx))


def test_of_quadratics_the_linear_model_is_exact_at_every_length() -> None:
    a, b = losses(0.0)
    here, way = RNG.normal(size=(2, SIZE))
    for t in (0.001, 0.3, 1.0):
        exact = exact_terms(four(a, b, here, here + t * way))
        model = linear_terms(products(a, b, here, way), t)
        for part in ("total", "gb_sa", "ga_sb", "sa_sb"):
            close(getattr(model, part), float(getattr(exact, part)))


def test_of_a_cubic_it_errs_by_the_square_of_the_length() -> None:
    a, b = losses(0.5)
    here, way = RNG.normal(size=(2, SIZE))
    errors = []
    for t in (1e-2, 1e-3):
        exact = exact_terms(four(a, b, here, here + t * way))
        errors.append(abs(linear_terms(products(a, b, here, way), t).total - exact.total))
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.1)


def test_printed_coefficients_are_the_derivatives_of_a_single_step() -> None:
    """Δ₂/η at θ_A − η x is η c₂ / η² … : by fitting the exact terms of quadratics in η."""
    a, b = losses(0.0)
    here, x = RNG.normal(size=(2, SIZE))
    found = printed_coefficients(products(a, b, here, x))
    steps = np.array([0.1, 0.2, 0.3])
    # Δ₂ = η · (exact Δ₂/η) with δ = −η x: c₂ η² + c₃ η³, without a rest.
    exact = [eta * float(exact_terms(four(a, b, here, here - eta * x)).total) for eta in steps]
    fitted = np.linalg.lstsq(np.stack([steps**2, steps**3], axis=1), np.array(exact), rcond=None)[0]
    assert fitted == pytest.approx([found.eta2, found.eta3], rel=1e-9)
    close(found.eta, -float(a.gradient(here) @ b.gradient(here)))


def test_a_step_of_sgd_leaves_the_second_and_then_the_third_order() -> None:
    """The residual of −η g_A·g_B falls as η², with ½ η² g_Bᵀ H_A g_B as η³."""
    a, b = losses(0.8)
    here = RNG.normal(size=SIZE)
    step = b.gradient(here)
    first = float(a.gradient(here) @ step)
    second = float(step @ a.curvature(here) @ step)
    etas = np.array([1e-3, 2e-3, 4e-3, 8e-3])
    real = np.array([a.value(here - eta * step) - a.value(here) for eta in etas])
    rests = [real + etas * first, real + etas * first - etas**2 * second / 2]
    for rest, slope in zip(rests, (2, 3), strict=True):
        fitted = np.polyfit(np.log(etas), np.log(np.abs(rest)), 1)[0]
        assert fitted == pytest.approx(slope, abs=0.05)


def test_a_converged_arm_leaves_the_references_parts_alone() -> None:
    ga, gb, gb2 = RNG.normal(size=(3, SIZE))
    inner = gram(ga, gb, np.zeros(SIZE), gb2)
    found, exact = degeneracy(inner), exact_terms(inner)
    assert (found.rho, found.sign, found.third) == (0.0, True, True)
    assert float(exact.total) == -found.gb_ga == -float(inner[0, 1])
    assert float(exact.sa_sb) == -found.ga_sb


def test_the_parts_of_the_terms_are_the_identities() -> None:
    inner = gram(*RNG.normal(size=(4, SIZE)))
    found, exact = degeneracy(inner), exact_terms(inner)
    close(exact.gb_sa, -found.gb_ga + found.gb_ga2)
    close(exact.sa_sb, -found.ga_sb + found.ga2_sb)
    of_a, _ = drift(inner)
    close(found.rho, float(of_a.other_norm / of_a.moved))


@pytest.mark.parametrize(("share", "degenerate"), [(0.29, True), (0.31, False)])
def test_the_threshold_of_degeneracy(share: float, degenerate: bool) -> None:
    """g_A = e₁, g_B = e₁, g'_A = share · e₁, s_B = e₁."""
    e = np.eye(2)[0]
    found = degeneracy(gram(e, e, share * e, 2 * e))
    assert found.sign is degenerate
    assert found.third is degenerate


def test_norm_and_angle_add_up_and_swap_with_the_arms() -> None:
    inner = gram(*RNG.normal(size=(4, SIZE)))
    found, total = norm_angle_split(inner), float(exact_terms(inner).total)
    close(found.norm + found.angle, total)
    order = [2, 3, 0, 1]
    back = norm_angle_split(inner[np.ix_(order, order)])
    close(back.norm, -float(found.norm))
    close(back.angle, -float(found.angle))
    # Both orders, written out: the one that changes first is weighed with the other's old value.
    c, c2 = found.cosine, found.other_cosine
    n, n2 = (np.sqrt(inner[i, i] * inner[i + 1, i + 1]) for i in (0, 2))
    one, two = sorted([(n2 - n) * c, (n2 - n) * c2])
    assert found.norm_range.tolist() == pytest.approx([one, two], rel=1e-12)
    close(found.norm_range.mean(), float(found.norm))
    # Each order's two parts add up: the norm's larger end goes with one end of the angle's.
    pairs = {round(float(x + y), 9) for x in found.norm_range for y in found.angle_range}
    assert round(total, 9) in pairs


def test_equal_angles_leave_the_angle_nothing_and_equal_norms_the_norm() -> None:
    ga, gb = RNG.normal(size=(2, SIZE))
    longer = norm_angle_split(gram(ga, gb, 2 * ga, 3 * gb))
    close(longer.angle, 0.0)
    close(longer.norm, 5 * float(ga @ gb))
    turned = norm_angle_split(gram(np.eye(2)[0], np.eye(2)[0], np.eye(2)[0], np.eye(2)[1]))
    assert (float(turned.norm), float(turned.angle)) == (0.0, -1.0)


def test_a_missing_gradient_has_no_angle() -> None:
    found = norm_angle_split(gram(np.zeros(2), np.ones(2), np.ones(2), np.ones(2)))
    assert np.isnan(found.cosine)
    close(found.norm + found.angle, 2.0)


def test_other_shapes_are_rejected() -> None:
    with pytest.raises(ValueError, match="g_A, g_B"):
        exact_terms(np.zeros((3, 3)))
