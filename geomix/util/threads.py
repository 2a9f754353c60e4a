"""OpenMP setting that lets waiting threads sleep; torch's threads read it when torch is loaded.

By default GNU's runtime (torch's on Linux) lets a waiting thread spin for some milliseconds before
it sleeps. On a core that another program needs, this delays the very thread that is waited for, at
every parallel loop. Results do not depend on it. `benchmarks/threads.py` compares both.
"""

import os
import sys

OWN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""User settings of the same: of OpenMP, of GNU's runtime, of Intel's and LLVM's."""


def let_waiting_threads_sleep() -> None:
    """Set OMP_WAIT_POLICY for this process and its children, unless the user set something like it.

    The runtime reads its environment once, so nothing changes if torch is already loaded.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in OWN):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
