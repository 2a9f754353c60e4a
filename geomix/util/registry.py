"""Registries: what a configuration or a command line can name; entries are imported on use.

An entry is a name and its target, `package.module:attribute`. Another package adds one without
touching geomix, through an entry point in its own `pyproject.toml`:

    [project.entry-points."geomix.analyses"]
    drift = "my_package.drift:Drift"

Listing names imports nothing, so that `--help` stays fast; no foreign code runs before its entry is
named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from geomix.util.errors import UserError, first_line

T = TypeVar("T")


class UnknownNameError(UserError, KeyError):
    """An unknown name; also a `KeyError`, so that a mapping's `get` works."""


@dataclass(frozen=True, eq=False)
class Registry(Mapping[str, T]):
    """Entries of one kind by name: geomix's own, then those of installed packages.

    Attributes:
        kind: what an entry is, used in messages: `method`, `analysis`.
        group: of the entry points: `geomix.methods`.
        own: targets of geomix's own entries by name, in the order in which they are listed.
    """

    kind: str
    group: str
    own: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        """Yield the names: geomix's own in their order, then the others."""
        yield from self.own
        yield from sorted(set(self._others) - set(self.own))

    def __len__(self) -> int:
        """Return the number of entries."""
        return len({*self.own, *self._others})

    def __contains__(self, name: object) -> bool:
        """Return whether an entry has that name, without importing anything."""
        return name in self.own or name in self._others

    def __getitem__(self, name: str) -> T:
        """Import the entry of that name.

        Raises:
            UnknownNameError: there is none, with the closest one.
            UserError: the package that offers it cannot be imported.
        """
        if name in self.own:
            return _imported(self.own[name])  # type: ignore[no-any-return]
        if name in self._others:
            offered = self._others[name]
            try:
                return offered.load()  # type: ignore[no-any-return]
            except Exception as error:
                why = f"{self.package(name)} offers it and cannot be imported"
                text = f"{self.kind} '{name}': {why} ({first_line(error)})"
                raise UserError(text) from error
        raise UnknownNameError(self.unknown(name))

    def unknown(self, name: str) -> str:
        """Return the message for an unknown name."""
        near = get_close_matches(name, [*self], n=1)
        meant = f"; did you mean {near[0]}?" if near else "."
        return f"no {self.kind} is called '{name[:100]}'{meant} There are: {', '.join(self)}"

    def package(self, name: str) -> str:
        """Return the package that offers an entry."""
        if name in self.own:
            return "geomix"
        found = self._others[name].dist
        return found.name if found else self._others[name].value.split(".")[0]

    @property
    def _others(self) -> Mapping[str, EntryPoint]:
        return offered(self.group)


@cache
def offered(group: str) -> Mapping[str, EntryPoint]:
    """Return a group's entry points by name, looked up once."""
    return {point.name: point for point in entry_points(group=group)}


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)
