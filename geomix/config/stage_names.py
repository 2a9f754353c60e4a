"""Names of stages: people count them from 1 or call them by name; files and keys count from 0."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from geomix.util.errors import UserError


def stage_title(index: int, name: str = "") -> str:
    """`stage 2 (triples)`, or `stage 2` where the name is not known.

    Args:
        index: of the stage, from 0.
        name: its name.
    """
    return f"stage {index + 1}" + (f" ({name})" if name else "")


def stage_titles(names: Mapping[int, Collection[str]]) -> str:
    """All stages in one line: `1 (kvr), 2 (triples)`.

    Args:
        names: of each stage, by its index from 0; arms may name it differently.
    """
    return ", ".join(
        f"{index + 1}" + (f" ({' or '.join(sorted(found))})" if any(found) else "")
        for index, found in sorted(names.items())
    )


def stage_index(asked: str, names: Mapping[int, Collection[str]], key: str = "--stage") -> int:
    """The index, from 0, of the stage that a person asks for.

    Args:
        asked: its number, from 1, or its name; digits are a number.
        names: of each stage there is, by index; arms may name it differently.
        key: what the answer was given to, for the message.

    Raises:
        UserError: there is no such stage, or several have the name.
    """
    there = f"there are {stage_titles(names)}" if names else "there is none"
    if asked.isascii() and asked.isdigit():
        if int(asked) - 1 in names:
            return int(asked) - 1
        raise UserError(f"{key} {asked}: no such stage; {there} (numbers count from 1)")
    found = [index for index, known in names.items() if asked and asked in known]
    if len(found) > 1:
        numbers = " and ".join(str(index + 1) for index in sorted(found))
        raise UserError(f"{key} {asked}: stages {numbers} have this name; give the number")
    if not found:
        raise UserError(f"{key} {asked[:100]}: no stage has this name; {there}")
    return found[0]
