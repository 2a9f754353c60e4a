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
    """A figure of an analysis.

    Attributes:
        ending: of its files' names; "" is the main figure.
        figure: matplotlib's.
        rows: the tidy table behind it.
        caption: what is seen, in two to five sentences.
    """

    ending: str
    figure: Figure
    rows: Sequence[Mapping[str, Any]]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer of an analysis.

    Attributes:
        claim: what is claimed, in a few words.
        estimate: of the effect, in the direction of the claim.
        low: lower end of its interval; nan where there is none, as of a single seed.
        high: upper end.
        unit: `nats`, `points`, `1` for a cosine.
        n: seeds or pairs that it rests on.
        verdict: by `geomix.measures.verdict`.
        sentence: what it means, in plain words.
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
        """The claim, its estimate with the interval, the verdict, and what it means."""
        unit = "" if self.unit in ("", "1") else f" {self.unit}"
        known = not (math.isnan(self.low) or math.isnan(self.high))
        interval = f" [{self.low:+.3g}, {self.high:+.3g}]" if known else ""
        head = f"{self.claim}: {self.estimate:+.3g}{unit}{interval}, n = {self.n}"
        return [*wrapped(f"{head}: {self.verdict}."), *wrapped(f"  {self.sentence}")]
