"""Positions of a model up to which no example depends on the others of its batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_SWITCHED = "longrope"
"""Rope type whose factors change for all rows of a pass with its longest position. The `dynamic`
types do so too, but only beyond `max_position_embeddings`, which is never used."""


@dataclass(frozen=True, slots=True)
class Positions:
    """Limit on the number of tokens of a text.

    Attributes:
        most: tokens; None if unlimited.
        why: the limit's reason other than the number of position embeddings; empty for none.
    """

    most: int | None
    why: str = ""

    def up_to(self, most: int) -> int:
        """Return the smaller of the two limits."""
        return most if self.most is None else min(self.most, most)


def positions_of(config: Any) -> Positions:
    """Return the limit on the positions of a model's texts.

    LongRoPE (Ding et al. 2024, Phi-3 and Phi-4) has short and long factors and uses the long ones
    for a whole forward pass if one position in it is beyond `original_max_position_embeddings`: an
    example's loss would depend on its neighbours. All texts are therefore limited to that length.

    Args:
        config: of transformers; for a multimodal model, its text configuration is used.
    """
    text = config.get_text_config(decoder=True)
    most = getattr(text, "max_position_embeddings", None)
    most = None if most is None else int(most)
    switches = [switch for one in _ropes(text) if (switch := _switch(text, one)) is not None]
    if switches and (most is None or min(switches) < most):
        switch = min(switches)
        return Positions(
            switch,
            f"beyond {switch} its LongRoPE takes other factors for all texts of a batch",
        )
    return Positions(most)


def _ropes(config: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the rope parameters of a configuration: one set, or one for each type of layer."""
    parameters = getattr(config, "rope_parameters", None)
    if isinstance(parameters, Mapping):
        yield parameters
        yield from (value for value in parameters.values() if isinstance(value, Mapping))


def _switch(config: Any, rope: Mapping[str, Any]) -> int | None:
    if rope.get("rope_type") != _SWITCHED:
        return None
    known = rope.get("original_max_position_embeddings")
    if known is None:
        known = getattr(config, "original_max_position_embeddings", None)
    return None if known is None else int(known)
