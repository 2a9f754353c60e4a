"""The built-in base model as it lies in `data/base`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from geomix.data.example import Example, TokenisedExample
from geomix.data.sources import random_words as words
from geomix.data.sources import triples
from geomix.data.tokenise import tokenise, tokenise_all

PROMPT_FORMAT = "<|user|>\n{prompt}\n<|assistant|>\n"
BASE = Path(__file__).parents[2] / "data" / "base"
pytestmark = pytest.mark.skipif(not BASE.exists(), reason="data/base is not made yet")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(BASE)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def report() -> Any:
    return json.loads((BASE / "base.json").read_text(encoding="utf-8"))


@torch.no_grad()
def is_exact(model: Any, tokens: TokenisedExample) -> bool:
    """One sequence, one forward pass, no padding and no shared code with the training script."""
    predicted: list[int] = model(torch.tensor([tokens.ids])).logits[0].argmax(-1).tolist()
    start = tokens.target_start
    return predicted[start - 1 : -1] == list(tokens.ids[start:])


def test_it_fits_and_holds_no_pickle() -> None:
    files = [path for path in BASE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 6_000_000
    assert {path.suffix for path in files} <= {".json", ".md", ".safetensors"}


def test_it_copies_unseen_passages_of_20_words(model: Any, tokenizer: Any, report: Any) -> None:
    """Seed 123 is used nowhere else; 3,000^20 passages make a repetition impossible."""
    unseen = tokenise_all(tokenizer, words.examples(200, 20, seed=123))
    share = sum(is_exact(model, tokens) for tokens in unseen) / len(unseen)
    assert share >= 0.8
    assert share == pytest.approx(report["copy, generated"]["20"], abs=0.06)


def test_it_copies_what_the_prompt_says_and_not_something_it_knows(
    model: Any, tokenizer: Any
) -> None:
    """With another passage in the prompt the same target must not be predicted."""
    one, other = words.examples(2, 20, seed=124)
    crossed = tokenise(tokenizer, Example(prompt=one.prompt, target=other.target))
    assert not is_exact(model, crossed)


def test_greedy_decoding_gives_the_passage(model: Any, tokenizer: Any) -> None:
    """The teacher-forced number means what decoding does: 8 of 10 passages come out whole."""
    right = 0
    for example in words.examples(10, 20, seed=125):
        prompt = tokenizer(PROMPT_FORMAT.format(prompt=example.prompt), return_tensors="pt")
        made = model.generate(**prompt, max_new_tokens=80, do_sample=False)
        answer = made[0, prompt["input_ids"].shape[1] :]
        right += tokenizer.decode(answer, skip_special_tokens=True) == example.target
    assert right >= 7


def test_it_does_not_know_the_facts_of_small_seeds(model: Any, tokenizer: Any) -> None:
    """64 equally likely answers a relation: 200 guesses with over 16 right have odds under 1e-7."""
    facts = tokenise_all(tokenizer, triples.examples(200, 0, "train"))
    assert sum(is_exact(model, tokens) for tokens in facts) <= 16


@pytest.mark.parametrize(
    "example",
    [
        words.examples(1, 20, seed=0)[0],
        triples.examples(1, 0, "train")[0],
        Example("The value of key e6395973 is?", "8219acf2"),
        Example("Überraschung: 日本?", "naïve — “quotes”"),
    ],
)
def test_the_template_survives_the_tokenizer(tokenizer: Any, example: Example) -> None:
    tokens = tokenise(tokenizer, example)
    start = tokens.target_start
    assert tokenizer.decode(tokens.ids[:start]) == PROMPT_FORMAT.format(prompt=example.prompt)
    assert tokenizer.decode(tokens.ids[start:-1]) == example.target
    assert tokens.ids[-1] == tokenizer.eos_token_id
    assert tokenizer.unk_token_id is None


def test_special_tokens_are_three_different_ones(model: Any, tokenizer: Any) -> None:
    assert tokenizer.eos_token == "</s>"
    ids = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert len(ids) == 3
    assert model.config.vocab_size == len(tokenizer)
    assert not ids & set(tokenizer("ordinary text")["input_ids"])


def test_a_generated_word_is_about_two_tokens(tokenizer: Any) -> None:
    """Copying depends on it: with three tokens a word it is much harder to learn."""
    spaced = tokenizer([" " + word for word in words.word_list()])["input_ids"]
    assert sum(map(len, spaced)) / len(spaced) < 2.2


def test_text_is_predicted_better_than_by_frequencies(report: Any) -> None:
    loss = report["loss"]
    assert loss["held-out text"] < loss["held-out text, unigram"] - 1.5


def test_the_card_tells_what_the_numbers_are(report: Any) -> None:
    text = (BASE / "README.md").read_text(encoding="utf-8")
    assert "| words | 5 | 10 | 20 | 30 | 50 |" in text
    assert f"{100 * report['copy, generated']['20']:.1f} %" in text
    assert report["corpus"]["digest"] in text
    for name in ("Python Software Foundation License", "MIT", "make_base.py"):
        assert name in text
