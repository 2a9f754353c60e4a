"""`geomix data overlap` through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from geomix.cli import main

FACTS = [
    ("Question: Who wrote Emma? The answer is:", "Jane Austen"),
    ("Question: Which town was Marie Curie born in? The answer is:", "Warsaw"),
    ("Question: What is a colour? The answer is:", "blue"),
]
PASSAGES = [
    ("Complete: the best of all her books, so Jane", "Austen herself, is EMMA."),
    ("Complete: Marie Curie left her home for Paris", "and never went back"),
    ("Complete: which town was Marie Curie born in", "the answer is not known"),
]


def rows(file: Path, pairs: list[tuple[str, str]]) -> str:
    lines = [json.dumps({"prompt": prompt, "target": target}) for prompt, target in pairs]
    file.write_text("\n".join(lines), encoding="utf-8")
    return str(file)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Three facts, and two passages in one arm and three in the record of the other."""
    facts = rows(tmp_path / "facts.jsonl", FACTS)
    passages = rows(tmp_path / "passages.jsonl", PASSAGES)
    file = tmp_path / "my.yaml"
    file.write_text(
        f"""
stages:
  - data: {{source: {facts}, limit: 3}}
  - data: {{source: arithmetic, limit: 4}}
record:
  mix: {{source: {passages}, ratio: 1}}
arms:
  plain: {{}}
  mixed:
    stages.0.mix: {{source: {passages}, ratio: 1}}
""",
        encoding="utf-8",
    )
    return file


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(main, ["data", "overlap", *arguments], env={"COLUMNS": "80"})
    assert result.exit_code == status, result.output
    return result.output


def test_the_table_and_the_rows(config: Path) -> None:
    text = run(str(config))
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[0] == "D_A against D_M"
    assert "(plain: stage 1; mixed: stage 1)" in " ".join(text.split())
    assert "(plain: record.mix; mixed: stage 1)" in " ".join(text.split())
    ends = lines.index("overlapping rows, counted from 0:")
    cells = {line.split("  ")[0]: line.split()[-4:] for line in lines[:ends]}
    assert cells["entity pair, subject guessed from the prompt"] == ["2", "1", "50.0", "1"]
    assert cells["8 words in a row"] == ["3", "1", "33.3", "1"]
    assert cells["no entity pair to look for"] == ["1", "–", "–", "–"]
    assert f"fact 0: {FACTS[0][0]} → Jane Austen" in lines
    assert "  passage 0 (guessed): Jane Austen herself, is EMMA" in lines
    assert "  passage 2 (ngram): which town was Marie Curie born in the answer is" in lines
    assert text.count("no overlap found") == 1, "nothing of the arithmetic is in the passages"
    assert max(len(line) for line in lines[:ends] if str(config.parent) not in line) <= 80


def test_json_holds_it_all(config: Path) -> None:
    first, second = json.loads(run(str(config), "--json", "--ngram", "11"))
    assert first["own"]["examples"] == 3
    assert first["mixed"]["places"] == ["plain: record.mix", "mixed: stage 1"]
    by_rule: dict[str, Any] = {row.pop("rule"): row for row in first["rules"]}
    assert by_rule["named"] == {"facts": 0, "overlapping": 0, "percent": None, "passages": 0}
    assert by_rule["guessed"] == {"facts": 2, "overlapping": 1, "percent": 50, "passages": 1}
    assert (by_rule["none"]["facts"], by_rule["ngram"]["overlapping"]) == (1, 0)
    assert first["short_facts"] == 2
    assert first["rows"] == [
        {
            "rule": "guessed",
            "fact": 0,
            "fact_text": f"{FACTS[0][0]} → Jane Austen",
            "passage": 0,
            "stretch": "Jane Austen herself, is EMMA",
        }
    ]
    assert second["own"]["name"] == "D_B"
    assert second["rows"] == []


def test_many_rows_are_cut_short_unless_all_are_asked_for(tmp_path: Path, config: Path) -> None:
    many = rows(tmp_path / "many.jsonl", [(f"What does Ann{n} like?", "tea") for n in range(30)])
    (tmp_path / "[").mkdir()  # what rich would take for the end of a style
    drunk = rows(tmp_path / "[/tea].jsonl", [(f"Ann{n} likes \x1b[31m", "tea") for n in range(30)])
    config.write_text(
        f"stages: [{{data: {{source: {many}, limit: 30}}, mix: {{source: '{drunk}', ratio: 1}}}}]"
    )
    text = run(str(config))
    assert text.count("\n  passage ") == 20
    assert "… and 10 more; --full lists them all" in text
    assert "\x1b" not in text
    assert run(str(config), "--full").count("\n  passage ") == 30
    assert len(json.loads(run(str(config), "--json"))[0]["rows"]) == 30


def test_far_apart_is_shown_with_an_ellipsis(tmp_path: Path, config: Path) -> None:
    rows(tmp_path / "passages.jsonl", [("Emma " + "la " * 40, "Jane Austen"), *PASSAGES[1:]])
    assert "passage 0 (guessed): Emma … Jane Austen\n" in run(str(config))


def test_settings_can_be_overridden(config: Path) -> None:
    text = run(str(config), "--set", "stages.0.data.limit=2", "--set", "arms.mixed={}")
    assert "D_A: 2 of" in text
    assert "D_M: 2 of" in text


def test_the_preset_needs_no_file() -> None:
    """Random words hold no fact; every key of `kvr` has too few words for eight in a row."""
    text = run("demo")
    assert text.count("no overlap found") == 2
    assert "100 facts have fewer than 8 words; --ngram takes fewer" in " ".join(text.split())
    assert "mixed: stage 1; control: stage 1, left out" in " ".join(text.split())


@pytest.mark.parametrize(
    "settings",
    [
        ("arms.mixed={}", "record.mix=null"),
        ("arms.mixed={}", "record.mix.ratio=0"),
        ("arms={a: {stages.0.mix: {source: prose, ratio: 0}}}", "record.mix=null"),
    ],
)
def test_nothing_mixed_in_is_one_line(config: Path, settings: tuple[str, str]) -> None:
    text = run(
        str(config), *(part for setting in settings for part in ("--set", setting)), status=2
    )
    assert "my: it mixes nothing in" in text
    assert text.count("\n") == 1


@pytest.mark.parametrize("arguments", [("none.yaml",), ("demo", "--set", "stages.0.mix.ratoi=1")])
def test_a_mistake_in_the_configuration_is_said(arguments: tuple[str, ...]) -> None:
    assert run(*arguments, status=2).startswith("geomix: ")


def test_a_run_of_less_than_one_word_is_refused(config: Path) -> None:
    assert "--ngram" in run(str(config), "--ngram", "0", status=2)
