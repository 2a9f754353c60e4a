"""Gradients, inner products and cosines against closed forms, tensor by tensor, in float64.

The oracles are the formulas of two models that need no autograd: linear regression by least
squares, ∇w = Xᵀ(Xw + c − y)/n and ∇c = mean(Xw + c − y); and logistic regression, where the
sigmoid's error stands for the residual. They are written with numpy from the data alone.
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geomix.data.batch import Reduction
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.gradients.inner_products import (
    adam_metric,
    inner_products,
    take_gradients,
    trainable_parameters,
    undisturbed,
)
from geomix.measures.cosine import cosines, group_inner_products, norms
from geomix.models.forward import backward_over, batches_of, plain_forward

FEATURES = 5
Floats = NDArray[np.float64]
Gradient = dict[str, Floats]
"""By parameter, flat."""


def by_hand(sets: list[Gradient], weight: Gradient | None = None) -> Floats:
    """Inner products by parameter and pair of sets, each a sum over elements."""
    names = list(sets[0])
    weights = weight or {name: np.ones_like(sets[0][name]) for name in names}
    return np.array(
        [[[(a[n] * weights[n] * b[n]).sum() for b in sets] for a in sets] for n in names]
    )


def check_geometry(taken: list[list[Tensor | None]], oracle: list[Gradient]) -> None:
    """Inner products, norms and cosines, by tensor and of all tensors together."""
    expected = by_hand(oracle)
    found = inner_products(taken)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    whole = [np.concatenate([g.ravel() for g in one.values()]) for one in oracle]
    together = group_inner_products(found, np.zeros(len(found), dtype=np.int64))[0]
    for i, a in enumerate(whole):
        assert norms(together)[i] == pytest.approx(np.linalg.norm(a), rel=1e-12)
        for j, b in enumerate(whole):
            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            assert cosines(together)[i, j] == pytest.approx(cosine, abs=1e-12)
    for m, name in enumerate(oracle[0]):
        for i, one in enumerate(oracle):
            for j, other in enumerate(oracle):
                a, b = one[name].ravel(), other[name].ravel()
                cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                assert cosines(found)[m, i, j] == pytest.approx(cosine, abs=1e-12)


# --- linear regression -------------------------------------------------------------------------


def linear_gradient(x: Floats, y: Floats, w: Floats, c: float) -> Gradient:
    residual = x @ w + c - y
    return {"weight": x.T @ residual / len(y), "bias": np.array([residual.mean()])}


@pytest.fixture
def regression() -> tuple[nn.Linear, list[tuple[Floats, Floats]]]:
    """A linear model, and three data sets of different sizes."""
    rng = np.random.default_rng(1)
    model = nn.Linear(FEATURES, 1, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(rng.normal(size=(1, FEATURES))))
        model.bias.copy_(torch.from_numpy(rng.normal(size=1)))
    return model, [(rng.normal(size=(n, FEATURES)), rng.normal(size=n)) for n in (7, 4, 11)]


def least_squares(model: nn.Linear, x: Floats, y: Floats) -> list[Tensor | None]:
    with undisturbed(model):
        error = model(torch.from_numpy(x))[:, 0] - torch.from_numpy(y)
        torch.autograd.backward((error**2).mean() / 2)
        return take_gradients(trainable_parameters(model))


def linear_oracle(model: nn.Linear, sets: list[tuple[Floats, Floats]]) -> list[Gradient]:
    w, c = model.weight.detach().numpy()[0], float(model.bias.detach())
    return [linear_gradient(x, y, w, c) for x, y in sets]


def test_linear_regression(regression: tuple[nn.Linear, list[tuple[Floats, Floats]]]) -> None:
    """Independent: Xᵀ(Xw + c − y)/n."""
    model, sets = regression
    taken = [least_squares(model, x, y) for x, y in sets]
    oracle = linear_oracle(model, sets)
    for gradients, one in zip(taken, oracle, strict=True):
        for tensor, (name, expected) in zip(gradients, one.items(), strict=True):
            assert tensor is not None, name
            np.testing.assert_allclose(tensor.numpy().ravel(), expected, rtol=1e-12)
    check_geometry(taken, oracle)


def test_a_set_at_its_least_squares_solution_has_no_angle(
    regression: tuple[nn.Linear, list[tuple[Floats, Floats]]],
) -> None:
    """Independent: the normal equations, solved by numpy, make that set's gradient vanish."""
    model, sets = regression
    x, y = sets[2]
    solution = np.linalg.lstsq(np.column_stack([x, np.ones(len(y))]), y, rcond=None)[0]
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(solution[None, :-1]))
        model.bias.copy_(torch.from_numpy(solution[-1:]))
    found = inner_products([least_squares(model, *data) for data in sets]).sum(axis=0)
    assert norms(found)[2] < 1e-14
    assert norms(found)[:2].min() > 0.1


def test_linear_regression_in_adams_metric(
    regression: tuple[nn.Linear, list[tuple[Floats, Floats]]],
) -> None:
    """Independent: the sum over elements of a·b/(√v + ε), written out."""
    model, sets = regression
    rng = np.random.default_rng(2)
    moments = {"weight": rng.uniform(0, 4, FEATURES), "bias": rng.uniform(0, 4, 1)}
    taken = [least_squares(model, x, y) for x, y in sets]
    metric = [adam_metric(torch.from_numpy(v), 0.1) for v in moments.values()]
    weight = {name: 1 / (np.sqrt(v) + 0.1) for name, v in moments.items()}
    expected = by_hand(linear_oracle(model, sets), weight)
    np.testing.assert_allclose(inner_products(taken, metric), expected, rtol=1e-12)


# --- logistic regression -----------------------------------------------------------------------


class Logistic(nn.Module):
    """The head: logits 0 and w·x + c of two classes, whose softmax is a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(FEATURES, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """`(P, FEATURES)` to `(P, 2)`."""
        z = x @ self.weight + self.bias
        return torch.stack([torch.zeros_like(z), z], dim=-1)


class Classifier(nn.Module):
    """Logistic regression in the shape of a causal LM: a token is a row of trained features."""

    def __init__(self, features: Floats, w: Floats, c: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(features), FEATURES, dtype=torch.float64)
        self.head = Logistic()
        with torch.no_grad():
            self.embedding.weight.copy_(torch.from_numpy(features))
            self.head.weight.copy_(torch.from_numpy(w))
            self.head.bias.fill_(c)

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: Tensor, **_: Any) -> Any:
        return SimpleNamespace(logits=self.head(self.embedding(input_ids)))


def labelled(count: int, seed: int) -> list[TokenisedExample]:
    """Some tokens and then classes, each predicted from the token before it; unlike lengths."""
    choose = random.Random(seed)
    made = []
    for _ in range(count):
        prompt = [choose.randrange(2, 9) for _ in range(choose.randint(1, 3))]
        classes = [choose.randrange(2) for _ in range(choose.randint(1, 4))]
        labels = (IGNORED,) * len(prompt) + tuple(classes)
        made.append(TokenisedExample((*prompt, *classes), labels, Example("p", "t")))
    return made


def logistic_gradient(
    data: list[TokenisedExample], features: Floats, w: Floats, c: float, reduction: Reduction
) -> Gradient:
    """Σ of weight · (σ(w·x + c) − y) · x, and that with w in the features' rows."""
    total = sum(len([t for t in e.labels if t != IGNORED]) for e in data)
    found = {"embedding": np.zeros_like(features), "weight": np.zeros(FEATURES)}
    bias = 0.0
    for example in data:
        own = [t for t, label in enumerate(example.labels) if label != IGNORED]
        weight = 1 / total if reduction == "token" else 1 / (len(data) * len(own))
        for t in own:
            x = features[example.ids[t - 1]]
            error = weight * (1 / (1 + np.exp(-(w @ x + c))) - example.labels[t])
            found["embedding"][example.ids[t - 1]] += error * w
            found["weight"] += error * x
            bias += error
    return found | {"bias": np.array([bias])}


@pytest.mark.parametrize("reduction", ["token", "example"])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_logistic_regression_as_a_set_is_run(reduction: Reduction, batch_size: int) -> None:
    """Independent: the sigmoid's error times the features, summed token by token."""
    rng = np.random.default_rng(4)
    features, w, c = rng.normal(size=(9, FEATURES)), rng.normal(size=FEATURES), 0.3
    model = Classifier(features, w, c)
    sets = [labelled(9, 0), labelled(6, 1), labelled(5, 2)]
    parameters = trainable_parameters(model)
    assert list(parameters) == ["embedding.weight", "head.weight", "head.bias"]
    taken: list[list[Tensor | None]] = []
    for data in sets:
        with undisturbed(model):
            batches = batches_of(data, reduction, batch_size, 0, torch.device("cpu"))
            for _ in backward_over(plain_forward(model), batches):
                pass
            taken.append(take_gradients(parameters))
    oracle = [logistic_gradient(data, features, w, c, reduction) for data in sets]
    for gradients, one in zip(taken, oracle, strict=True):
        for tensor, (name, expected) in zip(gradients, one.items(), strict=True):
            assert tensor is not None, name
            np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-12, atol=1e-15)
    check_geometry(taken, oracle)


def test_logistic_regression_on_separate_tokens_is_orthogonal_where_they_are_looked_up() -> None:
    """By hand: two examples, opposite classes of one feature vector, so ∇w are antiparallel."""
    features = np.ones((4, FEATURES))
    w, c = np.full(FEATURES, 0.2), 0.0
    model = Classifier(features, w, c)
    parameters = trainable_parameters(model)
    taken = []
    for token, label in ((2, 0), (3, 1)):
        data = [TokenisedExample((token, label), (IGNORED, label), Example("p", "t"))]
        batches = batches_of(data, "example", 1, 0, torch.device("cpu"))
        with undisturbed(model):
            list(backward_over(plain_forward(model), batches))
            taken.append(take_gradients(parameters))
    cosine = cosines(inner_products(taken))[:, 0, 1]
    assert cosine[0] == 0
    assert cosine[1:] == pytest.approx([-1, -1], abs=1e-15)
