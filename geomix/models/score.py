"""Exact match and loss of every example: teacher forcing, then a decode of what remains open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn
from transformers import DynamicCache

from geomix.data.batch import chunks, collate
from geomix.data.example import TokenisedExample
from geomix.measures.scores.base import Answer
from geomix.measures.text import exact, may_become, same_final_number
from geomix.models.decode import continuations, places_left, text_of
from geomix.models.forward import plain_forward
from geomix.models.kv_cache import Past
from geomix.models.load import LoadedModel
from geomix.models.loss import token_nll
from geomix.util.progress import phase

SLACK = 8
"""Tokens decoded beyond a failed target's length: a right answer may be tokenised differently, and
a wrong one needs no end."""

FROM_PAST = 0.5
"""Fraction of a batch, still to be decoded, from which it is decoded immediately from the KV cache;
fewer answers are decoded together with those of other batches, in fewer steps."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode within the block."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def score(
    loaded: LoadedModel,
    examples: Sequence[TokenisedExample],
    batch_size: int,
    width: int | None = None,
    *,
    empty_right: bool = False,
    exact_only: bool = False,
) -> list[Answer]:
    """Score each example as greedy decoding would.

    Greedy decoding agrees with the answer up to the first token that is not the argmax given the
    true prefix, and yields the argmax there: one forward pass determines it. If every token is the
    argmax, including the end token, it yields exactly the target. The rest is decoded from there
    on, since another tokenisation or case may still match.

    Args:
        loaded: the model; its mode is restored.
        examples: the examples to score, in any order of length.
        batch_size: examples in one pass.
        width: of packed rows, see `geomix.data.batch.collate`.
        empty_right: whether any answer to a question with an empty target is right, as in the
            paper's published code; else none is.
        exact_only: whether exact match and loss suffice: decoding then stops as soon as the text
            can no longer become the target. Both are the same as without.
    """
    texts: list[str] = [""] * len(examples)
    cut = [False] * len(examples)
    losses: list[TokenLoss] = []
    left = _Open([], [])
    with evaluating(loaded.model):
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
    return [
        judge(e, text, loss, cut=ends, given=empty_right and not e.text.target, brief=exact_only)
        for e, text, loss, ends in zip(examples, texts, losses, cut, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """One forward pass's loss on an example's target, in nats.

    Attributes:
        nll: summed over its target tokens, in a conversation over those of every exchange.
        token_nll: of each token of its last answer, the end token included.
        greedy: whether that token is the likeliest one.
    """

    nll: float
    token_nll: tuple[float, ...] = ()
    greedy: tuple[bool, ...] = ()


def judge(
    example: TokenisedExample,
    decoded: str,
    loss: TokenLoss,
    *,
    cut: bool = False,
    given: bool = False,
    brief: bool = False,
) -> Answer:
    """Return an example's result once it is answered.

    Args:
        example: the example.
        decoded: the answer.
        loss: of its target.
        cut: whether the answer is truncated.
        given: whether it counts as an exact match in any case.
        brief: whether the answer stops where it can no longer be right; then it is no prediction.
    """
    target = example.text.target
    prediction = decoded if not brief or may_become(decoded, target) else None
    return Answer(
        prompt=example.text.prompt,
        target=target,
        prediction=prediction,
        cut=cut,
        exact=given or (prediction is not None and exact(prediction, target)),
        nll=loss.nll,
        tokens=example.target_tokens,
        aliases=example.text.aliases,
        entropy=example.text.entropy,
        token_nll=loss.token_nll,
        greedy=loss.greedy,
    )


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """First tokens of a greedy answer that one forward pass determines.

    Attributes:
        tokens: without the end token.
        ended: whether an end token follows.
        target: whether it is the target, token by token.
    """

    tokens: list[int]
    ended: bool
    target: bool


def answer_of(example: TokenisedExample) -> tuple[int, ...]:
    """Return the token ids of an example's (last) answer, with the end token."""
    return example.ids[example.target_start :]


def known_answer(example: TokenisedExample, argmaxes: Sequence[int]) -> KnownAnswer:
    """Return the greedy answer as far as one forward pass determines it.

    Args:
        example: the example.
        argmaxes: the likeliest token in place of each token that carries loss, `(target_tokens,)`.
    """
    target = answer_of(example)
    decoded = argmaxes[-len(target) :]  # in a conversation, earlier answers carry loss too
    right = next(
        (i for i, (one, other) in enumerate(zip(decoded, target, strict=True)) if one != other),
        len(target),
    )
    known = list(decoded[: right + 1])
    end = example.labels[-1]
    if end in known:
        known = known[: known.index(end)]
        return KnownAnswer(known, ended=True, target=len(known) + 1 == len(target))
    return KnownAnswer(known, ended=False, target=False)


@dataclass(frozen=True, slots=True)
class _Open:
    """Answers still to decode.

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
    """Set the texts of a part's answers as far as they are known; return those still open."""
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
    """Set the text of each open answer, and whether it was truncated at its budget.

    With `exact_only` it stops where it cannot be right.
    """
    chosen = [examples[i] for i in open_.which]

    def hopeless(place: int, decoded: Sequence[int]) -> bool:
        text = text_of(loaded, [*open_.known[place], *decoded])
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
    for i, known, decoded, most in zip(open_.which, open_.known, rest, budgets, strict=True):
        texts[i] = text_of(loaded, [*known, *decoded])
        given_up = exact_only and not may_become(texts[i], examples[i].text.target)
        cut[i] = len(decoded) == most or given_up


def _budget(loaded: LoadedModel, example: TokenisedExample, known: int) -> int:
    """Return the tokens to decode beyond the known ones; a correct derivation may be longer."""
    derived = same_final_number("", example.text.target) is not None
    wanted = (1 + derived) * example.target_tokens + SLACK - known
    left = places_left(loaded, example.target_start + known)
    return wanted if left is None else min(wanted, left)


def _teacher_forced(
    loaded: LoadedModel, examples: Sequence[TokenisedExample], width: int | None
) -> tuple[list[KnownAnswer], list[TokenLoss], Past | None]:
    """Return each greedy answer as far as one pass determines it, and its target's loss.

    Also return the keys and values of each example, if the model can decode from them.
    """
    batch = collate(examples, [1.0] * len(examples), loaded.pad_id, width).to(loaded.device)
    alone = loaded.can_cache and len(batch.ids) == len(examples)
    cache = DynamicCache() if alone else None
    with torch.no_grad():
        logits = plain_forward(loaded.model, cache=cache)(batch)
    nll = token_nll(logits, batch)
    argmaxes, tokens = iter(logits.argmax(dim=-1).tolist()), iter(nll.tolist())
    answers, losses = [], []
    for example, total in zip(examples, batch.per_example(nll).tolist(), strict=True):
        decoded, each = (list(islice(part, example.target_tokens)) for part in (argmaxes, tokens))
        answers.append(known_answer(example, decoded))
        answer = answer_of(example)
        greedy = tuple(a == b for a, b in zip(decoded[-len(answer) :], answer, strict=True))
        losses.append(TokenLoss(total, tuple(each[-len(answer) :]), greedy))
    return answers, losses, None if cache is None else Past.of(cache)
