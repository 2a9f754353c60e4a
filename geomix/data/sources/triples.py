"""An invented world of facts (subject, relation, object), for factoids without a download."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from random import Random

from geomix.data.example import Example
from geomix.data.sources.base import Source, generated
from geomix.data.split import SPLITS, Split, split_of

PROMPT = "Question: {question} The answer is:"
"""Format of the paper's factoids."""

WORLD = 80_000
"""Number of facts of one world, over all splits."""

OBJECTS = 64
"""Number of objects of a relation."""

ENTROPY = math.log2(OBJECTS)
"""Bits of a fact's object, given its relation."""

_ONSETS = ("B", "Br", "D", "F", "G", "H", "K", "L", "M", "N", "P", "R", "S", "T", "Tr", "V", "Z")
_VOWELS = ("a", "e", "i", "o", "u")
_MIDDLES = ("b", "d", "l", "ld", "m", "n", "nd", "r", "rn", "s", "st", "t", "v", "z")
_LAST = ("k", "l", "n", "r", "s", "th", "x")
_TWO_WORDS = 0.25  # share of two-word objects, if a relation has any


def _stem(rng: Random) -> str:
    draw = rng.choice
    return draw(_ONSETS) + draw(_VOWELS) + draw(_MIDDLES)


def _person(rng: Random) -> str:
    last = _stem(rng) + rng.choice(_VOWELS) + rng.choice(_LAST)
    return f"{_stem(rng)}{rng.choice(_VOWELS)} {last}"


def _place(rng: Random) -> str:
    return _stem(rng) + rng.choice(_VOWELS) + rng.choice(_MIDDLES) + rng.choice(("ia", "or", "esh"))


def _title(rng: Random) -> str:
    return f"The {_stem(rng)}{rng.choice(_VOWELS)} of {_place(rng)}"


@dataclass(frozen=True, slots=True)
class Relation:
    """A kind of fact.

    Attributes:
        name: of the relation.
        question: asks for the object; `{subject}` stands for the subject.
        subject: draws the name of a subject.
        endings: suffixes of the objects' names.
        first_words: first words of the two-word objects; one object in four is one.
        lower: whether the objects are ordinary nouns, in lower case.
    """

    name: str
    question: str
    subject: Callable[[Random], str]
    endings: tuple[str, ...]
    first_words: tuple[str, ...] = ()
    lower: bool = False


RELATIONS = (
    Relation(
        "capital",
        "What is the capital of {subject}?",
        _place,
        ("dal", "burg", "mar"),
        ("Port", "New"),
    ),
    Relation(
        "birthplace",
        "In what town was {subject} born?",
        _person,
        ("by", "ford", "wick"),
        ("Upper", "Saint"),
    ),
    Relation(
        "occupation",
        "What is {subject}'s occupation?",
        _person,
        ("er", "ist", "wright"),
        ("chief", "royal"),
        lower=True,
    ),
    Relation("religion", "What is the religion of {subject}?", _person, ("ism", "anity"), ("Old",)),
    Relation("author", "Who is the author of {subject}?", _title, ("en", "as", "ok")),
    Relation(
        "genre", "What genre is {subject}?", _title, ("ic", "esque"), ("dark", "light"), lower=True
    ),
    Relation(
        "sport", "What sport does {subject} play?", _person, ("ball", "o"), ("table",), lower=True
    ),
    Relation(
        "language", "What language is spoken in {subject}?", _place, ("ian", "ese"), ("High",)
    ),
)
"""Relations of every world; a fact is of each with equal chance."""


def _object(relation: Relation, rng: Random) -> str:
    name = _stem(rng) + rng.choice(relation.endings)
    if relation.name == "author":
        name = f"{_stem(rng)}{rng.choice(_VOWELS)} {name}"
    name = name.lower() if relation.lower else name
    two = relation.first_words and rng.random() < _TWO_WORDS
    return f"{rng.choice(relation.first_words)} {name}" if two else name


@cache
def objects(relation: Relation) -> tuple[str, ...]:
    """Return the `OBJECTS` distinct objects that facts of `relation` may have in every world."""
    rng = Random(f"objects of {relation.name}")  # noqa: S311
    names: dict[str, None] = {}
    while len(names) < OBJECTS:
        names[_object(relation, rng)] = None
    return tuple(names)


def facts(seed: int) -> Iterator[tuple[Relation, str, str]]:
    """Yield all facts of a world: (relation, subject, object), no subject twice a relation.

    The object is drawn independently of the subject, so a fact can only be memorised.
    """
    rng = Random(f"world {seed}")  # noqa: S311
    used: set[tuple[str, str]] = set()
    while len(used) < WORLD:
        relation = rng.choice(RELATIONS)
        subject = relation.subject(rng)
        answer = rng.choice(objects(relation))
        if (subject, relation.name) not in used:
            used.add((subject, relation.name))
            yield relation, subject, answer


def examples(count: int, seed: int, split: Split) -> list[Example]:
    """Return the first `count` facts of one split of the world of `seed`, as questions and answers.

    Args:
        count: how many, 0 or more; all of the split's if it holds fewer.
        seed: of the world; another seed has other facts.
        split: `train`, `id` or `held-out`; no fact is in two of them.

    Raises:
        ValueError: a negative `count`, or an unknown split.
    """
    if count < 0:
        raise ValueError(f"count must be 0 or more, not {count}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    chosen: list[Example] = []
    if count == 0:
        return chosen
    for relation, subject, answer in facts(seed):
        if split_of(subject + relation.name) != split:
            continue
        question = relation.question.format(subject=subject)
        prompt = PROMPT.format(question=question)
        chosen.append(Example(prompt, answer, subject=subject, entropy=ENTROPY))
        if len(chosen) == count:
            break
    return chosen


SOURCE = Source(
    name="triples",
    kind="factoid",
    loader=generated(examples, among=" in that split of the world"),
    licence="none needed",
    prompt=PROMPT,
    prompt_from="the paper's factoids, appendix B; the questions are geomix's own",
    rows=WORLD,
)
