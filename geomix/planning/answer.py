"""The answer of a dry run, before its tables: whether it fits, what would, time and disk."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from geomix.planning.cost import amount
from geomix.planning.estimate import Arm
from geomix.planning.node import (
    EIGHT,
    GIB,
    Node,
    Way,
    other_ways,
    recorded_otherwise,
    way_of,
    way_with,
)

GB = 10**9

_PASSES = {False: 6, True: 8}
"""Operations per parameter and token: 2 forward, 4 backward, with checkpointing 2 forward again
(Kaplan et al. 2020, without those of attention)."""


_SPEED = 1e14
"""Operations per second for which the time is stated."""

_SHORT = 0.1
"""Hours below which the time is not informative: arithmetic no longer dominates."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Fit of an experiment's heaviest stage on a node.

    Attributes:
        node: the node.
        configured: the configuration as given.
        others: alternatives that were tried, the last of which fits if any does.
    """

    node: Node
    configured: Way
    others: tuple[Way, ...]

    def facts(self) -> dict[str, Any]:
        """Return the facts for JSON."""
        ways = [self.configured, *self.others]
        listed = [{**asdict(way), "verdict": self.node.verdict(way.memory)} for way in ways]
        return {**asdict(self.node), "ways": listed}


def this_machine() -> Node:
    """Return one process on this machine, with the first GPU if there is one."""
    import torch

    if torch.cuda.is_available():
        return Node(1, torch.cuda.get_device_properties(0).total_memory)
    return Node(1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), gpus=False)


def fits_of(arms: Sequence[Arm], costs: Mapping[str, Any], asked: Node | None) -> list[Fit]:
    """Return the fits of an experiment: on the requested node, or on this machine.

    If it does not fit this machine, 8 GPUs of 80 GB are tried too.

    Args:
        arms: of the experiment.
        costs: its own, for as many processes as the node has.
        asked: the requested node; None if not given.
    """
    heaviest = _heaviest(costs)
    if heaviest is None:
        return []
    position, index = heaviest
    found = []
    for node in (asked,) if asked else (this_machine(), EIGHT):
        first = [arms[position], *arms[:position], *arms[position + 1 :]]
        fit = _fit(first, index, node, costs)
        found.append(fit)
        if node.verdict(fit.configured.memory) != "does not fit":
            break
    return found


def _fit(arms: Sequence[Arm], index: int, node: Node, costs: Mapping[str, Any]) -> Fit:
    """Return the first (heaviest) arm's fit; alternatives that record less come first."""
    arm = arms[0]
    if node.processes == costs["processes"]:
        configured = way_with(arm, index, costs["memory"])  # of all arms
    else:
        found = way_of(arm, index, node.processes)
        assert found is not None
        configured = found
    others: list[Way] = []
    fine = node.verdict(configured.memory) == "fits"
    if not fine:
        others += recorded_otherwise(arms, index, node.processes, configured.memory)
    enough = any(node.verdict(way.memory) == "fits" for way in others)
    whole = configured.parallel == "ddp" or node.processes == 1
    if node.gpus and not enough and not (fine and whole):
        for way in other_ways(arm, index, node.processes):
            others.append(way)
            if fine or node.verdict(way.memory) == "fits":
                break
    return Fit(node, configured, tuple(others))


def _heaviest(costs: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the indices of the arm and stage with the largest step; None if no size is known."""
    known = [
        (max(stage["memory"], arm["snapshot_memory"] or 0), stage["memory"], -position, -index)
        for position, arm in enumerate(costs["arms"].values())
        for index, stage in enumerate(arm["stages"])
        if stage["memory"] is not None
    ]
    return (-max(known)[2], -max(known)[3]) if known else None


def answer_lines(
    fits: Sequence[Fit],
    costs: Mapping[str, Any],
    steps: int,
    at_most: bool,
    free: int,
    savings: Sequence[tuple[str, int]] = (),
) -> list[str]:
    """Return the lines that answer the user's first questions.

    Args:
        fits: fit of the experiment on each node.
        costs: of the experiment.
        steps: of all arms.
        at_most: whether a stage may end earlier.
        free: bytes free on the disk.
        savings: changes that save disk space, each with the bytes that remain.
    """
    lines = _absent_lines(costs["arms"])
    lines += [line for fit in fits for line in _fit_lines(fit, costs)]
    if not fits and costs["memory"] is None:
        lines.append("Memory: unknown, since the model's config.json is not on this machine")
    elif not fits:
        lines.append(f"Memory: ≈ {amount(costs['memory'])}, for snapshots alone")
    most = "at most " * at_most
    lines.append(f"Time: unknown until steps are timed; {most}{steps:,} steps")
    hours = sum(_work(arm) for arm in costs["arms"].values()) / _SPEED / 3600
    if hours >= _SHORT:
        several = any(fit.node.processes > 1 for fit in fits)
        whose = " of all GPUs together" * several
        lines.append(f"  ≈ {most}{hours:,.2g} h of training at 100 TFLOP/s{whose}")
    lines.append(_disk_line(costs, free))
    lines += [f"  with {change}: {amount(left)} in all" for change, left in savings]
    return lines


def _absent_lines(arms: Mapping[str, Any]) -> list[str]:
    known = {arm["model"]: arm["sizes_of"] for arm in arms.values() if arm["sizes_of"]}
    return [
        line
        for model, shape in known.items()
        for line in (f"model '{model}': no such folder;", f"  sizes are those of {shape}")
    ]


def _disk_line(costs: Mapping[str, Any], free: int) -> str:
    disk, within = costs["disk"], costs["disk_within"]
    if disk is None:
        return f"Disk: unknown ({amount(free)} free here)"
    whole = disk + within
    verdict = "fits" if whole <= free else "does not fit"
    return (
        f"Disk: ≈ {amount(disk)}, {amount(within)} more while it trains: "
        f"{verdict} ({amount(free)} free here)"
    )


def _work(arm: Mapping[str, Any]) -> float:
    """Return the operations of all training steps of an arm."""
    total: float = sum(
        _PASSES[stage["checkpointing"]] * stage["size"]["parameters"] * stage["tokens"]
        for stage in arm["stages"]
        if not stage["taken"] and stage["size"]
    )
    return total


def _fit_lines(fit: Fit, costs: Mapping[str, Any]) -> list[str]:
    node, configured = fit.node, fit.configured
    verdict = node.verdict(configured.memory)
    if not node.gpus:
        needed, here = amount(configured.memory), amount(node.memory)
        lines = [f"Memory: ≈ {needed} in one process: {verdict} on this machine ({here})"]
        ways = [(way, node.verdict(way.memory)) for way in fit.others]
        return lines + [
            f"  ≈ {amount(way.memory)}: {answer}; {_change(way, configured)}"
            for way, answer in ways
            if answer != "does not fit"
        ]
    gpus = "a GPU" if node.processes == 1 else f"{node.processes} GPUs"
    head = f"Memory: {verdict} on {gpus} of {node.memory / GIB:.3g} GB"
    lines = [head + " (assumed; yours: --gpus N --gpu-memory GB)" * node.assumed]
    for way in (configured, *fit.others):
        answer, names = (
            node.verdict(way.memory),
            [f"parallel: {way.parallel}"] * (node.processes > 1),
        )
        names += [way.precision] + ["checkpointing"] * way.checkpointing
        if way.record != configured.record:
            names.append("no record" if way.record == "none" else "record on disk")
        line = f"{amount(way.memory):>9} a GPU: {answer}; {', '.join(names)}"
        lines.append(line + " (as configured)" * (way == configured))
        if way != configured and answer != "does not fit":
            lines.append(f"{'':17}{_change(way, configured)}")
    lines += _state_lines(fit, costs)
    if node.processes > 1 and verdict != "does not fit":
        lines.append(f"  start: torchrun --nproc_per_node {node.processes} -m geomix train …")
    return lines


def _change(way: Way, configured: Way) -> str:
    """Return the settings for an alternative, and the disk space that it needs."""
    there = f" ({amount(way.scratch)} there in a snapshot)" * (way.scratch > configured.scratch)
    return way.keys(configured) + there


def _state_lines(fit: Fit, costs: Mapping[str, Any]) -> list[str]:
    """Return a line on the training state's memory if an unsharded alternative does not fit."""
    whole = [
        way
        for way in (fit.configured, *fit.others)
        if fit.node.verdict(way.memory) == "does not fit"
        and (way.parallel == "ddp" or fit.node.processes == 1)
        and way.precision != "bf16-pure"
    ]
    found = [
        (parts["weights"] + parts["gradients"] + parts["adam"], stage["size"])
        for arm in costs["arms"].values()
        for stage in arm["stages"]
        if (parts := stage["memory_of"]) is not None
    ]
    if not whole or not found:
        return []
    state, size = max(found, key=lambda pair: pair[0])
    each = state / size["parameters"]
    where = " in each process of ddp" * (fit.node.processes > 1)
    bytes_each = f"{each:.3g} bytes a parameter"
    return [f"  weights, gradients, Adam: {bytes_each}, {state / GB:.0f} GB{where}"]
