"""The loss tokens are the targets and their end tokens, on every family of tokenizers.

Why the oracle is independent: it never looks at offsets, pieces or guards. The expected text is put
together here with f-strings (or rendered by transformers from the real messages, not from
sentinels), and what a run of loss tokens means is the text decoded up to its end less the text
decoded up to its beginning: a decoder that strips a leading space cannot hide one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from geomix.cli.data_sources import stretches
from geomix.data.chat import chat_format
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.data.tokenise import tokenise, tokenise_all

KINDS = ("gpt-2", "llama-3", "llama-2", "mistral", "unigram")
FORMATS = {
    "tulu": "<|user|>\n{p}\n<|assistant|>\n⟦{t}⟧\n",
    "Q: {prompt}\nA: {target}": "Q: {p}\nA: ⟦{t}⟧",
    "{prompt}{target}": "{p}⟦{t}⟧",
    "<|im_start|>{prompt}<|im_end|>{target}\n": "<|im_start|>{p}<|im_end|>⟦{t}⟧\n",
    "tokenizer": "<|im_start|>user\n{p}<|im_end|>\n<|im_start|>assistant\n⟦{t}⟧\n",
}
"""By `chat_template`: an exchange; ⟦ ⟧ stand around the target with its end token."""

# "▁" is SentencePiece's own space; special tokens in a text become special tokens.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="▁⟦⟧")
PIECES = st.sampled_from(
    [
        *("\n", "\n\n", " ", "  ", "\t", "\r\n", "\u2028", "\u200f", "\ufffd", "é", "e\u0301"),
        *("\u0301", "👩\u200d👩\u200d👧", "🇩🇪", "مرحبا", "שלום", "日本", "a", "Paris", "7", "1234"),
        *("|>", "</", "s>", "'s", "{x}"),
    ]
)
SPECIAL = re.compile(r"<s>|</s>|<\|endoftext\|>|<\|(begin|end)_of_text\|>|<\|im_(start|end)\|>|<0x")


def texts(least: int) -> st.SearchStrategy[str]:
    """Characters of every script mixed with pieces that tempt a tokenizer to merge."""
    mixed = st.lists(st.one_of(PIECES, PIECES, CHARACTERS), min_size=least, max_size=8)
    return mixed.map("".join).filter(lambda text: not SPECIAL.search(text))


CONVERSATIONS = st.lists(st.tuples(texts(1), texts(0)), min_size=1, max_size=3)
TRICKY = [
    [("q", " leading"), ("q ", "trailing "), (" q", "")],
    [("\n", "\n\n a"), ("\n\n", "\nb\n")],
    [("e", "\u0301a"), ("日", "本")],
    [("مرحبا", "שלום"), ("👩", "\u200d👧"), ("1", "234")],
    [("a ", "  b"), ("x", " "), ("y", "\n")],
]


def written(text: str, conversation: list[tuple[str, str]], end: str) -> list[str]:
    """The whole text in pieces: what is given, a target with its end token, what is given, …"""
    marked = "".join(
        text.replace("{p}", f"⟦{i}p⟧").replace("⟦{t}⟧", f"⟦{i}t⟧") for i in range(len(conversation))
    )
    pieces = [""]
    for part in re.split("⟦(.*?)⟧", marked):
        where = re.fullmatch("([0-9])([pt])", part)
        if where and where[2] == "t":
            pieces += [conversation[int(where[1])][1] + end, ""]
        else:
            pieces[-1] += conversation[int(where[1])][0] if where else part
    return pieces[:-1]  # nothing after the last end token


def example_of(conversation: list[tuple[str, str]]) -> Example:
    *earlier, (prompt, target) = conversation
    return Example(prompt, target, earlier=tuple(earlier))


def loss_runs(made: TokenisedExample) -> list[tuple[int, int]]:
    """First and one past the last position of each run of tokens that carry loss."""
    carries = "".join("x" if label != IGNORED else "." for label in made.labels)
    return [run.span() for run in re.finditer("x+", carries)]


def decoded(tokenizer: Any, made: TokenisedExample, start: int, stop: int) -> str:
    """Return the text of the tokens from `start` to `stop`."""
    before = tokenizer.decode(made.ids[:start], clean_up_tokenization_spaces=False)
    whole = tokenizer.decode(made.ids[:stop], clean_up_tokenization_spaces=False)
    assert whole.startswith(before)
    return str(whole[len(before) :])


def as_decoded(kind: str, pieces: list[str]) -> str:
    """The whole text with the spaces that the family itself puts in or drops.

    Llama 2's puts one before every section of text after a special token, unigram's before those
    that begin with none; here neither does so in a target. A first space is dropped by Mistral's
    and unigram's, which take it for the one that they put there.
    """
    if kind in ("llama-2", "unigram"):
        unless = " |" if kind == "unigram" else ""
        special = r"</s>|<\|im_start\|>|<\|im_end\|>"
        for i in range(0, len(pieces), 2):  # not the targets
            after = rf"({'^|' if i else ''}{special})"
            begins = rf"{after}(?!{unless}{special})(?=.)"
            pieces[i] = re.sub(begins, r"\1 ", pieces[i], flags=re.DOTALL)
    whole = "".join(pieces)
    return whole.removeprefix(" ") if kind in ("mistral", "unigram") else whole


def check(tokenizer: Any, kind: str, name: str, conversation: list[tuple[str, str]]) -> None:
    chat = chat_format(name, tokenizer)
    made = tokenise(tokenizer, example_of(conversation), chat)
    end = "<|im_end|>" if name == "tokenizer" else tokenizer.eos_token
    pieces = written(FORMATS[name], conversation, end)
    runs = loss_runs(made)
    assert [decoded(tokenizer, made, *run) for run in runs] == pieces[1::2]
    for start, stop in runs:
        assert start > 0
        assert made.labels[start:stop] == made.ids[start:stop]
        assert made.ids[stop - 1] == tokenizer.convert_tokens_to_ids(end)
    begins = name != "tokenizer" and kind != "gpt-2"
    assert (made.ids[0] == tokenizer.bos_token_id) == begins
    whole = tokenizer.decode(made.ids[begins:], clean_up_tokenization_spaces=False)
    assert whole == as_decoded(kind, pieces)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(conversation=CONVERSATIONS)
@example(conversation=TRICKY[0])
@example(conversation=TRICKY[1])
@example(conversation=TRICKY[2])
@example(conversation=TRICKY[3])
@example(conversation=TRICKY[4])
def test_loss_tokens_are_the_targets_and_their_end_tokens(
    families: dict[str, Any], kind: str, name: str, conversation: list[tuple[str, str]]
) -> None:
    check(families[kind], kind, name, conversation)


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_gives_what_transformers_gives(families: dict[str, Any], kind: str) -> None:
    """Up to the last end token: transformers renders the messages themselves and tokenises that."""
    tokenizer = families[kind]
    messages = [
        {"role": role, "content": content}
        for role, content in (("user", "Hi there"), ("assistant", "Yes, 42 of them")) * 2
    ]
    expected = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    made = tokenise(
        tokenizer,
        example_of([("Hi there", "Yes, 42 of them")] * 2),
        chat_format("tokenizer", tokenizer),
    )
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    last = max(i for i, token in enumerate(expected) if token == end)
    assert list(made.ids) == expected[: last + 1]


@pytest.mark.parametrize("kind", KINDS)
def test_targets_have_the_tokens_of_running_text(families: dict[str, Any], kind: str) -> None:
    """Whole text where no token straddles: tokenised by transformers with its own begin token."""
    tokenizer = families[kind]
    made = tokenise(tokenizer, Example("Where is it?", "Paris is in France"))
    text = "<|user|>\nWhere is it?\n<|assistant|>\nParis is in France"
    assert list(made.ids) == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]


@pytest.mark.parametrize(
    ("kind", "name", "target"),
    [
        ("gpt-2", "Q: {prompt}\nA: {target}", "Paris"),
        ("llama-3", "tulu", "\nx"),
        ("llama-2", "Q: {prompt}\nA: {target}", "x"),
        ("mistral", "Q: {prompt}\nA: {target}", "x"),
        ("unigram", "Q: {prompt}\nA: {target}", "x"),
    ],
)
def test_there_are_tokens_over_the_boundary(
    families: dict[str, Any], kind: str, name: str, target: str
) -> None:
    """Else the properties above could not fail: as one text it ends in other tokens."""
    tokenizer = families[kind]
    made = tokenise(tokenizer, Example("q", target), chat_format(name, tokenizer))
    (text, *_), (loss,) = written(FORMATS[name], [("q", target)], ""), loss_runs(made)
    whole = tokenizer(text + target)["input_ids"]
    assert whole != list(made.ids[:-1])
    assert decoded(tokenizer, made, *loss) == target + tokenizer.eos_token


@pytest.mark.parametrize("kind", KINDS)
def test_what_geomix_data_show_prints_has_every_space(families: dict[str, Any], kind: str) -> None:
    made = tokenise(families[kind], Example("q", " a"))
    parts = [(part.text, part.loss) for part in stretches(families[kind], made)]
    assert parts[-1] == (f" a{families[kind].eos_token}", True)


def test_batches_change_nothing(families: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geomix.data.tokenise.BATCH", 3)
    examples = [example_of(conversation) for conversation in TRICKY] * 3
    for tokenizer in families.values():
        for name in FORMATS:
            chat = chat_format(name, tokenizer)
            one_by_one = [tokenise(tokenizer, text, chat) for text in examples]
            assert tokenise_all(tokenizer, iter(examples), chat) == one_by_one


def test_the_tokenizer_is_left_as_it_was(families: dict[str, Any]) -> None:
    for tokenizer in families.values():
        before = tokenizer.backend_tokenizer.to_str()
        tokenise(tokenizer, Example("a", "b"))
        assert tokenizer.backend_tokenizer.to_str() == before


def test_an_end_token_that_takes_the_spaces_around_it_takes_none_of_the_target(
    make_family: Callable[[str], Any],
) -> None:
    """Phi 3's end and role tokens strip what follows; others strip what stands before them."""
    for side in ({"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}):
        tokenizer = make_family("mistral")
        edges = [AddedToken(text, special=True, **side) for text in ("<|im_start|>", "<|im_end|>")]
        tokenizer.add_tokens(edges, special_tokens=True)
        tokenizer.chat_template = (
            "{% for m in messages %}{{ m.role }}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
        )
        chat = chat_format("tokenizer", tokenizer)
        for targets in ((" a ", "b\n "), (" a ", "b")):
            made = tokenise(tokenizer, example_of([("q", targets[0]), ("r", targets[1])]), chat)
            found = [decoded(tokenizer, made, *run) for run in loss_runs(made)]
            assert found == [f"{target}<|im_end|>" for target in targets]


def test_a_character_that_a_normaliser_joins_to_the_prompt_stays_in_the_target(
    make_family: Callable[[str], Any],
) -> None:
    """NFC makes one character of "e" and a combining accent, which covers the first alone."""
    tokenizer = make_family("mistral")
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    chat = chat_format("{prompt}{target}", tokenizer)
    made = tokenise(tokenizer, Example("e", "\u0301a"), chat)
    (run,) = loss_runs(made)
    assert decoded(tokenizer, made, *run) == "\u0301a</s>"


def test_unknown_characters_without_byte_fallback_keep_the_mask(
    make_family: Callable[[str], Any],
) -> None:
    """Their text is lost; the loss tokens are still those of the target, unknown ones included."""
    tokenizer = make_family("mistral")
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [(left, right) for left, right in model["merges"]]
    tokenizer.backend_tokenizer.model = models.BPE(model["vocab"], merges, unk_token="<unk>")
    made = tokenise(tokenizer, Example("☃", "a☃b"))
    (run,) = loss_runs(made)
    assert decoded(tokenizer, made, *run) == "a<unk>b</s>"


def test_tokens_over_parts_of_characters_are_found() -> None:
    """Merges over bytes may join a line break to the first byte of what follows it.

    The token's last character is then the target's first, where another token begins too.
    """
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=257,
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(["\n日", "\n本", "\n曜", "\n月", "\n木"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")
    spans = tokenizer("\n日", return_offsets_mapping=True)["offset_mapping"]
    assert spans == [(0, 2), (1, 2), (1, 2)], "else this says nothing"
    made = tokenise(tokenizer, Example("q", "日"))
    (run,) = loss_runs(made)
    assert decoded(tokenizer, made, *run) == "日</s>"
