"""Foreign templates and tokenizers, run in a child process within limits of time and memory.

A guard in this process would have to wait for a call in C, and a list of dangerous operations would
never be complete. A child that the system kills needs neither; it is started anew (never forked),
so threads and CUDA here do not affect it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil

from geomix.util.errors import UserError

SECONDS = 2.0
"""Most CPU time of the work, in seconds; real templates take milliseconds."""

MEMORY = 512 * 2**20
"""Most bytes of memory of the work, beyond those of the child itself."""

WALL = 30.0
"""Seconds of wall time after which the child is killed, however busy the machine."""

_INTERVAL = 0.05
"""Seconds between two checks of the child's memory, where the system does not limit it."""

_MOST = 2 * 2**30
"""Bytes of memory at which this process kills the child; above the needs of a large vocabulary."""

_SCRIPT = Path(__file__).with_name("child.py")


def answers(work: str, request: Mapping[str, Any], count: int) -> tuple[list[Any], str]:
    """Run some work in a child process (`geomix.data.child`).

    Args:
        work: `render` or `encode`.
        request: its arguments.
        count: expected number of answers.

    Returns:
        The answers, and the reason if there are fewer than expected, else an empty text.

    Raises:
        UserError: no process can be started.
    """
    asked = {"work": work, "seconds": SECONDS, "extra": MEMORY, **request}
    found, why = _run(json.dumps(asked).encode())
    lines = [json.loads(line) for line in found.splitlines() if line.endswith(b"}")]
    if lines and "failed" in lines[-1]:
        return lines[:-1], str(lines[-1]["failed"])
    return lines, (why or "no answer") if len(lines) < count else ""


def _run(request: bytes) -> tuple[bytes, str]:
    """Return the child's stdout, and the reason if it was ended early."""
    paths = os.pathsep.join(path for path in sys.path if path)  # the import path of this process
    environment = {
        **os.environ,
        "PYTHONPATH": paths,
        "PYTHONHASHSEED": "0",
        "TOKENIZERS_PARALLELISM": "false",  # a thread a core would map more than the limit
    }
    try:
        child = subprocess.Popen(  # noqa: S603 (this interpreter, and a script of geomix)
            [sys.executable, "-S", "-P", str(_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
    except OSError as error:
        raise UserError(f"{sys.executable}: cannot be started ({error.strerror})") from None
    with child:
        try:
            why, output, complaint = _watched(child, request)
        finally:
            child.kill()
    if not why and child.returncode:
        if child.returncode == -signal.SIGPROF:
            why = f"TimeoutError: not done after {SECONDS:g} seconds"
        elif child.returncode < 0:  # the system lacks memory, or a library aborts
            why = f"MemoryError: ended by signal {-child.returncode}"
        else:
            why = (complaint.decode(errors="replace").strip().splitlines() or ["no answer"])[-1]
    return output, why


def _watched(child: subprocess.Popen[bytes], request: bytes) -> tuple[str, bytes, bytes]:
    """Wait for the child; return why it was killed here, and its outputs."""
    done, why = Event(), [""]

    def watch() -> None:
        while not done.wait(_INTERVAL):
            if _memory(child.pid) > _MOST:
                why[0] = "MemoryError"
                child.kill()

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        output, complaint = child.communicate(request, timeout=WALL)
    except subprocess.TimeoutExpired:
        why[0] = f"TimeoutError: not done after {WALL:g} seconds"
        child.kill()
        output, complaint = child.communicate()
    finally:
        done.set()
        watcher.join()
    return why[0], output, complaint


def _memory(pid: int) -> int:
    """Return the bytes of memory that a process holds; 0 if it has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
