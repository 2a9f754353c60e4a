"""The recording part of a configuration: what a run records while it trains."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from geomix.config.data import Count, CountOrNone, Mix, Seed, Strict
from geomix.config.quantities import Quantities


def _scheduled(at: list[str | int]) -> list[str | int]:
    """Reject items that `geomix.config.schedule` cannot read."""
    for item in at:
        if not re.fullmatch("boundaries|(log|every):[1-9][0-9]{0,8}|[0-9]{1,9}", str(item)) or (
            isinstance(item, str) and item.isdigit()
        ):
            raise ValueError(
                f"{item!r:.30} is not 'boundaries', 'log:N', 'every:N' (N from 1) "
                "or a step's number from 0"
            )
    return at


def _square(entries: int) -> int:
    """Reject numbers that are not a perfect square."""
    if math.isqrt(entries) ** 2 != entries:
        raise ValueError(f"{entries} is not the square of a whole number, as 16, 64 and 256 are")
    return entries


class SketchConfig(Strict):
    """Random projections of every probe example's gradient, one for each parameter tensor.

    Inner products of sketches are unbiased for those of the gradients; their variance is in
    `geomix.measures.sketch`.
    """

    entries: Annotated[Count, Field(le=1 << 16), AfterValidator(_square)] = 64
    """Numbers per example and parameter tensor, a perfect square: a matrix is projected from both
    sides."""
    seed: Seed = 0
    """Seed of the projections, which otherwise depend only on a parameter's name and shape: runs
    with the same seed can be compared."""


Preset = Literal["light", "path"]

_PRESETS: dict[str, dict[str, Any]] = {
    "light": {},  # the fields' own defaults
    "path": {
        "at": ["every:1"],
        "midpoints": True,
        "pairs": True,
        "activations": 0,
        "lens": False,
        "scratch": "disk",  # in memory it would hold the gradients of two checkpoints
    },
}


class RecordConfig(Strict):
    """Recording of snapshots while the run trains.

    The probe sets' loss uses the first stage's reduction and precision throughout the run.
    """

    preset: Preset = "light"
    """Defaults of the keys that are not given: `light` (small probes, few snapshots) has the
    defaults named here; `path`, which shows where the forgetting happens, has `at: [every:1]`,
    `midpoints: true`, `pairs: true`, `activations: 0`, `lens: false` and `scratch: disk`. `geomix
    config show` shows the result."""
    at: Annotated[list[str | int], AfterValidator(_scheduled)] = Field(
        default=["boundaries", "log:4"]
    )
    """Steps to record: `boundaries`, `log:N` and `every:N` in each stage, or a step's number."""
    probes: Count = 64
    """Most examples in a probe set; a larger set is represented by its first examples."""
    batch_size: Count = 32
    """Examples in one forward and backward pass of a snapshot."""
    mix: Mix = None
    """D_M probe set of a run that mixes nothing in; otherwise the first stage's mix is used. A list
    makes several, each where no stage mixes in a set of its name."""
    activations: CountOrNone = 16
    """Examples per set whose residual activations, with their gradients, are stored."""
    lens: bool = True
    """Rank and log-probability of each target token after every layer, for the examples whose
    activations are stored (the logit lens)."""
    modules: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Modules whose outputs, with their gradients, are stored for the same examples: names as in
    `model.named_modules()`, where `*` matches any part, such as `*.mlp`."""
    adam: bool = True
    """Also store the inner products in Adam's metric, once Adam has a state: each parameter is
    weighed by 1 / (√v̂ + ε)."""
    sketches: SketchConfig | None = None
    """Sketches of every single probe example's gradient; `{}` takes the defaults, null makes none.
    The gradient at every module's output is then held during a batch."""
    weights: bool = False
    """Keep the model's weights and Adam's v̂ of every snapshot within a stage, in the stage's
    folder `weights`. Analyses that need weights (angles with the update, by attention head, of
    single examples, in one metric for several runs) then cover these checkpoints too."""
    gradients: bool = False
    """Keep each set's whole gradient: one model's size on disk per set and snapshot."""
    midpoints: bool = False
    """Between snapshots, record the gradients' products with the step that the weights took, at its
    start, middle and end (Simpson's rule); with `train.update_shares` also for each source's
    part."""
    pairs: bool = False
    """Also record the products with the step between every other snapshot, at its ends: they show
    whether the path splits alike with half the snapshots. The gradients, weights and parts of one
    more step are then held."""
    quantities: Quantities = ()
    """Further quantities of the probe sets: a name, a mapping of `name` and its options, or a list
    of these."""
    scratch: Literal["memory", "disk"] = "memory"
    """Storage of the probe sets' gradients while a snapshot is computed."""

    @model_serializer(mode="wrap")
    def _without_quantities(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit `quantities` if there are none, so that earlier configurations keep their hash."""
        found: dict[str, Any] = handler(self)
        if not self.quantities:
            found.pop("quantities", None)
        return found

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, given: Any) -> Any:
        """Fill the keys that are not given from the preset."""
        if not isinstance(given, dict):
            return given
        preset = given.get("preset")
        filled = {**_PRESETS.get(preset if isinstance(preset, str) else "", {}), **given}
        without = type(filled.get("activations")) is int and filled["activations"] == 0
        if given.get("midpoints") is False:  # the preset's pairs need midpoints
            filled["pairs"] = given.get("pairs", False)
        return {"lens": False, **filled} if without else filled

    @model_validator(mode="after")
    def _needs_activations(self) -> RecordConfig:
        """Reject options that need stored activations where none are stored."""
        if self.activations == 0 and (self.lens or self.modules):
            key = "lens" if self.lens else "modules"
            raise ValueError(f"{key} looks where activations are kept; give record.activations > 0")
        if self.pairs and not self.midpoints:
            raise ValueError("pairs are of the path's pieces; give record.midpoints: true")
        return self
