"""Scores of a set in an evaluation, such as exact match or loss. One file and a line here.

A score (`geomix.measures.scores.base.Score`) is one number a set. It may be made

    of each example     from what the evaluation's own pass gave: texts, the loss of every token
    of the whole set    from the lines of all its examples
    by a further pass   over prompts and answers of its choosing, whose cost it states

Those of `DEFAULT` are part of every evaluation; others are measured where `evaluate.scores` names
them. Whoever shows a score (tables, figures, `geomix show`, CSV, DataFrames) asks it for its
heading, its unit and its format. Another package adds one through an entry point of the group
`geomix.scores`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from geomix.util.registry import Registry

if TYPE_CHECKING:
    from geomix.measures.scores.base import Score

_HERE = "geomix.measures.scores"

SCORES: Registry[type[Score]] = Registry(
    "score",
    "geomix.scores",
    {
        "exact_match": f"{_HERE}.answers:ExactMatch",
        "loss": f"{_HERE}.answers:Loss",
        "alias_match": f"{_HERE}.answers:AliasMatch",
        "token_f1": f"{_HERE}.answers:TokenF1",
        "rouge_l": f"{_HERE}.answers:RougeL",
        "final_number": f"{_HERE}.answers:FinalNumber",
        "cut": f"{_HERE}.answers:Cut",
        "kl": f"{_HERE}.answers:Divergence",
        "bits": f"{_HERE}.bits:Bits",
        "bits_hedged": f"{_HERE}.bits:Hedged",
        "bits_end": f"{_HERE}.bits:EndBits",
        "recognition": f"{_HERE}.recognition:Recognition",
        "recognition_top5": f"{_HERE}.recognition:Top5",
        "recognition_auc": f"{_HERE}.recognition:Auc",
        "recognition_chance": f"{_HERE}.recognition:Chance",
        "choice_bits": f"{_HERE}.recognition:ChoiceBits",
        "association": f"{_HERE}.association:Association",
        "association_capped": f"{_HERE}.association:Capped",
        "association_geometric": f"{_HERE}.association:Geometric",
        "shared_bits": f"{_HERE}.association:Shared",
        "extraction": f"{_HERE}.extraction:Extraction",
        "extraction_tokens": f"{_HERE}.extraction:HalfTokens",
        "extraction_half": f"{_HERE}.extraction:Half",
        "extractable": f"{_HERE}.extraction:Extractable",
    },
)
"""All scores by name, which is their column in files, in the order in which they are listed."""

DEFAULT = (
    *("exact_match", "loss", "alias_match", "token_f1", "rouge_l", "final_number", "cut", "kl"),
)
"""The scores of every evaluation, in the order of its line."""

ALWAYS = ("exact_match", "loss")
"""Scores with a number in every evaluation, also within a stage."""


def on_request() -> list[str]:
    """Return the names that `evaluate.scores` may give."""
    return [name for name in SCORES if name not in DEFAULT]


def chosen(names: Iterable[str]) -> list[Score]:
    """Return the default scores, then the named ones, each with those that it brings.

    A score that is part of another comes with all of it.
    """
    found: dict[str, Score] = {}
    for name in (*DEFAULT, *names):
        whole = SCORES[name].part_of or name
        found |= {one: SCORES[one]() for one in (whole, *SCORES[whole].brings)}
    return list(found.values())


def scores_in(line: Mapping[str, Any], most: int | None = None) -> dict[str, str]:
    """Return a line's scores beyond the default ones, as texts: `{"bits": "18.0"}`.

    Args:
        line: of `metrics.jsonl`.
        most: number of requested scores, the first ones; None takes all.
    """
    known = (name for name in line if name in SCORES and name not in DEFAULT)
    asked = {name: one() for name in known if not (one := SCORES[name]).part_of}
    some = list(asked.items())[:most]
    return {name: one.text(line[name]) for name, one in some if line[name] is not None}


def score_named(name: str) -> Score:
    """Return the score of that name.

    Raises:
        UserError: there is none, or the package that offers it cannot be imported.
    """
    return SCORES[name]()
