"""Members started as there is room, watched until each has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Protocol

from geomix.studies.local import Executor
from geomix.studies.member import Member, Outcome, State, clear_false_start, outcome
from geomix.util.files import write_text

_ASLEEP = 0.1
"""Seconds after which a sleeper looks whether it was asked to end."""


class Watcher(Protocol):
    """Is told what becomes of the members."""

    def started(self, members: Sequence[Member]) -> None:
        """These were started."""

    def ended(self, member: Member, result: Outcome) -> None:
        """This one ended, or was complete already."""

    def look(self, running: Mapping[str, State], left: int) -> None:
        """How it stands, about once a second."""


def run_members(
    members: Sequence[Member],
    executor: Executor,
    stop: Callable[[], bool],
    watcher: Watcher,
    wait: bool = True,
) -> dict[str, Outcome]:
    """Run what is not complete, and wait for it.

    A member that another process is writing is waited for; where that leaves it incomplete, it is
    gone on with.

    Args:
        members: in the order in which they are started.
        executor: where they run.
        stop: whether this process was asked to end.
        watcher: is told what becomes of them.
        wait: whether to wait for those that go on without this process.

    Returns:
        How each stands at the end, by name; every member is there.
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
            watcher.look(executor.running(), len(left))
            if executor.outlasts and (asked or not wait):
                break
            if asked and not running:
                break
            _sleep(executor.pause, stop, asked)
            for name, status in executor.ended().items():
                if name in running:  # of a study that was larger, others may have ended too
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
    """Start what there is room for; of those, some may have become complete meanwhile."""
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
    """Sleep, unless being asked to end is news."""
    until = time.monotonic() + seconds
    while (rest := until - time.monotonic()) > 0 and (asked or not stop()):
        time.sleep(min(rest, _ASLEEP))
