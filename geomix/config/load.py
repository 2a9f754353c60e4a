"""Loader of YAML, overrides and arms into validated configurations, all mistakes at once."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from geomix.config.arms import set_text
from geomix.config.document import (
    Document,
    Key,
    Mistakes,
    Origin,
    line_of,
    origin_at,
    override,
    parse,
    repeated,
)
from geomix.config.run import RunConfig
from geomix.config.suggest import suggestion
from geomix.util.errors import UserError
from geomix.util.nearby import close_to
from geomix.util.package import PACKAGE

NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Names that a folder can have."""

PRESETS = PACKAGE / "config" / "presets"


@dataclass(frozen=True, slots=True)
class Experiment:
    """One configuration's experiment: a single run, or several arms.

    Attributes:
        name: of the run directory.
        text: the configuration as given, the `--set` overrides as comments.
        arms: configurations by arm; the single key "" where the file has no arms.
    """

    name: str
    text: str
    arms: dict[str, RunConfig]

    def with_arms(self, names: Sequence[str]) -> Experiment:
        """Return the experiment with these arms only, in its own order; with all if none is named.

        Raises:
            UserError: it has no such arm.
        """
        for name in names:
            if name not in self.arms or not name:
                known = ", ".join(filter(None, self.arms)) or "none"
                raise UserError(f"{self.name}: it has no arm '{name}'; its arms: {known}")
        chosen = {name: self.arms[name] for name in self.arms if name in names}
        return replace(self, arms=chosen or self.arms)


def load(
    path: Path, overrides: Sequence[str] = (), sources: Collection[str] | None = None
) -> Experiment:
    """Read and validate a configuration.

    Args:
        path: a YAML file.
        overrides: `key.path=value` texts; the value is YAML.
        sources: names of the data sources that exist; None does not check them.

    Raises:
        UserError: one line for each mistake (file, line, key, what is wrong, what to do), in the
            file's order, those of `overrides` last.
    """
    return _overridden(*read_document(path), overrides, sources)


def load_text(
    text: str,
    name: str,
    overrides: Sequence[str] = (),
    sources: Collection[str] | None = None,
) -> Experiment:
    """Validate a configuration that is not in a file.

    Args:
        text: YAML.
        name: its name in messages.
        overrides: as in `load`.
        sources: as in `load`.

    Raises:
        UserError: one line for each mistake.
    """
    return _overridden(parse(text, name), text, overrides, sources)


def _overridden(
    document: Document, text: str, overrides: Sequence[str], sources: Collection[str] | None
) -> Experiment:
    for change in overrides:
        try:
            set_text(document, change)
        except UserError as error:
            document.mistakes.update(dict.fromkeys(error.lines, math.inf))
    notes = "".join(f"# --set {change}\n" for change in overrides)
    return experiment_of(document, notes + text, sources)


def config_path(given: Path, beside: Path = Path()) -> Path:
    """Return the file of a configuration's name: a path relative to `beside`, or a preset."""
    preset = PRESETS / f"{given}.yaml"
    file = beside / given
    return preset if not file.exists() and preset.is_file() else file


def read_text(path: Path, advice: str) -> str:
    """Read a text file.

    Raises:
        UserError: it does not exist (the message ends in the advice), or is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = close_to(path)
        guess = advice if near is None else f"did you mean '{near}'?"
        raise UserError(f"{path}: no such file; {guess}") from None
    except (OSError, UnicodeDecodeError) as error:
        advice = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise UserError(f"{path}: cannot be read as text ({error}){advice}") from None


def read_document(path: Path) -> tuple[Document, str]:
    """Read a configuration's values, not validated yet, and its text.

    Raises:
        UserError: it cannot be read, or is not a YAML mapping.
    """
    text = read_text(path, "`geomix train` alone runs the demo")
    document = parse(text, str(path))
    if NAME.fullmatch(path.stem):
        document.values.setdefault("name", path.stem)
    return document, text


def experiment_of(
    document: Document, text: str, sources: Collection[str] | None = None
) -> Experiment:
    """Validate a configuration.

    Args:
        document: its values.
        text: as stored in the run.
        sources: as in `load`.

    Raises:
        UserError: one line for each mistake.
    """
    arms = document.values.pop("arms", None)
    mistakes = document.mistakes  # each once: arms share most of the tree
    if arms is None:
        run = _validated(document, sources, mistakes)
        configs = {"": run}
    else:
        configs = {}
        for name, arm in _arm_documents(document, arms, mistakes):
            configs[name] = _validated(arm, sources, mistakes)
        if not configs:
            _validated(document, sources, mistakes)
    if mistakes:
        raise UserError(*sorted(mistakes, key=lambda message: mistakes[message]))
    found = {name: config for name, config in configs.items() if config is not None}
    return Experiment(next(iter(found.values())).name, text, found)


def _arm_documents(document: Document, arms: Any, mistakes: Mistakes) -> list[tuple[str, Document]]:
    """Return the base with each arm's overrides, whose keys are dotted as in `--set`."""
    origin = document.origins.get(("arms",), Origin("", None, ("arms",)))
    if not isinstance(arms, dict) or not arms:
        mistakes[f"{origin}: a mapping from the arm's name to its overrides"] = line_of(origin)
        return []
    found = []
    for name, changes in arms.items():
        at = document.origins.get(("arms", str(name)), origin)
        if not (isinstance(name, str) and re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name)):
            message = f"{at}: an arm's name is 1 to 100 letters, digits, '-' and '_'"
            mistakes[message] = line_of(at)
            continue
        removed = changes is None and at.line is None  # null in a file changes nothing
        if removed or not (changes is None or isinstance(changes, dict)):
            advice = "a mapping of overrides, such as stages.0.mix.ratio: 2"
            message = f"{at}: {advice}" + "; --arm trains some arms only" * removed
            mistakes[message] = line_of(at)
            continue
        arm = Document(copy.deepcopy(document.values), dict(document.origins))
        for key, value in (changes or {}).items():
            written = ("arms", name, str(key))
            location = document.origins.get(written, at)
            try:
                override(arm, str(key), value, location, written, document.origins)
            except UserError as error:
                mistakes.update(dict.fromkeys(error.lines, line_of(location)))
        found.append((name, arm))
    return found


def _validated(
    document: Document, sources: Collection[str] | None, mistakes: Mistakes
) -> RunConfig | None:
    """Validate one arm; a stage's `train` overrides the run's."""
    values = copy.deepcopy(document.values)
    shared = values.get("train") or {}
    stages = values.get("stages")
    if isinstance(shared, dict) and isinstance(stages, list):
        for stage in stages:
            if isinstance(stage, dict) and isinstance(stage.get("train", {}), dict | None):
                stage["train"] = {**shared, **(stage.get("train") or {})}
    try:
        found = RunConfig.model_validate(values, context={"sources": sources})
    except ValidationError as error:
        mistakes.update(mistakes_of(document, error, RunConfig))
        return None
    return found.written_in(document.origins)


def mistakes_of(document: Document, error: ValidationError, root: type[BaseModel]) -> Mistakes:
    """Return a line for each mistake (file, line, key, what is wrong, what to do), and its place.

    Args:
        document: the validated document.
        error: the errors of pydantic.
        root: the model of the whole document.
    """
    found = error.errors()
    unknown = {detail["loc"][:-1] for detail in found if detail["type"] == "extra_forbidden"}
    messages = [
        _message(document, detail, root)
        for detail in found
        if not (detail["type"] == "missing" and detail["loc"][:-1] in unknown)
        or origin_of(document, detail["loc"]).line is not None  # else --set made it
    ]
    return {f"{origin}: {text}": line_of(origin) for origin, text in messages}


def _message(document: Document, detail: Any, root: type[BaseModel]) -> tuple[Origin, str]:
    """Return one mistake: where it is; what is wrong and what to do."""
    key: Key = tuple(part for part in detail["loc"] if part not in ("str", "int", "[key]"))
    no_text = detail["type"] == "invalid_key"
    key = (*key[:-1], str(key[-1])) if no_text else key
    if key[:1] == ("stages",) and key[2:3] == ("train",) and key not in document.origins:
        shared = ("train", *key[3:])
        key = shared if shared in document.origins else key
    origin = origin_of(document, key)
    if no_text:
        return origin, "a key is a text; put it in quotes"
    if detail["type"] == "extra_forbidden":
        return origin, f"unknown key{suggestion(key, root)}"
    if detail["type"] == "missing":
        return origin, "missing; it must be given"
    message = _KINDS.get(detail["type"]) or str(detail["msg"]).removeprefix("Value error, ")
    message = message.replace("Input should", "must", 1)
    return origin, f"{message[:1].lower()}{message[1:]} (given: {repeated(detail['input'])})"


_KINDS = {
    **dict.fromkeys(("model_type", "dict_type"), "must be a mapping, `key: value`"),
    **dict.fromkeys(("list_type", "tuple_type"), "must be a list, `[one, two]`"),
    "string_type": "must be a text; put it in quotes",
    **dict.fromkeys(("bool_parsing", "bool_type"), "must be true or false"),
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "string_pattern_mismatch": "must begin with a letter or digit; then also '.', '_' and '-'",
}
"""User-level wording of pydantic's messages, by its error type."""


def origin_of(document: Document, key: Key) -> Origin:
    """Return the origin of `key`, or of the nearest part around it."""
    return origin_at(document.origins, key)
