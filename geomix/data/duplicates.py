"""Repeated examples and prompts in a set, and their effect on the scores."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geomix.data.example import Example
from geomix.measures.text import normalise, percent


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Counts of repeated examples and prompts in a set.

    Attributes:
        copies: examples whose prompt and target repeat an earlier one's: they count twice.
        conflicting: examples that share a prompt with another one but not its target.
        alike: examples whose prompt differs from another one's only in capital letters or outer
            white space.
        exact_match_at_most: the highest exact match that a model can reach, 0 to 100, since it
            gives one answer to one prompt. None for an empty set.
    """

    copies: int
    conflicting: int
    alike: int
    exact_match_at_most: float | None


@dataclass(frozen=True, slots=True)
class InCommon:
    """Prompts of a stage that an earlier stage also has, ignoring case and outer white space.

    Attributes:
        prompts: number of examples of the stage with such a prompt.
        other_targets: number of these whose target the earlier stage does not give.
    """

    prompts: int
    other_targets: int


def duplicates_in(examples: Sequence[Example]) -> Duplicates:
    """Count repeated examples and prompts. Targets are compared as exact match compares them."""
    targets: defaultdict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    wordings: defaultdict[tuple[Any, ...], set[tuple[Any, ...]]] = defaultdict(set)
    for example in examples:
        targets[_prompt(example)][normalise(example.target)] += 1
        wordings[_question(example)].add(_prompt(example))
    several = [found for found in targets.values() if len(found) > 1]
    best = sum(max(found.values()) for found in targets.values())
    unlike = [wording for found in wordings.values() if len(found) > 1 for wording in found]
    return Duplicates(
        copies=sum(found.total() - len(found) for found in targets.values()),
        conflicting=sum(found.total() for found in several),
        alike=sum(targets[wording].total() for wording in unlike),
        exact_match_at_most=percent([1.0] * best + [0.0] * (len(examples) - best)),
    )


def prompts_in_common(
    examples: Sequence[Example], earlier: Mapping[str, Iterable[Example]]
) -> dict[str, InCommon]:
    """Count the prompts shared with each earlier set; sets without any are left out."""
    found = {}
    for name, others in earlier.items():
        answers: defaultdict[tuple[Any, ...], set[str]] = defaultdict(set)
        for other in others:
            answers[_question(other)].add(normalise(other.target))
        shared = [example for example in examples if _question(example) in answers]
        if shared:
            other_targets = [e for e in shared if normalise(e.target) not in answers[_question(e)]]
            found[name] = InCommon(len(shared), len(other_targets))
    return found


def _prompt(example: Example) -> tuple[Any, ...]:
    return (example.earlier, example.prompt)


def _question(example: Example) -> tuple[Any, ...]:
    return (example.earlier, normalise(example.prompt))
