"""The identity method: plain fine-tuning, bit for bit."""

from __future__ import annotations

from geomix.training.methods.base import Method


class Plain(Method):
    """Plain fine-tuning; every hook does nothing."""

    sharded = True
