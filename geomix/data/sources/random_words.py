"""Random-word passages, the paper's mixing source: from a generated list, or the NLTK words."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache
from hashlib import blake2s
from itertools import product
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np

from geomix.data.example import Example
from geomix.data.sources.base import Found, Request, Source
from geomix.util.errors import Unreachable, UserError

PROMPT = "Memorize the following random-string passage:\n{passage}"
"""The paper's prompt (appendix B); the target is the passage itself."""

WORDS = 3000
"""Number of words in the list."""

_ONSETS = (
    *("b", "br", "ch", "d", "dr", "f", "g", "gr", "h", "j", "k", "l"),
    *("m", "n", "p", "pl", "r", "s", "sh", "st", "t", "tr", "v", "z"),
)
_VOWELS = ("a", "e", "i", "o", "u")
_CODAS = ("l", "m", "n", "r", "s", "t", "x")
_TAILS = 150


def _shuffled(items: list[str]) -> list[str]:
    # Hashes sort alike on every platform and version, which no random generator promises.
    return sorted(items, key=lambda item: blake2s(item.encode()).digest())


@cache
def syllables() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return 120 open syllables that words start with, and 150 closed ones that they end in."""
    heads = tuple("".join(parts) for parts in product(_ONSETS, _VOWELS))
    tails = _shuffled(["".join(parts) for parts in product(_ONSETS, _VOWELS, _CODAS)])[:_TAILS]
    return heads, tuple(tails)


@cache
def word_list() -> tuple[str, ...]:
    """Return `WORDS` distinct lower-case pronounceable words, the same ones in every process.

    Each is an open syllable and a closed one ("brenol"), from so few of either that a small
    vocabulary has a token for most of them and a word is about two tokens.
    """
    heads, tails = syllables()
    return tuple(_shuffled([head + tail for head in heads for tail in tails])[:WORDS])


def nltk_words(path: Path | None) -> tuple[str, ...]:
    """Return the distinct words of the NLTK words corpus (`en`, `en-basic`), in alphabetical order.

    Args:
        path: `words.zip`, the folder that it unpacks to, or a file of one word a line; None
            searches NLTK's data folders.

    Raises:
        UserError: there is no such file.
    """
    try:
        if path is None:
            found = _installed_words()
        elif path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would block
            raise OSError("it is no regular file")
        elif path.suffix == ".zip":
            with ZipFile(path) as packed:
                found = [packed.read(f"words/{name}").decode() for name in ("en", "en-basic")]
        else:
            files = [path / name for name in ("en", "en-basic")] if path.is_dir() else [path]
            found = [file.read_text(encoding="utf-8-sig") for file in files]
    except (OSError, KeyError, BadZipFile, RuntimeError, UnicodeDecodeError, zlib.error) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"{path}: cannot be read as the NLTK words corpus ({what})") from None
    words = sorted({line.strip() for text in found for line in text.split("\n")} - {""})
    if not words:
        raise UserError(f"{path}: holds no words; one a line is read")
    return tuple(words)


def _installed_words() -> list[str]:
    try:
        from nltk.corpus import words

        return [words.raw(name) for name in ("en", "en-basic")]
    except (ImportError, LookupError):
        raise Unreachable(
            "data source 'random-words': the NLTK words corpus is not installed; download "
            "https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/corpora/words.zip "
            "and give it as path:, or run: python -m nltk.downloader words"
        ) from None


def passage(rng: np.random.Generator, words: int, vocabulary: Sequence[str] | None = None) -> str:
    """Draw `words` words uniformly and independently, joined by single spaces.

    Args:
        rng: source of the draws.
        words: how many words, at least 1.
        vocabulary: the words to draw from; None for the generated list.

    Raises:
        ValueError: `words` is below 1.
    """
    if words < 1:
        raise ValueError(f"a passage needs at least 1 word, not {words}")
    listed = word_list() if vocabulary is None else vocabulary
    return " ".join(listed[i] for i in rng.integers(len(listed), size=words))


def examples(
    count: int, words: int, seed: int, vocabulary: Sequence[str] | None = None
) -> list[Example]:
    """Draw `count` passages of `words` words as the paper's memorisation examples.

    A longer list begins with the examples of a shorter one with the same seed.

    Args:
        count: how many examples, 0 or more.
        words: words a passage, at least 1.
        seed: seed of the generator, 0 or more.
        vocabulary: the words to draw from; None for the generated list.

    Raises:
        ValueError: a negative `count` or `seed`, or `words` below 1.
    """
    if count < 0 or seed < 0:
        raise ValueError(f"count and seed must be 0 or more, not {count} and {seed}")
    if words < 1:
        raise ValueError(f"a passage needs at least 1 word, not {words}")
    rng = np.random.default_rng(seed)
    texts = (passage(rng, words, vocabulary) for _ in range(count))
    return [Example(PROMPT.format(passage=text), text, entropy=0.0) for text in texts]


def _load(source: Source, request: Request) -> Found:
    if request.vocabulary == "generated" and request.path is not None:
        raise ValueError("the generated vocabulary reads no 'path'; set vocabulary: nltk")
    path = None if request.path is None else Path(request.path)
    vocabulary = nltk_words(path) if request.vocabulary == "nltk" else None
    found = examples(request.count, request.words, request.seed, vocabulary)
    return Found(found, f"data source '{source.name}'")


SOURCE = Source(
    name="random-words",
    kind="mixing",
    loader=_load,
    licence="none needed",
    prompt=PROMPT,
    prompt_from="the paper, appendix B",
    upstream="with vocabulary: nltk, the NLTK words corpus (words.zip; public domain)",
    note=f"from a generated list of {WORDS} words, unless vocabulary: nltk asks for the paper's",
)
