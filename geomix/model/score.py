"""Exact match and loss of every example: teacher forcing, then a decode of the failures only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from geomix.data.batch import Reduction, chunks, collate
from geomix.data.example import TokenisedExample
from geomix.model.gradient import plain_forward
from geomix.model.load import LoadedModel
from geomix.model.loss import correct_tokens, token_nll

SLACK = 8
"""A failure is decoded this many tokens beyond the target's length: a right answer may be
tokenised another way, a wrong one needs no end."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one example.

    Attributes:
        prompt: the example's prompt.
        target: the example's target.
        prediction: what greedy decoding gives.
        exact: whether the two agree after stripping and lower-casing.
        nll: summed negative log-likelihood of the target tokens, in nats.
        tokens: how many target tokens, the end token included.
    """

    prompt: str
    target: str
    prediction: str
    exact: bool
    nll: float
    tokens: int


def normalise(text: str) -> str:
    """The paper's normalisation before the comparison."""
    return text.strip().lower()


def score(
    loaded: LoadedModel, examples: Sequence[TokenisedExample], batch_size: int
) -> list[Verdict]:
    """Score each example as greedy decoding would.

    If every target token and the end token are the argmax given the true prefix, greedy decoding
    yields exactly the target: one forward pass decides. The rest is decoded, since another
    tokenisation or case may still match.

    Args:
        loaded: the model; its mode is restored.
        examples: what to score, in any order of length.
        batch_size: examples in one pass.
    """
    model, was_training = loaded.model, loaded.model.training
    model.eval()
    try:
        forced = _teacher_forced(loaded, examples, batch_size)
        failed = [
            example for example, (right, _) in zip(examples, forced, strict=True) if not right
        ]
        decoded = iter(_decode(loaded, failed, batch_size))
    finally:
        model.train(was_training)
    verdicts = []
    for example, (right, nll) in zip(examples, forced, strict=True):
        text = example.text
        prediction = text.target if right else next(decoded)
        exact = normalise(prediction) == normalise(text.target)
        verdicts.append(
            Verdict(text.prompt, text.target, prediction, exact, nll, example.target_tokens)
        )
    return verdicts


def _teacher_forced(
    loaded: LoadedModel, examples: Sequence[TokenisedExample], batch_size: int
) -> list[tuple[bool, float]]:
    """Whether all target tokens are the argmax, and their summed loss in nats."""
    forward = plain_forward(loaded.model)
    results: list[tuple[bool, float]] = []
    with torch.no_grad():
        for part in chunks(examples, batch_size):
            batch = collate(part, [1.0] * len(part), loaded.pad_id).to(loaded.device)
            logits = forward(batch.ids, batch.mask)
            right = correct_tokens(logits, batch.labels).all(dim=1).tolist()
            nll = token_nll(logits, batch.labels).double().sum(dim=1).tolist()
            results.extend(zip(right, nll, strict=True))
    return results


def _decode(
    loaded: LoadedModel, examples: Sequence[TokenisedExample], batch_size: int
) -> list[str]:
    """Greedy continuations of the prompts, up to the end token."""
    # Similar lengths together: the longest target of a batch sets its number of steps.
    order = sorted(range(len(examples)), key=lambda i: (examples[i].target_tokens, i))
    texts = [""] * len(examples)
    for part in chunks(order, batch_size):
        prompts = [list(examples[i].ids[: examples[i].target_start]) for i in part]
        width = max(len(prompt) for prompt in prompts)
        # Padded on the left, so that every prompt ends where generation begins.
        ids = [[loaded.pad_id] * (width - len(p)) + p for p in prompts]
        mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
        steps = max(examples[i].target_tokens for i in part) + SLACK
        most = getattr(loaded.model.config, "max_position_embeddings", None)
        steps = steps if most is None else max(1, min(steps, most - width))
        with torch.no_grad():
            generated = loaded.model.generate(  # type: ignore[operator]
                input_ids=torch.tensor(ids, device=loaded.device),
                attention_mask=torch.tensor(mask, device=loaded.device),
                max_new_tokens=steps,
                do_sample=False,
                eos_token_id=sorted({example.labels[-1] for example in examples}),
                pad_token_id=loaded.pad_id,
            )
        for i, row in zip(part, generated[:, width:].tolist(), strict=True):
            texts[i] = loaded.tokenizer.decode(row, skip_special_tokens=True)
    return texts


def exact_match(verdicts: Sequence[Verdict]) -> float:
    """Share of exact matches, 0–100, as the paper reports it."""
    return 100.0 * sum(verdict.exact for verdict in verdicts) / len(verdicts)


def mean_loss(verdicts: Sequence[Verdict], reduction: Reduction) -> float:
    """Mean loss in nats under the reduction."""
    if reduction == "token":
        return sum(v.nll for v in verdicts) / sum(v.tokens for v in verdicts)
    return sum(v.nll / v.tokens for v in verdicts) / len(verdicts)
