"""The chat template and the label mask: which tokens the model sees and which carry loss.

Source: the paper trains both stages in the Tulu v2 format with the loss on the target (appendix B).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from geomix.data.example import IGNORED, Example, TokenisedExample

PROMPT_FORMAT = "<|user|>\n{prompt}\n<|assistant|>\n"
"""Tulu v2: everything before the target. The target is followed by the tokenizer's end token."""


def tokenise(tokenizer: Any, example: Example) -> TokenisedExample:
    """Put one example into the Tulu v2 format; the target and the end token carry the loss.

    In a conversation, those of every earlier exchange do too.

    The whole text is tokenised at once, so the target gets the tokens that it has in running text
    (SentencePiece tokenizers put a space before a text that stands alone). Where a token of the
    whole text straddles the boundary between prompt and target, the two are tokenised apart, so
    that the loss tokens always decode to exactly the target.

    Args:
        tokenizer: a fast tokenizer of transformers with an end token.
        example: prompt and target, and the exchanges before them.

    Raises:
        ValueError: the tokenizer has no end token.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end token (eos_token)")
    ids: list[int] = []
    carries: list[bool] = []
    for prompt, target in (*example.earlier, (example.prompt, example.target)):
        between = "\n" if ids else ""  # Tulu v2 breaks the line after an end token
        prefix = between + PROMPT_FORMAT.format(prompt=prompt)
        _append(tokenizer, prefix, target, ids, carries)
    labels = tuple(t if loss else IGNORED for t, loss in zip(ids, carries, strict=True))
    return TokenisedExample(ids=tuple(ids), labels=labels, text=example)


def _append(tokenizer: Any, prefix: str, target: str, ids: list[int], carries: list[bool]) -> None:
    """Append one exchange and its end token; only the first begins with a begin token."""
    start = not ids
    added, spans = _tokens_and_spans(tokenizer, prefix + target, start=start)
    boundary = len(prefix)
    if any(first < boundary < last for first, last in spans):
        added, _ = _tokens_and_spans(tokenizer, prefix, start=start)
        loss = [False] * len(added)
        apart = list(tokenizer(target, add_special_tokens=False)["input_ids"])
        added += apart
        loss += [True] * len(apart)
    else:
        loss = [last > boundary for _, last in spans]
    ids += [*added, tokenizer.eos_token_id]
    carries += [*loss, True]


def _tokens_and_spans(
    tokenizer: Any, text: str, *, start: bool
) -> tuple[list[int], list[tuple[int, int]]]:
    """Tokens of `text` and the characters that each covers, without an end token of its own."""
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=start)
    ids, spans = list(encoded["input_ids"]), list(encoded["offset_mapping"])
    if ids and ids[-1] == tokenizer.eos_token_id and spans[-1][0] == spans[-1][1]:
        return ids[:-1], spans[:-1]  # some tokenizers append an end token themselves
    return ids, spans


def tokenise_all(tokenizer: Any, examples: Iterable[Example]) -> list[TokenisedExample]:
    """`tokenise` for each example, in order."""
    return [tokenise(tokenizer, example) for example in examples]
