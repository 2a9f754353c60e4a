"""Text files, plain or packed with gzip, opened so that what they unpack to is bounded."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import TextIO

from geomix.util.errors import UserError

FREE = 64 * 2**20
"""Bytes that a packed file may unpack to whatever its size."""

RATIO = 100
"""Beyond them, bytes for each one of the file; texts pack to a third or a tenth."""

GZIP = ".gz"


def open_text(path: Path, newline: str) -> TextIO:
    """Open a text file, unpacked where its name ends in `.gz`; a byte order mark is left out.

    Args:
        path: of the file.
        newline: as `open` takes it.

    Raises:
        OSError: it cannot be opened.
    """
    if path.suffix.lower() != GZIP:
        return path.open(encoding="utf-8-sig", newline=newline)
    return io.TextIOWrapper(_Unpacked(path), encoding="utf-8-sig", newline=newline)


class _Unpacked(gzip.GzipFile):
    """What a packed file unpacks to, up to a bound."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self.path = path
        self.most = max(FREE, RATIO * path.stat().st_size)
        self.count = 0

    def read1(self, size: int = -1) -> bytes:
        """Read and count.

        Raises:
            UserError: it is more than a file of this size unpacks to.
        """
        found = super().read1(size)
        self.count += len(found)
        if self.count > self.most:
            raise UserError(
                f"{self.path}: unpacks to more than {self.most:,} bytes, {RATIO} times its size; "
                "unpack it yourself if that is right, and give what was in it"
            )
        return found
