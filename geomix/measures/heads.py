"""Which elements of an attention module's parameters belong to which head.

Shapes: H query heads, K key and value heads, E features of a head, D of the residual stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

QUERY = "head"
KEY_VALUE = "kv head"
"""What a head of the keys and values is called where several query heads share it."""


_CUT = {
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
"""Module → the axis that the heads lie along, and whose heads follow one another there."""

_OUT = ("o_proj", "out_proj", "dense", "c_proj")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a parameter tensor.

    Attributes:
        head: its name, `head 3` or `kv head 1`; "" of what belongs to no head.
        index: what cuts it out of the tensor.
    """

    head: str
    index: tuple[slice, ...] = ()


def head_pieces(module: str, shape: Sequence[int], heads: int, kv_heads: int) -> list[Piece] | None:
    """Cut a parameter into its heads.

    Separate projections (`q_proj`, `k_proj`, `v_proj`, `o_proj` or `out_proj`), GPT-2's `c_attn`
    (columns: queries, keys, values, each by head) and `c_proj`, GPT-NeoX's `query_key_value` (rows:
    by head its query, key and value) and the `dense` behind it are known.

    Args:
        module: the parameter's module within its layer, such as `self_attn.q_proj`.
        shape: the parameter's.
        heads: H.
        kv_heads: K, which divides H.

    Returns:
        The pieces, which cover every element once; None of a module that is no known part of an
        attention, or whose size the heads do not divide.
    """
    *within, name = module.split(".")
    known = any("attn" in part or "attention" in part for part in within) and name in _CUT
    if not known or (name in _OUT and len(shape) != 2):  # noqa: PLR2004
        return None  # a bias behind the heads belongs to none of them
    if name == "query_key_value" and kv_heads != heads:
        return None
    axis, kinds = _CUT[name]
    shared = KEY_VALUE if kv_heads != heads else QUERY
    parts = [(QUERY, heads) if kind == QUERY else (shared, kv_heads) for kind in kinds]
    return _cut(shape, axis % len(shape), parts)


def _cut(shape: Sequence[int], axis: int, parts: Sequence[tuple[str, int]]) -> list[Piece] | None:
    """Cut one axis into all parts' heads, which are equally wide."""
    count = sum(number for _, number in parts)
    width, rest = divmod(shape[axis], count)
    if rest:
        return None
    names = [f"{kind} {head}" for kind, number in parts for head in range(number)]
    before = (slice(None),) * axis
    return [
        Piece(name, (*before, slice(i * width, (i + 1) * width))) for i, name in enumerate(names)
    ]
