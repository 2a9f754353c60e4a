"""Tiny models under 1,000 parameters, and a loss written out without the package."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from geomix.data.batch import Reduction
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.gradients.products import SetObjective
from geomix.models.forward import batches_of

VOCABULARY = 7
CPU = torch.device("cpu")


def examples(count: int = 3, seed: int = 1) -> list[TokenisedExample]:
    """Ragged: 2 to 7 tokens, of which 1 to 3 are targets."""
    choose = random.Random(seed)
    made = []
    for _ in range(count):
        prompt, target = choose.randint(1, 4), choose.randint(1, 3)
        ids = tuple(choose.randrange(VOCABULARY) for _ in range(prompt + target))
        made.append(TokenisedExample(ids, (IGNORED,) * prompt + ids[prompt:], Example("p", "t")))
    return made


def drawn(model: nn.Module, seed: int = 2) -> nn.Module:
    """Every parameter drawn anew, so that no bias is 0 and no norm is 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator))
    return model.double().eval()


def _gpt2() -> nn.Module:
    """LayerNorm, tied head, 153 parameters."""
    shape = {"n_positions": 7, "n_embd": 3, "n_inner": 6, "n_layer": 1, "n_head": 1}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(vocab_size=VOCABULARY, attn_implementation="eager", **shape, **ends)
    return drawn(GPT2LMHeadModel(config))


def _llama() -> nn.Module:
    """RMSNorm, untied head."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=4,
        intermediate_size=5,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    return drawn(LlamaForCausalLM(config))


class _Logistic(nn.Module):
    """Fixed features of the last token; only the linear head trains."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Embedding(VOCABULARY, 5)
        self.head = nn.Linear(5, VOCABULARY)

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: Tensor, **_: object) -> Any:
        return SimpleNamespace(logits=self.head(self.features(input_ids)))


def _logistic() -> nn.Module:
    model = drawn(_Logistic())
    model.features.requires_grad_(False)
    return model


@dataclass
class Tiny:
    """A model, its data, and the same loss by two ways."""

    model: nn.Module
    data: list[TokenisedExample]
    reduction: Reduction

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def objective(self, batch_size: int = 99) -> SetObjective:
        batches = list(batches_of(self.data, self.reduction, batch_size, 0, CPU))
        count = len(self.data)
        return SetObjective(self.model, batches, self.reduction, self.parameters, count, count)

    def logits(self, weights: dict[str, Tensor], example: TokenisedExample) -> Tensor:
        """Return the logits of the tokens that predict targets, one example alone."""
        ids = torch.tensor([example.ids])
        out = functional_call(self.model, weights, kwargs={"input_ids": ids, "use_cache": False})
        places = [t - 1 for t, label in enumerate(example.labels) if label != IGNORED]
        found: Tensor = out.logits[0][places]
        return found

    def loss(self, weights: dict[str, Tensor]) -> Tensor:
        """The definition: no batch, no padding, no weights of tokens."""
        terms = []
        for example in self.data:
            targets = torch.tensor([t for t in example.labels if t != IGNORED])
            log_p = self.logits(weights, example).log_softmax(-1)
            terms.append(-log_p[torch.arange(len(targets)), targets])
        if self.reduction == "token":
            return torch.cat(terms).mean()
        return torch.stack([term.mean() for term in terms]).mean()

    def weights(self) -> dict[str, Tensor]:
        return {n: p.detach().clone() for n, p in self.parameters.items()}

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        sizes = [p.numel() for p in self.parameters.values()]
        parts = torch.split(flat, sizes)
        return {
            n: t.reshape(p.shape) for (n, p), t in zip(self.parameters.items(), parts, strict=True)
        }

    @cached_property
    def hessian(self) -> Tensor:
        """Dense, by `torch.autograd.functional.hessian`; of the model as it is at first."""
        flat = torch.cat([p.detach().reshape(-1) for p in self.parameters.values()])
        dense: Any = torch.autograd.functional.hessian
        found = dense(lambda x: self.loss(self.split(x)), flat)
        assert isinstance(found, Tensor)
        return found

    def direction(self, seed: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return {
            n: torch.randn(p.shape, generator=generator, dtype=p.dtype)
            for n, p in self.parameters.items()
        }


MODELS: dict[str, Callable[[], nn.Module]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "logistic": _logistic,
}


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., Tiny]:
    """`(name, reduction)` → a model with data, shared: whoever changes it puts it back."""

    @cache
    def made(name: str, reduction: Reduction) -> Tiny:
        return Tiny(MODELS[name](), examples(), reduction)

    return lambda name, reduction="token": made(name, reduction)
