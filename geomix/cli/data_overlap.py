"""`geomix data overlap`: the facts of a configuration that occur in its mixed-in passages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.table import Table
from rich.text import Text

from geomix.cli.data_sources import plain
from geomix.config.data import mixes_of
from geomix.config.load import Experiment
from geomix.config.names import role_of
from geomix.config.run import RunConfig
from geomix.data.example import Example
from geomix.data.overlap import Match, Overlap, overlap
from geomix.data.plan import plan_stages
from geomix.data.probes import asks_familiarity, recorded_mixes
from geomix.data.provenance import content_hash
from geomix.util.console import Console
from geomix.util.errors import UserError
from geomix.util.progress import phase, telling
from geomix.util.terminal import echo_json

MOST_ROWS = 20
"""Most overlapping rows listed for a comparison, unless all are requested."""

_LONGEST_STRETCH = 30  # words of a passage; a longer match shows its two ends
_RULES = {
    "named": "entity pair, subject named by the source",
    "guessed": "entity pair, subject guessed from the prompt",
    "none": "no entity pair to look for",
}


@dataclass(slots=True)
class ExampleSet:
    """Examples that a configuration uses, in one place or several.

    Attributes:
        name: `D_A`, `D_B`, …, `D_M`, `D_M-prose`.
        source: their origin.
        examples: as text.
        places: stages, `record.mix`; with the arm, if there are arms.
    """

    name: str
    source: str
    examples: list[Example]
    places: dict[str, None] = field(default_factory=dict)


def comparisons(experiment: Experiment) -> list[tuple[ExampleSet, ExampleSet]]:
    """Return every stage's own set with every D_M of the same arm; equal pairs once.

    Raises:
        UserError: a source cannot give what is requested, or nothing is mixed in anywhere.
    """
    sets: dict[tuple[str, str], ExampleSet] = {}
    chosen: dict[tuple[tuple[str, str], tuple[str, str]], None] = {}
    for arm, config in experiment.arms.items():
        keys: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
        for place, found in _sets_of(config):
            key = (found.name, content_hash(found.examples))
            sets.setdefault(key, found).places[f"{arm}: {place}" if arm else place] = None
            keys[role_of(found.name) == "mixed"].append(key)
        chosen.update(((own, mixed), None) for own in keys[False] for mixed in keys[True])
    if not chosen:
        raise UserError(
            f"{experiment.name}: it mixes nothing in that facts could overlap with; give a stage "
            "a mix, or record.mix"
        )
    return [(sets[own], sets[mixed]) for own, mixed in chosen]


def _sets_of(config: RunConfig) -> list[tuple[str, ExampleSet]]:
    """Return the sets of one arm, each with its place."""
    found = []
    plans = plan_stages(config)
    for number, (plan, stage) in enumerate(zip(plans, config.stages, strict=True), start=1):
        found.append((f"stage {number}", ExampleSet(plan.name, stage.data.source, plan.own)))
        for name, part in plan.mixes.items():
            place = f"stage {number}{', left out' * (not part.trained)}"
            each = list(dict.fromkeys(part.examples))
            found.append((place, ExampleSet(name, stage.mixes[name].source, each)))
    for name, part in recorded_mixes(config, plans).items():
        assert config.record is not None
        source = mixes_of(config.record.mix)[name].source
        found.append(("record.mix", ExampleSet(name, source, part.examples)))
    return found


def show_overlap(experiment: Experiment, size: int, *, full: bool, as_json: bool) -> None:
    """Print the overlap: the body of `geomix data overlap`.

    Args:
        experiment: the validated configuration.
        size: of the n-grams, in words.
        full: whether to list every overlapping row, and not to shorten texts.
        as_json: whether to print everything as JSON.

    Raises:
        UserError: a source cannot give what is requested, or nothing is mixed in anywhere.
    """
    with telling(), phase("looking for the facts in the passages"):
        found = [
            (own, mixed, overlap(own.examples, mixed.examples, size))
            for own, mixed in comparisons(experiment)
        ]
    if as_json:
        echo_json([_everything(*each) for each in found])
        return
    console = Console()
    for own, mixed, result in found:
        console.print(Text(f"{own.name} against {mixed.name}", style="bold"))
        for each in (own, mixed):
            places = "; ".join(each.places)
            known = f"{each.name}: {len(each.examples):,} of {each.source} ({places})"
            console.print(Text(known, overflow="fold"))
        console.print(_table(result))
        for line in _notes(result, len(own.examples)):
            console.print(Text(line))
        _print_rows(console, own, result, full=full)
        console.print()
    if any(asks_familiarity(config) for config in experiment.arms.values()):
        console.print("Familiar facts are not left out here: that takes the model.")


def summary(result: Overlap) -> list[dict[str, Any]]:
    """Return one row per rule: facts covered, overlapping facts, and passages concerned."""
    rows = []
    for rule in _RULES:
        matches = [match for match in result.pairs if result.rules[match.fact] == rule]
        facts = sum(found == rule for found in result.rules)
        rows.append(_row(rule, facts, matches))
    rows.append(_row("ngram", len(result.rules) - result.short, result.ngrams))
    return rows


def _row(rule: str, facts: int, matches: list[Match]) -> dict[str, Any]:
    overlapping = len({match.fact for match in matches})
    return {
        "rule": rule,
        "facts": facts,
        "overlapping": overlapping,
        "percent": 100 * overlapping / facts if facts else None,
        "passages": len({match.passage for match in matches}),
    }


def _table(result: Overlap) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("rule")
    for name in ("facts", "overlapping", "%", "passages"):
        table.add_column(name, justify="right", no_wrap=True)
    headings = _RULES | {"ngram": f"{result.size} words in a row"}
    for row in summary(result):
        cells = [f"{row['facts']:,}", "–", "–", "–"]
        if row["rule"] != "none" and row["facts"]:
            share = f"{row['percent']:.1f}"
            cells[1:] = [f"{row['overlapping']:,}", share, f"{row['passages']:,}"]
        if row["facts"] or row["rule"] == "ngram":
            table.add_row(headings[row["rule"]], *cells)
    return table


def _notes(result: Overlap, facts: int) -> list[str]:
    notes = []
    if result.short:
        advice = "; --ngram takes fewer" if result.short == facts else ""
        notes.append(f"{result.short:,} facts have fewer than {result.size} words{advice}")
    if result.common:
        notes.append(
            f"left out: {result.common:,} runs of {result.size} words that more than half of the "
            "facts have (their template)"
        )
    if not (result.pairs or result.ngrams):
        notes.append("no overlap found")
    return notes


def _matches(result: Overlap) -> list[tuple[str, Match]]:
    """Return all overlapping rows, each with its rule."""
    pairs: list[tuple[str, Match]] = [(result.rules[m.fact], m) for m in result.pairs]
    return [*pairs, *(("ngram", match) for match in result.ngrams)]


def stretch(result: Overlap, match: Match) -> str:
    """Return the matched part of the passage, from the first word found to the last.

    If subject and answer are far apart, return both with an ellipsis between them.
    """
    passage = result.passages[match.passage]
    spans = sorted(match.spans)
    first, end = spans[0][0], max(last for _, last in spans)
    if len(spans) == 1 or end - first <= _LONGEST_STRETCH:
        return passage.stretch(first, end)
    return " … ".join(passage.stretch(*span) for span in spans)


def _print_rows(console: Console, own: ExampleSet, result: Overlap, *, full: bool) -> None:
    matches = _matches(result)
    if matches:
        console.print(Text("overlapping rows, counted from 0:", style="bold"))
    for rule, match in matches if full else matches[:MOST_ROWS]:
        fact = _fact_text(own.examples[match.fact])
        found = f"  passage {match.passage} ({rule}): {stretch(result, match)}"
        for line in (f"fact {match.fact}: {fact}", found):
            console.print(plain(line.replace("\n", " "), full=full), soft_wrap=True)
    left = len(matches) - MOST_ROWS
    if left > 0 and not full:
        console.print(f"… and {left:,} more; --full lists them all")


def _fact_text(example: Example) -> str:
    return f"{example.prompt} → {example.target}"


def _everything(own: ExampleSet, mixed: ExampleSet, result: Overlap) -> dict[str, Any]:
    """Return one comparison as `--json` prints it."""
    return {
        "own": _described(own),
        "mixed": _described(mixed),
        "ngram": result.size,
        "short_facts": result.short,
        "common_ngrams": result.common,
        "rules": summary(result),
        "rows": [
            {
                "rule": rule,
                "fact": match.fact,
                "fact_text": _fact_text(own.examples[match.fact]),
                "passage": match.passage,
                "stretch": stretch(result, match),
            }
            for rule, match in _matches(result)
        ],
    }


def _described(found: ExampleSet) -> dict[str, Any]:
    return {
        "name": found.name,
        "source": found.source,
        "examples": len(found.examples),
        "places": list(found.places),
    }
