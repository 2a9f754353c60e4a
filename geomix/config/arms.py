"""`--set` and arms: overrides of one arm, and rejection of base changes that no arm would use."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from geomix.config.document import (
    Document,
    Key,
    Origin,
    apply_text,
    dotted,
    forget,
    key_of,
    shortened,
    value_of,
)
from geomix.util.errors import UserError

ARMS = "arms."


def set_text(document: Document, change: str) -> None:
    """Apply one `--set key.path=value` to a document that may have arms.

    `arms.NAME.key.path=value` becomes the last override of that arm: it changes one key of the
    arm's configuration and nothing else. Any other key changes the base, to which the arms'
    overrides apply.

    Raises:
        UserError: there can be no such key, no such arm, or the arms override it.
    """
    name, _, _ = change.partition("=")
    arm, dot, key = name.removeprefix(ARMS).partition(".")
    if name.startswith(ARMS) and dot:
        _set_in_arm(document, change, arm, key)
        return
    apply_text(document, change, _check_felt)


def _set_in_arm(document: Document, change: str, name: str, key: str) -> None:
    arms, told = document.values.get("arms"), f"--set {shortened(change)}"
    if not isinstance(arms, dict):
        raise UserError(f"{told}: the configuration has no arms; leave out '{ARMS}{name}.'")
    if name not in arms:
        names = [arm for arm in arms if isinstance(arm, str)]
        close = difflib.get_close_matches(name, names, n=1)
        guess = f"did you mean '{close[0]}'?" if close else f"its arms: {', '.join(names)}"
        raise UserError(f"{told}: no arm '{name}'; {guess}")
    value = value_of(change)
    if arms[name] is None:
        arms[name] = {}
    if not isinstance(arms[name], dict):
        return  # a mistake in the file, reported with the others
    arms[name].pop(key, None)  # the last override wins
    arms[name][key] = value
    written: Key = ("arms", name, key)
    forget(document.origins, written)
    document.origins[written] = Origin(told, None, ())


def _check_felt(document: Document, key: Key, change: str) -> None:
    """Reject a change of the base that would have no effect because the arms override it.

    Raises:
        UserError: every arm overrides it, or it lies in a part that only some arms have.
    """
    arms = document.values.get("arms")
    if not isinstance(arms, dict) or key[:1] == ("arms",):
        return
    over = {name: at for name in arms if (at := _overridden(arms[name], key)) is not None}
    if not over:
        return
    name, at = next(iter(over.items()))
    missing = len(at) < len(key) and _value_at(document.values, at) is None
    if not missing and len(over) < len(arms):
        return
    who = "every arm sets" if len(over) == len(arms) else "only arms set"
    names = ", ".join(str(arm) for arm in over)
    raise UserError(
        f"--set {shortened(change)}: {who} {dotted(at)} ({names}), in place of what the rest "
        f"has; give {ARMS}{name}.{change.partition('=')[0]}=…"
    )


def _overridden(changes: Any, key: Key) -> Key | None:
    """Return the override of an arm that replaces what is at a key; None if there is none."""
    made = (key_of(str(name)) for name in changes) if isinstance(changes, Mapping) else ()
    return next((at for at in made if at == key[: len(at)]), None)


def _value_at(values: Any, key: Key) -> Any:
    for part in key:
        if isinstance(values, dict):
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            return None
    return values
