"""The weighted loss against a naive loop, and the gradient of a set against one forward pass."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from geomix.data.batch import Batch, Reduction, chunks, collate, token_weights
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.models.forward import backward_over, batches_of, plain_forward
from geomix.models.loss import all_correct, correct_tokens, token_nll, weighted_loss

VOCABULARY = 23
CPU = torch.device("cpu")


def some(count: int, seed: int = 0) -> list[TokenisedExample]:
    """Examples with prompts of 1 to 6 and targets of 1 to 5 tokens."""
    draw = random.Random(seed)

    def number(low: int, high: int) -> int:
        return draw.randrange(low, high)

    made = []
    for _ in range(count):
        prompt, target = number(1, 7), number(1, 6)
        ids = tuple(number(1, VOCABULARY) for _ in range(prompt + target))
        made.append(TokenisedExample(ids, (IGNORED,) * prompt + ids[prompt:], Example("p", "t")))
    return made


def predicting(logits: Tensor, examples: list[TokenisedExample]) -> Tensor:
    """Return logits `(n, t, V)` before a label, example by example, as a `Forward` does."""
    at = [
        (n, i - 1) for n, e in enumerate(examples) for i, x in enumerate(e.labels) if x != IGNORED
    ]
    return torch.stack([logits[n, i] for n, i in at])


def naive_mean(logits: Tensor, examples: list[TokenisedExample], reduction: Reduction) -> float:
    """Token by token with `math`, straight from the definition; knows no weights, no padding."""
    per_example = []
    for row, example in enumerate(examples):
        losses = []
        for i, label in enumerate(example.labels):
            if label != IGNORED:
                scores = [math.exp(float(x)) for x in logits[row, i - 1]]
                losses.append(-math.log(scores[label] / sum(scores)))
        per_example.append(losses)
    if reduction == "token":
        flat = [loss for losses in per_example for loss in losses]
        return sum(flat) / len(flat)
    return sum(sum(losses) / len(losses) for losses in per_example) / len(per_example)


@pytest.mark.parametrize("reduction", ["token", "example"])
@pytest.mark.parametrize("width", [None, 11, 30])
def test_the_weighted_loss_is_the_mean(reduction: Reduction, width: int | None) -> None:
    examples = some(7)
    batch = collate(examples, token_weights(examples, reduction), 0, width)
    longest = max(len(e.ids) for e in examples)
    logits = torch.randn((7, longest, VOCABULARY), dtype=torch.float64)
    expected = naive_mean(logits, examples, reduction)
    assert weighted_loss(predicting(logits, examples), batch).item() == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("reduction", ["token", "example"])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_loss_of_a_set_is_the_sum_over_its_batches(reduction: Reduction, size: int) -> None:
    examples = some(7)
    longest = max(len(e.ids) for e in examples)
    logits = torch.randn((7, longest, VOCABULARY), dtype=torch.float64)
    total, done = 0.0, 0
    for batch in batches_of(examples, reduction, size, 0, CPU):
        part = slice(done, done + batch.examples)
        total += weighted_loss(predicting(logits[part], examples[part]), batch).item()
        done += batch.examples
    assert total == pytest.approx(naive_mean(logits, examples, reduction), rel=1e-12)


def test_nll_and_verdicts_by_hand() -> None:
    """Two tokens: logits (0, ln 3) give probabilities 1/4 and 3/4."""
    example = TokenisedExample((0, 1, 0), (IGNORED, 1, 0), Example("p", "t"))
    other = TokenisedExample((0, 1), (IGNORED, 1), Example("p", "t"))
    batch = collate([example, other], [1.0, 1.0], 0)
    logits = torch.tensor([[0.0, math.log(3.0)]] * 3)
    expected = [math.log(4 / 3), math.log(4), math.log(4 / 3)]
    assert token_nll(logits, batch).tolist() == pytest.approx(expected)
    assert correct_tokens(logits, batch).tolist() == [True, False, True]
    assert all_correct(logits, batch).tolist() == [False, True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_reduced_in_single(dtype: torch.dtype) -> None:
    batch = collate(some(4), [1.0] * 4, 0)
    logits = torch.randn((len(batch.targets), VOCABULARY)).to(dtype)
    assert token_nll(logits, batch).dtype == torch.float32
    torch.testing.assert_close(token_nll(logits, batch), token_nll(logits.float(), batch))


@pytest.fixture(scope="module")
def model() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            tie_word_embeddings=True,
        )
        return LlamaForCausalLM(config).double()


@pytest.mark.parametrize("reduction", ["token", "example"])
@pytest.mark.parametrize("size", [1, 2, 5, 9, 100])
@pytest.mark.parametrize("width", [None, 12, 30])
def test_the_gradient_of_a_set_depends_on_neither_batch_size_nor_packing(
    model: Any, reduction: Reduction, size: int, width: int | None
) -> None:
    """The oracle runs each example alone, unpadded, and lets torch's own mean weigh its tokens."""
    examples = some(9, 1)
    total = sum(e.target_tokens for e in examples)
    losses = []
    for example in examples:
        logits = model(input_ids=torch.tensor([example.ids])).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(example.labels[1:]))
        share = example.target_tokens / total if reduction == "token" else 1 / len(examples)
        losses.append(loss * share)
    expected = torch.autograd.grad(torch.stack(losses).sum(), list(model.parameters()))
    model.zero_grad()
    batches = batches_of(examples, reduction, size, 0, CPU, width)
    seen: list[Batch] = []
    for batch, logits in backward_over(plain_forward(model), batches):
        seen.append(batch)
        assert not logits.requires_grad
    assert [b.examples for b in seen] == [len(part) for part in chunks(examples, size)]
    if width == 30 and size > 1:
        assert any(len(b.ids) < b.examples for b in seen), "several examples share a row"
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-13)
    model.zero_grad()
