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
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
from pydantic import BaseModel

from geomix.cli import main
from geomix.config.data import Columns, DataConfig, FamiliarConfig, MixConfig, ReplayConfig
from geomix.config.recording import RecordConfig, SketchConfig
from geomix.config.run import CheckpointConfig, EvaluateConfig, KLConfig, RunConfig, StageConfig
from geomix.config.training import LoraConfig, StopConfig, TrainConfig
from geomix.data.sources import SOURCES
from geomix.data.sources.base import Source
from geomix.measures.scores import DEFAULT, SCORES
from geomix.recording.quantities import QUANTITIES
from geomix.recording.quantities.collected import declared
from geomix.snapshots.file import SCHEMA, write_snapshot
from geomix.snapshots.schema import (
    ORIGIN,
    AdamProducts,
    ModuleRecord,
    PathRecord,
    ProbeRecord,
    QuantityRecord,
    SketchRecord,
    Snapshot,
)
from geomix.snapshots.variables import kept_with
from geomix.studies.sweep_file import StudyConfig

REFERENCE = Path(__file__).resolve().parent / "reference"

_MADE = "<!-- Made by docs/generate.py from the code; change the code, then run it again. -->"

Line = Iterator[str]


def pages() -> dict[str, str]:
    """Every generated page by its file's name."""
    makers: dict[str, Callable[[], Line]] = {
        "cli.md": _cli,
        "configuration.md": _configuration,
        "snapshots.md": _snapshots,
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
        yield f"- [`{name}`](#{_anchor(name)}): {_first_line(context.command)}"
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
    yield from _table(("option", "meaning"), [_option(*row) for row in rows])


def _option(names: str, meaning: str) -> tuple[str, str]:
    """Format a row; choices follow the meaning, since a table's code cannot contain |."""
    choices = re.search(r" \[([^\]]*\|[^\]]*)\]$", names)
    if choices is None:
        return f"`{_plain(names)}`", meaning
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
        yield f"- [{title}](#{_anchor(title)}){where}"
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
    yield from _table(("key", "type", "default", "meaning"), rows)


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
    return f"[{sections[name]}](#{_anchor(sections[name])})" if name in sections else name


# --- snapshots ---

_STANDS_FOR = {"SET": "<set>", "MODULE": "<module>", "PARAMETER": "<parameter>"}
_ATTRIBUTES = {
    "format": "what kind of file it is",
    "schema": "version of this layout",
    "geomix_version": "what wrote it; torch, transformers and nnsight likewise",
    "stage": "index of the stage, from 0",
    "stage_name": "its name",
    "step": "optimiser steps done in the stage",
    "steps": "optimiser steps of the whole stage",
    "reduction": "`token` or `example`: the mean that gradients and inner products are of",
    "layers": "decoder layers of the model",
    "tied_head": "whether the output head shares the embedding's tensor",
    "trainable": "parameter tensors that train; a snapshot covers them all",
    "coverage": "the same as text, checked by every reader",
    "path": "`recorded`, or why there is no path",
    "model": "θ_0's name",
    "seed": "the run's",
    "precision": "of the passes",
    "chat_template": "the chat format",
    "training_sha256": "hash of all keys of the configuration that decide the training",
    "texts_sha256": "hash of all texts in the file, which HDF5 does not protect",
    "complete": "written last: without it the file is not read",
}


_SNAPSHOT = f"""# Snapshots

A snapshot is one HDF5 file, `RUN/records/snapshots/stage0-step000120.h5` (stages count from 0): the
model at one step, as its probe sets show it. Layout version {SCHEMA}. It is complete whenever it
exists. Every dimension is an HDF5 dimension scale, so xarray shows labelled axes:

```python
import xarray as xr

import geomix

path = geomix.open_run("runs/demo").arms[0].snapshots()[0]
print(xr.open_dataset(path, group="probes/D_A", engine="h5netcdf"))
```

Numbers carry a checksum (Fletcher-32) and no compression: gradients are noise.
[geomix/snapshots/file.py](../../geomix/snapshots/file.py) writes and reads the file,
[geomix/snapshots/schema.py](../../geomix/snapshots/schema.py) describes it in memory. For whole
runs use [`records`](python-api.md).

- **Gradients** are those of a set's *mean* loss in the run's
  [reduction](../explanation/loss-reduction.md), which the attribute `reduction` names.
- **Layers** count alike everywhere: 0 is what comes before the first block, l is block l. So in
  `probes` 0 is the input of the first block and l the output of block l; in `parameters` those of
  block l have l, and those behind the last block the number of blocks + 1. (Files of schema 3 have
  one less in `parameters`; geomix reads them in today's numbers.)
- **Ragged arrays**: example i owns the rows `offsets[i]` to `offsets[i + 1]` of `position`, one for
  each target token. `kept_position` is the first of them: of the examples that keep activations.
- A probe set's group has the attribute `sha256`, of its token ids and labels."""


def _snapshots() -> Line:
    yield _SNAPSHOT
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stage1-step000004.h5"
        write_snapshot(path, _example())
        with h5py.File(path) as file:
            yield from ("", "## Attributes of the file", "")
            known = [name for name in file.attrs if not _VERSION.fullmatch(name)]
            order = [
                *(n for n in _ATTRIBUTES if n in file.attrs),
                *sorted(set(known) - set(_ATTRIBUTES)),
            ]
            rows = [(f"`{n}`", _type(file.attrs[n]), _ATTRIBUTES.get(n, "")) for n in order]
            yield from _table(("attribute", "type", "meaning"), rows)
            yield from _groups(file)


_VERSION = re.compile("(torch|transformers|nnsight)_version|_NCProperties")


def _groups(file: h5py.File) -> Line:
    groups: dict[str, list[tuple[str, ...]]] = {}
    scales: dict[str, list[str]] = {}

    def visit(name: str, found: Any) -> None:
        group, _, leaf = name.rpartition("/")
        if isinstance(found, h5py.Group):
            return
        shown = _named(name)
        title, leaf = _named(group), shown.rpartition("/")[2]
        if found.is_scale:
            text = _text(found.attrs.get("description", ""))
            scales.setdefault(title, []).append(f"`{leaf}` ({text})" if text else f"`{leaf}`")
            return
        dims = ", ".join(_named(Path(found.dims[i][0].name).name) for i in range(found.ndim))
        unit = _text(found.attrs.get("units", ""))
        kind = "bool" if _text(found.attrs.get("dtype", "")) == "bool" else _dtype(found.dtype)
        more = sorted(set(found.attrs) - _OF_EVERY)
        text = _text(found.attrs.get("description", ""))
        text += f"; attributes {', '.join(f'`{m}`' for m in more)}" if more else ""
        here = re.sub(r"record\.\w+(: true)?", r"`\g<0>`", kept_with(name)) or "always"
        groups.setdefault(title, []).append((f"`{leaf}`", dims, kind, unit, text, here))

    file.visititems(visit)
    for title, rows in sorted(groups.items(), key=lambda item: _ORDER.index(item[0].split("/")[0])):
        yield from ("", f"## `/{title}`", "")
        yield from _table(("variable", "dimensions", "dtype", "unit", "meaning", "kept with"), rows)
        yield from ("", f"Coordinates: {', '.join(scales.get(title, ()))}.")


_ORDER = ("probes", "parameters", "path", "gradients")
_OF_EVERY = {
    "description",
    "units",
    "dtype",
    "DIMENSION_LIST",
    "_Netcdf4Dimid",
    "_Netcdf4Coordinates",
}


def _named(name: str) -> str:
    for word, shown in _STANDS_FOR.items():
        name = name.replace(word, shown)
    return re.sub(r"axis(\d)_\d+", r"axis\1_<n>", name)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _type(value: Any) -> str:
    return "text" if isinstance(value, str | bytes) else _dtype(np.asarray(value).dtype)


def _dtype(dtype: Any) -> str:
    return "text" if dtype.kind in "OSU" else str(dtype)


def _example() -> Snapshot:
    """Build a snapshot with everything that a snapshot can hold."""
    n, p, q, layers, width, k, sources = 2, 4, 2, 3, 5, 4, ("total", "D_B", "decay")
    stream = np.zeros((q, layers, width), np.float32)
    probe = ProbeRecord(
        loss=np.zeros(n),
        exact=np.zeros(n, np.bool_),
        offsets=np.array([0, 2, p]),
        positions=np.zeros(p, np.int64),
        targets=np.zeros(p, np.int64),
        activations=stream,
        gradients=stream,
        lens_rank=np.zeros((q, layers), np.int32),
        lens_logprob=np.zeros((q, layers), np.float32),
        modules={"MODULE": ModuleRecord(stream[:, 0], stream[:, 0])},
        sketches=SketchRecord(np.zeros((n, 1, k), np.float32), 0),
        quantities={
            name: QuantityRecord(
                declared(kind),
                {one.name: np.zeros([p] * len(one.dims), one.dtype) for one in kind.variables},
            )
            for name, kind in QUANTITIES.items()
        },
    )
    products = np.zeros((1, 1, 1))
    nodes, ends = np.zeros((1, 1, 3, len(sources))), np.zeros((1, 1, 2, len(sources)))
    return Snapshot(
        stage=1, stage_name="triples", step=4, steps=10, reduction="token", sets=("SET",),
        probes={"SET": probe}, parameters=("PARAMETER",), sizes=np.array([6]),
        parameter_layers=np.array([0]), parameter_modules=("mlp",), inner_products=products,
        layers=layers - 1, tied_head=True, trainable=1, unreached=np.zeros((1, 1), np.bool_),
        adam=AdamProducts(products, 1, 4, 1e-8),
        path=PathRecord(nodes, sources, 3, 4, ends, 2),
        origin=dict.fromkeys(ORIGIN, "") | {"seed": 0},
        hashes={"SET": ""},
        gradients={"SET": [np.zeros((2, 3), np.float32)]},
    )  # fmt: skip


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
        yield from _table(("source", "rows upstream", "licence", "from", "prompt", "wording"), rows)
    yield _LOCAL
    local = [s for s in SOURCES.values() if s.upstream or s.subsets or s.note]
    cells = [(f"`{s.name}`", s.upstream, _subsets(s), s.note) for s in local]
    yield from _table(("source", "`path:` reads", "`subset:`", "note"), cells)


def _row(source: Source) -> tuple[str, ...]:
    prompt = f"`{_plain(source.prompt)}`"
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
    yield from _table(head, rows)


# --- Markdown ---


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Line:
    rows = list(rows)
    if not rows:
        return
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(_cell(value) for value in row) + " |"


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", re.sub(r"\s+", " ", text)).strip()


def _plain(text: str) -> str:
    return text.replace("`", "'").replace("\n", "⏎")


def _anchor(title: str) -> str:
    """Return a heading's anchor as GitHub and mkdocs name it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


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
