"""Executors of a sweep's members: their common interface, and processes on this machine.

Local members are plain child processes: signals reach the training itself, and its exit status is
returned. submitit's local executor would add two more processes and a time limit.
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
"""Folder with an entry for each GPU, under NVIDIA's driver."""


class Executor(Protocol):
    """Executor of members; it starts them and knows which of them still run.

    Attributes:
        pause: seconds until `ended` should be called again.
        outlasts: whether members continue when this process ends.
    """

    pause: float
    outlasts: bool

    def running(self) -> Mapping[str, State]:
        """Return the active members by name, `running` or `queued`; also an earlier process's."""

    def room(self) -> int | None:
        """Return how many more may be started now; None for no limit."""

    def start(self, members: Sequence[Member]) -> None:
        """Start or resume members."""

    def ended(self) -> dict[str, int | None]:
        """Return the members that ended since the last call, with their exit status if known."""

    def ask_to_end(self) -> None:
        """Ask members that would not outlast this process to save and end."""

    def close(self) -> None:
        """Clean up everything that would not outlast this process."""


class Local:
    """Members as processes on this machine.

    Args:
        jobs: number of processes at once.
    """

    pause = 0.2
    outlasts = False

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._slots: dict[str, int] = {}

    def running(self) -> Mapping[str, State]:
        """Return the members that were started and have not ended."""
        return dict.fromkeys(self._processes, "running")

    def room(self) -> int:
        """Return how many more may be started now."""
        return self._jobs - len(self._processes)

    def start(self, members: Sequence[Member]) -> None:
        """Start the members' processes in sessions of their own: Ctrl-C goes to `ask_to_end`."""
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
        """Return the exit statuses of the processes that ended; negative for a signal."""
        found = {name: process.poll() for name, process in self._processes.items()}
        found = {name: status for name, status in found.items() if status is not None}
        for name in found:
            del self._processes[name], self._slots[name]
        return found

    def ask_to_end(self) -> None:
        """Send SIGTERM: each process saves after its step and ends."""
        for process in self._processes.values():
            process.terminate()

    def close(self) -> None:
        """Kill the remaining processes; their last checkpoints stay."""
        for process in self._processes.values():
            process.kill()
            process.wait()


def member_environment(slot: int, jobs: int) -> dict[str, str]:
    """Return a member's environment: its share of the cores, and one GPU if members are parallel.

    Members with the same cores would wait for each other, longer still if threads spin; the user's
    OMP_NUM_THREADS takes precedence. A member's process trains on the first GPU that it sees.

    Args:
        slot: its index among the parallel members, from 0.
        jobs: number of parallel members.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    found = {"OMP_NUM_THREADS": str(threads), **os.environ}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    driver = sorted(GPUS.iterdir()) if GPUS.is_dir() else []
    devices = [str(n) for n in range(len(driver))] if visible is None else visible.split(",")
    if jobs > 1 and len(devices) > 1:
        found["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return found
