"""Key-Value Recall."""

from __future__ import annotations

import re

import pytest

from geomix.data.sources import kvr
from geomix.data.split import SPLITS, Split


def test_keys_and_values_are_8_lower_case_letters_and_digits_and_unique() -> None:
    examples = kvr.examples(10_000, 0, "train")
    keys = []
    for example in examples:
        found = re.fullmatch("The value of key ([a-z0-9]{8}) is[?]", example.prompt)
        assert found
        keys.append(found.group(1))
        assert example.subject == found.group(1)
        assert re.fullmatch("[a-z0-9]{8}", example.target)
    assert len(set(keys)) == len({example.target for example in examples}) == 10_000
    assert len(set("".join(keys))) == 36, "every character occurs"


def test_splits_share_no_key_and_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 8 characters of 36 two values are the same by chance in one seed of 6,000; with 4, in
    every one."""
    for length in (4, 8):
        monkeypatch.setattr(kvr, "LENGTH", length)
        found = [e for split in SPLITS for e in kvr.examples(10_000, 0, split)]
        assert len({e.prompt for e in found}) == 30_000
        assert len({e.target for e in found}) == 30_000


@pytest.mark.parametrize("split", SPLITS)
def test_a_larger_set_begins_with_the_smaller_one(split: Split) -> None:
    assert kvr.examples(50, 4, split)[:20] == kvr.examples(20, 4, split)


def test_another_seed_gives_other_pairs() -> None:
    one, other = ({e.prompt for e in kvr.examples(100, seed, "train")} for seed in (0, 1))
    assert not one & other


def test_the_pairs_of_a_seed_are_the_same_for_ever() -> None:
    """Written down once: another numpy or Python must give the same data."""
    (first,) = kvr.examples(1, 0, "train")
    assert (first.prompt, first.target) == ("The value of key epk7zr0v is?", "0dud9itd")
