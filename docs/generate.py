"""Write the reference pages that the code itself knows: commands, keys, snapshots and sources.

python docs/generate.py            writes them
python docs/generate.py --check    exits 1 and names those that are stale
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from markdown_lines import Line, anchor, plain, table
from pydantic import BaseModel
from snapshot_lines import snapshot_lines

from geomix.cli import main
from geomix.config.data import Columns, DataConfig, FamiliarConfig, MixConfig, ReplayConfig
from geomix.config.evaluate import EvaluateConfig, KLConfig
from geomix.config.recording import RecordConfig, SketchConfig
from geomix.config.run import CheckpointConfig, RunConfig, StageConfig
from geomix.config.training import LoraConfig, StopConfig, TrainConfig
from geomix.data.sources import SOURCES
from geomix.data.sources.base import Source
from geomix.measures.scores import DEFAULT, SCORES
from geomix.studies.sweep_file import StudyConfig

REFERENCE = Path(__file__).resolve().parent / "reference"

_MADE = "<!-- Made by docs/generate.py from the code; change the code, then run it again. -->"


def pages() -> dict[str, str]:
    """Every generated page by its file's name."""
    makers: dict[str, Callable[[], Line]] = {
        "cli.md": _cli,
        "configuration.md": _configuration,
        "snapshots.md": snapshot_lines,
        "data-sources.md": _sources,
        "scores.md": _scores,
    }
    return {name: "\n".join([_MADE, "", *make()]).rstrip() + "\n" for name, make in makers.items()}


# --- commands ---


def _cli() -> Line:
    yield from ("# Commands", "", "Every command and option, from `geomix … --help`.", "")
    contexts = list(_contexts(main.make_context("geomix", [], resilient_parsing=True)))
    for context in contexts:
        name = context.command_path
        yield f"- [`{name}`](#{anchor(name)}): {_first_line(context.command)}"
    yield from ("", "`geomix --version` prints the version.")
    yield from ("", "| exit status | meaning |", "|---|---|")
    yield from (
        "| 0 | done |",
        "| 1 | a member of a sweep failed, or an unexpected error |",
        "| 2 | a mistake in a configuration, an option, data or a model; every mistake is named |",
        "| 75 | asked to end (SIGTERM, Ctrl-C): saved first, resume it |",
        "| 130 | Ctrl-C twice: ended at once |",
    )
    for context in contexts:
        yield from ("", f"## {context.command_path}", "", *_command(context))


def _contexts(context: click.Context) -> Iterator[click.Context]:
    """Yield the contexts in which click runs the commands below one, with inherited settings."""
    command = context.command
    if not isinstance(command, click.Group):
        yield context
        return
    for part in command.list_commands(context):
        found = command.get_command(context, part)
        assert found is not None
        yield from _contexts(click.Context(found, info_name=part, parent=context))


def _command(context: click.Context) -> Line:
    command = context.command
    pieces = command.collect_usage_pieces(context)
    yield from ("```text", " ".join([context.command_path, *pieces]), "```", "")
    yield from (inspect.cleandoc(command.help or "").replace("\b\n", ""), "")
    rows = [
        record
        for parameter in command.params
        if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context))
    ]
    # not from get_params: a command keeps the help option of the first context that asked
    names = sorted(command.get_help_option_names(context), key=len)
    rows.append((", ".join(names), "Show this message and exit."))
    yield from table(("option", "meaning"), [_option(*row) for row in rows])


def _option(names: str, meaning: str) -> tuple[str, str]:
    """Format a row; choices follow the meaning, since a table's code cannot contain |."""
    choices = re.search(r" \[([^\]]*\|[^\]]*)\]$", names)
    if choices is None:
        return f"`{plain(names)}`", meaning
    known = ", ".join(f"`{choice}`" for choice in choices[1].split("|"))
    return f"`{names[: choices.start()]}`", f"{meaning} One of {known}."


def _first_line(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").partition("\n\n")[0].replace("\n", " ")


# --- configuration ---

_SECTIONS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("Top level", "", RunConfig),
    ("stages", "stages.N.", StageConfig),
    ("data", "stages.N.data.", DataConfig),
    ("columns", "stages.N.data.columns.", Columns),
    ("familiar", "stages.N.data.familiar.", FamiliarConfig),
    ("mix", "stages.N.mix.", MixConfig),
    ("replay", "stages.N.replay.", ReplayConfig),
    ("stop", "stages.N.stop.", StopConfig),
    ("train", "train.", TrainConfig),
    ("lora", "train.lora.", LoraConfig),
    ("record", "record.", RecordConfig),
    ("sketches", "record.sketches.", SketchConfig),
    ("evaluate", "evaluate.", EvaluateConfig),
    ("kl", "evaluate.kl.", KLConfig),
    ("checkpoint", "checkpoint.", CheckpointConfig),
)

_SHORT = {
    "data": "A text is its source: `data: kvr`. The same keys stand under `evaluate.sets.NAME`.",
    "mix": "A text is its source: `mix: random-words`. In a list each mix has these keys, such as "
    "`stages.N.mix.0.ratio`. The same keys stand under `record.mix`.",
    "familiar": "`familiar: drop` stands for `familiar: {facts: drop}`.",
    "replay": "A number is its ratio: `replay: 0.1`.",
    "columns": "The same keys stand under `stages.N.mix.columns`.",
    "train": "The same keys under `stages.N.train` override these for one stage.",
}


_ARMS = """\
A mapping from the name of an arm to its overrides, keys in dots. Each arm is a run of its own in
`RUN/arms/NAME`; without the key a run is its own single arm. The overrides are laid over the rest
of the file; `{}` or null changes nothing. `--set arms.NAME.KEY=VALUE` sets a key of one arm."""


def _configuration() -> Line:
    yield from ("# Configuration", "")
    yield "Every key of a run's YAML file with its type, default and meaning. Any key may stand in"
    yield "`--set KEY=VALUE`; N is a stage's index, from 0. Unknown keys are rejected, with a"
    yield "suggestion."
    yield from (
        "",
        "`geomix config show FILE` fills in the defaults, `geomix config schema` prints",
    )
    yield from ("the JSON Schema for editors.", "")
    for title, prefix, _ in _SECTIONS:
        where = f" (`{prefix.rstrip('.')}`)" if prefix else ""
        yield f"- [{title}](#{anchor(title)}){where}"
    yield from ("- [arms](#arms)", "- [A study's file](#a-studys-file)")
    for title, prefix, model in _SECTIONS:
        yield from ("", f"## {title}", "", inspect.cleandoc(model.__doc__ or ""), "")
        if title in _SHORT:
            yield from (_SHORT[title], "")
        yield from _keys(model, prefix)
    yield from ("", "## arms", "")
    yield _ARMS
    yield from ("", "## A study's file", "", inspect.cleandoc(StudyConfig.__doc__ or ""), "")
    yield "`geomix sweep` reads it; it needs `base` and one of `grid`, `runs` and `seeds`."
    yield from ("", *_keys(StudyConfig, ""))


def _keys(model: type[BaseModel], prefix: str) -> Line:
    schema = model.model_json_schema(by_alias=True)
    rows = []
    for name, field in model.model_fields.items():
        key = field.alias or name
        shown = schema["properties"][key]
        default = "required"
        if not field.is_required():
            default = _default(field.get_default(call_default_factory=True))
        rows.append((f"`{prefix}{key}`", _kind(shown), default, field.description or ""))
    yield from table(("key", "type", "default", "meaning"), rows)


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, tuple):
        value = list(value)
    return f"`{json.dumps(value, ensure_ascii=False)}`"


_NAMES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "mapping",
    "null": "null",
}


def _kind(shown: Mapping[str, Any]) -> str:
    """Describe a JSON Schema's type in words."""
    if "$ref" in shown:
        return f"mapping ({_words(shown['$ref'].rsplit('/', 1)[1])})"
    if "anyOf" in shown:
        return " or ".join(dict.fromkeys(_kind(one) for one in shown["anyOf"]))
    if "enum" in shown:
        return ", ".join(f"`{one}`" for one in shown["enum"])
    if "const" in shown:
        return f"`{shown['const']}`"
    kind = shown.get("type")
    if kind == "array":
        items = shown.get("items")
        inner = _kind(items) if isinstance(items, dict) and items else "values"
        if "prefixItems" in shown:
            inner = ", ".join(_kind(one) for one in shown["prefixItems"])
        return f"list of ({inner})" if " or " in inner else f"list of {inner}"
    return _NAMES.get(str(kind), "any") + _range(shown)


def _range(shown: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    huge = 10**6
    found = [
        f"{sign} {shown[key]:g}"
        for key, sign in signs.items()
        if key in shown and shown[key] < huge
    ]
    return f" {', '.join(found)}" if found else ""


def _words(name: str) -> str:
    sections = {model.__name__: title for title, _, model in _SECTIONS}
    return f"[{sections[name]}](#{anchor(sections[name])})" if name in sections else name


# --- sources ---


def _rows(source: Source) -> str:
    if source.hub and source.hub.streaming and source.rows is None:
        return "streamed"
    return "any number" if source.rows is None else f"{source.rows:,}"


_KINDS = {"factoid": "Factoids", "non-factoid": "Non-factoids", "mixing": "Passages to mix in"}


_SOURCE = """# Data sources

What `source` may name, from `geomix data list`. `geomix data show NAME` prints examples. Besides: a
file, a folder or a hub id of [your own](../how-to/own-data.md), and `replay`, a key of a stage. Add
one: [extension points](extension-points.md#a-data-source)."""

_LOCAL = """
## Local copies and subsets

With `path:` a source reads a local copy in its upstream format; without it, the hub (needs a
network). `subset:` takes a part.
"""


def _sources() -> Line:
    yield _SOURCE
    for kind, title in _KINDS.items():
        yield from ("", f"## {title}", "")
        rows = [_row(source) for source in SOURCES.values() if source.kind == kind]
        yield from table(("source", "rows upstream", "licence", "from", "prompt", "wording"), rows)
    yield _LOCAL
    local = [s for s in SOURCES.values() if s.upstream or s.subsets or s.note]
    cells = [(f"`{s.name}`", s.upstream, _subsets(s), s.note) for s in local]
    yield from table(("source", "`path:` reads", "`subset:`", "note"), cells)


def _row(source: Source) -> tuple[str, ...]:
    prompt = f"`{plain(source.prompt)}`"
    where = (source.licence, source.origin, prompt, source.prompt_from)
    return f"`{source.name}`", _rows(source), *where


def _subsets(source: Source) -> str:
    shown = ", ".join(f"`{name}`" for name in source.subsets[:_MOST_SUBSETS])
    more = len(source.subsets) > _MOST_SUBSETS
    return shown + f", … ({len(source.subsets)})" * more


_MOST_SUBSETS = 6


# --- scores ---


_SCORE = """# Scores

What an evaluation says of a set. Those that are measured "always" are part of every evaluation at
the boundaries of stages; others are asked for by name, as in `evaluate: {scores: [bits]}`.

A score is a key of its line in `metrics.jsonl`, a column of `run.retention()`, a row of
`geomix show RUN --csv`, and a `--metric` of `geomix show` and `geomix figure retention`. Those that
are measured *within* a stage too give a line along training.
[How to read them](../how-to/retention.md#scores); [add one](extension-points.md#a-score)."""


def _scores() -> Line:
    yield from (_SCORE, "")
    rows = []
    for name, score in SCORES.items():
        when = "always" if name in DEFAULT else f"with `{score.part_of or name}`"
        better = "larger" if score.larger_is_better else "smaller"
        places = "ends and within" if score.within else "ends of stages"
        passes = "yes" if score().asks else "no"
        unit = {"percent": "0–100"}.get(score.unit, score.unit)
        said = inspect.cleandoc(score.__doc__ or "").partition("\n")[0]
        rows.append((f"`{name}`", said, unit, better, when, places, passes))
    head = ("score", "meaning", "unit", "better", "measured", "where", "own pass")
    yield from table(head, rows)


def stale() -> list[str]:
    """Return the pages on disk that differ from what the code generates."""
    return [
        name
        for name, text in pages().items()
        if not (REFERENCE / name).is_file()
        or (REFERENCE / name).read_text(encoding="utf-8") != text
    ]


def run(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if any is stale"
    )
    if parser.parse_args(arguments).check:
        old = stale()
        for name in old:
            print(f"docs/reference/{name}: stale; run python docs/generate.py")
        return int(bool(old))
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(run())
