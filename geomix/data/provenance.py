"""What `data.json` says of a stage's examples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from geomix.data.duplicates import duplicates_in
from geomix.data.example import Example, TokenisedExample
from geomix.data.plan import StagePlan


def content_hash(examples: Sequence[Example]) -> str:
    """SHA-256 over everything that is trained on, in order: prompts, targets, earlier exchanges."""
    digest = hashlib.sha256()
    for example in examples:
        trained = [example.prompt, example.target, *(example.earlier and [example.earlier])]
        digest.update(json.dumps(trained).encode())
    return digest.hexdigest()


def tokens_hash(examples: Sequence[TokenisedExample]) -> str:
    """SHA-256 over the tokens of examples and their labels, in order: what the model is given."""
    digest = hashlib.sha256()
    for example in examples:
        whole = (len(example.ids), *example.ids, *example.labels)
        digest.update(np.array(whole, dtype="<i8").tobytes())
    return digest.hexdigest()


def listed(plan: StagePlan) -> str:
    """`examples.jsonl`: the set, prompt and target of every example, and what is before them."""
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
    """`data.json`: sources, counts, hashes, and what each set weighs in the loss (w_A, w_M, …).

    `distinct` is under `examples` where some are repeated; `duplicates` counts what stands there
    twice, and `in_common` the own prompts that earlier stages have too. The weights are those of an
    epoch.

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
