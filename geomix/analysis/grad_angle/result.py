"""Angles between gradients, and between gradients and updates, by depth and over training.

Shapes: n runs of an arm that differ in their seeds, m checkpoints, p parameter tensors or slices of
them, g groups of these, d directions, S probe sets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from geomix.analysis.checkpoints import NamedCheckpoint
from geomix.analysis.directions import HELD_OUT, rank
from geomix.analysis.grad_angle.asked import MetricName
from geomix.analysis.grad_angle.pair import Pair, null_of
from geomix.analysis.parameter_groups import Kind, Layout, grouped
from geomix.analysis.replicates import suffix_of
from geomix.measures.cosine import Floats, cosines, group_inner_products, norms
from geomix.measures.intervals import over_seeds
from geomix.measures.verdict import Rule

WHOLE = "all"
"""Group of all parameters: the whole model."""

UNDETERMINED = "undetermined"


@dataclass(frozen=True, slots=True)
class AngleRow:
    """Row of the tidy table: two directions in one group at one checkpoint of one arm.

    Attributes:
        arm, stage, step, moment: where in training; `moment` is `θ_0`, `θ_A`, `θ_A+4`, `θ_B`, …
        reduction: of the mean loss of these gradients.
        metric: `euclidean`, or `adam`.
        source: `record` or `weights`, the data of the computation.
        group: `all`, or a layer, module, head or parameter.
        place: the group's position in depth: for a parameter its layer, else the group itself.
        first, second: the directions: probe sets, `shuffled`, `update`.
        cosine: in [−1, 1], mean over seeds; nan if a direction is zero.
        half_width: half of its 95 % interval over seeds (Student's t); nan with one seed.
        n: seeds.
        told: `undetermined` if there is no cosine, or its interval over seeds contains 0.
        angle_degrees: in [0, 180], of that cosine; nan if the cosine is.
        inner_product: mean over seeds, nats² per squared unit of the parameters.
        norm_first, norm_second: likewise, nats per unit of the parameters; an update's in units of
            the parameters.
        values: the cosine of each seed.
    """

    arm: str
    stage: int
    step: int
    moment: str
    reduction: str
    metric: str
    source: str
    group: str
    place: str
    first: str
    second: str
    cosine: float
    half_width: float
    n: int
    told: str
    angle_degrees: float
    inner_product: float
    norm_first: float
    norm_second: float
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Secants:
    """Sums over parameters of `geomix.analysis.from_weights.Secant`; nan where there is none.

    Attributes:
        here, start, turned: `(n, m, p, S)`.
        moved: `(n, m, p)`.
    """

    here: Floats
    start: Floats
    turned: Floats
    moved: Floats


@dataclass(frozen=True, slots=True)
class ArmAngles:
    """Geometry of one arm.

    Attributes:
        arm: its name.
        runs: folders of its n runs.
        seeds: theirs.
        sets: probe sets, S of them.
        directions: the d names; the sets come first.
        checkpoints: the checkpoints that all its runs have, in the order of training.
        sources: for each checkpoint, `record` or `weights`.
        inner: `(n, m, p, d, d)` inner products; nan if a direction is unknown at a checkpoint.
        secants: of the sets.
        probes: for each set, the number of examples probed, and its size; empty if unknown.
    """

    arm: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    sets: tuple[str, ...]
    directions: tuple[str, ...]
    checkpoints: tuple[NamedCheckpoint, ...]
    sources: tuple[str, ...]
    inner: Floats
    secants: Secants
    probes: dict[str, tuple[int, int]]

    @property
    def labels(self) -> list[str]:
        """Labels of its checkpoints."""
        return [one.label for one in self.checkpoints]

    @property
    def whole_sets(self) -> list[str]:
        """Sets of which every example was probed; held-out examples are a sample of a template."""
        return [name for name, (n, of) in self.probes.items() if n == of and name != HELD_OUT]

    def cosine(self, label: str, first: str, second: str) -> Floats:
        """Return `(n,)` cosines of the whole model at one checkpoint, one a seed; nan if unknown.

        Raises:
            ValueError: there is no such checkpoint.
        """
        m = self.labels.index(label)
        if first not in self.directions or second not in self.directions:
            return np.full(len(self.runs), np.nan)
        i, j = self.directions.index(first), self.directions.index(second)
        return np.asarray(cosines(self.inner[:, m].sum(axis=1))[:, i, j])

    def null(self, label: str, first: str, second: str) -> Floats:
        """Return the null of a pair's cosine (`pair.null_of`), `(n,)`; nan without one."""
        known = null_of(first, second)
        return np.full(len(self.runs), np.nan) if known is None else self.cosine(label, *known)


@dataclass(frozen=True)
class GradAngle:
    """Angles of one or several runs.

    Attributes:
        runs: folders of the runs.
        by: grouping of the parameters.
        metric: metric of the inner products.
        layout: layout of the parameters.
        arms: the arms with results.
        missing: names of the arms without results.
        remarks: checkpoints that could not be measured, with reasons.
        at: the requested checkpoints; empty for all.
        rule: rule by which effects are judged.
        pair: the sets to compare.
    """

    runs: tuple[str, ...]
    by: Kind
    metric: MetricName
    layout: Layout
    arms: tuple[ArmAngles, ...]
    missing: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    at: tuple[str, ...] = ()
    rule: Rule = field(default_factory=Rule)
    pair: Pair = field(default_factory=Pair)

    @property
    def run(self) -> str:
        """Name of the first run."""
        return self.runs[0].rstrip("/").rsplit("/", 1)[-1]

    @property
    def stem(self) -> str:
        """Name of the result's files, without a suffix."""
        parts = ["grad_angle", *(self.pair.names if self.pair != Pair() else ())]
        parts += [f"by_{self.by}"] if self.by != "layer" else []
        parts += [self.metric] if self.metric != "euclidean" else []
        parts += [f"at_{'_'.join(item.strip() for item in self.at)}"] if self.at else []
        return "_".join(parts) + suffix_of(self.runs)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Names of the g groups: the whole model, then from the embedding to the head."""
        return (WHOLE, *grouped(self.layout, self.by)[0])

    @cached_property
    def places(self) -> tuple[str, ...]:
        """Position in depth of each group."""
        if self.by != "parameter":
            return self.groups
        layers, at = grouped(self.layout, "layer")
        return (WHOLE, *(layers[i] for i in at))

    @property
    def directions(self) -> list[str]:
        """Directions that any arm has: D_A, D_B, …, D_M, the nulls, then the update."""
        found = {name for arm in self.arms for name in arm.directions}
        return sorted(found, key=rank)

    def grouped_inner(self, arm: ArmAngles, by: Kind | None = None) -> Floats:
        """Return `(n, m, g, d, d)` inner products, the whole model first."""
        _, index = grouped(self.layout, by or self.by)
        each = arm.inner.reshape(-1, *arm.inner.shape[2:])
        sums = [
            np.concatenate([one.sum(axis=0, keepdims=True), group_inner_products(one, index)])
            for one in each
        ]
        return np.stack(sums).reshape(*arm.inner.shape[:2], -1, *arm.inner.shape[3:])

    def rows(self, by: Kind | None = None) -> Iterator[AngleRow]:
        """Yield the tidy table: every arm, checkpoint, group and known pair of directions.

        Args:
            by: another grouping than the result's own.
        """
        own = by is None or by == self.by
        names = self.groups if own else (WHOLE, *grouped(self.layout, by or self.by)[0])
        places = self.places if own else names
        for arm in self.arms:
            inner = self.grouped_inner(arm, by)
            cosine, norm = cosines(inner), norms(inner)
            order = sorted(range(len(arm.directions)), key=lambda i: rank(arm.directions[i]))
            pairs = [(i, j) for k, i in enumerate(order) for j in order[k + 1 :]]
            for m, here in enumerate(arm.checkpoints):
                at = (arm.arm, here.stage, here.step, here.label, here.reduction)
                where = (*at, self.metric, arm.sources[m])
                for g, group in enumerate(zip(names, places, strict=True)):
                    for i, j in pairs:
                        if np.isnan(inner[:, m, 0, i, j]).all():
                            continue
                        values = cosine[:, m, g, i, j]
                        mean, half = over_seeds(values)
                        yield AngleRow(
                            *where,
                            *group,
                            arm.directions[i],
                            arm.directions[j],
                            cosine=mean,
                            half_width=half,
                            n=len(values),
                            told=determination(mean, half),
                            angle_degrees=float(np.degrees(np.arccos(mean))),
                            inner_product=float(inner[:, m, g, i, j].mean()),
                            norm_first=float(norm[:, m, g, i].mean()),
                            norm_second=float(norm[:, m, g, j].mean()),
                            values=tuple(map(float, values)),
                        )


def determination(mean: float, half: float) -> str:
    """Return `undetermined` for a cosine of unknown sign; "" for others, as of a single run."""
    if np.isnan(mean) or abs(mean) <= half:
        return UNDETERMINED
    return ""
