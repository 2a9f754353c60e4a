"""The recording part of a configuration: what is written down while a run trains."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from geomix.config.data import Count, CountOrNone, Mix, Seed, Strict


def _scheduled(at: list[str | int]) -> list[str | int]:
    """Refuse what `geomix.config.schedule` cannot read."""
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
    """Refuse what has no two equal sides."""
    if math.isqrt(entries) ** 2 != entries:
        raise ValueError(f"{entries} is not the square of a whole number, as 16, 64 and 256 are")
    return entries


class SketchConfig(Strict):
    """Random projections of every probe example's gradient, one for each parameter tensor.

    Inner products of sketches are unbiased for those of the gradients; their variance is in
    `geomix.measures.sketch`.
    """

    entries: Annotated[Count, Field(le=1 << 16), AfterValidator(_square)] = 64
    """Numbers an example and parameter tensor, the square of a whole number: a matrix is projected
    from both sides."""
    seed: Seed = 0
    """Seed of the projections, which depend on nothing else but a parameter's name and shape: runs
    with the same seed can be compared."""


Preset = Literal["light", "path"]

_LAID_UNDER: dict[str, dict[str, Any]] = {
    "light": {},  # the fields' own defaults
    "path": {
        "at": ["every:1"],
        "midpoints": True,
        "pairs": True,
        "activations": 0,
        "lens": False,
        "scratch": "disk",  # or it would hold the gradients of two moments
    },
}


class RecordConfig(Strict):
    """What the recorder writes while the run trains.

    The probe sets' loss has the first stage's reduction and precision in the whole run.
    """

    preset: Preset = "light"
    """What the keys that are not given are: `light` (small probes, few snapshots) has the defaults
    named here; `path`, for where the forgetting happens, has `at: [every:1]`, `midpoints: true`,
    `pairs: true`, `activations: 0`, `lens: false` and `scratch: disk`. `geomix config show` shows
    what it makes."""
    at: Annotated[list[str | int], AfterValidator(_scheduled)] = Field(
        default=["boundaries", "log:4"]
    )
    """When: `boundaries`, `log:N` and `every:N` steps in each stage, or a step's number."""
    probes: Count = 64
    """Most examples in a probe set; a larger set is represented by its first examples."""
    batch_size: Count = 32
    """Examples in one forward and backward pass of a snapshot."""
    mix: Mix = None
    """The D_M probe set of a run that mixes nothing in; else the first stage's mix is taken."""
    activations: CountOrNone = 16
    """Of how many examples a set the residual activations and their gradients are kept."""
    lens: bool = True
    """Rank and log-probability of each target token after every layer, where activations are kept
    (the logit lens)."""
    modules: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Modules whose outputs, and the gradients there, are kept where activations are: names as in
    `model.named_modules()`, of which `*` stands for any part, such as `*.mlp`."""
    adam: bool = True
    """Also the inner products in Adam's metric, once there is one: each parameter weighed by
    1 / (√v̂ + ε)."""
    sketches: SketchConfig | None = None
    """Whether the gradient of every single probe example is sketched; `{}` takes the defaults. The
    gradient at every module's output is then held while a batch is in hand."""
    weights: bool = False
    """Keep the model's weights and Adam's v̂ of every snapshot within a stage, in the stage's folder
    `weights`: what is computed from weights (angles with the update, by attention head, of single
    examples, in one metric for several runs) can then be had of these moments too."""
    gradients: bool = False
    """Keep each set's whole gradient: a model's size on disk for every set and snapshot."""
    midpoints: bool = False
    """Between snapshots, the gradients' products with the step that the weights made, at its
    start, middle and end (Simpson's rule); with `train.update_shares` for each source's part."""
    pairs: bool = False
    """Also the products with the step between every other snapshot, at its ends: whether the path
    splits alike with half the snapshots. The gradients, weights and parts of one more step are then
    held."""
    scratch: Literal["memory", "disk"] = "memory"
    """Where the gradients of the probe sets lie while a snapshot is taken."""

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, given: Any) -> Any:
        """Lay the preset under the keys that are given."""
        if not isinstance(given, dict):
            return given
        preset = given.get("preset")
        filled = {**_LAID_UNDER.get(preset if isinstance(preset, str) else "", {}), **given}
        without = type(filled.get("activations")) is int and filled["activations"] == 0
        if given.get("midpoints") is False:  # the preset's pairs are pairs of them
            filled["pairs"] = given.get("pairs", False)
        return {"lens": False, **filled} if without else filled

    @model_validator(mode="after")
    def _looked_at(self) -> RecordConfig:
        """Refuse a look at positions of which none is kept."""
        if self.activations == 0 and (self.lens or self.modules):
            key = "lens" if self.lens else "modules"
            raise ValueError(f"{key} looks where activations are kept; give record.activations > 0")
        if self.pairs and not self.midpoints:
            raise ValueError("pairs are of the path's pieces; give record.midpoints: true")
        return self
