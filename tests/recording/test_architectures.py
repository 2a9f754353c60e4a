"""Records of each family of models, against plain autograd in float64.

The oracle runs one unpadded example at a time through the model's own forward pass, takes the
residual stream from transformers' `output_hidden_states` (but for the last layer's output, which
transformers gives behind the final norm) and differentiates a loss that is written out here. It
shares no batch, no hook of the recorder and no backward pass with what it judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from geomix.data.example import IGNORED, TokenisedExample
from geomix.gradients.capture import CAPTURES
from geomix.models.layers import decoder_layers
from geomix.models.packing import packs
from geomix.recording.recorder import Recorder
from geomix.snapshots.file import read_snapshot
from geomix.snapshots.schema import Snapshot
from tests.recording.architectures import ARCHITECTURES, EACH_ARCHITECTURE, Float64

TOLERANCE = 1e-9
"""Relative to the largest number of an array; float64 sums in another order differ by 1e-14."""
ZERO = 1e-20
"""Share of the largest product of all, below which one is rounding. A key's bias has no gradient in
truth, as softmax does not see it."""


@dataclass
class Truth:
    """One set's gradient by parameter, and its residual streams `(P, L, D)` and gradients."""

    parameters: list[Tensor | None]
    activations: NDArray[np.float64]
    gradients: NDArray[np.float64]
    losses: list[float]


def truth(model: Any, data: Sequence[TokenisedExample], reduction: str) -> Truth:
    targets = [sum(label != IGNORED for label in e.labels) for e in data]
    parameters = [p for p in model.parameters() if p.requires_grad]
    last: list[Tensor] = []
    _, layer = decoder_layers(model)[-1]
    handle = layer.register_forward_hook(
        lambda _, __, out: last.append(out[0] if isinstance(out, tuple) else out)
    )
    total = torch.zeros((), dtype=torch.float64)
    losses, rows, slopes = [], [], []
    for example, count in zip(data, targets, strict=True):
        ids = torch.tensor([example.ids])
        out = model(input_ids=ids, use_cache=False, output_hidden_states=True)
        streams = [*out.hidden_states[:-1], last.pop()]
        found = torch.log_softmax(out.logits[0], -1)
        where = [t for t, label in enumerate(example.labels) if label != IGNORED]
        nll = -torch.stack([found[t - 1, example.ids[t]] for t in where]).sum()
        losses.append(nll.item() / count)
        weight = 1 / sum(targets) if reduction == "token" else 1 / (count * len(data))
        slope = torch.autograd.grad(weight * nll, streams, retain_graph=True)
        at = [t - 1 for t in where]
        rows.append(torch.stack([s[0, at].detach() for s in streams], dim=1))
        slopes.append(torch.stack([s[0, at] for s in slope], dim=1))
        total = total + weight * nll
    handle.remove()
    found_gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return Truth(list(found_gradients), torch.cat(rows).numpy(), torch.cat(slopes).numpy(), losses)


def products(truths: Sequence[Truth]) -> NDArray[np.float64]:
    """`(M, S, S)` inner products, one parameter tensor at a time."""
    found = []
    for tensors in zip(*(one.parameters for one in truths), strict=True):
        flat = [None if t is None else t.double().reshape(-1) for t in tensors]
        found.append(
            [[0.0 if a is None or b is None else float(a @ b) for b in flat] for a in flat]
        )
    return np.array(found)


def close(ours: Any, expected: Any) -> None:
    ours, expected = np.asarray(ours), np.asarray(expected)
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() <= TOLERANCE * np.abs(expected).max()


def snapshot(
    model: Any, sets: dict[str, list[TokenisedExample]], moment: Any, **options: Any
) -> Snapshot:
    chosen: dict[str, Any] = {"reduction": "token", "batch_size": 3, "capture": "hooks"}
    recorder = Recorder(Path(), sets, at=[0], pad_id=0, **{**chosen, **options})
    return recorder.snapshot(moment(model))


@pytest.mark.parametrize("reduction", ["token", "example"])
@pytest.mark.parametrize("name", EACH_ARCHITECTURE)
def test_it_is_what_plain_autograd_gives(
    name: str, reduction: str, examples: Any, moment: Any
) -> None:
    sets = {"D_A": examples(5, 1), "D_B": examples(4, 2)}
    with Float64():
        model = ARCHITECTURES[name]().double().eval()
        expected = {key: truth(model, data, reduction) for key, data in sets.items()}
        found = snapshot(model, sets, moment, reduction=reduction)
    parameters = [key for key, p in model.named_parameters() if p.requires_grad]
    assert found.parameters == tuple(parameters)
    assert len(found.parameters) == found.trainable  # tied ones once
    gram = products(list(expected.values()))
    scale = np.abs(gram).max(axis=(1, 2))
    assert (scale > 0).mean() > 0.7  # an expert may be unreached, little else
    for m, key in enumerate(parameters):
        error = np.abs(found.inner_products[m] - gram[m]).max()
        assert error <= TOLERANCE * max(scale[m], ZERO * scale.max()), key
        missing = [one.parameters[m] is None for one in expected.values()]
        assert found.unreached[m].tolist() == missing, key
    for key, record in found.probes.items():
        assert record.activations is not None
        assert record.gradients is not None
        close(record.loss, expected[key].losses)
        for layer in range(found.layers + 1):
            close(record.activations[:, layer], expected[key].activations[:, layer])
            close(record.gradients[:, layer], expected[key].gradients[:, layer])


@pytest.mark.parametrize("name", EACH_ARCHITECTURE)
def test_neither_batches_nor_padding_nor_packing_nor_order_matter(
    name: str, examples: Any, moment: Any
) -> None:
    data, other = examples(7, 1), examples(4, 2)
    order = [3, 0, 6, 2, 5, 1, 4]
    with Float64():
        model = ARCHITECTURES[name]().double().eval()
        sets = {"D_A": data, "D_B": other}
        base = snapshot(model, sets, moment, batch_size=1)
        widths = [40] if packs(model, 2, 40) else []
        ways: list[dict[str, Any]] = [{"batch_size": 2}, {"batch_size": 7}]
        ways += [{"batch_size": 7, "width": width} for width in widths]
        others = [snapshot(model, sets, moment, **way) for way in ways]
        mixed = {"D_A": [data[i] for i in order], "D_B": other}
        shuffled = snapshot(model, mixed, moment, batch_size=3)
    assert bool(widths) != (name in UNPACKED)
    for found in [*others, shuffled]:
        scale = np.abs(base.inner_products).max(axis=(1, 2))
        errors = np.abs(found.inner_products - base.inner_products).max(axis=(1, 2))
        assert (errors <= TOLERANCE * np.maximum(scale, ZERO * scale.max())).all()
    one = base.probes["D_A"]
    for found in others:
        record = found.probes["D_A"]
        close(record.loss, one.loss)
        close(record.activations, one.activations)
        close(record.gradients, one.gradients)
        assert np.array_equal(record.targets, one.targets)
        assert np.array_equal(record.positions, one.positions)
    record = shuffled.probes["D_A"]
    close(record.loss, one.loss[order])
    rows = np.concatenate([np.arange(one.offsets[i], one.offsets[i + 1]) for i in order])
    assert one.activations is not None
    assert one.gradients is not None
    close(record.activations, one.activations[rows])
    close(record.gradients, one.gradients[rows])


UNPACKED = {"opt"}
"""Families that geomix does not pack: they are told no positions."""


@pytest.mark.parametrize("name", EACH_ARCHITECTURE)
def test_nnsight_gives_the_same_bits_as_hooks(
    name: str, examples: Any, moment: Any, tmp_path: Path
) -> None:
    sets = {"D_A": examples(5, 1), "D_B": examples(4, 2)}
    files = []
    for capture in CAPTURES:
        recorder = Recorder(
            tmp_path / capture,
            sets,
            at=[0],
            reduction="token",
            batch_size=3,
            pad_id=0,
            capture=capture,
            lens=True,
            modules=["*.mlp"] if name != "opt" else ["*.out_proj"],
        )
        recorder.observe(moment(ARCHITECTURES[name]()))
        (path,) = (tmp_path / capture).iterdir()
        assert read_snapshot(path).trainable == len(read_snapshot(path).parameters)
        files.append(path.read_bytes())
    assert files[0] == files[1]
