"""Exact match and loss of every example: teacher forcing, then a decode of what it leaves open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from transformers import DynamicCache

from geomix.data.batch import Reduction, chunks, collate
from geomix.data.example import TokenisedExample
from geomix.measures.text import (
    exact,
    matches_any,
    may_become,
    rouge_l,
    same_final_number,
    token_f1,
)
from geomix.models.decode import continuations, places_left, text_of
from geomix.models.forward import plain_forward
from geomix.models.kv_cache import Past
from geomix.models.load import LoadedModel
from geomix.models.loss import token_nll
from geomix.util.progress import phase

SLACK = 8
"""A failure is decoded this many tokens beyond the target's length: a right answer may be
tokenised another way, a wrong one needs no end."""

FROM_PAST = 0.5
"""Of a batch, the share of open answers from which on they are decoded at once, from what the model
kept; fewer are decoded together with those of other batches, in fewer steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one example.

    Attributes:
        prompt: the example's prompt.
        target: the example's target.
        prediction: what greedy decoding gives; None where only the exact match was asked for and
            the answer was decoded no further than to where it can no longer be one.
        cut: whether the prediction is only the answer's beginning: no end token came within the
            target's length and `SLACK` tokens more (twice the length where the target ends in a
            number of its own). All scores are those of that beginning: f1 and rouge_l of a model
            that goes on without end are higher than the whole answer's would be.
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
    cut: bool = False
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
    texts: list[str] = [""] * len(examples)
    cut = [False] * len(examples)
    losses: list[float] = []
    left = _Open([], [])
    try:
        with phase("examples", len(examples)) as advance:
            for part in chunks(range(len(examples)), batch_size):
                answers, nll, past = _teacher_forced(loaded, [examples[i] for i in part], width)
                losses += nll
                for i, answer in zip(part, answers, strict=True):
                    cut[i] = not answer.ended
                found = _opened(loaded, examples, part, answers, texts, exact_only=exact_only)
                if past is not None and len(found.which) >= FROM_PAST * len(part):
                    rows = [i - part[0] for i in found.which]
                    _complete(
                        loaded, examples, found, texts, cut, batch_size, exact_only, (past, rows)
                    )
                else:  # a few are decoded together with those of other batches
                    left = _Open(left.which + found.which, left.known + found.known)
                advance(len(part))
        _complete(loaded, examples, left, texts, cut, batch_size, exact_only)
    finally:
        model.train(was_training)
    verdict = judge_exact if exact_only else judge
    return [
        verdict(example, text, nll, cut=ends, given=empty_right and not example.text.target)
        for example, text, nll, ends in zip(examples, texts, losses, cut, strict=True)
    ]


def judge(
    example: TokenisedExample,
    prediction: str,
    nll: float,
    *,
    cut: bool = False,
    given: bool = False,
) -> Verdict:
    """The verdict on a prediction.

    Args:
        example: what was asked.
        prediction: what was answered.
        nll: summed loss of the target tokens, in nats.
        cut: whether the answer goes on.
        given: whether it counts as an exact match in any case.
    """
    prompt, target = example.text.prompt, example.text.target
    answers = tuple(dict.fromkeys((target, *example.text.aliases)))
    return Verdict(
        prompt=prompt,
        target=target,
        prediction=prediction,
        cut=cut,
        exact=given or exact(prediction, target),
        alias=given or matches_any(prediction, answers),
        f1=token_f1(prediction, answers),
        rouge_l=rouge_l(prediction, target),
        final_number=same_final_number(prediction, target),
        nll=nll,
        tokens=example.target_tokens,
    )


def judge_exact(
    example: TokenisedExample, said: str, nll: float, *, cut: bool = False, given: bool = False
) -> Verdict:
    """The verdict on the beginning of a prediction, which ends where it can no longer be right.

    Args:
        example: what was asked.
        said: what was answered so far.
        nll: summed loss of the target tokens, in nats.
        cut: whether the answer goes on.
        given: whether it counts as an exact match in any case.
    """
    target = example.text.target
    prediction = said if may_become(said, target) else None
    right = given or (prediction is not None and exact(prediction, target))
    return Verdict(
        prompt=example.text.prompt,
        target=target,
        prediction=prediction,
        cut=cut,
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


@dataclass(frozen=True, slots=True)
class _Open:
    """Answers that are to be decoded.

    Attributes:
        which: indices of their examples.
        known: the first tokens of each.
    """

    which: list[int]
    known: list[list[int]]


def _opened(
    loaded: LoadedModel,
    examples: Sequence[TokenisedExample],
    part: Sequence[int],
    answers: Sequence[KnownAnswer],
    texts: list[str],
    *,
    exact_only: bool,
) -> _Open:
    """Set the texts of a part's answers as far as they are known; which of them go on."""
    open_ = _Open([], [])
    for i, answer in zip(part, answers, strict=True):
        target = examples[i].text.target
        texts[i] = target if answer.target else text_of(loaded, answer.tokens)
        ends = answer.ended or (exact_only and not may_become(texts[i], target))
        if not ends and _budget(loaded, examples[i], len(answer.tokens)) > 0:
            open_.which.append(i)
            open_.known.append(answer.tokens)
    return open_


def _complete(
    loaded: LoadedModel,
    examples: Sequence[TokenisedExample],
    open_: _Open,
    texts: list[str],
    cut: list[bool],
    batch_size: int,
    exact_only: bool,
    past: tuple[Past, Sequence[int]] | None = None,
) -> None:
    """Set the text of each open answer, and whether it was cut at its budget.

    With `exact_only` it ends where it cannot be right.
    """
    chosen = [examples[i] for i in open_.which]

    def hopeless(place: int, said: Sequence[int]) -> bool:
        text = text_of(loaded, [*open_.known[place], *said])
        return not may_become(text, chosen[place].text.target)

    budgets = [_budget(loaded, e, len(k)) for e, k in zip(chosen, open_.known, strict=True)]
    rest = continuations(
        loaded,
        [[*e.ids[: e.target_start], *known] for e, known in zip(chosen, open_.known, strict=True)],
        budgets,
        {example.labels[-1] for example in chosen},
        batch_size,
        hopeless if exact_only else None,
        past,
    )
    for i, known, said, most in zip(open_.which, open_.known, rest, budgets, strict=True):
        texts[i] = text_of(loaded, [*known, *said])
        given_up = exact_only and not may_become(texts[i], examples[i].text.target)
        cut[i] = len(said) == most or given_up


def _budget(loaded: LoadedModel, example: TokenisedExample, known: int) -> int:
    """Tokens to decode beyond the known ones; a derivation may be longer and right all the same."""
    derived = same_final_number("", example.text.target) is not None
    wanted = (1 + derived) * example.target_tokens + SLACK - known
    left = places_left(loaded, example.target_start + known)
    return wanted if left is None else min(wanted, left)


def _teacher_forced(
    loaded: LoadedModel, examples: Sequence[TokenisedExample], width: int | None
) -> tuple[list[KnownAnswer], list[float], Past | None]:
    """What one pass tells of each greedy answer, and the summed loss of its target in nats.

    Also what the model kept of each example, where it can go on from that.
    """
    batch = collate(examples, [1.0] * len(examples), loaded.pad_id, width).to(loaded.device)
    alone = loaded.goes_on and len(batch.ids) == len(examples)
    cache = DynamicCache() if alone else None
    with torch.no_grad():
        logits = plain_forward(loaded.model, cache=cache)(batch)
    argmaxes = iter(logits.argmax(dim=-1).tolist())
    nll = batch.per_example(token_nll(logits, batch)).tolist()
    answers = [known_answer(e, list(islice(argmaxes, e.target_tokens))) for e in examples]
    return answers, nll, None if cache is None else Past.of(cache)


def exact_match(verdicts: Sequence[Verdict]) -> float:
    """Share of exact matches, 0–100, as the paper reports it."""
    return 100.0 * sum(verdict.exact for verdict in verdicts) / len(verdicts)


def mean_loss(verdicts: Sequence[Verdict], reduction: Reduction) -> float:
    """Mean loss in nats under the reduction."""
    if reduction == "token":
        return sum(v.nll for v in verdicts) / sum(v.tokens for v in verdicts)
    return sum(v.nll / v.tokens for v in verdicts) / len(verdicts)
