"""Recorded gradients against plain autograd, one unpadded sequence at a time.

The oracle shares nothing with the recorder but the model: it runs each example alone, without
padding, mask or batch weights, writes the loss out with `log_softmax`, asks `torch.autograd.grad`
for parameter gradients (so no `.grad` is accumulated), and takes the residual stream from
transformers' own `output_hidden_states`. The Llama oracle runs in float64.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from geomix.data.batch import Reduction
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.gradients.capture import CAPTURES, CaptureName
from geomix.models.forward import backward_over, batches_of
from geomix.recording.recorder import Recorder
from geomix.snapshots.schema import Snapshot
from geomix.training.observer import TrainingEvent

VOCABULARY = 43
REDUCTIONS: tuple[Reduction, ...] = ("token", "example")
Examples = list[TokenisedExample]


def examples(count: int, seed: int) -> Examples:
    """Lengths from 2 to 14 tokens, targets from 1 to 6 of them."""
    choose = random.Random(seed)
    made = []
    for _ in range(count):
        prompt, target = choose.randint(1, 8), choose.randint(1, 6)
        ids = tuple(choose.randrange(VOCABULARY) for _ in range(prompt + target))
        made.append(TokenisedExample(ids, (IGNORED,) * prompt + ids[prompt:], Example("p", "t")))
    return made


def with_random_weights(model: nn.Module) -> nn.Module:
    """No zero bias, no norm of one; in training mode, with dropout, as the recorder meets it."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.train()


def gpt2() -> Any:
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=20,
        n_embd=12,
        n_layer=3,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return with_random_weights(GPT2LMHeadModel(config)).double()


def llama(tied: bool) -> Any:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    return with_random_weights(LlamaForCausalLM(config))


@dataclass
class Oracle:
    """Gradient of one set's mean loss, by parameter, and by example the residual stream's."""

    parameters: dict[str, Tensor]
    losses: list[float]
    activations: list[Tensor]  # by example, (layers + 1, t, d)
    gradients: list[Tensor]


def oracle(model: Any, data: Examples, reduction: Reduction) -> Oracle:
    model = copy.deepcopy(model).double().eval()
    names, parameters = zip(*model.named_parameters(), strict=True)
    total = sum(len([t for t in e.labels if t != IGNORED]) for e in data)
    found = Oracle({n: torch.zeros_like(p) for n, p in model.named_parameters()}, [], [], [])
    final_norm = model.transformer.ln_f if hasattr(model, "transformer") else model.model.norm
    for example in data:
        last: list[Tensor] = []
        # transformers' last hidden state is behind the final norm; we want the one before it
        handle = final_norm.register_forward_pre_hook(
            lambda _, args, last=last: last.append(args[0])
        )
        output = model(input_ids=torch.tensor([example.ids]), output_hidden_states=True)
        handle.remove()
        stream = [*output.hidden_states[:-1], last[0]]
        log_p = output.logits[0].log_softmax(dim=-1)
        terms = [-log_p[t - 1, v] for t, v in enumerate(example.labels) if v != IGNORED]
        mean = sum(terms) / len(terms)
        loss = sum(terms) / total if reduction == "token" else mean / len(data)
        gradients = torch.autograd.grad(loss, [*parameters, *stream])
        for name, gradient in zip(names, gradients, strict=False):
            found.parameters[name] += gradient
        found.losses.append(mean.item())
        found.activations.append(torch.cat(stream).detach())
        found.gradients.append(torch.cat(gradients[len(parameters) :]))
    return found


def products(oracles: list[Oracle]) -> NDArray[np.float64]:
    """Inner products by parameter and pair of sets, element by element."""
    return np.array(
        [
            [[float((a.parameters[n] * b.parameters[n]).sum()) for b in oracles] for a in oracles]
            for n in oracles[0].parameters
        ]
    )


def record(
    model: nn.Module,
    sets: dict[str, Examples],
    reduction: Reduction,
    batch_size: int = 3,
    capture: CaptureName = "nnsight",
    width: int | None = None,
) -> Snapshot:
    recorder = Recorder(
        Path("unused"),
        sets,
        [],
        reduction=reduction,
        batch_size=batch_size,
        pad_id=0,
        capture=capture,
        width=width,
    )
    return recorder.snapshot(TrainingEvent(model, 0, "kvr", 0, 1, 0, None))


def relative_error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest error of an inner product, in units of the two gradients' norms."""
    norms = np.sqrt(np.einsum("mss->ms", expected))
    assert norms.min() > 0
    return float(np.max(np.abs(found - expected) / (norms[:, :, None] * norms[:, None, :])))


def cosines(products: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.sqrt(np.einsum("mss->ms", products))
    result: NDArray[np.float64] = products / (norms[:, :, None] * norms[:, None, :])
    return result


def sets_of_three() -> dict[str, Examples]:
    return {"d_a": examples(7, 0), "d_b": examples(5, 1), "d_m": examples(4, 2)}


@pytest.mark.parametrize("capture", ["nnsight", "hooks"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gpt2_inner_products_in_float64(reduction: Reduction, capture: CaptureName) -> None:
    """Independent: autograd over single unpadded sequences, see the module's docstring."""
    model, sets = gpt2(), sets_of_three()
    found = record(model, sets, reduction, capture=capture)
    oracles = [oracle(model, data, reduction) for data in sets.values()]
    expected = products(oracles)
    assert found.parameters == tuple(oracles[0].parameters)
    assert relative_error(found.inner_products, expected) < 1e-10
    np.testing.assert_allclose(cosines(found.inner_products), cosines(expected), atol=1e-10)
    assert np.array_equal(found.inner_products, found.inner_products.transpose(0, 2, 1))
    for name, one in zip(sets, oracles, strict=True):
        np.testing.assert_allclose(found.probes[name].loss, one.losses, rtol=1e-12)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_llama_inner_products_in_float32(reduction: Reduction, tied: bool) -> None:
    """Independent: as for GPT-2, and in float64, so that the oracle's own error is negligible."""
    model, sets = llama(tied), sets_of_three()
    found = record(model, sets, reduction)
    oracles = [oracle(model, data, reduction) for data in sets.values()]
    assert found.parameters == tuple(oracles[0].parameters)
    assert ("lm_head.weight" in found.parameters) is not tied
    assert found.tied_head is tied
    assert relative_error(found.inner_products, products(oracles)) < 1e-5
    for name, one in zip(sets, oracles, strict=True):
        np.testing.assert_allclose(found.probes[name].loss, one.losses, rtol=1e-5)


@pytest.mark.parametrize("capture", ["nnsight", "hooks"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gpt2_activations_and_their_gradients_in_float64(
    reduction: Reduction, capture: CaptureName
) -> None:
    """Independent: transformers' own hidden states of single sequences, every layer and token."""
    model, data = gpt2().eval(), examples(6, 0)
    expected = oracle(model, data, reduction)
    batches = batches_of(data, reduction, 4, 0, torch.device("cpu"))
    activations: list[Tensor] = []
    gradients: list[Tensor] = []
    with CAPTURES[capture](model) as forward:
        for batch, _ in backward_over(forward, batches):
            for row in range(batch.examples):
                length = len(data[len(activations)].ids)
                activations.append(torch.stack([h[row, :length] for h in forward.activations]))
                gradients.append(torch.stack([g[row, :length] for g in forward.gradients]))
    for i in range(len(data)):
        torch.testing.assert_close(activations[i], expected.activations[i], rtol=1e-10, atol=0)
        scale = float(expected.gradients[i].norm())
        assert float((gradients[i] - expected.gradients[i]).norm()) < 1e-10 * scale


@pytest.mark.parametrize("make", [gpt2, lambda: llama(tied=True)])
def test_recorded_rows_are_the_target_positions(make: Callable[[], Any]) -> None:
    """Independent: rows cut out of the oracle's full `(layers + 1, t, d)` by the labels alone."""
    model, data = make(), examples(6, 0)
    probe = record(model, {"d_a": data}, "example").probes["d_a"]
    expected = oracle(model, data, "example")
    assert probe.activations is not None
    assert probe.gradients is not None
    for i, example in enumerate(data):
        at = [t - 1 for t, label in enumerate(example.labels) if label != IGNORED]
        mine = slice(probe.offsets[i], probe.offsets[i + 1])
        for found, whole in (
            (probe.activations[mine], expected.activations[i]),
            (probe.gradients[mine], expected.gradients[i]),
        ):
            cut = whole[:, at].transpose(0, 1).numpy()
            np.testing.assert_allclose(found, cut, rtol=1e-4, atol=1e-5 * np.abs(cut).max())


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_batch_size_and_order_change_nothing(reduction: Reduction) -> None:
    """Independent: mathematical identities, a sum does not depend on its grouping or order."""
    model, sets = gpt2(), sets_of_three()
    whole = record(model, sets, reduction, batch_size=100)
    for batch_size in (1, 2, 5):
        other = record(model, sets, reduction, batch_size)
        assert relative_error(other.inner_products, whole.inner_products) < 1e-12
        for name in sets:
            ours, theirs = other.probes[name].gradients, whole.probes[name].gradients
            assert ours is not None
            assert theirs is not None
            np.testing.assert_allclose(ours, theirs, atol=1e-7)
    turned = record(model, {name: data[::-1] for name, data in sets.items()}, reduction)
    assert relative_error(turned.inner_products, whole.inner_products) < 1e-12
    for name in sets:
        np.testing.assert_allclose(turned.probes[name].loss[::-1], whole.probes[name].loss)


@pytest.mark.parametrize("make", [gpt2, lambda: llama(tied=True)])
def test_packed_rows_change_nothing(make: Callable[[], Any]) -> None:
    """Independent: an example's own numbers cannot depend on what shares its row."""
    model, sets = make(), sets_of_three()
    alone = record(model, sets, "example")
    together = record(model, sets, "example", 7, width=18)
    scale = np.abs(alone.inner_products).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(
        together.inner_products / scale, alone.inner_products / scale, atol=1e-5
    )
    for name in sets:
        one, other = alone.probes[name], together.probes[name]
        for field in ("offsets", "positions", "targets", "exact"):
            assert np.array_equal(getattr(one, field), getattr(other, field)), field
        for field in ("loss", "activations", "gradients"):
            expected = getattr(one, field)
            np.testing.assert_allclose(
                getattr(other, field), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
            )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradient_of_a_set_is_the_weighted_sum_of_its_examples(reduction: Reduction) -> None:
    """Independent: linearity of the gradient, with weights counted by hand from the labels."""
    model, data = gpt2(), examples(6, 0)
    singles = {str(i): [example] for i, example in enumerate(data)}
    found = record(model, {"whole": data, **singles}, reduction).inner_products
    counts = np.array([sum(label != IGNORED for label in e.labels) for e in data])
    weights = counts / counts.sum() if reduction == "token" else np.full(len(data), 1 / len(data))
    assert len(set(counts)) > 1  # else both reductions were the same
    np.testing.assert_allclose(
        found[:, 0, 0], np.einsum("i,mij,j->m", weights, found[:, 1:, 1:], weights), rtol=1e-10
    )
    norms = np.sqrt(np.einsum("mss->ms", found))
    error = found[:, 0, 1:] - np.einsum("i,mij->mj", weights, found[:, 1:, 1:])
    assert np.max(np.abs(error) / (norms[:, :1] * norms[:, 1:])) < 1e-10


def test_a_gradient_step_lowers_the_other_loss_by_the_inner_product() -> None:
    """Independent: finite differences of losses, no gradient is compared with a gradient."""
    model, sets = gpt2(), {"d_a": examples(7, 0), "d_b": examples(5, 1)}
    before = record(model, sets, "example")
    moved = {}
    for sign in (1, -1):
        stepped = copy.deepcopy(model)
        for name, gradient in oracle(model, sets["d_b"], "example").parameters.items():
            stepped.get_parameter(name).data -= sign * 1e-6 * gradient
        moved[sign] = record(stepped, sets, "example").probes["d_a"].loss.mean()
    slope = (moved[-1] - moved[1]) / 2e-6
    np.testing.assert_allclose(before.inner_products[:, 0, 1].sum(), slope, rtol=1e-5)
