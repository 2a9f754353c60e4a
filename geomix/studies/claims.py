"""Claims of a study, declared before its runs, and judged from its tables by the one rule.

A study's folder holds `claims.yaml` beside the CSV tables of its runs:

    level: 0.95             # of the intervals
    smallest: 0.05          # smallest effect of interest
    unit: "1"               # of the effects
    planned: 10             # paired seeds
    each: {d_b: [kvr, triples]}
    claims:
      - claim: random words in stage 1 make the angle smaller
        table: angles-{d_b}.csv
        column: cosine
        where: {checkpoint: θ_A+4}
        plus: [{arm: random}]
        minus: [{arm: plain}]

An effect is, seed by seed, the sum of the cells of `plus` minus the sum of those of `minus`; a cell
is the one row of the table with all the values of `where`, of the cell, and the seed.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from geomix.config.data import Count, Strict
from geomix.config.document import Document, parse
from geomix.config.load import mistakes_of, read_text
from geomix.measures.intervals import t_interval
from geomix.measures.verdict import Verdict, verdict
from geomix.util.errors import UserError

FILE = "claims.yaml"
"""Name of the declaration in a study's folder."""

WANTS = "a declaration is a mapping that holds at least `planned:`, `smallest:` and `claims:`"

Text = Annotated[str, Field(min_length=1)]
Cell = dict[Text, str | int | float | bool]
"""Mapping from column to value; compared as text."""


class ClaimConfig(Strict):
    """One claim: a contrast between cells of a table."""

    claim: Text
    """Claim in a few words, worded so that a positive effect supports it."""
    table: Text
    """CSV file beside the declaration; `{name}` stands for each value of `each`, in cells too."""
    column: Text
    """Column of the numbers."""
    where: Cell = Field(default={})
    """Values that all rows share."""
    plus: Annotated[list[Cell], Field(min_length=1)]
    """Cells that are added."""
    minus: list[Cell] = Field(default=[])
    """Cells that are subtracted."""
    each: dict[Text, list[Text]] | None = None
    """Names and values for each of which the claim is judged; by default the study's."""
    level: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Level of the interval; by default the study's."""
    smallest: Annotated[float, Field(gt=0)] | None = None
    """Smallest effect of interest; by default the study's."""
    unit: str | None = None
    """Unit of the effect; by default the study's."""


class ClaimsConfig(Strict):
    """Keys of a declaration of claims."""

    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Level of the intervals (Student's t over paired seeds)."""
    smallest: Annotated[float, Field(gt=0)]
    """Smallest effect of interest, in the effect's unit."""
    unit: str = ""
    """Unit of the effects: `nats`, `points`, `1` for a cosine."""
    planned: Count
    """Paired seeds that a verdict needs."""
    replicate: Text = "seed"
    """Column by which rows are paired."""
    each: dict[Text, list[Text]] = Field(default={})
    """Names and values for each of which every claim is judged."""
    claims: Annotated[list[ClaimConfig], Field(min_length=1)]
    """Claims of the study."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim with its result from the tables.

    Attributes:
        claim: in words.
        of: the value of `each`, such as `triples`; empty if there is none.
        estimate: mean of the effect over seeds.
        low: lower end of its interval; nan with fewer than two seeds.
        high: upper end.
        unit: of the three.
        n: paired seeds.
        level: of the interval.
        smallest: effect of interest.
        verdict: by `geomix.measures.verdict`.
    """

    claim: str
    of: str
    estimate: float
    low: float
    high: float
    unit: str
    n: int
    level: float
    smallest: float
    verdict: Verdict


def load_claims(folder: Path) -> ClaimsConfig:
    """Read the declaration of a study.

    Raises:
        UserError: there is none, or it is wrong; a line for each mistake.
    """
    path = folder / FILE
    document = parse(read_text(path, f"a study's folder holds {FILE}"), str(path), WANTS)
    try:
        config = ClaimsConfig.model_validate(document.values)
    except ValidationError as error:
        found = mistakes_of(document, error, ClaimsConfig)
        raise UserError(*document.mistakes, *found) from None
    if wrong := [*document.mistakes, *_placeholders(config, document, path)]:
        raise UserError(*wrong)
    return config


def judge(folder: Path, config: ClaimsConfig) -> list[Judged]:
    """Judge every claim for every value of `each`, in order.

    Args:
        folder: of the study.
        config: as returned by `load_claims`.

    Raises:
        UserError: a table is missing, or has not exactly one row for a cell and seed.
    """
    tables: dict[Path, Table] = {}
    found = []
    for claim in config.claims:
        each = config.each if claim.each is None else claim.each
        for values in itertools.product(*each.values()):
            named = dict(zip(each, values, strict=True))
            path = folder / claim.table.format_map(named)
            table = tables.setdefault(path, Table(path, config.replicate))
            found.append(_judged(claim, config, table, named))
    return found


def overall(found: Sequence[Judged]) -> list[tuple[str, str]]:
    """Return claims with their overall verdict: that of all values of `each`, or `mixed: …`."""
    groups: dict[str, list[Judged]] = {}
    for one in found:
        groups.setdefault(one.claim, []).append(one)
    return [(claim, _whole(ones)) for claim, ones in groups.items()]


def _whole(ones: Sequence[Judged]) -> str:
    verdicts = [one.verdict for one in ones]
    return verdicts[0] if len(set(verdicts)) == 1 else f"mixed: {', '.join(verdicts)}"


def _placeholders(config: ClaimsConfig, document: Document, path: Path) -> Iterator[str]:
    for index, claim in enumerate(config.claims):
        each = config.each if claim.each is None else claim.each
        try:
            claim.table.format_map(dict.fromkeys(each, ""))
        except (KeyError, ValueError, IndexError, AttributeError):
            origin = document.origins.get(("claims", index, "table"), path)
            names = ", ".join(f"{{{name}}}" for name in each) or "nothing, as `each` is empty"
            yield f"{origin}: {claim.table!r}: braces may hold {names}"


def _judged(
    claim: ClaimConfig, config: ClaimsConfig, table: Table, named: Mapping[str, str]
) -> Judged:
    effects, of = list(_effects(claim, table, named).values()), ", ".join(named.values())
    level = claim.level or config.level
    smallest = claim.smallest or config.smallest
    if len(effects) > 1:
        estimate, half = t_interval(effects, level)
    else:
        estimate, half = (effects or [math.nan])[0], math.nan
    low, high = estimate - half, estimate + half
    judgement: Verdict = "undetermined"
    if not math.isnan(half):
        judgement = verdict(
            low, high, smallest=smallest, pairs=len(effects), planned=config.planned
        )
    unit = config.unit if claim.unit is None else claim.unit
    count = len(effects)
    return Judged(claim.claim, of, estimate, low, high, unit, count, level, smallest, judgement)


def _effects(claim: ClaimConfig, table: Table, named: Mapping[str, str]) -> dict[str, float]:
    """Return the effects by seed, of the seeds that all cells have."""
    cells = [
        (sign, table.cell(_filled({**claim.where, **cell}, named), claim.column))
        for sign, several in ((1, claim.plus), (-1, claim.minus))
        for cell in several
    ]
    shared = [seed for seed in cells[0][1] if all(seed in values for _, values in cells)]
    return {seed: math.fsum(sign * values[seed] for sign, values in cells) for seed in shared}


def _filled(cell: Cell, named: Mapping[str, str]) -> dict[str, object]:
    """Return a cell with the values of `each` in place of their names in braces."""
    filled: dict[str, object] = dict(cell)
    for name, value in named.items():
        for column, wanted in filled.items():
            if isinstance(wanted, str):
                filled[column] = wanted.replace(f"{{{name}}}", value)
    return filled


@dataclass(frozen=True)
class Table:
    """CSV file whose rows are looked up by values.

    Attributes:
        path: of the file.
        replicate: column of the seed.
    """

    path: Path
    replicate: str

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """Rows as text.

        Raises:
            UserError: there is no such file, or it is not CSV in UTF-8.
        """
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                return list(csv.DictReader(file, strict=True))
        except FileNotFoundError:
            raise UserError(f"{self.path}: no such file; measure the study's runs first") from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{self.path}: not a CSV table: {error}") from None

    def cell(self, wanted: Mapping[str, object], column: str) -> dict[str, float]:
        """Return a column's numbers by seed, from the rows with all wanted values.

        Raises:
            UserError: a column is missing, no row has these values, two rows of one seed have them,
                or a value is not a finite number.
        """
        columns = list(self.rows[0]) if self.rows else []
        for name in (*wanted, column, self.replicate):
            if name not in columns:
                there = ", ".join(columns) or "none"
                raise UserError(f"{self.path}: no column {name!r}; there are: {there}")
        found: dict[str, float] = {}
        described = ", ".join(f"{name} = {value}" for name, value in wanted.items())
        for row in self.rows:
            if any(row[name] != str(value) for name, value in wanted.items()):
                continue
            seed = row[self.replicate]
            if seed in found:
                raise UserError(
                    f"{self.path}: two rows with {described}, {self.replicate} = {seed}; "
                    "say more in `where`"
                )
            found[seed] = self._number(row[column], column, described)
        if not found:
            raise UserError(f"{self.path}: no row with {described}")
        return found

    def _number(self, text: str | None, column: str, described: str) -> float:
        try:
            value = float(text or "")
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UserError(
                f"{self.path}: {column} is {text!r}, no number, in the row with {described}"
            )
        return value
