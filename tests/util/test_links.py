"""Links in a foreign run: their targets stay unchanged, and names stay within the run."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from geomix.api import Run
from geomix.cli import main
from geomix.config.run import RunConfig
from geomix.studies.board import _place
from geomix.studies.member import Member
from geomix.training.checkpoint_rotation import tidy
from geomix.training.trackers import _options
from geomix.util.errors import UserError
from geomix.util.files import append_json_line, write_json, write_text, written_folder

PRECIOUS = "what the user wrote"


def hard(link: Path, target: Path) -> None:
    link.hardlink_to(target)


def symbolic(link: Path, target: Path) -> None:
    link.symlink_to(target)


Link = Callable[[Path, Path], None]
both = pytest.mark.parametrize("link", [symbolic, hard])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The user's folder, with a file that links lead to."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "file").write_text(PRECIOUS)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Run:
    folder = tmp_path / "run"
    folder.mkdir()
    return Run(folder)


def everything(folder: Path) -> dict[str, bytes | None]:
    """The files and folders of a folder, with what they hold."""
    found = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in found}


def geomix(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# Files that are written anew.


@both
@pytest.mark.parametrize("ending", ["", ".partial"])
def test_a_new_file_takes_the_place_of_a_link(
    tmp_path: Path, home: Path, link: Link, ending: str
) -> None:
    link(tmp_path / f"a.json{ending}", home / "file")
    write_json(tmp_path / "a.json", {"new": 1})
    assert everything(home) == {"file": PRECIOUS.encode()}
    assert not (tmp_path / "a.json").is_symlink()
    assert json.loads((tmp_path / "a.json").read_text()) == {"new": 1}
    assert not os.path.lexists(tmp_path / "a.json.partial")


def test_nothing_is_made_where_a_dangling_link_leads(tmp_path: Path, home: Path) -> None:
    for name in ("a", "b.partial"):
        (tmp_path / name).symlink_to(home / "made")
    write_text(tmp_path / "a", "new")
    write_text(tmp_path / "b", "new")
    assert not (home / "made").exists()


def test_a_new_folder_takes_the_place_of_a_link(tmp_path: Path, home: Path) -> None:
    (tmp_path / "new.partial").symlink_to(home)
    with written_folder(tmp_path / "new") as partial:
        (partial / "file").write_text("new")
    assert everything(home) == {"file": PRECIOUS.encode()}
    assert (tmp_path / "new/file").read_text() == "new"
    (tmp_path / "other").symlink_to(home / "made")
    with pytest.raises(FileExistsError), written_folder(tmp_path / "other"):
        pass


def test_what_a_kill_left_is_removed_and_not_what_it_leads_to(tmp_path: Path, home: Path) -> None:
    stage = tmp_path / "stages/0-a"
    (stage / "checkpoints").mkdir(parents=True)
    (stage / "checkpoints/final").mkdir()
    for name in ("checkpoints/final.partial", "eval.partial", "checkpoints/step-000002"):
        (stage / name).symlink_to(home)
    tidy([stage])
    assert everything(home) == {"file": PRECIOUS.encode()}
    assert list(everything(stage)) == ["checkpoints", "checkpoints/final"]


# Files that are appended to, shortened or locked.


@both
@pytest.mark.parametrize(
    "write",
    [
        lambda run: append_json_line(run.metrics_file, {"event": "step"}),
        lambda run: run.truncate_metrics(3),
    ],
    ids=["append", "shorten"],
)
def test_metrics_that_are_a_link_are_refused(
    run: Run, home: Path, link: Link, write: Callable[[Run], None]
) -> None:
    link(run.metrics_file, home / "file")
    with pytest.raises(UserError, match=r"metrics\.jsonl: a (hard )?link"):
        write(run)
    assert everything(home) == {"file": PRECIOUS.encode()}


def test_nothing_is_appended_where_a_dangling_link_leads_nor_to_a_pipe(
    tmp_path: Path, home: Path
) -> None:
    (tmp_path / "a").symlink_to(home / "made")
    with pytest.raises(UserError, match="a: a link"):
        append_json_line(tmp_path / "a", 1)
    assert not (home / "made").exists()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: no ordinary file"):
        append_json_line(tmp_path / "pipe", 1)


@pytest.mark.parametrize("name", ["lock", "analysis.lock"])
@pytest.mark.parametrize("target", ["file", "made", "."])
def test_a_lock_that_is_a_link_is_refused(run: Run, home: Path, name: str, target: str) -> None:
    (run.path / name).symlink_to(home / target)
    with pytest.raises(UserError, match=f"/{name}: a link; nothing is written through it"):
        held(run, name)
    assert everything(home) == {"file": PRECIOUS.encode()}


@pytest.mark.parametrize("name", ["lock", "analysis.lock"])
def test_a_lock_is_not_emptied(run: Run, home: Path, name: str) -> None:
    hard(run.path / name, home / "file")
    held(run, name)
    assert everything(home) == {"file": PRECIOUS.encode()}
    (run.path / name).unlink()
    os.mkfifo(run.path / name)
    run.status_file.write_text('{"state": "running"}')
    assert run.status()["state"] == "interrupted"  # and the pipe is not waited for
    with pytest.raises(UserError, match="no ordinary file"):
        held(run, name)


def held(run: Run, lock: str) -> None:
    with run.locked() if lock == "lock" else run.saving():
        pass


# Folders.


@pytest.mark.parametrize(
    "name",
    [
        *("stages", "records", "analysis", "figures", "arms", "trackers"),
        *("stages/0-a", "stages/0-a/checkpoints", "stages/0-a/eval", "stages/0-a/weights"),
        *("records/snapshots", "trackers/tensorboard", "arms/plain", "arms/plain/analysis"),
        "arms/plain/stages/0-a/checkpoints/final",
    ],
)
@pytest.mark.parametrize("lock", ["lock", "analysis.lock"])
def test_a_folder_that_is_a_link_is_refused(run: Run, home: Path, name: str, lock: str) -> None:
    (run.path / name).parent.mkdir(parents=True, exist_ok=True)
    (run.path / name).symlink_to(home)
    with pytest.raises(UserError, match=f"/{re.escape(name)}: a link; nothing is written"):
        held(run, lock)
    assert everything(home) == {"file": PRECIOUS.encode()}


def test_a_folder_that_is_to_be_made_elsewhere_is_refused(run: Run, home: Path) -> None:
    (run.path / "analysis").symlink_to(home / "made")
    with pytest.raises(UserError, match="/analysis: a link"):
        held(run, "analysis.lock")


def test_links_that_geomix_does_not_write_through_may_stay(
    tmp_path: Path, run: Run, home: Path
) -> None:
    """The run reached through one, a file that is replaced, a tracker's own, a user's."""
    for name in ("trackers/wandb/latest-run", "notes"):
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).symlink_to(home)
    run.analysis_folder.mkdir()
    (run.analysis_folder / "a.json").symlink_to(home / "file")
    (tmp_path / "latest").symlink_to(run.path)
    latest = Run(tmp_path / "latest")
    with latest.writing(), latest.saving():
        write_json(latest.analysis_folder / "a.json", 1)
    assert run.status()["state"] == "done"
    assert everything(home) == {"file": PRECIOUS.encode()}


# Whole commands.

RUN = """model: {model}
stages:
  - data: {{source: kvr, limit: 4}}
    stop: {{steps: 1}}
  - data: {{source: kvr, limit: 4, split: id}}
    stop: {{steps: 1}}
train: {{batch_size: 4}}
record: {{at: [boundaries], probes: 2, gradients: true}}
"""


def test_a_run_whose_every_file_is_a_link_is_gone_on_with_and_analysed(
    tmp_path: Path, home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_figures", "_example_figures"):  # there are none yet that could be links
        monkeypatch.setattr(f"geomix.analysis.grad_angle.outputs.{name}", lambda *_: ())
    (tmp_path / "c.yaml").write_text(RUN.format(model=tiny_model))
    run = Run(tmp_path / "run")
    done = geomix("train", tmp_path / "c.yaml", "--out", run.path, "--quiet")
    assert done.exit_code == 0, done.output
    last = next((run.path / "stages").glob("1-*"))
    (last / "checkpoints").rename(tmp_path / "kept")
    run.set_status("interrupted")
    linked(run, home)
    before = everything(home)
    done = geomix("train", "--resume", run.path, "--quiet")
    assert done.exit_code == 0, done.output
    assert (last / "checkpoints/final").is_dir()
    assert everything(home) == before
    next(run.snapshot_folder.glob("*.h5")).unlink()
    for command in (["record", run.path], ["analyze", "grad-angle", run.path, "--from", "record"]):
        linked(run, home)
        before = everything(home)
        done = geomix(*command)
        assert done.exit_code == 0, done.output
        assert everything(home) == before


def linked(run: Run, home: Path) -> None:
    """Move every file of a run to the user's folder, with links in its place and as `.partial`."""
    for number, file in enumerate(sorted(run.path.rglob("*"))):
        if file.is_symlink() or not file.is_file() or file.name in ("lock", "metrics.jsonl"):
            continue
        target = home / f"{number}-{len(everything(home))}-{file.name}"
        file.rename(target)
        file.symlink_to(target)
        if "final" not in file.parts:
            (home / "half").write_text(PRECIOUS)
            partial = file.with_name(file.name + ".partial")
            if not os.path.lexists(partial):
                partial.symlink_to(home / "half")
    (run.path / "analysis.lock").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "name", ["_sweep", "_sweep/lock", "_sweep/slurm", "_sweep/slurm/jobs.json", "seed=0"]
)
@pytest.mark.parametrize("target", [".", "file", "made"])
def test_links_in_a_sweep_are_refused(
    tmp_path: Path,
    home: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    target: str,
) -> None:
    study(tmp_path, tiny_model, monkeypatch)
    link = tmp_path / "sweep" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(home / target)
    done = geomix("sweep", "study.yaml")
    assert done.exit_code == 2, done.output
    assert f"{name}: a link" in done.stderr.replace("\n", "")
    assert everything(home) == {"file": PRECIOUS.encode()}


@both
def test_a_log_of_a_sweep_that_is_a_link_is_refused(
    tmp_path: Path, home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, link: Link
) -> None:
    study(tmp_path, tiny_model, monkeypatch)
    (tmp_path / "sweep").mkdir()
    link(tmp_path / "sweep/seed=0.log", home / "file")
    done = geomix("sweep", "study.yaml")
    assert done.exit_code == 2, done.output
    assert re.search(r"seed=0\.log: a (hard )?link", done.stderr)
    assert everything(home) == {"file": PRECIOUS.encode()}


def study(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("c.yaml").write_text(RUN.format(model=model))
    Path("study.yaml").write_text(f"base: c.yaml\nseeds: [0]\nout: {folder / 'sweep'}\n")


# Names that become parts of paths.


def foreign(run: Run, stages: str = "kvr", arms: list[Any] | None = None) -> Run:
    """A run of which only the configuration is there."""
    stage = {"data": {"source": "kvr", "limit": 3}, "stop": {"epochs": 1}}
    config = RunConfig.model_validate({"model": "builtin", "stages": [stage]})
    resolved = config.model_dump(mode="json")
    resolved["stages"][0]["name"] = stages
    content = {"name": "n", "hash": "0", "config": resolved, "arms": arms}
    content["configs"] = {str(arm): resolved for arm in arms or []}
    run.resolved_file.write_text(json.dumps(content))
    run.status_file.write_text('{"state": "interrupted"}')
    return run


COMMANDS = (
    ("show",),
    ("show", "--json"),
    ("train", "--quiet", "--resume"),
    ("record",),
    ("export", "--to", "out"),
    ("analyze", "grad-angle"),
    ("analyze", "forgetting-path"),
)
OUTSIDE = ("..", ".", "", "../../other", "/other", "a/../b", "a\\b", "a\0b")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_refuses_names_that_lead_out_of_the_run(
    run: Run, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.path.parent)
    done = geomix(*command, foreign(run, arms=["plain", "../../other"]).path)
    assert done.exit_code == 2
    assert "run/resolved.json: arms: '../../other' is no name" in done.stderr
    done = geomix(*command, foreign(run, "../../x").path)
    assert done.exit_code == 2
    assert "run/resolved.json: config.stages: '../../x' is no name" in done.stderr


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_arm_is_one_part_of_a_path(run: Run, name: str) -> None:
    with pytest.raises(UserError, match=r"resolved\.json: arms: .* is no name of a folder"):
        _ = foreign(run, arms=["plain", name]).arms
    if name:
        with pytest.raises(UserError, match=r"resolved\.json: config\.stages: .* is no name"):
            foreign(run, name).resolved()
    assert [arm.path.name for arm in foreign(run, "é", arms=["a.b", "..c"]).arms] == ["a.b", "..c"]


def test_the_arm_of_a_status_is_one_part_of_a_path(run: Run) -> None:
    """The board of a sweep follows it."""
    foreign(run)
    other = run.path.parent / "other"
    other.mkdir()
    (other / "metrics.jsonl").write_text('{"event": "step", "stage": 0, "step": 7}\n')
    (run.path / "arms").mkdir()
    run.status_file.write_text('{"state": "done", "arm": "../../other"}')
    with pytest.raises(UserError, match=r"status\.json: arm: '../../other' is no name"):
        run.status()
    member: Any = Member("run", run.path.parent, {}, None)  # type: ignore[arg-type]
    assert _place(member) == ""


def test_a_stage_of_the_metrics_leads_nowhere_else(run: Run) -> None:
    foreign(run)
    scored = run.path.parent / "other-/eval"
    scored.mkdir(parents=True)
    (scored / "start.jsonl").write_text('{"set": "D_A", "exact": true, "prompt": "secret"}\n')
    (run.path / "stages").mkdir()
    line = {"event": "evaluation", "moment": "start", "stage": "../../other", "step": 0}
    line |= {"epoch": 0, "set": "D_A", "n": 1, "exact_match": 1.0, "loss": 1.0}
    run.metrics_file.write_text(json.dumps(line) + "\n")
    done = geomix("show", run.path)
    assert done.exit_code == 2
    assert "metrics.jsonl" in done.stderr


def test_the_name_that_wandb_gives_to_a_folder_is_one_part_of_a_path(run: Run) -> None:
    (run.path / "trackers").mkdir()
    (run.path / "trackers/wandb-id").write_text("../../x\n")
    with pytest.raises(UserError, match=r"wandb-id: id: '../../x' is no name"):
        _options("wandb", run, 0, resumed=True)
