"""`--set` and arms: overrides of one arm, and rejection of base changes that no arm would use."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
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
    label = f"--set {shortened(change)}"
    if in_arm(name):
        override_arm(document, name, lambda: value_of(change), Origin(label, None, ()), label)
    else:
        apply_text(document, change, _check_felt)


def in_arm(name: str) -> bool:
    """Return whether a dotted key names a key of an arm's configuration: `arms.NAME.key`."""
    return name.startswith(ARMS) and "." in name.removeprefix(ARMS)


def override_arm(
    document: Document, name: str, value: Callable[[], Any], location: Origin, label: str
) -> None:
    """Make a value the last override of an arm.

    Args:
        document: a configuration with arms.
        name: `arms.NAME.key.path`.
        value: returns the value, once the arm is known.
        location: origin of the value.
        label: how a message names it.

    Raises:
        UserError: there is no such arm.
    """
    arm, _, key = name.removeprefix(ARMS).partition(".")
    arms = document.values.get("arms")
    if not isinstance(arms, dict):
        raise UserError(f"{label}: the configuration has no arms; leave out '{ARMS}{arm}.'")
    if arm not in arms:
        names = [known for known in arms if isinstance(known, str)]
        close = difflib.get_close_matches(arm, names, n=1)
        guess = f"did you mean '{close[0]}'?" if close else f"its arms: {', '.join(names)}"
        raise UserError(f"{label}: no arm '{arm}'; {guess}")
    given = value()
    if arms[arm] is None:
        arms[arm] = {}
    if not isinstance(arms[arm], dict):
        return  # a mistake in the file, reported with the others
    arms[arm].pop(key, None)  # the last override wins
    arms[arm][key] = given
    written: Key = ("arms", arm, key)
    forget(document.origins, written)
    document.origins[written] = location


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
