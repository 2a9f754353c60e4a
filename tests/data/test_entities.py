"""Words, and the entities of a fact."""

from __future__ import annotations

import pytest

from geomix.data.entities import MOST_WORDS, entities_of, guessed_subjects, whole_text, words_of
from geomix.data.example import Example


def test_words_are_case_folded_and_know_their_place() -> None:
    words = words_of("New Lands's  ___ STRASSE-straße, 3.5 km")
    assert words.words == ("new", "lands", "s", "strasse", "strasse", "3", "5", "km")
    assert words.stretch(0, 2) == "New Lands"
    assert words.stretch(4, 7) == "straße, 3.5"
    assert words_of("").words == words_of("_ …!").words == ()


def test_an_accent_may_be_written_in_two_ways() -> None:
    assert words_of("Cafe\u0301 x").words == words_of("Café x").words == ("café", "x")


def test_the_whole_text_has_earlier_exchanges() -> None:
    assert whole_text(Example("c", "d", earlier=(("a", "b"),))) == "a b c d"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Question: Which city does David Soul come from?\nThe answer is:", ("David Soul",)),
        ("Question: What is New Lands's author? The answer is:", ("New Lands",)),
        ("The value of key e6395973 is?", ("e6395973",)),
        ("In Paris, who was it in 1952?", ("Paris", "1952")),
        ("Who wrote 'The Old Man and the Sea'?", ("The Old Man and the Sea",)),
        ("Who wrote “Emma” after Sanditon?", ("Emma", "Sanditon")),
        ("Which American state is J. R. R. Tolkien's home?", ("American", "J. R. R. Tolkien")),
        ("Mrs. Dalloway is where? The Beatles sang.", ("Mrs. Dalloway", "The Beatles")),
        ("Jean-Luc met O'Brien & Sons, not McCoy", ("Jean-Luc", "O'Brien & Sons", "McCoy")),
        ("Who sang In Rainbows? In Rainbows", ("In Rainbows", "Rainbows")),
        ("1984 was written by whom?", ("1984",)),
        ("Dante was born in ____. Here he died.", ()),
        ("Fill in the blank: ____ is it. The answer is:", ()),
        ("the question: Where is the answer in Rome? answer:", ("Rome",)),
        ("nothing here", ()),
        ("", ()),
    ],
)
def test_subjects_are_guessed_from_the_prompt(prompt: str, expected: tuple[str, ...]) -> None:
    assert guessed_subjects(prompt) == expected


def test_the_source_knows_better_than_a_guess() -> None:
    example = Example("Who met Ann in Rome?", "Bob", ("Bob", "Bo B.", "!"), subject="the Forum")
    assert entities_of(example) == ("named", (("the", "forum"),), (("bob",), ("bo", "b")))
    guessed = Example(example.prompt, "Bob", example.aliases)
    assert entities_of(guessed)[:2] == ("guessed", (("ann",), ("rome",)))


def test_a_guess_that_is_an_answer_is_no_pair() -> None:
    assert entities_of(Example("Is it Rome or Ann?", "rome"))[1] == (("ann",),)
    assert entities_of(Example("Is it Rome?", "rome")) == ("none", (), ())


def test_a_long_answer_is_no_entity() -> None:
    for count, rule in ((MOST_WORDS, "named"), (MOST_WORDS + 1, "none")):
        assert entities_of(Example("x", "w " * count, subject="Rome"))[0] == rule
    assert entities_of(Example("x", "…", subject="Rome"))[0] == "none"
