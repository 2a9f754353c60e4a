"""Where the members of a sweep run; here: what every executor does, and processes of this machine.

Local members are plain child processes: signals reach the training itself, and its exit status
comes back. submitit's local executor would put two more processes and a time limit between.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from geomix.studies.member import Member, State, command
from geomix.util.links import opened_to_append
from geomix.util.terminal import harmless

GPUS = Path("/proc/driver/nvidia/gpus")
"""A folder for each GPU, where NVIDIA's driver is."""


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
        self._slots: dict[str, int] = {}

    def running(self) -> Mapping[str, State]:
        """Those that were started and have not ended."""
        return dict.fromkeys(self._processes, "running")

    def room(self) -> int:
        """How many more may be started now."""
        return self._jobs - len(self._processes)

    def start(self, members: Sequence[Member]) -> None:
        """Start the members' processes, in a session each: Ctrl-C comes through `ask_to_end`."""
        for member in members:
            slot = min(set(range(self._jobs)) - set(self._slots.values()))
            line = command(member.config_file, member.run.path, member.begun)
            with opened_to_append(member.log) as log:
                os.write(log, harmless(f"$ {shlex.join(line)}\n").encode(errors="replace"))
                self._processes[member.name] = subprocess.Popen(  # noqa: S603 (our own command)
                    line,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=member_environment(slot, self._jobs),
                    start_new_session=True,
                )
            self._slots[member.name] = slot

    def ended(self) -> dict[str, int | None]:
        """Exit statuses of the processes that ended; negative for a signal."""
        found = {name: process.poll() for name, process in self._processes.items()}
        found = {name: status for name, status in found.items() if status is not None}
        for name in found:
            del self._processes[name], self._slots[name]
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


def member_environment(slot: int, jobs: int) -> dict[str, str]:
    """What a member finds: its share of the cores, and one GPU where members run side by side.

    Members with the same cores would wait for each other, the longer where threads spin; what the
    user set in OMP_NUM_THREADS stands. A member's process trains on the first GPU that it sees.

    Args:
        slot: which of those side by side it is, from 0.
        jobs: how many run side by side.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    found = {"OMP_NUM_THREADS": str(threads), **os.environ}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    driver = sorted(GPUS.iterdir()) if GPUS.is_dir() else []
    devices = [str(n) for n in range(len(driver))] if visible is None else visible.split(",")
    if jobs > 1 and len(devices) > 1:
        found["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return found
