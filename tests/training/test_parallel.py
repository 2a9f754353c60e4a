"""Division of work among processes, without any; together they are tested in tests/invariants."""

from __future__ import annotations

import pytest

from geomix.models.distributed import Workers


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 12])
def test_shares_are_alike_in_size_and_sum_to_the_batch(world: int, count: int) -> None:
    pairs = [(f"example {i}", 0.1 * (i + 1)) for i in range(count)]
    shares = [Workers(rank, world).share(pairs) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    total: dict[str, float] = {}
    for example, weight in (pair for share in shares for pair in share):
        total[example] = total.get(example, 0.0) + weight / world  # gradients are averaged
    assert total == pytest.approx(dict(pairs))
    assert sum(map(len, shares)) < count + world


def test_one_process_does_everything_itself() -> None:
    alone = Workers()
    assert alone.share([("a", 0.5), ("b", 0.25)]) == [("a", 0.5), ("b", 0.25)]
    assert alone.spread([1, 2, 3], lambda part: [n * n for n in part]) == [1, 4, 9]
    assert alone.first(lambda: 7) == 7
    assert alone.total(1.5) == 1.5
    assert alone.any(False, True) == [False, True]
    assert alone.main
