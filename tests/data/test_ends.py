"""Special tokens at the ends of an example: one each, whoever writes them, by token id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import AddedToken, processors

from geomix.data.chat import chat_format
from geomix.data.example import IGNORED, Example
from geomix.data.tokenise import tokenise
from geomix.util.errors import UserError

FACT = Example("Where is Ona?", "Lund")
TALK = Example("c", "d", earlier=(("a", "b"),))
JINJA = (
    "{% for m in messages %}{% if m.role == 'user' %}Q {{ m.content }}A{% else %}"
    "{{ m.content }}</s>{% endif %}{% endfor %}"
)


@pytest.fixture
def adds(make_tokenizer: Callable[..., Any]) -> Any:
    """A tokenizer that puts ⟨go⟩ before every text: its begin token is not called <s>."""
    tokenizer = make_tokenizer(["Q: Where is it?\nA: here"] * 4, 300, split=True)
    tokenizer.add_special_tokens({"bos_token": "⟨go⟩", "additional_special_tokens": ["⟨sop⟩"]})
    begins_with(tokenizer, "⟨go⟩")
    return tokenizer


def begins_with(tokenizer: Any, *tokens: str) -> None:
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join((*tokens, "$A")),
        special_tokens=[(t, tokenizer.convert_tokens_to_ids(t)) for t in tokens],
    )


def seen(tokenizer: Any, name: str, example: Example = FACT) -> str:
    made = tokenise(tokenizer, example, chat_format(name, tokenizer))
    assert made.labels[0] == IGNORED
    return str(tokenizer.decode(made.ids, clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("written", ["", "⟨go⟩"])
def test_a_plain_format_may_write_the_begin_token_or_leave_it_out(adds: Any, written: str) -> None:
    assert seen(adds, written + "Q: {prompt}\nA: {target}") == ("⟨go⟩Q: Where is Ona?\nA: Lund</s>")


def test_the_begin_token_may_stand_before_every_turn_of_a_plain_format(adds: Any) -> None:
    assert seen(adds, "⟨go⟩{prompt}={target}", TALK) == "⟨go⟩a=b</s>⟨go⟩c=d</s>"


def test_several_begin_tokens_are_those_that_the_format_writes(adds: Any) -> None:
    begins_with(adds, "⟨go⟩", "⟨sop⟩")
    for written in ("", "⟨go⟩⟨sop⟩"):
        assert seen(adds, written + "{prompt}={target}").startswith("⟨go⟩⟨sop⟩Where")


def test_a_begin_token_that_is_not_written_as_it_is_read_counts_by_its_id(adds: Any) -> None:
    adds.add_tokens([AddedToken("⟨go⟩", lstrip=True, special=True)])
    assert seen(adds, "  ⟨go⟩{prompt}={target}").count("⟨go⟩") == 1


@pytest.mark.parametrize(
    ("name", "example", "says"),
    [
        ("⟨go⟩⟨go⟩{prompt}={target}", FACT, "more than one begin token ('⟨go⟩')"),
        ("\n⟨go⟩{prompt}={target}", FACT, "white space before the begin token '⟨go⟩'"),
        ("{prompt}={target}", Example("⟨go⟩⟨go⟩x", "y"), "the example '⟨go⟩⟨go⟩x' begins with"),
        ("⟨go⟩{prompt}={target}", Example("⟨go⟩x", "y"), "begins with more than one begin"),
        ("{prompt}={target}", Example("x", "Lund</s>"), "the target 'Lund</s>' of 'x'"),
    ],
)
def test_two_of_them_are_refused_by_name(adds: Any, name: str, example: Example, says: str) -> None:
    with pytest.raises(UserError) as raised:
        seen(adds, name, example)
    assert says in str(raised.value)


def test_a_text_that_is_formatted_already_keeps_its_own_begin_token(adds: Any) -> None:
    assert seen(adds, "{prompt}={target}", Example("⟨go⟩x", "y")) == "⟨go⟩x=y</s>"


@pytest.mark.parametrize("space", ["", "\n"])
def test_an_end_token_of_the_format_is_not_a_second_one(adds: Any, space: str) -> None:
    assert seen(adds, f"{{prompt}}={{target}}{space}</s>") == "⟨go⟩Where is Ona?=Lund</s>"
    assert seen(adds, f"{{prompt}}={{target}}{space}</s>\n", TALK) == "⟨go⟩a=b</s>\nc=d</s>"


def test_a_token_that_begins_and_ends_stands_once_between_turns(adds: Any) -> None:
    adds.eos_token = "⟨go⟩"
    assert seen(adds, "⟨go⟩{prompt}={target}", TALK) == "⟨go⟩a=b⟨go⟩c=d⟨go⟩"


def test_a_jinja_template_writes_its_own_begin_token_once(adds: Any) -> None:
    for written in ("", "{{ bos_token }}"):
        adds.chat_template = written + JINJA
        assert seen(adds, "tokenizer").count("⟨go⟩") == bool(written)
    adds.chat_template = "⟨go⟩{{ bos_token }}" + JINJA
    with pytest.raises(UserError, match="more than one begin token"):
        seen(adds, "tokenizer")


def test_a_jinja_template_that_ends_an_answer_twice_is_refused(adds: Any) -> None:
    adds.chat_template = JINJA.replace("</s>", "</s></s>")
    assert seen(adds, "tokenizer").count("</s>") == 1, "nothing stands after the last one"
    with pytest.raises(UserError, match="writes the end token '</s>' after each target"):
        seen(adds, "tokenizer", TALK)
