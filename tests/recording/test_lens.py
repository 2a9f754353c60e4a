"""The logit lens, against each architecture's own parts called by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import CohereConfig, CohereForCausalLM, OPTConfig, OPTForCausalLM

from geomix.data.example import TokenisedExample
from geomix.gradients import logit_lens as lens
from geomix.gradients.capture import CaptureName
from geomix.gradients.logit_lens import ranked, through_lens
from geomix.models.layers import after_layers
from geomix.recording.recorder import Recorder
from geomix.snapshots.file import read_snapshot
from geomix.training.observer import TrainingEvent
from geomix.util.errors import UserError
from tests.recording.architectures import ARCHITECTURES, VOCABULARY, drawn_anew

Examples = Callable[[int, int], list[TokenisedExample]]
MakeMoment = Callable[..., TrainingEvent]

NORMS = {
    "gpt2": "transformer.ln_f",
    "gpt-neox": "gpt_neox.final_layer_norm",
    "phi": "model.final_layernorm",
    "opt": "model.decoder.final_layer_norm",
}
"""All others call it `model.norm`."""


def opt_with_another_width() -> Any:
    """Embeds in 12 dimensions, lives in 16, and has no final norm."""
    sizes = {"hidden_size": 16, "ffn_dim": 24, "word_embed_proj_dim": 12, "num_hidden_layers": 2}
    config = OPTConfig(
        vocab_size=VOCABULARY, num_attention_heads=4, do_layer_norm_before=False, **sizes
    )
    return drawn_anew(OPTForCausalLM(config))


def scaled() -> Any:
    """Multiplies its logits."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    config = CohereConfig(
        vocab_size=VOCABULARY, num_attention_heads=4, logit_scale=0.4, pad_token_id=0, **sizes
    )
    return drawn_anew(CohereForCausalLM(config))


MODELS: dict[str, Callable[[], Any]] = {
    **ARCHITECTURES,
    "opt-projected": opt_with_another_width,
    "scaled": scaled,
}


def by_name(name: str, model: Any, hidden: Tensor) -> Tensor:
    """Logits of a residual stream, written down for each architecture by hand."""
    if name == "opt-projected":
        logits: Tensor = model.lm_head(model.model.decoder.project_out(hidden))
    else:
        normed = model.get_submodule(NORMS.get(name, "model.norm"))(hidden)
        logits = model.get_output_embeddings()(normed)
    if name == "gemma2":
        logits = 30 * torch.tanh(logits / 30)
    return logits * 0.4 if name == "scaled" else logits


def place(logits: Tensor, target: int) -> int:
    """Return the target's position in a list sorted by falling logit, ties by rising id."""
    order = sorted(range(len(logits)), key=lambda token: (-float(logits[token]), token))
    return order.index(target)


@pytest.mark.parametrize("capture", ["nnsight", "hooks"])
@pytest.mark.parametrize("name", MODELS)
def test_every_layer_says_what_the_final_norm_and_the_head_make_of_it(
    name: str, capture: CaptureName, tmp_path: Path, examples: Examples, moment: MakeMoment
) -> None:
    model, data = MODELS[name](), examples(5, 1)
    options: dict[str, Any] = {"at": [0], "reduction": "token", "batch_size": 2, "pad_id": 0}
    recorder = Recorder(
        tmp_path, {"d_a": data}, lens=True, activations=3, capture=capture, **options
    )
    before = [set(vars(module)) for module in model.modules()]
    record = recorder.snapshot(moment(model)).probes["d_a"]
    assert [set(vars(module)) for module in model.modules()] == before
    assert record.activations is not None
    assert record.lens_rank is not None
    assert record.lens_logprob is not None
    assert record.lens_rank.dtype == np.int32
    assert record.lens_rank.shape == record.lens_logprob.shape == record.activations.shape[:2]
    model.eval()
    with torch.no_grad():
        for row, hidden in enumerate(torch.tensor(record.activations)):
            target = int(record.targets[row])
            logits = by_name(name, model, hidden)
            for layer in range(len(hidden)):
                own = logits[layer].log_softmax(-1)[target]
                assert float(record.lens_logprob[row, layer]) == pytest.approx(float(own), abs=2e-4)
                assert record.lens_rank[row, layer] == place(logits[layer], target)
        whole = data[0]
        own = model(input_ids=torch.tensor([whole.ids])).logits[0].log_softmax(-1)
    rows = range(record.offsets[0], record.offsets[1])
    for row in rows:
        expected = own[record.positions[row], record.targets[row]]
        assert float(record.lens_logprob[row, -1]) == pytest.approx(float(expected), abs=2e-4)
    assert len({tuple(ranks) for ranks in record.lens_rank.T}) > 1, "layers that all say the same"


def test_ties_stand_in_the_order_of_their_ids_as_the_argmax_takes_the_first() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 0.0, 3.0]]).repeat(5, 1)
    rank, logprob = ranked(logits, torch.arange(5))
    assert rank.tolist() == [3, 0, 1, 4, 2]
    assert rank.dtype == torch.int32
    assert int(rank.argmin()) == int(logits[0].argmax())
    torch.testing.assert_close(logprob.exp().sum(), torch.tensor(1.0))
    assert ranked(torch.zeros(1, 7), torch.tensor([5]))[0].item() == 5  # all tie


@pytest.mark.parametrize("entries", [1, 41 * 3, 1 << 20])
def test_chunks_change_nothing(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lens, "ENTRIES", entries)
    draw = torch.Generator().manual_seed(0)
    residuals = [torch.randn(7, 6, generator=draw) for _ in range(3)]
    head = torch.randn(6, 41, generator=draw)
    targets = torch.arange(7)
    sizes = []

    def to_logits(hidden: Tensor) -> Tensor:
        sizes.append(len(hidden))
        return hidden @ head

    ranks, logprobs = through_lens(residuals, targets, to_logits)
    assert sum(sizes) == 21
    assert max(sizes) <= max(1, entries // 41)
    for layer, hidden in enumerate(residuals):
        rank, logprob = ranked(hidden @ head, targets)
        assert torch.equal(ranks[:, layer], rank)
        torch.testing.assert_close(logprobs[:, layer], logprob)


class Skipping(nn.Module):
    """Adds the embedding to what the last layer gives: stepping over the layers misses that."""

    def __init__(self, *, skip: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.layers = nn.ModuleList([Tupled(), Tupled()])
        self.head = nn.Linear(4, 9, bias=False)
        self.skip = skip

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: Tensor, use_cache: bool) -> Any:
        assert not use_cache
        first = hidden = self.embed(input_ids)
        for layer in self.layers:
            hidden, extra = layer(hidden_states=hidden)
            assert extra == "more"
        return SimpleNamespace(logits=self.head(hidden + first if self.skip else hidden))


class Tupled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, str]:
        return hidden_states + self.linear(hidden_states).tanh(), "more"


def test_layers_that_return_tuples_are_stepped_over_and_put_back() -> None:
    torch.manual_seed(0)
    model = Skipping(skip=False)
    known = model.layers[1].forward
    vars(model.layers[1])["forward"] = known  # one that a library has replaced
    to_logits = after_layers(model)
    hidden = torch.randn(5, 4)
    torch.testing.assert_close(to_logits(hidden), model.head(hidden))
    assert vars(model.layers[1])["forward"] is known
    assert "forward" not in vars(model.layers[0])


def test_a_model_with_another_way_to_its_logits_is_refused(
    tmp_path: Path, moment: MakeMoment, examples: Examples
) -> None:
    torch.manual_seed(0)
    data = [
        TokenisedExample(
            tuple(i % 9 for i in e.ids), tuple(i % 9 if i >= 0 else i for i in e.labels), e.text
        )
        for e in examples(4, 0)
    ]
    options: dict[str, Any] = {"at": [0], "reduction": "token", "batch_size": 2, "pad_id": 0}
    recorder = Recorder(tmp_path, {"d_a": data}, lens=True, **options)
    recorder.observe(moment(Skipping(skip=False)))
    assert read_snapshot(next(tmp_path.iterdir())).probes["d_a"].lens_rank is not None
    with pytest.raises(UserError, match=re.escape("set record.lens: false")):
        recorder.snapshot(moment(Skipping(skip=True)))


def test_half_precision_has_a_lens_too(
    tmp_path: Path, llama: Callable[[], Any], examples: Examples, moment: MakeMoment
) -> None:
    options: dict[str, Any] = {"at": [0], "reduction": "token", "batch_size": 2, "pad_id": 0}
    probes = {"d_a": examples(5, 1)}
    autocast: dict[str, Any] = {"autocast": lambda: torch.autocast("cpu", torch.bfloat16)}
    found = [
        Recorder(tmp_path, probes, lens=True, **{**options, **more})
        .snapshot(moment(model))
        .probes["d_a"]
        .lens_logprob
        for model, more in (
            (llama(), {}),
            (llama().to(torch.bfloat16), {}),
            (llama(), autocast),
        )
    ]
    assert found[0] is not None
    for other in found[1:]:
        assert other is not None
        assert not np.array_equal(other, found[0])
        assert np.abs(other - found[0]).max() < 1.0
