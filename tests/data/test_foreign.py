"""Tokenizers that panic or take without end: one line, found in a child where it is the first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, normalizers

from geomix.data import bounded, foreign
from geomix.data.example import Example
from geomix.data.tokenise import tokenise, tokenise_all
from geomix.models.load import LoadedModel, load_tokenizer
from geomix.util.errors import UserError, one_line

PANIC = normalizers.Replace(Regex("(.*)*x"), "")
GROWS = normalizers.Sequence([normalizers.Replace("a", "aa")] * 40)
FACT = Example("Banana and another banana " * 4, "x")


@pytest.fixture
def tokenizer(make_tokenizer: Callable[..., Any]) -> Any:
    return make_tokenizer(["Banana"], 300, split=True)


@pytest.mark.parametrize(
    ("normalizer", "says"),
    [(PANIC, "retry-limit-in-match"), (GROWS, ("TimeoutError", "MemoryError"))],
)
def test_a_tokenizer_that_fails_on_the_first_texts_is_one_line(
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    normalizer: Any,
    says: str | tuple[str, ...],
) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 0.5)
    tokenizer.backend_tokenizer.normalizer = normalizer
    with pytest.raises(UserError, match=r"^model '.*': its tokenizer: fails on '<\|user") as raised:
        tokenise(tokenizer, FACT)
    assert any(one in str(raised.value) for one in ([says] if isinstance(says, str) else says))
    assert "\n" not in str(raised.value)
    assert capfd.readouterr().err == "", "the panic's own lines stay in the child"


def test_a_panic_on_a_later_text_is_one_line_too(tokenizer: Any) -> None:
    tokenise(tokenizer, FACT)
    tokenizer.backend_tokenizer.normalizer = PANIC
    with pytest.raises(UserError, match=r"its tokenizer: .*retry-limit-in-match"):
        tokenise_all(tokenizer, [FACT])


def test_a_tokenizer_is_tried_once(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(work: str, request: Any, count: int) -> Any:
        asked.append(count)
        return bounded.answers(work, request, count)

    monkeypatch.setattr(foreign, "answers", counted)
    tokenizer.add_tokens(["⟨of this test alone⟩"])
    tokenise_all(tokenizer, [FACT] * 3)
    tokenise_all(tokenizer, [FACT] * 2)
    same = type(tokenizer)(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()),
        eos_token=tokenizer.eos_token,
    )
    tokenise_all(same, [FACT])
    tokenise_all(load_tokenizer("builtin"), [FACT])
    assert asked == [3]


def test_a_panic_while_decoding_or_loading_is_one_line(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    from geomix.models import decode

    def panics(*_: Any, **__: Any) -> Any:
        return Tokenizer.from_str(json.dumps(known)).encode("y" * 99 + "\nx")

    known = json.loads(loaded.tokenizer.backend_tokenizer.to_str())
    known["normalizer"] = {"type": "Replace", "pattern": {"Regex": "(.*)*x"}, "content": ""}
    monkeypatch.setattr(loaded.tokenizer, "decode", panics)
    with pytest.raises(UserError, match=r"its tokenizer: .*retry-limit-in-match"):
        decode.text_of(loaded, [1])
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", panics)
    with pytest.raises(UserError, match=f"^model '{tiny_model}': .*retry-limit-in-match"):
        load_tokenizer(str(tiny_model))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_interrupts_pass(error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(error), one_line("a tokenizer"):
        raise error

    def interrupted(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", interrupted)
    with pytest.raises(error):
        load_tokenizer("builtin")


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("too deep"), ValueError("a\nb")])
def test_what_a_library_raises_is_one_line(error: Exception) -> None:
    with pytest.raises(UserError) as raised, one_line("a tokenizer"):
        raise error
    assert str(raised.value) in (
        *("a tokenizer: MemoryError", "a tokenizer: too deep", "a tokenizer: a"),
    )


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [("WALL", 0.0, "TimeoutError: not done after 0 seconds"), ("_MOST", 1, "MemoryError")],
)
def test_the_parent_ends_a_child_where_the_system_does_not(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: float, says: str
) -> None:
    """As on macOS, which limits no memory; and on a clock, however little the child works."""
    monkeypatch.setattr(bounded, setting, value)
    monkeypatch.setattr(bounded, "_INTERVAL", 0.001)
    request = {"template": "{{ 9 ** (9 ** 9) }}", "now": "", "special": {}, "conversations": [[]]}
    assert bounded.answers("render", request, 1) == ([], says)


def test_a_tokenizer_that_grows_without_end_is_found_when_it_is_loaded(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 0.5)
    folder = tmp_path / "grows"
    shutil.copytree(tiny_model, folder)
    file = folder / "tokenizer.json"
    known = json.loads(file.read_text())
    twice = {"type": "Replace", "pattern": {"String": "e"}, "content": "ee"}
    known["normalizer"] = {"type": "Sequence", "normalizers": [twice] * 40}
    file.write_text(json.dumps(known))
    with pytest.raises(UserError, match=f"^model '{folder}': its tokenizer: fails on 'the quick"):
        load_tokenizer(str(folder))
