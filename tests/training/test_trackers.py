"""Trackers: TensorBoard for real, its files read back; others through accelerate's interface."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from click.testing import CliRunner, Result

from geomix.cli import main
from geomix.config.run import RunConfig, flat
from geomix.training import trackers
from geomix.training.trackers import numbers

CONFIG = """stages:
  - {data: {source: kvr, limit: 4}, stop: {epochs: 2}}
  - {data: {source: arithmetic, limit: 4}, stop: {epochs: 1}}
train: {lr: 1e-2, batch_size: 2}
evaluate: {epochs: 1}
record: null
trackers: [TRACKER]
"""


class Fake(GeneralTracker):  # type: ignore[misc]
    """Keeps what it is told; `broken` names the method that raises."""

    name = "fake"
    requires_logging_directory = False
    told: ClassVar[list[tuple[int, dict[str, float]]]] = []
    calls: ClassVar[list[str]] = []
    options: ClassVar[dict[str, Any]] = {}
    broken = ""

    def __init__(self, run_name: str, **options: Any) -> None:
        super().__init__()
        type(self).options = {"project": run_name, **options}

    @property
    def tracker(self) -> None:
        return None

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.broken == name:
            raise ConnectionError("no route to the tracker")

    def start(self) -> None:
        self._called("start")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self._called("configuration")
        type(self).options["values"] = values

    def log(self, values: dict[str, float], step: int | None = None, **_: Any) -> None:
        self._called("log")
        assert step is not None
        self.told.append((step, values))

    def finish(self) -> None:
        self._called("finish")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Fake]]:
    """In the place of Weights & Biases, whose package need not be here."""
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "wandb", Fake)
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: ["wandb"])
    monkeypatch.setattr(Fake, "told", [])
    monkeypatch.setattr(Fake, "calls", [])
    return iter([Fake])


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `geomix train` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def train(tracker: str, *arguments: str) -> Result:
        Path("run.yaml").write_text(CONFIG.replace("TRACKER", tracker), encoding="utf-8")
        given = ["train", "run.yaml", "--set", f"model={tiny_model}", *arguments]
        return CliRunner().invoke(main, given)

    return train


def metrics(run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def expected(run: str) -> dict[str, list[tuple[int, float]]]:
    """By name, (step of the run, value): the second stage counts on from the first one's 4."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in metrics(run):
        for name, value in numbers(line).items():
            found.setdefault(name, []).append((line["step"] + 4 * line["stage"], value))
    return found


def read_back(run: str) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(f"{run}/trackers/tensorboard", size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def same(found: Any, wanted: Any) -> None:
    assert set(found) == set(wanted)
    for name, points in wanted.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
        assert [v for _, v in found[name]] == pytest.approx([v for _, v in points], rel=1e-6)


def test_tensorboard_has_every_number_at_its_step(place: Any) -> None:
    result = place("tensorboard", "--out", "made")
    assert result.exit_code == 0, result.output
    found = read_back("made")
    same(found, expected("made"))
    assert [step for step, _ in found["train/loss"]] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in found["stage_2/D_A/exact_match"]] == [6]
    assert [step for step, _ in found["stage_1/D_A/loss"]] == [0, 2, 4]
    assert "train/weights/D_A" in found


def test_gone_on_with_tensorboard_has_each_step_once(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after step 5, saved after step 4: step 5 is told twice, and read once."""
    from geomix.training.engine import Engine

    step = Engine._step

    def die(self: Engine, stage: Any, number: int, *rest: Any) -> Any:
        if stage.index == 1 and number == 1:
            raise KeyboardInterrupt
        return step(self, stage, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_step", die)
        assert place("tensorboard", "--out", "made").exit_code == 130
    assert [s for s, _ in read_back("made")["train/loss"]] == [1, 2, 3, 4, 5]
    result = CliRunner().invoke(main, ["train", "--resume", "made"])
    assert result.exit_code == 0, result.output
    same(read_back("made"), expected("made"))


def test_a_run_is_the_same_with_and_without(place: Any, fake: Any) -> None:
    assert place("", "--out", "without").exit_code == 0
    assert place("wandb", "--out", "with").exit_code == 0
    assert metrics("with") == metrics("without")
    assert Fake.calls.count("finish") == 1
    hashes = [json.loads(Path(r, "resolved.json").read_text())["hash"] for r in ("with", "without")]
    assert hashes[0] == hashes[1]
    assert not Path("without/trackers").exists()


def test_each_line_is_told_in_order_at_the_runs_step(place: Any, fake: Any) -> None:
    assert place("wandb", "--out", "made").exit_code == 0
    wanted = [(line["step"] + 4 * line["stage"], numbers(line)) for line in metrics("made")]
    assert Fake.told == wanted
    assert Fake.options["project"] == "geomix"
    assert Fake.options["name"] == "made"
    assert Fake.options["values"]["stages.0.data.limit"] == 4
    known = Fake.options["id"]
    assert Path("made/trackers/wandb-id").read_text().strip() == known


def test_the_two_arms_are_two_runs(place: Any, fake: Any) -> None:
    arms = ["--set", "arms={a: {}, b: {train.lr: 1e-3}}"]
    assert place("wandb", "--out", "made", *arms).exit_code == 0
    assert Fake.calls.count("start") == Fake.calls.count("finish") == 2
    assert [step for step, _ in Fake.told].count(1) == 2
    ids = {Path(f"made/arms/{arm}/trackers/wandb-id").read_text() for arm in "ab"}
    assert len(ids) == 2


@pytest.mark.parametrize("broken", ["start", "configuration", "log", "finish"])
def test_one_that_fails_is_told_of_once_and_left(
    place: Any, fake: Any, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setattr(Fake, "broken", broken)
    result = place("wandb", "--out", "made", "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("no route to the tracker") == 1
    assert "the run goes on without it" in result.stderr
    assert Fake.calls[-1] == broken
    assert len(metrics("made")) == 6 + 5 + 2


def test_a_missing_package_is_one_line_before_anything(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    result = place("wandb", "--out", "made")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "geomix: trackers: wandb cannot be imported here; pip install wandb, "
        "or leave it out of trackers"
    ]
    assert not Path("made").exists()


def test_an_unknown_one_is_a_mistake_in_the_configuration(place: Any) -> None:
    result = place("tensorbord", "--out", "made")
    assert result.exit_code == 2
    assert "trackers[0]" in result.stderr
    assert "tensorboard" in result.stderr


def test_no_token_is_written(place: Any, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "s3cr3t-0f-the-tracker"
    for name in ("WANDB_API_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "COMET_API_KEY"):
        monkeypatch.setenv(name, secret)
    assert place("wandb, tensorboard", "--out", "one").exit_code == 2  # only wandb is there
    monkeypatch.setattr(
        "accelerate.tracking.get_available_trackers", lambda: ["wandb", "tensorboard"]
    )
    assert place("wandb, tensorboard", "--out", "made").exit_code == 0
    files = [file for file in Path("made").rglob("*") if file.is_file()]
    assert any("tfevents" in file.name for file in files)
    assert not [file for file in files if secret.encode() in file.read_bytes()]


def test_off_by_default_and_no_part_of_the_outcome() -> None:
    plain = RunConfig.model_validate({"stages": [{"data": "kvr"}]})
    tracked = RunConfig.model_validate({"stages": [{"data": "kvr"}], "trackers": ["tensorboard"]})
    assert plain.trackers == ()
    assert plain.content_hash() == tracked.content_hash()
    assert flat(plain) == flat(tracked)


def test_numbers_are_named_by_stage_and_set() -> None:
    step = {"event": "step", "stage": 1, "step": 3, "loss": 0.5, "weights": {"D_A": 1.0}}
    assert numbers(step) == {"train/loss": 0.5, "train/weights/D_A": 1.0}
    measured = {"event": "evaluation", "stage": 1, "step": 3, "moment": "end", "set": "D_A"}
    assert numbers({**measured, "exact_match": 7.0, "final_number": None, "ok": True}) == {
        "stage_2/D_A/exact_match": 7.0
    }
    assert numbers({"event": "transfer", "stage": 0, "step": 3, "backward": -2}) == {
        "stage_1/transfer/backward": -2
    }


def test_nothing_is_imported_without_one() -> None:
    assert trackers.check_trackers([]) is None  # type: ignore[func-returns-value]
    assert "wandb" not in sys.modules
