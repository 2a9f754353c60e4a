"""Where geomix itself lies."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
"""The folder of the package."""
