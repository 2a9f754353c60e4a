"""The analyses as functions, and as their commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from geomix.analysis import driver
from geomix.analysis.forgetting_path import Asked as AskedPath
from geomix.analysis.forgetting_path import ForgettingPathAnalysis
from geomix.analysis.forgetting_path.split import ForgettingPath
from geomix.analysis.grad_angle import GradAngleAnalysis
from geomix.analysis.grad_angle.asked import Asked
from geomix.analysis.grad_angle.examples import Tables
from geomix.analysis.grad_angle.result import GradAngle
from geomix.runs.directory import RunDirectory


def grad_angle(
    runs: Sequence[RunDirectory],
    asked: Asked | None = None,
    log: Callable[[str], object] = lambda _: None,
) -> tuple[GradAngle, dict[str, Tables], list[Path]]:
    """The angles, the tables of single examples by arm, and the files."""
    done = driver.run(GradAngleAnalysis(), runs, asked or Asked(), log)
    return *done.result, done.files


def unprint(patch: pytest.MonkeyPatch) -> None:
    """Have figures made but not laid out, and their files empty: `tests/figures` has them."""

    def touch(_: Figure, file: Path, **__: object) -> None:
        file.touch()

    patch.setattr(Figure, "savefig", touch)
    patch.setattr(Figure, "draw_without_rendering", lambda _: None)


def command(runs: Sequence[RunDirectory], asked: Asked, as_json: bool, full: bool = False) -> None:
    driver.command(GradAngleAnalysis(), runs, asked, as_json=as_json, full=full)


def forgetting_path(
    runs: Sequence[RunDirectory], stage: int | None = None, name: str = "D_A", by: Any = "layer"
) -> tuple[ForgettingPath, list[Path]]:
    """The split and the files; `stage` counts from 0."""
    number = None if stage is None else str(stage + 1)
    done = driver.run(ForgettingPathAnalysis(), runs, AskedPath(number, name, by))
    return done.result, done.files
