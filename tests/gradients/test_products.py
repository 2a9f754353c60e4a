"""Products against dense second derivatives of a loss that is written out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geomix.gradients.differences import difference_product
from geomix.gradients.products import exchange
from geomix.gradients.vectors import dot, minus, norm, scaled
from tests.recording.architectures import Float64

Make = Callable[..., Any]
REDUCTIONS = ("token", "example")


def assert_equal_by_tensor(found: Any, expected: Any, relative: float = 1e-9) -> None:
    """By tensor: a norm over all would hide an error in one block. Tensors of 0 are compared so."""
    largest = max(float(t.norm()) for t in expected.values())
    assert set(found) == set(expected)
    for name, one in expected.items():
        error = float((found[name] - one).norm())
        assert error <= relative * max(float(one.norm()), 1e-6 * largest), name


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_products_are_those_of_the_dense_hessian(
    make_tiny: Make, name: str, reduction: str
) -> None:
    """Tied weights, LayerNorm and RMSNorm, ragged examples, by one batch and by several."""
    tiny = make_tiny(name, reduction)
    assert sum(p.numel() for p in tiny.parameters.values()) < 1000
    with Float64():
        dense, v = tiny.hessian, tiny.direction(0)
        expected = tiny.split(dense @ torch.cat([t.reshape(-1) for t in v.values()]))
        for batch_size in (99, 2):
            objective = tiny.objective(batch_size)
            assert_equal_by_tensor(objective.hessian_product(v), expected)
            with objective.kept() as products:
                assert_equal_by_tensor(products.hessian(v), expected)
                again = products.hessian(v)
                assert_equal_by_tensor(again, expected)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_loss_and_gradient_are_those_of_the_definition(make_tiny: Make, reduction: str) -> None:
    tiny = make_tiny("gpt2", reduction)
    weights = {n: t.requires_grad_() for n, t in tiny.weights().items()}
    loss = tiny.loss(weights)
    expected = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
    for batch_size in (99, 2):
        objective = tiny.objective(batch_size)
        found, gradient = objective.loss_and_gradient()
        assert found == pytest.approx(loss.item(), rel=1e-12)
        assert objective.loss() == pytest.approx(loss.item(), rel=1e-12)
        assert_equal_by_tensor(gradient, expected)
    assert all(p.grad is None for p in tiny.model.parameters())


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_gauss_newton_is_its_definition(make_tiny: Make, name: str, reduction: str) -> None:
    tiny = make_tiny(name, reduction)
    v = tiny.direction(1)
    flat = torch.cat([p.detach().reshape(-1) for p in tiny.parameters.values()])
    direction = torch.cat([t.reshape(-1) for t in v.values()])
    dense: Any = torch.autograd.functional.jacobian
    total, tokens = torch.zeros_like(flat), sum(e.target_tokens for e in tiny.data)
    with Float64():
        for example in tiny.data:

            def logits(x: Tensor, example: Any = example) -> Tensor:
                found: Tensor = tiny.logits(tiny.split(x), example)
                return found

            jacobian = dense(logits, flat)
            count = example.target_tokens
            weight = 1 / tokens if reduction == "token" else 1 / (len(tiny.data) * count)
            for p, j in zip(logits(flat).softmax(-1), jacobian, strict=True):
                total += weight * j.T @ ((torch.diag(p) - torch.outer(p, p)) @ (j @ direction))
        expected = tiny.split(total)
        for batch_size in (99, 2):
            objective = tiny.objective(batch_size)
            assert_equal_by_tensor(objective.gauss_newton_product(v), expected)
            with objective.kept() as products:
                assert_equal_by_tensor(products.gauss_newton(v), expected)
    assert dot(v, expected) > 0


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gauss_newton_is_the_hessian_of_logistic_regression(
    make_tiny: Make, reduction: str
) -> None:
    tiny = make_tiny("logistic", reduction)
    objective, v = tiny.objective(), tiny.direction(0)
    assert_equal_by_tensor(objective.gauss_newton_product(v), objective.hessian_product(v))


def test_products_are_linear_and_symmetric(make_tiny: Make) -> None:
    tiny = make_tiny("gpt2")
    u, v = tiny.direction(0), tiny.direction(1)
    with tiny.objective().kept() as products:
        for product in (products.hessian, products.gauss_newton):
            hu, hv = product(u), product(v)
            bound = 1e-7 * norm(u) * norm(hv)
            assert abs(dot(u, hv) - dot(v, hu)) <= bound
            mixed = product({n: 2 * u[n] - 3 * v[n] for n in u})
            assert_equal_by_tensor(mixed, {n: 2 * hu[n] - 3 * hv[n] for n in hu})


def test_a_part_of_a_vector_is_0_elsewhere(make_tiny: Make) -> None:
    """A block of the Hessian is asked for by the tensors of the block alone."""
    tiny = make_tiny("gpt2")
    v = tiny.direction(0)
    name = next(iter(v))
    padded = {n: t if n == name else torch.zeros_like(t) for n, t in v.items()}
    objective = tiny.objective()
    assert_equal_by_tensor(
        objective.hessian_product({name: v[name]}), objective.hessian_product(padded)
    )


def test_central_differences_of_gradients(make_tiny: Make) -> None:
    """To 1e-9 in float64, by Richardson's extrapolation of two steps."""
    tiny = make_tiny("gpt2")
    objective, v, here = tiny.objective(), tiny.direction(3), tiny.weights()
    v = scaled(v, 1 / norm(v))

    def difference(step: float) -> dict[str, Tensor]:
        ends = []
        for sign in (1, -1):
            exchange(tiny.parameters, {n: here[n] + sign * step * v[n] for n in here})
            ends.append(objective.gradient())
        exchange(tiny.parameters, here)
        return scaled(minus(*ends), 1 / (2 * step))

    # errors of h², h⁴ cancel
    one, two, four = (difference(step) for step in (5e-4, 1e-3, 2e-3))
    found = {n: (64 * one[n] - 20 * two[n] + four[n]) / 45 for n in one}
    product = objective.hessian_product(v)
    assert_equal_by_tensor(product, found)


class _Moved:
    """Weights of a tiny model."""

    def __init__(self, parameters: dict[str, nn.Parameter]) -> None:
        self.parameters = parameters

    def here(self) -> dict[str, Tensor]:
        return {name: p.data for name, p in self.parameters.items()}

    def move_to(self, weights: Any) -> None:
        exchange(self.parameters, weights)


def test_differences_say_how_far_they_are_to_be_trusted(make_tiny: Make) -> None:
    tiny = make_tiny("gpt2")
    objective, v = tiny.objective(), tiny.direction(4)
    before = tiny.weights()
    found = difference_product(objective, _Moved(tiny.parameters), v)
    assert_equal_by_tensor(found.product, objective.hessian_product(v), 1e-5)
    assert 0 < found.disagreement < 1e-5
    coarse = difference_product(objective, _Moved(tiny.parameters), v, (1e-3, 0.3))
    assert coarse.disagreement > 1e-2
    assert all(torch.equal(before[n], p) for n, p in tiny.parameters.items())


def test_kept_products_stay_those_of_their_weights(make_tiny: Make) -> None:
    """Also where a graph looks its leaves' data up anew: norms and embeddings."""
    for batch_size in (99, 2):
        tiny = make_tiny("gpt2")
        v, here = tiny.direction(0), tiny.weights()
        objective = tiny.objective(batch_size)
        with objective.kept() as products:
            before = products.hessian(v), products.gauss_newton(v)
            moved = {n: t + 0.3 for n, t in here.items()}
            exchange(tiny.parameters, moved)
            after = products.hessian(v), products.gauss_newton(v)
            assert all(
                p.data is moved[n] or torch.equal(p, moved[n]) for n, p in tiny.parameters.items()
            )
        for one, other in zip(before, after, strict=True):
            assert all(torch.equal(one[n], other[n]) for n in one)
        assert norm(minus(objective.hessian_product(v), before[0])) > 0.1 * norm(before[0])
        exchange(tiny.parameters, here)


def _norms(model: Any) -> dict[str, Any]:
    """Every LayerNorm and RMSNorm by its name."""
    return {n: m for n, m in model.named_modules() if "norm" in type(m).__name__.lower()}


def _forgets(norm_: Any) -> Any:
    """A norm whose first derivatives are right and second ones are not: its scale is a constant."""
    centred = hasattr(norm_, "bias")
    eps = norm_.eps if centred else norm_.variance_epsilon

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            found: Tensor = scaled_(x)
            return found

        @staticmethod
        def backward(ctx: Any, *given: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                (found,) = torch.autograd.grad(scaled_(leaf), leaf, given[0], create_graph=True)
            constant: Tensor = found  # x itself is not in its graph
            return constant

    def scaled_(x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True) if centred else x
        found: Tensor = x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()
        return found

    def forward(x: Tensor) -> Tensor:
        found: Tensor = Wrong.apply(x)  # type: ignore[no-untyped-call]
        return torch.addcmul(norm_.bias if centred else torch.zeros(()), found, norm_.weight)

    return forward


@pytest.mark.parametrize(
    ("name", "norm_"),
    [
        ("gpt2", "transformer.h.0.ln_1"),
        ("gpt2", "transformer.h.0.ln_2"),
        ("gpt2", "transformer.ln_f"),
        ("llama", "model.layers.0.input_layernorm"),
        ("llama", "model.layers.0.post_attention_layernorm"),
        ("llama", "model.norm"),
    ],
)
def test_a_planted_error_in_one_norm_is_found(
    make_tiny: Make, name: str, norm_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient stays right, so that only second derivatives can tell."""
    with Float64():
        tiny = make_tiny(name)
        norms = _norms(tiny.model)
        assert len(norms) == 3
        dense, v = tiny.hessian, tiny.direction(0)
        expected = tiny.split(dense @ torch.cat([t.reshape(-1) for t in v.values()]))
        gradient = tiny.objective().gradient()
        monkeypatch.setattr(norms[norm_], "forward", _forgets(norms[norm_]))
        assert_equal_by_tensor(tiny.objective().gradient(), gradient)
        with pytest.raises(AssertionError, match=r"weight|bias"):
            assert_equal_by_tensor(tiny.objective().hessian_product(v), expected)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_single_precision_is_near_double(make_tiny: Make, name: str) -> None:
    """To 2e-4 of each tensor; a repeated product is the same to the bit."""
    tiny = make_tiny(name)
    with Float64():
        expected = tiny.objective().hessian_product(tiny.direction(0))
    single = copy.deepcopy(tiny.model).float()
    rough = replace(tiny, model=single)
    v = {n: t.float() for n, t in tiny.direction(0).items()}
    with rough.objective().kept() as products:
        found, again = products.hessian(v), products.hessian(v)
    assert all(torch.equal(found[n], again[n]) for n in found)
    assert all(t.dtype == torch.float32 for t in found.values())
    assert_equal_by_tensor({n: t.double() for n, t in found.items()}, expected, 2e-4)
