"""The paper's non-factoids: unaltered instructions and answers of five published datasets."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from geomix.data.example import Example
from geomix.data.files.row import Row
from geomix.data.files.tables import rows
from geomix.data.sources.base import Found, Hub, Request, Source
from geomix.data.sources.published import published, read
from geomix.data.sources.rows import Convert, RowError, text_in, texts_in

OWN = "the set's own instructions, as in the paper"

DIFFICULTIES = ("introductory", "interview", "competition")
"""Difficulties of APPS; the paper trains on the first two."""


def ultrachat_row(row: Mapping[str, Any]) -> Example | None:
    """Convert `data`, which alternates between user and assistant; drop a final user turn."""
    given = row.get("data")
    if not isinstance(given, list) or not given:
        raise RowError("'data' is not a list of texts")
    turns = [text_in({"data": text}, "data") for text in given]
    pairs = list(zip(turns[::2], turns[1::2], strict=False))
    if not pairs:
        return None
    return Example(*pairs[-1], earlier=tuple(pairs[:-1]))


def apps_row(row: Mapping[str, Any], difficulties: Collection[str]) -> Example | None:
    """Convert `question` and the first of `solutions`; None for another difficulty."""
    difficulty = text_in(row, "difficulty")
    if difficulty not in DIFFICULTIES:
        raise RowError(f"'difficulty' is '{difficulty}', not one of {', '.join(DIFFICULTIES)}")
    if difficulty not in difficulties or row.get("solutions") in ("", None):
        return None
    solutions = texts_in(row, "solutions")
    return Example(text_in(row, "question"), solutions[0]) if solutions else None


def _pair(prompt: str, target: str) -> Convert:
    return lambda row: Example(text_in(row, prompt), text_in(row, target))


def _apps(source: Source, request: Request) -> Found:
    wanted = (request.subset,) if request.subset else ("introductory", "interview")
    folders = _problems(request.path)
    return read(
        source,
        request,
        lambda row: apps_row(row, wanted),
        ("*train*.jsonl", "*train*.parquet"),
        part=" and ".join(wanted),
        folders=_native(folders) if folders else None,
    )


def _problems(path: str | None) -> list[Path]:
    """Return the folders of problems in an unpacked APPS.tar.gz, those of `train` if it has one."""
    if path is None:
        return []
    below = Path(path)
    found = sorted(below.rglob("train/*/question.txt")) or sorted(below.rglob("question.txt"))
    return [file.parent for file in found]


def _native(folders: list[Path]) -> Iterator[Row]:
    for folder in folders:
        metadata = next((row for _, row in rows(folder / "metadata.json")), "is empty")
        if isinstance(metadata, str):
            yield str(folder), f"metadata.json: {metadata}"
            continue
        try:
            row: dict[str, Any] = {
                "difficulty": metadata.get("difficulty"),
                "question": (folder / "question.txt").read_text(encoding="utf-8"),
            }
            solutions = folder / "solutions.json"
            row["solutions"] = solutions.read_text(encoding="utf-8") if solutions.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            yield str(folder), f"cannot be read as UTF-8 text ({error})"
            continue
        yield str(folder), row


ULTRACHAT = Source(
    name="ultrachat",
    kind="non-factoid",
    loader=published(ultrachat_row, "*.jsonl", "*.parquet"),
    licence="MIT",
    prompt="{data[0]}, every assistant turn a target",
    prompt_from=OWN,
    rows=1_468_352,
    hub=Hub("stingning/ultrachat", streaming=True),
    upstream="train_*.jsonl (id, data)",
    note="streamed: only the first rows are read",
)

EVOLCODE = Source(
    name="evolcode",
    kind="non-factoid",
    loader=published(_pair("instruction", "output"), "*.json", "*.jsonl", "*.parquet"),
    licence="CC BY-NC-SA 4.0",
    prompt="{instruction}",
    prompt_from=OWN,
    rows=78_264,
    hub=Hub("nickrosh/Evol-Instruct-Code-80k-v1"),
    upstream="EvolInstruct-Code-80k.json (instruction, output)",
)

APPS = Source(
    name="apps",
    kind="non-factoid",
    loader=_apps,
    licence="MIT",
    prompt="{question}",
    prompt_from=OWN,
    rows=5_000,
    hub=Hub("codeparrot/apps", "all", revision="refs/convert/parquet"),
    download="download https://people.eecs.berkeley.edu/~hendrycks/APPS.tar.gz",
    upstream="APPS.tar.gz unpacked, or train.jsonl with the hub's columns",
    subsets=DIFFICULTIES,
    note="introductory and interview problems by default; the target is the first solution; "
    "starter code is left out; a script dataset on the hub, so its Parquet conversion is read",
)

GSM8K = Source(
    name="gsm8k",
    kind="non-factoid",
    loader=published(_pair("question", "answer"), "train*.jsonl", "train*.parquet"),
    licence="MIT",
    prompt="{question}",
    prompt_from=OWN,
    rows=7_473,
    hub=Hub("openai/gsm8k", "main"),
    upstream="train.jsonl (question, answer)",
)

MATH = Source(
    name="math",
    kind="non-factoid",
    loader=published(
        _pair("problem", "solution"), "train/*/*.json", "*train*.jsonl", "*train*.parquet"
    ),
    licence="MIT",
    prompt="{problem}",
    prompt_from=OWN,
    rows=7_500,
    download="it was taken down from the hub; unpack the authors' MATH.tar "
    "(github.com/hendrycks/math), or take any JSONL or Parquet with its columns problem and "
    "solution",
    upstream="MATH/train/*/*.json, or JSONL or Parquet (problem, solution)",
    note="taken down from the hub: it needs a local copy",
)
