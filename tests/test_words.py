"""The words of docstrings and names: first lines stand alone, names are the field's."""

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

WORDS = {
    **dict.fromkeys(("moment", "moments"), "event, checkpoint"),
    "looked": "measurement",
    **dict.fromkeys(("told", "tell", "tells"), "reported, determined"),
    **dict.fromkeys(("say", "says", "said", "unsaid"), "log"),
    **dict.fromkeys(("piece", "pieces"), "segment, slice"),
    **dict.fromkeys(("taken", "elsewhere"), "reused"),
    **dict.fromkeys(("refuse", "refused", "refuses", "refusal"), "reject"),
    **dict.fromkeys(("laid", "together"), "layout, gather"),
}
"""Words that names of the package do not use, with the glossary's instead."""

ALLOWED = {
    *("moment", "moments", "second_moment", "second_moments", "saved_second_moments"),
    *("SecondMoments", "SECOND_MOMENTS"),
    "told",  # a column of angle tables
    "say",  # a parameter of the public `train`
    *("said", "told_by", "pieces", "_pieces"),
}
"""Names with such a word: keys of files, public names, Adam's moments, sentencepiece's pieces."""

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


def defined(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of every class, function, parameter and variable."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.alias(asname=str(name)):
                yield node.lineno, name


def old_words(source: str) -> list[tuple[int, str, str]]:
    """Return line, name and word of every name with a word that the glossary replaces."""
    found = []
    for line, name in defined(source):
        parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
        found += [(line, name, p.lower()) for p in parts if p.lower() in WORDS]
    return sorted(one for one in found if one[1] not in ALLOWED)


def test_names_are_the_fields_words() -> None:
    """No module, class, function, parameter or variable has a word that the glossary replaces."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        names = old_words(f"{file.stem} = 0" if file.stem.isidentifier() else "")
        for line, name, word in [*names, *old_words(file.read_text("utf-8"))]:
            found.append(f"{file}:{line}: {name}: {WORDS[word]}")
    assert not found, "\n".join(found)


def test_old_words_are_found_in_names_of_all_kinds() -> None:
    """Classes, functions, parameters, variables, fields and aliases, in any spelling."""
    source = (
        "class TrainingMoment:\n    _piece: int\n"
        "def refuse_links(told_of, *, elsewhere=0): ...\n"
        "import x as laid\n"
        "A, LOOKED_AT = 1, 2\n"
        "for one_said in (): ...\n"
    )
    assert [word for _, _, word in old_words(source)] == [
        *("moment", "piece", "elsewhere", "refuse", "told", "laid", "looked", "said")
    ]
    assert (
        old_words("class SecondMoments:\n    told: str\nsaying = saved_second_moments = 0\n") == []
    )
