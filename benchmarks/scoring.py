"""Savings of teacher-forced scoring over decoding every answer with transformers' `generate`.

The built-in model is taught some facts whose answers have 64 tokens, the end token included, until
it knows them all. A chosen share is then made wrong: the answer of another fact is asked for.
`generate` decodes every answer, at most 64 new tokens, at the same batch size; all prompts have one
length, so it pads nothing. Both must reach the same verdicts. Pairs in turn, in one process.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from geomix.data.batch import chunks, collate, token_weights
from geomix.data.example import Example, TokenisedExample
from geomix.data.sources import kvr
from geomix.data.sources import random_words as words
from geomix.data.tokenise import tokenise_all
from geomix.measures.text import exact
from geomix.models.forward import plain_forward
from geomix.models.load import LoadedModel, load_model, quiet_libraries
from geomix.models.loss import all_correct, weighted_loss
from geomix.models.score import score

NEW_TOKENS = 64
FACTS = 16
ANSWERS = {1: 8, 8: 24, 32: 64, 128: 128}
"""Number of answers timed at each batch size; the facts are repeated as needed."""
WRONG = (0.0, 0.25, 0.5, 1.0)
ROUNDS = 5


def facts(loaded: LoadedModel) -> list[Example]:
    """Return keys with passages of `NEW_TOKENS` tokens as values, and prompts of one length."""
    passages = [e.target for k in range(29, 33) for e in words.examples(1000, k, k)]
    keys = [e.prompt for e in kvr.examples(len(passages), 0, "train")]
    made = [Example(key, value) for key, value in zip(keys, passages, strict=True)]
    tokens = [
        e for e in tokenise_all(loaded.tokenizer, made) if len(e.ids) - e.target_start == NEW_TOKENS
    ]
    length = statistics.mode(e.target_start for e in tokens)
    return [e.text for e in tokens if e.target_start == length][:FACTS]


def teach(loaded: LoadedModel, texts: list[Example]) -> None:
    """Train until every token of every answer is the argmax, and a little longer."""
    examples = tokenise_all(loaded.tokenizer, texts)
    batch = collate(examples, token_weights(examples, "token"), loaded.pad_id)
    optimiser = torch.optim.AdamW(loaded.model.parameters(), lr=3e-3)
    forward = plain_forward(loaded.model)
    more = 10
    while more:
        optimiser.zero_grad()
        logits = forward(batch)
        torch.autograd.backward(weighted_loss(logits, batch))
        optimiser.step()
        more -= bool(all_correct(logits, batch).all())


def asked(texts: list[Example], count: int, wrong: float) -> list[Example]:
    """`count` questions, a share of them with the answer of another fact, evenly spread."""
    before = [int(i * wrong) for i in range(count + 1)]
    return [
        Example(
            texts[i % len(texts)].prompt,
            texts[(i + before[i + 1] - before[i]) % len(texts)].target,
        )
        for i in range(count)
    ]


def forced(loaded: LoadedModel, examples: list[TokenisedExample], size: int) -> list[bool]:
    return [verdict.exact for verdict in score(loaded, examples, size)]


def decoded(loaded: LoadedModel, examples: list[TokenisedExample], size: int) -> list[bool]:
    model: Any = loaded.model
    start = examples[0].target_start
    found: list[bool] = []
    for part in chunks(examples, size):
        prompts = torch.tensor([example.ids[:start] for example in part])
        with torch.no_grad():
            written = model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
            )
        said = loaded.tokenizer.batch_decode(written[:, start:], skip_special_tokens=True)
        found += [exact(text, e.text.target) for text, e in zip(said, part, strict=True)]
    return found


def timed(work: Callable[[], list[bool]]) -> tuple[float, list[bool]]:
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def main() -> None:
    quiet_libraries()
    torch.manual_seed(0)
    loaded = load_model("builtin", torch.device("cpu"))
    texts = facts(loaded)
    teach(loaded, texts)
    prompt = tokenise_all(loaded.tokenizer, texts)[0].target_start
    print(
        f"answers of {NEW_TOKENS} tokens after prompts of {prompt}; {torch.get_num_threads()} "
        f"thread(s); ms an answer, and how many times less: medians of {ROUNDS} pairs"
    )
    print(f"{'batch':>5} {'wrong':>6} {'generate':>9} {'score':>7} {'x less':>7}")
    for size, count in ANSWERS.items():
        for share in WRONG:
            examples = tokenise_all(loaded.tokenizer, asked(texts, count, share))
            rounds = []
            for _ in range(ROUNDS):
                whole, expected = timed(partial(decoded, loaded, examples, size))
                one, verdicts = timed(partial(forced, loaded, examples, size))
                assert verdicts == expected
                assert sum(expected) == count - int(count * share)
                rounds.append((1e3 * whole / count, 1e3 * one / count))
            ratio = statistics.median(whole / one for whole, one in rounds)
            both = [statistics.median(way) for way in zip(*rounds, strict=True)]
            print(f"{size:5} {share:6.0%} {both[0]:9.1f} {both[1]:7.1f} {ratio:7.1f}")


if __name__ == "__main__":
    main()
