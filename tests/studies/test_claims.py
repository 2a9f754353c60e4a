"""Claims declared before the runs are judged from the study's tables by the one rule."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from scipy.stats import ttest_1samp

from geomix.cli import main
from geomix.studies.claims import Judged, judge, load_claims, overall
from geomix.util.errors import UserError

ROOT = Path(__file__).resolve().parents[2]

CLAIM: dict[str, Any] = {
    "claim": "mixing keeps more",
    "table": "{d_b}.csv",
    "column": "kept",
    "where": {"stage": 2},
    "plus": [{"arm": "mixed"}],
    "minus": [{"arm": "plain"}],
}
DECLARED: dict[str, Any] = {
    "smallest": 5,
    "unit": "points",
    "planned": 4,
    "each": {"d_b": ["one", "two"]},
    "claims": [CLAIM],
}


def declare(folder: Path, **changes: Any) -> Path:
    """A study whose mixed arm keeps 20 points more in `one`, and as much in `two`."""
    (folder / "claims.yaml").write_text(yaml.safe_dump(DECLARED | changes), encoding="utf-8")
    noise = np.random.default_rng(0).normal(size=(2, 2, 4))
    for k, (name, gain) in enumerate((("one", 20.0), ("two", 0.0))):
        rows = [
            {"arm": arm, "seed": seed, "stage": stage, "kept": value + 100 * (stage == 1)}
            for stage in (1, 2)
            for a, arm in enumerate(("plain", "mixed"))
            for seed, value in enumerate(50 + gain * a + noise[k, a])
        ]
        table(folder / f"{name}.csv", rows)
    return folder


def table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def judged(folder: Path) -> list[Judged]:
    return judge(folder, load_claims(folder))


def test_a_contrast_has_the_interval_of_its_paired_differences(tmp_path: Path) -> None:
    one, two = judged(declare(tmp_path))
    noise = np.random.default_rng(0).normal(size=(2, 2, 4))
    for found, gain, values in ((one, 20.0, noise[0]), (two, 0.0, noise[1])):
        differences = gain + values[1] - values[0]
        interval = ttest_1samp(differences, 0).confidence_interval(0.95)
        assert found.estimate == pytest.approx(differences.mean(), rel=1e-12)
        assert (found.low, found.high) == pytest.approx(tuple(interval), rel=1e-9)
        assert (found.n, found.unit, found.level) == (4, "points", 0.95)
    assert (one.of, one.verdict, two.of, two.verdict) == ("one", "supported", "two", "negligible")
    assert overall([one, two]) == [("mixing keeps more", "mixed: supported, negligible")]


def test_the_values_of_each_stand_in_cells_too(tmp_path: Path) -> None:
    folder = declare(tmp_path)
    rows: list[dict[str, str]] = []
    for name in ("one", "two"):
        with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows += [row | {"d_b": name} for row in csv.DictReader(file)]
    table(folder / "all.csv", rows)
    apart = judged(folder)
    where = {"stage": 2, "d_b": "{d_b}"}
    declare(tmp_path, claims=[CLAIM | {"table": "all.csv", "where": where}])
    assert judged(folder) == apart


def test_the_opposite_claim_is_refuted(tmp_path: Path) -> None:
    turned = CLAIM | {"plus": CLAIM["minus"], "minus": CLAIM["plus"]}
    one, two = judged(declare(tmp_path, claims=[turned]))
    assert (one.verdict, two.verdict) == ("refuted", "negligible")


def test_fewer_seeds_than_planned_decide_nothing(tmp_path: Path) -> None:
    assert {one.verdict for one in judged(declare(tmp_path, planned=5))} == {"undetermined"}


def test_seeds_that_one_arm_lacks_are_left_out(tmp_path: Path) -> None:
    folder = declare(tmp_path)
    text = (folder / "one.csv").read_text(encoding="utf-8").splitlines()
    gone = [line for line in text if not line.startswith("mixed,2,2,")]
    (folder / "one.csv").write_text("\n".join(gone), encoding="utf-8")
    assert judged(folder)[0].n == 3
    kept = [line for line in text if not line.startswith(("mixed,1", "mixed,2", "mixed,3"))]
    (folder / "one.csv").write_text("\n".join(kept), encoding="utf-8")
    single = judged(folder)[0]
    assert (single.n, single.verdict) == (1, "undetermined")
    assert math.isnan(single.low)


def test_the_command_prints_each_claim_and_writes_its_table(tmp_path: Path) -> None:
    folder = declare(tmp_path)
    done = CliRunner().invoke(main, ["study", "verdict", str(folder)])
    assert done.exit_code == 0
    assert "mixing keeps more: mixed: supported, negligible" in done.output
    assert max(map(len, done.output.splitlines()[:-1])) <= 80
    with (folder / "verdicts.csv").open(encoding="utf-8", newline="") as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == ["supported", "negligible"]
    told = CliRunner().invoke(main, ["study", "verdict", str(folder), "--json"])
    assert [one["of"] for one in json.loads(told.output)] == ["one", "two"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"claims": [CLAIM | {"table": "{other}.csv"}]}, "braces may hold {d_b}"),
        ({"claims": [CLAIM | {"column": "lost"}]}, "no column 'lost'; there are: arm, seed"),
        ({"claims": [CLAIM | {"where": {}}]}, "two rows with arm = mixed, seed = 0"),
        ({"claims": [CLAIM | {"where": {"stage": 3}}]}, "no row with stage = 3, arm = mixed"),
        ({"each": {"d_b": ["three"]}}, "three.csv: no such file"),
        ({"smallest": 0}, "smallest"),
        ({"claims": [CLAIM | {"colour": "red"}]}, "colour"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = declare(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        judged(folder)
    assert any(message in line for line in error.value.lines)


def test_a_cell_without_a_number_is_named(tmp_path: Path) -> None:
    folder = declare(tmp_path)
    table(folder / "one.csv", [{"arm": "mixed", "seed": 0, "stage": 2, "kept": "nan"}])
    with pytest.raises(UserError, match="kept is 'nan', no number"):
        judged(folder)


@pytest.mark.parametrize("study", ["demo-seeds", "figure3-angles"])
def test_the_table_beside_each_study_is_that_of_its_claims(study: str) -> None:
    folder = ROOT / "analyses" / study
    found = judged(folder)
    with (folder / "verdicts.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["claim"], row["of"], row["verdict"]) for row in rows] == [
        (one.claim, one.of, one.verdict) for one in found
    ]
    assert [float(row["low"]) for row in rows] == pytest.approx([one.low for one in found])
