"""One example as text and as tokens."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

IGNORED = -100
"""Label of a position that carries no loss (the convention of torch's cross entropy)."""


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and the target that the model should produce for it.

    Attributes:
        prompt: the user's text.
        target: the expected answer.
        aliases: every accepted answer, the target first; none if only the target is known.
        earlier: the exchanges before this one, (prompt, target) each, in a conversation.
        subject: the entity that a fact is about, if its source names it; never trained on.
        entropy: bits of the target given the prompt and all of its generator but the seed, as its
            source states them: 0 where the prompt decides it, None where that is not known.
    """

    prompt: str
    target: str
    aliases: tuple[str, ...] = ()
    earlier: tuple[tuple[str, str], ...] = ()
    subject: str = ""
    entropy: float | None = field(default=None, compare=False)

    def texts(self) -> dict[str, Any]:
        """All but what only its source knows: what files keep of it."""
        found = asdict(self)
        del found["entropy"]
        return found


@dataclass(frozen=True, slots=True)
class TokenisedExample:
    """An example after the chat template and the tokenizer.

    Attributes:
        ids: token ids of prompt, target and end token, `(t,)`; of earlier exchanges before them.
        labels: `(t,)`, the token's own id where it carries loss, `IGNORED` elsewhere. `labels[i]`
            is predicted from position `i - 1`; `labels[0]` is always `IGNORED`.
        text: the example as text.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    text: Example

    @property
    def target_tokens(self) -> int:
        """Number of tokens that carry loss (including the end token)."""
        return sum(label != IGNORED for label in self.labels)

    @property
    def target_start(self) -> int:
        """Position of the target's first token; the tokens before it are the model's input.

        In a conversation this is the last answer: earlier ones carry loss too.
        """
        last = len(self.labels) - 1
        while self.labels[last] == IGNORED:
            last -= 1
        while last and self.labels[last - 1] != IGNORED:
            last -= 1
        return last
