"""Suggestions for an unknown key."""

from __future__ import annotations

import difflib
from typing import get_origin

from pydantic import BaseModel

from geomix.config.document import Key
from geomix.config.run import RunConfig, StageConfig
from geomix.config.training import TrainConfig

MOST_KEYS = 3
"""Most places of a key that a message names."""


def suggestion(key: Key, root: type[BaseModel]) -> str:
    """Return `; did you mean 'ratio'?`, the places where there is such a key, or the known keys."""
    model = _model_at(key[:-1], root)
    if model is None:
        return ""
    fields = [field.alias or name for name, field in model.model_fields.items()]
    names = [*fields, *(["arms"] if model is RunConfig else [])]
    close = difflib.get_close_matches(str(key[-1]), names, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    if found := _keys(str(key[-1]), root):
        guesses = "' or '".join(found[:MOST_KEYS])
        return f"; did you mean '{guesses}'?"
    return f"; known: {', '.join(names)}"


def _keys(name: str, root: type[BaseModel], before: str = "") -> list[str]:
    """Return the dotted keys of that name in a configuration, those nearest to the top first."""
    names = {field.alias or own: own for own, field in root.model_fields.items()}
    found = [f"{before}{name}"] if name in names else []
    for alias, own in names.items():
        if get_origin(root.model_fields[own].annotation) is dict:
            continue  # its keys are the user's own
        inner = StageConfig if alias == "stages" else _class_of(root, own)
        if inner is not root and (before + alias).count(alias) == 1:
            numbered = f"{alias}.0" if alias == "stages" else alias
            found += _keys(name, inner, f"{before}{numbered}.")
    return sorted(found, key=lambda key: key.count("."))


def _model_at(key: Key, root: type[BaseModel]) -> type[BaseModel] | None:
    """Return the class that describes the mapping at `key`."""
    model = root
    for part in key:
        if part == "stages":
            model = StageConfig
        elif isinstance(part, str):
            model = TrainConfig if part == "train" else _class_of(model, part)
    return model


def _class_of(model: type[BaseModel], name: str) -> type[BaseModel]:
    """Return the model class in a field's annotation, through `Annotated` and `| None`."""
    pending = [model.model_fields[name].annotation] if name in model.model_fields else []
    while pending:
        annotation = pending.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
        pending.extend(getattr(annotation, "__args__", ()))
    return model
