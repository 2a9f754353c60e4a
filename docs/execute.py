"""Execute the notebooks of the documentation and keep what they print: `python docs/execute.py`."""

from __future__ import annotations

import logging
from pathlib import Path

import nbformat
from nbclient import NotebookClient

DOCS = Path(__file__).resolve().parent

KEPT = {"text/plain", "text/html", "image/png"}
"""Kinds of output that a page shows."""


def execute(path: Path) -> None:
    """Run every cell, and write the notebook with its outputs; an error stops it."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, kernel_name="python3", timeout=600).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
        printed = cell.get("outputs", [])
        printed[:] = [output for output in printed if output.get("name") != "stderr"]
        for output in printed:
            for kind in set(output.get("data", {})) - KEPT:
                del output["data"][kind]
    nbformat.write(notebook, path)


if __name__ == "__main__":
    logging.getLogger("traitlets").setLevel(logging.ERROR)
    for found in sorted(DOCS.rglob("*.ipynb")):
        execute(found)
