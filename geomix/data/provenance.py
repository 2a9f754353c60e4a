"""Contents of `data.json`: a stage's examples and their sources."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from geomix.data.duplicates import duplicates_in
from geomix.data.example import Example, TokenisedExample
from geomix.data.plan import StagePlan
from geomix.util.errors import UserError
from geomix.util.reading import as_written, parse_json


def content_hash(examples: Sequence[Example]) -> str:
    """Hash all trained texts in order (SHA-256): prompts, targets, earlier exchanges."""
    digest = hashlib.sha256()
    for example in examples:
        trained = [example.prompt, example.target, *(example.earlier and [example.earlier])]
        digest.update(json.dumps(trained).encode())
    return digest.hexdigest()


def tokens_hash(examples: Sequence[TokenisedExample]) -> str:
    """Hash the tokens and labels of examples in order (SHA-256): the model's input."""
    digest = hashlib.sha256()
    for example in examples:
        whole = (len(example.ids), *example.ids, *example.labels)
        digest.update(np.array(whole, dtype="<i8").tobytes())
    return digest.hexdigest()


def listed(plan: StagePlan) -> str:
    """Return `examples.jsonl`: set, prompt, target and earlier exchanges of every example."""
    lines = [
        json.dumps(
            {"set": name, "prompt": e.prompt, "target": e.target}
            | ({"earlier": e.earlier} if e.earlier else {}),
            ensure_ascii=False,
        )
        for name, part in plan.sets.items()
        for e in part.examples
    ]
    return "".join(f"{line}\n" for line in lines)


def describe(
    plan: StagePlan, tokenised: Mapping[str, Sequence[TokenisedExample]]
) -> dict[str, Any]:
    """Return `data.json`: sources, counts, hashes, and each set's weight in the loss (w_A, w_M, …).

    `distinct` is below `examples` if some are repeated; `duplicates` counts repeated examples, and
    `in_common` the own prompts that earlier stages have too. The weights are those of an epoch.

    Args:
        plan: of the stage.
        tokenised: the examples of each of its sets.
    """
    tokens = {name: sum(e.target_tokens for e in found) for name, found in tokenised.items()}
    trained = {name: part for name, part in plan.sets.items() if part.trained}
    all_tokens = sum(tokens[name] for name in trained)
    all_examples = sum(len(part.examples) for part in trained.values())
    return {
        "sets": {
            name: {
                "source": part.source,
                "examples": len(part.examples),
                "distinct": len({(e.prompt, e.target, e.earlier) for e in part.examples}),
                "target_tokens": tokens[name],
                "sha256": content_hash(part.examples),
                "tokens_sha256": tokens_hash(tokenised[name]),
                "dropped": part.dropped,
                "duplicates": asdict(duplicates_in(part.examples)),
                "trained": part.trained,
                "effective_weight": {
                    "token": tokens[name] / all_tokens if part.trained else 0.0,
                    "example": len(part.examples) / all_examples if part.trained else 0.0,
                },
            }
            for name, part in plan.sets.items()
        },
        "in_common": {name: asdict(found) for name, found in plan.in_common.items()},
    }


def read_listed(run: Path, name: str) -> list[Example]:
    """Read the examples of a set, from `examples.jsonl` of the first stage that trained on it.

    Args:
        run: the folder of a run without arms, or of an arm.
        name: of the set.

    Raises:
        UserError: no started stage trains on such a set, or the file is damaged.
    """
    known: dict[str, None] = {}
    for file in sorted(run.glob("stages/*/examples.jsonl")):
        with file.open("rb") as lines:
            rows = [parse_json(f"{file}:{n}", line) for n, line in enumerate(lines, start=1)]
        known |= dict.fromkeys(str(row.get("set")) for row in rows)
        if name in known:
            with as_written(file):
                return [_example(row) for row in rows if row["set"] == name]
    there = ", ".join(known) or "none yet"
    raise UserError(f"{run}: no stage trained on {name}; there are: {there}")


def _example(row: dict[str, Any]) -> Example:
    earlier = tuple((str(prompt), str(target)) for prompt, target in row.get("earlier", ()))
    return Example(str(row["prompt"]), str(row["target"]), earlier=earlier)
