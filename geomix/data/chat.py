"""Chat formats: the literal texts around the prompts and targets of an example."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from geomix.config.data import JINJA_SUFFIX, known_chat_template
from geomix.data.bounded import answers
from geomix.util.errors import UserError

TULU = "<|user|>\n{prompt}\n<|assistant|>\n{target}\n"
"""Tulu v2, the paper's training format (appendix B): a line break follows the end token."""


@dataclass(frozen=True, slots=True)
class Literals:
    """Texts around n exchanges.

    An example reads, for each exchange: `before`, the prompt, `between`, the target, `end`.

    Attributes:
        before: `(n,)`, text before each prompt: at the start, then after an end token.
        between: `(n,)`, text between each prompt and its target.
        end: the text of the token that ends an answer; one of the tokenizer's added tokens.
    """

    before: tuple[str, ...]
    between: tuple[str, ...]
    end: str


def _nothing(_: Collection[int]) -> None:
    """Do nothing: a plain format's texts need no rendering."""


@dataclass(frozen=True, slots=True)
class Template:
    """Template of a chat format, stored with a run.

    Attributes:
        now: the time that a Jinja template sees (`strftime_now`), ISO 8601, local time; empty if
            the template does not ask for it, so that two runs of one configuration store the same.
        text: of a Jinja template; None for a plain format, whose name is its text.
    """

    now: str
    text: str | None = None


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """Chat format as one tokenizer writes it.

    Attributes:
        name: as configured.
        literals: the texts around a number of exchanges; raises UserError if the template of a
            tokenizer or file cannot write that many.
        begins: whether the tokenizer prepends its own begin token; a Jinja template writes its own
            (the convention of transformers).
        template: the template it was made from.
        newline_loss: whether the line break after the end token of an inner answer carries loss, as
            in the paper's published code.
        prepare: renders the texts around several numbers of exchanges at once.
    """

    name: str
    literals: Callable[[int], Literals]
    begins: bool
    template: Template
    newline_loss: bool = False
    prepare: Callable[[Collection[int]], None] = _nothing


@cache
def moment() -> str:
    """Return the time of this process's first call: the time that a new run's template sees."""
    return datetime.now().isoformat()


def template_of(name: str, tokenizer: Any, now: str | None = None) -> Template:
    """Read the template that the configuration's `chat_template` names.

    Args:
        name: as for `chat_format`.
        tokenizer: of transformers.
        now: the time that it sees; None is `moment()`.

    Raises:
        UserError: there is no such format.
    """
    try:
        known_chat_template(name)
    except ValueError as error:
        raise UserError(f"chat template '{name}': {error}") from None
    if name.endswith(JINJA_SUFFIX):
        return _seeing(now, _read(name))
    if name != "tokenizer":
        return Template("")
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "chat template 'tokenizer': this tokenizer has none; give 'tulu', a .jinja file or a "
            "text with {prompt} and {target}"
        )
    try:
        return _seeing(now, tokenizer.get_chat_template())
    except ValueError as error:  # several, and none of them is the default
        raise UserError(f"chat template 'tokenizer': {' '.join(str(error).split())}") from None


def _seeing(now: str | None, text: str) -> Template:
    return Template((now or moment()) if "strftime_now" in text else "", text)


def chat_format(
    name: str, tokenizer: Any, template: Template | None = None, *, newline_loss: bool = False
) -> ChatFormat:
    r"""Build the format that the configuration's `chat_template` names.

    Args:
        name: `tulu`, `tokenizer`, the path of a `.jinja` file, or a plain format such as `"Q:
            {prompt}\nA: {target}"`, whose end token follows the target directly.
        tokenizer: of transformers, with an end token.
        template: the one stored in a run; None reads the file or the tokenizer as it is now.
        newline_loss: as in `ChatFormat`.

    Raises:
        UserError: there is no such format, or its template cannot be used.
        ValueError: the tokenizer has no end token.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end token (eos_token)")
    template = template or template_of(name, tokenizer)
    if template.text is None:
        plain = TULU if name == "tulu" else name
        literals = partial(_plain, plain, tokenizer.eos_token)
        return ChatFormat(name, literals, True, template, newline_loss)
    rendered = _Jinja(name, template, tokenizer)
    rendered.literals(1)  # an unusable template fails now, not at the first example
    return ChatFormat(name, rendered.literals, False, template, newline_loss, rendered.prepare)


def _plain(text: str, end: str, n: int) -> Literals:
    before, rest = text.split("{prompt}")
    between, after = rest.split("{target}")
    again = _without(end, after + before)  # the format may write the end token itself
    return Literals((before, *[again] * (n - 1)), (between,) * n, end)


def _read(path: str) -> str:
    file = Path(path)
    try:
        if file.exists() and not file.is_file():  # a pipe would block for ever
            raise OSError("it is no regular file")
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"chat template '{path}': no such file") from None
    except (OSError, ValueError) as error:  # not UTF-8, or a NUL in the path
        raise UserError(f"chat template '{path}': cannot be read as text ({error})") from None


_RENDERED: dict[tuple[str, str, str, int], dict[str, Any]] = {}
"""Rendered texts by template text, time, special tokens and number of exchanges."""


@dataclass(frozen=True, slots=True)
class _Jinja:
    """Jinja template, rendered around sentinels in a child process (`geomix.data.bounded`).

    Attributes:
        name: as configured.
        template: its text, and the time that it sees.
        tokenizer: provides the special tokens that it sees.
    """

    name: str
    template: Template
    tokenizer: Any
    _known: dict[int, Literals] = field(default_factory=dict)

    def literals(self, n: int) -> Literals:
        """Return the texts around n exchanges.

        Raises:
            UserError: the template cannot be used for them.
        """
        if n not in self._known:
            self.prepare([n])
            self._known[n] = _literals(self._where(n), self._text(n), n, self.tokenizer)
        return self._known[n]

    def prepare(self, counts: Collection[int]) -> None:
        """Render all numbers of exchanges that are not known yet in one child."""
        left = sorted(n for n in {*counts} if self._key(n) not in _RENDERED)
        if not left:
            return
        request = {
            "template": self.template.text,
            "now": self.template.now,
            "special": self._special(),
            "conversations": [_conversation(n) for n in left],
        }
        found, why = answers("render", request, len(left))
        if why:  # the failure belongs to the first unanswered one
            found.append({"error": why, "message": "", "line": None})
        for n, answer in zip(left, found, strict=False):  # after a fatal one the rest are unknown
            _RENDERED[self._key(n)] = answer

    def _text(self, n: int) -> str:
        known = _RENDERED[self._key(n)]
        if "text" in known:
            return str(known["text"])
        message = f"{known['error']}: {' '.join(known['message'].split())}".rstrip(": ")
        line = f" (line {known['line']})" if known["line"] else ""
        raise UserError(f"{self._where(n)}: {message}{line}")

    def _special(self) -> dict[str, Any]:
        return dict(self.tokenizer.special_tokens_map)

    def _key(self, n: int) -> tuple[str, str, str, int]:
        special = json.dumps(self._special(), sort_keys=True, default=str)
        return str(self.template.text), self.template.now, special, n

    def _where(self, n: int) -> str:
        return f"chat template '{self.name}' with {n} exchange{'s' if n > 1 else ''}"


def _marks(n: int) -> list[str]:
    """Return sentinels for the prompts and targets of n exchanges."""
    return [f"geomix{role}{i:05d}xq" for i in range(1, n + 1) for role in ("prompt", "target")]


def _conversation(n: int) -> list[dict[str, str]]:
    roles = ("user", "assistant") * n
    return [{"role": role, "content": mark} for role, mark in zip(roles, _marks(n), strict=True)]


def _literals(where: str, rendered: str, n: int, tokenizer: Any) -> Literals:
    """Split n rendered exchanges at their sentinels.

    Templates strip contents and put texts of their own between them (a system prompt, an empty
    `<think>` block before the last answer); the text between the sentinels is what they write.
    """
    parts = []
    rest = rendered
    for i, mark in enumerate(_marks(n)):
        what = f"{('prompt', 'target')[i % 2]} {i // 2 + 1}"
        if rendered.count(mark) != 1:
            times = rendered.count(mark)
            wrong = f"writes {what} {times} times, not once" if times else f"leaves {what} out"
            raise UserError(f"{where}: {wrong}; it must write every prompt and target once")
        part, found, rest = rest.partition(mark)
        if not found:
            raise UserError(f"{where}: writes {what} before what precedes it in the conversation")
        parts.append(part)
    end = _end_token(rest, tokenizer)
    if rest.lstrip().startswith("<|") and not rest.lstrip().startswith(end):
        raise UserError(
            f"{where}: ends an answer in {rest.split()[0]!r:.40}, which is no token of this "
            "tokenizer; take a template of its own, or add the token to it"
        )
    before = (parts[0], *(_without(end, part) for part in parts[2::2]))
    return Literals(before, tuple(parts[1::2]), end)


def _end_token(after: str, tokenizer: Any) -> str:
    """Return the added token that a template writes after its last answer, or the tokenizer's.

    Spaces that Llama 2's template writes before it are dropped: an answer has none there.
    """
    added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    written = [token for token in added if token.strip() and after.lstrip().startswith(token)]
    end: str = max(written, key=len, default=tokenizer.eos_token)
    return end


def _without(end: str, after: str) -> str:
    """Return the text after an answer's end token; some templates end only the last answer."""
    return after.lstrip().removeprefix(end) if after.lstrip().startswith(end) else after
