"""The notebooks of the documentation were executed, lead somewhere, and still run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.documentation import DOCS

NOTEBOOKS = sorted(DOCS.rglob("*.ipynb"))

Cells = list[dict[str, Any]]


def cells(path: Path, kind: str) -> Cells:
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell | {"text": "".join(cell["source"])} for cell in found if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_every_cell_was_executed_in_order_without_an_error(path: Path) -> None:
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result"}
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert "/tmp" not in json.dumps(outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_every_link_of_a_notebook_leads_somewhere(path: Path) -> None:
    links = [
        link
        for cell in cells(path, "markdown")
        for link in re.findall(r"\]\((?![a-z]+:)([^)#\s]+)", cell["text"])
    ]
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_the_cells_run_one_after_the_other(path: Path) -> None:
    names: dict[str, Any] = {}
    for cell in cells(path, "code"):
        exec(compile(cell["text"], path.name, "exec"), names)
