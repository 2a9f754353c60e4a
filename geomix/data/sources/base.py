"""A source of examples: its loader, and its facts for users."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from geomix.config.data import Columns
from geomix.data.example import Example
from geomix.data.split import Split

Kind = Literal["factoid", "non-factoid", "mixing"]

GENERATED = "generated"
"""Origin of a source that needs neither a file nor the network."""


@dataclass(frozen=True, slots=True)
class Request:
    """Request to a source.

    Attributes:
        count: number of examples.
        seed: seed of a generated source; of the order in which rows of a finite one are taken.
        split: which of the disjoint splits.
        words: length of a passage in words, for sources of passages.
        path: local copy in the upstream format; None reads the hub.
        subset: part of the source, such as one relation.
        vocabulary: vocabulary of `random-words`.
        columns: columns of the user's own rows.
        template: prompt of the user's own rows, with columns in braces.
        every: whether all examples are requested, for the user's own rows all but the held-out
            ones; more than `count` is then a mistake.
        unanswered: whether questions without an answer are kept, with an empty target.
        after: number of the user's own rows before the held-out ones; None is `count`.
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
    """Location of a dataset on the Hugging Face hub.

    Attributes:
        name: `owner/name`.
        config: its configuration, None for the default one.
        split: the dataset's own split to read.
        revision: a branch; script datasets are read from their Parquet conversion.
        streaming: whether rows are read as needed, for datasets of gigabytes.
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
    """Examples that a source has for a request.

    Attributes:
        examples: `count` of them, or all if there are fewer.
        origin: the source and its location, for messages.
        among: the pool they were chosen from, if that may explain why they are few.
    """

    examples: list[Example]
    origin: str
    among: str = ""


Loader = Callable[["Source", Request], Found]
"""Function that makes or reads a source's examples for a request."""


def generated(examples: Callable[[int, int, Split], list[Example]], among: str = "") -> Loader:
    """Return the loader of a source that `count`, `seed` and `split` determine."""

    def load(source: Source, request: Request) -> Found:
        found = examples(request.count, request.seed, request.split)
        return Found(found, f"data source '{source.name}'", among)

    return load


@dataclass(frozen=True, slots=True)
class Source:
    """One source of examples. A new one is a value of this class and a line in the registry.

    Attributes:
        name: its name in a configuration.
        kind: its purpose.
        loader: makes or reads its examples.
        licence: of the data.
        prompt: the prompt, columns in braces.
        prompt_from: origin of the wording.
        rows: number of rows upstream; None if unlimited.
        hub: its location on the hub; None for generated sources and those not there.
        download: what a user without the hub downloads, and from where.
        upstream: the files that `path:` reads; empty if it reads none.
        subsets: the values of `subset:`, if they form a list.
        note: further remarks.
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
        """Return the examples of a request, or as many of them as there are."""
        return self.loader(self, request)

    @property
    def origin(self) -> str:
        """Origin of the examples, in a word or two."""
        if self.hub:
            return self.hub.name
        return "local files" if self.upstream and self.download else GENERATED
