"""Quantities of `delta2` for one arm and for two, with derivatives known in float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from geomix.analysis.delta2.compare import Comparison, compare, from_gradients
from geomix.analysis.delta2.ends import Base, Ends, base_of, ends_of
from geomix.analysis.delta2.path import condition_along, cross_direction
from geomix.gradients.vectors import Vector, dot
from geomix.measures.reach import GRID

SIZE = 4
RANDOM = torch.Generator().manual_seed(5)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=RANDOM, dtype=torch.float64)


def symmetric() -> Tensor:
    found = drawn(SIZE, SIZE)
    return (found + found.T) / 2


@dataclass
class Model:
    """Weights of two tensors, exchanged as a model's are."""

    held: Vector = field(default_factory=dict)

    def here(self) -> dict[str, Tensor]:
        return dict(self.held)

    def move_to(self, weights: Vector) -> None:
        self.held = weights


def vector(flat: Tensor) -> dict[str, Tensor]:
    return {"one": flat[:1], "rest": flat[1:].reshape(3, 1)}


def flat(v: Vector) -> Tensor:
    return torch.cat([v["one"], v["rest"].reshape(-1)])


@dataclass
class Loss:
    """½ (θ − c)ᵀ H (θ − c) + k Σ θ³/6, its derivatives by hand."""

    model: Model
    hessian: Tensor
    centre: Tensor
    cubic: float = 0.0

    def loss(self) -> float:
        x = flat(self.model.held)
        way = x - self.centre
        return float(way @ self.hessian @ way / 2 + self.cubic * (x**3).sum() / 6)

    def gradient(self) -> dict[str, Tensor]:
        x = flat(self.model.held)
        return vector(self.hessian @ (x - self.centre) + self.cubic * x**2 / 2)

    def loss_and_gradient(self) -> tuple[float, dict[str, Tensor]]:
        return self.loss(), self.gradient()

    def hessian_product(self, v: Vector) -> dict[str, Tensor]:
        x = flat(self.model.held)
        return vector((self.hessian + torch.diag(self.cubic * x)) @ flat(v))

    gauss_newton_product = hessian_product  # not asked for

    @contextmanager
    def kept(self) -> Iterator[Kept]:
        yield Kept(self)


@dataclass
class Kept:
    loss: Loss

    def hessian(self, v: Vector) -> dict[str, Tensor]:
        return self.loss.hessian_product(v)

    gauss_newton = hessian


@dataclass
class World:
    """Two losses and a model; points are four numbers."""

    cubic: float = 0.0
    model: Model = field(default_factory=Model)

    def __post_init__(self) -> None:
        self.own = Loss(self.model, symmetric(), drawn(SIZE), self.cubic)
        self.later = Loss(self.model, symmetric(), drawn(SIZE), 2 * self.cubic)
        self.mixed = Loss(self.model, symmetric(), drawn(SIZE))

    def ends(self, start: Tensor, end: Tensor) -> Ends:
        return ends_of(self.model, self.own, self.later, vector(start), vector(end))

    def compared(
        self, here: Ends, other: Ends, base: Base | None = None, weight: float = 0.0
    ) -> Comparison:
        return compare(here, other, self.model, self.own, self.later, base, weight)


def close(value: float, known: float | Tensor) -> None:
    assert float(value) == pytest.approx(float(known), rel=1e-12, abs=1e-12)


def test_an_arm_is_measured_at_both_ends() -> None:
    world, (start, end) = World(0.4), drawn(2, SIZE)
    found = world.ends(start, end)
    a, b = world.own, world.later

    def value(loss: Loss, x: Tensor) -> Tensor:
        way = x - loss.centre
        return way @ loss.hessian @ way / 2 + loss.cubic * (x**3).sum() / 6

    for known, loss, x in (
        (found.start, a, start),
        (found.end, a, end),
        (found.later_start, b, start),
        (found.later_end, b, end),
    ):
        close(known, value(loss, x))
    gradient = a.hessian @ (start - a.centre) + a.cubic * start**2 / 2
    close(found.slope, gradient @ (end - start))
    close(found.slopes["one"], gradient[0] * (end - start)[0])
    close(found.moved, (end - start).norm())
    close(found.forgetting, found.end - found.start)


def test_every_term_of_quadratics_is_exact_and_the_model_reaches_the_whole_way() -> None:
    world, (x, x_end, y, y_end) = World(), drawn(4, SIZE)
    here, other = world.ends(x, x_end), world.ends(y, y_end)
    found = world.compared(here, other)
    way, a, b = y - x, world.own, world.later
    ha, hb = a.hessian @ way, b.hessian @ way
    ga, gb = a.hessian @ (x - a.centre), b.hessian @ (x - b.centre)
    close(float(found.exact.gb_sa), gb @ ha)
    close(float(found.exact.ga_sb), ga @ hb)
    close(float(found.exact.sa_sb), ha @ hb)
    close(found.length, way.norm())
    close(found.curvature[0], way @ ha / (way @ way))
    close(found.curvature[1], way @ hb / (way @ way))
    # The rest of a quadratic is the half of its curvature along each arm's displacement.
    rest = [d @ a.hessian @ d / 2 for d in (x_end - x, y_end - y)]
    close(found.parts.third, rest[0] - rest[1])
    assert found.linear is not None
    assert (found.linear.reach_a.t, found.linear.reach_b.t) == (1.0, 1.0)
    assert found.linear.inside is not None
    assert found.linear.inside.t == 1.0
    for term in ("total", "gb_sa", "ga_sb", "sa_sb"):
        close(getattr(found.linear.inside.linear, term), float(getattr(found.exact, term)))


def test_of_a_cubic_the_reach_ends_where_a_tenth_is_missed() -> None:
    """s_X(t) = t H δ + t² k δ²/2 tensorwise: |t² k δ²/2| ≤ 0.1 |s(t)| is solved on the grid."""
    world, (x, y) = World(3.0), drawn(2, SIZE)
    found = world.compared(world.ends(x, x), world.ends(y, y))
    assert found.linear is not None
    way = y - x
    for loss, reach in ((world.own, found.linear.reach_a), (world.later, found.linear.reach_b)):
        h = loss.hessian @ way + loss.cubic * x * way
        bend = loss.cubic * way**2 / 2
        holds = [t * t * bend.norm() <= 0.1 * (t * h + t * t * bend).norm() for t in GRID]
        first = holds.index(False)
        assert first > 0
        assert (reach.t, reach.fails) == (GRID[first - 1], GRID[first])
    inside = found.linear.inside
    assert inside is not None
    assert inside.t == min(found.linear.reach_a.t, found.linear.reach_b.t)
    # Both forms are taken there, not at the whole δ: each s errs by a tenth at most.
    at = world.compared(world.ends(x, x), world.ends(x + inside.t * way, x))
    for term in ("total", "gb_sa", "ga_sb", "sa_sb"):
        known = float(getattr(at.exact, term))
        assert float(getattr(inside.exact, term)) == pytest.approx(known, rel=1e-9)
    ha, hb = ((one.hessian + torch.diag(one.cubic * x)) @ way for one in (world.own, world.later))
    close(inside.linear.sa_sb, inside.t**2 * ha @ hb)
    close(inside.linear.gb_sa, inside.t * flat(world.ends(x, x).later) @ ha)


def test_beyond_the_first_point_there_is_no_inside() -> None:
    world, x = World(1e5), torch.zeros(SIZE, dtype=torch.float64)
    found = world.compared(world.ends(x, x), world.ends(x + 1.0, x))
    assert found.linear is not None
    assert found.linear.reach == 0.0
    assert found.linear.inside is None


def test_delta_adds_over_arms() -> None:
    world = World(0.3)
    arms = [world.ends(*drawn(2, SIZE)) for _ in range(3)]
    chain = [world.compared(arms[i], arms[i + 1]) for i in range(2)]
    whole = world.compared(arms[0], arms[2])
    for part in ("total", "first", "second", "third"):
        close(sum(getattr(c.parts, part) for c in chain), getattr(whole.parts, part))
    for m in range(2):
        close(sum(float(c.second[m]) for c in chain), float(whole.second[m]))
    close(float(whole.second.sum()), whole.parts.second)


def test_assumptions_are_those_of_the_gradients_at_the_base() -> None:
    world, (base_at, x, y) = World(), drawn(3, SIZE)
    a, b, m = world.own, world.later, world.mixed
    base = base_of(world.model, a, m, vector(base_at))
    found = world.compared(world.ends(x, x), world.ends(y, y), base, 0.25).assumptions
    assert found is not None
    gm, ga0 = m.hessian @ (base_at - m.centre), a.hessian @ (base_at - a.centre)
    ga, gb = a.hessian @ (x - a.centre), b.hessian @ (x - b.centre)

    def cos(u: Tensor, v: Tensor) -> Tensor:
        found: Tensor = u @ v / u.norm() / v.norm()
        return found

    close(found.norm_m, gm.norm())
    close(found.norm_a, ga0.norm())
    close(found.cos_m, cos(y - x, -gm))
    close(found.cos_difference, cos(y - x, ga0 - gm))
    close(found.descends, cos(x - base_at, -ga0))
    for form, way in ((found.printed, gm), (found.weighted, 0.25 * (gm - ga0))):
        assert form is not None
        close(form.eta, -gb @ ga)
        close(form.eta2_b, -gb @ a.hessian @ way)
        close(form.eta2_a, -ga @ b.hessian @ way)
        close(form.eta3, (b.hessian @ way) @ (a.hessian @ way))


def test_a_base_that_knows_the_passages_is_told() -> None:
    world, (x, y) = World(), drawn(2, SIZE)
    base = Base(vector(torch.ones(SIZE).double()), vector(0.04 * torch.ones(SIZE).double()), {})
    here, other = world.ends(x, x), world.ends(y, y)
    known = Base(base.own, base.mixed, vector(torch.zeros(SIZE).double()))
    found = world.compared(here, other, known).assumptions
    assert found is not None
    assert found.known
    assert found.printed is None  # no arm of weight 0 takes the printed step


def test_the_floor_of_one_training_is_nothing() -> None:
    world, (x, end) = World(0.3), drawn(2, SIZE)
    found = from_gradients(world.ends(x, end), world.ends(x, end))
    assert found.length == 0.0
    assert (found.parts.total, found.parts.second, float(found.exact.total)) == (0.0, 0.0, 0.0)
    assert found.inner.shape == (2, 4, 4)


def test_the_condition_is_tested_at_each_checkpoint() -> None:
    world, points = World(0.2), drawn(3, SIZE)
    named = [(name, vector(x)) for name, x in zip(("A", "A+1", "B"), points, strict=True)]
    others = {"D_M": (world.mixed, 0.7, 0.2)}
    found = list(condition_along(world.model, named, world.own, world.later, others))
    assert [one.checkpoint for one in found] == ["A", "A+1", "B"]
    for one, x in zip(found, points, strict=True):
        world.model.move_to(vector(x))
        a, b, m = (flat(loss.gradient()) for loss in (world.own, world.later, world.mixed))
        close(one.condition.margin, 0.2 * m @ a - 0.3 * b @ a)
        close(one.gradients.norm_m, m.norm())


def test_cross_terms_are_linear_in_the_mixed_gradient() -> None:
    """T equals −g_B·H_A g_M − g_A·H_B g_M, computed draw by draw."""
    world, (x, base_at) = World(0.2), drawn(2, SIZE)
    ends = world.ends(x, x)
    v = cross_direction(ends, world.model, world.own, world.later)
    for _ in range(3):
        mixed = Loss(world.model, symmetric(), drawn(SIZE))
        base = base_of(world.model, world.own, mixed, vector(base_at))
        form = world.compared(ends, world.ends(base_at, x), base, 1.0).assumptions
        assert form is not None
        assert form.printed is not None
        close(-dot(v, base.mixed), form.printed.eta2)
