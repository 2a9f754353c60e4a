"""The answer that `geomix analyze curvature` leads with: how curved, and definite or not?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from geomix.analysis.answer import aligned, file_map, fitted, names_of, seeds_of, shortened, wrapped
from geomix.analysis.curvature.result import WHOLE, Curvature, Spectrum
from geomix.analysis.findings import Finding
from geomix.measures.intervals import over_seeds
from geomix.measures.verdict import Verdict
from geomix.runs.directory import RunDirectory

_MOST_ROWS = 9
"""Rows of the table; the files have all."""

_NAME = 12
"""Width of a name in the table, in characters."""

_MOST_PAIRS = 2
"""Most pairs of arms in the answer."""

Group = tuple[str, str, str, str]
"""Arm, checkpoint, matrix and block: seeds are pooled."""


def answer(result: Curvature, stem: str, run: RunDirectory, files: Sequence[Path]) -> list[str]:
    """Return the question, the ends of the spectra, the verdict, and the list of files.

    Args:
        result: the curvature.
        stem: beginning of the files' names.
        run: the run in whose folder they lie.
        files: all that were written.
    """
    spectra = result.spectra
    places = dict.fromkeys(one.place.checkpoint for one in spectra)
    sets = dict.fromkeys(one.matrix for one in spectra)
    lines = wrapped(
        f"How curved are the losses at {names_of(places)}: the spectra of {names_of(sets)}"
    )
    facts = names_of(
        dict.fromkeys(f"{s.matrix} of {s.facts}" for s in spectra if "½" not in s.matrix)
    )
    seeds = seeds_of(one.place.seed for one in spectra)
    parts = filter(None, [f"{run.name}, {seeds}", facts, result.budget])
    lines += [*wrapped("; ".join(parts)), ""]
    lines += [*_table(result), ""]
    lines += [line for sentence in _sentences(result) for line in wrapped(sentence)]
    meanings = {
        "analysis/": "every number",
        "analysis/_density": "shares of eigenvalues",
        "analysis/_displacements": "κ of H and of Gauss–Newton",
        "analysis/_between_arms": "H_A δ and H_B δ",
        "figures/": "both ends of the spectra",
    }
    return fitted(lines, file_map(run, files, stem, meanings))


_UNIT = "nats per weight²"


def findings(result: Curvature) -> list[Finding]:
    """Judge whether each whole matrix is positive semidefinite; the tables judge the blocks."""
    found = []
    for (arm, checkpoint, matrix, block), seeds in _groups(result.spectra).items():
        if block != WHOLE:
            continue
        low, half = over_seeds([one.bottom[0] for one in seeds])
        claim = f"{matrix} at {checkpoint} is positive semidefinite, {arm}: smallest eigenvalue"
        word, counted = _verdict(seeds)
        if word == "refuted":
            sentence = f"{counted}: a Ritz value is below 0 by more than its residual and rounding."
        elif word == "supported":
            sentence = "All eigenvalues were computed."
        else:
            sentence = f"No negative eigenvalue was proved in {seeds[0].products} products."
        ends = (low - half, low + half)
        found.append(Finding(claim, low, *ends, _UNIT, len(seeds), word, sentence))
    return found


def _groups(spectra: Iterable[Spectrum]) -> dict[Group, list[Spectrum]]:
    found: dict[Group, list[Spectrum]] = {}
    for one in spectra:
        key = (one.place.arm, one.place.checkpoint, one.matrix, one.block)
        found.setdefault(key, []).append(one)
    return found


def _verdict(seeds: Sequence[Spectrum]) -> tuple[Verdict, str]:
    """Combine the seeds: one counterexample refutes, and the text counts the seeds with one."""
    refuted = sum(one.verdict == "refuted" for one in seeds)
    if refuted:
        return "refuted", f"refuted in {refuted} of {len(seeds)} seeds" if len(
            seeds
        ) > 1 else "refuted"
    if all(one.verdict == "supported" for one in seeds):
        return "supported", "supported"
    return "undetermined", "undetermined"


def _table(result: Curvature) -> list[str]:
    """Return the table: a row per arm and matrix, means over seeds, no column that all share."""
    groups = _groups(result.spectra)
    blocks = any(block != WHOLE for *_, block in groups)
    kinds = [len({key[i] for key in groups}) > 1 for i in range(2)]
    names = [n for n, several in zip(("arm", "at"), kinds, strict=True) if several]
    columns = {
        "loss": [[one.loss for one in seeds] for seeds in groups.values()],
        "smallest": [[one.bottom[0] for one in seeds] for seeds in groups.values()],
        "largest": [[one.top[0] for one in seeds] for seeds in groups.values()],
        "κ": [[one.along for one in seeds] for seeds in groups.values()],
        "permuted": [[one.permuted for one in seeds] for seeds in groups.values()],
    }
    if blocks:  # there is no room for both
        del columns["loss"], columns["permuted"]
    rows = [[*names, "matrix", *["block"] * blocks, *columns, "definite"]]
    for i, ((*place, matrix, block), seeds) in enumerate([*groups.items()][:_MOST_ROWS]):
        named = [shortened(p, _NAME) for p, several in zip(place, kinds, strict=True) if several]
        named += [_short(matrix), *[shortened(block, _NAME)] * blocks]
        means = [sum(column[i]) / len(column[i]) for column in columns.values()]
        rows.append([*named, *map(_number, means), _definite(seeds)])
    lines = aligned(rows)
    if (left := len(groups) - _MOST_ROWS) > 0:
        lines.append(f"… and {left} more rows in the files")
    return lines


def _definite(seeds: Sequence[Spectrum]) -> str:
    """Return `no`, `yes` or `?`; for several seeds the number that refute."""
    word, _ = _verdict(seeds)
    answer = {"refuted": "no", "supported": "yes"}.get(word, "?")
    if len(seeds) > 1 and word == "refuted":
        answer += f", {sum(one.verdict == 'refuted' for one in seeds)}/{len(seeds)}"
    return answer


def _short(matrix: str) -> str:
    return "½(…)" if matrix.startswith("½") else matrix


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    large = 1000 <= abs(value) < 1e6  # noqa: PLR2004
    return (f"{value:.0f}" if large else f"{value:.3g}").replace("-", "−")


def _sentences(result: Curvature) -> list[str]:
    spectra = result.spectra
    found = []
    for matrix in dict.fromkeys(one.matrix for one in spectra):
        mine = [one for one in spectra if one.matrix == matrix]
        refuted = [one for one in mine if one.verdict == "refuted"]
        if refuted:
            found.append(
                f"{matrix} is not positive semidefinite: refuted in {len(refuted)} of {len(mine)} "
                "matrices, by a Ritz value below 0 by more than its residual and rounding."
            )
        elif all(one.verdict == "supported" for one in mine):
            found.append(f"{matrix} is positive semidefinite: all eigenvalues were computed.")
        else:
            most = max(one.products for one in mine)
            found.append(
                f"{matrix}: undetermined; no negative eigenvalue was proved in {most} products."
            )
    if late := [one for one in spectra if one.state == "not converged"]:
        found.append(
            f"Not converged: {len(late)} of {len(spectra)} spectra; their best Ritz values stand "
            "here, their residuals in the table."
        )
    found += [
        f"{one.place.arm} against {one.other} at {one.place.checkpoint}: "
        f"cos(H_B δ, H_A δ) = {_number(one.cosine)}, ‖δ‖ = {_number(one.length)}."
        for one in result.turned[:_MOST_PAIRS]
    ]
    displacements = dict.fromkeys(
        one.displacement for one in result.along if math.isnan(one.spread)
    )
    if stages := [one for one in displacements if "(" not in one]:
        found.append(
            f"κ: curvature along {names_of(stages)}; permuted: its values shuffled within tensors."
        )
    if off := [a.disagreement for a in result.along if not math.isnan(a.disagreement)]:
        found.append(f"Differences of gradients: two step lengths disagree by {max(off):.1%}.")
    return found
