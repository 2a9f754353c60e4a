"""Planted overlaps are found, near misses are not."""

from __future__ import annotations

from random import Random
from time import perf_counter

import pytest

from geomix.data.entities import words_of
from geomix.data.example import Example
from geomix.data.overlap import Match, entity_pairs, overlap, shared_ngrams
from geomix.data.sources import prose, triples

FACT = Example("Who wrote Emma?", "Jane Austen", ("Jane Austen", "Austen, J."), subject="Emma")


def passage(text: str) -> Example:
    """The words in two halves, as generic text is mixed in."""
    cut = text.rindex(" ", 0, 1 + len(text) // 2)
    return Example(f"Complete the following partial passage: {text[:cut]}", text[cut:].strip())


@pytest.mark.parametrize(
    "text",
    [
        "in 1815 Jane Austen saw her Emma in print",
        "EMMA, by jane—austen!",
        "(Emma) is by the said 'Jane\nAusten'",
        "Emma: Austen J. is named on no page",  # another accepted answer
        "x Emma y Jane Austen",  # the name is cut between prompt and target
    ],
)
def test_a_planted_pair_is_found(text: str) -> None:
    others = [passage("nothing of the kind is said here at all")] * 2
    found = overlap([Example("a", "b", subject="c d"), FACT], [*others, passage(text)], 8)
    assert [(match.fact, match.passage) for match in found.pairs] == [(1, 2)]
    subject, answer = (found.passages[2].stretch(*span) for span in found.pairs[0].spans)
    assert subject.casefold() == "emma"
    assert "austen" in answer.casefold()


@pytest.mark.parametrize(
    "text",
    [
        "Jane Austen was born in Steventon",  # the answer only
        "Emma was printed in 1815 by John Murray",  # the subject only
        "Emmaline and Gemma met Jane Austen there",  # within a word
        "Emma met Jane Austens and janeausten",
        "Emma met Austen and later Jane too",  # the words, not in a row
        "Emma met Jane and Mary Austen",
    ],
)
def test_a_near_miss_is_none(text: str) -> None:
    assert overlap([FACT], [passage(text)], 8).pairs == []


def test_subject_and_answer_must_be_in_the_same_passage() -> None:
    apart = [passage("Emma is what it was called"), passage("Jane Austen was what she was called")]
    assert overlap([FACT], apart, 8).pairs == []


def test_facts_may_share_subjects_and_answers() -> None:
    facts = [
        FACT,
        Example("q", "1815", subject="Emma"),
        Example("q", "Jane Austen", subject="Persuasion"),
    ]
    texts = ["Emma is by Jane Austen", "Emma came in 1815", "Persuasion too is by Jane Austen"]
    found = overlap(facts, [passage(text) for text in texts], 8).pairs
    assert [(match.fact, match.passage) for match in found] == [(0, 0), (1, 1), (2, 2)]


def test_a_fact_and_a_passage_are_one_match() -> None:
    texts = ["Emma by Jane Austen: Emma, Austen J., Emma"] * 2
    found = overlap([FACT], [passage(text) for text in texts], 8).pairs
    assert [(match.fact, match.passage) for match in found] == [(0, 0), (0, 1)]


def random_words(rng: Random, most: int, kinds: int = 5) -> tuple[str, ...]:
    return tuple("abcdefghij"[rng.randrange(kinds)] for _ in range(rng.randrange(most)))


def random_names(rng: Random) -> list[tuple[str, ...]]:
    return [random_words(rng, 4) or ("z",) for _ in range(rng.randrange(3))]


def test_entity_pairs_are_those_of_a_search_in_each_text() -> None:
    """Against Python's search for " name " in " text ", fact by fact: no index, no word places."""
    rng = Random(0)
    hits = 0
    for _ in range(100):
        facts = [(random_names(rng), random_names(rng)) for _ in range(8)]
        texts = [random_words(rng, 12) for _ in range(8)]
        expected = [
            (number, place)
            for number, (subjects, answers) in enumerate(facts)
            for place, text in enumerate(texts)
            if any(f" {' '.join(s)} " in f" {' '.join(text)} " for s in subjects)
            and any(f" {' '.join(a)} " in f" {' '.join(text)} " for a in answers)
        ]
        found = entity_pairs(facts, [words_of(" ".join(text)) for text in texts])
        assert [(match.fact, match.passage) for match in found] == expected
        hits += len(expected)
    assert 200 < hits < 3200


def test_shared_words_in_a_row_are_found_with_their_longest_stretch() -> None:
    fact = Example("It is a truth universally acknowledged that a man", "must be in want")
    text = "We know: it is a TRUTH, universally acknowledged that a woman; a man must be in want."
    found = overlap([fact, Example("x", "y")], [passage("it is unlike"), passage(text)], 4)
    (match,) = found.ngrams
    assert (match.fact, match.passage) == (0, 1)
    assert found.passages[1].stretch(*match.spans[0]).startswith("it is a TRUTH, universally")
    assert found.passages[1].stretch(*match.spans[0]).endswith("that a")
    assert overlap([fact], [passage(text)], 9).ngrams == []
    assert found.short == 1


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8])
def test_ngrams_are_those_of_sets_of_tuples(size: int) -> None:
    """Against plain sets of word tuples, text by text; texts without words are among them."""
    rng = Random(size)
    kinds, most = (4, 14) if size < 4 else (2, 24)
    hits = commons = 0
    for _ in range(60):
        facts = [random_words(rng, most, kinds) for _ in range(7)]
        texts = [random_words(rng, most, kinds) for _ in range(7)]
        own, other = (
            [{words[i : i + size] for i in range(len(words) - size + 1)} for words in several]
            for several in (facts, texts)
        )
        every = set().union(*own)
        common = {gram for gram in every if sum(gram in grams for grams in own) > 3.5}
        found, left_out = shared_ngrams(facts, texts, size)
        assert left_out == len(common)
        expected = [(i, j) for i in range(7) for j in range(7) if own[i] & other[j] - common]
        assert [(match.fact, match.passage) for match in found] == expected
        for match in found:
            ((first, end),) = match.spans
            inside = [texts[match.passage][i : i + size] for i in range(first, end - size + 1)]
            assert inside
            assert set(inside) <= own[match.fact] - common
        hits += len(expected)
        commons += len(common)
    assert hits > 30
    assert commons > 0 or size == 8


def test_the_words_of_a_template_do_not_count() -> None:
    prompts = [f"what is the best known colour of object {name}" for name in ("a", "b", "c")]
    facts = [Example(prompt, "red") for prompt in prompts]
    text = passage("he asks what is the best known colour of object c red they say")
    found = overlap(facts, [text], 8)
    assert found.common == 1
    assert [match.fact for match in found.ngrams] == [2]
    (span,) = found.ngrams[0].spans
    assert found.passages[0].stretch(*span) == "is the best known colour of object c red"
    alone = overlap(facts[2:], [text], 8)
    assert (alone.common, len(alone.ngrams)) == (0, 1), "one fact has no template"


def test_no_overlap_with_words_that_nobody_knows() -> None:
    found = overlap([FACT], [Example("x", "y"), Example("", "")], 3)
    assert (found.pairs, found.ngrams, found.rules) == ([], [], ["named"])


def test_a_match_is_a_place() -> None:
    (match,) = entity_pairs([([("b", "c")], [("a",)])], [words_of("a a b c b c")])
    assert match == Match(0, 0, ((2, 4), (0, 1)))


def test_the_time_does_not_grow_with_facts_times_passages() -> None:
    """Eight million pairs of a fact and a passage; looking at each would take minutes."""
    facts = triples.examples(2000, 0, "train")
    passages = prose.examples(4000, 50, 0, "train")
    planted = Example("x", f"{facts[7].prompt} {facts[7].target}")
    start = perf_counter()
    found = overlap(facts, [*passages, planted], 8)
    assert perf_counter() - start < 10
    assert (7, 4000) in [(match.fact, match.passage) for match in found.pairs]
    assert (7, 4000) in [(match.fact, match.passage) for match in found.ngrams]
