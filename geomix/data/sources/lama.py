"""LAMA: relations of T-REx, Google-RE, ConceptNet and SQuAD as sentences with a blank.

geomix ships none of its data (CC BY-NC 4.0): templates are read from the user's copy. The paper
prints no template. geomix uses LAMA's own: T-REx and Google-RE's places from `relations.jsonl`,
with Google-RE's date of birth as in LAMA's script; ConceptNet and SQuAD have a sentence in each
row. A blank replaces the object, as the prompt states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from geomix.data.example import Example
from geomix.data.files.tables import rows
from geomix.data.sources.base import Found, Hub, Request, Source
from geomix.data.sources.published import read
from geomix.data.sources.rows import RowError, answered, text_in, texts_in
from geomix.util.errors import UserError

PROMPT = "Fill in the blank: {sentence} The answer is:"
BLANK = "____"

DATE_OF_BIRTH = "[X] (born [Y])."
"""Google-RE's one template that `relations.jsonl` lacks, from LAMA's script."""

PATTERNS = {
    "trex": "TREx/P*.jsonl",
    "google_re": "Google_RE/*_test.jsonl",
    "conceptnet": "ConceptNet/test.jsonl",
    "squad": "Squad/test.jsonl",
}
"""LAMA's own files, under its `data/`; the names are the hub's configurations."""

_PREDICATES = {
    "/people/person/place_of_birth": "P19",
    "/people/deceased_person/place_of_death": "P20",
}
_HUB = Hub("facebook/lama", "trex", revision="refs/convert/parquet")


def lama_row(row: Mapping[str, Any], templates: Mapping[str, str]) -> Example:
    """Convert a row of any of the four sets, in LAMA's files or from the hub.

    Args:
        row: one fact.
        templates: by Wikidata property, from `relations.jsonl`; the hub's rows contain their own.

    Raises:
        RowError: neither a template nor a sentence with a blank is known.
    """
    target = text_in(row, "obj_label")
    template = row.get("template") or _template(row, templates)
    if template:
        if "[X]" not in template or "[Y]" not in template:
            raise RowError("the template lacks [X] or [Y]")
        # The object first: a subject might hold "[Y]", a blank never holds "[X]".
        subject = text_in(row, "sub_label")
        sentence = template.replace("[Y]", BLANK).replace("[X]", subject)
    else:
        key = "masked_sentences" if "masked_sentences" in row else "masked_sentence"
        masked = texts_in(row, key) if key == "masked_sentences" else (text_in(row, key),)
        if not masked or "[MASK]" not in masked[0]:
            raise RowError(f"'{key}' has no sentence with a [MASK]")
        # These sentences have no single entity: SQuAD's `sub_label` is always "Squad".
        subject, sentence = "", masked[0].replace("[MASK]", BLANK)
    aliases = texts_in(row, "obj_aliases") if row.get("obj_aliases") else ()
    return answered(PROMPT.format(sentence=sentence), target, aliases, subject)


def _template(row: Mapping[str, Any], templates: Mapping[str, str]) -> str | None:
    if "predicate_id" in row:
        relation = text_in(row, "predicate_id")
    elif str(row.get("pred", "")).startswith("/people/"):
        if row["pred"].endswith("/date_of_birth"):
            return DATE_OF_BIRTH
        relation = _PREDICATES.get(row["pred"], row["pred"])
    else:
        return None
    if relation not in templates:
        raise RowError(f"no template of '{relation}' in relations.jsonl")
    return templates[relation]


def templates_near(path: Path) -> dict[str, str]:
    """Read templates by relation from the `relations.jsonl` in a folder, below it or just above.

    Raises:
        UserError: there is none, or it is malformed.
    """
    start = path if path.is_dir() else path.parent
    below = sorted(start.rglob("relations.jsonl")) if path.is_dir() else []
    near = [*below, start / "relations.jsonl", start.parent / "relations.jsonl"]
    file = next((one for one in near if one.is_file()), None)
    if file is None:
        raise UserError(
            f"{path}: LAMA's relations.jsonl (the templates) is not beside it; copy "
            "it there from LAMA's data.zip"
        )
    found = {}
    for location, row in rows(file):
        try:
            if isinstance(row, str):
                raise RowError(row)
            found[text_in(row, "relation")] = text_in(row, "template")
        except RowError as error:
            raise UserError(f"{location}: {error}") from None
    return found


def _load(source: Source, request: Request) -> Found:
    subset = request.subset or "trex"
    path = Path(request.path) if request.path else None
    relations = subset in ("trex", "google_re")
    templates = templates_near(path) if path and path.exists() and relations else {}
    files = (PATTERNS[subset], f"{Path(PATTERNS[subset]).parent}*.parquet")
    of_subset = replace(source, hub=replace(_HUB, config=subset))
    return read(of_subset, request, lambda row: lama_row(row, templates), files, part=subset)


SOURCE = Source(
    name="lama",
    kind="factoid",
    loader=_load,
    licence="CC BY-NC 4.0",
    prompt=PROMPT,
    prompt_from="geomix; the sentence is LAMA's own template (relations.jsonl) or masked sentence",
    rows=34_039,
    hub=_HUB,
    download="download https://dl.fbaipublicfiles.com/LAMA/data.zip",
    upstream="data.zip, unpacked: TREx/P*.jsonl, Google_RE, ConceptNet, Squad, relations.jsonl",
    subsets=tuple(PATTERNS),
    note="rows are those of T-REx, the default subset; a script dataset on the hub, so its Parquet "
    "conversion is read",
)
