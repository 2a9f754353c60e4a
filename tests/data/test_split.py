"""A key's split is a hash of the key."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from geomix.data.split import SPLITS, split_of


@given(st.text())
def test_every_text_has_one_split_for_ever(key: str) -> None:
    assert split_of(key) in SPLITS
    assert split_of(key) == split_of(key)


def test_known_keys_stay_where_they_are() -> None:
    """Written down once: were the hash to change, old runs' held-out sets would be trained on."""
    assert [split_of(key) for key in ("a", "b", "c", "d", "é")] == [
        "id",
        "train",
        "id",
        "held-out",
        "id",
    ]


def test_splits_are_about_equal() -> None:
    """6,000 keys: 2,000 each, standard deviation 37."""
    counts = Counter(split_of(str(number)) for number in range(6_000))
    assert all(1_800 < counts[split] < 2_200 for split in SPLITS)
