"""Passage-free controls among the arms of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping

from geomix.config.run import RunConfig


def control_of(label: str, configs: Mapping[str, RunConfig]) -> str | None:
    """Return the label of an arm's control: the same arm, with passages left out; None without one.

    Args:
        label: of the arm; a control has no control.
        configs: of all arms, by label.
    """
    own = configs[label]
    if _is_free(own):
        return None
    return next(
        (
            other
            for other, config in configs.items()
            if _is_free(config) and _with_passages(config) == _with_passages(own)
        ),
        None,
    )


def _is_free(config: RunConfig) -> bool:
    return any(mix.passage_free for stage in config.stages for mix in stage.mixes.values())


def _with_passages(config: RunConfig) -> str:
    """Return what a control and its arm share: all but the seed, and where a stage comes from."""
    known = config.model_dump(mode="json", exclude={"name", "seed"})
    for stage in known["stages"]:
        found = stage.get("mix") or []
        for mix in found if isinstance(found, list) else [found]:
            mix["passage_free"] = False
        stage["from"] = bool(stage.pop("from_", None) or stage.get("from"))
    return json.dumps(known, sort_keys=True)
