"""Quantities: optional contents of a snapshot for each probe set. One file and one line here.

A quantity (`geomix.recording.quantities.base.Quantity`) declares its variables once. Writing,
checks, gathering over processes, the dry run's bytes, `Records` and export follow from that. Its
arrays are the group `probes/<set>/quantities/<name>` of a snapshot.

`record.quantities` names those that are kept. Another package adds one through an entry point of
the group `geomix.quantities`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from geomix.util.registry import Registry

if TYPE_CHECKING:
    from geomix.recording.quantities.base import Quantity

QUANTITIES: Registry[type[Quantity]] = Registry(
    "quantity",
    "geomix.quantities",
    {"tokens": "geomix.recording.quantities.tokens:Tokens"},
)
"""All quantities by their name in `record.quantities`."""
