"""One step against the gradient of the mean loss, taken another way."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geomix.config.training import TrainConfig
from geomix.data.batch import collate
from geomix.data.example import TokenisedExample
from geomix.models.load import LoadedModel
from geomix.training.optimiser import make_optimiser
from geomix.training.step import Stepper, StepResult, row_width, seed_dropout, training_forward

CPU = torch.device("cpu")
Sources = Mapping[str, Sequence[TokenisedExample]]


@pytest.fixture
def model(loaded: LoadedModel) -> Any:
    return loaded.model.double().train()


@pytest.fixture
def sources(facts: list[TokenisedExample]) -> Sources:
    return {"D_A": facts[:5], "D_M": facts[5:12]}


def config(**keys: Any) -> TrainConfig:
    return TrainConfig.model_validate({"lr": 1e-2, "clip": None, **keys})


def step(
    model: Any,
    optimiser: torch.optim.Optimizer,
    sources: Sources,
    width: int | None = None,
    **keys: Any,
) -> StepResult:
    return Stepper(model, optimiser, config(**keys), 2, CPU, width).step(sources)


def sgd(model: Any) -> torch.optim.Optimizer:
    """With a learning rate of one, a step is the gradient itself."""
    return torch.optim.SGD(model.parameters(), lr=1.0)


def moved(model: Any, sources: Sources, **keys: Any) -> list[Tensor]:
    """The gradient that a step takes."""
    trained = copy.deepcopy(model)
    step(trained, sgd(trained), sources, **keys)
    return [
        (old - new).detach()
        for old, new in zip(model.parameters(), trained.parameters(), strict=True)
    ]


def mean_gradient(model: Any, examples: Sequence[TokenisedExample], loss: str) -> list[Tensor]:
    """Each example alone and unpadded; the mean as the definition of the reduction says."""
    total = sum(e.target_tokens for e in examples)
    losses = []
    for example in examples:
        logits = model(input_ids=torch.tensor([example.ids])).logits[0, :-1]
        mean = torch.nn.functional.cross_entropy(logits, torch.tensor(example.labels[1:]))
        losses.append(
            mean * (example.target_tokens / total if loss == "token" else 1 / len(examples))
        )
    return list(torch.autograd.grad(torch.stack(losses).sum(), list(model.parameters())))


def assert_same(one: Sequence[Tensor], other: Sequence[Tensor], tolerance: float = 1e-10) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("loss", ["token", "example"])
@pytest.mark.parametrize("width", [None, 1, 64, 200])
@pytest.mark.parametrize("micro", [1, 2, 3, 128])
def test_single_source_micro_batches_sum_to_the_gradient_of_the_batch(
    model: Any, sources: Sources, loss: str, micro: int, width: int | None
) -> None:
    everything = [example for examples in sources.values() for example in examples]
    expected = mean_gradient(model, everything, loss)
    assert_same(moved(model, sources, width=width, loss=loss, micro_batch_size=micro), expected)


def test_no_forward_pass_mixes_sources(model: Any, sources: Sources) -> None:
    known = {name: {e.ids for e in examples} for name, examples in sources.items()}
    seen: list[tuple[str, int]] = []

    class Watched(nn.Module):
        def forward(self, input_ids: Tensor, **others: Any) -> Any:
            rows = {tuple(row) for row in input_ids.tolist()}
            (source,) = [
                name
                for name, texts in known.items()
                if all(any(row[: len(text)] == text for text in texts) for row in rows)
            ]
            seen.append((source, len(input_ids)))
            return model(input_ids=input_ids, **others)

    keys = config(micro_batch_size=4)
    Stepper(model, sgd(model), keys, 2, CPU, through=Watched()).step(sources)
    assert seen == [("D_A", 4), ("D_A", 1), ("D_M", 4), ("D_M", 3)]


def test_micro_batches_do_not_change_adamw(model: Any, sources: Sources) -> None:
    ends = []
    for micro in (1, 3, 128):
        trained = copy.deepcopy(model)
        optimiser = make_optimiser(trained, config())
        for _ in range(3):
            step(trained, optimiser, sources, micro_batch_size=micro)
        ends.append(list(trained.parameters()))
    # Adam divides by the square root of v̂, so rounding grows where a gradient is near zero.
    assert_same(ends[0], ends[2], 1e-8)
    assert_same(ends[1], ends[2], 1e-8)
    assert not torch.equal(next(model.parameters()), ends[0][0])


@pytest.mark.parametrize("loss", ["token", "example"])
def test_realised_weights_and_loss_by_hand(model: Any, sources: Sources, loss: str) -> None:
    result = step(model, sgd(model), sources, loss=loss)
    tokens = {name: sum(e.target_tokens for e in part) for name, part in sources.items()}
    counts = tokens if loss == "token" else {name: len(part) for name, part in sources.items()}
    total = sum(counts.values())
    assert result.weights == pytest.approx({name: n / total for name, n in counts.items()})
    everything = [*sources["D_A"], *sources["D_M"]]
    assert (result.examples, result.tokens) == (12, sum(len(e.ids) for e in everything))


def test_the_loss_is_the_one_before_the_update(model: Any, sources: Sources) -> None:
    result = step(copy.deepcopy(model), sgd(model), sources, loss="example")
    losses = []
    for example in [*sources["D_A"], *sources["D_M"]]:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([example.ids])).logits[0, :-1]
        labels = torch.tensor(example.labels[1:])
        losses.append(torch.nn.functional.cross_entropy(logits, labels).item())
    assert result.loss == pytest.approx(sum(losses) / len(losses), rel=1e-10)


def test_clipping_scales_the_whole_gradient(model: Any, sources: Sources) -> None:
    free = moved(model, sources, loss="token")
    norm = torch.cat([g.flatten() for g in free]).norm().item()
    clipped = moved(model, sources, loss="token", clip=norm / 4)
    assert_same(clipped, [g / 4 for g in free], 1e-6)
    assert_same(moved(model, sources, loss="token", clip=norm * 4), free)
    assert step(model, sgd(model), sources, clip=norm / 4).gradient_norm == pytest.approx(norm)


def test_gradients_are_gone_after_a_step(model: Any, sources: Sources) -> None:
    step(model, sgd(model), sources)
    assert all(p.grad is None for p in model.parameters())


def test_an_empty_batch_is_a_step_on_a_gradient_of_zero(model: Any, sources: Sources) -> None:
    """AdamW's own formula: β₁ m / √(β₂ v), both corrected for their bias, moves the weights on."""
    optimiser = make_optimiser(model, config(betas=(0.9, 0.95)))
    step(model, optimiser, sources)
    parameter = next(p for p in model.parameters() if p.requires_grad)
    before = parameter.detach().clone()
    m, v = (optimiser.state[parameter][key].clone() for key in ("exp_avg", "exp_avg_sq"))
    result = step(model, optimiser, {"D_A": [], "D_M": []})
    assert (result.loss, result.gradient_norm) == (0, 0)
    assert result.weights == {"D_A": 0, "D_M": 0}
    change = 0.9 * m / (1 - 0.9**2) / ((0.95 * v / (1 - 0.95**2)).sqrt() + 1e-8)
    torch.testing.assert_close(parameter.detach(), before - 1e-2 * change, rtol=1e-9, atol=1e-12)
    assert optimiser.state[parameter]["step"] == 2


def test_an_empty_batch_may_be_the_first(model: Any) -> None:
    before = [p.detach().clone() for p in model.parameters()]
    step(model, make_optimiser(model, config()), {"D_A": []})
    assert_same(list(model.parameters()), before, 0)


def test_one_source_may_be_empty(model: Any, sources: Sources) -> None:
    alone = moved(model, {"D_A": sources["D_A"]})
    assert_same(moved(model, {"D_A": sources["D_A"], "D_M": []}), alone, 0)


def test_bf16_computes_in_bfloat16_on_single_precision_weights(
    loaded: LoadedModel, sources: Sources
) -> None:
    model = loaded.model.train()
    forward = training_forward(model, "bf16", CPU)
    assert forward(collate(sources["D_A"][:1], [1.0], 2)).dtype == torch.bfloat16
    exact = step(copy.deepcopy(model), sgd(model), sources)
    rounded = step(model, sgd(model), sources, precision="bf16")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert rounded.loss == pytest.approx(exact.loss, rel=2e-2)
    assert rounded.loss != exact.loss


def test_a_steps_dropout_is_a_function_of_seed_stage_and_step() -> None:
    def drawn(*place: int) -> list[float]:
        seed_dropout(*place)
        return torch.rand(4).tolist()

    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    first = [drawn(*place) for place in places]
    assert first == [drawn(*place) for place in places]
    assert len({tuple(numbers) for numbers in first}) == len(places)


def test_each_process_draws_its_own_dropout() -> None:
    """The first one draws what a single process does."""

    def drawn(*place: int) -> float:
        seed_dropout(*place)
        return float(torch.rand(()))

    assert drawn(5, 1, 2) == drawn(5, 1, 2, 0)
    assert len({drawn(5, 1, 2, rank) for rank in range(4)}) == 4


@pytest.mark.parametrize(("pack", "width"), [(100, 100), (1000, 256), (None, None)])
def test_packed_rows_are_no_wider_than_the_model_takes(
    loaded: LoadedModel, pack: int | None, width: int | None
) -> None:
    """The tiny model has 256 places."""
    assert row_width(config(pack=pack), loaded) == width
