"""Models in which a row changes what another row gets are found; LongRoPE ends at its switch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from geomix.models.neighbours import neighbour_problem
from geomix.models.positions import positions_of

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
LONG: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 24,
}


def model_of(family: str, **keys: Any) -> Any:
    config = getattr(transformers, f"{family}Config")(**SIZES | keys)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(transformers, f"{family}ForCausalLM")(config).eval()


class Scaled(nn.Module):
    """Divides by the deviation over the rows of a pass: batch statistics."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden / hidden.flatten(0, 1).std(dim=0)


class Limited(nn.Module):
    """Takes the first 100 tokens of a pass, as an expert of limited capacity does."""

    def forward(self, hidden: Tensor) -> Tensor:
        flat = hidden.flatten(0, 1)
        taken = torch.arange(len(flat), device=flat.device) < 100
        return (flat.roll(1, -1) * taken[:, None]).view_as(hidden)


class TrainedScaled(Scaled):
    """Batch statistics while training only, kept ones else."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: Tensor
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, hidden: Tensor) -> Tensor:
        if not self.training:
            return hidden
        self.passes += 1
        return super().forward(hidden)


@pytest.mark.parametrize("family", ["Llama", "Mixtral", "Gemma2", "Bloom", "Mamba"])
def test_models_that_keep_rows_apart_pass(family: str) -> None:
    keys = {"head_dim": 8} if family == "Gemma2" else {}
    assert neighbour_problem(model_of(family, **keys), 2, 60) is None


def test_dropout_is_no_neighbour() -> None:
    model = model_of("Llama", attention_dropout=0.5)
    model.model.norm = nn.Sequential(model.model.norm, nn.Dropout(0.5)).eval()
    assert neighbour_problem(model, 2, 60) is None


@pytest.mark.parametrize(
    ("part", "said"), [(Scaled, "changes with"), (TrainedScaled, "changes in training with")]
)
def test_batch_statistics_are_found_and_left_as_they_were(part: type[nn.Module], said: str) -> None:
    model = model_of("Llama")
    model.model.norm = nn.Sequential(model.model.norm, part()).eval()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert said in (neighbour_problem(model, 2, 60) or "")
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())


def test_experts_of_limited_capacity_are_found() -> None:
    model = model_of("Mixtral")
    model.model.layers[1].mlp = nn.Sequential(Limited()).eval()
    assert "limited capacity" in (neighbour_problem(model, 2, 60) or "")


@pytest.mark.parametrize("family", ["Phi3", "Phimoe", "Llama"])
def test_longrope_has_the_positions_before_its_switch(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one position more, the neighbours of the probe cross the switch and are noticed."""
    scales = {"short_mscale": 1.0, "long_mscale": 1.5} if family == "Phimoe" else {}
    keys = {"original_max_position_embeddings": 24} if family == "Phi3" else {}
    model = model_of(family, rope_parameters={**LONG, **scales}, **keys)
    positions = positions_of(model.config)
    assert positions.most == 24
    assert "LongRoPE" in positions.why
    assert neighbour_problem(model, 2, 60) is None
    for further, found in ((24, False), (25, True)):
        monkeypatch.setattr(type(positions), "up_to", lambda _, most, n=further: min(n, most))
        assert (neighbour_problem(model, 2, 60) is not None) is found


def test_other_ropes_have_all_their_positions() -> None:
    for kind in ("dynamic", "linear", "yarn", "default"):
        parameters = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}
        model = model_of("Llama", rope_parameters=parameters)
        assert positions_of(model.config).most == 96
        assert positions_of(model.config).up_to(50) == 50
        assert neighbour_problem(model, 2, 60) is None
    assert positions_of(transformers.MambaConfig()).most is None


def test_the_switch_of_any_type_of_layer_counts() -> None:
    config = transformers.Gemma3TextConfig(**SIZES | {"head_dim": 8})
    config.rope_parameters = {"full_attention": LONG, "sliding_attention": {"rope_type": "default"}}
    assert positions_of(config).most == 24
