"""Rules that turn a module's inputs and output gradients into per-example gradients.

A rule is a guess from a module's appearance; `geomix.gradients.per_example` validates every one
against autograd before use, and falls back to `by_autograd`.

Shapes: R rows of T tokens, B examples, m vectors a token (heads), O and I as in `factors`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from geomix.data.batch import Batch
from geomix.gradients.calls import Call, tensors
from geomix.gradients.tokens import Placement, answers_of, tokens_of
from geomix.measures.factors import Factor, Lookup, Outer, Whole


@dataclass(frozen=True, slots=True)
class TokenIndices:
    """Indices of a batch's examples in the tensors of modules.

    Attributes:
        tokens: among all tokens.
        answers: among the positions that the output head sees.
        shape: `(R, T)`.
        behind: paths of the modules that see answer positions only.
        heads_first: paths of the modules whose tensors are `(R, heads, T, d)`.
    """

    tokens: Placement
    answers: Placement
    shape: tuple[int, int]
    behind: frozenset[str]
    heads_first: frozenset[str]

    @staticmethod
    def of(batch: Batch, behind: frozenset[str], heads_first: frozenset[str]) -> TokenIndices:
        """Return the indices of a batch."""
        shape = (batch.ids.shape[0], batch.ids.shape[1])
        return TokenIndices(tokens_of(batch), answers_of(batch), shape, behind, heads_first)

    def at(self, path: str) -> Placement:
        """Return the placement of the vectors that the module sees."""
        return self.answers if path in self.behind else self.tokens

    def flat(self, path: str, values: Tensor) -> Tensor:
        """Return a module's tensor as `(n, m, d)`, half precision in float32.

        Raises:
            ValueError: it does not have one or more vectors for each token.
        """
        count = len(self.at(path).owners)
        if path in self.heads_first:
            values = values.transpose(1, 2)
        width = values.shape[-1]
        by_row = path not in self.behind and values.shape[:2] == self.shape
        if not (by_row or values.shape[0] == count) or values.numel() % (count * width):
            raise ValueError(f"{path}: a tensor {tuple(values.shape)} is not laid out by token")
        if values.dtype in (torch.bfloat16, torch.float16):
            values = values.float()
        return values.reshape(count, -1, width)

    def inputs(self, call: Call, values: Tensor) -> Tensor:
        """Arrange values by example, `(B, t·m, d)`."""
        return self.at(call.path).inputs(self.flat(call.path, values))

    def gradients(self, call: Call, values: Tensor) -> Tensor:
        """Arrange gradients by example, `(B, t·m, d)`, 0 where an example has fewer."""
        return self.at(call.path).gradients(self.flat(call.path, values))


Found = dict[str, list[Factor]]
Rule = Callable[[Call, TokenIndices], Found]
"""Function that returns a call's factors, by the names of the parameters within the module."""


def guesses(module: nn.Module) -> list[Rule]:
    """Return the rules that fit a module's looks, the likeliest first; the last one always runs."""
    own = dict(module.named_parameters(recurse=False))
    found: list[Rule] = []
    if isinstance(module, nn.Embedding):
        found = [embedding]
    elif type(module).__name__ == "Conv1D" and hasattr(module, "nf"):
        found = [conv1d]
    elif {"gate_up_proj", "down_proj"} == own.keys():
        found = [experts]
    elif "weight" in own and own.keys() <= {"weight", "bias"}:
        found = [norm, norm_about_one] if own["weight"].ndim == 1 else [linear]
    return [*found, by_autograd]


def linear(call: Call, indices: TokenIndices) -> Found:
    """Factor linear maps, W x + b; also routers, whose first output determines the others."""
    g = indices.gradients(call, _gradient(call))
    x = indices.inputs(call, call.input).to(g.dtype)
    return {"weight": [Outer(g, x)], **_bias(call, g)}


def _bias(call: Call, g: Tensor) -> Found:
    bias = getattr(call.module, "bias", None)
    return {"bias": [_summed(g)]} if bias is not None and bias.requires_grad else {}


def _summed(values: Tensor) -> Whole:
    """Sum a vector's gradients over its uses, `(B, t·m, d)`."""
    return Whole(values.sum(1, keepdim=True))


def conv1d(call: Call, indices: TokenIndices) -> Found:
    """Factor GPT-2's linear maps, Wᵀ x + b."""
    g = indices.gradients(call, _gradient(call))
    x = indices.inputs(call, call.input).to(g.dtype)
    return {"weight": [Outer(x, g)], **_bias(call, g)}


def embedding(call: Call, indices: TokenIndices) -> Found:
    """Factor embeddings: rows of the weight, scaled (Gemma), of ids that may be shifted (OPT).

    Rows and scale are found by running the module with test weights.
    """
    weight: Tensor = call.module.weight  # type: ignore[assignment]
    counted = torch.arange(len(weight), dtype=torch.float64, device=weight.device)[:, None]
    with torch.no_grad():
        scale = _with(call, weight=torch.ones_like(weight[:, :1]))
        scaled, ones = (_with(call, weight=w) for w in (counted, torch.ones_like(counted)))
    ids = indices.inputs(call, (scaled / ones).round()).long()[..., 0]
    g = _gradient(call)
    values = indices.gradients(call, g * scale.to(g.dtype))
    unused = call.module.padding_idx  # its row is never trained
    if unused is not None:
        values = values * torch.ne(ids, unused)[..., None]  # type: ignore[arg-type]
    return {"weight": [Lookup(ids, values)]}


def norm(call: Call, indices: TokenIndices) -> Found:
    """Factor norms, w * x̂ + b: with a weight of one they give x̂."""
    return _normed(call, indices, 1.0)


def norm_about_one(call: Call, indices: TokenIndices) -> Found:
    """Factor Gemma's norms, (1 + w) * x̂ + b."""
    return _normed(call, indices, 0.0)


def _normed(call: Call, indices: TokenIndices, weight: float) -> Found:
    own = dict(call.module.named_parameters(recurse=False))
    plain = {name: torch.full_like(p, weight * (name == "weight")) for name, p in own.items()}
    with torch.no_grad():
        normed = _with(call, **plain)
    g = _gradient(call)
    normed = normed.to(torch.promote_types(g.dtype, torch.float32))
    found: Found = {"weight": [_summed(indices.gradients(call, g * normed))]}
    if "bias" in own:
        found["bias"] = [_summed(indices.gradients(call, g))]
    return found


def experts(call: Call, indices: TokenIndices) -> Found:
    """Factor fused experts of transformers 5: down(act(gate) * up), weighed by the router.

    Each expert is two linear maps over the tokens routed to it.
    """
    module: Any = call.module
    hidden, chosen, weights = (a.detach() for a in call.args)
    owners, g = indices.at(call.path).owners, indices.flat(call.path, _gradient(call))[:, 0]
    hidden = indices.flat(call.path, hidden)[:, 0].to(g.dtype)
    gate_up, down = module.gate_up_proj, module.down_proj
    found: Found = {"gate_up_proj": [], "down_proj": []}
    examples = indices.tokens.index.shape[0]
    for expert in range(len(down)):
        token, slot = (chosen == expert).nonzero(as_tuple=True)
        token, slot = token[owners[token] >= 0], slot[owners[token] >= 0]
        mine = Placement.of(owners[token], examples)
        out = g[token] * weights[token, slot, None].to(g.dtype)
        with torch.enable_grad():
            inner = (hidden[token] @ gate_up[expert].detach().to(g.dtype).T).requires_grad_()
            acted = module._apply_gate(inner)
        (back,) = torch.autograd.grad(acted, inner, out @ down[expert].detach().to(g.dtype))
        for name, rows, columns in (
            ("gate_up_proj", back, hidden[token]),
            ("down_proj", out, acted.detach()),
        ):
            factor = Outer(
                mine.gradients(rows[:, None]),
                mine.inputs(columns[:, None]),
                expert * rows.shape[-1],
            )
            found[name].append(factor)
    return found


def by_autograd(call: Call, indices: TokenIndices) -> Found:
    """Repeat a module's own backward pass once per example: works for any module.

    Exact as long as its outputs keep tokens separate, since an example's loss depends on its own
    tokens alone, and an output that leads to another is used in no other way; needs the memory of
    one gradient per example.
    """
    own = dict(call.module.named_parameters(recurse=False))
    owners = indices.at(call.path).owners
    with torch.enable_grad():
        again = tensors(call.module(*_detached(call.args), **_detached(call.kwargs)))
    before = zip(again, call.outputs, strict=True)
    reached = [(a, o.grad) for a, o in before if a.requires_grad and o.grad is not None]
    reached = [(a, g) for a, g in reached if not any(_leads(a, b) for b, _ in reached)]
    outputs, gradients = [a for a, _ in reached], [g for _, g in reached]
    for gradient in gradients:
        indices.flat(call.path, gradient)  # rejects tensors that are not laid out by token
    leaves = {name: p for name, p in own.items() if p.requires_grad}
    values: dict[str, list[Tensor]] = {name: [] for name in leaves}
    for example in range(indices.tokens.index.shape[0]):
        mine = [_only(g, owners == example, call.path in indices.heads_first) for g in gradients]
        got = torch.autograd.grad(
            outputs,
            list(leaves.values()),
            mine,
            retain_graph=True,
            allow_unused=True,
        )
        for (name, leaf), gradient in zip(leaves.items(), got, strict=True):
            values[name].append(torch.zeros_like(leaf) if gradient is None else gradient)
    return {name: [Whole(_matrices(torch.stack(each)))] for name, each in values.items()}


def _leads(one: Tensor, other: Tensor) -> bool:
    """Return whether an output leads to another, which then accounts for its part of the loss."""
    if one is other:
        return False
    weight = torch.ones_like(other)
    (found,) = torch.autograd.grad(other, one, weight, retain_graph=True, allow_unused=True)
    return found is not None


def _only(gradient: Tensor, mine: Tensor, heads_first: bool) -> Tensor:
    """Return the gradient at some tokens, 0 at the others."""
    by_token = gradient.transpose(1, 2) if heads_first else gradient
    leading = by_token.shape[:1] if by_token.shape[0] == len(mine) else by_token.shape[:2]
    kept = mine.view(*leading, *[1] * (by_token.ndim - len(leading)))
    masked = torch.where(kept, by_token, torch.zeros_like(by_token))
    return masked.transpose(1, 2) if heads_first else masked


def _matrices(values: Tensor) -> Tensor:
    """Return `(B, *shape)` as `(B, O, I)`, half precision in float32."""
    if values.dtype in (torch.bfloat16, torch.float16):
        values = values.float()
    if values.ndim == 2:  # noqa: PLR2004
        return values[:, None]
    return values.flatten(1, -2) if values.ndim > 2 else values[:, None, None]  # noqa: PLR2004


def _gradient(call: Call) -> Tensor:
    gradient = call.gradient
    assert gradient is not None  # callers have checked
    return gradient


def _with(call: Call, **parameters: Tensor) -> Tensor:
    """Return the module's output with other parameters."""
    args, kwargs = _detached(call.args), _detached(call.kwargs)
    output: Tensor = functional_call(call.module, parameters, args, kwargs)
    return output


def _detached(given: Any) -> Any:
    """Detach arguments from the graph of the pass."""
    if isinstance(given, Tensor):
        return given.detach()
    if isinstance(given, Mapping):
        return {key: _detached(value) for key, value in given.items()}
    if isinstance(given, tuple | list):
        return type(given)(_detached(value) for value in given)
    return given
