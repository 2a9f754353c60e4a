"""Selection of exactly as many examples as requested, or a line that explains why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from typing import Any, Literal

from geomix.config.source_names import is_hub_id, is_own, is_path, unknown_source
from geomix.data.example import Example
from geomix.data.sources import SOURCES
from geomix.data.sources import user_files as own
from geomix.data.sources.base import Found, Request, Source
from geomix.data.sources.rows import held_out_of
from geomix.data.sources.stand_in import stand_ins
from geomix.util.errors import Unreachable, UserError

Short = Literal["error", "repeat", "fewer"]
"""Treatment of a request for more examples than a source has."""


Unusable = Callable[[Sequence[Example]], Sequence[str]]
"""Function that returns why a run cannot use each example, such as `too long`; empty if it can."""

AT_LEAST = 1_000
"""Examples examined before a source without any usable example is given up."""

PATIENCE = 100
"""Examples examined per requested one before a source with some usable ones is given up."""


@dataclass(frozen=True, slots=True)
class Selected:
    """Examples of a source that a run uses.

    Attributes:
        examples: in the source's order.
        dropped: number skipped on the way, by reason.
    """

    examples: list[Example]
    dropped: dict[str, int] = field(default_factory=dict)


def examples_of(
    source: str, request: Request, short: Short = "error", advice: str = "set limit: {found}"
) -> list[Example]:
    """Return exactly `count` examples of a named source, of a file, or of a hub dataset.

    This is `select` without skipping any.
    """
    return select(source, request, short, advice).examples


def select(
    source: str,
    request: Request,
    short: Short = "error",
    advice: str = "set limit: {found}",
    unusable: Unusable | None = None,
) -> Selected:
    """Return the first `count` usable examples of a named source, of a file, or of a hub dataset.

    This is the only place that decides what happens if there are fewer.

    Args:
        source: its name, path or hub id.
        request: the request.
        short: whether too few are an error, are repeated in their order, whole rounds first, up to
            `count` (none at all is an error even then), or are returned as they are.
        advice: ends the message that they are too few.
        unusable: returns for each example why it is skipped; None uses all.

    Raises:
        UserError: the source cannot satisfy the request.
    """
    if request.every:
        return _every(source, request, unusable)
    tried = count = request.count
    while True:
        has = found_in(source, replace(request, count=tried))
        reasons = unusable(has.examples) if unusable else [""] * len(has.examples)
        kept = [i for i, reason in enumerate(reasons) if not reason]
        enough = max(AT_LEAST, count if not kept else PATIENCE * count)
        given_up = len(kept) < count and len(has.examples) >= tried >= enough
        if len(kept) >= count or len(has.examples) < tried or given_up:
            break
        tried = max(2 * tried, AT_LEAST)
    kept = kept[:count]
    last = kept[-1] if len(kept) == count else len(reasons) - 1
    dropped = Counter(reason for reason in reasons[: last + 1] if reason)
    found = [has.examples[i] for i in kept]
    if found and short == "repeat":
        found = list(islice(cycle(found), count))
    if len(found) < count and short != "fewer":
        passed = "".join(f", {n} {reason}" for reason, n in dropped.items())
        if given_up:
            passed += f" (given up after the first {len(reasons)} of its examples)"
        choices = f"; {left_over(len(found))}" if is_own(source) else ""
        end = f"; {advice.format(found=len(found), left_over=choices)}" if found else ""
        if dropped and not found:
            end = "; no other is left: look at max_tokens and familiar"
        raise UserError(
            f"{has.origin}: {len(found)} examples found{has.among}{passed}, {count} asked for{end}"
        )
    return Selected(found, dict(dropped))


def _every(source: str, request: Request, unusable: Unusable | None) -> Selected:
    """Return all usable examples; nothing replaces the others."""
    has = found_in(source, request)
    reasons = unusable(has.examples) if unusable else [""] * len(has.examples)
    kept = [example for example, reason in zip(has.examples, reasons, strict=True) if not reason]
    dropped = Counter(filter(None, reasons))
    if not kept and request.split == "train":
        passed = "".join(f", {n} {reason}" for reason, n in dropped.items())
        raise UserError(f"{has.origin}: 0 examples found{has.among}{passed}")
    return Selected(kept, dict(dropped))


def left_over(rows: int) -> str:
    """Return what training on every row of a file costs, and the choice that keeps some."""
    held = held_out_of(rows)
    keeps = f", {rows - held} keeps {held}" if held else ""
    return f"{rows} leaves nothing held out{keeps}"


_read: ContextVar[dict[tuple[str, Request], Found] | None] = ContextVar("_read", default=None)


@contextmanager
def reading_once() -> Iterator[None]:
    """Cache requests within the block: the arms of a comparison share most of them."""
    token = _read.set({})
    try:
        yield
    finally:
        _read.reset(token)


def found_in(source: str, request: Request) -> Found:
    """Return a source's examples for a request, up to `count`.

    Raises:
        UserError: the source cannot be read, or not in this way.
    """
    absent = stand_ins()
    if absent is None:
        return _once(source, request)
    try:
        if not absent.knows(source, request):
            return _once(source, request)
    except Unreachable as error:
        absent.note(source, request, error)
    return absent.found(source, SOURCES.get(source), request)


def _once(source: str, request: Request) -> Found:
    known = _read.get()
    if known is None:
        return _found_in(source, request)
    if (source, request) not in known:
        known[source, request] = _found_in(source, request)
    return known[source, request]


def _found_in(source: str, request: Request) -> Found:
    if source not in SOURCES and (is_path(source) or is_hub_id(source)):
        return own.found_in(source, request)
    found = source_named(source)
    _check(found, request)
    if request.every and not (found.upstream and found.rows):
        raise UserError(f"data source '{source}': limit: null: it has no end; give a number")
    try:
        return found.load(request)
    except ValueError as error:
        raise UserError(f"data source '{source}': {error}") from None


def described(source: str, request: Request) -> dict[str, Any]:
    """Describe the examples' origin for `data.json`: the parts of a request that its source uses.

    `seed` is the one that they were drawn with; null if they are taken in the file's order.
    """
    known = SOURCES.get(source)
    facts: dict[str, Any] = {
        "name": source,
        "path": request.path,
        "subset": request.subset,
        "split": request.split,
        "seed": request.seed if known else None,
    }
    if known and known.kind == "mixing":
        facts["words"] = request.words
    if source == "random-words":
        facts["vocabulary"] = request.vocabulary
    if not known:
        facts["columns"] = request.columns and request.columns.model_dump()
        facts["template"] = request.template
    return facts


def source_named(name: str) -> Source:
    """Return the registered source of that name.

    Raises:
        UserError: there is none.
    """
    if name not in SOURCES:
        raise UserError(f"{name}: {unknown_source(name, SOURCES)}")
    return SOURCES[name]


def _check(source: Source, request: Request) -> None:
    """Reject keys that the source would ignore."""
    where = f"data source '{source.name}'"
    if request.columns or request.template:
        raise UserError(f"{where}: 'columns' and 'template' are for files and hub ids only")
    if request.path and not source.upstream:
        raise UserError(f"{where}: it is generated and reads no 'path'")
    if request.vocabulary != "generated" and source.name != "random-words":
        raise UserError(f"{where}: it has no 'vocabulary'; that is for random-words")
    if request.subset and not source.subsets:
        raise UserError(f"{where}: it has no subsets")
    if request.subset and request.subset not in source.subsets:
        known = ", ".join(source.subsets)
        raise UserError(f"{where}: it has no subset '{request.subset}'; known: {known}")
