"""Arms that differ in stage 2 alone have one θ_A: δ = 0, of which no theory says anything."""

from __future__ import annotations

from pathlib import Path

import pytest

import geomix


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> geomix.Run:
    stage = {"data": {"source": "kvr", "limit": 4}, "stop": {"epochs": 1}}
    later = {"data": {"source": "arithmetic", "limit": 4}, "stop": {"epochs": 1}}
    config = {
        "model": str(tiny_model),
        "train": {"lr": 1e-2, "batch_size": 4},
        "stages": [stage, later],
        "record": None,
        "evaluate": {"epochs": 0},
        "arms": {
            "plain": {},
            "later": {"stages.1.mix": {"source": "random-words", "ratio": 1, "words": 2}},
        },
    }
    return geomix.train(config, out=tmp_path_factory.mktemp("shared") / "run", say=lambda _: None)


@pytest.mark.usefixtures("unprinted")
def test_curvature_has_no_images_of_a_displacement_that_is_zero(run: geomix.Run) -> None:
    tables = geomix.analyze.curvature(run, products=4).tables
    assert len(tables[""]) == 4  # two sets at θ_A, two arms
    assert "between_arms" not in tables
    assert not any("(later)" in name for name in tables["displacements"]["displacement"])


@pytest.mark.usefixtures("unprinted")
def test_delta2_has_its_parts_and_no_theory_of_a_displacement_that_is_zero(run: geomix.Run) -> None:
    found = geomix.analyze.delta2(run)
    parts = found.tables[""].set_index("quantity")["mean"]
    assert parts["Δ₁"] == 0.0
    assert parts["Δ"] == pytest.approx(parts["Δ₂"] + parts["Δ₃"])
    assert "local" not in found.tables
    assert "one θ_A (δ = 0)" in " ".join(found.answer.split())
