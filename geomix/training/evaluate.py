"""Retention: exact match and loss of every set, with the verdict of every example kept."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geomix.data.batch import Reduction
from geomix.data.example import TokenisedExample
from geomix.measures.text import percent
from geomix.models.distributed import ALONE, Workers
from geomix.models.load import LoadedModel
from geomix.models.score import Verdict, exact_match, mean_loss, score
from geomix.util.errors import UserError
from geomix.util.files import write_text
from geomix.util.progress import phase


@dataclass(frozen=True, slots=True)
class SetResult:
    """One set's scores; all but `n` and `loss` are 0 to 100.

    Attributes:
        n: examples scored.
        exact_match: share of predictions that are the target, after stripping and lower-casing.
        loss: nats, mean in the reduction that training minimises.
        alias_match: share that is any accepted answer; `exact_match` where only targets are known.
        token_f1: mean overlap with the nearest accepted answer, in words (SQuAD).
        rouge_l: mean longest common subsequence with the target (ROUGE-L, F-measure).
        final_number: share that ends in the target's number, over the examples whose target holds
            `#### number` (GSM8K); None where none does.
        cut: share of answers that did not end within the target's length and a few tokens more, so
            that only their beginning was scored (`geomix.models.score.Verdict`).
        kl: mean KL divergence from the model that the stage began with, over answer positions of
            the set's probe, in nats; None where that is not measured.

    Where only the exact match was asked for, all but `n`, `exact_match`, `loss` and `kl` are None.
    """

    n: int
    exact_match: float
    loss: float
    alias_match: float | None
    token_f1: float | None
    rouge_l: float | None
    final_number: float | None
    cut: float | None = None
    kl: float | None = None


def summarise(verdicts: Sequence[Verdict], reduction: Reduction) -> SetResult:
    """One set's scores from the verdicts on its examples, of which there is at least one."""
    return SetResult(
        n=len(verdicts),
        exact_match=exact_match(verdicts),
        loss=mean_loss(verdicts, reduction),
        alias_match=percent(verdict.alias for verdict in verdicts),
        token_f1=percent(verdict.f1 for verdict in verdicts),
        rouge_l=percent(verdict.rouge_l for verdict in verdicts),
        final_number=percent(verdict.final_number for verdict in verdicts),
        cut=None if verdicts[0].f1 is None else percent(verdict.cut for verdict in verdicts),
    )


def evaluate(
    loaded: LoadedModel,
    sets: Mapping[str, Sequence[TokenisedExample]],
    reduction: Reduction,
    batch_size: int,
    file: Path,
    width: int | None = None,
    *,
    empty_right: bool = False,
    exact_only: bool = False,
    workers: Workers = ALONE,
) -> dict[str, SetResult]:
    """Score each set and write the verdicts to `file`, one JSON line an example.

    Args:
        loaded: the model; left in the mode in which it came.
        sets: examples by set name.
        reduction: of the reported loss, the one that training minimises.
        batch_size: examples in one pass.
        file: where the verdicts go.
        width: of packed rows, see `geomix.data.batch.collate`.
        empty_right: see `geomix.models.score.score`.
        exact_only: see there, too.
        workers: the processes that share the work; the first one writes.

    Raises:
        UserError: the model has diverged; nothing is written.
    """
    results: dict[str, SetResult] = {}
    lines: list[str] = []

    def work(part: Sequence[TokenisedExample]) -> list[dict[str, Any]]:
        scored = score(
            loaded, part, batch_size, width, empty_right=empty_right, exact_only=exact_only
        )
        return [asdict(verdict) for verdict in scored]

    for name, examples in sets.items():
        with phase(f"scoring {name}"), workers.unsharded(loaded.model):
            verdicts = [Verdict(**found) for found in workers.spread(examples, work)]
        if not all(math.isfinite(verdict.nll) for verdict in verdicts):
            raise UserError(f"evaluation of {name}: the loss is not finite; lower train.lr")
        lines += [json.dumps({"set": name, **asdict(v)}, ensure_ascii=False) for v in verdicts]
        results[name] = summarise(verdicts, reduction)
    if workers.main:
        write_text(file, "\n".join(lines) + "\n")
    return results
