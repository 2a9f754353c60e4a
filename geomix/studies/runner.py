"""Runner that starts members as capacity allows, and watches them until all have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Protocol

from geomix.studies.local import Executor
from geomix.studies.member import Member, Outcome, State, clear_false_start, outcome
from geomix.util.files import write_text

_ASLEEP = 0.1
"""Seconds between two checks for a request to end, while sleeping."""


class Watcher(Protocol):
    """Receiver of the members' progress."""

    def started(self, members: Sequence[Member]) -> None:
        """Report that members were started."""

    def ended(self, member: Member, result: Outcome) -> None:
        """Report that a member ended, or was already complete."""

    def update(self, running: Mapping[str, State], left: int) -> None:
        """Report the present state, about once a second."""


def run_members(
    members: Sequence[Member],
    executor: Executor,
    stop: Callable[[], bool],
    watcher: Watcher,
    wait: bool = True,
) -> dict[str, Outcome]:
    """Run the members that are not complete, and wait for them.

    A member that another process is writing is waited for; if that leaves it incomplete, it is
    resumed.

    Args:
        members: in the order in which they are started.
        executor: starts them.
        stop: whether this process was asked to end.
        watcher: receives their progress.
        wait: whether to wait for those that continue without this process.

    Returns:
        The final state of every member, by name.
    """
    left = {member.name: member for member in members}
    results: dict[str, Outcome] = {}
    asked = False

    def end(member: Member, result: Outcome) -> None:
        results[member.name] = result
        watcher.ended(member, result)

    try:
        running = {name: left.pop(name) for name in executor.running() if name in left}
        for member in [one for one in left.values() if one.done]:
            end(left.pop(member.name), Outcome("done", "already"))
        while left or running:
            if not stop():
                started = _start(left, executor, end)
                running |= started
                watcher.started(list(started.values()))
            elif not asked:
                executor.ask_to_end()
                asked = True
            watcher.update(executor.running(), len(left))
            if executor.outlasts and (asked or not wait):
                break
            if asked and not running:
                break
            _sleep(executor.pause, stop, asked)
            for name, status in executor.ended().items():
                if name in running:  # others, of an earlier larger study, may have ended too
                    end(running[name], outcome(running.pop(name), status))
    finally:
        executor.close()
    states = executor.running()
    results |= {name: Outcome(states.get(name, "running")) for name in running}
    results |= {name: Outcome("left") for name in left}
    return {member.name: results[member.name] for member in members}


def _start(
    left: dict[str, Member], executor: Executor, end: Callable[[Member, Outcome], None]
) -> dict[str, Member]:
    """Start members up to the capacity; report those that have become complete meanwhile."""
    room = executor.room()
    if room == 0:
        return {}
    free = (member for member in list(left.values()) if not member.run.is_locked())
    chosen = {member.name: left.pop(member.name) for member in islice(free, room)}
    for member in [one for one in chosen.values() if one.done]:
        end(chosen.pop(member.name), Outcome("done", "already"))
    for member in chosen.values():
        clear_false_start(member)
        write_text(member.config_file, member.experiment.text)
    executor.start(list(chosen.values()))
    return chosen


def _sleep(seconds: float, stop: Callable[[], bool], asked: bool) -> None:
    """Sleep until the time is over or a first request to end comes."""
    until = time.monotonic() + seconds
    while (rest := until - time.monotonic()) > 0 and (asked or not stop()):
        time.sleep(min(rest, _ASLEEP))
