"""Names of stages: users count them from 1 or name them; files and keys count from 0."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from geomix.util.errors import UserError


def stage_title(index: int, name: str = "") -> str:
    """Return `stage 2 (triples)`, or `stage 2` if the name is unknown.

    Args:
        index: of the stage, from 0.
        name: its name.
    """
    return f"stage {index + 1}" + (f" ({name})" if name else "")


def stage_titles(names: Mapping[int, Collection[str]]) -> str:
    """List all stages in one line: `1 (kvr), 2 (triples)`.

    Args:
        names: of each stage, by its index from 0; arms may name it differently.
    """
    return ", ".join(
        f"{index + 1}" + (f" ({' or '.join(sorted(found))})" if any(found) else "")
        for index, found in sorted(names.items())
    )


def stage_index(asked: str, names: Mapping[int, Collection[str]], key: str = "--stage") -> int:
    """Return the index, from 0, of the stage that a user asks for.

    Args:
        asked: its number, from 1, or its name; digits are a number.
        names: of each existing stage, by index; arms may name it differently.
        key: the option or key that was given, for the message.

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
