"""Work on foreign templates and tokenizers in a process of its own, within limits.

`geomix.data.bounded` starts this file as a script, so that it imports neither geomix nor anything
heavy. Stdin holds one request as JSON; each answer is a line on stdout.
"""

from __future__ import annotations

import json
import random
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

LONGEST = 1_000_000
"""Most characters that a template may write around the texts of one conversation."""

_ADDRESS = re.compile(r"\S+ at 0x[0-9a-fA-F]{6,}>")
"""Pattern of Python's default text for an object."""


def limit(seconds: float, extra: int) -> None:
    """Limit this process to some more CPU time and memory.

    The signal's default action ends the process even within one call of C, which a handler in
    Python would have to wait for.

    Args:
        seconds: of CPU time from now on.
        extra: bytes beyond those mapped now, where the system reports and limits them (Linux);
            elsewhere the parent watches.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 (pathlib is slow to import)
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        asked = mapped + extra
        within = asked if most == resource.RLIM_INFINITY else min(asked, most)
        resource.setrlimit(resource.RLIMIT_AS, (within, most))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)


def compiled(template: str, now: datetime) -> Any:
    """Compile a chat template as transformers does, at a given time.

    Source: `transformers.utils.chat_template_utils._compile_jinja_template` of transformers 5.
    """
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """Block that marks an answer; renders to its contents."""

        tags = {"generation"}  # noqa: RUF012 (Jinja's own class declares it)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            call = self.call_method("_written")
            return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

        def _written(self, caller: Callable[[], str]) -> str:
            return caller()

    def check(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(
                "Chat templates cannot store underscore-prefixed attributes on a namespace, "
                f"but got {name!r}. Please rename the attribute."
            )

    class Namespace(jinja2.utils.Namespace):
        """Namespace without names that begin with an underscore."""

        def __init__(*args: Any, **kwargs: Any) -> None:
            values = dict(*args[1:], **kwargs)
            for name in values:
                check(name)
            jinja2.utils.Namespace.__init__(args[0], values)

        def __setitem__(self, name: str, value: Any) -> None:
            check(name)
            super().__setitem__(name, value)

    class Dict:
        """Replacement for `dict` without its attributes."""

        def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
            return dict(*args, **kwargs)

        def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
            return dict.fromkeys(*args, **kwargs)

    def raise_exception(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    def tojson(
        x: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": now.strftime,
        "dict": Dict(),
        "namespace": Namespace,
    }
    return environment.from_string(template)


def render(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Render conversations; yield for each its `text`, or its error.

    Args:
        request: `template`, its text; `now`, the time that it sees, ISO 8601, or empty if it does
            not ask; `special`, the tokenizer's special tokens by name; `conversations`, a list of
            messages each; `seconds` and `extra` as in `limit`.
    """
    import jinja2.sandbox  # noqa: F401 (so that the limit is the template's alone)

    limit(request["seconds"], request["extra"])
    template = None
    for messages in request["conversations"]:
        try:
            if template is None:
                now = datetime.fromisoformat(request["now"]) if request["now"] else datetime.min
                template = compiled(request["template"], now)
            random.seed(0)  # the filter `random` and `lipsum` draw from it
            text = template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=False,
                **request["special"],
            )
            if len(text) > LONGEST:
                raise ValueError(f"writes {len(text):,} characters; at most {LONGEST:,} are taken")
            text.encode()  # a template may write a lone surrogate
            if found := _ADDRESS.search(text):
                raise ValueError(f"writes {found[0]}, which is another text in every process")
            yield {"text": text}
        except Exception as error:  # a template raises anything
            yield {
                "error": type(error).__name__,
                "message": str(error)[:LONGEST],
                "line": getattr(error, "lineno", None),
            }


def encode(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Try a tokenizer on texts; yield for each its number of `tokens`.

    Args:
        request: `tokenizer`, its `tokenizer.json`; `texts`; `seconds` and `extra` as in `limit`.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(request["tokenizer"])
    limit(request["seconds"], request["extra"])
    for text in request["texts"]:
        yield {"tokens": len(tokenizer.encode(text, add_special_tokens=False).ids)}


def reply(answer: dict[str, Any]) -> None:
    """Write an answer as a flushed line, which survives the end of this process."""
    out = sys.stdout  # noqa: TID251 (a pipe to the parent, and no terminal)
    out.write(json.dumps(answer) + "\n")
    out.flush()


def main() -> None:
    """Answer the request on stdin."""
    request = json.loads(sys.stdin.buffer.read())
    work = {"render": render, "encode": encode}[request["work"]]
    try:
        for answer in work(request):
            reply(answer)
    except BaseException as error:  # a panic of a library in Rust is no Exception
        reason = " ".join(str(error).split()) or type(error).__name__
        reply({"failed": reason[:LONGEST]})


if __name__ == "__main__":
    main()
