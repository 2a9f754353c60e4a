"""The answer of `geomix analyze forgetting-path`: where a set's loss changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geomix.analysis.answer import file_map, fitted, seeds_of, wrapped
from geomix.analysis.forgetting_path.notes import location, verdict
from geomix.analysis.forgetting_path.split import ForgettingPath
from geomix.runs.directory import RunDirectory

_MOST_ARMS = 2
"""Most arms in the answer; `--full` and the files have all."""


def answer(
    result: ForgettingPath,
    name: str,
    stem: str,
    run: RunDirectory,
    files: Sequence[Path],
    full: bool,
) -> list[str]:
    """Return the question, the change and its location, the verdict, and the files.

    Args:
        result: the split.
        name: the probe set.
        stem: common start of the files' names.
        run: whose folder holds them.
        files: all that were written.
        full: whether all tables follow.
    """
    seeds = [seed for arm in result.arms for seed in arm.seeds]
    lines = [f"Where did the loss of {name} change in {result.title}?"]
    lines += wrapped(f"{Path(result.arms[0].runs[0]).name}, {seeds_of(seeds)}, by {result.by}")[:2]
    if len(set(seeds)) == 1:
        lines += ["No interval: one seed; nothing is claimed beyond this run."]
    lines.append("")
    for arm in result.arms[:_MOST_ARMS]:
        lines += wrapped(verdict(arm, name))
        lines += wrapped(location(result, arm, name) or f"{arm.arm}: the loss did not change.")
    if (left := len(result.arms) - _MOST_ARMS) > 0:
        lines.append(f"… and {left} more arm{'s' * (left > 1)}, with --full")
    lines += wrapped(
        f"A rise of the loss is forgetting of {name}. Shares are of the whole change: one below 0 "
        "is a place that worked against it, and others may then be over 100 %."
    )
    lines += [] if full else ["All tables: the same command with --full."]
    by = f"_by_{result.by}" * (result.by != "layer")
    meanings = {
        f"analysis/{by}": "all numbers and notes",
        f"figures/_{name}": "change by layer and block",
    }
    return fitted(lines, file_map(run, files, stem, meanings))
