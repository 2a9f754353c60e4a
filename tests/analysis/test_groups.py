"""Layers and modules crossed: names that tell modules apart, in the model's order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geomix.analysis.parameter_groups import layer_modules
from geomix.api import Run
from geomix.models.layers import location_of
from geomix.snapshots.file import read_snapshot
from geomix.snapshots.schema import Snapshot

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory, random_gradients: Make, write_arm: Make) -> Any:
    """Any snapshot, to be given other parameters."""
    folder: Path = tmp_path_factory.mktemp("some")
    write_arm(folder, random_gradients())
    return read_snapshot(Run(folder).snapshots()[0])


def of(some: Snapshot, names: list[str], layers: int, tied: bool) -> dict[str, list[str]]:
    """Groups with the parameters in them."""
    places = [location_of(name, layers) for name in names]
    snapshot = replace(
        some,
        parameters=tuple(names),
        parameter_layers=np.array([place.layer for place in places]),
        parameter_modules=tuple(place.module for place in places),
        layers=layers,
        tied_head=tied,
    )
    groups, index = layer_modules(snapshot)
    assert len(index) == len(names)
    return {
        g: [n for n, i in zip(names, index, strict=True) if i == k] for k, g in enumerate(groups)
    }


def test_a_llama(some: Snapshot) -> None:
    modules = ("self_attn.q_proj", "self_attn.q_norm", "mlp.up_proj", "input_layernorm")
    names = ["model.embed_tokens.weight"]
    names += [f"model.layers.{layer}.{m}.weight" for layer in range(2) for m in modules]
    names += ["model.norm.weight", "lm_head.weight"]
    found = of(some, names, 2, tied=False)
    assert list(found) == [
        "embedding",
        *(f"layer {i} · {m}" for i in (1, 2) for m in ("q_proj", "up_proj", "norms")),
        "final norm",
        "head",
    ]
    assert found["layer 2 · norms"] == [names[6], names[8]]
    assert found["layer 2 · up_proj"] == [names[7]]
    tied = of(some, names[:-1], 2, tied=True)
    assert next(iter(tied)) == "embedding+head (tied)"
    assert "head" not in tied


def test_a_gpt2_whose_modules_share_the_end_of_their_names(some: Snapshot) -> None:
    modules = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    names = ["transformer.wte.weight", "transformer.wpe.weight"]
    names += [f"transformer.h.0.{m}.{kind}" for m in modules for kind in ("weight", "bias")]
    names += ["transformer.ln_f.weight", "transformer.ln_f.bias"]
    found = of(some, names, 1, tied=True)
    crossed = ["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj", "norms"]
    assert list(found) == [
        "embedding+head (tied)",
        "position embedding",
        *(f"layer 1 · {m}" for m in crossed),
        "final norm",
    ]
    assert [len(found[f"layer 1 · {m}"]) for m in crossed] == [2, 2, 2, 2, 4]


def test_adapters_keep_the_module_that_they_belong_to(some: Snapshot) -> None:
    base = "base_model.model.model.layers.0.self_attn"
    names = [f"{base}.{m}.lora_{x}.default.weight" for m in ("q_proj", "v_proj") for x in "AB"]
    found = of(some, names, 1, tied=False)
    assert next(iter(found)) == "layer 1 · q_proj.lora_A.default"
    assert len(found) == 4
