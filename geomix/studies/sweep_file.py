"""A study: one configuration, its variations, and where its runs are started."""

from __future__ import annotations

import copy
import difflib
import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from geomix.config.arms import in_arm, override_arm, set_text
from geomix.config.data import Count, Name, Seed, Strict
from geomix.config.document import Document, Key, key_of, override, parse
from geomix.config.load import (
    config_path,
    experiment_of,
    mistakes_of,
    origin_of,
    read_document,
    read_text,
)
from geomix.runs.directory import DEFAULT_ROOT
from geomix.studies.member import Member
from geomix.util.errors import UserError

MOST_MEMBERS = 10_000
"""Most members of a study; more are taken for a mistake."""

LONGEST_NAME = 120
"""Most characters of a member's name; a longer one ends in a hash."""

WANTS = "a study is a mapping that holds at least `base:` and what varies"
ADVICE = "a study names a configuration as `base:` and says what varies: `grid:`, `runs:`, `seeds:`"

ExecutorName = Literal["local", "slurm"]


class StudyConfig(Strict):
    """Keys of a study's file."""

    base: Annotated[str, Field(min_length=1)]
    """Configuration to vary: a file, relative to the study's, or a preset's name."""
    set: dict[str, Any] = Field(default={})
    """Overrides that all members share, with dotted keys."""
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default={})
    """Values by dotted key; every combination is a member."""
    runs: dict[Name, dict[str, Any] | None] = Field(default={})
    """Individual members instead of a grid: name → overrides."""
    seeds: list[Seed] = Field(default=[])
    """Shorthand for `seed` in the grid; every named run has each of them too."""
    out: Annotated[str, Field(min_length=1)] | None = None
    """Folder of the sweep; by default that of the study's name under runs/."""
    executor: ExecutorName = "local"
    """Executor: `local` starts processes here, `slurm` submits jobs."""
    jobs: Count | None = None
    """Number of members at once; by default one locally, and on SLURM as many as it allows."""
    slurm: dict[str, Any] = Field(default={})
    """Options that submitit passes to SLURM: partition, gpus_per_node, timeout_min, cpus_per_task,
    …"""


@dataclass(frozen=True, slots=True)
class Study:
    """A study whose every member is valid.

    Attributes:
        name: stem of its file.
        text: the file, the `--set` overrides as comments.
        folder: of the sweep.
        config: the file's keys.
        members: in the order in which they are started.
    """

    name: str
    text: str
    folder: Path
    config: StudyConfig
    members: list[Member]


@dataclass(frozen=True, slots=True)
class _Choice:
    """One variation of a member: its part of the name, and the overrides behind it."""

    part: str
    overrides: Mapping[str, Any]
    written: Key


def load_study(
    path: Path, overrides: Sequence[str] = (), sources: Collection[str] | None = None
) -> Study:
    """Read a study and validate the configuration of every member.

    Args:
        path: its YAML file.
        overrides: `key.path=value` texts, applied after `set:` and before the variations.
        sources: names of the data sources that exist; None does not check them.

    Raises:
        UserError: one line for each mistake of the study, or of any member.
    """
    text = read_text(path, ADVICE)
    document = parse(text, str(path), WANTS)
    try:
        config = StudyConfig.model_validate(document.values)
    except ValidationError as error:
        raise UserError(*document.mistakes, *mistakes_of(document, error, StudyConfig)) from None
    count = math.prod(len(axis) for axis in _axes(config))
    if count > MOST_MEMBERS:
        raise UserError(f"{path}: {count} members; the most is {MOST_MEMBERS}")
    base, _ = read_document(config_path(Path(config.base), beside=path.parent))
    folder = Path(config.out) if config.out else DEFAULT_ROOT / path.stem
    mistakes = _mistakes(document, config, str(path), overrides)
    found = dict.fromkeys([*document.mistakes, *base.mistakes, *mistakes])  # ordered, each once
    _shared(base, document, config, overrides, found)
    members = []
    for choices in itertools.product(*_axes(config)):
        name, changes = _name(choices), _changes(choices)
        one = _member_document(base, document, choices, found)
        try:
            notes = f"# {name}: member of {path.name}, which is {config.base} with\n"
            notes += "".join(f"#   {k}: {json.dumps(v, default=str)}\n" for k, v in changes.items())
            values = yaml.safe_dump(one.values, sort_keys=False, allow_unicode=True, width=100)
            experiment = experiment_of(one, notes + values, sources)
        except UserError as error:
            found.update(dict.fromkeys(error.lines))
            continue
        members.append(Member(name, folder, changes, experiment))
    for name, count in Counter(member.name for member in members).items():
        if count > 1:
            found[f"{path}: {count} members would be named {name}; give each value once"] = None
    if found:
        raise UserError(*found)
    notes = "".join(f"# --set {change}\n" for change in overrides)
    return Study(path.stem, notes + text, folder, config, members)


def folder_of(path: Path) -> Path | None:
    """Return the sweep's folder that a study's file names; None if the file is no study."""
    config = _read(path)
    if config is None:
        return None
    return Path(config.out) if config.out else DEFAULT_ROOT / path.stem


def member_names(path: Path) -> list[str]:
    """Return the names of a study's members, in their order; none if its file cannot be read."""
    config = _read(path)
    axes = [] if config is None else _axes(config)
    if not axes or math.prod(len(axis) for axis in axes) > MOST_MEMBERS:
        return []
    return [_name(choices) for choices in itertools.product(*axes)]


def _read(path: Path) -> StudyConfig | None:
    try:
        return StudyConfig.model_validate(parse(read_text(path, ADVICE), str(path), WANTS).values)
    except (UserError, ValidationError):
        return None


def _mistakes(
    document: Document, config: StudyConfig, file: str, overrides: Sequence[str]
) -> list[str]:
    """Return mistakes that pydantic cannot see: exclusive keys, and options of submitit."""

    def at(*key: str) -> str:
        return str(origin_of(document, key))

    found = []
    if config.grid and config.runs:
        found.append(f"{at('runs')}: either `runs:` or `grid:`; leave one of them out")
    if not (config.grid or config.runs or config.seeds):
        found.append(f"{file}: nothing varies; give `grid:`, `runs:` or `seeds: [0, 1, 2]`")
    varied = {key_of(key): at("grid", key) for key in config.grid}
    found += _twice([(key_of(key), at("grid", key)) for key in config.grid])
    found += [
        f"{at('runs', name)}: no name for a run, whose files beside it end so"
        for name in config.runs
        if name.endswith((".yaml", ".log"))
    ]
    if config.out is not None and not config.out.isprintable():
        found.append(f"{at('out')}: a folder's name on one line")
    if config.seeds:
        seeded = [at("grid", key) for key in config.grid if key == "seed"]
        seeded += [at("runs", n, "seed") for n, run in config.runs.items() if "seed" in (run or {})]
        found += [f"{place}: either this or `seeds:`" for place in seeded]
        varied["seed",] = at("seeds")
    fixed = {at("set", key): key for key in config.set}
    fixed |= {f"--set {text}": text.partition("=")[0] for text in overrides}
    for place, key in fixed.items():
        for vary, where in varied.items():
            if key_of(key)[: len(vary)] == vary:
                found.append(f"{place}: has no effect; {where} varies it")
    return found + _no_options(document, config)


def _twice(keys: Sequence[tuple[Key, str]]) -> list[str]:
    """Return keys that coincide, or are part of one another: one would override the other."""
    found = []
    for (one, place), (other, later) in itertools.combinations(keys, 2):
        shorter = min(len(one), len(other))
        if one[:shorter] == other[:shorter]:
            found.append(f"{later}: {place} varies it already, or a part of it")
    return found


def _no_options(document: Document, config: StudyConfig) -> list[str]:
    """Return options under `slurm` that submitit does not take, or that geomix sets itself."""
    if not config.slurm:
        return []
    from geomix.studies.slurm import OWN_OPTIONS, slurm_options

    found = []
    known = slurm_options()
    for name in config.slurm:
        place = origin_of(document, ("slurm", name))
        if name in OWN_OPTIONS:
            found.append(f"{place}: {OWN_OPTIONS[name]}")
        elif name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
            found.append(f"{place}: no option of submitit; {hint}")
    return found


def _shared(
    base: Document,
    study: Document,
    config: StudyConfig,
    overrides: Sequence[str],
    mistakes: dict[str, None],
) -> None:
    """Apply the overrides that all members share to the base."""
    for key, value in config.set.items():
        _lay(base, study, key, value, ("set", key), mistakes)
    for text in overrides:
        try:
            set_text(base, text)
        except UserError as error:
            mistakes.update(dict.fromkeys(error.lines))


def _axes(config: StudyConfig) -> list[list[_Choice]]:
    """Return the axes of variation: members are their product, so one seed's grid is done first."""
    axes = []
    if config.seeds:
        axes.append(list(_values("seed", config.seeds, ("seeds",))))
    axes += [list(_values(key, values, ("grid", key))) for key, values in config.grid.items()]
    if config.runs:
        axes.append([_Choice(n, changes or {}, ("runs", n)) for n, changes in config.runs.items()])
    return axes


def _values(key: str, values: Sequence[Any], written: Key) -> Iterator[_Choice]:
    name = ".".join(map(str, key_of(key)))
    for index, value in enumerate(values):
        yield _Choice(f"{name}={_text(value)}", {key: value}, (*written, index))


def _text(value: Any) -> str:
    """Format a value as YAML, on one line: `2`, `null`, `{"words":50}`."""
    return (
        value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str)
    )


def _changes(choices: Sequence[_Choice]) -> dict[str, Any]:
    return {key: value for choice in choices for key, value in choice.overrides.items()}


def _name(choices: Sequence[_Choice]) -> str:
    """Return the variations as a folder's name; with a hash if letters were replaced or cut."""
    parts = [c.part for c in sorted(choices, key=lambda choice: choice.written[0] != "runs")]
    exact = ",".join(parts)
    safe = ",".join(re.sub("[^A-Za-z0-9._+=-]+", "-", part) for part in parts)
    if safe == exact and len(safe) <= LONGEST_NAME and safe[:1].isalnum():
        return safe
    digest = hashlib.sha256(exact.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{safe.lstrip('._-+=,')[:LONGEST_NAME]}-{digest}"


def _member_document(
    base: Document, study: Document, choices: Sequence[_Choice], mistakes: dict[str, None]
) -> Document:
    """Return the base with a member's overrides; their lines are those of the study."""
    one = Document(copy.deepcopy(base.values), dict(base.origins))
    for choice in choices:
        for key, value in choice.overrides.items():
            written = (*choice.written, key) if choice.written[0] == "runs" else choice.written
            _lay(one, study, key, value, written, mistakes)
    return one


def _lay(
    target: Document,
    study: Document,
    key: str,
    value: Any,
    written: Key,
    mistakes: dict[str, None],
) -> None:
    """Put one of the study's overrides into a configuration."""
    place = origin_of(study, written)
    try:
        if in_arm(key):
            override_arm(target, key, lambda: copy.deepcopy(value), place, str(place))
        else:
            override(target, key, value, place, written, study.origins)
    except UserError as error:
        mistakes.update(dict.fromkeys(error.lines))
