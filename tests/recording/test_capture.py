"""Capture of the residual stream by nnsight and by torch hooks."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geomix.data.batch import collate
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.gradients.capture import CAPTURES, CaptureName, NNsightCapture
from geomix.models.forward import backward_over, batches_of, plain_forward

Make = Callable[[], Any]
Examples = Callable[[int, int], list[TokenisedExample]]
BOTH: tuple[CaptureName, ...] = ("nnsight", "hooks")


def captured(
    name: CaptureName, model: nn.Module, examples: Sequence[TokenisedExample]
) -> list[tuple[Tensor, list[Tensor], list[Tensor]]]:
    """Logits, activations and gradients of each batch of two."""
    batches = batches_of(examples, "token", 2, 0, torch.device("cpu"))
    with CAPTURES[name](model) as forward:
        return [
            (logits, forward.activations, forward.gradients)
            for _, logits in backward_over(forward, batches)
        ]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_nnsight_and_hooks_agree_bit_for_bit(
    kind: str, request: pytest.FixtureRequest, examples: Examples
) -> None:
    make: Make = request.getfixturevalue(kind)
    models: dict[str, Any] = {name: make().eval() for name in BOTH}
    records = {name: captured(name, models[name], examples(5, 0)) for name in BOTH}
    for ours, theirs in zip(records["nnsight"], records["hooks"], strict=True):
        assert torch.equal(ours[0], theirs[0])
        for i in (1, 2):
            assert len(ours[i]) == len(theirs[i]) >= 3
            assert all(torch.equal(a, b) for a, b in zip(ours[i], theirs[i], strict=True))
    for one, other in zip(
        models["nnsight"].parameters(), models["hooks"].parameters(), strict=True
    ):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("name", BOTH)
def test_capturing_does_not_change_logits_or_gradients(
    name: CaptureName, llama: Make, examples: Examples
) -> None:
    model, bare = llama().eval(), llama().eval()
    batches = batches_of(examples(5, 0), "token", 2, 0, torch.device("cpu"))
    plain = [logits for _, logits in backward_over(plain_forward(bare), batches)]
    for (logits, _, _), expected in zip(captured(name, model, examples(5, 0)), plain, strict=True):
        assert torch.equal(logits, expected)
    for parameter, expected_p in zip(model.parameters(), bare.parameters(), strict=True):
        assert parameter.grad is not None
        assert expected_p.grad is not None
        assert torch.equal(parameter.grad, expected_p.grad)


@pytest.mark.parametrize("name", BOTH)
def test_nothing_stays_on_the_model(name: CaptureName, gpt2: Make, examples: Examples) -> None:
    model = gpt2()
    before = [set(vars(module)) for module in model.modules()]
    with pytest.raises(KeyError), CAPTURES[name](model):
        raise KeyError  # whichever way the block ends
    captured(name, model, examples(2, 0))
    assert [set(vars(module)) for module in model.modules()] == before
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert type(module).forward == module.forward.__func__


def test_nnsight_leaves_a_replaced_forward_in_place(llama: Make, examples: Examples) -> None:
    model = llama()
    mlp = model.model.layers[0].mlp
    calls = []
    original = mlp.forward

    def forward(hidden: Tensor) -> Tensor:
        calls.append(1)
        result: Tensor = original(hidden)
        return result

    mlp.forward = forward
    captured("nnsight", model, examples(2, 0))
    assert calls
    assert mlp.forward is forward


def test_batches_leave_no_tensor_behind_even_without_garbage_collection(
    llama: Make, examples: Examples
) -> None:
    model = llama()
    batches = batches_of(examples(6, 0), "token", 2, 0, torch.device("cpu"))
    seen: list[weakref.ref[Tensor]] = []
    gc.disable()
    try:
        with NNsightCapture(model) as forward:
            for batch, logits in backward_over(forward, batches):
                seen.append(weakref.ref(forward._residuals[1]))
                del batch, logits
                assert [ref() is not None for ref in seen] == [False] * (len(seen) - 1) + [True]
        assert all(ref() is None for ref in seen)
    finally:
        gc.enable()


@pytest.mark.parametrize("name", BOTH)
def test_gradients_before_backward_are_refused(
    name: CaptureName, llama: Make, examples: Examples
) -> None:
    with CAPTURES[name](llama()) as forward:
        forward(collate(examples(1, 0), [1.0], 0))
        with pytest.raises(RuntimeError, match="no gradient yet"):
            _ = forward.gradients


class TupleLayer(nn.Module):
    """A layer of the old kind: called by keyword, returns its hidden state in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, hidden_states: Tensor, scale: float) -> tuple[Tensor, None]:
        return hidden_states + scale * self.linear(hidden_states).tanh(), None


class TupleModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.layers = nn.ModuleList([TupleLayer(), TupleLayer()])
        self.head = nn.Linear(4, 9, bias=False)
        self.head.weight = self.embed.weight

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: Tensor, use_cache: bool) -> Any:
        assert not use_cache
        hidden = self.embed(input_ids)
        for layer in self.layers:
            hidden = layer(hidden_states=hidden, scale=0.5)[0]
        return SimpleNamespace(logits=self.head(hidden))


@pytest.mark.parametrize("name", BOTH)
def test_layers_that_return_tuples_and_take_keywords(name: CaptureName) -> None:
    torch.manual_seed(0)
    model = TupleModel()
    ids = torch.tensor([[2, 3, 4], [5, 6, 7]])
    whole = [
        TokenisedExample(tuple(row), (IGNORED, *row[1:]), Example("p", "t")) for row in ids.tolist()
    ]
    with CAPTURES[name](model) as forward:
        torch.autograd.backward(forward(collate(whole, [1.0, 1.0], 0)).square().sum())
        activations, gradients = forward.activations, forward.gradients
    assert [tuple(a.shape) for a in activations + gradients] == [(2, 3, 4)] * 6
    assert torch.equal(activations[0], model.embed(ids))
    assert torch.equal(activations[2], model.layers[1](activations[1], 0.5)[0])
    # d/dh of the squared norm of E h, written down by hand
    weight = model.embed.weight
    expected = 2 * activations[2] @ weight.T @ weight
    expected[:, -1] = 0  # the last token predicts nothing
    torch.testing.assert_close(gradients[2], expected)


@pytest.mark.parametrize("name", BOTH)
def test_frozen_embeddings_still_give_the_gradient_of_the_first_input(
    name: CaptureName, gpt2: Make, examples: Examples
) -> None:
    expected = captured(name, gpt2().eval(), examples(2, 0))
    model = gpt2().eval()
    model.transformer.wte.weight.requires_grad_(False)
    model.transformer.wpe.weight.requires_grad_(False)
    frozen = captured(name, model, examples(2, 0))
    assert torch.equal(frozen[0][2][0], expected[0][2][0])


def test_nnsight_is_imported_only_to_record_and_does_not_read_the_command_line() -> None:
    code = """
import sys
sys.argv = ["geomix", "-v"]
import torch
from torch import nn
import geomix.recording.recorder
from geomix.gradients.capture import HooksCapture, NNsightCapture
model = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(2, 2)])})
with HooksCapture(model):
    pass
assert "nnsight" not in sys.modules
with NNsightCapture(model):
    pass
from nnsight.schema.config import CONFIG
assert not CONFIG.APP.DEBUG
assert sys.argv == ["geomix", "-v"]
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
