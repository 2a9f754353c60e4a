"""Parser of the documentation's pages: blocks, commands, links, headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(DOCS.rglob("*.md")),
]

MARK = re.compile(r"\(needs an? (GPU|GPUs|network|cluster)\b[^)]*\)|\(needs GPUs and a network\)")
"""Visible marks of a command that no test runs."""

_FENCE = re.compile(r"^(```+)(\w*)[^\n]*\n(.*?)^\1[ \t]*$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?![a-z]+:)([^)\s]+)\)")
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: its file.
        line: where it begins, from 1.
        language: what stands after the fence.
        text: what is in it.
        before: the paragraph in front of it, which may mark all of it.
    """

    page: Path
    line: int
    language: str
    text: str
    before: str

    @property
    def name(self) -> str:
        """For a message."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A line of a shell block.

    Attributes:
        block: where it stands.
        words: of the command, comments left out.
        marked: whether the page says that it needs what a test lacks.
    """

    block: Block
    words: tuple[str, ...]
    marked: bool

    @property
    def geomix(self) -> tuple[str, ...] | None:
        """Arguments of geomix, also under torchrun and accelerate; None for another command."""
        if self.words[0] in ("geomix", ".venv/bin/geomix"):
            return self.words[1:]
        if self.words[0] in ("torchrun", "accelerate") and "geomix" in self.words:
            return self.words[self.words.index("geomix") + 1 :]
        return None

    def __str__(self) -> str:
        return f"{self.block.name}: {shlex.join(self.words)}"


def text_of(page: Path) -> str:
    """A page."""
    return page.read_text(encoding="utf-8")


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced blocks of a page in one of the languages."""
    text = text_of(page)
    found = []
    for match in _FENCE.finditer(text):
        if match[2] in languages:
            paragraphs = text[: match.start()].rstrip().rsplit("\n\n", 1)
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page, line, match[2], match[3], paragraphs[-1]))
    return found


def commands(page: Path) -> Iterator[Command]:
    """Every command of a page's shell blocks."""
    for block in blocks(page, "sh", "bash", "shell", "console"):
        for line in block.text.replace("\\\n", " ").splitlines():
            # shlex knows no $'…'
            words = shlex.split(line.replace("$'", "'"), comments=True)
            if ">" in words:  # what the shell itself takes
                words = words[: words.index(">")]
            if words:
                marked = bool(MARK.search(line) or MARK.search(block.before))
                yield Command(block, tuple(words), marked)


def prose(page: Path) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", text_of(page))


def inline_code(page: Path) -> list[str]:
    """Return the texts in single backquotes."""
    return _CODE.findall(prose(page))


def links(page: Path) -> list[str]:
    """Relative links, with their anchors."""
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE)
    plain = [re.sub(r"[`*]|\]\([^)]*\)|\[", "", title) for title in titles]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in plain}
