"""The two sets that are compared: where they meet, and what their cosine is read against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geomix.analysis.checkpoints import TrainingMoment
from geomix.analysis.directions import HELD_OUT
from geomix.config.names import checkpoint_name, set_name, stage_of_set
from geomix.util.errors import UserError

_LEARNT_FIRST = set_name(0)
"""The set whose distribution the held-out examples are of."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The sets whose gradients are asked to conflict or not.

    Attributes:
        first: whose loss is in question.
        second: whose training may raise it.
    """

    first: str = _LEARNT_FIRST
    second: str = set_name(1)

    @classmethod
    def of(cls, names: Sequence[str]) -> Pair:
        """The pair of two names.

        Raises:
            UserError: they are not two.
        """
        if len(names) != 2 or len(set(names)) != 2 or not all(names):  # noqa: PLR2004
            given = ",".join(names)[:60]
            raise UserError(f"--sets {given}: give two different sets, such as --sets D_A,D_C")
        return cls(*names)

    @property
    def names(self) -> tuple[str, str]:
        """Both."""
        return self.first, self.second

    @property
    def stage(self) -> int:
        """Index of the stage in which both have been met; the second one at least."""
        return max(1, *(stage_of_set(name) or 0 for name in self.names))

    @property
    def start(self) -> str:
        """Label of the checkpoint with which that stage begins: `θ_A`."""
        return checkpoint_name(self.stage)

    @property
    def learnt(self) -> str | None:
        """Label of the checkpoint after the first set's own stage; None where it has none."""
        stage = stage_of_set(self.first)
        return None if stage is None else checkpoint_name(stage + 1)

    @property
    def null(self) -> tuple[str, str] | None:
        """What their cosine is read against; see `null_of`."""
        return null_of(self.first, self.second)

    @property
    def gradients(self) -> tuple[str, str]:
        """How texts write both gradients."""
        return gradient(self.first), gradient(self.second)


def preferred(moment: TrainingMoment, pair: Pair) -> tuple[int, int, int]:
    """Sort key of the moments that answer for a pair, the best first."""
    within = moment.stage >= pair.stage and not moment.is_boundary
    return 0 if within else 1 if moment.label == pair.start else 2, moment.stage, moment.step


def null_of(first: str, second: str) -> tuple[str, str] | None:
    """The directions with held-out examples in the place of D_A's; None where D_A is not of them.

    Held-out examples are of D_A's distribution, so no other set's cosine has them for its null.
    """
    if HELD_OUT in (first, second):
        return None
    if first == _LEARNT_FIRST:
        return HELD_OUT, second
    return (first, HELD_OUT) if second == _LEARNT_FIRST else None


def gradient(name: str) -> str:
    """A set's gradient in a text: `g_A`, `g_M-prose`."""
    return f"g_{name.removeprefix('D_')}"
