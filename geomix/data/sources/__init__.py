"""Registry of all sources of examples by their name in a configuration, one line each.

A source is a value of `geomix.data.sources.base.Source`. Another package adds one through an entry
point of the group `geomix.sources`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from geomix.util.registry import Registry

if TYPE_CHECKING:
    from geomix.data.sources.base import Source

_HERE = "geomix.data.sources"

SOURCES: Registry[Source] = Registry(
    "data source",
    "geomix.sources",
    {
        "kvr": f"{_HERE}.kvr:SOURCE",
        "triples": f"{_HERE}.triples:SOURCE",
        "popqa": f"{_HERE}.factoids:POPQA",
        "triviaqa": f"{_HERE}.factoids:TRIVIAQA",
        "lama": f"{_HERE}.lama:SOURCE",
        "entityquestions": f"{_HERE}.factoids:ENTITYQUESTIONS",
        "webqa": f"{_HERE}.factoids:WEBQA",
        "arithmetic": f"{_HERE}.arithmetic:SOURCE",
        "ultrachat": f"{_HERE}.instructions:ULTRACHAT",
        "evolcode": f"{_HERE}.instructions:EVOLCODE",
        "apps": f"{_HERE}.instructions:APPS",
        "gsm8k": f"{_HERE}.instructions:GSM8K",
        "math": f"{_HERE}.instructions:MATH",
        "random-words": f"{_HERE}.random_words:SOURCE",
        "kpile": f"{_HERE}.passages:KPILE",
        "arxiv": f"{_HERE}.passages:ARXIV",
        "fineweb": f"{_HERE}.passages:FINEWEB",
        "prose": f"{_HERE}.prose:SOURCE",
    },
)
"""Sources by name, in the order in which `geomix data list` shows them."""
