"""Labels of figures for names in the table of angles, and readers of its numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from geomix.config.names import role_of

Row = Mapping[str, Any]

WHOLE = "all"
"""Group of all parameters, in the table."""

UPDATE = "update"
"""Minus the displacement of the weights over a stage: a direction, not a gradient."""

NULLS = ("held-out", "shuffled")
"""Sets that serve as the null of a cosine; `shuffled-prose` is that of the mix `prose`."""

UNDETERMINED = "undetermined"


_SHORT = 7
"""Most characters of a set's name within a formula."""

_LONG = 32
"""Most characters of a name."""


def plain(name: str, most: int = _LONG) -> str:
    """Return a name as figures write it: never as a formula, on one line, shortened in its middle.

    Args:
        name: of an arm, a set, a stage or a part of a model, chosen by a user.
        most: characters.
    """
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    if len(shown) > most:  # long names often differ at their ends
        half = (most - 1) // 2
        shown = f"{shown[: most - 1 - half]}…{shown[len(shown) - half :]}"
    return shown.replace("$", r"\$")


def is_null(name: str) -> bool:
    """Return whether a set is a null: a reference for the cosines of others."""
    return name in NULLS or name.startswith(f"{NULLS[1]}-")


def set_symbol(name: str, most: int = _LONG) -> str:
    """Return a set's symbol: `D_A` with a subscript, another name unchanged.

    A mix's own name stands behind the symbol: `D_M-prose` is D_M prose.
    """
    base, label = parted(name)
    if re.fullmatch("D_[A-Z][0-9]*", base):
        symbol = rf"$D_{{\mathrm{{{base.removeprefix('D_')}}}}}$"
        return symbol + (f" {plain(label, max(most - 4, 2))}" if label else "")
    return plain(name, most)


def parted(name: str) -> tuple[str, str]:
    """Split the mix's name off a mixed-in set's, or its null's: `D_M`, `prose`."""
    if name == NULLS[0] or not (role_of(name) == "mixed" or is_null(name)):
        return name, ""
    base, _, label = name.partition("-")
    return base, label


def checkpoint_symbol(checkpoint: str) -> str:
    """Return a checkpoint's symbol: `θ_A+4` with a subscript."""
    base, plus, step = checkpoint.partition("+")
    if not re.fullmatch("θ_[A-Z0-9]+", base):
        return plain(checkpoint)
    return rf"$\theta_{{{base.removeprefix('θ_')}}}$" + (f"+{plain(step)}" if plus else "")


def direction_symbol(name: str) -> str:
    """Return the symbol of a set's gradient, or of the update of the weights."""
    if name == UPDATE:
        return r"$-\Delta\theta$"
    base, label = parted(name)
    index = {"held-out": "held", "shuffled": "shuf"}.get(base, base.removeprefix("D_"))
    if label:
        return rf"$g_{{\mathrm{{{index}}}}}$ {plain(label, _SHORT)}"
    if not re.fullmatch(rf"[A-Za-z0-9]{{1,{_SHORT}}}", index):
        return rf"$g$({plain(name, _SHORT)})"
    return rf"$g_{{\mathrm{{{index}}}}}$"


def stacked(title: str) -> str:
    """Return a title with each direction, and a mix's own name, on a line of its own."""
    return title.replace(", ", ",\n").replace("$ ", "$\n")


def short_group(group: str) -> str:
    """Return a group's label on an axis."""
    if group == WHOLE:
        return "whole"
    name = group.removeprefix("layer ").replace("embedding", "emb.").replace(" (tied)", "")
    return plain(name)


def ordered(names: set[str]) -> list[str]:
    """Order the sets: D_A, D_B, …, their held-out null, D_M and its null, the update."""

    def rank(name: str) -> tuple[int, str]:
        if is_null(name):
            return 1 if name == NULLS[0] else 3, name
        return 4 if name == UPDATE else 2 if role_of(name) == "mixed" else 0, name

    return sorted(names, key=rank)


def mixed_in(rows: Sequence[Row]) -> list[str]:
    """Return the mixed-in sets of a table of pairs, in order."""
    found = {str(row[key]) for row in rows for key in ("first", "second")}
    return ordered({name for name in found if role_of(name) == "mixed"})


def of_seeds(rows: Sequence[Row]) -> str:
    """Return a caption's sentence on n, from the rows, and on the kind of intervals."""
    counts = sorted({int(row["n"]) for row in rows if row.get("n")})
    if not counts or counts == [1]:
        return "Each number is of one seed (n = 1), without an interval."
    n = "–".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    return f"Numbers are means over seeds (n = {n}); intervals are Student's, of 95 %."


MARKS = (
    "Filled marks can be told, open and faint ones are undetermined; "
    "an interval as wide as the axis is not drawn."
)
"""Sentence of a caption on the markers of cosines."""


def why_blank(name: str, checkpoint: str) -> str:
    """Return in a few words, on two lines, why a direction's panel is empty at a checkpoint."""
    if name == UPDATE and checkpoint.partition("+")[0] == "θ_0":
        return f"no update\nat {checkpoint_symbol(checkpoint)}"
    return "not\nrecorded"


def is_undetermined(row: Row) -> bool:
    """Return whether the table marks the row's cosine as undetermined."""
    return bool(row.get("told", "") == UNDETERMINED)


def spread(row: Row) -> float:
    """Return half of a cosine's interval; nan if it spans all cosines and is uninformative."""
    half = half_width(row)
    return half if half < 1 else math.nan


def half_width(row: Row) -> float:
    """Return half of the 95 % interval of the row's number, in its unit; nan if there is none."""
    return float(row.get("half_width", math.nan))


def angle(cosine: float) -> float:
    """Convert a cosine to degrees; nan for nan. An interval's excess over [−1, 1] is clipped."""
    if math.isnan(cosine):
        return math.nan
    return math.degrees(math.acos(min(max(cosine, -1.0), 1.0)))


def unlike(rows: Sequence[Row], *keys: str) -> None:
    """Reject rows that would be drawn over one another.

    Raises:
        ValueError: two rows have the same value in all of the keys.
    """
    seen = set()
    for row in rows:
        values = tuple(row.get(key) for key in keys)
        if values in seen:
            raise ValueError(f"two rows for {values}: a figure takes one metric at a time")
        seen.add(values)
