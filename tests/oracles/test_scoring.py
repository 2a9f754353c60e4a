"""Scores of hundreds of answers against greedy decoding, on a model that knows some of them.

There are 2,000 and more, of which the ordinary tests take every sixteenth and `make torture` all.

Why the oracle is independent: it decodes every answer, right or wrong, one argmax after the other,
with the model's own key-value cache. Prompts of one length go together, so there is no padding and
no mask; nor are there packed rows, teacher forcing or `generate`. Of geomix it takes the tokens of
the prompts, nothing else; even the comparison of texts is written out again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from geomix.data.batch import collate, token_weights
from geomix.data.example import Example, TokenisedExample
from geomix.data.sources import kvr, triples
from geomix.data.sources import random_words as words
from geomix.data.tokenise import tokenise_all
from geomix.measures.scores.base import Answer
from geomix.models.forward import plain_forward
from geomix.models.load import LoadedModel, load_model
from geomix.models.loss import weighted_loss
from geomix.models.score import score

SLACK = 8
"""Tokens that a wrong answer may be longer than the target, its end token included."""

TIE = 1e-4
"""Logits closer than this may change places with the order in which float32 sums are taken."""


@dataclass(frozen=True)
class Decoded:
    """Result of greedy decoding: its text, and the margin of the closest argmax."""

    text: str
    gap: float


def decode_alone(loaded: LoadedModel, examples: Sequence[TokenisedExample]) -> list[Decoded]:
    """Each answer by argmax, up to its end token or `SLACK` tokens beyond the target."""
    groups: dict[int, list[int]] = {}
    for i, example in enumerate(examples):
        groups.setdefault(example.target_start, []).append(i)
    decoded: dict[int, Decoded] = {}
    for length, members in groups.items():
        caps = [len(examples[i].ids) - length + SLACK for i in members]
        prompts = torch.tensor([examples[i].ids[:length] for i in members])
        tokens, gaps = argmaxes(loaded, prompts, max(caps))
        for i, cap, said, gap in zip(members, caps, tokens, gaps, strict=True):
            end = loaded.tokenizer.eos_token_id
            stop = said.index(end) if end in said[:cap] else cap
            text = loaded.tokenizer.decode(said[:stop], skip_special_tokens=True)
            decoded[i] = Decoded(text, min(gap[: stop + 1][:cap]))
    return [decoded[i] for i in range(len(examples))]


@torch.no_grad()
def argmaxes(
    loaded: LoadedModel, prompts: torch.Tensor, most: int
) -> tuple[list[list[int]], list[list[float]]]:
    """Tokens `(n, steps)` after prompts of one length, and by how much each beats the next best."""
    model: Any = loaded.model
    tokens: list[torch.Tensor] = []
    gaps: list[torch.Tensor] = []
    cache = None
    ended = torch.zeros(len(prompts), dtype=torch.bool)
    given = prompts
    while len(tokens) < most and not ended.all():
        out = model(input_ids=given, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        best = out.logits[:, -1].topk(2)
        tokens.append(best.indices[:, 0])
        gaps.append(best.values[:, 0] - best.values[:, 1])
        ended |= tokens[-1] == loaded.tokenizer.eos_token_id
        given = tokens[-1][:, None]
    return torch.stack(tokens, 1).tolist(), torch.stack(gaps, 1).tolist()


def same_text(prediction: str, target: str) -> bool:
    return prediction.strip().lower() == target.strip().lower() != ""


@pytest.fixture(scope="module")
def taught() -> list[Example]:
    return [*kvr.examples(20, 7, "train"), *triples.examples(20, 7, "train")]


@pytest.fixture(scope="module")
def half_taught(taught: list[Example]) -> LoadedModel:
    """The built-in model, which copies, after some seconds on 40 facts: it knows most of them."""
    loaded = load_model("builtin", torch.device("cpu"))
    facts = tokenise_all(loaded.tokenizer, taught)
    kept = tokenise_all(loaded.tokenizer, words.examples(32, 20, 9))  # so that it still copies
    optimiser = torch.optim.AdamW(loaded.model.parameters(), lr=3e-3, betas=(0.9, 0.95))
    forward = plain_forward(loaded.model)
    for step in range(32):
        part = facts + kept[step : step + 3]
        batch = collate(part, token_weights(part, "example"), loaded.pad_id, 128)
        optimiser.zero_grad()
        torch.autograd.backward(weighted_loss(forward(batch), batch))
        optimiser.step()
    return loaded


def altered(example: Example, choose: random.Random) -> Example:
    """One word of the target replaced, left out at its end, or put there: never what is copied."""
    said = example.target.split(" ")
    kind = choose.choice(("swap", "swap", "less", "more"))
    other = choose.choice([word for word in words.word_list() if word not in said])
    if kind == "more":
        said.append(other)
    elif kind == "less" and len(said) > 1:
        said.pop()
    else:
        said[choose.randrange(len(said))] = other
    return replace(example, target=" ".join(said))


def in_other_letters(example: Example, choose: random.Random) -> Example:
    """The same answer in capitals or between spaces: other tokens, and right all the same."""
    style = choose.choice((str.upper, str.title, lambda text: f" {text}\n"))
    return replace(example, target=style(example.target))


@pytest.fixture(
    scope="module",
    params=[16, pytest.param(1, marks=pytest.mark.torture)],
    ids=["a sixteenth", "all"],
)
def every(request: pytest.FixtureRequest) -> int:
    """Each how-many-eth answer is looked at."""
    return int(request.param)


@pytest.fixture(scope="module")
def answers(half_taught: LoadedModel, taught: list[Example], every: int) -> list[TokenisedExample]:
    """Facts known and not, passages copied and not, other letters, single tokens, all mixed."""
    choose = random.Random(0)
    unknown = [*kvr.examples(360, 8, "held-out"), *triples.examples(200, 8, "held-out")]
    copies = [e for k in range(1, 30) for e in words.examples(29, k, 100 + k)]
    wrong = [altered(e, choose) for k in range(1, 30) for e in words.examples(13, k, 200 + k)]
    listed = [
        token
        for token, i in half_taught.tokenizer.get_vocab().items()
        if token.isascii() and token.isalpha() and half_taught.tokenizer.encode(token) == [i]
    ]
    single = words.examples(40, 1, 3, sorted(listed))
    shifted = [replace(e, target=s.target) for e, s in pairwise(single)]
    letters = [in_other_letters(e, choose) for e in [*taught, *copies[:180:2]]]
    made = [*taught, *unknown, *copies, *wrong, *single, *shifted, *letters]
    choose.shuffle(made)
    tokens = tokenise_all(half_taught.tokenizer, made)
    return [example for example in tokens if example.target_tokens <= 61][::every]


@pytest.fixture(scope="module")
def decoded(half_taught: LoadedModel, answers: list[TokenisedExample]) -> list[Decoded]:
    return decode_alone(half_taught, answers)


def bucket(example: TokenisedExample) -> int:
    """1 to 10 answer tokens: 0; 11 to 20: 1; … The end token is not counted."""
    return (example.target_tokens - 2) // 10


@pytest.fixture(scope="module")
def certain(
    half_taught: LoadedModel, answers: list[TokenisedExample], decoded: list[Decoded], every: int
) -> tuple[list[TokenisedExample], list[Answer]]:
    """Answers without a tie, and their verdicts in one padded batch."""
    some = [e for e, own in zip(answers, decoded, strict=True) if own.gap >= TIE]
    some = some[: 60 if every == 1 else 32]
    return some, score(half_taught, some, len(some))


def test_the_answers_are_of_every_length_right_and_wrong(
    answers: list[TokenisedExample], decoded: list[Decoded], every: int
) -> None:
    """The comparison needs this: otherwise it could agree on one kind of answer alone."""
    right = [same_text(d.text, e.text.target) for d, e in zip(decoded, answers, strict=True)]
    assert len(answers) >= 2000 // every
    lengths = {e.target_tokens - 1 for e in answers}
    assert 1 in lengths
    assert max(lengths) >= 60 - (every > 1)
    found = Counter((bucket(e), ok) for e, ok in zip(answers, right, strict=True))
    assert set(found) == {(length, ok) for length in range(6) for ok in (True, False)}
    assert min(found.values()) >= 20 // every
    assert 0.3 <= sum(right) / len(right) <= 0.7
    pairs = zip(decoded, answers, right, strict=True)
    other = sum(ok and own.text != e.text.target for own, e, ok in pairs)
    assert other >= 50 // every, "answers in other letters, which teacher forcing alone calls wrong"


@pytest.mark.parametrize("width", [None, 128])
def test_verdicts_and_predictions_are_those_of_greedy_decoding(
    half_taught: LoadedModel,
    answers: list[TokenisedExample],
    decoded: list[Decoded],
    width: int | None,
) -> None:
    ties = 0
    whole = score(half_taught, answers, 128, width)
    brief = score(half_taught, answers, 128, width, exact_only=True)
    for verdict, short, example, own in zip(whole, brief, answers, decoded, strict=True):
        if own.gap < TIE:
            ties += 1
            continue
        target = example.text.target
        assert verdict.exact == short.exact == same_text(own.text, target), (verdict, own)
        assert verdict.prediction == own.text
        assert short.prediction in (own.text, None)
        assert verdict.nll == short.nll
    assert ties <= 5


@pytest.mark.parametrize("size", [1, 7, 30])
@pytest.mark.parametrize("width", [None, 64, 128])
def test_neither_batch_size_nor_packing_changes_a_verdict(
    half_taught: LoadedModel,
    certain: tuple[list[TokenisedExample], list[Answer]],
    size: int,
    width: int | None,
) -> None:
    some, whole = certain
    for verdict, other in zip(score(half_taught, some, size, width), whole, strict=True):
        same = [replace(v, nll=0, token_nll=()) for v in (verdict, other)]
        assert same[0] == same[1]
        assert verdict.nll == pytest.approx(other.nll, rel=1e-4, abs=1e-5)
