"""Curvature at the checkpoints of every arm and seed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict

import numpy as np
from torch import Tensor

from geomix.analysis.base import Log
from geomix.analysis.curvature import Asked
from geomix.analysis.curvature.at_checkpoint import (
    DRAWS,
    MOST,
    STARTS,
    CheckpointCurvature,
    along,
    steps_of,
)
from geomix.analysis.curvature.operators import SetHessian, by_differences, peak_memory
from geomix.analysis.curvature.result import Curvature, Place, Turned
from geomix.analysis.layout import groups_of
from geomix.analysis.partial_results import ArmResults, Unfinished, arm_results
from geomix.analysis.replicates import replicates, seed_of
from geomix.config.names import letter_of
from geomix.experiments.past_weights import folder_of, model_at
from geomix.experiments.precise import PreciseArm, checkpoints_of
from geomix.gradients.vectors import Vector, cosine, minus, norm
from geomix.runs.directory import RunDirectory
from geomix.util.errors import UserError
from geomix.util.progress import duration, phase


def measure(
    runs: Sequence[RunDirectory], asked: Asked, log: Log, kept: Unfinished | None = None
) -> Curvature:
    """Measure every arm and seed.

    Args:
        runs: the opened runs.
        asked: the options, with lists split.
        log: receives the expected cost, once a product is timed.
        kept: results of an earlier call that was interrupted; receives those of this one.

    Raises:
        UserError: a set or a checkpoint is missing, or the weights cannot be differentiated.
    """
    pairs = [(run, arm) for run in runs for arm in run.arms]
    labels = {arm: label for label, members in replicates(runs, pairs) for arm in members}
    for arm in labels:  # before anything takes long
        there = checkpoints_of(arm)
        for name in asked.at:
            if name not in there:
                raise UserError(f"--at {name[:40]}: {arm.path} has weights of {', '.join(there)}")
    result = Curvature()
    count = len(labels) * len(asked.at)
    for run in runs:
        for arm in run.arms:
            others = [one for one in run.arms if one != arm] if arm == run.arms[0] else []
            with phase(f"{arm.name}: curvature"):
                one = _Measured(arm, labels[arm], asked, result, log, count)
                one.measure({labels[other]: other for other in others}, kept or Unfinished())
    return result


class _Measured:
    """Measurement of one arm of one seed."""

    def __init__(
        self,
        arm: RunDirectory,
        label: str,
        asked: Asked,
        result: Curvature,
        log: Log,
        places: int,
    ) -> None:
        self.label, self.asked, self.result, self.log = label, asked, result, log
        self.places = places
        self.arm = PreciseArm.open(arm, attention=None if asked.differences else "eager")
        self.seed = seed_of(arm)
        self.sets = asked.sets or tuple(stage.plan.name for stage in self.arm.stages[:2])
        for name in self.sets:
            if name not in self.arm.sets:
                there = ", ".join(self.arm.sets)
                raise UserError(f"--sets {name[:40]}: {arm.path} has {there}")
        if asked.symmetrised and len(self.sets) <= 1:
            raise UserError("--symmetrised: a product of two Hessians needs two --sets")

    def measure(self, others: Mapping[str, RunDirectory], kept: Unfinished) -> None:
        """Measure at every requested checkpoint, unless its results are kept already."""
        for checkpoint in self.asked.at:
            ends = others if re.fullmatch("[A-Z]", checkpoint) else {}
            results, stored = self._results(kept, ends, checkpoint), self.arm.stored[checkpoint]
            if (known := results.tables(stored)) is None:
                part = self._measured(checkpoint, ends)
                results.keep_tables(stored, part.to_json())
            else:
                part = Curvature.of_json(known)
            self.result.extend(part)

    def _results(
        self, kept: Unfinished, others: Mapping[str, RunDirectory], checkpoint: str
    ) -> ArmResults:
        """Return the arm's partial results; they depend on the others' weights, too."""
        settings = {**asdict(self.asked), "at": checkpoint, "label": self.label}
        settings |= {"others": list(others)}
        folders = [folder_of(run, checkpoint) for run in others.values()]
        of = [folder for folder in folders if folder is not None]
        return arm_results(kept, self.arm.past, settings, of)

    def _measured(self, checkpoint: str, others: Mapping[str, RunDirectory]) -> Curvature:
        self.arm.move_to(checkpoint)
        place = Place(self.label, self.seed, f"θ_{checkpoint}")
        displacement = self._displacement(checkpoint)
        part = Curvature()
        with self._hessians() as hessians:
            if not self.result.budget:
                self._log_cost(hessians[0], displacement)
            CheckpointCurvature(place, self.arm, self.asked, hessians, part).measure(displacement)
            for other, run in others.items():
                self._between(place, hessians, other, run, checkpoint, part)
        return part

    @contextmanager
    def _hessians(self) -> Iterator[list[SetHessian]]:
        """Provide the sets' Hessians at the present weights, with graphs kept."""
        with ExitStack() as stack:
            found = []
            for name in self.sets:
                objective = self.arm.objective(name, facts=self.asked.facts)
                loss, half = objective.loss(), max(1, -(-objective.batches[0].examples // 2))
                other = self.arm.objective(name, facts=self.asked.facts, batch_size=half)
                if self.asked.differences:
                    hessian = SetHessian(name, objective.counted, loss, dict, dict, None)

                    def report(value: float, hessian: SetHessian = hessian) -> None:
                        hessian.disagreement = float(np.fmax(hessian.disagreement, value))

                    hessian.product = by_differences(objective, self.arm, report)
                    hessian.again = by_differences(other, self.arm, report)
                else:
                    kept = stack.enter_context(objective.kept())
                    outer = objective.gauss_newton_product  # called too seldom to keep its graph
                    products = (kept.hessian, other.hessian_product, outer)
                    hessian = SetHessian(name, objective.counted, loss, *products)
                found.append(hessian)
            yield found

    def _displacement(self, checkpoint: str) -> tuple[str, dict[str, Tensor]] | None:
        """Return the displacement of the stage after a checkpoint, or of the last stage."""
        there = self.arm.checkpoints
        start = checkpoint.partition("+")[0]
        index = (
            0 if start == "0" else 1 + [s.plan.name for s in self.arm.stages].index(f"D_{start}")
        )
        last = len(self.arm.stages) - 1
        stage = min(index, last)
        begin, end = "0" if stage == 0 else letter_of(stage - 1), letter_of(stage)
        if begin not in there or end not in there:
            return None
        displacement = minus(self.arm.weights(end), self.arm.weights(begin))
        return f"θ_{end} − θ_{begin}", displacement

    def _log_cost(self, hessian: SetHessian, displacement: tuple[str, Vector] | None) -> None:
        """Report the expected cost of all spectra's ends, from one timed product."""
        v = displacement[1] if displacement else self.arm.here()
        hessian(v)  # builds the graph
        hessian(v)
        asked, matrices = self.asked, len(self.sets)
        most = asked.products or MOST
        total = matrices * (most + 4 + DRAWS)
        if asked.symmetrised:
            total += asked.products or 4 * MOST
        if asked.by == "layer":
            groups = groups_of(self.arm.loaded.model, self.arm.parameters, "layer")
            total *= len(set(groups.values()))
        total += matrices * (30 * asked.trace + STARTS * steps_of(asked) * asked.density)
        total *= self.places
        self.result.budget = (
            f"at most {total} products of {hessian.seconds:.2g} s, "
            f"{duration(total * hessian.seconds)} in all; {peak_memory():.2g} GiB"
        )
        self.log(
            f"{self.result.budget}. --products N ends each spectrum after N of them, --facts N "
            "makes each cheaper"
        )
        with phase(self.result.budget, long=True):  # has a line also where nothing is a terminal
            pass

    def _between(
        self,
        place: Place,
        hessians: Sequence[SetHessian],
        other: str,
        run: RunDirectory,
        checkpoint: str,
        part: Curvature,
    ) -> None:
        """Measure along δ, from this arm's checkpoint to another arm's."""
        theirs = dict(model_at(run, checkpoint).model.named_parameters())
        here = self.arm.here()
        if any(name not in theirs for name in here):
            return
        delta = minus({n: theirs[n].detach().to(t) for n, t in here.items()}, here)
        if not norm(delta):
            return  # both took this checkpoint from one training
        name = f"{place.checkpoint}({other}) − {place.checkpoint}"
        images = [along(place, h, name, delta, part) for h in hessians]
        if len(images) > 1:
            first, second = images[:2]
            norms = (norm(first), norm(second), norm(delta))
            turned = Turned(place, other, cosine(first, second), *norms)
            part.turned.append(turned)
