"""The package's location."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
"""Folder of the package."""
