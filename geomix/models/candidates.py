"""Likelihoods of a set's answers after other prompts of the set; each prompt is read once.

For a prompt of P tokens and C answers of T tokens, P + C·T tokens are run if the model can decode
from stored keys and values (`geomix.models.kv_cache.can_cache`), else C·(P + T).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from geomix.data.batch import Batch, chunks, collate
from geomix.data.example import IGNORED, TokenisedExample
from geomix.models.decode import places_left
from geomix.models.forward import plain_forward
from geomix.models.kv_cache import Past
from geomix.models.load import LoadedModel
from geomix.models.loss import token_nll
from geomix.models.score import answer_of
from geomix.util.progress import phase


class Candidates:
    """Prompts and answers of a set, in any combination: a `scores.base.Asked`.

    Args:
        loaded: the model, in evaluation mode.
        examples: the set.
        batch_size: rows of one pass.
    """

    def __init__(
        self, loaded: LoadedModel, examples: Sequence[TokenisedExample], batch_size: int
    ) -> None:
        self.loaded, self.examples, self._size = loaded, examples, batch_size
        self._known: dict[tuple[int, tuple[int, ...]], float] = {}

    def log_probabilities(
        self, prompts: Sequence[int], answers: Sequence[Sequence[int]]
    ) -> list[NDArray[np.float64]]:
        """Return log-likelihoods of some answers of the set after one prompt each, computed once.

        Args:
            prompts: indices of examples, whose prompts are read.
            answers: for each of these, indices of the examples whose answers are scored.

        Returns:
            For each prompt, ln p(answer | prompt) in nats, end tokens included; nan if the model
            lacks positions for the answer.
        """
        wanted = [[answer_of(self.examples[j]) for j in each] for each in answers]
        new = [
            (i, sorted({a for a in each if (i, a) not in self._known}, key=lambda a: (len(a), a)))
            for i, each in zip(prompts, wanted, strict=True)
        ]
        new = [(i, each) for i, each in new if each]
        with phase("prompts", len(new)) as advance, torch.no_grad():
            for part in chunks(new, self._size):
                after = self._cached if self.loaded.can_cache else self._plain
                after(part)
                advance(len(part))
        return [
            np.array([self._known[i, answer] for answer in each])
            for i, each in zip(prompts, wanted, strict=True)
        ]

    def _cached(self, part: Sequence[tuple[int, list[tuple[int, ...]]]]) -> None:
        """Read the prompts together, then score all answers of each from the cache."""
        prompts = [self._prompt(i) for i, _ in part]
        cache = DynamicCache()
        last = [(row, len(prompt) - 1) for row, prompt in enumerate(prompts)]
        read = self._batch(prompts, 0, last, [0] * len(last))
        first = plain_forward(self.loaded.model, cache=cache)(read).float().log_softmax(dim=-1)
        past = Past.of(cache)
        for row, (i, answers) in enumerate(part):
            fitting = self._fitting(i, answers)
            begun = first[row, [answer[0] for answer in fitting]].double().tolist()
            for some, start in zip(
                chunks(fitting, self._size), chunks(begun, self._size), strict=True
            ):
                rest = self._after(past, row, len(prompts[row]), some)
                for answer, one, more in zip(some, start, rest, strict=True):
                    self._known[i, answer] = one + more

    def _after(
        self, past: Past, row: int, length: int, answers: Sequence[tuple[int, ...]]
    ) -> list[float]:
        """Return ln p of all tokens of each answer but the first, given that one and a prompt."""
        places = [(r, c) for r, answer in enumerate(answers) for c in range(len(answer) - 1)]
        if not places:
            return [0.0] * len(answers)
        cache = past.up_to([row] * len(answers), [length] * len(answers))
        targets = [answers[r][c + 1] for r, c in places]
        batch = self._batch([answer[:-1] for answer in answers], length, places, targets)
        nll = token_nll(plain_forward(self.loaded.model, cache=cache)(batch), batch)
        return [-total for total in batch.per_example(nll).tolist()]

    def _batch(
        self,
        rows: Sequence[Sequence[int]],
        start: int,
        places: Sequence[tuple[int, int]],
        targets: Sequence[int],
    ) -> Batch:
        """Build rows of tokens, padded on the right, that start at position `start`."""
        width = max(1, *(len(row) for row in rows))
        ids = [[*row, *[self.loaded.pad_id] * (width - len(row))] for row in rows]
        where = torch.tensor(places)
        return Batch(
            ids=torch.tensor(ids),
            positions=torch.arange(start, start + width).expand(len(rows), width),
            rows=where[:, 0],
            columns=where[:, 1],
            targets=torch.tensor(targets),
            owners=where[:, 0],
            weights=torch.ones(len(places), dtype=torch.float64),
            examples=len(rows),
        ).to(self.loaded.device)

    def _plain(self, part: Sequence[tuple[int, list[tuple[int, ...]]]]) -> None:
        """Read each answer after its prompt, as a separate example."""
        pairs = [(i, answer) for i, answers in part for answer in self._fitting(i, answers)]
        for some in chunks(pairs, self._size):
            made = []
            for i, answer in some:
                prompt = self._prompt(i)
                labels = (IGNORED,) * len(prompt) + answer
                made.append(TokenisedExample((*prompt, *answer), labels, self.examples[i].text))
            batch = collate(made, [1.0] * len(made), self.loaded.pad_id).to(self.loaded.device)
            logits: Tensor = plain_forward(self.loaded.model)(batch)
            for pair, nll in zip(
                some, batch.per_example(token_nll(logits, batch)).tolist(), strict=True
            ):
                self._known[pair] = -nll

    def _fitting(self, i: int, answers: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Return the answers that fit the model's positions after a prompt; others are nan."""
        left = places_left(self.loaded, len(self._prompt(i)))
        self._known |= {(i, answer): float("nan") for answer in answers}
        return [answer for answer in answers if left is None or len(answer) <= left]

    def _prompt(self, i: int) -> tuple[int, ...]:
        example = self.examples[i]
        return example.ids[: example.target_start]
