"""The parts of `geomix analyze forgetting`, on losses that have a closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from geomix.analysis.forgetting.expansion import Expansion, expand, expansions, permuted
from geomix.analysis.forgetting.findings import findings
from geomix.analysis.forgetting.result import Arm, Forgetting, Member, contrasts_of
from geomix.analysis.forgetting.segments import follow, spread
from geomix.analysis.forgetting.sharpness import sharpness
from geomix.measures.expansions import needed
from geomix.measures.reach import GRID
from geomix.measures.verdict import Rule
from tests.analysis.polynomials import Polynomial, vector

COUPLED = [[1.0, 0.8], [0.8, 1.0]]
EACH = np.array([0, 1])
NAN = float("nan")


def test_a_quadratic_is_its_second_order_to_the_end() -> None:
    loss = Polynomial([[2.0, 0.5], [0.5, 1.0]], slope=(0.1, -0.3))
    start, x = vector(0.4, -0.2), vector(1.0, 2.0)
    found = expand(loss, loss, start, x)
    first = (0.1 + 2 * 0.4 - 0.5 * 0.2) * 1 + (-0.3 + 0.5 * 0.4 - 0.2) * 2
    second = (2 * 1 + 2 * 0.5 * 2 + 4) / 2
    assert found.first == pytest.approx(first, abs=1e-12)
    assert found.second == pytest.approx(second, abs=1e-12)
    assert found.change == pytest.approx(first + second, abs=1e-12)
    assert found.rest == pytest.approx(0, abs=1e-12)
    assert found.length == pytest.approx(5**0.5)
    assert found.curvature == pytest.approx(2 * second / 5)
    assert found.reach("Hessian").t == found.reach("Gauss–Newton").t == 1.0
    assert found.reach("first order").t < 1.0
    levels = expansions(loss, loss, start, x, 4, found.change)
    assert needed(levels) == 1


def test_a_cubic_reports_where_its_quadratic_model_ends() -> None:
    """½at² + ct³ along the first block: the Hessian holds up to a/(18c)."""
    a, c = 4.0, 1.0
    loss = Polynomial([[a, 0.0], [0.0, 1.0]], cubic=(c, 0.0), base=1e-6)
    found = expand(loss, loss, vector(0, 0), vector(1, 0))
    assert found.reach("Hessian").t == max(t for t in GRID if t <= a / (18 * c))
    assert found.rest == pytest.approx(c)
    pure = Polynomial([[0.0, 0.0], [0.0, 0.0]], cubic=(c, 0.0))
    assert needed(expansions(pure, pure, vector(0, 0), vector(1, 0), 16, c)) == 4


def test_the_permuted_displacement_keeps_values_and_length_within_each_tensor() -> None:
    x = {"one": torch.arange(12.0).reshape(3, 4), "two": torch.arange(100.0, 120.0)}
    found = permuted(x, 0)
    for name, tensor in x.items():
        assert found[name].shape == tensor.shape
        assert sorted(found[name].flatten().tolist()) == sorted(tensor.flatten().tolist())
        assert not torch.equal(found[name], tensor)
    again, other = permuted(x, 0), permuted(x, 1)
    assert all(torch.equal(found[name], again[name]) for name in x)
    assert not torch.equal(found["two"], other["two"])


def test_a_bent_path_splits_by_block_as_its_closed_form_and_its_chord_does_not() -> None:
    """First along one block, then along the other: ½ and 1.3. Their chord has .9 and .9."""
    loss = Polynomial(COUPLED)
    points = {"0": vector(0, 0), "1": vector(1, 0), "2": vector(1, 1)}
    path = follow(loss, loss, points.__getitem__, ["0", "1", "2"], [0, 1, 2])
    fine, coarse = (p.grouped(EACH).integral.sum(axis=0) for p in (path.fine, path.coarse))
    np.testing.assert_allclose(fine, [0.5, 1.3], atol=1e-12)
    np.testing.assert_allclose(coarse, [0.9, 0.9], atol=1e-12)
    assert path.fine.error < 1e-12
    assert path.moved(EACH) == pytest.approx(0.8 / 1.8)
    assert path.fails(EACH) == "merging segments moves 0.44 of the split (0.1 at most)"
    assert path.fails(np.array([0, 0])) == ""
    factors = path.fine.factors
    np.testing.assert_allclose(factors.integral, path.fine.measured, atol=1e-12)
    np.testing.assert_allclose(factors.length, [1, 1])
    np.testing.assert_allclose(factors.norm[0], np.hypot(0.5, 0.4))  # at half the first segment


def test_an_odd_last_segment_stays_and_each_checkpoint_is_visited_once() -> None:
    loss = Polynomial(COUPLED, cubic=(0.3, 0.1))
    values = [(0, 0), (0.2, 0.1), (0.5, 0.1), (0.6, 0.7)]
    points = {str(k): vector(*value) for k, value in enumerate(values)}
    path = follow(loss, loss, points.__getitem__, list(points), [0, 3, 5, 9])
    assert path.fine.steps == (0, 3, 5, 9)
    assert path.coarse.steps == (0, 5, 9)
    np.testing.assert_array_equal(path.fine.inner[-1], path.coarse.inner[-1])
    assert path.coarse.error < 1e-12  # a cubic: Simpson is exact on any straight line
    assert loss.visited == 4 + 3 + 1  # checkpoints, middles, and one of two merged


def test_a_path_that_misses_the_change_is_named() -> None:
    loss = Polynomial(COUPLED)
    points = {"0": vector(0, 0), "1": vector(1, 0), "2": vector(1, 1)}
    path = follow(loss, loss, points.__getitem__, ["0", "1", "2"], [0, 1, 2])
    off = replace(path, fine=replace(path.fine, losses=path.fine.losses * np.array([1, 1, 1.1])))
    assert "Simpson's total is 0.13 of the change off" in off.fails(np.array([0, 0]))
    assert off.fine.errors[1] == pytest.approx(0.28)
    still = replace(path, fine=replace(path.fine, losses=np.ones(3)))
    assert still.fails(np.array([0, 0])) != ""


def test_segments_that_are_looked_at_are_spread_on_a_logarithmic_scale() -> None:
    assert spread(1) == [0]
    assert spread(6) == [0, 1, 2, 4]
    assert spread(9) == [0, 1, 2, 4, 8]


def test_sharpness_of_a_quadratic_is_its_closed_form() -> None:
    loss = Polynomial([[2.0, 0.0], [0.0, 1.0]], slope=(-1.0, 0.0))
    found = sharpness(loss, loss, vector(0, 0), vector(0.5, 0.5), ("A", 3, "D_A"))
    assert found.slope == pytest.approx(-0.5)
    assert found.curvature == pytest.approx(0.75 / 0.5)
    assert found.critical.sharpness == pytest.approx(0.75 / 0.5, rel=0.05)
    assert found.tolerance.state == "defined"
    up = sharpness(loss, loss, vector(0, 0), vector(-0.5, 0.5), ("A", 3, "D_A"))
    assert (up.critical.state, up.critical.step) == ("conflict", 0.0)
    assert up.curvature == pytest.approx(0.75 / 0.5)


def member(seed: int, change: float) -> Member:
    real = Expansion(1.0, 0.01, 0.1, 0.1, 2.0, np.array(GRID) * change)
    return Member("run", seed, "8 facts", "example", real, 0.2, (), (), None, (), ())


def arm(label: str, *changes: float) -> Arm:
    return Arm(label, tuple(member(seed, change) for seed, change in enumerate(changes)))


def result(*arms: Arm, controls: dict[str, str] | None = None) -> Forgetting:
    contrasts = contrasts_of(arms, controls or {})
    names = ("D_A", 1, "triples", "θ_A", "θ_B")
    return Forgetting(*names, "layer", ("all",), np.array([0]), arms, contrasts, ())


def test_a_control_stands_between_plain_and_mixed() -> None:
    plain, mixed, control = arm("plain", 1.0), arm("mixed", 0.4), arm("control", 0.7)
    found = contrasts_of([plain, mixed, control], {"mixed": "control"})
    assert [(c.title, c.judged) for c in found] == [
        ("plain → control", True),
        ("control → mixed", True),
        ("plain → mixed", False),
    ]
    assert [c.title for c in contrasts_of([plain, mixed], {})] == ["plain → mixed"]
    one, two, both = (c.differences[0] for c in found)
    assert one + two == pytest.approx(both)


def test_every_arm_has_its_own_control_and_replay_has_none() -> None:
    names = ("plain", "words", "free words", "prose", "free prose", "replay")
    controls = {"words": "free words", "prose": "free prose"}
    found = contrasts_of([arm(name, 1.0) for name in names], controls)
    assert [(c.title, c.judged) for c in found] == [
        ("plain → free words", True),
        ("plain → free prose", True),
        ("free words → words", True),
        ("plain → words", False),
        ("free prose → prose", True),
        ("plain → prose", False),
        ("plain → replay", True),
    ]


def test_paths_of_unlike_steps_are_paired_by_share() -> None:
    """One walks in 4 steps, one in 8: two segments of the second stand for one of the first."""
    loss = Polynomial(COUPLED)
    walked = []
    for count in (4, 8):
        points = {str(k): vector(k / count, (k / count) ** 2) for k in range(count + 1)}
        steps = list(range(count + 1))
        walked.append(follow(loss, loss, points.__getitem__, list(points), steps))
    arms = [
        Arm(name, (replace(member(0, 1.0), path=path),))
        for name, path in zip(("plain", "longer"), walked, strict=True)
    ]
    (contrast,) = contrasts_of(arms, {})
    (pair,) = contrast.paths(EACH)
    assert pair.pairing == "by equal share of the stage"
    assert pair.fine.shapley.shape == (4, 3)
    assert pair.coarse.shapley.shape == (2, 3)
    assert pair.fine.parts.sum() == pytest.approx(0, abs=1e-12)  # both end where they end
    assert pair.groups.sum() == pytest.approx(0, abs=1e-12)
    lengths = walked[1].fine.factors.length
    longer = np.log(walked[0].fine.factors.length[0] / (lengths[0] + lengths[1]))
    assert pair.fine.logs[0, 2] == pytest.approx(longer)
    (own,) = contrasts_of([arms[0], Arm("twin", arms[0].members)], {})[0].paths(EACH)
    assert own.pairing == "by equal step"
    assert not own.fine.shapley.any()


def test_seeds_are_paired() -> None:
    plain = Arm("plain", (member(3, 1.0), member(5, 2.0)))
    mixed = Arm("mixed", (member(5, 0.5), member(7, 0.1)))
    (found,) = contrasts_of([plain, mixed], {})
    assert found.differences == [1.5]


def test_a_verdict_needs_what_was_declared_and_never_judges_mixed_against_plain_alone() -> None:
    arms = (
        arm("plain", 1.0, 1.1, 1.2),
        arm("mixed", 0.41, 0.5, 0.6),
        arm("control", 0.7, 0.8, 0.93),
    )
    made = result(*arms, controls={"mixed": "control"})
    undeclared = list(findings(made, Rule()))
    assert {one.verdict for one in undeclared} == {"undetermined"}
    declared = {one.claim: one for one in findings(made, Rule(0.05, 3))}
    assert declared["control forgets less of D_A than plain"].verdict == "supported"
    assert declared["mixed forgets less of D_A than control"].verdict == "supported"
    alone = declared["mixed forgets less of D_A than plain"]
    assert alone.verdict == "undetermined"
    assert alone.estimate == pytest.approx(0.5967, abs=1e-3)
    assert "control's steps" in alone.sentence
    assert declared["plain: stage 2 (triples) forgets D_A"].verdict == "supported"
    few = {one.claim: one for one in findings(made, Rule(0.05, 10))}
    assert few["control forgets less of D_A than plain"].verdict == "undetermined"


def test_one_seed_has_no_interval_and_no_verdict() -> None:
    (found, *_) = findings(result(arm("plain", 1.0), arm("mixed", 0.4)), Rule(0.05, 2))
    assert np.isnan(found.low)
    assert found.verdict == "undetermined"
