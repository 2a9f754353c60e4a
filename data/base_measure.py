"""Measurements of the built-in base model: copying by length, and the loss on text and facts."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import numpy as np
import torch
from base_corpus import Corpus
from base_mixture import Batch, Sequence, chat, collate, english_words, memorise, one_token_words
from torch.nn.functional import cross_entropy, linear
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from geomix.data.example import IGNORED, Example
from geomix.data.sources import random_words as words
from geomix.data.sources import triples

LENGTHS = (5, 10, 20, 30, 50)
"""Words a passage at which copying is measured."""

PASSAGES = 200
"""Number of unseen passages behind each number of the card."""


def logits_of(model: LlamaForCausalLM, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `(n, v)` and labels `(n,)` of the `n` positions with loss, in row order.

    The head is applied to these positions alone: with a small model it is a fifth of the work.
    """
    hidden = model.model(input_ids=batch.ids_BT, use_cache=False).last_hidden_state[:, :-1]
    labels = batch.labels_BT[:, 1:]
    carries = labels != IGNORED
    return linear(hidden[carries], model.lm_head.weight), labels[carries]


def _batches(
    tokenizer: PreTrainedTokenizerFast, sequences: list[Sequence], size: int = 40
) -> Iterator[Batch]:
    for start in range(0, len(sequences), size):
        yield collate(sequences[start : start + size], tokenizer.pad_token_id)


@torch.no_grad()
def exact_match(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, examples: list[Example]
) -> float:
    """Return the share of examples whose target tokens, with the end token, are all the argmax."""
    right = 0
    for batch in _batches(tokenizer, [chat(tokenizer, example) for example in examples]):
        logits, labels = logits_of(model, batch)
        hit = torch.ones_like(batch.ids_BT[:, 1:], dtype=torch.bool)
        hit[batch.labels_BT[:, 1:] != IGNORED] = logits.argmax(-1) == labels
        right += int(hit.all(dim=1).sum())
    return right / len(examples)


@torch.no_grad()
def mean_loss(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, sequences: list[Sequence]
) -> float:
    """Cross entropy in nats a token, over all tokens with loss."""
    total, count = 0.0, 0
    for batch in _batches(tokenizer, sequences):
        logits, labels = logits_of(model, batch)
        total += float(cross_entropy(logits, labels, reduction="sum"))
        count += len(labels)
    return total / count


def held_out_windows(
    tokenizer: PreTrainedTokenizerFast, corpus: Corpus, length: int = 128
) -> list[Sequence]:
    """Return the held-out documents, concatenated and cut into windows of `length` tokens."""
    encoded = tokenizer(list(corpus.held_out), verbose=False)["input_ids"]
    tokens = [token for ids in encoded for token in (*ids, tokenizer.eos_token_id)]
    starts = range(0, len(tokens) - length + 1, length)
    return [Sequence(tokens[start : start + length], 1) for start in starts]


def unigram_loss(
    tokenizer: PreTrainedTokenizerFast, corpus: Corpus, sequences: list[Sequence]
) -> float:
    """Nats a token of the frequencies in the training text (one added to each) on `sequences`."""
    encoded = tokenizer(list(corpus.train), verbose=False)["input_ids"]
    train = [token for ids in encoded for token in (*ids, tokenizer.eos_token_id)]
    counts = np.bincount(train, minlength=len(tokenizer)) + 1.0
    cost = -np.log(counts / counts.sum())
    return float(np.mean([cost[token] for s in sequences for token in s.ids[s.start :]]))


def unseen_passages(source: tuple[str, ...], length: int, count: int, seed: int) -> list[Example]:
    """`count` memorisation examples of `length` words drawn uniformly from `source`."""
    rng = Random(f"passages {seed} {length}")  # noqa: S311
    return [memorise(rng.choices(source, k=length)) for _ in range(count)]


def measure(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    corpus: Corpus,
    passages: int = PASSAGES,
) -> dict[str, dict[str, float]]:
    """All numbers of the card.

    Returns:
        `copy, <kind of word>`: exact match by words a passage, and `tokens a word`.
        `loss`: nats a token of held-out text under the model and under unigram frequencies.
        `unknown`: exact match on facts and keys that no base can know.
    """
    sources = {
        "generated": words.word_list(),
        "one-token": one_token_words(tokenizer),
        "English": english_words(corpus.train),
    }
    report: dict[str, dict[str, float]] = {}
    for kind, source in sources.items():
        spaced = tokenizer([" " + word for word in source])["input_ids"]
        report[f"copy, {kind}"] = {"tokens a word": float(np.mean([len(ids) for ids in spaced]))}
        for length in LENGTHS:
            examples = unseen_passages(source, length, passages, seed=1)
            report[f"copy, {kind}"][str(length)] = exact_match(model, tokenizer, examples)
    windows = held_out_windows(tokenizer, corpus)
    report["loss"] = {
        "held-out text": mean_loss(model, tokenizer, windows),
        "held-out text, unigram": unigram_loss(tokenizer, corpus, windows),
    }
    facts = triples.examples(passages, 0, "held-out")
    rng = Random("keys")  # noqa: S311
    drawn = [f"{rng.getrandbits(64):016x}" for _ in range(passages)]
    keys = [Example(f"The value of key {d[:8]} is?", d[8:]) for d in drawn]
    report["unknown"] = {
        "facts": exact_match(model, tokenizer, facts),
        "keys": exact_match(model, tokenizer, keys),
        "facts, loss": mean_loss(model, tokenizer, [chat(tokenizer, e) for e in facts]),
        "keys, loss": mean_loss(model, tokenizer, [chat(tokenizer, e) for e in keys]),
    }
    return report
