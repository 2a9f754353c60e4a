"""Oddities of a run's data: they stop nothing, but a user should know them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from geomix.config.data import DataConfig
from geomix.config.run import RunConfig
from geomix.config.source_names import is_own
from geomix.data.duplicates import duplicates_in
from geomix.data.example import Example
from geomix.data.plan import StagePlan
from geomix.data.probes import HELD_OUT
from geomix.data.sources import SOURCES
from geomix.data.sources.select import left_over
from geomix.data.sources.user_files import SLOT


def remarks(
    config: RunConfig,
    plans: Sequence[StagePlan],
    probes: Mapping[str, Sequence[Example]],
    evaluated: Mapping[str, Sequence[Example]],
) -> list[str]:
    """Return one line for each oddity: where, how many, its effect on the numbers, what to do.

    Args:
        config: the run.
        plans: the examples of its stages.
        probes: its probe sets; none if nothing is recorded.
        evaluated: the additional evaluated sets.
    """
    found: list[str] = []
    for stage, plan in zip(config.stages, plans, strict=True):
        found += _in_set(f"{stage.data.source} ({plan.name})", stage.data, plan.own)
        found += _in_common(f"{stage.data.source} ({plan.name})", plan)
    for name, data in config.evaluate.sets.items():
        found += _in_set(f"{data.source} (evaluate.sets.{name})", data, evaluated.get(name, ()))
    first = config.stages[0].data
    if probes and HELD_OUT not in probes and _is_read(first) and first.split == "train":
        rows = len(plans[0].own)
        why = (
            "the rows that are held out all have prompts that are trained on, or there are none"
            if first.limit is None
            else f"limit: {left_over(rows)}"
        )
        found.append(
            f"{first.source} (held-out): {why}; without held-out examples the cosines of "
            "gradients have no null beside them"
        )
    return list(dict.fromkeys(found))


def _is_read(data: DataConfig) -> bool:
    return data.source not in SOURCES and is_own(data.source)


def _in_set(where: str, data: DataConfig, examples: Sequence[Example]) -> Iterator[str]:
    found, n = duplicates_in(examples), len(examples)
    if found.conflicting and found.exact_match_at_most is not None:
        yield (
            f"{where}: {found.conflicting} of {n} examples share a prompt with others that have a "
            f"different target; exact match cannot pass {found.exact_match_at_most:.1f} %, "
            "whatever is trained; keep one row a prompt, its further answers as columns.aliases"
        )
    if found.copies and not data.allow_repeat:
        yield (
            f"{where}: {found.copies} of {n} examples are copies of another one, prompt and "
            "target the same; they count twice in the loss and in every score; leave them out"
        )
    if found.alike:
        yield (
            f"{where}: {found.alike} of {n} prompts equal another one but for capital letters or "
            "outer spaces; if they ask the same, keep one of each"
        )
    slots = sum(SLOT in example.prompt for example in examples)
    if slots and _is_read(data):
        yield (
            f"{where}: {slots} of {n} prompts hold a literal {SLOT}, which is trained as it "
            "stands; if a subject belongs there, name its column with columns.subject"
        )


def _in_common(where: str, plan: StagePlan) -> Iterator[str]:
    for name, found in plan.in_common.items():
        others = f", {found.other_targets} of them with a different target"
        yield (
            f"{where}: {found.prompts} of {len(plan.own)} prompts are the same as in {name}"
            f"{others * bool(found.other_targets)}; what becomes of {name} is then no forgetting "
            "by other facts alone; leave them out of one stage"
        )
