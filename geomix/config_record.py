"""The recording part of a configuration: what is written down while a run trains."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from geomix.config_data import Count, CountOrNone, Mix, Strict


def _scheduled(at: list[str | int]) -> list[str | int]:
    """Refuse what `geomix.record.schedule` cannot read."""
    for item in at:
        if not re.fullmatch("boundaries|(log|every):[1-9][0-9]{0,8}|[0-9]{1,9}", str(item)) or (
            isinstance(item, str) and item.isdigit()
        ):
            raise ValueError(
                f"{item!r:.30} is not 'boundaries', 'log:N', 'every:N' (N from 1) "
                "or a step's number from 0"
            )
    return at


class RecordConfig(Strict):
    """What the recorder writes while the run trains.

    The probe sets' loss has the first stage's reduction and precision in the whole run.
    """

    at: Annotated[list[str | int], AfterValidator(_scheduled)] = Field(
        default=["boundaries", "log:4"]
    )
    """When: `boundaries`, `log:N` and `every:N` steps in each stage, or a step's number."""
    probes: Count = 128
    """Most examples in a probe set; a larger set is represented by its first examples."""
    batch_size: Count = 32
    """Examples in one forward and backward pass of a snapshot."""
    mix: Mix = None
    """The D_M probe set of a run that mixes nothing in; else the first stage's mix is taken."""
    activations: CountOrNone = 16
    """Of how many examples a set the residual activations and their gradients are kept."""
