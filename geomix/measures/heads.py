"""Elements of an attention module's parameters, by head.

Shapes: H query heads, K key and value heads, E features of a head, D of the residual stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

QUERY = "head"
KEY_VALUE = "kv head"
"""Label of a key and value head that several query heads share."""


_SPLIT = {
    "q_proj": (0, [QUERY]),
    "k_proj": (0, [KEY_VALUE]),
    "v_proj": (0, [KEY_VALUE]),
    "o_proj": (-1, [QUERY]),
    "out_proj": (-1, [QUERY]),
    "dense": (-1, [QUERY]),
    "query_key_value": (0, [QUERY]),
    "c_attn": (-1, [QUERY, KEY_VALUE, KEY_VALUE]),
    "c_proj": (0, [QUERY]),
}
"""Each module's axis along which heads lie, and the kinds of heads in their order there."""

_OUT = ("o_proj", "out_proj", "dense", "c_proj")


@dataclass(frozen=True, slots=True)
class HeadSlice:
    """A slice of a parameter tensor.

    Attributes:
        head: its name, `head 3` or `kv head 1`; "" if it belongs to no head.
        index: index of the slice within the tensor.
    """

    head: str
    index: tuple[slice, ...] = ()


def head_slices(
    module: str, shape: Sequence[int], heads: int, kv_heads: int
) -> list[HeadSlice] | None:
    """Split a parameter into its heads.

    Known layouts: separate projections (`q_proj`, `k_proj`, `v_proj`, `o_proj` or `out_proj`),
    GPT-2's `c_attn` (columns: queries, keys, values, each by head) and `c_proj`, GPT-NeoX's
    `query_key_value` (rows: by head its query, key and value) and the `dense` behind it.

    Args:
        module: the parameter's module within its layer, such as `self_attn.q_proj`.
        shape: the parameter's.
        heads: H.
        kv_heads: K, which divides H.

    Returns:
        The slices, which cover every element once; None if the module is no known part of an
        attention, or the heads do not divide its size.
    """
    *within, name = module.split(".")
    known = any("attn" in part or "attention" in part for part in within) and name in _SPLIT
    if not known or (name in _OUT and len(shape) != 2):  # noqa: PLR2004
        return None  # a bias behind the heads belongs to none of them
    if name == "query_key_value" and kv_heads != heads:
        return None
    axis, kinds = _SPLIT[name]
    shared = KEY_VALUE if kv_heads != heads else QUERY
    parts = [(QUERY, heads) if kind == QUERY else (shared, kv_heads) for kind in kinds]
    return _slices(shape, axis % len(shape), parts)


def _slices(
    shape: Sequence[int], axis: int, parts: Sequence[tuple[str, int]]
) -> list[HeadSlice] | None:
    """Split one axis into all heads, which are equally wide."""
    count = sum(number for _, number in parts)
    width, rest = divmod(shape[axis], count)
    if rest:
        return None
    names = [f"{kind} {head}" for kind, number in parts for head in range(number)]
    before = (slice(None),) * axis
    return [
        HeadSlice(name, (*before, slice(i * width, (i + 1) * width)))
        for i, name in enumerate(names)
    ]
