"""The present environment: versions, device, commit. `geomix.runs.parts` stores it with a run."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from geomix.util.package import PACKAGE

if TYPE_CHECKING:
    import torch

PACKAGES = ("geomix", "torch", "transformers", "tokenizers", "nnsight", "numpy", "h5py")


def describe_environment(device: torch.device, processes: int) -> dict[str, Any]:
    """Describe the environment that another machine needs for the same numbers."""
    import torch

    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "commit": _commit(),
        "device": str(device),
        "gpu": gpu,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": processes,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the checkout that geomix runs from; None if it is installed."""
    folder = PACKAGE.parent
    if not (folder / ".git").exists():
        return None
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
