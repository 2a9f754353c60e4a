"""The words of docstrings: their first lines stand alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "geomix"
OPENERS = (
    *("Of", "What", "Whether", "Those", "Where", "How", "That", "Which"),
    *("Who", "Whose", "When", "If"),
)
"""Words that make a first line depend on something else."""

_OPENS = re.compile(rf"(?:{'|'.join(OPENERS)})\b")


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of every docstring, those of attributes included."""
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield statement.lineno, text


def wrong(source: str) -> list[int]:
    """Return the lines of docstrings that open with one of the words."""
    return sorted(line for line, text in docstrings(source) if _OPENS.match(text.lstrip()))


def test_first_lines_stand_alone() -> None:
    """No docstring of the package opens with a word that depends on something else."""
    files = sorted(PACKAGE.rglob("*.py"))
    found = [f"{file}:{line}" for file in files for line in wrong(file.read_text("utf-8"))]
    assert files
    assert not found, "\n".join(found)


@pytest.mark.parametrize("word", OPENERS)
def test_the_words_are_found_in_docstrings_of_all_kinds(word: str) -> None:
    """Modules, classes, functions and attributes are all covered."""
    text = f'"""{word} it is."""\n'
    source = text + f"class C:\n    {text}    x = 1\n    {text}    def f():\n        {text}"
    assert wrong(source) == [1, 3, 5, 7]
    assert wrong('"""Whatever, Ifs and Howls."""\n') == []
