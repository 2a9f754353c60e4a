"""A small random configuration of every family of causal LMs that the recorder is held to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM

VOCABULARY = 41

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 12}

_CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"tie_word_embeddings": True}),
    "mistral": ("MistralConfig", {"sliding_window": 4}),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", {"head_dim": 6}),
    "gemma": ("GemmaConfig", {"head_dim": 6, "tie_word_embeddings": True}),
    "gemma2": (
        "Gemma2Config",
        {"head_dim": 6, "sliding_window": 4, "tie_word_embeddings": True},
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {"head_dim": 6, "sliding_window": 4, "tie_word_embeddings": True},
    ),
    "gpt2": (
        "GPT2Config",
        {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64, "tie_word_embeddings": True},
    ),
    "gpt-neox": ("GPTNeoXConfig", {"rotary_pct": 0.5, "use_parallel_residual": True}),
    "phi": ("PhiConfig", {"partial_rotary_factor": 0.5}),
    "opt": ("OPTConfig", {"ffn_dim": 24, "word_embed_proj_dim": 16, "tie_word_embeddings": True}),
    "olmo2": ("Olmo2Config", {}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2-moe": (
        "Qwen2MoeConfig",
        {"num_experts": 4, "shared_expert_intermediate_size": 20, **_EXPERTS},
    ),
}
_OWN_SIZES = {"gpt2"}
"""Families whose configuration calls the common sizes by other names."""


def maker(kind: str, extra: dict[str, Any], own: bool = False) -> Callable[[], Any]:
    """Return the maker of a tiny model from transformers' configuration class and `extra` keys."""
    kept = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
    common = {key: _COMMON[key] for key in kept} if own else _COMMON

    def make() -> Any:
        config = getattr(transformers, kind)(**{**common, **extra})
        # grouped products of experts, the default, exist in half and single precision only
        options = {"experts_implementation": "eager"} if "num_experts_per_tok" in extra else {}
        return drawn_anew(AutoModelForCausalLM.from_config(config, **options))

    return make


ARCHITECTURES: dict[str, Callable[[], Any]] = {
    name: maker(kind, extra, name in _OWN_SIZES) for name, (kind, extra) in _CONFIGURATIONS.items()
}
"""Each makes the same model at every call: in float32 and training mode, dropout as configured."""

_COVERING = {"llama", "gemma3", "gpt2", "opt", "mixtral"}
"""Families that between them have grouped heads, norms of queries and keys, sliding windows, heads
of another width, transposed weights, biases, learned positions, and experts."""

EACH_ARCHITECTURE = [
    name if name in _COVERING else pytest.param(name, marks=pytest.mark.slow)
    for name in ARCHITECTURES
]
"""Names, for a test's parameter."""


def drawn_anew(model: Any) -> Any:
    """Draw every parameter anew: zero biases and norms of one would hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.train()


class Float64(TorchFunctionMode):
    """Within, a cast to float32 is one to float64: norms and rotary embeddings make such casts.

    So a model in float64 is computed in float64 throughout, and answers agree to 1e-10, not 1e-5.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        def wide(value: Any) -> Any:
            return torch.float64 if value is torch.float32 else value

        if func is torch.Tensor.float:
            return args[0].double()
        named = {key: wide(value) for key, value in (kwargs or {}).items()}
        return func(*(wide(value) for value in args), **named)
