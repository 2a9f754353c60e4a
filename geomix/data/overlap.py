"""Overlap of facts and passages: by the pair of their entities, and by shared n-grams.

Source: the paper, appendix B.6 (strict match of entity pairs). Both measures scan every passage
once, whatever the number of facts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from geomix.data.entities import Entity, SubjectRule, Words, entities_of, whole_text, words_of
from geomix.data.example import Example

Span = tuple[int, int]
"""Word range of a passage: the first, and one past the last."""

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Match:
    """A fact that occurs in a passage.

    Attributes:
        fact: its row, from 0.
        passage: its row, from 0.
        spans: the matches: the subject and the answer, or the longest run of shared words.
    """

    fact: int
    passage: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Overlap of facts with passages.

    Attributes:
        passages: the passages as words; earlier exchanges, prompt and target joined.
        rules: the rule that gave each fact's subject.
        pairs: facts with a name of the subject and an accepted answer in one passage.
        ngrams: facts that share `size` consecutive words with a passage.
        size: of these n-grams, in words.
        short: number of facts with fewer words than that.
        common: number of n-grams left out because more than half of the facts have them: a
            template's words.
    """

    passages: list[Words]
    rules: list[SubjectRule]
    pairs: list[Match]
    ngrams: list[Match]
    size: int
    short: int
    common: int


def overlap(facts: Sequence[Example], passages: Sequence[Example], size: int) -> Overlap:
    """Compare each fact with each passage.

    Words are compared whole and case-folded; characters between them are ignored. An answer may be
    part of the subject's name.

    Args:
        facts: a stage's own examples.
        passages: examples of D_M.
        size: of the n-grams, in words, at least 1.
    """
    texts = [words_of(whole_text(example)) for example in passages]
    found = [entities_of(example) for example in facts]
    own = [words_of(whole_text(example)).words for example in facts]
    ngrams, common = shared_ngrams(own, [text.words for text in texts], size)
    return Overlap(
        passages=texts,
        rules=[rule for rule, _, _ in found],
        pairs=entity_pairs([(subjects, answers) for _, subjects, answers in found], texts),
        ngrams=ngrams,
        size=size,
        short=sum(len(words) < size for words in own),
        common=common,
    )


def entity_pairs(
    facts: Sequence[tuple[Sequence[Entity], Sequence[Entity]]], passages: Sequence[Words]
) -> list[Match]:
    """Find passages with a name of the subject and an accepted answer of the same fact.

    Args:
        facts: names of the subject, and answers, of each.
        passages: the passages.

    Returns:
        One match for each fact and passage, in that order: the first pair of names found.
    """
    by_subject: dict[Entity, list[int]] = defaultdict(list)
    for fact, (subjects, _) in enumerate(facts):
        for subject in subjects:
            by_subject[subject].append(fact)
    lengths = _lengths(entity for fact in facts for names in fact for entity in names)
    matches: dict[tuple[int, int], Match] = {}
    for passage, text in enumerate(passages):
        spans_of = _spans(text.words, lengths)
        for subject in spans_of.keys() & by_subject.keys():
            for fact in by_subject[subject]:
                answer = next((name for name in facts[fact][1] if name in spans_of), None)
                if answer is not None:
                    spans = (spans_of[subject], spans_of[answer])
                    matches.setdefault((fact, passage), Match(fact, passage, spans))
    return [matches[key] for key in sorted(matches)]


def _lengths(entities: Iterable[Entity]) -> Mapping[str, Mapping[int, set[Entity]]]:
    """Index entities by their first word, then by their number of words."""
    found: dict[str, dict[int, set[Entity]]] = defaultdict(lambda: defaultdict(set))
    for entity in entities:
        found[entity[0]][len(entity)].add(entity)
    return found


def _spans(words: Entity, lengths: Mapping[str, Mapping[int, set[Entity]]]) -> dict[Entity, Span]:
    """Return the first span of each entity that occurs."""
    found: dict[Entity, Span] = {}
    for start, word in enumerate(words):
        for length, entities in lengths.get(word, {}).items():
            name = words[start : start + length]
            if name in entities:
                found.setdefault(name, (start, start + length))
    return found


def shared_ngrams(
    facts: Sequence[Entity], passages: Sequence[Entity], size: int
) -> tuple[list[Match], int]:
    """Find facts and passages with `size` consecutive words in common.

    Args:
        facts: each one's words.
        passages: each one's words.
        size: of the n-grams, in words, at least 1.

    Returns:
        One match for each fact and passage, in that order, with the longest run of shared n-grams;
        and the number of n-grams left out because more than half of the facts (and more than one)
        have them.
    """
    texts = (*facts, *passages)
    grams, owners, starts = _ngrams(texts, size)
    own = owners < len(facts)
    # Each n-gram once a fact, sorted by the n-gram.
    once = np.unique(grams[own] * len(facts) + owners[own])
    gram_of, fact_of = np.divmod(once, len(facts))
    kinds, first, counts = np.unique(gram_of, return_index=True, return_counts=True)
    common = counts > max(1, len(facts) / 2)
    kinds, first, counts = kinds[~common], first[~common], counts[~common]
    hits = ~own & np.isin(grams, kinds)
    slots = np.searchsorted(kinds, grams[hits])
    columns = (owners[hits], starts[hits], first[slots], first[slots] + counts[slots])
    runs: dict[tuple[int, int], list[Span]] = defaultdict(list)
    for owner, start, low, high in zip(*(c.tolist() for c in columns), strict=True):
        for fact in fact_of[low:high].tolist():
            found = runs[fact, owner - len(facts)]
            continues = found and found[-1][1] == start + size - 1
            begin = found.pop()[0] if continues else start
            found.append((begin, start + size))
    matches = [
        Match(fact, passage, (max(found, key=lambda span: span[1] - span[0]),))
        for (fact, passage), found in sorted(runs.items())
    ]
    return matches, int(common.sum())


def _ngrams(texts: Sequence[Entity], size: int) -> tuple[Ids, Ids, Ids]:
    """Return every n-gram of every text: the id of its words, its text and its first word's index.

    Two n-grams have the same id exactly if their words are the same: ids of single words are joined
    to those of pairs, then of fours and so on, so nothing is hashed.
    """
    vocabulary: dict[str, int] = {}
    ids = np.array(
        [vocabulary.setdefault(word, len(vocabulary)) for words in texts for word in words],
        dtype=np.int64,
    )
    sizes = np.array([len(words) for words in texts], dtype=np.int64)
    begins = np.array([0, *accumulate(sizes.tolist())], dtype=np.int64)
    owners = np.repeat(np.arange(len(texts)), sizes)
    width = 1
    while width < size and len(ids):
        step = min(width, size - width)
        joined = ids[:-step] * (int(ids.max()) + 1) + ids[step:]
        ids = np.unique(joined, return_inverse=True)[1]
        width += step
    owners = owners[: len(ids)]
    starts = np.arange(len(ids)) - begins[owners]
    whole = starts + size <= sizes[owners]  # the others run over into the next text
    return ids[whole], owners[whole], starts[whole]
