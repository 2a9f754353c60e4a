"""Stopping rules of a stage: after its epochs, or earlier."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from geomix.config.training import StopConfig


@dataclass
class Stopping:
    """Monitor of a stage's losses and scores; its state goes into checkpoints.

    Attributes:
        rule: of the stage.
        below: steps whose loss was low enough; if they must be consecutive, the last ones.
        total: sum of the losses of the present epoch.
        steps: number of these losses.
        lowest: lowest mean training loss of an epoch.
        waited: epochs since then.
    """

    rule: StopConfig
    below: int = 0
    total: float = 0.0
    steps: int = 0
    lowest: float = field(default=float("inf"))
    waited: int = 0

    def state(self) -> dict[str, Any]:
        """Return the state without the rule; `Stopping(rule, **state)` resumes from it."""
        known = asdict(self)
        del known["rule"]
        if known["lowest"] == float("inf"):  # JSON has none
            del known["lowest"]
        return known

    def step(self, loss: float) -> bool:
        """Return whether the stage ends after this step.

        Args:
            loss: of its batch, in nats.
        """
        self.total += loss
        self.steps += 1
        if self.rule.loss_below is None:
            return False
        if loss < self.rule.loss_below:
            self.below += 1
        elif self.rule.consecutive:
            self.below = 0
        return self.below >= self.rule.times

    def epoch(self) -> bool:
        """Return whether the stage ends after this epoch for lack of progress."""
        mean = self.total / max(self.steps, 1)
        self.total, self.steps = 0.0, 0
        self.waited = 0 if mean < self.lowest else self.waited + 1
        self.lowest = min(mean, self.lowest)
        return self.rule.patience is not None and self.waited >= self.rule.patience

    def evaluation(self, exact_match: float) -> bool:
        """Return whether the stage ends because its own examples are learnt.

        Args:
            exact_match: on them, 0 to 100.
        """
        return self.rule.exact_match is not None and exact_match >= self.rule.exact_match
