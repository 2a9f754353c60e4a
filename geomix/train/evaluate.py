"""Retention: exact match and loss of every set, with the verdict of every example kept."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from geomix.atomic import write_text
from geomix.data.batch import Reduction
from geomix.data.example import TokenisedExample
from geomix.errors import UserError
from geomix.model.load import LoadedModel
from geomix.model.score import exact_match, mean_loss, score


@dataclass(frozen=True, slots=True)
class SetResult:
    """One set's scores: `exact_match` 0–100, `loss` in nats, over `n` examples."""

    n: int
    exact_match: float
    loss: float


def evaluate(
    loaded: LoadedModel,
    sets: Mapping[str, Sequence[TokenisedExample]],
    reduction: Reduction,
    batch_size: int,
    file: Path,
    width: int | None = None,
) -> dict[str, SetResult]:
    """Score each set and write the verdicts to `file`, one JSON line an example.

    Args:
        loaded: the model; left in the mode in which it came.
        sets: examples by set name.
        reduction: of the reported loss, the one that training minimises.
        batch_size: examples in one pass.
        file: where the verdicts go.
        width: of packed rows, see `geomix.data.batch.collate`.

    Raises:
        UserError: the model has diverged; nothing is written.
    """
    results: dict[str, SetResult] = {}
    lines: list[str] = []
    for name, examples in sets.items():
        verdicts = score(loaded, examples, batch_size, width)
        if not all(math.isfinite(verdict.nll) for verdict in verdicts):
            raise UserError(f"evaluation of {name}: the loss is not finite; lower train.lr")
        lines += [json.dumps({"set": name, **asdict(v)}, ensure_ascii=False) for v in verdicts]
        results[name] = SetResult(
            len(verdicts), exact_match(verdicts), mean_loss(verdicts, reduction)
        )
    write_text(file, "\n".join(lines) + "\n")
    return results
