"""Grouping of runs and arms that differ only in the seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from geomix.runs.configs import distinctions, stored_configs
from geomix.runs.directory import RunDirectory
from geomix.util.errors import UserError
from geomix.util.reading import read_json


def replicates(
    runs: Sequence[RunDirectory], arms: Sequence[tuple[RunDirectory, RunDirectory]]
) -> list[tuple[str, list[RunDirectory]]]:
    """Group runs by configuration, one a seed.

    Args:
        runs: all that are given.
        arms: those to group, each with its run (itself, without arms).

    Returns:
        A label and the runs of each, in the order of their first occurrence. The label is the arm's
        name, or for several runs without arms the name of their configuration. If two
        configurations would share a label, their differences follow it, or the run's folder if
        these are many, and a number if two folders share a name.

    Raises:
        UserError: a seed is given twice, or seeds started with other weights.
    """
    found: dict[tuple[str, str], list[RunDirectory]] = {}
    for run, arm in arms:
        found.setdefault((_label(run, arm, len(runs)), _configuration(arm)), []).append(arm)
    labels = [label for label, _ in found]
    for members in found.values():
        _check_seeds(members)
        _check_bases(members)
    shared = {label: _unlike(label, found) for label in labels if labels.count(label) > 1}
    own = [shared[label].pop(0) if label in shared else label for label in labels]
    return list(zip(_numbered(own), found.values(), strict=True))


def _numbered(labels: Sequence[str]) -> Iterator[str]:
    """Make labels unique: the second of a kind is called `… (2)`."""
    for i, label in enumerate(labels):
        before = labels[:i].count(label)
        yield f"{label} ({before + 1})" if before else label


def seed_of(run: RunDirectory) -> int:
    """Return the seed of a run or arm."""
    return int(run.resolved()["config"]["seed"])


def suffix_of(runs: Sequence[str]) -> str:
    """Return the part of file names for several runs: their number and a hash; "" for a single one.

    Args:
        runs: their folders.
    """
    if len(runs) == 1:
        return ""
    paths = "\n".join(str(Path(run).absolute()) for run in runs)
    return f"_of_{len(runs)}_runs_{hashlib.sha256(paths.encode()).hexdigest()[:6]}"


def check_tokenizers(arms: Sequence[RunDirectory]) -> None:
    """Reject a comparison of runs with different tokens.

    Raises:
        UserError: two runs started with different tokenizers.
    """
    known = {arm: read_json(arm.base_file) for arm in arms if arm.base_file.is_file()}
    hashes = {arm: base["tokenizer"] for arm, base in known.items() if "tokenizer" in base}
    for arm, found in hashes.items():
        first = next(iter(hashes))
        if found != hashes[first]:
            raise UserError(
                f"{arm.path}: its tokenizer ({_model(arm)}) is not that of {first.path} "
                f"({_model(first)}); their examples are other tokens, so analyse them apart"
            )


def _model(arm: RunDirectory) -> str:
    return str(arm.resolved()["config"]["model"])


def _check_seeds(members: Sequence[RunDirectory]) -> None:
    seeds: dict[int, RunDirectory] = {}
    for run in members:
        seed = seed_of(run)
        if seed in seeds:
            raise UserError(f"{run.path}: seed {seed} is given twice; give runs of other seeds")
        seeds[seed] = run


def _check_bases(members: Sequence[RunDirectory]) -> None:
    """Reject seeds whose θ_0 differs, as after a change of a model's folder between two runs."""
    known = [(run, read_json(run.base_file)) for run in members if run.base_file.is_file()]
    for run, base in known:
        first, begun = known[0]
        if base.get("weights") != begun.get("weights"):
            raise UserError(
                f"{run.path}: its base model ({_model(run)}) has other weights than that of "
                f"{first.path}; seeds of one arm begin with one model, so analyse them apart"
            )


def _label(run: RunDirectory, arm: RunDirectory, runs: int) -> str:
    """Return an arm's name; for several runs without arms their configuration's name."""
    return str(arm.resolved().get("name") or arm.name) if arm == run and runs > 1 else arm.name


def _unlike(label: str, found: Mapping[tuple[str, str], Sequence[RunDirectory]]) -> list[str]:
    """Return distinct labels for the configurations that share one, in their order."""
    arms = [members[0] for (name, _), members in found.items() if name == label]
    try:
        phrases = distinctions([stored_configs(arm)[""] for arm in arms])
    except UserError:  # of another version, whose numbers are equally valid
        phrases = []
    return [f"{label}, {phrase}" for phrase in phrases] or [_own(label, arm) for arm in arms]


def _own(label: str, arm: RunDirectory) -> str:
    path = arm.path.absolute()
    folder = path.parent.parent.name if path.parent.name == "arms" else arm.name
    return f"{label} of {folder}"


def _configuration(arm: RunDirectory) -> str:
    """Return what seeds share: everything but the seed, the name and the run of a reused stage."""
    config = arm.resolved()["config"]
    kept = {key: value for key, value in config.items() if key not in ("name", "seed")}
    kept["stages"] = [
        {key: bool(value) if key == "from" else value for key, value in stage.items()}
        for stage in config["stages"]
    ]
    return json.dumps(kept, sort_keys=True)
