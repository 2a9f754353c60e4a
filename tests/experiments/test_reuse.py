"""Results that a run reuses from other runs: finished stages, and numbers of steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from geomix.cli import main
from geomix.config.load import load
from geomix.config.run import RunConfig
from geomix.data.sources import SOURCES
from geomix.experiments.run import run_experiment
from geomix.planning.cost import cost_of, cost_table
from geomix.planning.plan import origin, plan, plan_table
from geomix.runs.directory import RunDirectory
from geomix.snapshots.file import read_snapshot
from geomix.training.checkpoint import check
from geomix.training.reuse import reused_stages, steps_of_other_runs
from geomix.util.errors import UserError

FIRST = """
model: {model}
train: {{batch_size: 4, lr: 1e-2}}
stages:
  - data: {{source: kvr, limit: 6}}
    stop: {{epochs: 3}}
record: {{at: [boundaries], probes: 2}}
"""
SECOND = """
model: {model}
train: {{batch_size: 4, lr: 1e-2}}
stages:
  - from: {taken}
    data: {{source: kvr, limit: 6}}
    {more}
  - data: {{source: arithmetic, limit: 5}}
    stop: {{epochs: 2}}
    train: {{lr: 1e-3}}
record: {{at: [boundaries], probes: 2}}
"""


class Silent:
    """A progress display of nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def run(text: str, folder: Path) -> RunDirectory:
    file = folder.with_suffix(".yaml")
    file.write_text(text, encoding="utf-8")
    return run_experiment(load(file, sources=tuple(SOURCES)), folder, lambda _: Silent())


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> RunDirectory:
    return run(FIRST.format(model=tiny_model), tmp_path_factory.mktemp("runs") / "first")


BOTH = SECOND.replace("from: {taken}\n    data", "data")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> RunDirectory:
    """A run that trains both stages itself: 6 steps, then 4."""
    text = BOTH.format(model=tiny_model, more="stop: {epochs: 3}")
    return run(text, tmp_path_factory.mktemp("runs") / "both")


def weights(run: RunDirectory, stage: str) -> dict[str, torch.Tensor]:
    return dict(load_file(run.path / "stages" / stage / "checkpoints/final/model.safetensors"))


@pytest.mark.parametrize("whole", [True, False])
def test_a_stage_of_another_run_is_as_if_trained_here(
    first: RunDirectory, both: RunDirectory, tiny_model: Path, tmp_path: Path, whole: bool
) -> None:
    """Against a run that trains both stages itself: the same θ_A, θ_B and evaluations."""
    taken = first.path if whole else first.path / "stages" / "0-kvr"
    text = SECOND.format(model=tiny_model, taken=taken, more="stop: {epochs: 3}")
    second = run(text, tmp_path / "second")
    for stage in ("0-kvr", "1-arithmetic"):
        mine, theirs = weights(second, stage), weights(both, stage)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    for kept in ("start", "end"):
        lines = [
            [
                {k: v for k, v in line.items() if k != "epoch"}
                for line in of.metrics()
                if line.get("moment") == kept
            ]
            for of in (second, both)
        ]
        assert lines[0] == lines[1]
    assert second.steps_done() == both.steps_done() == {0: 6, 1: 4}
    assert not any(line["event"] == "step" and line["stage"] == 0 for line in second.metrics())
    assert [f.name for f in second.snapshots()] == [f.name for f in both.snapshots()]
    for pair in zip(second.snapshots(), both.snapshots(), strict=True):
        copies = [Path(shutil.copy(f, tmp_path / f"{n}.h5")) for n, f in enumerate(pair)]
        for copy in copies:
            with h5py.File(copy, "r+") as file:  # all else is the same
                for name in ("training_sha256", "texts_sha256"):
                    file.attrs.modify(name, "0" * 64)
        one, other = (copy.read_bytes() for copy in copies)
        assert one == other, "Adam's metric is in the file too"
    metrics = [read_snapshot(file).adam for file in second.snapshots()]
    assert [metric and (metric.stage, metric.step) for metric in metrics] == [None, (0, 6), (1, 4)]
    manifest = second.path / "stages/0-kvr/checkpoints/final/manifest.json"
    assert json.loads(manifest.read_text()).keys() >= {"model.safetensors", "position.json"}
    assert check(manifest.parent).position.stage == 1, "this run can be gone on with from there"


def test_a_taken_stage_is_measured_in_the_precision_that_it_has(
    tiny_model: Path, tmp_path: Path
) -> None:
    more = "stop: {epochs: 3}\n    train: {precision: bf16-pure}"
    first = run(
        FIRST.format(model=tiny_model).replace("stop: {epochs: 3}", more), tmp_path / "first"
    )
    second = run(SECOND.format(model=tiny_model, taken=first.path, more=more), tmp_path / "second")
    both = run(BOTH.format(model=tiny_model, more=more), tmp_path / "both")
    ends = [
        [x["loss"] for x in of.metrics() if x.get("moment") == "end" and x["stage"] == 0]
        for of in (second, both)
    ]
    assert ends[0] == ends[1]
    assert len(ends[0]) == 2


def config(stages: list[dict[str, Any]]) -> RunConfig:
    return RunConfig.model_validate({"stages": [{"data": "kvr", **stage} for stage in stages]})


def test_each_stage_has_the_steps_that_it_took_there(both: RunDirectory) -> None:
    """A folder that is named says itself which stage it is; of a run it is the same stage."""
    path = str(both.path)
    taken = reused_stages(config([{"from": path}, {"from": path}]))
    assert [taken[i].steps for i in (0, 1)] == [6, 4]
    assert [taken[i].folder.name for i in (0, 1)] == ["0-kvr", "1-arithmetic"]
    assert reused_stages(config([{"from": f"{path}/stages/1-arithmetic"}]))[0].steps == 4
    assert steps_of_other_runs(config([{"stop": {"steps_of": path}}] * 2), {}) == {0: 6, 1: 4}
    assert steps_of_other_runs(config([{}, {"stop": {"steps_of": "b"}}]), {"b": both}) == {1: 4}


def test_steps_of_a_run_that_has_not_said_how_many_are_one_line(
    both: RunDirectory, tmp_path: Path
) -> None:
    """It is still to go on, or has arms that may differ."""
    copy = RunDirectory(tmp_path / "copy")
    copy.path.mkdir()
    for name in ("resolved.json", "status.json", "metrics.jsonl"):
        (copy.path / name).write_bytes((both.path / name).read_bytes())
    asked = config([{"stop": {"steps_of": str(copy.path)}}])
    assert steps_of_other_runs(asked, {}) == {0: 6}
    copy.set_status("interrupted")
    with pytest.raises(
        UserError, match=r"stages\[0\]\.stop\.steps_of .*: that run is not finished"
    ):
        steps_of_other_runs(asked, {})
    copy.set_status("done")
    resolved = copy.resolved() | {"arms": ["one", "two"]}
    copy.resolved_file.write_text(json.dumps(resolved))
    with pytest.raises(UserError, match=r"that run has arms; name one of .*arms/one, .*arms/two"):
        steps_of_other_runs(asked, {})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("from: {first}", "from: nowhere"), "nowhere: no such folder"),
        (("limit: 6", "limit: 7"), r"stages\[0\].from: .* trained on other examples than .* D_A"),
        (("model:", "chat_template: '{prompt}={target}'\nmodel:"), "another chat format"),
        (("from: {first}", "from: {first}/stages/1-kvr"), r"stages\[0\].from .*: not a finished"),
    ],
)
def test_a_stage_that_cannot_be_taken_is_one_line(
    first: RunDirectory, tiny_model: Path, tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    text = SECOND.format(model=tiny_model, taken="{first}", more="stop: {epochs: 3}")
    text = text.replace(*change).replace("{first}", str(first.path))
    with pytest.raises(UserError, match=says) as raised:
        run(text, tmp_path / "second")
    assert len(raised.value.lines) == 1


def test_a_damaged_stage_is_not_taken(
    first: RunDirectory, tiny_model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    for file in first.path.rglob("*"):
        if file.is_file():
            target = copy / file.relative_to(first.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    file = copy / "stages/0-kvr/checkpoints/final/model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    text = SECOND.format(model=tiny_model, taken=copy, more="stop: {epochs: 3}")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        run(text, tmp_path / "second")
    assert not (tmp_path / "second").exists()


ARMS = """
model: {model}
train: {{batch_size: 4}}
stages:
  - data: {{source: kvr, limit: 6}}
    stop: {{epochs: 2}}
record: null
arms:
  mixed:
    stages.0.mix: {{source: random-words, ratio: 1, words: 3}}
  as-many:
    stages.0.stop: {{steps_of: mixed}}
  fixed:
    stages.0.stop: {{steps: 3}}
  as-first:
    stages.0.stop: {{steps_of: {first}}}
"""


def test_as_many_steps_as_another_arm_or_run(
    first: RunDirectory, tiny_model: Path, tmp_path: Path
) -> None:
    """12 examples in fours twice; the schedule is that of so many steps, and 5 end an epoch."""
    found = run(ARMS.format(model=tiny_model, first=first.path), tmp_path / "arms")
    steps = {arm.name: arm.steps_done()[0] for arm in found.arms}
    assert steps == {"mixed": 6, "as-many": 6, "fixed": 3, "as-first": 6}
    rates = {
        arm.name: [line["lr"] for line in arm.metrics() if line["event"] == "step"]
        for arm in found.arms
    }
    assert rates["as-many"] == rates["mixed"] == rates["as-first"]
    assert rates["fixed"] != rates["mixed"][:3]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("steps_of: mixed", "steps_of: fixed"), "arm 'fixed' is not trained before it"),
        (("steps_of: mixed", "steps_of: as-many"), "arm 'as-many' is not trained before it"),
        (("steps_of: mixed", "steps_of: runs/none"), "no such folder"),
    ],
)
def test_steps_of_what_is_not_there_are_one_line(
    first: RunDirectory, tiny_model: Path, tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    text = ARMS.format(model=tiny_model, first=first.path).replace(*change)
    with pytest.raises(UserError, match=says):
        run(text, tmp_path / "arms")
    assert not (tmp_path / "arms").exists()


def dry(text: str, folder: Path) -> dict[str, Any]:
    """Return the JSON of a configuration's dry run."""
    file = folder / "dry.yaml"
    file.write_text(text, encoding="utf-8")
    result = CliRunner().invoke(main, ["train", str(file), "--dry-run", "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_dry_run_has_the_steps_of_other_arms_and_runs(
    first: RunDirectory, tiny_model: Path, tmp_path: Path
) -> None:
    """Against the run itself; an arm whose steps are those of one with a rule may end earlier."""
    text = ARMS.format(model=tiny_model, first=first.path)
    text = text.replace("record: null", "record: {at: ['every:2'], probes: 2}")
    found = dry(text, tmp_path)
    steps = {arm: stage["steps"] for arm, (stage,) in found["arms"].items()}
    trained = run(text, tmp_path / "arms").arms
    assert steps == {arm.name: arm.steps_done()[0] for arm in trained}
    counts = {arm: stage["snapshots"] for arm, (stage,) in found["arms"].items()}
    assert counts == {arm.name: len(arm.snapshots()) for arm in trained}
    assert not any(stage["at_most"] for (stage,) in found["arms"].values())
    rule = text.replace("words: 3}", "words: 3}\n    stages.0.stop: {epochs: 2, loss_below: 0.1}")
    early = {arm: stage["at_most"] for arm, (stage,) in dry(rule, tmp_path)["arms"].items()}
    assert early == {"mixed": True, "as-many": True, "fixed": False, "as-first": False}


def test_a_dry_run_trains_no_taken_stage(
    first: RunDirectory, tiny_model: Path, tmp_path: Path
) -> None:
    """Its snapshots, evaluations and files against those of the run itself."""
    text = SECOND.format(model=tiny_model, taken=first.path, more="stop: {epochs: 50}")
    text = text.replace("at: [boundaries]", "at: ['every:3']")
    found = dry(text, tmp_path)
    stage, cost = found["arms"][""][0], found["cost"]["arms"][""]["stages"][0]
    assert (stage["from"], stage["steps"], stage["at_most"]) == (str(first.path), 0, False)
    assert (cost["memory"], cost["disk"]["final"], cost["disk"]["within"]) == (None, 0, 0)
    second = run(text, tmp_path / "second")
    here = [file for file in second.snapshots() if file.name.startswith("stage0")]
    assert stage["snapshots"] == len(here) == 2
    each = [
        c["disk"]["snapshots"] / p["snapshots"]
        for c, p in zip(found["cost"]["arms"][""]["stages"], found["arms"][""], strict=True)
    ]
    assert each[0] == each[1]
    verdicts = sum(f.stat().st_size for f in (second.path / "stages/0-kvr/eval").glob("*.jsonl"))
    assert cost["disk"]["verdicts"] == pytest.approx(verdicts, rel=0.2)


def test_the_tables_say_what_is_taken(
    first: RunDirectory, tiny_model: Path, tmp_path: Path
) -> None:
    text = SECOND.format(model=tiny_model, taken=first.path, more="stop: {epochs: 3}")
    file = tmp_path / "dry.yaml"
    file.write_text(text, encoding="utf-8")
    experiment, planned = plan(load(file, sources=tuple(SOURCES)))
    columns = {str(c.header): list(c.cells) for c in plan_table(experiment).columns}
    assert columns["steps"] == ["–", "4"]
    assert columns["lr"] == ["–", "0.001"]
    assert columns["epochs"] == ["from first", "2"]
    table = cost_table(cost_of(experiment, planned))
    cells = {str(c.header): next(iter(c.cells)) for c in table.columns}
    assert {cells[name] for name in ("padding", "tokens", "kept", "logits", "step")} == {"–"}
    assert cells["record"] not in ("–", "unknown")
    assert "linked" in str(table.caption)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("runs/first", "first"),
        ("runs/first/", "first"),
        ("runs/first/stages/0-kvr", "first/0-kvr"),
        ("runs/2026-11-20-kvr-lama-random-words", "…0-kvr-lama-random-words"),
        (".", "."),
    ],
)
def test_a_run_in_few_characters(path: str, says: str) -> None:
    assert origin(path) == says
    assert len(says) <= 24


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("from: {first}", "from: nowhere"), "nowhere: no such folder"),
        (("from: {first}", "from: {first}/stages/1-kvr"), "stages[0].from"),
        (("epochs: 2", "steps_of: runs/none"), "runs/none: no such folder"),
        (("epochs: 2", "steps_of: {first}"), "that run trained no stage 2"),
    ],
)
def test_a_dry_run_says_what_training_would(
    first: RunDirectory, tiny_model: Path, tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    text = SECOND.format(model=tiny_model, taken="{first}", more="stop: {epochs: 3}")
    text = text.replace(*change).replace("{first}", str(first.path))
    file = tmp_path / "dry.yaml"
    file.write_text(text, encoding="utf-8")
    trained, planned = (
        CliRunner().invoke(main, ["train", str(file), *more])
        for more in (["--out", str(tmp_path / "out")], ["--dry-run"])
    )
    assert planned.exit_code == trained.exit_code == 2
    assert planned.stderr == trained.stderr
    assert says in planned.stderr
    assert planned.stderr.count("\n") == 1


def test_a_dry_run_does_not_read_the_weights(
    first: RunDirectory, tiny_model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(first.path, copy)
    file = copy / "stages/0-kvr/checkpoints/final/model.safetensors"
    file.unlink()
    file.mkdir()  # reading it would fail
    dry(SECOND.format(model=tiny_model, taken=copy, more="stop: {epochs: 3}"), tmp_path)
