"""The command `geomix`, also as `python -m geomix`."""

import os
import sys
from contextlib import suppress

from geomix.cli import is_one_of_several, main
from geomix.util.terminal import screen


def run() -> None:
    """Run the command line, and end the process with its exit status."""
    screen()  # also for the traceback of a crash, which is printed last
    try:
        main(prog_name="geomix")
    except SystemExit as end:
        if not is_one_of_several() or not isinstance(end.code, int):
            raise
        # All is written. Python's own exit can abort (SIGABRT) where threads of the processes'
        # connections still wait for the interpreter, and the launcher would report the job as
        # failed.
        with suppress(OSError):  # nobody may be reading
            sys.stdout.flush()  # noqa: TID251 (nothing new is written)
            sys.stderr.flush()  # noqa: TID251
        os._exit(end.code)


if __name__ == "__main__":
    run()
