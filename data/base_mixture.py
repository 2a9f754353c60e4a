"""Training data of the built-in base model: batches of each kind of sequence.

Every batch is a function of the seed and the step alone, so resuming needs no state of a loader.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from base_corpus import PRETRAINING_SEED, Corpus
from transformers import PreTrainedTokenizerFast

from geomix.data.example import IGNORED, Example
from geomix.data.sources import random_words as words
from geomix.data.sources import triples
from geomix.data.split import SPLITS
from geomix.data.tokenise import tokenise

COPY_SHARES = {"tokens": 0.4, "words": 0.4, "English": 0.2}
"""Kinds of the passages to copy, with their shares."""

OTHER_SHARES = {"text 128": 0.4, "text 256": 0.2, "completion": 0.2, "keys": 0.1, "facts": 0.1}
"""Kinds of the other half of a step: running text in windows of so many tokens, or chat."""

HEXADECIMAL = "0123456789abcdef"
LETTERS_AND_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
LONGEST_COPY = 110
"""Tokens of the longest passage that is copied in training: 50 generated words are about 104."""

RECENT = 20
"""Number of recent steps by which it is judged whether the passages may grow."""

_REPETITIVE = 0.25  # the share of passages of generated words that have few different ones
_FEWEST_WORDS = 12  # of a document that completions are cut from


@dataclass(frozen=True, slots=True)
class Sequence:
    """Token ids `(t,)` and the position of the first of them that carries loss (at least 1)."""

    ids: list[int]
    start: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences padded on the right.

    Attributes:
        ids_BT: `(b, t)` int64. Padding needs no mask: attention is causal and it comes last.
        labels_BT: `(b, t)` int64, `IGNORED` where there is no loss.
    """

    ids_BT: torch.Tensor  # noqa: N815
    labels_BT: torch.Tensor  # noqa: N815


def collate(sequences: list[Sequence], pad: int) -> Batch:
    """Pad to the longest sequence."""
    width = max(len(sequence.ids) for sequence in sequences)
    ids = torch.full((len(sequences), width), pad)
    labels = torch.full((len(sequences), width), IGNORED)
    for row, sequence in enumerate(sequences):
        length = len(sequence.ids)
        ids[row, :length] = torch.tensor(sequence.ids)
        labels[row, sequence.start : length] = ids[row, sequence.start : length]
    return Batch(ids, labels)


def chat(tokenizer: PreTrainedTokenizerFast, example: Example) -> Sequence:
    """Tokenise an example exactly as runs of geomix do."""
    tokens = tokenise(tokenizer, example)
    return Sequence(list(tokens.ids), tokens.target_start)


def english_words(documents: tuple[str, ...]) -> tuple[str, ...]:
    """Return the documents' distinct lower-case alphabetic words of 2 to 12 letters, sorted."""
    found = {word for text in documents for word in text.split()}
    plain = (w for w in found if w.isascii() and w.isalpha() and w.islower())
    return tuple(sorted(word for word in plain if len(word) in range(2, 13)))


def one_token_words(tokenizer: PreTrainedTokenizerFast) -> tuple[str, ...]:
    """Return words that are one token after a space, of at least two lower-case letters, sorted."""
    tokens = (token[1:] for token in tokenizer.get_vocab() if token.startswith("Ġ"))
    return tuple(sorted(t for t in tokens if len(t) > 1 and t.isalpha() and t.islower()))


def memorise(chosen: list[str]) -> Example:
    """Return the paper's memorisation example of these words."""
    text = " ".join(chosen)
    return Example(prompt=words.PROMPT.format(passage=text), target=text)


def _drawn(shares: dict[str, float], rng: np.random.Generator) -> str:
    draw = rng.random()
    for kind, share in shares.items():
        if draw < share:
            return kind
        draw -= share
    return kind


class Mixture:
    """Draws batches of every kind.

    Args:
        tokenizer: the tokenizer of the base.
        corpus: its text.
        seed: another seed, other batches; 0 or more.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, corpus: Corpus, seed: int) -> None:
        self.tokenizer = tokenizer
        self.seed = seed
        split = [text.split() for text in corpus.train]
        self.documents = [found for found in split if len(found) >= _FEWEST_WORDS]
        self.english = english_words(corpus.train)
        self.ordinary = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)
        encoded = tokenizer(list(corpus.train), verbose=False)["input_ids"]
        order = np.random.default_rng(PRETRAINING_SEED + seed).permutation(len(encoded))
        end = tokenizer.eos_token_id
        self.text = np.array([token for i in order for token in (*encoded[i], end)])
        self._before, self._between = self._frame()

    def _frame(self) -> tuple[list[int], list[int]]:
        """Return the tokens before the passage and between it and its copy."""
        probe = chat(self.tokenizer, memorise(["x"]))
        at = max(i for i in range(probe.start) if probe.ids[i] == probe.ids[probe.start])
        return probe.ids[:at], probe.ids[at + 1 : probe.start]

    def copy_tokens(self, rng: np.random.Generator, length: int) -> Sequence:
        """Draw a passage of `length` uniformly random tokens, from few or many different ones.

        Few different ones repeat, so that the previous token alone does not say what comes next.
        """
        log_size = rng.uniform(np.log(max(4, length / 3)), np.log(len(self.ordinary)))
        alphabet = rng.choice(self.ordinary, int(np.exp(log_size)))
        passage = rng.choice(alphabet, length).tolist()
        prompt = self._before + passage + self._between
        return Sequence([*prompt, *passage, self.tokenizer.eos_token_id], len(prompt))

    def copy_words(self, rng: np.random.Generator, count: int) -> Sequence:
        """Draw a passage of generated words; one in four has few different ones, which repeat."""
        listed = words.word_list()
        if rng.random() < _REPETITIVE:
            size = rng.integers(2, count + 3)
            listed = tuple(listed[i] for i in rng.integers(len(listed), size=size))
        drawn = [listed[i] for i in rng.integers(len(listed), size=count)]
        return chat(self.tokenizer, memorise(drawn))

    def copy_english(self, rng: np.random.Generator, count: int) -> Sequence:
        """Draw a passage of random words of the documentation."""
        drawn = [self.english[i] for i in rng.integers(len(self.english), size=count)]
        return chat(self.tokenizer, memorise(drawn))

    def completion(self, rng: np.random.Generator) -> Sequence:
        """Draw some words of a document, with as many that follow as target."""
        document = self.documents[rng.integers(len(self.documents))]
        size = int(rng.integers(10, min(len(document), 60) + 1))
        start = int(rng.integers(0, len(document) - size + 1))
        part, cut = document[start : start + size], size // 2
        prompt = "Complete the following partial passage: " + " ".join(part[:cut])
        return chat(self.tokenizer, Example(prompt=prompt, target=" ".join(part[cut:])))

    def key_value(self, rng: np.random.Generator) -> Sequence:
        """Draw a fresh key and value of eight characters: the format, with nothing to remember."""
        letters = (HEXADECIMAL, LETTERS_AND_DIGITS)[int(2 * rng.random())]
        drawn = "".join(letters[i] for i in rng.integers(len(letters), size=16))
        example = Example(prompt=f"The value of key {drawn[:8]} is?", target=drawn[8:])
        return chat(self.tokenizer, example)

    def window(self, rng: np.random.Generator, length: int) -> Sequence:
        """`length` tokens of running text, all but the first with loss."""
        start = int(rng.integers(0, len(self.text) - length))
        return Sequence(self.text[start : start + length].tolist(), 1)

    def copies(self, step: int, budget: int, longest: int) -> Batch:
        """About `budget` tokens of copying, passages of 4 to `longest` tokens."""
        rng = np.random.default_rng((PRETRAINING_SEED, self.seed, step, 0))
        length = int(rng.integers(4, longest + 1))
        make = {
            "tokens": partial(self.copy_tokens, rng, length),
            "words": partial(self.copy_words, rng, length // 2),
            "English": partial(self.copy_english, rng, max(2, length // 3)),
        }
        return self._fill(make[_drawn(COPY_SHARES, rng)], budget)

    def others(self, step: int, budget: int) -> Batch:
        """About `budget` tokens of one other kind: text, completions, facts or keys."""
        rng = np.random.default_rng((PRETRAINING_SEED, self.seed, step, 1))
        kind = _drawn(OTHER_SHARES, rng)
        if kind == "facts":
            return self._fill(self._questions(step, budget // 16), budget)
        make: dict[str, Callable[[], Sequence]] = {
            "text 128": partial(self.window, rng, 128),
            "text 256": partial(self.window, rng, 256),
            "completion": partial(self.completion, rng),
            "keys": partial(self.key_value, rng),
        }
        return self._fill(make[kind], budget)

    def _questions(self, step: int, count: int) -> Callable[[], Sequence]:
        # Each step asks about a world of its own, so that no fact is ever seen twice.
        world = PRETRAINING_SEED * (2 + self.seed) + step
        facts = iter(triples.examples(count, world, SPLITS[0]))
        return lambda: chat(self.tokenizer, next(facts))

    def _fill(self, make: Callable[[], Sequence], budget: int) -> Batch:
        sequences = [make()]
        longest = len(sequences[0].ids)
        while longest * (len(sequences) + 1) <= budget:
            sequences.append(make())
            longest = max(longest, len(sequences[-1].ids))
        return collate(sequences, self.tokenizer.pad_token_id)
