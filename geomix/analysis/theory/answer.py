"""The answer of `geomix analyze theory`: the decided claims first, then the others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from geomix.analysis.answer import MOST_LINES, WIDTH, file_map, fitted, shortened, wrapped
from geomix.analysis.theory.scores import Score
from geomix.measures.verdict import Verdict
from geomix.runs.directory import RunDirectory

_ORDER: tuple[Verdict, ...] = ("supported", "refuted", "negligible", "undetermined")


def answer(
    result: Sequence[Score], stem: str, run: RunDirectory, files: Sequence[Path], full: bool
) -> list[str]:
    """Return a line per claim, decided ones first; then why others are open, and the files."""
    measured = sorted((s for s in result if s.n), key=lambda score: _ORDER.index(score.verdict))
    counts = Counter(score.verdict for score in measured)
    summary = ", ".join(f"{counts[name]} {name}" for name in _ORDER if counts[name])
    lines = ["Which claims of the theory do these runs support?"]
    lines += wrapped(f"{run.path.name}; {len(measured)} rows: {summary or 'none was measured'}.")
    files_lines = file_map(run, files, stem, {"analysis/": "all rows", "figures/": "the scorecard"})
    below = _open(result) + ([] if full else ["All rows: the same command with --full."])
    room = max(MOST_LINES - len(lines) - len(below) - len(files_lines) - 2, 1)
    lines += ["", *map(_line, measured[: room - (len(measured) > room)])]
    if len(measured) > room:
        lines.append(f"… and {len(measured) - room + 1} more rows")
    return fitted([*lines, *below], files_lines)


def _line(score: Score) -> str:
    """Format a claim: `supported     +0.18 [+0.1, +0.26]  control → mixed: Δ > 0`."""
    known = not (math.isnan(score.low) or math.isnan(score.high))
    interval = f" [{score.low:+.2g}, {score.high:+.2g}]" if known else ""
    number = f"{score.measured:+.2g}{interval}".replace("-", "−")
    return shortened(f"{score.verdict:12}  {number:20}  {score.claim}", WIDTH)


def _open(result: Sequence[Score]) -> list[str]:
    """Return the most frequent reasons for undetermined rows, and the missing analyses."""
    lines: list[str] = []
    reasons = Counter(s.why for s in result if s.n and s.verdict == "undetermined" and s.why)
    for why, count in reasons.most_common(2):
        lines += wrapped(f"Undetermined in {count} row{'s' * (count > 1)}: {why}.")
    missing = [score.source for score in result if not score.n and score.source != "study"]
    if missing:
        lines += wrapped(f"Not analysed yet: {', '.join(missing)} (geomix analyze NAME).")
    return lines
