"""Training methods, such as those against forgetting: one file a method and one line here.

A method (`geomix.training.methods.base.Method`) acts at fixed places of a training step:

    begin_stage                 references of earlier stages, memories
    for each step
        extra_loss              with every micro-batch: nats, weighted as the batch is
        transform_gradients     after accumulation, before clipping; the weights are still θ_t
        after_update            the weights are θ_{t+1}
    end_stage
    state, restore              part of every checkpoint, so that resuming stays exact

A stage names its methods under `method`; they act in the order of the list. A method of strength 0
is not built, so such a run is the plain one bit for bit. Another package adds a method through an
entry point of the group `geomix.methods`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from geomix.util.registry import Registry

if TYPE_CHECKING:
    from geomix.training.methods.base import Method

METHODS: Registry[type[Method]] = Registry(
    "method",
    "geomix.methods",
    {"none": "geomix.training.methods.none:Plain"},
)
"""All methods by their name in a stage."""
