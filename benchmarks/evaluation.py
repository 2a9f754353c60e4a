"""Cost of an evaluation within a stage, against the full one and against a training step.

The built-in model learns 128 facts of an invented world. At several shares of known facts the set
is scored in full, as at a stage's boundary, and for the exact match alone, as within a stage; both
must agree on every exact match. CPU time of one process, so other programs count little.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from geomix.data.batch import collate, token_weights
from geomix.data.sources import triples
from geomix.data.tokenise import tokenise_all
from geomix.models.forward import plain_forward
from geomix.models.load import load_model, quiet_libraries
from geomix.models.loss import weighted_loss
from geomix.models.score import score

FACTS = 128
WIDTH = 128
"""Tokens in a packed row."""
AT = (0, 10, 20, 30, 60)
"""Steps of teaching, on all facts at once, before each row of the table."""
ROUNDS = 5


def milliseconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    work()
    return 1e3 * (time.process_time() - start)


def main() -> None:
    quiet_libraries()
    torch.manual_seed(0)
    loaded = load_model("builtin", torch.device("cpu"))
    facts = tokenise_all(loaded.tokenizer, triples.examples(FACTS, 0, "train"))
    batch = collate(facts, token_weights(facts, "example"), loaded.pad_id, WIDTH)
    optimiser = torch.optim.AdamW(loaded.model.parameters(), lr=3e-3, betas=(0.9, 0.95))
    forward = plain_forward(loaded.model)

    def step() -> None:
        optimiser.zero_grad()
        torch.autograd.backward(weighted_loss(forward(batch), batch))
        optimiser.step()

    print(
        f"{FACTS} facts, {torch.get_num_threads()} thread(s), CPU ms of the whole set: medians of "
        f"{ROUNDS} rounds"
    )
    print(f"{'step':>4} {'exact %':>8} {'train step':>11} {'in full':>8} {'exact match alone':>18}")
    done, taught = 0, 0.0
    for at in AT:
        while done < at:
            taught = milliseconds(step)
            done += 1
        rounds = [
            (
                milliseconds(lambda: score(loaded, facts, FACTS, WIDTH)),
                milliseconds(lambda: score(loaded, facts, FACTS, WIDTH, exact_only=True)),
            )
            for _ in range(ROUNDS)
        ]
        whole = score(loaded, facts, FACTS, WIDTH)
        brief = score(loaded, facts, FACTS, WIDTH, exact_only=True)
        assert [v.exact for v in whole] == [v.exact for v in brief]
        full, alone = (statistics.median(way) for way in zip(*rounds, strict=True))
        exact = 100 * statistics.fmean(v.exact for v in whole)
        print(f"{at:4} {exact:8.1f} {taught:11.0f} {full:8.0f} {alone:18.0f}")


if __name__ == "__main__":
    main()
