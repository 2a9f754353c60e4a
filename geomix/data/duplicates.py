"""What stands in a set more than once, and what that does to the scores."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geomix.data.example import Example
from geomix.measures.text import normalise, percent


@dataclass(frozen=True, slots=True)
class Duplicates:
    """How many examples of a set are not alone.

    Attributes:
        copies: those whose prompt and target an earlier one has too: they count twice.
        conflicting: those whose prompt another one has too, with a different target.
        alike: those whose prompt differs from another one's in capital letters or outer white
            space only.
        exact_match_at_most: the greatest exact match that a model can reach, 0 to 100: it gives
            one answer to one prompt. None of an empty set.
    """

    copies: int
    conflicting: int
    alike: int
    exact_match_at_most: float | None


@dataclass(frozen=True, slots=True)
class InCommon:
    """Prompts of a stage that an earlier stage has too, whatever their case and outer white space.

    Attributes:
        prompts: how many examples of the stage have such a prompt.
        other_targets: how many of these have a target that the earlier stage does not give.
    """

    prompts: int
    other_targets: int


def duplicates_in(examples: Sequence[Example]) -> Duplicates:
    """Count what a set has more than once. Targets are compared as exact match compares them."""
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
    """Count the prompts that earlier sets have too, by set; sets without any are left out."""
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
