"""Special tokens at the ends of an example: each occurs once, whoever writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from geomix.data.chat import ChatFormat
from geomix.data.example import IGNORED, Example
from geomix.util.errors import UserError

_SHOWN = 60
"""Most characters of an example that a message shows."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """Begin tokens of a tokenizer, which a format or a text may write as well.

    Attributes:
        tokens: ids that the tokenizer puts before any text; none for most Jinja templates' use.
        kinds: ids that begin a text, whoever writes them.
        chat: the format.
        shown: the begin token's text.
    """

    tokens: tuple[int, ...]
    kinds: frozenset[int]
    chat: ChatFormat
    shown: str

    @classmethod
    def of(cls, tokenizer: Any, chat: ChatFormat) -> Beginning:
        """Return the begin tokens of a tokenizer in a format.

        Raises:
            UserError: the format writes white space and then a begin token, so that the tokenizer's
                own would be a second one.
        """
        own = begin_tokens(tokenizer)
        bos = tokenizer.bos_token_id
        kinds = frozenset(own if bos is None else {*own, bos})
        shown = tokenizer.decode(own or sorted(kinds))
        made = cls(tuple(own) if chat.begins else (), kinds, chat, shown)
        first = chat.literals(1).before[0]
        if made.tokens and first != first.lstrip():
            texts = [first, first.lstrip()]
            whole, bare = tokenizer(texts, add_special_tokens=False)["input_ids"]
            if bare and bare[0] in kinds and whole[0] not in kinds:
                raise UserError(
                    f"chat template {chat.name!r:.{_SHOWN}}: white space before the begin token "
                    f"{shown!r}; leave out either, as the tokenizer writes that token itself"
                )
        return made

    def before(self, ids: Sequence[int], example: Example) -> tuple[int, ...]:
        """Return the tokens to put before an example: none if it already begins with one.

        Raises:
            UserError: it begins with the same one twice.
        """
        if not ids or ids[0] not in self.kinds:
            return self.tokens
        written = list(takewhile(self.kinds.__contains__, ids))
        if len({*written}) < len(written):
            raise UserError(
                f"chat template {self.chat.name!r:.{_SHOWN}}: the example "
                f"{example.prompt!r:.{_SHOWN}} begins with more than one begin token "
                f"({self.shown!r}); write it once"
            )
        return ()


def begin_tokens(tokenizer: Any) -> list[int]:
    """Return the ids that the tokenizer puts before any text: a begin token, or none."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    mask = [*encoded["special_tokens_mask"], 0]
    return list(encoded["input_ids"][: mask.index(0)])


def check_ends(
    ids: Sequence[int], labels: Sequence[int], example: Example, chat: ChatFormat
) -> None:
    """Reject an answer that is followed by two end tokens.

    Args:
        ids: of the example.
        labels: `IGNORED` where no loss is carried; an answer's last label is its end token.
        example: as text.
        chat: its format.

    Raises:
        UserError: the target's text ends in the end token, or the format writes another after it.
    """
    end = labels[-1]
    if ids.count(end) == len(example.earlier) + 1:
        return
    for i, label in enumerate(labels):
        if label != end or ids[i + 1 : i + 2] != [end]:
            continue
        end_text = repr(chat.literals(1).end)
        if labels[i + 1] == IGNORED:
            raise UserError(
                f"chat template {chat.name!r:.{_SHOWN}}: writes the end token {end_text} after "
                "each target, which geomix writes itself; leave it out"
            )
        raise UserError(
            f"the target {example.target[-_SHOWN:]!r} of {example.prompt!r:.{_SHOWN}}: a target "
            f"that ends in the end token {end_text}, which geomix writes itself; leave it out"
        )
