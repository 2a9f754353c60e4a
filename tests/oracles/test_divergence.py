"""KL divergence against scipy's relative entropy in float64.

Why the oracle is independent: it goes from logits to probabilities by scipy's softmax and sums
`rel_entr` in float64, one example at a time, unpacked; of geomix it takes the examples' tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import rel_entr, softmax

from geomix.config.evaluate import KLConfig
from geomix.data.example import TokenisedExample
from geomix.data.sources import kvr
from geomix.data.tokenise import tokenise_all
from geomix.models.divergence import kl_divergence, log_probabilities
from geomix.models.load import LoadedModel, load_model
from geomix.training.kl_reference import Reference
from geomix.util.errors import UserError


def test_it_is_the_relative_entropy_of_the_first_to_the_second() -> None:
    """Logits from flat to sharp; a token without probability at the start adds nothing."""
    drawn = np.random.default_rng(0)
    start, now = drawn.normal(size=(2, 9, 50)) * np.linspace(0.1, 9, 9)[:, None]
    start[:, 3] = -np.inf
    expected = rel_entr(softmax(start, -1), softmax(now, -1)).sum(-1)
    found = kl_divergence(*(log_probabilities(torch.tensor(x)) for x in (start, now)))
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5, atol=1e-6)
    other = kl_divergence(*(log_probabilities(torch.tensor(x[:, 4:])) for x in (now, start)))
    assert (abs(other.numpy() - expected) > 1e-3).any(), "it is not symmetric"


def probabilities(loaded: LoadedModel, examples: list[TokenisedExample]) -> Any:
    """At every answer token, `(P, V)` float64."""
    model: Any = loaded.model
    found = []
    for example in examples:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([example.ids])).logits[0].double().numpy()
        found.append(softmax(logits[example.target_start - 1 : -1], -1))
    return np.concatenate(found)


@pytest.mark.parametrize("width", [None, 64])
def test_the_mean_over_the_answer_positions_of_a_probe(
    loaded: LoadedModel, facts: list[TokenisedExample], tmp_path: Path, width: int | None
) -> None:
    """It takes 9 examples in passes of 2, at most 30 positions; the training mode is restored."""
    limits = KLConfig(examples=9, positions=30)
    reference = Reference(tmp_path / "start.safetensors", limits, 2, width)
    before = probabilities(loaded, facts[:9])
    loaded.model.train()
    reference.write(loaded, {"D_A": facts, "D_B": facts[:1]})
    assert reference.divergence(loaded, "D_A", facts) == 0
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.mul_(2)
    terms = rel_entr(before, probabilities(loaded, facts[:9])).sum(-1)
    assert len(terms) > 30
    for name, examples, n in (("D_A", facts, 30), ("D_B", facts[:1], facts[0].target_tokens)):
        found = reference.divergence(loaded, name, examples)
        assert found == pytest.approx(terms[:n].mean(), rel=1e-3)
        assert found > 1e-4
    assert loaded.model.training
    with pytest.raises(UserError, match=r"start\.safetensors: not what the stage began with"):
        reference.divergence(loaded, "D_B", facts)
    reference.file.unlink()
    with pytest.raises(UserError, match="restore it or begin a new run"):
        reference.divergence(loaded, "D_A", facts)


@pytest.mark.parametrize("training", [True, False])
def test_it_is_without_dropout_and_leaves_the_models_mode(
    dropout_model: Path, tmp_path: Path, training: bool
) -> None:
    """A model that drew random numbers would differ from itself."""
    loaded = load_model(str(dropout_model), torch.device("cpu"))
    facts = tokenise_all(loaded.tokenizer, kvr.examples(4, 0, "train"))
    loaded.model.train(training)
    reference = Reference(tmp_path / "start.safetensors", KLConfig(), 2, None)
    reference.write(loaded, {"D_A": facts})
    assert loaded.model.training is training
    assert reference.divergence(loaded, "D_A", facts) == 0
    assert loaded.model.training is training


def test_a_probe_is_no_more_examples_than_asked_for(
    loaded: LoadedModel, facts: list[TokenisedExample], tmp_path: Path
) -> None:
    reference = Reference(tmp_path / "start.safetensors", KLConfig(examples=3), 2, None)
    reference.write(loaded, {"D_A": facts})
    kept = load_file(reference.file)["D_A"]
    assert len(kept) == sum(example.target_tokens for example in facts[:3])


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "hash gone"])
def test_what_a_stage_began_with_is_as_it_was_written(
    loaded: LoadedModel, facts: list[TokenisedExample], tmp_path: Path, damage: str
) -> None:
    reference = Reference(tmp_path / "start.safetensors", KLConfig(examples=2), 2, None)
    reference.write(loaded, {"D_A": facts})
    reference.check()
    content = reference.file.read_bytes()
    if damage == "gone":
        reference.file.unlink()
    elif damage == "hash gone":
        reference.file.with_name("start.safetensors.sha256").unlink()
    else:
        end = b"" if damage == "cut" else bytes([content[-1] ^ 1])
        reference.file.write_bytes(content[:-1] + end)
    with pytest.raises(UserError, match=r"start\.safetensors: ") as raised:
        reference.check()
    assert len(raised.value.lines) == 1
    reference.write(loaded, {"D_A": facts})  # a stage that begins again writes it anew
    reference.check()
