"""Per-example gradients of unusual modules and of a part of the parameters, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.gradients.capture import CaptureName
from geomix.gradients.example_products import gram_matrices, products_along
from geomix.gradients.per_example import PerExample
from geomix.gradients.rules import by_autograd
from geomix.models.forward import batches_of
from geomix.util.errors import UserError

from .alone import CPU, assert_same, batches, formed, one_by_one
from .architectures import ARCHITECTURES, VOCABULARY, Float64

BOTH: tuple[CaptureName, ...] = ("nnsight", "hooks")


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with Float64():
        yield


def test_frozen_parameters_are_left_out() -> None:
    model = ARCHITECTURES["qwen2"]().double()
    whole = one_by_one(model)
    for name, p in model.named_parameters():
        p.requires_grad_(
            name.endswith(("q_proj.bias", "layers.1.mlp.up_proj.weight", "norm.weight"))
        )
    examples = PerExample(model)
    assert 4 <= len(examples.parameters) < len(whole)
    assert_same(formed(examples, batches(4, 24)), {n: whole[n] for n in examples.parameters})


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_adapters() -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=3, target_modules=["q_proj", "up_proj", "lm_head"], task_type="CAUSAL_LM")
    model = get_peft_model(ARCHITECTURES["mistral"](), config).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2)))
    inner = model.base_model.model
    examples = PerExample(inner)
    assert all(".lora_" in name for name in examples.parameters)
    assert len(examples.parameters) == 2 * (2 * 2 + 1)
    assert_same(formed(examples, batches(4, 24)), one_by_one(inner))


def test_norms_whose_heads_come_before_their_tokens() -> None:
    """Phi's query and key norms see `(R, heads, T, d)`; T is the number of heads in one batch."""
    from transformers import PhiConfig, PhiForCausalLM

    config = PhiConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=4,
        qk_layernorm=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    model = PhiForCausalLM(config).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    ids = [tuple(range(2 + i, 6 + i)) for i in range(5)]
    short = [TokenisedExample(i, (IGNORED, *i[1:]), Example("p", "t")) for i in ids]
    given = list(batches_of(short, "token", 3, 0, CPU))
    assert given[0].ids.shape[1] == config.num_attention_heads
    assert_same(formed(PerExample(model), given), one_by_one(model, short))


class Odd(nn.Module):
    """Not a linear map in its weight: no rule fits."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 16))
        self.gain = nn.Parameter(torch.randn(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gain * (x @ self.weight.tanh()).tanh()


class Misleading(nn.Linear):
    """Looks like a linear map."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.square(), self.bias).tanh()


class Telling(nn.Module):
    """Gives out, besides its output, what led to it; as attention does its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 16))
        self.gain = nn.Parameter(torch.randn(16))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, None]:
        told = (x @ self.weight.tanh()).tanh().transpose(1, 2)
        return told, self.gain * told.transpose(1, 2), None


class Listening(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Telling()

    def forward(self, x: Tensor) -> Tensor:
        told: Tensor = self.inner(x)[1]
        return told


class Borrowing(nn.Module):
    """Uses the weight of a module that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        borrowed: Tensor = nn.functional.linear(x, self.inner.weight)
        return borrowed


class Twice(nn.Module):
    """Calls one module twice in a pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        twice: Tensor = self.inner(self.inner(x).tanh())
        return twice


def with_mlp(make: Callable[[], nn.Module]) -> Any:
    torch.manual_seed(0)
    model = ARCHITECTURES["llama"]()
    model.model.layers[0].mlp = make()
    return model.double()


@pytest.mark.parametrize(
    ("make", "where"),
    [(Odd, "mlp"), (partial(Misleading, 16, 16), "mlp"), (Listening, "mlp.inner")],
)
@pytest.mark.parametrize("capture", BOTH)
def test_what_no_rule_fits_has_its_own_backward_pass(
    capture: CaptureName, make: Callable[[], nn.Module], where: str
) -> None:
    model = with_mlp(make)
    examples = PerExample(model, capture=capture)
    slow = [path for path, rule in examples._rules.items() if rule is by_autograd]
    assert slow == [f"model.layers.0.{where}"]
    assert_same(formed(examples, batches(4, 24)), one_by_one(model))


@pytest.mark.parametrize("capture", BOTH)
def test_a_module_that_is_called_twice(capture: CaptureName) -> None:
    model = with_mlp(Twice)
    examples = PerExample(model, capture=capture)
    assert_same(formed(examples, batches(4, 24)), one_by_one(model))


def test_a_parameter_whose_gradients_cannot_be_had_is_refused_by_name() -> None:
    model = with_mlp(Borrowing)
    name = "model.layers.0.mlp.inner.weight"
    with pytest.raises(UserError, match=rf"{name} \(in Linear\)"):
        PerExample(model)
    assert all(p.grad is None for p in model.parameters())
    model.get_parameter(name).requires_grad_(False)
    model.model.layers[0].mlp.inner.bias.requires_grad_(False)
    assert_same(formed(PerExample(model), batches()), one_by_one(model))


def test_parameters_that_no_gradient_reaches_have_none() -> None:
    model = with_mlp(nn.Identity)
    model.model.layers[0].mlp.unused = nn.Linear(3, 3).double()
    examples = PerExample(model)
    found = formed(examples, batches())
    assert not found["model.layers.0.mlp.unused.weight"].any()
    assert not dict(gram_matrices(examples, batches()))["model.layers.0.mlp.unused.bias"].any()
    direction = {"model.layers.0.mlp.unused.bias": torch.ones(3)}
    assert not products_along(examples, batches(), direction).any()
