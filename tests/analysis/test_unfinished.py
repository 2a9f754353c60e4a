"""A killed `geomix analyze grad-angle` resumes, to the same bytes as an uninterrupted one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from geomix.analysis import from_weights as weights
from geomix.analysis.grad_angle import examples as single
from geomix.analysis.grad_angle.asked import Asked
from geomix.analysis.partial_results import Unfinished, arm_results, unfinished
from geomix.analysis.past_checkpoints import ignored, revisits
from geomix.api import Run, open_run
from geomix.cli import main
from tests.analysis.calls import grad_angle

CONFIG = """stages:
  - data: {source: kvr, limit: 5}
    mix: {source: random-words, ratio: 1, words: 3}
    stop: {epochs: 1}
  - data: {source: arithmetic, limit: 4}
    stop: {epochs: 1}
train: {lr: 1e-2, batch_size: 3, loss: example}
record: {at: [boundaries], probes: 3, activations: 0}
evaluate: {epochs: 0}
arms:
  one: {}
  two: {seed: 1}
"""

POINTS = 3
"""θ_0, θ_A and θ_B of each arm."""

WHOLE = 2 * POINTS + 2
"""And single examples of each."""

ASKED = Asked(source="weights", examples=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    folder = tmp_path_factory.mktemp("unfinished") / "run"
    file = folder.with_suffix(".yaml")
    file.write_text(CONFIG)
    asked = ["train", str(file), "--quiet", "--out", str(folder), "--set", f"model={tiny_model}"]
    done = CliRunner().invoke(main, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return open_run(folder)


class Killed(BaseException):
    """Exception with which a test ends a command."""


class Looks:
    """Counts what is computed from weights, and ends the command before one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done, self.most = 0, -1
        at, tables = weights._AtCheckpoint.at, single._tables

        def seen(*arguments: Any) -> Any:
            self._next()
            return at(*arguments)

        def found(*arguments: Any) -> Any:
            self._next()
            return tables(*arguments)

        monkeypatch.setattr(weights._AtCheckpoint, "at", seen)
        monkeypatch.setattr(single, "_tables", found)
        for name in ("_figures", "_example_figures"):  # drawn from what is compared
            monkeypatch.setattr(f"geomix.analysis.grad_angle.outputs.{name}", lambda *_: ())

    def _next(self) -> None:
        if self.done == self.most:
            raise Killed
        self.done += 1

    def of(self, run: Run, asked: Asked, most: int = -1) -> int:
        """Return how many checkpoints a call computes."""
        self.done, self.most = 0, most
        if most < 0:
            grad_angle([run], asked)
        else:
            with pytest.raises(Killed):
                grad_angle([run], asked)
        return self.done


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch, run: Run) -> Iterator[Looks]:
    yield Looks(monkeypatch)
    shutil.rmtree(run.path / "analysis.partial", ignore_errors=True)


def left(run: Run) -> list[Path]:
    """The results so far."""
    found = sorted((run.path / "analysis.partial").rglob("*"))
    return [path for path in found if path.suffix in (".look", ".tables")]


def results(run: Run) -> dict[str, bytes]:
    """Return the files of an analysis."""
    found = {file.name: file.read_bytes() for file in run.analysis_folder.iterdir()}
    shutil.rmtree(run.analysis_folder)
    return found


def test_a_killed_analysis_goes_on_where_it_was(run: Run, looks: Looks) -> None:
    """In the single examples of the second arm; then within the first arm, with damage."""
    assert looks.of(run, ASKED) == WHOLE
    expected = results(run)
    assert looks.of(run, ASKED, most=WHOLE - 1) == len(left(run)) == WHOLE - 1
    kept = {file: file.read_bytes() for file in left(run)}
    assert looks.of(run, ASKED) == 1, "only what is not there"
    assert results(run) == expected
    assert not (run.path / "analysis.partial").exists()

    damages: list[Callable[[bytes], bytes]] = [flipped, cut, emptied, bytes]
    for change, (file, content) in zip(damages, kept.items(), strict=False):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(change(content))
    assert WHOLE - 1 <= looks.of(run, ASKED) <= WHOLE, "one is whole, and may be a beginning"
    assert results(run) == expected


def flipped(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def emptied(content: bytes) -> bytes:
    return b""


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"by": "head"}, {"metric": "adam", "at": ("A", "B")}, {}])
def test_kills_at_every_point_change_nothing(
    run: Run, looks: Looks, change: dict[str, Any]
) -> None:
    """The start of a stage may be measured again, as later checkpoints are compared with it."""
    asked = replace(ASKED, **change)
    whole = looks.of(run, asked)
    expected = results(run)
    computed, kept = 0, 0
    while kept < whole - 3:
        computed += looks.of(run, asked, most=3)
        assert kept < len(left(run)) <= kept + 3
        kept = len(left(run))
    computed += looks.of(run, asked)
    assert results(run) == expected
    assert computed < 2 * whole
    assert not (run.path / "analysis.partial").exists()


def test_another_command_does_not_take_it_and_leaves_it(run: Run, looks: Looks) -> None:
    first = replace(ASKED, at=("0",), examples=0)
    looks.of(run, first, most=1)
    kept = left(run)
    assert looks.of(run, replace(first, by="head")) == 2
    assert left(run) == kept
    assert looks.of(run, first) == 1


def test_what_decides_the_numbers_is_in_the_key(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Unfinished(tmp_path)
    past = revisits(run)["one"]
    settings = {"heads": False, "metric": "euclidean"}

    def key(**changed: Any) -> str:
        new = replace(past, **changed)
        return arm_results(kept, new, settings, []).decides

    known = key()
    assert known == key()
    config, record = past.config, past.config.record
    assert record is not None
    train = config.stages[0].train.model_copy(update={"precision": "bf16"})
    stages = [config.stages[0].model_copy(update={"train": train}), *config.stages[1:]]
    fewer = {name: examples[:1] for name, examples in past.prepared.probes.items()}
    others = {
        "settings": config.model_copy(update={"stages": stages}),
        "probes": config.model_copy(update={"record": record.model_copy(update={"probes": 2})}),
        "template": config.model_copy(update={"chat_template": "{prompt} = {target}"}),
    }
    found = {name: key(config=other) for name, other in others.items()}
    found["texts"] = key(prepared=replace(past.prepared, probes=fewer))
    found["heads"] = arm_results(kept, past, {**settings, "heads": True}, []).decides
    of = run.arms[1].stage_folder(0, "kvr") / "checkpoints" / "final"
    found["v̂"] = arm_results(kept, past, settings, [of]).decides
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 99)
        found["threads"] = key()
    with monkeypatch.context() as patch:
        patch.setattr("geomix.analysis.partial_results._code", lambda: "another geomix")
        found["geomix"] = key()
    for name, file in {
        "θ_0": past.arm.base_file,
        "checkpoint": of.parents[4] / "one/stages/1-arithmetic/checkpoints/final/manifest.json",
    }.items():
        before = file.read_text()
        file.write_text(json.dumps({**json.loads(before), "more": "x"}))
        found[name] = key()
        file.write_text(before)
    assert len({known, *found.values()}) == 1 + len(found), found
    points = past.checkpoints(ignored)
    results = arm_results(kept, past, settings, [])
    assert len({results._key(p, what) for p in points for what in ("look", "tables")}) == 6


def test_a_look_is_read_as_it_was_written(run: Run, tmp_path: Path) -> None:
    past = revisits(run)["one"]
    results = arm_results(Unfinished(tmp_path), past, {}, [])
    points = past.checkpoints(ignored)
    secants = 0
    for checkpoint, measurement in zip(
        points, weights.measurements(past, lambda _: True, heads=True), strict=True
    ):
        assert results.measurement(checkpoint) is None
        results.keep_measurement(checkpoint, measurement)
        found = results.measurement(checkpoint)
        assert found is not None
        assert str(asdict(found)) == str(asdict(measurement))
        assert np.array_equal(found.inner, measurement.inner)
        assert found.inner.dtype == measurement.inner.dtype
        assert found.layout.sizes.dtype == measurement.layout.sizes.dtype
        if measurement.secant is not None:
            assert found.secant is not None
            assert np.array_equal(found.secant.turned, measurement.secant.turned)
            secants += 1
    assert secants > 0


def test_a_second_process_keeps_nothing_and_removes_nothing(tmp_path: Path) -> None:
    run, command = Run(tmp_path), {"analysis": "toy"}
    with unfinished(run, command) as first:
        first.keep("a", b"content")
        with unfinished(run, command) as second:
            assert second.folder is None
            second.keep("b", b"")
        assert first.find("a") == b"content"
        assert first.find("b") is None
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_a_foreign_run_is_not_followed(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    run = Run(tmp_path / "run")
    run.path.mkdir()
    (run.path / "analysis.partial").symlink_to(mine)
    with unfinished(run, {"analysis": "toy"}) as kept:
        kept.keep("a", b"content")
    assert list(mine.iterdir()) == []
