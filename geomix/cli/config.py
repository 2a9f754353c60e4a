"""`geomix config`: a configuration with every default filled in, its validation, and its schema."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from geomix.config.load import Experiment, load
from geomix.config.run import RunConfig
from geomix.data.sources import SOURCES
from geomix.util.errors import UserError
from geomix.util.terminal import echo_json, harmless


def show(experiment: Experiment, arm: str | None = None) -> str:
    """Return YAML of every key, defaults included; without arms it is a configuration again.

    Args:
        experiment: the validated configuration.
        arm: the one arm to show; None shows all, one YAML document each.

    Raises:
        UserError: there is no such arm.
    """
    if arm is not None and arm not in experiment.arms:
        known = ", ".join(filter(None, experiment.arms)) or "none"
        raise UserError(f"{experiment.name}: it has no arm '{arm}'; its arms: {known}")
    texts = []
    for name, config in experiment.arms.items():
        if arm in (None, name):
            values = config.model_dump(mode="json")
            text = _yaml(values)
            texts.append(f"# arm {name}\n{text}" if name else text)
    return "---\n".join(texts)


def _yaml(values: dict[str, Any]) -> str:
    """Return YAML that is safe to print: control characters are escaped."""
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    if harmless(text) != text:  # escape it, with everything that is not ASCII
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=False, width=100)
    return text


def validate(files: Sequence[Path]) -> list[str]:
    """Return one line for each valid file.

    Raises:
        UserError: one line for each mistake in any of the files.
    """
    fine: list[str] = []
    mistakes: list[str] = []
    for file in files:
        try:
            experiment = load(file, sources=tuple(SOURCES))
        except UserError as error:
            mistakes += error.lines
            continue
        stages = len(next(iter(experiment.arms.values())).stages)
        arms = [name for name in experiment.arms if name]
        count = f"{stages} stage{'s' * (stages != 1)}"
        fine.append(f"{file}: {count}" + f", arms {', '.join(arms)}" * bool(arms))
    if mistakes:
        raise UserError(*mistakes)
    return fine


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file, for editors."""
    found = RunConfig.model_json_schema(mode="validation")
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    found["title"] = "A configuration of geomix"
    found["properties"]["arms"] = {
        "description": "Variants of the above, one run each: overrides by arm, keys in dots.",
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"type": ["object", "null"]},
    }
    found["properties"]["stages"]["items"] = {"$ref": "#/$defs/StageConfig"}
    return found


def print_schema() -> None:
    """Print the schema: the body of `geomix config schema`."""
    echo_json(schema(), indent=2)
