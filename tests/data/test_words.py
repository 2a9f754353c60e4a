"""The generated word list and its memorisation examples."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from geomix.data import words


def test_the_list_is_of_distinct_lower_case_words() -> None:
    listed = words.word_list()
    assert len(listed) == len(set(listed)) == words.WORDS
    assert all(word.isascii() and word.isalpha() and word.islower() for word in listed)
    assert all(4 <= len(word) <= 8 for word in listed)


def test_the_list_never_changes() -> None:
    """The base model was trained on these words, so other ones would silently copy worse."""
    assert words.word_list()[:4] == ("hidit", "bristun", "trezux", "shihir")


def test_every_word_is_an_open_and_a_closed_syllable() -> None:
    heads, tails = words.syllables()
    assert len(heads) == 120
    assert len(tails) == 150
    made = {head + tail for head in heads for tail in tails}
    assert set(words.word_list()) <= made


def test_a_passage_has_that_many_words_of_the_list() -> None:
    drawn = words.passage(np.random.default_rng(0), 200).split(" ")
    assert len(drawn) == 200
    assert set(drawn) <= set(words.word_list())


def test_words_are_drawn_uniformly() -> None:
    """Expected count 20 a word: a Poisson count under 2 or over 50 has odds under 1e-7 a word."""
    drawn = words.passage(np.random.default_rng(1), 20 * words.WORDS).split(" ")
    position = {word: i for i, word in enumerate(words.word_list())}
    counts = np.bincount([position[word] for word in drawn], minlength=words.WORDS)
    assert counts.min() >= 2
    assert counts.max() <= 50


def test_an_example_asks_for_its_own_passage_in_the_words_of_the_paper() -> None:
    for example in words.examples(5, 20, seed=0):
        assert example.prompt == (
            f"Memorize the following random-string passage:\n{example.target}"
        )
        assert len(example.target.split(" ")) == 20


def test_the_seed_decides_and_a_longer_list_goes_on() -> None:
    assert words.examples(10, 20, seed=3)[:4] == words.examples(4, 20, seed=3)
    first = {example.target for example in words.examples(50, 20, seed=0)}
    second = {example.target for example in words.examples(50, 20, seed=1)}
    assert len(first) == len(second) == 50
    assert not first & second


def test_no_examples() -> None:
    assert words.examples(0, 20, seed=0) == []


@pytest.mark.parametrize(("count", "length", "seed"), [(-1, 20, 0), (1, 0, 0), (1, 20, -1)])
def test_bad_numbers_are_refused(count: int, length: int, seed: int) -> None:
    with pytest.raises(ValueError, match="not"):
        words.examples(count, length, seed)


def test_an_empty_passage_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 word, not 0"):
        words.passage(np.random.default_rng(0), 0)


def test_generating_text_does_not_import_torch() -> None:
    code = "import sys, geomix.data.words, geomix.data.triples; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
