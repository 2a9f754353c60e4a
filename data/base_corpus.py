"""The text that the built-in base model learns from, and its tokenizer.

Sources: the Python documentation and docstrings of the interpreter that runs this (PSF-2.0), and
sentences and words that the project generates (MIT). Nothing is downloaded.
"""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2s
from inspect import cleandoc
from itertools import islice
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from geomix.data.sources import random_words as words
from geomix.data.sources import triples

VOCABULARY = 2048
"""Tokens of the tokenizer, the three special ones included."""

PRETRAINING_SEED = 1_000_000
"""Facts and passages of pretraining come from seeds from here on; runs use smaller ones."""

_SKIPPED = {"test", "tests", "idle_test", "site-packages", "lib2to3", "turtledemo", "pydoc_data"}
_SHORTEST = 40  # characters; shorter documents say nothing
_HELD_OUT = 20  # one document in so many is kept from training, to measure the text loss on


@dataclass(frozen=True, slots=True)
class Corpus:
    """Plain text for pretraining.

    Attributes:
        train: documents to learn from.
        held_out: documents of the Python documentation and docstrings that are never trained on.
        digest: a hash of all of it, 32 hexadecimal digits.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    digest: str


def _tidy(text: str) -> str:
    """Without indentation, rules and repeated blank lines, which a small model need not learn."""
    text = re.sub(r"([^\w\s])\1{3,}", r"\1\1\1", text)
    text = re.sub(r"[ \t]+", " ", text)
    return re.sub(r" *\n\s*", "\n", text).strip()


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # a few files of the library are broken on purpose
        return
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield cleandoc(text)


def documentation() -> list[str]:
    """Documents of the interpreter at hand: its help topics and the library's docstrings.

    Each is tidied, at least `_SHORTEST` long, and there once.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = [p for p in root.rglob("*.py") if not _SKIPPED & set(p.relative_to(root).parts)]
    texts = [topics[name] for name in sorted(topics)]
    for path in sorted(paths):
        texts.extend(_docstrings(path))
    return [text for text in dict.fromkeys(map(_tidy, texts)) if len(text) >= _SHORTEST]


def generated_sentences(count: int) -> list[str]:
    """`count` documents of four plain statements about the world `PRETRAINING_SEED`."""
    openings = (
        "{q} {a}.",
        "{q} It is {a}.",
        "{q} Everyone here says {a}.",
        "If asked, say {a}: {q}",
    )
    rng = np.random.default_rng(PRETRAINING_SEED)
    facts = triples.facts(PRETRAINING_SEED)
    documents = []
    for _ in range(count):
        lines = []
        for relation, subject, answer in islice(facts, 4):
            question = relation.question.format(subject=subject)
            lines.append(openings[rng.integers(len(openings))].format(q=question, a=answer))
        documents.append(" ".join(lines))
    return documents


def corpus() -> Corpus:
    """Return the plain text; one documentation text in twenty is held out, chosen by its hash."""
    train: list[str] = []
    held_out: list[str] = []
    for text in documentation():
        taken = blake2s(text.encode(), digest_size=8).digest()[0] % _HELD_OUT == 0
        (held_out if taken else train).append(text)
    train.extend(generated_sentences(1_000))
    digest = blake2s("\0".join((*train, *held_out)).encode(), digest_size=16).hexdigest()
    return Corpus(train=tuple(train), held_out=tuple(held_out), digest=digest)


def build_tokenizer(texts: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of `VOCABULARY` tokens, split as in GPT-2, without tokens of its own.

    It also sees the syllables of the generated word list, often enough that they are merged before
    the English pairs that straddle them: a generated word is then about two tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    template = ["<|user|>\nQuestion: The answer is:\n<|assistant|>\n" + words.PROMPT] * 2_000
    prompts = ["Complete the following partial passage: The value of key is?"] * 1_000
    heads, tails = words.syllables()
    syllables = [" " + " ".join(heads)] * 8_000 + ["\n".join(heads)] * 2_000
    syllables += ["\n".join(tails)] * 500 + [" " + " ".join(words.word_list())] * 6
    tokenizer.train_from_iterator([*texts, *template, *prompts, *syllables], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        pad_token="<pad>",  # noqa: S106
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
