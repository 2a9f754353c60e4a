"""Exact match and loss of every example: teacher forcing, then a decode of the failures only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from geomix.data.batch import Reduction, chunks, collate
from geomix.data.example import TokenisedExample
from geomix.metrics import exact, matches_any, rouge_l, same_final_number, token_f1
from geomix.model.decode import greedy
from geomix.model.gradient import plain_forward
from geomix.model.load import LoadedModel
from geomix.model.loss import all_correct, token_nll

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
        exact: whether the two agree after stripping and lower-casing; never where one is empty.
        alias: whether the prediction agrees so with any accepted answer.
        f1: words in common with the nearest accepted answer, 0 to 1.
        rouge_l: longest common subsequence with the target, 0 to 1.
        final_number: whether both end in the same number; None where the target holds no
            `#### number`.
        nll: summed negative log-likelihood of the target tokens, in nats.
        tokens: how many target tokens, the end token included.
    """

    prompt: str
    target: str
    prediction: str
    exact: bool
    alias: bool
    f1: float
    rouge_l: float
    final_number: bool | None
    nll: float
    tokens: int


def score(
    loaded: LoadedModel,
    examples: Sequence[TokenisedExample],
    batch_size: int,
    width: int | None = None,
    *,
    empty_right: bool = False,
) -> list[Verdict]:
    """Score each example as greedy decoding would.

    If every target token and the end token are the argmax given the true prefix, greedy decoding
    yields exactly the target: one forward pass decides. The rest is decoded, since another
    tokenisation or case may still match; so is a target that holds an end token before its end,
    where greedy decoding would stop.

    Args:
        loaded: the model; its mode is restored.
        examples: what to score, in any order of length.
        batch_size: examples in one pass.
        width: of packed rows, see `geomix.data.batch.collate`.
        empty_right: whether any answer to a question with an empty target is right, as in the
            paper's published code; else none is.
    """
    model, was_training = loaded.model, loaded.model.training
    model.eval()
    try:
        forced = [
            (right and not stops_early(example), nll)
            for example, (right, nll) in zip(
                examples, _teacher_forced(loaded, examples, batch_size, width), strict=True
            )
        ]
        failed = [
            example for example, (right, _) in zip(examples, forced, strict=True) if not right
        ]
        decoded = iter(
            greedy(
                loaded,
                [example.ids[: example.target_start] for example in failed],
                [_budget(example) for example in failed],
                {example.labels[-1] for example in failed},
                batch_size,
            )
        )
    finally:
        model.train(was_training)
    return [
        judge(
            example,
            example.text.target if right else next(decoded),
            nll,
            given=empty_right and not example.text.target,
        )
        for example, (right, nll) in zip(examples, forced, strict=True)
    ]


def judge(
    example: TokenisedExample, prediction: str, nll: float, *, given: bool = False
) -> Verdict:
    """The verdict on a prediction.

    Args:
        example: what was asked.
        prediction: what was answered.
        nll: summed loss of the target tokens, in nats.
        given: whether it counts as an exact match in any case.
    """
    prompt, target = example.text.prompt, example.text.target
    answers = tuple(dict.fromkeys((target, *example.text.aliases)))
    return Verdict(
        prompt=prompt,
        target=target,
        prediction=prediction,
        exact=given or exact(prediction, target),
        alias=given or matches_any(prediction, answers),
        f1=token_f1(prediction, answers),
        rouge_l=rouge_l(prediction, target),
        final_number=same_final_number(prediction, target),
        nll=nll,
        tokens=example.target_tokens,
    )


def _budget(example: TokenisedExample) -> int:
    """Tokens that a failure is decoded for; a derivation may be longer and right all the same."""
    derived = same_final_number("", example.text.target) is not None
    return (1 + derived) * example.target_tokens + SLACK


def stops_early(example: TokenisedExample) -> bool:
    """Whether the last answer holds its end token before its end, where decoding would stop."""
    return example.labels[-1] in example.labels[example.target_start : -1]


def _teacher_forced(
    loaded: LoadedModel,
    examples: Sequence[TokenisedExample],
    batch_size: int,
    width: int | None,
) -> list[tuple[bool, float]]:
    """Whether all target tokens are the argmax, and their summed loss in nats."""
    forward = plain_forward(loaded.model)
    results: list[tuple[bool, float]] = []
    with torch.no_grad():
        for part in chunks(examples, batch_size):
            batch = collate(part, [1.0] * len(part), loaded.pad_id, width).to(loaded.device)
            logits = forward(batch)
            right = all_correct(logits, batch).tolist()
            nll = batch.per_example(token_nll(logits, batch)).tolist()
            results.extend(zip(right, nll, strict=True))
    return results


def exact_match(verdicts: Sequence[Verdict]) -> float:
    """Share of exact matches, 0–100, as the paper reports it."""
    return 100.0 * sum(verdict.exact for verdict in verdicts) / len(verdicts)


def mean_loss(verdicts: Sequence[Verdict], reduction: Reduction) -> float:
    """Mean loss in nats under the reduction."""
    if reduction == "token":
        return sum(v.nll for v in verdicts) / sum(v.tokens for v in verdicts)
    return sum(v.nll / v.tokens for v in verdicts) / len(verdicts)
