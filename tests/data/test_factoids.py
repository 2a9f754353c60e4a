"""PopQA, TriviaQA, EntityQuestions and WebQuestions in their upstream formats."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geomix.data.example import Example
from geomix.data.files import tables as table
from geomix.data.sources.base import Request
from geomix.data.sources.factoids import QUESTIONS, entity_of, popqa_row, triviaqa_row, webqa_row
from geomix.data.sources.rows import share_of
from geomix.data.sources.select import examples_of
from geomix.data.split import SPLITS, Split
from geomix.util.errors import UserError

Everything = Callable[..., dict[str, Example]]


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def popqa(number: int) -> dict[str, Any]:
    answers = json.dumps([f"o{number}", "x"])
    return {
        "id": number,
        "question": f"q{number}?",
        "obj": f"o{number}",
        "possible_answers": answers,
    }


def test_splits_are_disjoint_under_every_seed_and_cover_all_rows(
    everything: Everything, tmp_path: Path
) -> None:
    path = lines(tmp_path / "popqa.jsonl", [popqa(n) for n in range(1000)])
    found: dict[Split, set[str]] = {split: set() for split in SPLITS}
    counts: dict[Split, int] = {"train": 500, "id": 200, "held-out": 60}
    for split, count in counts.items():
        for seed in range(4):
            taken = examples_of("popqa", Request(count, seed, split, path=str(path)))
            assert len({example.prompt for example in taken}) == count
            assert {share_of(example) for example in taken} == {split}
            found[split] |= {example.prompt for example in taken}
    assert len(set().union(*found.values())) == sum(map(len, found.values())) > 850
    assert len(everything("popqa", path)) == 1000


def test_a_seed_is_an_order_and_a_larger_limit_begins_with_the_smaller(tmp_path: Path) -> None:
    path = str(lines(tmp_path / "popqa.jsonl", [popqa(n) for n in range(100)]))
    few, more, other = (
        [e.prompt for e in examples_of("popqa", Request(count, seed, path=path))]
        for count, seed in ((5, 0), (30, 0), (30, 1))
    )
    assert more[:5] == few
    assert more != other
    assert more != sorted(more, key=lambda prompt: int(prompt.split("q")[1].split("?")[0]))


def test_the_first_of_two_equal_questions_counts(everything: Everything, tmp_path: Path) -> None:
    twice = [popqa(1), {**popqa(2), "question": "q1?"}]
    (found,) = everything("popqa", lines(tmp_path / "popqa.jsonl", twice)).values()
    assert found.target == "o1"


def test_too_few_rows_say_how_many_there_are(tmp_path: Path) -> None:
    path = lines(tmp_path / "popqa.jsonl", [popqa(n) for n in range(20)])
    with pytest.raises(UserError) as raised:
        examples_of("popqa", Request(count=50, seed=0, path=str(path)))
    (line,) = raised.value.lines
    number = sum(share_of(popqa_row(popqa(n))) == "train" for n in range(20))
    assert f": {number} examples found in split 'train' of 20 in all (train 60 %" in line
    assert line.endswith(f"50 asked for; set limit: {number}")


def test_mistakes_are_named_with_their_lines(tmp_path: Path) -> None:
    path = lines(tmp_path / "popqa.jsonl", [popqa(0), *[{"question": "q?"}] * 7])
    with pytest.raises(UserError) as raised:
        examples_of("popqa", Request(count=1, seed=0, path=str(path)))
    (line,) = raised.value.lines
    assert line == f"{path}:2: 'obj' is missing (found: 'question'); 6 more like it"


def test_popqa_as_the_authors_tsv(everything: Everything, tmp_path: Path) -> None:
    path = tmp_path / "popQA.tsv"
    path.write_text(
        "id\tsubj\tobj\tquestion\tpossible_answers\n"
        "7\tNew Lands\tCharles Fort\tWhat is New Lands's author?\t"
        '"[""Charles Fort"", ""C. Fort""]"\n',
        encoding="utf-8",
    )
    expected = Example(
        "Question: What is New Lands's author? The answer is:",
        "Charles Fort",
        ("Charles Fort", "C. Fort"),
        subject="New Lands",
    )
    assert list(everything("popqa", path).values()) == [expected]
    assert list(everything("popqa", tmp_path).values()) == [expected]


def test_popqa_sample(everything: Everything, shared_data: Path) -> None:
    path = shared_data / "popqa" / "popqa_merged_hubschema.jsonl"
    rows = [row for _, row in table.rows(path) if not isinstance(row, str)]
    assert popqa_row(rows[0]) == Example(
        "Question: What is George Rankin's occupation? The answer is:",
        "politician",
        ("politician", "political leader", "political figure", "polit.", "pol"),
        subject="George Rankin",
    )
    found = everything("popqa", path)
    assert len(found) == len({row["question"] for row in rows}) > 1900
    targets = {row["question"]: row["obj"] for row in reversed(rows)}
    assert {e.prompt[10:-15]: e.target for e in found.values()} == targets
    assert sum(e.subject in e.prompt for e in found.values()) > 0.99 * len(found)


@pytest.mark.parametrize("missing", [{}, {"subj": None}, {"subj": 7}, {"subj": " "}])
def test_a_row_that_names_no_subject_is_still_an_example(missing: dict[str, Any]) -> None:
    assert popqa_row({**popqa(1), **missing}).subject == ""


TRIVIA = {
    "Data": [
        {
            "Question": "Which city does David Soul come from?",
            "Answer": {"Value": "Chicago", "Aliases": ["Chi-Town", "Chicago"]},
        }
    ]
}


def test_triviaqa_official_and_hub_columns_are_the_same(
    everything: Everything, tmp_path: Path
) -> None:
    path = tmp_path / "unfiltered-web-train.json"
    path.write_text(json.dumps(TRIVIA), encoding="utf-8")
    (tmp_path / "unfiltered-web-dev.json").write_text("{", encoding="utf-8")
    prompt = "Question: Which city does David Soul come from?\nThe answer is:"
    expected = Example(prompt, "Chicago", ("Chicago", "Chi-Town"))
    assert list(everything("triviaqa", tmp_path).values()) == [expected]
    answer = {"value": "Chicago", "aliases": ["Chi-Town", "Chicago"], "type": "FreeForm"}
    row = {"question": "Which city does David Soul come from?", "answer": answer}
    assert triviaqa_row(row) == expected


def test_triviaqa_samples(everything: Everything, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "triviaqa"
    (found,) = everything("triviaqa", folder / "triviaqa_sample_official.json").values()
    question = "Which Lloyd Webber musical premiered in the US on 10th December 1993?"
    assert found.prompt == f"Question: {question}\nThe answer is:"
    assert found.target == "Sunset Boulevard"
    assert found.aliases[:2] == ("Sunset Boulevard", "Sunset Blvd")
    with zipfile.ZipFile(folder / "hf_dummy_unfiltered.nocontext.zip") as packed:
        packed.extractall(tmp_path)
    rows = list(everything("triviaqa", tmp_path).values())
    assert len(rows) == 3
    assert {"Harry Truman", "Harry S. Truman"} <= {a for row in rows for a in row.aliases}


def test_entityquestions_reads_train_only_and_one_relation(
    everything: Everything, tmp_path: Path
) -> None:
    for name in ("train/P19.train", "train/P36.train", "dev/P19.dev"):
        file = tmp_path / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        row = {"question": f"Where is {name}?", "answers": ["here", "there"]}
        empty = {"question": "Nowhere?", "answers": []}
        file.write_text(json.dumps([row, empty]), encoding="utf-8")
    found = everything("entityquestions", tmp_path)
    prompts = {f"Question: Where is train/{p}.train? The answer is:" for p in ("P19", "P36")}
    assert set(found) == prompts
    one = everything("entityquestions", tmp_path, subset="P36")
    assert [e.aliases for e in one.values()] == [("here", "there")]
    with pytest.raises(UserError, match="has no subset 'P1'; known: P17, "):
        examples_of("entityquestions", Request(1, 0, path=str(tmp_path), subset="P1"))


def test_entityquestions_sample(everything: Everything, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "entityquestions"
    found = everything("entityquestions", folder / "P19.dev.json")
    prompt = "Question: Where was Michael Jack born? The answer is:"
    assert found[prompt] == Example(prompt, "Folkestone", ("Folkestone",), subject="Michael Jack")
    assert 990 < len(found) <= 1000
    with tarfile.open(folder / "entityquestions_full.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    taken = examples_of("entityquestions", Request(2000, 0, path=str(tmp_path)))
    assert len({example.prompt for example in taken}) == 2000
    assert all(e.subject and f" {e.subject}" in e.prompt for e in taken)


def test_the_entity_of_a_question_is_what_stands_in_its_template() -> None:
    assert len(QUESTIONS) == 23, "24 relations, two of which ask alike"
    for name in ("X", "Who's Who?", "a (A+B) [0-9]", "日本 2"):
        for question in QUESTIONS:
            assert entity_of(question.replace("[X]", name)) == name
    assert entity_of("Who owns it") == entity_of("Who owns ?") == ""
    assert entity_of("What is the capital of Chad famous for?") == "", "two readings"


def test_webqa_lisp_answers_and_questions_without_one(
    everything: Everything, tmp_path: Path
) -> None:
    lisp = '(list (description "Jamaican \\"Creole\\" (a)") (description Mobile))'
    row = {"utterance": "what?", "targetValue": lisp, "url": "u"}
    prompt = "Question: what? The answer is:"
    target = 'Jamaican "Creole" (a)'
    assert webqa_row(row) == Example(prompt, target, (target, "Mobile"))
    assert webqa_row({"question": "what?", "answers": [""]}) is None
    file = lines(tmp_path / "webquestions.train.jsonl", [{"question": "a?", "answers": ["b"]}])
    assert [e.target for e in everything("webqa", file.parent).values()] == ["b"]


def test_webqa_samples(everything: Everything, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "webquestions"
    found = everything("webqa", folder / "webq-train.jsonl")
    prompt = "Question: where was ancient carthage located? The answer is:"
    assert found[prompt].target == "Tunisia"
    assert len(found) == 3478
    with zipfile.ZipFile(folder / "hf_dummy.zip") as packed:
        packed.extractall(tmp_path)
    native = everything("webqa", tmp_path / "dummy_data" / "blobtrain")
    assert {e.target for e in native.values()} == {"Jamaican Creole English Language", "Mobile"}


def test_a_source_that_is_not_on_the_hub_says_what_to_download() -> None:
    with pytest.raises(UserError, match=r"download https://nlp\.cs.*, then give the copy as path:"):
        examples_of("entityquestions", Request(1, 0))
