"""Facts that a model knows, against an independent decoding, token by token; and the cache."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import processors

from geomix.data.example import Example
from geomix.models import familiarity
from geomix.models.decode import greedy
from geomix.models.familiarity import as_text, cache_folder, familiar, model_hash, shown
from geomix.models.load import LoadedModel
from geomix.util.errors import UserError
from tests.teaching import teach

FACTS = [
    Example(f"The value of {key} is?", answer, (answer,))
    for key, answer in zip(
        "abcdefgh", ["one two", "Blue", "x", "green", "99", "k 9", "last one", "éß"], strict=True
    )
]
SHOTS = [Example("The value of z is?", "zed"), Example("The value of y is?", "why not")]


def teach_texts(loaded: LoadedModel, texts: list[tuple[str, str]]) -> None:
    """Let the model go on from a beginning as said, without any of geomix's data code."""
    read = loaded.tokenizer
    ids = [(read(start)["input_ids"], read(start + rest)["input_ids"]) for start, rest in texts]
    assert all(whole[: len(start)] == start for start, whole in ids)
    teach(loaded.model, [(whole, len(start)) for start, whole in ids])


@pytest.fixture
def half_taught(loaded: LoadedModel) -> LoadedModel:
    """Knows every other fact, under the plain prompt, and goes on after a line break."""
    texts = [(e.prompt, f" {e.target}\nThe value") for e in FACTS[::2]]
    teach_texts(loaded, texts + [(e.prompt, " wrong\n") for e in FACTS[1::2]])
    return loaded


def ask(loaded: LoadedModel, facts: Sequence[Example], shots: Any, size: int, cache: Path) -> Any:
    prompts = as_text(loaded.tokenizer, [shown(fact, shots) for fact in facts])
    return familiar(loaded, facts, prompts, [loaded.tokenizer.eos_token_id], size, cache)


def first_line(loaded: LoadedModel, text: str, most: int = 24) -> str:
    """Argmax after argmax, without `generate`, cache or padding, up to a line break."""
    ids = loaded.tokenizer(text)["input_ids"]
    start = len(ids)
    model: Any = loaded.model
    for _ in range(most):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    written: str = loaded.tokenizer.decode(ids[start:])
    return written.strip().split("\n")[0].strip().lower()


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_verdicts_are_those_of_greedy_decoding(
    half_taught: LoadedModel, tmp_path: Path, size: int
) -> None:
    found = ask(half_taught, FACTS, [], size, tmp_path)
    assert found == [first_line(half_taught, e.prompt) == e.target.lower() for e in FACTS]
    assert found == [True, False] * 4


def test_any_alias_and_any_case_count_and_the_rest_of_the_line_does(
    half_taught: LoadedModel, tmp_path: Path
) -> None:
    known = FACTS[0]
    facts = [
        Example(known.prompt, "two", ("two", " ONE Two ")),
        Example(known.prompt, "two", ("two",)),
        Example(known.prompt, "one", ("one",)),
        Example(known.prompt, "one two", ("another",)),
    ]
    assert ask(half_taught, facts, [], 2, tmp_path) == [True, False, False, True]


@pytest.mark.parametrize(
    ("target", "said", "expected"),
    [
        ("Blue", "\n \n blue \nand red", True),
        ("Blue", "and\nblue", False),
        ("", "", False),
        ("", "\n", False),
    ],
)
def test_the_first_line_that_is_not_empty_counts(
    loaded: LoadedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    said: str,
    expected: bool,
) -> None:
    monkeypatch.setattr(familiarity, "greedy", lambda *_: [said])
    assert ask(loaded, [Example("q?", target)], [], 1, tmp_path) == [expected]


def test_an_end_token_that_a_tokenizer_appends_is_taken_off_the_prompt(
    half_taught: LoadedModel, tmp_path: Path
) -> None:
    end = half_taught.tokenizer.eos_token
    half_taught.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, half_taught.tokenizer.eos_token_id)]
    )
    assert half_taught.tokenizer("a")["input_ids"][-1] == half_taught.tokenizer.eos_token_id
    assert ask(half_taught, FACTS, [], 4, tmp_path) == [True, False] * 4


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_asked_in_evaluation_mode_and_its_own_is_restored(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: bool
) -> None:
    modes: list[bool] = []

    def noted(loaded: LoadedModel, prompts: list[list[int]], *_: Any) -> list[str]:
        modes.append(loaded.model.training)
        return [""] * len(prompts)

    monkeypatch.setattr(familiarity, "greedy", noted)
    loaded.model.train(training)
    ask(loaded, FACTS, [], 1, tmp_path)
    assert loaded.model.training is training
    assert modes == [False]


def test_verdicts_are_kept_as_they_are_made(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill loses at most eight batches."""
    asked: list[int] = []

    def broken(loaded: LoadedModel, prompts: list[list[int]], *_: Any) -> list[str]:
        asked.append(len(prompts))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return [""] * len(prompts)

    monkeypatch.setattr(familiarity, "greedy", broken)
    many = [Example(f"The value of {i} is?", "x") for i in range(20)]
    with pytest.raises(KeyboardInterrupt):
        ask(loaded, many, [], 1, tmp_path)
    ask(loaded, many, [], 1, tmp_path)
    assert asked == [8, 8, 8, 4]


def test_shots_stand_before_the_prompt(loaded: LoadedModel, tmp_path: Path) -> None:
    assert shown(FACTS[0], SHOTS) == (
        "The value of z is? zed\n\nThe value of y is? why not\n\nThe value of a is?"
    )
    teach_texts(loaded, [(shown(FACTS[0], SHOTS), " one two\n\n"), (FACTS[0].prompt, " wrong\n")])
    assert ask(loaded, FACTS[:1], SHOTS, 1, tmp_path) == [True]
    assert ask(loaded, FACTS[:1], [], 1, tmp_path) == [False]


def test_verdicts_are_kept_by_model_and_prompt(
    half_taught: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counted(loaded: LoadedModel, prompts: Any, *rest: Any) -> list[str]:
        asked.append(len(prompts))
        return greedy(loaded, prompts, *rest)

    monkeypatch.setattr(familiarity, "greedy", counted)
    first = ask(half_taught, FACTS[:5], [], 4, tmp_path)
    again = ask(half_taught, FACTS, [], 4, tmp_path)
    assert again[:5] == first
    assert sum(asked) == len(FACTS), "the first five were looked up"
    ask(half_taught, FACTS, SHOTS, 4, tmp_path)
    assert sum(asked) == 2 * len(FACTS), "another prompt is another question"
    with torch.no_grad():
        next(half_taught.model.parameters())[0, 0] += 1e-3
    ask(half_taught, FACTS, [], 4, tmp_path)
    assert sum(asked) == 3 * len(FACTS), "another model gives other answers"
    assert len(list((tmp_path / "familiar").glob("*.jsonl"))) == 2


def test_the_hash_is_that_of_the_weights(loaded: LoadedModel) -> None:
    before = model_hash(loaded.model)
    assert model_hash(loaded.model.train()) == before
    assert model_hash(loaded.model.to(torch.bfloat16)) != before
    wide, high = torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        high.weight.copy_(wide.weight.reshape(2, 3))
    assert model_hash(wide) != model_hash(high), "the same numbers in another shape"


def test_a_prompt_without_room_for_the_answer_is_refused(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="takes at most 256; ask for fewer shots"):
        ask(loaded, FACTS, [Example("word " * 200, "a")], 2, tmp_path)


def test_a_prompt_with_just_enough_room_is_not_refused(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line break must fit behind the answer: four tokens more than it has."""
    fact = FACTS[0]
    count = [len(loaded.tokenizer(text)["input_ids"]) for text in (fact.prompt, "one two")]
    model: Any = loaded.model
    monkeypatch.setattr(model.config, "max_position_embeddings", sum(count) + 4)
    ask(loaded, [fact], [], 1, tmp_path / "fits")
    monkeypatch.setattr(model.config, "max_position_embeddings", sum(count) + 3)
    with pytest.raises(UserError, match=f"have {sum(count) + 4} tokens"):
        ask(loaded, [fact], [], 1, tmp_path / "does-not")


@pytest.mark.parametrize("content", ["not json\n", "[1]\n", '{"a": true}\n{"b"'])
def test_a_damaged_cache_is_one_line(loaded: LoadedModel, tmp_path: Path, content: str) -> None:
    file = tmp_path / "familiar" / f"{model_hash(loaded.model)}.jsonl"
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(UserError, match=r"jsonl:\d: not as geomix writes it; delete the file"):
        ask(loaded, FACTS[:1], [], 1, tmp_path)


def test_a_cache_that_cannot_be_written_is_one_line(loaded: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "familiar").write_text("in the way")
    with pytest.raises(UserError, match="set GEOMIX_CACHE to a folder of yours"):
        ask(loaded, FACTS[:1], [], 1, tmp_path)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("GEOMIX_CACHE", raising=False)
    assert cache_folder() == tmp_path / "geomix"
    monkeypatch.setenv("GEOMIX_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


def test_what_is_kept_is_json(half_taught: LoadedModel, tmp_path: Path) -> None:
    verdicts = ask(half_taught, FACTS, [], 4, tmp_path)
    (file,) = (tmp_path / "familiar").glob("*.jsonl")
    kept = [value for line in file.read_text().splitlines() for value in json.loads(line).values()]
    assert sorted(kept) == sorted(verdicts)
