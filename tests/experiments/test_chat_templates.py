"""Everything that decides a run's tokens is stored with it, or compared, at every later entry."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer

from geomix.analysis.past_checkpoints import revisits
from geomix.api import open_run
from geomix.cli import main
from geomix.data import chat
from geomix.experiments.chat_templates import edited, kept_templates
from geomix.runs.configs import stored_configs
from geomix.util.errors import UserError

TEMPLATE = (
    "{{ bos_token }}At {{ strftime_now('%d %b %Y %H:%M:%S.%f') }}.\n{% for m in messages %}"
    "{% if m.role == 'user' %}Q: {{ m.content }}\n{% else %}A:\n{{ m.content }}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)
RUN = """
model: {model}
chat_template: {template}
train: {{lr: 1e-3, batch_size: 4}}
stages:
  - data: {{source: kvr, limit: 8}}
    stop: {{steps: 3}}
  - data: {{source: kvr, limit: 8, seed: 1}}
    name: second
    stop: {{steps: 1}}
checkpoint: {{steps: 1, keep: 9}}
evaluate: {{epochs: 0}}
record: {{at: [0], probes: 4}}
"""

Geomix = Callable[..., str]


@pytest.fixture
def geomix() -> Geomix:
    """Runs a command; its output, which must end with the given status."""

    def run(*arguments: str | Path, status: int = 0) -> str:
        done = CliRunner().invoke(main, [*map(str, arguments)])
        assert done.exit_code == status, (done.output, done.exception)
        return done.output

    return run


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the moment at which a process asks for one."""

    def moment(now: str) -> None:
        for place in ("geomix.data.chat.moment", "geomix.experiments.run.moment"):
            monkeypatch.setattr(place, lambda: now)

    return moment


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path, geomix: Geomix, at: Callable[[str], None]) -> Path:
    """A run of a template with a date, as if it had been killed after its second step."""
    at("1999-12-31T23:59:58.000001")
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    config = RUN.format(model=tiny_model, template=tmp_path / "t.jinja")
    (tmp_path / "run.yaml").write_text(config)
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geomix.training.engine.Engine._end", _killed)
        done = CliRunner().invoke(main, ["train", str(tmp_path / "run.yaml"), "--out", str(folder)])
        assert isinstance(done.exception, Killed), done.output
    at("2000-01-01T00:00:00.000002")
    return folder


class Killed(Exception):  # noqa: N818
    """In the place of SIGKILL."""


def _killed(*_: Any, **__: Any) -> None:
    raise Killed


def data(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "stages/0-kvr/data.json").read_bytes())
    return found


def test_a_run_keeps_its_template_and_the_moment_that_it_sees(run: Path) -> None:
    (template,) = kept_templates(open_run(run)).values()
    assert template == chat.Template("1999-12-31T23:59:58.000001", TEMPLATE)
    assert "At 31 Dec 1999 23:59:58.000001." in data(run)["chat"]["before"][0]


def test_another_file_and_another_day_change_nothing_of_a_run(
    run: Path, tmp_path: Path, geomix: Geomix
) -> None:
    before, other = data(run), tmp_path / "other"
    shutil.copytree(run, other)
    (tmp_path / "t.jinja").write_text("Another text. " + TEMPLATE)
    told = geomix("train", "--resume", run)
    assert f"{tmp_path / 't.jinja'}: edited since the run began" in told
    (tmp_path / "t.jinja").unlink()
    geomix("train", "--resume", other, "--quiet")
    files = ("metrics.jsonl", "stages/0-kvr/data.json", "stages/0-kvr/examples.jsonl")
    assert [(run / f).read_bytes() for f in files] == [(other / f).read_bytes() for f in files]
    assert data(run) == before
    geomix("record", run, "--at", "boundaries")
    (past,) = revisits(open_run(run)).values()
    assert [stage.name for stage in past.stages()] == ["kvr", "second"]
    assert edited(open_run(run), stored_configs(open_run(run))) == []


def test_an_arm_alone_has_the_template_of_its_run(
    tmp_path: Path, tiny_model: Path, geomix: Geomix, at: Callable[[str], None]
) -> None:
    at("1999-12-31T00:00:00")
    (tmp_path / "t.jinja").write_text(TEMPLATE)
    config = RUN.format(model=tiny_model, template=tmp_path / "t.jinja")
    arms = "arms: {one: {}, two: {chat_template: tulu}}\n"
    (tmp_path / "run.yaml").write_text(config + arms)
    geomix("train", tmp_path / "run.yaml", "--out", tmp_path / "run", "--quiet")
    whole = kept_templates(open_run(tmp_path / "run"))
    assert whole["one"].text == TEMPLATE
    assert whole["two"].text is None
    assert kept_templates(open_run(tmp_path / "run/arms/one")) == {"": whole["one"]}
    (tmp_path / "t.jinja").unlink()
    geomix("record", tmp_path / "run/arms/one", "--at", "boundaries")


def test_a_run_that_takes_a_stage_sees_the_moment_of_that_run(
    run: Path, tmp_path: Path, geomix: Geomix
) -> None:
    geomix("train", "--resume", run, "--quiet")
    text = (tmp_path / "run.yaml").read_text()
    text = text.replace("  - data", f"  - from: {run}\n    data", 1)
    (tmp_path / "next.yaml").write_text(text)
    geomix("train", tmp_path / "next.yaml", "--out", tmp_path / "next", "--quiet")
    assert data(tmp_path / "next")["chat"] == data(run)["chat"]
    (tmp_path / "t.jinja").write_text(TEMPLATE.replace("Q:", "Question:"))
    out = tmp_path / "third"
    told = geomix("train", tmp_path / "next.yaml", "--out", out, "--quiet", status=2)
    assert "stages[0].from" in told
    assert "trained in another chat format" in told


ENTRIES = (
    ("train", "--resume"),
    ("record", "--at", "boundaries"),
    ("analyze", "grad-angle", "--from", "weights"),
)


@pytest.mark.parametrize("entry", ENTRIES)
def test_another_tokenizer_is_told_before_anything_is_written(
    tmp_path: Path, tiny_model: Path, geomix: Geomix, run: Path, entry: tuple[str, ...]
) -> None:
    """Its vocabulary is the same, and no file of geomix's says what it was."""
    command, *options = entry
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    for name in ("resolved.json", "config.yaml", "base.json"):
        file = run / name
        file.write_text(file.read_text().replace(str(tiny_model), str(model)))
    if command == "train":  # a checkpoint would hold the run's own tokenizer
        shutil.rmtree(run / "stages/0-kvr/checkpoints")
    else:
        geomix("train", "--resume", run, "--quiet")
    before = {f: f.read_bytes() for f in run.rglob("*.json*") if f.name != "status.json"}
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    known = json.loads(tokenizer.to_str())
    known["model"]["merges"] = known["model"]["merges"][:5]
    (model / "tokenizer.json").write_text(json.dumps(known))
    told = geomix(command, *options, run, status=2)
    assert "D_A becomes other tokens than when the run began" in told
    assert "tokenizer" in told
    assert {f: f.read_bytes() for f in before} == before


def test_a_template_that_is_not_as_geomix_writes_it_is_one_line(run: Path, geomix: Geomix) -> None:
    file = run / "resolved.json"
    known = json.loads(file.read_bytes())
    for wrong in ({"": {"now": "never"}}, {"": {"now": "2000-01-01", "text": 1}}, {"": 3}, [1]):
        file.write_text(json.dumps(known | {"chat": wrong}))
        told = geomix("train", "--resume", run, status=2)
        assert "resolved.json: cannot be read (it lacks chat, a template an arm)" in told


def test_a_run_of_an_older_version_is_compared_by_what_it_kept(
    run: Path, tmp_path: Path, geomix: Geomix
) -> None:
    for name in ("resolved.json", "stages/0-kvr/data.json", "records/probes.json"):
        known = json.loads((run / name).read_bytes())
        known.pop("chat", None) if name == "resolved.json" else None
        for part in [known, *(known[key] for key in ("sets", "evaluated") if key in known)]:
            for described in part.values():
                if isinstance(described, dict):
                    described.pop("tokens_sha256", None)
        (run / name).write_text(json.dumps(known))
    before = (run / "stages/0-kvr/data.json").read_bytes()
    told = geomix("train", "--resume", run, status=2)
    assert "the chat template writes another text than when the run began" in told
    assert (run / "stages/0-kvr/data.json").read_bytes() == before
    (tmp_path / "t.jinja").write_text(
        TEMPLATE.replace(
            "{{ strftime_now('%d %b %Y %H:%M:%S.%f') }}", "31 Dec 1999 23:59:58.000001"
        )
    )
    geomix("train", "--resume", run, "--quiet")


def test_what_is_no_template_is_refused_as_before(tiny_model: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        chat.template_of("none.jinja", None)


@pytest.mark.parametrize(
    ("name", "text", "now"),
    [
        ("tulu", None, ""),
        ("{prompt}={target}", None, ""),
        ("t.jinja", "{{ messages }}", ""),
        ("t.jinja", "{{ strftime_now('%Y') }}", "1999-12-31T00:00:00"),
    ],
)
def test_a_moment_is_kept_only_where_a_template_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str | None, now: str
) -> None:
    """So that two runs of one configuration are the same, byte for byte."""
    monkeypatch.chdir(tmp_path)
    Path("t.jinja").write_text(text or "")
    assert chat.template_of(name, None, "1999-12-31T00:00:00") == chat.Template(now, text)
