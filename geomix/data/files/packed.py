"""Text files, plain or gzipped, opened with a bound on their unpacked size."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import TextIO

from geomix.util.errors import UserError

FREE = 64 * 2**20
"""Bytes that a packed file may unpack to whatever its size."""

RATIO = 100
"""Most unpacked bytes per packed byte beyond `FREE`; texts pack to a third or a tenth."""

GZIP = ".gz"


def open_text(path: Path, newline: str) -> TextIO:
    """Open a text file, unpacking names in `.gz` and dropping a byte order mark.

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
    """Unpacked contents of a gzip file, up to a bound."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self.path = path
        self.most = max(FREE, RATIO * path.stat().st_size)
        self.count = 0

    def read1(self, size: int = -1) -> bytes:
        """Read and count bytes.

        Raises:
            UserError: the file unpacks to more than its size allows.
        """
        found = super().read1(size)
        self.count += len(found)
        if self.count > self.most:
            raise UserError(
                f"{self.path}: unpacks to more than {self.most:,} bytes, {RATIO} times its size; "
                "unpack it yourself if that is right, and give what was in it"
            )
        return found
