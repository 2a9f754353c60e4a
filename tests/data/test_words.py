"""The generated word list and its memorisation examples."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from geomix.data.sources import random_words as words


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


def p_values(drawn: NDArray[np.int64], listed: int) -> tuple[float, float]:
    """Two chi-square tests of draws that should be uniform and independent.

    Args:
        drawn: `(passages, words)`, indices into the list.
        listed: how many words the list has.

    Returns:
        p of the counts of every word, and of the counts of ten stretches of the list in five
        stretches of the passage, where an order shows.
    """
    words_each = drawn.size / listed
    assert words_each >= 400, "one word that is never drawn must show among all of them"
    counts = np.bincount(drawn.ravel(), minlength=listed)
    place = np.broadcast_to(np.arange(drawn.shape[1]) * 5 // drawn.shape[1], drawn.shape)
    cells = np.bincount((place * 10 + drawn * 10 // listed).ravel(), minlength=50)
    return float(chisquare(counts).pvalue), float(chisquare(cells).pvalue)


def drawn_by_examples(listed: tuple[str, ...], length: int) -> NDArray[np.int64]:
    """Return `words.examples` drawn from a list, 500 times as many words as it has."""
    position = {word: i for i, word in enumerate(listed)}
    made = words.examples(500 * len(listed) // length, length, 7, listed)
    return np.array([[position[word] for word in e.target.split(" ")] for e in made])


def nltk_list(folder: Path) -> tuple[str, ...]:
    """A list of 60 words in the files of the NLTK corpus, some of them in both."""
    for name, numbers in (("en", range(50)), ("en-basic", range(40, 60))):
        (folder / name).write_text("".join(f"w{n:02}\n" for n in numbers), encoding="utf-8")
    return words.nltk_words(folder)


class Biased:
    """A generator of numbers whose `integers` are not what was asked for."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.true = np.random.default_rng(7)

    def integers(self, n: int, size: int) -> NDArray[np.int64]:
        fair = self.true.integers(n, size=size)
        half = np.where(self.true.random(size) < 0.52, fair // 2, n // 2 + fair // 2)
        return {
            "fair": fair,
            "never the last": self.true.integers(n - 1, size=size),
            "never the first": 1 + self.true.integers(n - 1, size=size),
            "sorted": np.sort(fair),
            "more of the first half": half,
            "each once": self.true.permutation(n)[:size],
        }[self.how]


LISTS = {"generated": 300, "nltk": 50}
BIASES = ("never the last", "never the first", "sorted", "more of the first half", "each once")


@pytest.mark.parametrize(("name", "length"), LISTS.items())
@pytest.mark.parametrize("how", [None, "fair", *BIASES])
def test_words_are_drawn_uniformly_and_a_bias_would_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, length: int, how: str | None
) -> None:
    """Chi-square on both sides: counts that are too even are not drawn independently either."""
    listed = words.word_list() if name == "generated" else nltk_list(tmp_path)
    assert len(listed) == (3000 if name == "generated" else 60)
    if how:
        biased = SimpleNamespace(default_rng=lambda _: Biased(how))
        monkeypatch.setattr(words, "np", SimpleNamespace(random=biased))
    found = p_values(drawn_by_examples(listed, length), len(listed))
    fair = all(0.001 < p < 0.999 for p in found)
    assert fair == (how not in BIASES), found


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
    modules = "geomix.data.sources.random_words, geomix.data.sources.triples"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
