"""Where the members of a sweep run; here: what every executor does, and processes of this machine.

Local members are plain child processes: signals reach the training itself, and its exit status
comes back. submitit's local executor would put two more processes and a time limit between.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from typing import Protocol

from geomix.sweep.member import Member, State, command


class Executor(Protocol):
    """Starts members and knows which of them still run.

    Attributes:
        pause: seconds until it is worth asking `ended` again.
        outlasts: whether members go on when this process ends.
    """

    pause: float
    outlasts: bool

    def running(self) -> Mapping[str, State]:
        """Members under way by name, `running` or `queued`; also those of an earlier process."""

    def room(self) -> int | None:
        """How many more may be started now; None sets no limit."""

    def start(self, members: Sequence[Member]) -> None:
        """Start members; they begin, or go on where they were."""

    def ended(self) -> dict[str, int | None]:
        """Those that ended since the last call, with their exit status where it is known."""

    def ask_to_end(self) -> None:
        """Ask what would not outlast this process to save and end."""

    def close(self) -> None:
        """Leave nothing behind that would not outlast this process."""


class Local:
    """Members as processes of this machine.

    Args:
        jobs: how many run at once.
    """

    pause = 0.2
    outlasts = False

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def running(self) -> Mapping[str, State]:
        """Those that were started and have not ended."""
        return dict.fromkeys(self._processes, "running")

    def room(self) -> int:
        """How many more may be started now."""
        return self._jobs - len(self._processes)

    def start(self, members: Sequence[Member]) -> None:
        """Start the members' processes, in a session each: Ctrl-C comes through `ask_to_end`."""
        for member in members:
            line = command(member.config_file, member.run.path, member.begun)
            with member.log.open("ab") as log:
                log.write(f"$ {shlex.join(line)}\n".encode(errors="replace"))
                log.flush()
                self._processes[member.name] = subprocess.Popen(  # noqa: S603 (our own command)
                    line,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment(),
                    start_new_session=True,
                )

    def _environment(self) -> dict[str, str]:
        """The cores shared out, unless the user did: threads that wait for each other spin."""
        threads = max(1, len(os.sched_getaffinity(0)) // self._jobs)
        return {"OMP_NUM_THREADS": str(threads), **os.environ}

    def ended(self) -> dict[str, int | None]:
        """Exit statuses of the processes that ended; negative for a signal."""
        found = {name: process.poll() for name, process in self._processes.items()}
        found = {name: status for name, status in found.items() if status is not None}
        for name in found:
            del self._processes[name]
        return found

    def ask_to_end(self) -> None:
        """SIGTERM: each saves after its step and ends."""
        for process in self._processes.values():
            process.terminate()

    def close(self) -> None:
        """Kill what is left; its last checkpoint stands."""
        for process in self._processes.values():
            process.kill()
            process.wait()
