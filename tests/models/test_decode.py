"""Greedy continuations of several prompts against one argmax after the other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from geomix.models.decode import greedy
from geomix.models.load import LoadedModel
from tests.teaching import teach

TEXTS = ["a b c d e", "one two</s> three four", "red"]


@pytest.fixture
def taught(loaded: LoadedModel) -> LoadedModel:
    """Goes on with the rest of each text, then with line breaks; taught without geomix."""
    whole = [loaded.tokenizer(f"{text}\n\n\n\n\n\n")["input_ids"] for text in TEXTS]
    starts = [len(prompt) for prompt in prompts(loaded)]
    teach(loaded.model, list(zip(whole, starts, strict=True)))
    return loaded


def prompts(loaded: LoadedModel) -> list[list[int]]:
    """The first tokens of each text: as few as tell it from the others."""
    return [
        loaded.tokenizer(text)["input_ids"][:n] for text, n in zip(TEXTS, (1, 3, 1), strict=True)
    ]


def argmaxes(loaded: LoadedModel, prompt: list[int], steps: int) -> list[int]:
    """One sequence, no cache, no padding, no `generate`."""
    ids = list(prompt)
    model: Any = loaded.model
    for _ in range(steps):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_continuation_ends_before_the_first_end_token(taught: LoadedModel, size: int) -> None:
    """The end token is an ordinary one, and so is what fills a batch: neither is left to a
    tokenizer's list of special tokens."""
    (end,) = taught.tokenizer("\n")["input_ids"]
    (fill,) = taught.tokenizer("q")["input_ids"]
    assert not {end, fill} & set(taught.tokenizer.all_special_ids)
    filled = LoadedModel(taught.model, taught.tokenizer, fill)
    asked = prompts(taught)
    rest = [text[len(taught.tokenizer.decode(p)) :] for text, p in zip(TEXTS, asked, strict=True)]
    for prompt, text in zip(asked, rest, strict=True):
        written: str = taught.tokenizer.decode(argmaxes(taught, prompt, 20))
        assert written.startswith(f"{text}\n\n")
    expected = [text.replace("</s>", "") for text in rest]  # here no end, and special
    assert greedy(filled, asked, [20] * 3, {end}, size) == expected


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_continuation_depends_on_those_beside_it(taught: LoadedModel, size: int) -> None:
    """Prompts and budgets of different lengths, so that batches are padded and cut."""
    asked, budgets = prompts(taught), [3, 5, 2]
    expected = [
        taught.tokenizer.decode(argmaxes(taught, prompt, budget), skip_special_tokens=True)
        for prompt, budget in zip(asked, budgets, strict=True)
    ]
    assert greedy(taught, asked, budgets, {taught.tokenizer.bos_token_id}, size) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_long_prompt_takes_no_positions_from_another(
    taught: LoadedModel, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """16 positions: the second has 2 of its 9 steps, the third 1 although none is left."""
    model: Any = taught.model
    model.config.max_position_embeddings = 16
    seen: list[int] = []
    generate = model.generate

    def noted(**keys: Any) -> Any:
        seen.append(keys["input_ids"].shape[1] + keys["max_new_tokens"])
        return generate(**keys)

    monkeypatch.setattr(model, "generate", noted)
    short, middle, _ = prompts(taught)
    asked = [short, short * 14, short * 16, middle, middle]
    expected = [
        taught.tokenizer.decode(argmaxes(taught, prompt, steps), skip_special_tokens=True)
        for prompt, steps in zip(asked, (9, 2, 1, 4, 2), strict=True)
    ]
    end = taught.tokenizer.bos_token_id
    assert greedy(taught, asked, [9, 9, 9, 4, 2], {end}, size) == expected
    assert max(seen) == 17, "the prompt without room is alone"
    assert sum(places > 16 for places in seen) == 1
    assert len(seen) == {1: 5, 2: 3, 3: 3, 4: 3}[size], "no more batches than that takes"
