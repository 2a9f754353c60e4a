"""Sets and conflicts from the Gram matrix of single examples, against vectors that are at hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import t as student

from geomix.measures.cosine import Floats
from geomix.measures.example_gram import (
    by_conflict,
    conflicts,
    cosine_with_set,
    example_cosines,
    largest_share,
    members,
    pair_values,
    set_products,
    with_set,
)
from geomix.measures.sampling_error import bounds, reliability, set_cosine

OWNERS = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2])


def vectors(seed: int = 0, size: int = 20) -> Floats:
    """Gradients of twelve examples that lean one way, so that sets have a mean."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.normal(size=(len(OWNERS), size)) + 0.8 * rng.normal(size=size))


def gram(x: Floats) -> Floats:
    return np.asarray(x @ x.T)


def cosine(a: Floats, b: Floats) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_a_sets_inner_products_are_those_of_its_summed_gradients() -> None:
    x = vectors()
    sums = np.stack([x[s == OWNERS].sum(axis=0) for s in range(3)])
    found = set_products(np.stack([gram(x), gram(2 * x)]), OWNERS)
    np.testing.assert_allclose(found, [sums @ sums.T, 4 * sums @ sums.T], rtol=1e-12)


def test_reliability_is_the_mean_over_all_halves() -> None:
    """Enumeration: of each split of six examples, four times h·h' over the whole's square."""
    x = vectors()[:6]
    whole = x.sum(axis=0)
    halves = []
    for half in combinations(range(6), 3):
        h = x[list(half)].sum(axis=0)
        halves.append(4 * h @ (whole - h) / (whole @ whole))
    found = reliability(gram(vectors()), OWNERS, (0.0, 0.0, 0.0))
    assert found[0] == pytest.approx(np.mean(halves), rel=1e-12)


def test_reliability_is_the_half_cosine_stepped_up() -> None:
    """Spearman–Brown of random halves' cosines, 2r / (1 + r): the same but for their lengths."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(64, 400)) / 20 + 0.2 * rng.normal(size=400) / 20
    stepped = []
    for _ in range(200):
        order = rng.permutation(64)
        r = cosine(x[order[:32]].sum(axis=0), x[order[32:]].sum(axis=0))
        stepped.append(2 * r / (1 + r))
    found = reliability(gram(x), np.zeros(64, dtype=np.int64), (0.0,))
    assert 0.6 < found[0] < 0.9
    assert found[0] == pytest.approx(np.mean(stepped), abs=0.005)


@pytest.mark.parametrize("n", [2, 4, 7])
def test_of_a_finite_set_it_is_unbiased_over_all_samples(n: int) -> None:
    """Enumeration of all samples without replacement: rel·|x̄|² is on average the set's |μ|²."""
    x = vectors()[:7]
    found = []
    for sample in combinations(range(7), n):
        drawn = x[list(sample)]
        rel = reliability(gram(drawn), np.zeros(n, dtype=np.int64), (n / 7,))[0]
        found.append(rel * float(drawn.mean(axis=0) @ drawn.mean(axis=0)))
    mean = x.mean(axis=0)
    assert np.mean(found) == pytest.approx(mean @ mean, rel=1e-12)


def test_reliability_of_what_has_none() -> None:
    x = vectors()
    one = np.array([0, *[1] * 11])
    assert np.isnan(reliability(gram(x), one, (0.0, 0.0))[0])
    assert reliability(gram(x), one, (1.0, 0.0))[0] == 1.0
    assert np.isnan(reliability(0 * gram(x), one, (1.0, 0.0))).all()
    opposite = np.stack([np.ones(3), -np.ones(3) + 0.1])
    found = reliability(gram(opposite), np.array([0, 0]), (0.0,))
    assert found[0] < -10
    assert bounds(found)[0, 0] == 0.0
    np.testing.assert_allclose(bounds(np.array([0.25, 0.81])), [[0.25, 0.45], [0.45, 0.81]])


def corrected(a: Floats, b: Floats, shares: tuple[float, float]) -> float:
    """From vectors: means, and their squares less the noise that the examples' spread makes."""
    squares = []
    for x, share in zip((a, b), shares, strict=True):
        noise = float(((x - x.mean(axis=0)) ** 2).sum()) / (len(x) - 1) / len(x)
        squares.append(float((x.mean(axis=0) ** 2).sum()) - (1 - share) * noise)
    return float(a.mean(axis=0) @ b.mean(axis=0)) / float(np.sqrt(squares[0] * squares[1]))


@pytest.mark.parametrize("shares", [(0.0, 0.0), (0.5, 0.0), (1.0, 0.25)])
def test_the_interval_is_the_jackknife_of_the_corrected_cosine(
    shares: tuple[float, float],
) -> None:
    """Brute force: every example is really left out, and all is computed from vectors anew."""
    x = vectors(3)
    x[6:10] += 1.5 * np.random.default_rng(8).normal(size=20)
    a, b = x[:6], x[6:10]
    expected = corrected(a, b, shares)
    parts, degrees = [], []
    for n, share, left in (
        (6, shares[0], [corrected(np.delete(a, i, 0), b, shares) for i in range(6)]),
        (4, shares[1], [corrected(a, np.delete(b, i, 0), shares) for i in range(4)]),
    ):
        parts.append((1 - share) * (n - 1) * float(np.var(left)))
        degrees.append(n - 1)
    freedom = sum(parts) ** 2 / sum(v**2 / d for v, d in zip(parts, degrees, strict=True))
    half = student.ppf(0.975, freedom) * sum(parts) ** 0.5
    found = set_cosine(np.stack([gram(x), 9 * gram(x)]), OWNERS, (0, 1), shares)
    for group in range(2):
        assert found.measured[group] == pytest.approx(cosine(a.sum(axis=0), b.sum(axis=0)))
        assert found.estimate[group] == pytest.approx(expected, rel=1e-10)
        assert found.estimate[group] == pytest.approx(found.measured[0] / found.bound[0])
        assert found.low[group] == pytest.approx(max(-1, expected - half), rel=1e-9)
        assert found.high[group] == pytest.approx(min(1, expected + half), rel=1e-9)
    assert found.low[0] > -0.9  # not both ends are cut


def test_a_whole_set_has_an_exact_cosine_and_no_interval() -> None:
    """Facts at right angles: halves agree at 0, and yet nothing is noisy."""
    x = np.eye(12)
    x[6:10, :6] = -0.5
    found = set_cosine(gram(x), OWNERS, (0, 1), (1.0, 1.0))
    expected = cosine(x[:6].sum(axis=0), x[6:10].sum(axis=0))
    assert found.measured == pytest.approx(expected)
    assert found.estimate == pytest.approx(expected)
    assert np.isnan(found.low)
    assert np.isnan(found.high)
    assert not found.undetermined
    sampled = set_cosine(gram(x), OWNERS, (0, 1), (0.0, 1.0))
    assert sampled.undetermined
    assert [float(sampled.low), float(sampled.high)] == [-1.0, 1.0]
    assert np.isnan(sampled.estimate)


def test_too_few_examples_say_nothing() -> None:
    found = set_cosine(gram(vectors()), OWNERS, (0, 2), (0.0, 0.0))
    assert [float(found.low), float(found.high)] == [-1.0, 1.0]


def drawn(
    rng: np.random.Generator, n: int, mean: Floats, rel: float, spread: float, shared: bool
) -> Floats:
    """Gradients of this mean whose mean has this reliability, with unequal lengths if asked."""
    noise = rng.normal(size=(n, len(mean))) / len(mean) ** 0.5
    if shared:  # half of the noise lies in five directions that all examples have
        noise = np.sqrt(0.5) * noise
        noise[:, :5] += np.sqrt(0.5 / 5) * rng.normal(size=(n, 5))
    length = np.exp(spread * rng.normal(size=(n, 1)) - spread**2 / 2)
    return np.asarray(length * (mean + np.sqrt(n * (1 - rel) / rel) * noise))


@pytest.mark.parametrize("true", [-0.9, -0.5, 0.0, 0.5])
@pytest.mark.parametrize("n", [16, 32, 64, 100])
@pytest.mark.parametrize(
    ("rel", "spread", "shared", "most"),
    [(0.9, 0.0, False, 0.99), (0.9, 0.5, True, 1.0), (0.7, 0.3, False, 1.0)],
)
def test_the_interval_covers_the_true_cosine(
    n: int, true: float, rel: float, spread: float, shared: bool, most: float
) -> None:
    """300 draws with a known truth; where noise times noise counts, the interval is too wide.

    A share of 0.95 then has a standard error of 1.3 points: below 0.91 would be 3 of them.
    """
    rng = np.random.default_rng(n)
    a, b = np.zeros((2, 60))
    a[-1], b[-1], b[-2] = 1.0, true, np.sqrt(1 - true**2)
    owners = np.repeat([0, 1], n)
    grams = []
    for _ in range(300):
        x = np.concatenate([drawn(rng, n, mean, rel, spread, shared) for mean in (a, b)])
        grams.append(gram(x))
    found = set_cosine(np.stack(grams), owners, (0, 1), (0.0, 0.0))
    assert 0.91 <= np.mean((found.low <= true) & (true <= found.high)) <= most
    if true and n >= 64:  # the measured cosine is drawn towards 0, the estimate is not
        assert abs(np.mean(found.measured)) < (rel + 0.05) * abs(true)
        assert np.mean(found.estimate) == pytest.approx(true, abs=0.04)


@pytest.mark.parametrize("true", [-0.9, 0.5])
@pytest.mark.parametrize("n", [16, 64])
def test_the_interval_covers_the_cosine_of_finite_sets(n: int, true: float) -> None:
    """Half of each set is probed; the truth is the cosine of the whole sets' gradients."""
    rng = np.random.default_rng(n)
    a, b = np.zeros((2, 60))
    a[-1], b[-1], b[-2] = 1.0, true, np.sqrt(1 - true**2)
    grams, truths = [], []
    for _ in range(300):
        whole = [drawn(rng, 2 * n, mean, 0.9, 0.3, shared=False) for mean in (a, b)]
        truths.append(cosine(*(x.sum(axis=0) for x in whole)))
        grams.append(gram(np.concatenate([x[:n] for x in whole])))
    found = set_cosine(np.stack(grams), np.repeat([0, 1], n), (0, 1), (0.5, 0.5))
    inside = (found.low <= truths) & (truths <= found.high)
    assert 0.91 <= np.mean(inside) <= 0.99
    endless = set_cosine(np.stack(grams), np.repeat([0, 1], n), (0, 1), (0.0, 0.0))
    assert np.mean(found.high - found.low) < 0.85 * np.mean(endless.high - endless.low)


def test_values_of_pairs() -> None:
    x = vectors()
    table = example_cosines(gram(x))
    found = pair_values(np.stack([table, 2 * table]), OWNERS, 0, 2)
    expected = [cosine(x[i], x[j]) for i in range(6) for j in (10, 11)]
    np.testing.assert_allclose(found, [expected, [2 * v for v in expected]], rtol=1e-12)
    within = [cosine(x[i], x[j]) for i, j in combinations(range(6, 10), 2)]
    np.testing.assert_allclose(pair_values(table, OWNERS, 1, 1), within, rtol=1e-12)


def test_the_worst_conflicts_come_first() -> None:
    x = vectors(2) - vectors(2).mean(axis=0)
    products = {(i, j): x[i] @ x[j] for i in range(6) for j in range(6, 10)}
    worst = sorted(
        (pair for pair, value in products.items() if value < 0), key=products.__getitem__
    )
    assert len(worst) > 5
    assert conflicts(gram(x), OWNERS, 0, 1, 5).tolist() == [list(pair) for pair in worst[:5]]
    assert conflicts(gram(x), OWNERS, 0, 1, 99).tolist() == [list(pair) for pair in worst]
    within = {(i, j): x[i] @ x[j] for i, j in combinations(range(6), 2) if x[i] @ x[j] < 0}
    expected = [list(pair) for pair in sorted(within, key=within.__getitem__)]
    assert len(expected) > 5
    assert conflicts(gram(x), OWNERS, 0, 0, 99).tolist() == expected
    assert conflicts(gram(np.ones((12, 2))), OWNERS, 0, 1, 5).shape == (0, 2)


def test_conflict_with_a_whole_set() -> None:
    x = vectors(4)
    b, a = x[6:10].sum(axis=0), x[:6].sum(axis=0)
    np.testing.assert_allclose(with_set(gram(x), OWNERS, 1), x @ b, rtol=1e-12)
    expected = [cosine(row, b) for row in x]
    np.testing.assert_allclose(cosine_with_set(gram(x), OWNERS, 1), expected, rtol=1e-12)
    order = by_conflict(gram(x), OWNERS, 0, 1)
    expected_order = [
        *sorted(range(6), key=lambda i: x[i] @ b),
        *sorted(range(6, 10), key=lambda i: x[i] @ a),
        *sorted(range(10, 12), key=lambda i: x[i] @ a),
    ]
    assert order.tolist() == expected_order
    assert members(OWNERS, 1).tolist() == [6, 7, 8, 9]


def test_the_longest_gradients_share() -> None:
    found = largest_share(np.stack([gram(np.diag([1.0, 3.0, 2.0])), np.eye(3), np.zeros((3, 3))]))
    np.testing.assert_allclose(found, [9 / 14, 1 / 3, np.nan])


def test_no_cosine_with_a_gradient_of_zero() -> None:
    x = vectors()
    x[3] = 0
    assert np.flatnonzero(np.isnan(cosine_with_set(gram(x), OWNERS, 1))).tolist() == [3]
    assert np.isnan(example_cosines(gram(x))[3]).all()


def test_what_single_precision_makes_of_equal_gradients() -> None:
    alike = np.array([[1.0, 1.0 + 1e-5], [1.0 + 1e-5, 1.0]])
    assert example_cosines(alike)[0, 1] == 1.0
    negative = np.array([[-1e-20, 0.0], [0.0, 1.0]])
    assert np.isnan(example_cosines(negative)[0, 1])
    assert np.isnan(reliability(-negative, np.array([0, 0]), (0.0,))[0])
