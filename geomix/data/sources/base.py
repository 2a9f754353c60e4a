"""What a source of examples is: how it is loaded, and what a user should know about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from geomix.config.data import Columns
from geomix.data.example import Example
from geomix.data.split import Split

Kind = Literal["factoid", "non-factoid", "mixing"]

GENERATED = "generated"
"""The origin of a source that needs neither a file nor the network."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a source.

    Attributes:
        count: how many examples.
        seed: seed of a generated source; of the order in which rows of a finite one are taken.
        split: which of the disjoint splits.
        words: length of a passage in words, for sources of passages.
        path: local copy in the upstream format; None reads the hub.
        subset: part of the source, such as one relation.
        vocabulary: what `random-words` draws from.
        columns: which columns of the user's own rows are meant.
        template: prompt of the user's own rows, with columns in braces.
        every: whether all that there are are meant, of the user's own rows but the held-out ones;
            more than `count` is then a mistake.
        unanswered: whether questions without an answer are kept, with an empty target.
        after: how many of the user's own rows come before the held-out ones; None is `count`.
    """

    count: int
    seed: int
    split: Split = "train"
    words: int = 50
    path: str | None = None
    subset: str | None = None
    vocabulary: Literal["generated", "nltk"] = "generated"
    columns: Columns | None = None
    template: str | None = None
    after: int | None = None
    unanswered: bool = False
    every: bool = False


@dataclass(frozen=True, slots=True)
class Hub:
    """Where a dataset is on the Hugging Face hub.

    Attributes:
        name: `owner/name`.
        config: its configuration, None for the default one.
        split: its own split that is read.
        revision: a branch; script datasets are read from their Parquet conversion.
        streaming: whether rows are read as they are needed, for what would be gigabytes.
    """

    name: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    streaming: bool = False

    def __str__(self) -> str:
        config = f", {self.config}" if self.config else ""
        revision = f", {self.revision}" if self.revision else ""
        return f"{self.name}{config}, {self.split}{revision}"


@dataclass(frozen=True, slots=True)
class Found:
    """What a source has of what is asked for.

    Attributes:
        examples: `count` of them, or all that there are.
        origin: the source and where it was read, for messages.
        among: what they were chosen among, where that may be why they are few.
    """

    examples: list[Example]
    origin: str
    among: str = ""


Loader = Callable[["Source", Request], Found]
"""How the examples that are asked of a source are made or read."""


def generated(examples: Callable[[int, int, Split], list[Example]], among: str = "") -> Loader:
    """The loader of a source that `count`, `seed` and `split` decide."""

    def load(source: Source, request: Request) -> Found:
        found = examples(request.count, request.seed, request.split)
        return Found(found, f"data source '{source.name}'", among)

    return load


@dataclass(frozen=True, slots=True)
class Source:
    """One source of examples. A new one is a value of this class and a line in the registry.

    Attributes:
        name: what a configuration calls it.
        kind: what it is for.
        loader: makes or reads its examples.
        licence: of the data.
        prompt: the prompt, columns in braces.
        prompt_from: where the wording is from.
        rows: how many rows it has upstream; None where there is no end.
        hub: where it is on the hub; None for what is generated or not there.
        download: what a user without the hub downloads, and from where.
        upstream: which files `path:` reads; empty where it reads none.
        subsets: what `subset:` may be, where that is a list.
        note: what else to know.
    """

    name: str
    kind: Kind
    loader: Loader
    licence: str
    prompt: str
    prompt_from: str
    rows: int | None = None
    hub: Hub | None = None
    download: str = ""
    upstream: str = ""
    subsets: tuple[str, ...] = ()
    note: str = ""

    def load(self, request: Request) -> Found:
        """The examples that a request asks for, or as many of them as there are."""
        return self.loader(self, request)

    @property
    def origin(self) -> str:
        """Where the examples come from, in a word or two."""
        if self.hub:
            return self.hub.name
        return "local files" if self.upstream and self.download else GENERATED
