"""The commands `geomix data …`; each imports its dependencies when called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.group()
def data() -> None:
    """List datasets, show their examples, and count their overlap."""


@data.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print everything known of each as JSON.")
def data_list(as_json: bool) -> None:
    """List the sources by name: size, licence and origin."""
    from geomix.cli.data_sources import list_sources

    list_sources(as_json)


@data.command("show")
@click.argument("name")
@click.option("--path", help="Local copy in the upstream format [the hub].")
@click.option("--limit", type=click.IntRange(1), default=5, show_default=True)
@click.option("--split", type=click.Choice(["train", "id", "held-out"]), default="train")
@click.option("--subset", help="Part of the source, such as one relation.")
@click.option("--words", type=click.IntRange(1), default=50, help="Length of a passage [50].")
@click.option("--seed", type=click.IntRange(0), default=0)
@click.option("--vocabulary", type=click.Choice(["generated", "nltk"]), default="generated")
@click.option("--prompt", default="prompt", help="Column of the prompt, in your own files.")
@click.option("--target", default="target", help="Column of the target, in your own files.")
@click.option("--aliases", help="Column that lists further right answers, in your own files.")
@click.option("--subject", help="Column of the subject, which fills {} in your own prompts.")
@click.option("--template", help="Prompt of your own rows, columns in braces.")
@click.option("--model", default="builtin", help="Model whose tokenizer is used [builtin].")
@click.option(
    "--chat-template",
    default="tulu",
    help="tulu, tokenizer, a .jinja file, or a text with {prompt} and {target} [tulu].",
)
@click.option("--full", is_flag=True, help="Do not shorten long texts.")
@click.option("--json", "as_json", is_flag=True, help="Print it all as JSON.")
def data_show(
    name: str,
    model: str,
    chat_template: str,
    full: bool,
    as_json: bool,
    prompt: str,
    target: str,
    aliases: str | None,
    subject: str | None,
    **asked: Any,
) -> None:
    """Show examples of a source as the model sees them, loss tokens in ⟦ ⟧.

    NAME is a source of `geomix data list`, a file or folder of your own, or a hub id owner/name.
    """
    from geomix.cli.data_sources import show_source
    from geomix.config.data import Columns
    from geomix.data.sources.base import Request

    columns = Columns(prompt=prompt, target=target, aliases=aliases, subject=subject)
    named = None if columns == Columns() else columns
    request = Request(count=asked.pop("limit"), columns=named, **asked)
    show_source(name, request, model, chat_template, full=full, as_json=as_json)


@data.command("overlap")
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key, such as stages.0.data.limit=10.",
)
@click.option("--ngram", type=click.IntRange(1), default=8, show_default=True, help="In words.")
@click.option("--full", is_flag=True, help="List every overlapping row.")
@click.option("--json", "as_json", is_flag=True, help="Print it all as JSON.")
def data_overlap(
    config: Path, overrides: tuple[str, ...], ngram: int, full: bool, as_json: bool
) -> None:
    """Count the facts of each stage that occur in the passages of D_M.

    CONFIG is a YAML file or the name of a preset. A fact occurs in a passage if its subject and an
    accepted answer both do, or if the two share an n-gram.
    """
    from geomix.cli.data_overlap import show_overlap
    from geomix.config.load import config_path, load
    from geomix.data.sources import SOURCES

    experiment = load(config_path(config), overrides, tuple(SOURCES))
    show_overlap(experiment, ngram, full=full, as_json=as_json)
