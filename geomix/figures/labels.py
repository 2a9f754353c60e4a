"""How figures write what the table of angles names, and read what it says of a number."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

WHOLE = "all"
"""The group of all parameters, in the table."""

UPDATE = "update"
"""Minus the displacement of the weights over a stage: a direction, and no gradient."""

NULLS = ("held-out", "shuffled")
"""Sets that a cosine is read against."""

UNDETERMINED = "undetermined"


_SHORT = 7
"""Most characters of a set's name within a formula."""

_LONG = 32
"""Most characters of a name."""


def plain(name: str, most: int = _LONG) -> str:
    """A name as a figure writes it: never read as a formula, on one line, cut in its middle.

    Args:
        name: of an arm, a set, a stage or a part of a model, as somebody chose it.
        most: characters.
    """
    seen = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    if len(seen) > most:  # what tells long names apart is often at their ends
        half = (most - 1) // 2
        seen = f"{seen[: most - 1 - half]}…{seen[len(seen) - half :]}"
    return seen.replace("$", r"\$")


def set_symbol(name: str, most: int = _LONG) -> str:
    """A set as every figure writes it: `D_A` with a subscript, another name as it is."""
    if re.fullmatch("D_[A-Z][0-9]*", name):
        return rf"$D_{{\mathrm{{{name.removeprefix('D_')}}}}}$"
    return plain(name, most)


def moment_symbol(moment: str) -> str:
    """`θ_A+4` with a subscript."""
    base, plus, step = moment.partition("+")
    if not re.fullmatch("θ_[A-Z0-9]+", base):
        return plain(moment)
    return rf"$\theta_{{{base.removeprefix('θ_')}}}$" + (f"+{plain(step)}" if plus else "")


def direction_symbol(name: str) -> str:
    """A set's gradient, or the update of the weights."""
    if name == UPDATE:
        return r"$-\Delta\theta$"
    index = {"held-out": "held", "shuffled": "shuf"}.get(name, name.removeprefix("D_"))
    if not re.fullmatch(rf"[A-Za-z0-9]{{1,{_SHORT}}}", index):
        return rf"$g$({plain(name, _SHORT)})"
    return rf"$g_{{\mathrm{{{index}}}}}$"


def short_group(group: str) -> str:
    """A group as an axis names it."""
    if group == WHOLE:
        return "whole"
    name = group.removeprefix("layer ").replace("embedding", "emb.").replace(" (tied)", "")
    return plain(name)


def ordered(names: set[str]) -> list[str]:
    """D_A, D_B, …, the held-out null that they are read against, D_M and its null, the update."""
    last = {"held-out": 1, "D_M": 2, "shuffled": 3, UPDATE: 4}
    return sorted(names, key=lambda name: (last.get(name, 0), name))


def of_seeds(rows: Sequence[Row]) -> str:
    """A caption's sentence on n, which the rows have, and what the intervals are."""
    counts = sorted({int(row["n"]) for row in rows if row.get("n")})
    if not counts or counts == [1]:
        return "Each number is of one seed (n = 1), without an interval."
    n = "–".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    return f"Numbers are means over seeds (n = {n}); intervals are Student's, of 95 %."


MARKS = (
    "Filled marks can be told, open and faint ones are undetermined; "
    "an interval as wide as the axis is not drawn."
)
"""A caption's sentence on the marks of cosines."""


def why_blank(name: str, moment: str) -> str:
    """In a few words, on two lines, why a panel of a direction has nothing at a moment."""
    if name == UPDATE and moment.partition("+")[0] == "θ_0":
        return f"no update\nat {moment_symbol(moment)}"
    return "not\nrecorded"


def is_undetermined(row: Row) -> bool:
    """Whether the table says that the row's cosine cannot be told."""
    return bool(row.get("told", "") == UNDETERMINED)


def spread(row: Row) -> float:
    """Half of a cosine's interval; nan too where it is as wide as all cosines, and says nothing."""
    half = half_width(row)
    return half if half < 1 else math.nan


def half_width(row: Row) -> float:
    """Half of the 95 % interval of the row's number, in its unit; nan where there is none."""
    return float(row.get("half_width", math.nan))


def angle(cosine: float) -> float:
    """Degrees; nan for nan. What an interval takes beyond [−1, 1] is cut."""
    if math.isnan(cosine):
        return math.nan
    return math.degrees(math.acos(min(max(cosine, -1.0), 1.0)))


def unlike(rows: Sequence[Row], *keys: str) -> None:
    """Refuse rows that would be drawn over one another.

    Raises:
        ValueError: two rows have one value in all of the keys.
    """
    seen = set()
    for row in rows:
        place = tuple(row.get(key) for key in keys)
        if place in seen:
            raise ValueError(f"two rows for {place}: a figure takes one metric at a time")
        seen.add(place)
