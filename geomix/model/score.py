"""Exact match and loss of every example: teacher forcing, then a decode of what it leaves open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from geomix.data.batch import Reduction, chunks, collate
from geomix.data.example import TokenisedExample
from geomix.metrics import (
    exact,
    matches_any,
    may_become,
    rouge_l,
    same_final_number,
    token_f1,
)
from geomix.model.decode import continuations, places_left, text_of
from geomix.model.gradient import plain_forward
from geomix.model.load import LoadedModel
from geomix.model.loss import token_nll

SLACK = 8
"""A failure is decoded this many tokens beyond the target's length: a right answer may be
tokenised another way, a wrong one needs no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one example.

    Attributes:
        prompt: the example's prompt.
        target: the example's target.
        prediction: what greedy decoding gives; None where only the exact match was asked for and
            the answer was decoded no further than to where it can no longer be one.
        exact: whether the two agree after stripping and lower-casing; never where one is empty.
        alias: whether the prediction agrees so with any accepted answer.
        f1: words in common with the nearest accepted answer, 0 to 1.
        rouge_l: longest common subsequence with the target, 0 to 1.
        final_number: whether both end in the same number; None where the target holds no
            `#### number`.
        nll: summed negative log-likelihood of the target tokens, in nats.
        tokens: how many target tokens, the end token included.

    Where only the exact match was asked for, alias, f1, rouge_l and final_number are None.
    """

    prompt: str
    target: str
    prediction: str | None
    exact: bool
    alias: bool | None = None
    f1: float | None = None
    rouge_l: float | None = None
    final_number: bool | None = None
    nll: float
    tokens: int


def score(
    loaded: LoadedModel,
    examples: Sequence[TokenisedExample],
    batch_size: int,
    width: int | None = None,
    *,
    empty_right: bool = False,
    exact_only: bool = False,
) -> list[Verdict]:
    """Score each example as greedy decoding would.

    Greedy decoding agrees with the answer up to the first token that is not the argmax given the
    true prefix, and says the argmax there: one forward pass tells. Where every token is the argmax,
    the end token included, it yields exactly the target. The rest is decoded from there on, since
    another tokenisation or case may still match.

    Args:
        loaded: the model; its mode is restored.
        examples: what to score, in any order of length.
        batch_size: examples in one pass.
        width: of packed rows, see `geomix.data.batch.collate`.
        empty_right: whether any answer to a question with an empty target is right, as in the
            paper's published code; else none is.
        exact_only: whether exact match and loss are enough: decoding then stops where what is said
            can no longer become the target. Both are the same as without.
    """
    model, was_training = loaded.model, loaded.model.training
    model.eval()
    try:
        forced = _teacher_forced(loaded, examples, batch_size, width)
        answers = [answer for answer, _ in forced]
        texts = _completed(loaded, examples, answers, batch_size, exact_only=exact_only)
    finally:
        model.train(was_training)
    verdict = judge_exact if exact_only else judge
    return [
        verdict(example, text, nll, given=empty_right and not example.text.target)
        for example, text, (_, nll) in zip(examples, texts, forced, strict=True)
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


def judge_exact(
    example: TokenisedExample, said: str, nll: float, *, given: bool = False
) -> Verdict:
    """The verdict on the beginning of a prediction, which ends where it can no longer be right.

    Args:
        example: what was asked.
        said: what was answered so far.
        nll: summed loss of the target tokens, in nats.
        given: whether it counts as an exact match in any case.
    """
    target = example.text.target
    prediction = said if may_become(said, target) else None
    right = given or (prediction is not None and exact(prediction, target))
    return Verdict(
        prompt=example.text.prompt,
        target=target,
        prediction=prediction,
        exact=right,
        nll=nll,
        tokens=example.target_tokens,
    )


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """What one forward pass tells of a greedy answer: its first tokens, and whether it ends there.

    Attributes:
        tokens: without the end token.
        ended: whether an end token follows.
        target: whether it is the target, token by token.
    """

    tokens: list[int]
    ended: bool
    target: bool


def known_answer(example: TokenisedExample, argmaxes: Sequence[int]) -> KnownAnswer:
    """The greedy answer as far as one forward pass tells it.

    Args:
        example: what was asked.
        argmaxes: the likeliest token in place of each token that carries loss, `(target_tokens,)`.
    """
    target = example.ids[example.target_start :]
    said = argmaxes[-len(target) :]  # in a conversation, earlier answers carry loss too
    right = next(
        (i for i, (one, other) in enumerate(zip(said, target, strict=True)) if one != other),
        len(target),
    )
    known = list(said[: right + 1])
    end = example.labels[-1]
    if end in known:
        known = known[: known.index(end)]
        return KnownAnswer(known, ended=True, target=len(known) + 1 == len(target))
    return KnownAnswer(known, ended=False, target=False)


def _completed(
    loaded: LoadedModel,
    examples: Sequence[TokenisedExample],
    answers: Sequence[KnownAnswer],
    batch_size: int,
    *,
    exact_only: bool,
) -> list[str]:
    """The text of each answer; it ends early where it is `exact_only` and can no longer be so."""
    texts = [
        example.text.target if answer.target else text_of(loaded, answer.tokens)
        for example, answer in zip(examples, answers, strict=True)
    ]
    budgets = {
        i: _budget(loaded, example, len(answer.tokens))
        for i, (example, answer) in enumerate(zip(examples, answers, strict=True))
        if not answer.ended and (not exact_only or may_become(texts[i], example.text.target))
    }
    open_ = [i for i, budget in budgets.items() if budget > 0]

    def hopeless(place: int, said: Sequence[int]) -> bool:
        i = open_[place]
        text = text_of(loaded, [*answers[i].tokens, *said])
        return not may_become(text, examples[i].text.target)

    rest = continuations(
        loaded,
        [[*examples[i].ids[: examples[i].target_start], *answers[i].tokens] for i in open_],
        [budgets[i] for i in open_],
        {examples[i].labels[-1] for i in open_},
        batch_size,
        hopeless if exact_only else None,
    )
    for i, said in zip(open_, rest, strict=True):
        texts[i] = text_of(loaded, [*answers[i].tokens, *said])
    return texts


def _budget(loaded: LoadedModel, example: TokenisedExample, known: int) -> int:
    """Tokens to decode beyond the known ones; a derivation may be longer and right all the same."""
    derived = same_final_number("", example.text.target) is not None
    wanted = (1 + derived) * example.target_tokens + SLACK - known
    left = places_left(loaded, example.target_start + known)
    return wanted if left is None else min(wanted, left)


def _teacher_forced(
    loaded: LoadedModel,
    examples: Sequence[TokenisedExample],
    batch_size: int,
    width: int | None,
) -> list[tuple[KnownAnswer, float]]:
    """What is known of each greedy answer, and the summed loss of the target in nats."""
    forward = plain_forward(loaded.model)
    results: list[tuple[KnownAnswer, float]] = []
    with torch.no_grad():
        for part in chunks(examples, batch_size):
            batch = collate(part, [1.0] * len(part), loaded.pad_id, width).to(loaded.device)
            logits = forward(batch)
            argmaxes = iter(logits.argmax(dim=-1).tolist())
            nll = batch.per_example(token_nll(logits, batch)).tolist()
            answers = [known_answer(e, list(islice(argmaxes, e.target_tokens))) for e in part]
            results.extend(zip(answers, nll, strict=True))
    return results


def exact_match(verdicts: Sequence[Verdict]) -> float:
    """Share of exact matches, 0–100, as the paper reports it."""
    return 100.0 * sum(verdict.exact for verdict in verdicts) / len(verdicts)


def mean_loss(verdicts: Sequence[Verdict], reduction: Reduction) -> float:
    """Mean loss in nats under the reduction."""
    if reduction == "token":
        return sum(v.nll for v in verdicts) / sum(v.tokens for v in verdicts)
    return sum(v.nll / v.tokens for v in verdicts) / len(verdicts)
