"""Chat formats: the literal texts that stand around the prompts and targets of an example."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from geomix.config_data import JINJA_SUFFIX, known_chat_template
from geomix.errors import UserError

TULU = "<|user|>\n{prompt}\n<|assistant|>\n{target}\n"
"""Tulu v2, in which the paper trains (appendix B): a line break follows the end token."""


PATIENCE = 5.0
"""Seconds of CPU time that a Jinja template may take; real ones take milliseconds."""


@dataclass(frozen=True, slots=True)
class Literals:
    """The texts around n exchanges.

    An example reads, for each exchange: `before`, the prompt, `between`, the target, `end`.

    Attributes:
        before: `(n,)`, what stands before each prompt: at the start, then after an end token.
        between: `(n,)`, what stands between each prompt and its target.
        end: the text of the token that ends an answer; one token of the tokenizer's added ones.
    """

    before: tuple[str, ...]
    between: tuple[str, ...]
    end: str


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A chat format as one tokenizer writes it.

    Attributes:
        literals: the texts around so many exchanges; raises UserError where the template of a
            tokenizer or file cannot write that many.
        begins: whether the tokenizer puts its own begin token first; a Jinja template writes its
            own (the convention of transformers).
    """

    literals: Callable[[int], Literals]
    begins: bool


def chat_format(name: str, tokenizer: Any) -> ChatFormat:
    r"""The format that a `chat_template` of the configuration means.

    Args:
        name: `tulu`, `tokenizer`, the path of a `.jinja` file, or a plain format such as
            `"Q: {prompt}\nA: {target}"`, whose end token follows the target directly.
        tokenizer: of transformers, with an end token.

    Raises:
        UserError: there is no such format, or its template cannot be used.
        ValueError: the tokenizer has no end token.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end token (eos_token)")
    try:
        known_chat_template(name)
    except ValueError as error:
        raise UserError(f"chat template '{name}': {error}") from None
    if name != "tokenizer" and not name.endswith(JINJA_SUFFIX):
        plain = TULU if name == "tulu" else name
        return ChatFormat(partial(_plain, plain, tokenizer.eos_token), begins=True)
    template = None if name == "tokenizer" else _read(name)
    if template is None and not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "chat template 'tokenizer': this tokenizer has none; give 'tulu', a .jinja file or a "
            "text with {prompt} and {target}"
        )
    literals = cache(partial(_jinja, name, template, tokenizer))
    literals(1)  # an unusable template is an error now, not at the first example
    return ChatFormat(literals, begins=False)


def _plain(text: str, end: str, n: int) -> Literals:
    before, rest = text.split("{prompt}")
    between, after = rest.split("{target}")
    return Literals((before, *[after + before] * (n - 1)), (between,) * n, end)


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


def _jinja(name: str, template: str | None, tokenizer: Any, n: int) -> Literals:
    """Render n exchanges of sentinels and cut at them.

    Templates strip contents and put texts of their own between them (a system prompt, an empty
    `<think>` block before the last answer); what is between the sentinels is what they write.
    """
    marks = [f"geomix{role}{i:05d}xq" for i in range(1, n + 1) for role in ("prompt", "target")]
    roles = ("user", "assistant") * n
    messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
    where = f"chat template '{name}' with {n} exchange{'s' if n > 1 else ''}"
    try:  # transformers renders in Jinja's sandbox
        with _for_seconds(PATIENCE):
            rendered = tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False
            )
        rendered.encode()  # a template may write half a character
    except Exception as error:  # a template raises anything
        said = " ".join(str(error).split())
        line = getattr(error, "lineno", None)
        said += f" (line {line})" if line else ""
        raise UserError(f"{where}: {f'{type(error).__name__}: {said}'.rstrip(': ')}") from None
    pieces = []
    rest = rendered
    for i, mark in enumerate(marks):
        what = f"{('prompt', 'target')[i % 2]} {i // 2 + 1}"
        if rendered.count(mark) != 1:
            times = rendered.count(mark)
            wrong = f"writes {what} {times} times, not once" if times else f"leaves {what} out"
            raise UserError(f"{where}: {wrong}; it must write every prompt and target once")
        piece, found, rest = rest.partition(mark)
        if not found:
            raise UserError(f"{where}: writes {what} before what precedes it in the conversation")
        pieces.append(piece)
    end = _end_token(rest, tokenizer)
    if rest.lstrip().startswith("<|") and not rest.lstrip().startswith(end):
        raise UserError(
            f"{where}: ends an answer in {rest.split()[0]!r:.40}, which is no token of this "
            "tokenizer; take a template of its own, or add the token to it"
        )
    before = (pieces[0], *(_without(end, piece) for piece in pieces[2::2]))
    return Literals(before, tuple(pieces[1::2]), end)


@contextmanager
def _for_seconds(most: float) -> Iterator[None]:
    """Interrupt what takes more CPU time: the sandbox bounds a loop, not loops within loops.

    Raises:
        TimeoutError: it took more.
    """
    if threading.current_thread() is not threading.main_thread():  # signals reach no other
        yield
        return

    def interrupt(*_: object) -> None:
        raise TimeoutError(f"not done after {most:g} seconds")

    before = signal.signal(signal.SIGPROF, interrupt)
    signal.setitimer(signal.ITIMER_PROF, most)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _end_token(after: str, tokenizer: Any) -> str:
    """The added token that a template writes after its last answer, else the tokenizer's own.

    Spaces that Llama 2's template writes before it are left out: an answer has none there.
    """
    added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    written = [token for token in added if token.strip() and after.lstrip().startswith(token)]
    end: str = max(written, key=len, default=tokenizer.eos_token)
    return end


def _without(end: str, after: str) -> str:
    """What follows an answer's end token; some templates end the last answer only."""
    return after.lstrip().removeprefix(end) if after.lstrip().startswith(end) else after
