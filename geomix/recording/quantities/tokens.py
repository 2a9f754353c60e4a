"""The model's prediction of every target token: its loss and its entropy."""

from __future__ import annotations

from geomix.models.divergence import log_probabilities
from geomix.recording.quantities.base import Arrays, ProbeBatch, Quantity
from geomix.snapshots.variables import Variable


class Tokens(Quantity):
    """Loss of every target token, and the entropy of the model's prediction at its position."""

    variables = (
        Variable("nll", ("position",), "float32", "nat", "negative log-likelihood of the token"),
        Variable("entropy", ("position",), "float32", "nat", "of the distribution in its place"),
    )

    def collect(self, seen: ProbeBatch) -> Arrays:
        """Return both for a batch's target tokens, `(P,)`."""
        logs = log_probabilities(seen.logits)
        nll = -logs.gather(1, seen.batch.targets[:, None])[:, 0]
        return {"nll": nll, "entropy": -(logs.exp() * logs).nan_to_num().sum(dim=-1)}
