"""Tokenisation: a chat format around each example, and the label mask.

The mask marks the tokens that carry loss. Source: the paper takes the loss on the target (appendix
B).
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise, takewhile
from typing import Any

from geomix.data.chat import ChatFormat, Literals, chat_format
from geomix.data.ends import Beginning, check_ends
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.data.foreign import check_tokenizer, where_of
from geomix.util.errors import one_line
from geomix.util.progress import during

BATCH = 1_000
"""Texts in one call of the tokenizer; more gains no speed and holds more offsets in memory."""

GUARDS = ("\n", ">", "a", "0", "。")
"""Characters put before a target that is tokenised apart, tried in this order."""

Encoded = tuple[list[int], list[tuple[int, int]]]
"""Token ids, with the characters that each covers, first and one past the last."""


def tokenise(tokenizer: Any, example: Example, chat: ChatFormat | None = None) -> TokenisedExample:
    """Tokenise one example with `tokenise_all`."""
    return tokenise_all(tokenizer, [example], chat)[0]


@during(lambda *_, **__: "tokenising")
def tokenise_all(
    tokenizer: Any, examples: Iterable[Example], chat: ChatFormat | None = None
) -> list[TokenisedExample]:
    """Put examples into a chat format; each target and its end token carry the loss.

    In a conversation, those of every exchange do. Nothing follows the last end token.

    The whole text is tokenised at once, so a target gets the tokens that it has in running text. If
    a token covers characters on both sides of a target's boundary, the targets of that example are
    tokenised apart, so that the loss tokens of each decode, after the tokens before them, to
    exactly the target and its end token. The same applies if a tokenizer inserts a space after
    special tokens and the target follows one (Llama 2's, GPT-2's with a prefix space).

    Whatever a tokenizer itself cannot restore remains so: a normaliser's changes, unknown
    characters without byte fallback, "▁" (SentencePiece's space), and "</s>" and the like in a
    text, which become special tokens. The mask then still covers the tokens of the target and no
    others.

    Args:
        tokenizer: a fast tokenizer of transformers with an end token.
        examples: prompt and target, and the exchanges before them.
        chat: the format; Tulu v2 by default.

    Raises:
        UserError: the format's template cannot write a conversation of that many exchanges, an
            example would begin or end twice, or the tokenizer fails.
        ValueError: the tokenizer has no end token.
    """
    chat = chat or chat_format("tulu", tokenizer)
    waiting, made = iter(examples), list[TokenisedExample]()
    begin: Beginning | None = None
    while part := list(islice(waiting, BATCH)):
        chat.prepare({len(e.earlier) + 1 for e in part})
        texts = [_text_of(e, chat.literals(len(e.earlier) + 1), chat.newline_loss) for e in part]
        check_tokenizer(tokenizer, [text.text for text in texts])
        with one_line(where_of(tokenizer)):
            begin = begin or Beginning.of(tokenizer, chat)
            with _exact_offsets(tokenizer):
                tokens = _tokens_and_labels(tokenizer, texts)
        for example, (ids, labels) in zip(part, tokens, strict=True):
            added = begin.before(ids, example)
            check_ends(ids, labels, example, chat)
            none = (IGNORED,) * len(added)
            made.append(TokenisedExample((*added, *ids), (*none, *labels), example))
    return made


@dataclass(frozen=True, slots=True)
class _Text:
    """An example in its format, up to its last end token.

    Attributes:
        text: the whole.
        targets: the characters of each target, first and one past the last.
        end: the text of the end token, which follows each target.
        newline_loss: whether a line break after an end token also carries loss.
    """

    text: str
    targets: list[tuple[int, int]]
    end: str
    newline_loss: bool


def _text_of(example: Example, literals: Literals, newline_loss: bool) -> _Text:
    text, targets = "", []
    exchanges = (*example.earlier, (example.prompt, example.target))
    for before, between, (prompt, target) in zip(
        literals.before, literals.between, exchanges, strict=True
    ):
        text += before + prompt + between
        targets.append((len(text), len(text) + len(target)))
        text += target + literals.end
    return _Text(text, targets, literals.end, newline_loss)


def _tokens_and_labels(tokenizer: Any, texts: Sequence[_Text]) -> list[tuple[list[int], list[int]]]:
    """Return the ids and labels of each text."""
    spaced = _tokens_before_spaces(tokenizer)
    encoded = _encode(tokenizer, [text.text for text in texts])
    labels = [
        _labels(ids, spans, text, tokenizer.convert_tokens_to_ids(text.end), spaced)
        for (ids, spans), text in zip(encoded, texts, strict=True)
    ]
    apart = iter(
        _apart(tokenizer, [t for t, given in zip(texts, labels, strict=True) if not given])
    )
    return [
        (ids, given) if given else next(apart)
        for (ids, _), given in zip(encoded, labels, strict=True)
    ]


def _labels(
    ids: list[int],
    spans: list[tuple[int, int]],
    text: _Text,
    end: int,
    spaced: frozenset[int],
) -> list[int] | None:
    """Label a text tokenised whole; None if a target does not begin and end at token boundaries."""
    labels = [IGNORED] * len(ids)
    starts = [first for first, _ in spans]
    for first, last in text.targets:
        start = bisect_left(starts, first)
        stop = bisect_left(starts, last, start)
        if stop == len(ids) or ids[stop] != end or starts[start] != first:
            return None
        if start and (spans[start - 1][1] > first or ids[start - 1] in spaced):
            return None
        after = stop + 1
        if text.newline_loss:
            after += _line_break(spans[after:], text.text, last + len(text.end))
        labels[start:after] = ids[start:after]
    return labels


def _line_break(spans: Sequence[tuple[int, int]], text: str, index: int) -> int:
    """Return how many of the first tokens of `spans` form a line break at a text's index.

    A token with more than the line break does not count.
    """
    if text[index : index + 1] != "\n":
        return 0
    return sum(1 for _ in takewhile(lambda span: span[1] <= index + 1, spans))


def _apart(tokenizer: Any, texts: Sequence[_Text]) -> list[tuple[list[int], list[int]]]:
    """Return ids and labels of texts whose targets are tokenised apart from their surroundings."""
    around, inside = [], []
    for text in texts:
        edges = [0, *(edge for target in text.targets for edge in target), len(text.text)]
        parts = [text.text[a:b] for a, b in pairwise(edges)]
        around += parts[::2]
        inside += parts[1::2]
    outer = iter(zip(_encode(tokenizer, around), around, strict=True))
    inner = iter(_alone(tokenizer, inside))
    made = []
    for text in texts:
        (ids, _), _ = next(outer)
        labels = [IGNORED] * len(ids)
        for _ in text.targets:
            target, ((after, spans), part) = next(inner), next(outer)
            carries = 1  # `after` begins with the end token
            if text.newline_loss:
                carries += _line_break(spans[1:], part, len(text.end))
            ids = [*ids, *target, *after]
            labels += [*target, *after[:carries], *[IGNORED] * (len(after) - carries)]
        made.append((ids, labels))
    return made


def _alone(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokenise texts as if something preceded them.

    SentencePiece tokenizers put a space before a text that stands alone, so each is tokenised after
    a guard, and the tokens after the guard are taken; alone only if every guard merges.
    """
    found: list[list[int] | None] = [None] * len(texts)
    for guard in (*GUARDS, ""):
        left = [i for i, ids in enumerate(found) if ids is None]
        for i, (ids, spans) in zip(
            left, _encode(tokenizer, [guard + texts[i] for i in left]), strict=True
        ):
            start = bisect_left(spans, (len(guard), 0))
            if not guard or (start and spans[start - 1][1] == len(guard)):
                found[i] = ids[start:]
    return [ids for ids in found if ids is not None]


def _tokens_before_spaces(tokenizer: Any) -> frozenset[int]:
    """Return the added tokens after which the tokenizer inserts a space: all of them or none."""
    probe = f"{tokenizer.eos_token}x"
    ((ids, _),) = _encode(tokenizer, [probe])
    faithful = tokenizer.decode(ids, clean_up_tokenization_spaces=False) == probe
    return frozenset() if faithful else frozenset(tokenizer.added_tokens_decoder)


def _encode(tokenizer: Any, texts: list[str]) -> list[Encoded]:
    """Return the tokens of each text, without begin or end token."""
    if not texts:
        return []
    # With threads, tokenizers before 0.23 would print a warning at every later fork.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))


@contextmanager
def _exact_offsets(tokenizer: Any) -> Iterator[None]:
    """Remove the post-processor within the block: byte-level ones cut spaces off the offsets."""
    backend = tokenizer.backend_tokenizer
    kept = backend.post_processor
    backend.post_processor = None
    try:
        yield
    finally:
        backend.post_processor = kept
