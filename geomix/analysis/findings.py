"""Findings: the answers of an analysis, each with its uncertainty and its verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from geomix.analysis.answer import wrapped
from geomix.measures.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Drawn(NamedTuple):
    """Figure of an analysis.

    Attributes:
        ending: suffix of its files' names; "" is the main figure.
        figure: matplotlib's.
        rows: the tidy table behind it.
        caption: description in two to five sentences.
    """

    ending: str
    figure: Figure
    rows: Sequence[Mapping[str, Any]]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer of an analysis.

    Attributes:
        claim: in a few words.
        estimate: of the effect, in the direction of the claim.
        low: lower end of its interval; nan if there is none, as for a single seed.
        high: upper end.
        unit: `nats`, `points`, `1` for a cosine.
        n: number of seeds or pairs behind it.
        verdict: by `geomix.measures.verdict`.
        sentence: its meaning, in plain words.
    """

    claim: str
    estimate: float
    low: float
    high: float
    unit: str
    n: int
    verdict: Verdict
    sentence: str

    def lines(self) -> list[str]:
        """Return the claim, its estimate with the interval, the verdict, and the meaning."""
        unit = "" if self.unit in ("", "1") else f" {self.unit}"
        known = not (math.isnan(self.low) or math.isnan(self.high))
        interval = f" [{self.low:+.3g}, {self.high:+.3g}]" if known else ""
        head = f"{self.claim}: {self.estimate:+.3g}{unit}{interval}, n = {self.n}"
        return [*wrapped(f"{head}: {self.verdict}."), *wrapped(f"  {self.sentence}")]
