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

    The whole text is tokenised at once, so the target gets the tokens that it has in running text
    (SentencePiece tokenizers put a space before a text that stands alone). Where a token of the
    whole text straddles the boundary between prompt and target, the two are tokenised apart, so
    that the loss tokens always decode to exactly the target.

    Args:
        tokenizer: a fast tokenizer of transformers with an end token.
        example: prompt and target.

    Raises:
        ValueError: the tokenizer has no end token.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end token (eos_token)")
    prefix = PROMPT_FORMAT.format(prompt=example.prompt)
    ids, spans = _tokens_and_spans(tokenizer, prefix + example.target)
    boundary = len(prefix)
    if any(start < boundary < end for start, end in spans):
        ids, _ = _tokens_and_spans(tokenizer, prefix)
        carries = [False] * len(ids)
        target = list(tokenizer(example.target, add_special_tokens=False)["input_ids"])
        ids += target
        carries += [True] * len(target)
    else:
        carries = [end > boundary for _, end in spans]
    ids.append(tokenizer.eos_token_id)
    carries.append(True)
    labels = tuple(t if loss else IGNORED for t, loss in zip(ids, carries, strict=True))
    return TokenisedExample(ids=tuple(ids), labels=labels, text=example)


def _tokens_and_spans(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Tokens of `text` and the characters that each covers, without an end token of its own."""
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids, spans = list(encoded["input_ids"]), list(encoded["offset_mapping"])
    if ids and ids[-1] == tokenizer.eos_token_id and spans[-1][0] == spans[-1][1]:
        return ids[:-1], spans[:-1]  # some tokenizers append an end token themselves
    return ids, spans


def tokenise_all(tokenizer: Any, examples: Iterable[Example]) -> list[TokenisedExample]:
    """`tokenise` for each example, in order."""
    return [tokenise(tokenizer, example) for example in examples]
