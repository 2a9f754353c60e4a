"""Decoding from stored keys and values equals decoding from the text, on every family."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import DynamicCache

from geomix.data.batch import collate
from geomix.data.example import TokenisedExample
from geomix.models.decode import continuations
from geomix.models.forward import plain_forward
from geomix.models.kv_cache import Past, can_cache
from geomix.models.load import LoadedModel
from geomix.models.score import score
from tests.models.test_packing import APART, FAMILIES, VOCABULARY, examples, model_of


@pytest.mark.parametrize("family", [*FAMILIES, "OPT", "Bloom"])
def test_decoding_from_what_was_kept_is_decoding_from_the_text(family: str) -> None:
    """Rows of all lengths, some longer than the sliding windows, chosen out of order."""
    model = model_of(family, attn_implementation="eager")
    assert can_cache(model, 2, VOCABULARY - 1)
    loaded = LoadedModel(model, None, 0, can_cache=True)
    data = examples(9, 3)
    cache = DynamicCache()
    with torch.no_grad():
        plain_forward(model, cache=cache)(collate(data, [1.0] * 9, 0))
    rows = [7, 0, 3, 8, 5]
    # One more token than was read alike: the last of a prompt is another than in the text.
    prompts = [[*data[row].ids[: 2 + len(data[row].ids) // 2], 5] for row in rows]
    budgets = [6, 3, 6, 1, 4]
    expected = continuations(loaded, prompts, budgets, {1}, 3)
    assert len({tuple(said) for said in expected}) > 2
    assert continuations(loaded, prompts, budgets, {1}, 3, None, (Past.of(cache), rows)) == expected


@pytest.mark.parametrize("family", sorted(set(APART) - {"OPT", "Bloom"}))
def test_a_model_that_keeps_something_else_does_not_go_on(family: str) -> None:
    assert not can_cache(model_of(family), 2, VOCABULARY - 1)


def test_a_model_that_keeps_other_tokens_does_not_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model, up_to = model_of("Llama"), Past.up_to
    monkeypatch.setattr(Past, "up_to", lambda past, rows, _: up_to(past, rows, [3, 3]))
    assert not can_cache(model, 2, VOCABULARY - 1)


@pytest.mark.parametrize("exact_only", [False, True])
def test_scores_are_the_same_from_the_past(
    loaded: LoadedModel, facts: list[TokenisedExample], exact_only: bool
) -> None:
    assert loaded.can_cache
    plain = score(replace(loaded, can_cache=False), facts, 5, exact_only=exact_only)
    assert sum(not verdict.exact for verdict in plain) > 5, "most are decoded"
    found = score(loaded, facts, 5, exact_only=exact_only)
    assert [replace(v, nll=0.0) for v in found] == [replace(v, nll=0.0) for v in plain]
    for one, other in zip(found, plain, strict=True):
        assert one.nll == pytest.approx(other.nll, rel=1e-5)
