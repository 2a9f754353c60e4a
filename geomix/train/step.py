"""One training step: the gradient of a batch's mean loss, source by source, and the update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from geomix.config import TrainConfig
from geomix.data.batch import Batch, chunks, collate, token_weights
from geomix.data.example import TokenisedExample
from geomix.model.gradient import Forward, backward_over, plain_forward
from geomix.model.load import LoadedModel
from geomix.model.loss import weighted_loss


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step saw.

    Attributes:
        loss: the batch's mean loss before the update, in nats; 0 for an empty batch.
        weights: share of each source in that mean; they sum to one.
        gradient_norm: euclidean norm of the gradient before clipping.
    """

    loss: float
    weights: dict[str, float]
    gradient_norm: float


def seed_dropout(seed: int, stage: int, step: int) -> None:
    """Make a step's dropout a function of the run's seed and the place: resuming needs no state."""
    drawn = np.random.SeedSequence([seed, stage, step, 0x44524F50]).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(drawn) >> 1)  # 63 bits: what every generator takes


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass: bfloat16 arithmetic on float32 weights, or nothing."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def row_width(config: TrainConfig, loaded: LoadedModel) -> int | None:
    """Width of packed rows as configured, where the model can have any, in tokens."""
    most = getattr(loaded.model.config, "max_position_embeddings", None)
    if config.pack is None or not loaded.packs:
        return None
    return config.pack if most is None else min(config.pack, int(most))


def training_forward(model: nn.Module, precision: str, device: torch.device) -> Forward:
    """The model's forward pass in the run's precision."""
    plain = plain_forward(model)

    def forward(batch: Batch) -> Tensor:
        with autocast(precision, device):
            return plain(batch)

    return forward


def training_step(
    forward: Forward,
    optimiser: torch.optim.Optimizer,
    sources: Mapping[str, Sequence[TokenisedExample]],
    config: TrainConfig,
    pad_id: int,
    device: torch.device,
    width: int | None = None,
) -> StepResult:
    """Take one optimiser step on a batch.

    Each forward pass holds examples of one source, whose weights are those of the whole batch's
    mean loss: the sum is that of one pass, and the share of each source can be read off.

    Args:
        forward: the model in training mode.
        optimiser: over the model's parameters, learning rate already set.
        sources: the batch's examples by set name; all empty (the control, by chance) is a step
            on a gradient of zero.
        config: loss reduction, clip and micro-batch size.
        pad_id: fills short rows.
        device: where the model is.
        width: of packed rows, see `geomix.data.batch.collate`.
    """
    everything = [example for examples in sources.values() for example in examples]
    weights = iter(token_weights(everything, config.loss) if everything else [])
    weighed = {
        name: [(example, next(weights)) for example in examples]
        for name, examples in sources.items()
    }
    loss = torch.zeros((), dtype=torch.float64, device=device)
    for pairs in weighed.values():
        batches = _micro_batches(pairs, config.micro_batch_size, pad_id, device, width)
        for batch, logits in backward_over(forward, batches):
            loss += weighted_loss(logits, batch).double()
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for parameter in parameters:
        if parameter.grad is None:  # so that momentum moves every step, whatever the batch holds
            parameter.grad = torch.zeros_like(parameter)
    norm = torch.nn.utils.clip_grad_norm_(
        parameters, float("inf") if config.clip is None else config.clip
    )
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return StepResult(
        loss=loss.item(),
        weights={name: sum(e.target_tokens * w for e, w in p) for name, p in weighed.items()},
        gradient_norm=norm.item(),
    )


def _micro_batches(
    pairs: Sequence[tuple[TokenisedExample, float]],
    size: int,
    pad_id: int,
    device: torch.device,
    width: int | None,
) -> Iterator[Batch]:
    for part in chunks(pairs, size):
        yield collate([e for e, _ in part], [w for _, w in part], pad_id, width).to(device)
