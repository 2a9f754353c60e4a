"""`geomix data`: the available sources, and examples of one as the model sees them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from rich.table import Table
from rich.text import Text

from geomix.config.names import REPLAY
from geomix.config.source_names import FILE_SUFFIXES
from geomix.data.example import IGNORED, TokenisedExample
from geomix.data.foreign import where_of
from geomix.data.sources import SOURCES
from geomix.data.sources.base import GENERATED, Request, Source
from geomix.data.sources.select import examples_of
from geomix.util.console import Console
from geomix.util.errors import one_line
from geomix.util.terminal import echo_json, harmless

HEADINGS = {"factoid": "factoids", "non-factoid": "non-factoids", "mixing": "mixing data"}

LONGEST = 600
"""Most characters of a stretch of text on the terminal; longer ones are shortened."""

_KEPT = 250  # characters kept at either end


@dataclass(frozen=True, slots=True)
class Stretch:
    """Adjacent tokens that all carry loss, or none of which does."""

    text: str
    loss: bool


def describe(source: Source) -> dict[str, Any]:
    """Return all facts of a source except its code."""
    known = {key: value for key in _FIELDS if (value := getattr(source, key)) not in ("", (), None)}
    if source.hub:
        known["hub"] = asdict(source.hub)
    return known


_FIELDS = (
    *("name", "kind", "origin", "licence", "rows", "prompt", "prompt_from"),
    *("upstream", "download", "subsets", "note"),
)


def source_table() -> Table:
    """Build a table of sources under the heading of their kind; at most 80 columns wide."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("licence")
    table.add_column("from", overflow="fold")
    for kind, heading in HEADINGS.items():
        table.add_row(Text(heading, style="bold"))
        for source in SOURCES.values():
            if source.kind == kind:
                endless = "any number" if source.origin == GENERATED else "streamed"
                rows = f"{source.rows:,}" if source.rows else endless
                table.add_row(source.name, rows, source.licence, source.origin)
    table.add_row(REPLAY, "a share", "", "earlier stages; a key of a stage")
    return table


def list_sources(as_json: bool) -> None:
    """Print the sources: the body of `geomix data list`."""
    if as_json:
        echo_json([describe(s) for s in SOURCES.values()])
        return
    console = Console()
    console.print(source_table())
    files = ", ".join(FILE_SUFFIXES)
    console.print(f"\nyour own: a file ({files}) or a hub id owner/name")
    console.print("next: geomix data show NAME")


def stretches(tokenizer: Any, example: TokenisedExample) -> list[Stretch]:
    """Split the text of an example as the model sees it where the loss begins and ends."""
    found: list[Stretch] = []
    start, before = 0, ""
    carries = [label != IGNORED for label in example.labels]
    for end in range(1, len(carries) + 1):
        if end == len(carries) or carries[end] != carries[start]:
            # The added text: decoded alone, SentencePiece's tokens would lose a leading space.
            with one_line(where_of(tokenizer)):
                text = tokenizer.decode(example.ids[:end], clean_up_tokenization_spaces=False)
            found.append(Stretch(text[len(before) :], carries[start]))
            start, before = end, text
    return found


def show_source(
    name: str, request: Request, model: str, chat_template: str, *, full: bool, as_json: bool
) -> None:
    """Print examples: the body of `geomix data show`.

    Args:
        name: a source, a file or a hub id.
        request: number and kind of examples.
        model: the model whose tokenizer is used.
        chat_template: the format around them, as a run's `chat_template`.
        full: whether long texts are shown whole.
        as_json: whether to print everything as JSON.

    Raises:
        UserError: the source or the tokenizer cannot be read, or the chat template not be used.
    """
    examples = examples_of(name, request, "fewer" if request.split == "held-out" else "error")
    # Reading first: a mistake in the request shows before the tokenizer's library is imported.
    from geomix.data.chat import chat_format
    from geomix.data.tokenise import tokenise_all
    from geomix.models.load import load_tokenizer, quiet_libraries

    quiet_libraries()
    tokenizer = load_tokenizer(model)
    made = tokenise_all(tokenizer, examples, chat_format(chat_template, tokenizer))
    known = describe(SOURCES[name]) if name in SOURCES else {"name": name, "kind": "your own"}
    counts = {
        "split": request.split,
        "examples": len(made),
        "tokens": sum(len(example.ids) for example in made),
        "loss_tokens": sum(example.target_tokens for example in made),
    }
    if as_json:
        shown = [
            {**example.text.texts(), "seen": [asdict(s) for s in stretches(tokenizer, example)]}
            for example in made
        ]
        echo_json({**known, **counts, "shown": shown})
        return
    console = Console()
    console.print(_facts(known))
    for number, example in enumerate(made, start=1):
        console.print(Text(f"\n── {number} " + "─" * 20, style="dim"))
        console.print(_seen(stretches(tokenizer, example), full=full), soft_wrap=True)
        if len(example.text.aliases) > 1:
            others = " | ".join(example.text.aliases[1:])
            console.print(plain(f"also right: {others}", full=full), style="dim", soft_wrap=True)
    if made:
        mean = fmean(example.target_tokens for example in made)
        longest = max(len(example.ids) for example in made)
        console.print(
            f"\nsplit {request.split}, examples shown: {len(made)}; tokens: {counts['tokens']:,}, "
            f"with loss (⟦ ⟧): {counts['loss_tokens']:,}, mean {mean:.1f}; longest example: "
            f"{longest:,} (tokenizer: {model})"
        )
    else:
        console.print(f"\nno examples in split {request.split}")


def _facts(known: dict[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in known.items():
        if key == "hub":
            config = f", {value['config']}" if value["config"] else ""
            table.add_row("hub", Text(f"{value['name']}{config}, split {value['split']}"))
        elif key != "origin" or "hub" not in known:
            text = ", ".join(value) if isinstance(value, tuple) else value
            label = {"prompt_from": "prompt from", "upstream": "path: reads"}.get(key, key)
            table.add_row(label, Text(f"{text:,}" if isinstance(text, int) else str(text)))
    return table


def _seen(parts: list[Stretch], *, full: bool) -> Text:
    text = Text()
    for part in parts:
        shown = plain(part.text, full=full).plain
        text.append(f"⟦{shown}⟧" if part.loss else shown, style="bold green" if part.loss else "")
    return text


def plain(text: str, *, full: bool) -> Text:
    """Return a text shortened in the middle."""
    if not full and len(text) > LONGEST:
        left_out = len(text) - 2 * _KEPT
        text = f"{text[:_KEPT]} …({left_out:,} characters)… {text[-_KEPT:]}"
    return Text(harmless(text))  # rich would drop some characters silently
