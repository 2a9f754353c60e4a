"""A process that runs the command line again and again, each time in a fork of itself.

The libraries are imported once, so that a run costs only what it does. Requests and answers are
lines of JSON; see `conftest.Geomix`. A request may have the run meet a signal or a full disk, or
have several processes train together, as a launcher would start them.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import socket
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}


class Meddler:
    """An audit hook that counts what the process does to files, and signals it before one of them.

    Args:
        at: (pattern, count, signal): before the count-th change whose text the pattern matches.
        torn: (pattern, count, bytes): from there on the kernel kills it in the middle of the first
            file that it makes longer than so many bytes.
        victim: the process that is signalled; None is this one.
    """

    def __init__(
        self,
        at: list[tuple[str, int, int]],
        torn: tuple[str, int, int] | None,
        victim: int | None,
    ) -> None:
        self.changes: list[str] = []
        who = victim or os.getpid()
        actions = [(pattern, partial(os.kill, who, number)) for pattern, _, number in at]
        if torn:
            actions.append((torn[0], partial(tear, torn[2])))
            at = [*at, torn]
        self._at = [(re.compile(pattern), action) for pattern, action in actions]
        self._left = [count for _, count, _ in at]

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            flags = arguments[2]
            if not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)):
                return
            text = f"write {arguments[0]}"
        elif event in CHANGES:
            text = " ".join([event.removeprefix("os."), *map(str, arguments[:2])])
        else:
            return
        if "/dev/" in text:
            return
        self.changes.append(text)
        for place, (pattern, action) in enumerate(self._at):
            if pattern.search(text):
                self._left[place] -= 1
                if self._left[place] == 0:
                    action()


def tear(size: int) -> None:
    """From here on a write that makes a file longer than `size` stops there, and kills."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python would make it an error


def give_up_capabilities() -> None:
    """From here on root too is asked for permission (capset(2), all sets empty)."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0


def run(request: dict[str, Any], answers: Path, rank: int, victim: int | None) -> None:
    """The forked process: the command with its output in files; it never returns."""
    signal.alarm(600)  # nothing here takes that long, unless it hangs
    os.chdir(request["folder"])
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(answers / f"{name}{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if request.get("limit") is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit"], resource.RLIM_INFINITY))
    if request.get("powerless"):
        give_up_capabilities()
    meddler = Meddler(request["at"] if rank == 0 else [], request.get("torn"), victim)
    sys.addaudithook(meddler)
    status = 0
    try:
        main(request["arguments"])
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException as error:  # what a user would see as a traceback
        print(f"Traceback: {error!r}", file=sys.stderr)
        status = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    changes = json.dumps(meddler.changes)
    (answers / f"changes{rank}").write_text(changes, encoding="utf-8")
    os._exit(status)


def started(request: dict[str, Any], answers: Path) -> dict[int, int]:
    """Fork what is asked for; the processes by rank. Rank 0 is the last, and knows the others."""
    processes = request.get("processes", 1)
    environment = {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": str(processes)}
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            environment["MASTER_PORT"] = str(free.getsockname()[1])
    pids: dict[int, int] = {}
    for rank in reversed(range(processes)):
        (answers / f"changes{rank}").write_text("[]", encoding="utf-8")
        pids[rank] = os.fork()
        if pids[rank] == 0:
            if processes > 1:
                os.environ |= {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            run(request, answers, rank, pids.get(request.get("victim", 0)))
    return pids


def serve(answers: Path) -> None:
    """Answer every request until there are no more."""
    for line in sys.stdin:
        request = json.loads(line)
        pids = started(request, answers)
        if request.get("after") is not None:
            time.sleep(request["after"])
            os.kill(pids[0], signal.SIGKILL)
        found = []
        for rank, pid in sorted(pids.items()):
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            texts = {n: (answers / f"{n}{rank}").read_text("utf-8") for n in ("out", "err")}
            changes = json.loads((answers / f"changes{rank}").read_text("utf-8"))
            found.append({"status": status, **texts, "changes": changes})
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    import nnsight  # noqa: F401
    import torch

    from geomix.cli import main
    from geomix.models.load import load_model

    for command in ("cli.progress", "cli.show", "cli.train", "experiments.record_offline"):
        import_module(f"geomix.{command}")
    load_model(sys.argv[1], torch.device("cpu"))  # whatever that imports
    serve(Path(sys.argv[2]))
