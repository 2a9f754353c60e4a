"""The two sets to compare: the stage in which they meet, and the null of their cosine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geomix.analysis.checkpoints import NamedCheckpoint
from geomix.analysis.directions import HELD_OUT
from geomix.config.names import checkpoint_name, set_name, stage_of_set
from geomix.util.errors import UserError

_LEARNT_FIRST = set_name(0)
"""The set whose distribution the held-out examples are from."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sets whose gradients may conflict.

    Attributes:
        first: the set whose loss is in question.
        second: the set whose training may raise it.
    """

    first: str = _LEARNT_FIRST
    second: str = set_name(1)

    @classmethod
    def of(cls, names: Sequence[str]) -> Pair:
        """Return the pair of two names.

        Raises:
            UserError: they are not two.
        """
        if len(names) != 2 or len(set(names)) != 2 or not all(names):  # noqa: PLR2004
            given = ",".join(names)[:60]
            raise UserError(f"--sets {given}: give two different sets, such as --sets D_A,D_C")
        return cls(*names)

    @property
    def names(self) -> tuple[str, str]:
        """Names of both sets."""
        return self.first, self.second

    @property
    def stage(self) -> int:
        """Index of the stage by which both sets have occurred, at least 1: the second stage."""
        return max(1, *(stage_of_set(name) or 0 for name in self.names))

    @property
    def start(self) -> str:
        """Label of the checkpoint that this stage starts from: `θ_A`."""
        return checkpoint_name(self.stage)

    @property
    def learnt(self) -> str | None:
        """Label of the checkpoint after the first set's own stage; None if it has none."""
        stage = stage_of_set(self.first)
        return None if stage is None else checkpoint_name(stage + 1)

    @property
    def null(self) -> tuple[str, str] | None:
        """The directions whose cosine is the null of theirs; see `null_of`."""
        return null_of(self.first, self.second)

    @property
    def gradients(self) -> tuple[str, str]:
        """Symbols of both gradients in texts."""
        return gradient(self.first), gradient(self.second)


def preferred(at: NamedCheckpoint, pair: Pair) -> tuple[int, int, int]:
    """Return a checkpoint's sort key: the most decisive for a pair first."""
    within = at.stage >= pair.stage and not at.is_boundary
    return 0 if within else 1 if at.label == pair.start else 2, at.stage, at.step


def null_of(first: str, second: str) -> tuple[str, str] | None:
    """Return the directions with held-out examples in D_A's place; None if neither is D_A.

    Held-out examples are from D_A's distribution, so they are no null of another set's cosine.
    """
    if HELD_OUT in (first, second):
        return None
    if first == _LEARNT_FIRST:
        return HELD_OUT, second
    return (first, HELD_OUT) if second == _LEARNT_FIRST else None


def gradient(name: str) -> str:
    """Return the symbol of a set's gradient in a text: `g_A`, `g_M-prose`."""
    return f"g_{name.removeprefix('D_')}"
