"""Knowledge Pile, ArXiv and FineWeb from local copies; generated prose; the NLTK words."""

from __future__ import annotations

import json
import lzma
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from scipy.stats import chisquare

from geomix.data.example import Example
from geomix.data.sources import SOURCES, prose
from geomix.data.sources import random_words as words
from geomix.data.sources.base import Request
from geomix.data.sources.passages import completion
from geomix.data.sources.select import examples_of
from geomix.data.split import SPLITS
from geomix.util.errors import UserError

Everything = Callable[..., dict[str, Example]]
START = "Complete the following partial passage: "


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_next_words_follow_the_first() -> None:
    text = " ".join(f"w{n}" for n in range(120))
    found = completion(f" {text.replace(' w7 ', chr(10) * 2 + 'w7' + chr(9))}", 50)
    expected = [f"w{n}" for n in range(100)]
    assert found == Example(START + " ".join(expected[:50]), " ".join(expected[50:]))
    assert completion(" ".join(expected), 50) == found
    assert completion(" ".join(expected[:99]), 50) is None


@pytest.mark.parametrize(
    ("name", "key"), [("kpile", "text"), ("arxiv", "article"), ("fineweb", "text")]
)
def test_short_passages_are_dropped(
    everything: Everything, tmp_path: Path, name: str, key: str
) -> None:
    rows = [{key: " ".join(f"{n}-{i}" for i in range(n)), "id": n} for n in range(95, 106)]
    file = lines(tmp_path / "x.jsonl", [*rows, {key: ""}])
    found = everything(name, file)
    assert sorted(found) == sorted(
        START + " ".join(f"{n}-{i}" for i in range(50)) for n in range(100, 106)
    )
    assert {len(example.target.split()) for example in found.values()} == {50}
    assert len(everything(name, file, words=51)) == 4
    with pytest.raises(UserError, match=f":1: '{key}|text' is missing"):
        examples_of(name, Request(1, 0, path=str(lines(file, [{"other": "x"}]))))


def test_a_stream_is_read_no_further_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def load_dataset(*_: Any, streaming: bool, **__: Any) -> Any:
        assert streaming
        for number in range(10**9):
            read.append(number)
            yield {"text": f"{number} " * 100}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = examples_of("fineweb", Request(20, 0))
    assert len({example.target for example in found}) == 20
    assert 40 <= len(read) < 150
    assert found != examples_of("fineweb", Request(20, 1))


@pytest.mark.parametrize("name", [n for n, source in SOURCES.items() if source.hub])
def test_no_network_is_one_line_that_says_what_to_do(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_dataset(*_: Any, **__: Any) -> Any:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError) as raised:
        examples_of(name, Request(1, 0))
    (line,) = raised.value.lines
    hub = SOURCES[name].hub
    assert hub is not None
    assert line.startswith(f"data source '{name}': {hub}: Couldn't reach the Hub; download ")
    assert line.endswith(", then give the copy as path:")


def test_real_text(everything: Everything, shared_data: Path, tmp_path: Path) -> None:
    with lzma.open(shared_data / "text" / "python_peps.txt.xz", "rt", encoding="utf-8") as file:
        text = file.read(400_000)
    parts = [{"text": text[start : start + 2000]} for start in range(0, len(text), 2000)]
    found = everything("kpile", lines(tmp_path / "x.jsonl", parts))
    assert len(found) > 150
    whole = " ".join(text.split())
    for example in found.values():
        assert f"{example.prompt.removeprefix(START)} {example.target}" in whole


def test_generated_prose_is_disjoint_and_reproducible() -> None:
    taken = {split: prose.examples(300, 50, 0, split) for split in SPLITS}
    assert len({e.prompt for found in taken.values() for e in found}) == 900
    assert prose.examples(30, 50, 0, "train") == taken["train"][:30]
    assert prose.examples(30, 50, 1, "train") != taken["train"][:30]
    first = taken["train"][0]
    assert len(first.prompt.removeprefix(START).split()) == len(first.target.split()) == 50
    assert "{" not in "".join(e.prompt + e.target for e in taken["train"])
    with pytest.raises(UserError, match="different passages of 1 words"):
        examples_of("prose", Request(5000, 0, words=1))


def corpus(folder: Path) -> Path:
    file = folder / "words.zip"
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("words/en", "beta\nalpha\nA\n")
        packed.writestr("words/en-basic", "alpha\ngamma\n\n")
    return file


def test_nltk_words_from_the_zip_its_folder_or_a_file(tmp_path: Path) -> None:
    file = corpus(tmp_path)
    expected = ("A", "alpha", "beta", "gamma")
    assert words.nltk_words(file) == expected
    with zipfile.ZipFile(file) as packed:
        packed.extractall(tmp_path)
    assert words.nltk_words(tmp_path / "words") == expected
    assert words.nltk_words(tmp_path / "words" / "en") == ("A", "alpha", "beta")
    request = Request(3, 0, words=5, path=str(file), vocabulary="nltk")
    assert set(" ".join(e.target for e in examples_of("random-words", request)).split()) <= {
        *expected
    }


def test_nltk_words_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK")
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as packed:
        packed.writestr("x", "")
    for path in (empty, broken, other, tmp_path / "none", tmp_path):
        with pytest.raises(UserError) as raised:
            words.nltk_words(path)
        assert len(raised.value.lines) == 1
        assert str(path) in str(raised.value)
    with pytest.raises(UserError, match="set vocabulary: nltk"):
        examples_of("random-words", Request(1, 0, path=str(empty)))
    with pytest.raises(UserError, match="that is for random-words"):
        examples_of("prose", Request(1, 0, vocabulary="nltk"))


def test_nltk_sample_is_drawn_uniformly(shared_data: Path) -> None:
    """Chi-square over blocks of the corpus; a sampler that favours a part of it must fail."""
    listed = words.nltk_words(shared_data / "nltk_words" / "words.zip")
    assert len(listed) == len(set(listed)) > 235_000
    place = {word: 100 * i // len(listed) for i, word in enumerate(listed)}

    def p_value(drawn: list[str]) -> float:
        counts = Counter(place[word] for word in drawn)
        expected = np.bincount(list(place.values())) * len(drawn) / len(listed)
        return float(chisquare([counts[i] for i in range(100)], expected).pvalue)

    found = words.examples(400, 50, 0, listed)
    drawn = [word for example in found for word in example.target.split()]
    assert len(drawn) == 20_000
    assert p_value(drawn) > 0.001
    tilted = [listed[int(len(listed) * (n / 20_000) ** 1.1)] for n in range(20_000)]
    assert p_value(tilted) < 0.001


def test_nltk_words_where_nltk_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nltk = pytest.importorskip("nltk")
    from nltk.corpus.util import LazyCorpusLoader

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    with pytest.raises(UserError, match="not installed; download https://") as raised:
        words.nltk_words(None)
    assert len(raised.value.lines) == 1
    (tmp_path / "corpora").mkdir()
    corpus(tmp_path / "corpora")
    fresh = LazyCorpusLoader("words", nltk.corpus.WordListCorpusReader, r"(?!README|\.).*")
    monkeypatch.setattr(nltk.corpus, "words", fresh)
    assert words.nltk_words(None) == ("A", "alpha", "beta", "gamma")
