"""Mistakes are found before a folder is created, whichever arm they are in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from geomix.api import open_run
from geomix.config.load import load
from geomix.config.run import RunConfig
from geomix.data.sources import SOURCES, kvr
from geomix.experiments.prepare import prepared_arms
from geomix.experiments.run import run_experiment
from geomix.util.errors import UserError

CONFIG = """
model: {model}
stages:
  - data: {{source: kvr, limit: 4}}
    stop: {{epochs: 1}}
  - data: {{source: arithmetic, limit: 4}}
    stop: {{epochs: 1}}
record: {{at: [boundaries], probes: 2}}
arms:
  fine: {{}}
  other: {{{change}}}
"""


class Silent:
    """A progress display that must never be asked for a stage."""

    def stage(self, name: str, *place: float) -> None:
        raise AssertionError(f"stage {name} {place} was trained")

    def logged(self, line: Mapping[str, Any]) -> None: ...


class Quiet(Silent):
    """One that is asked and shows nothing."""

    def stage(self, name: str, *place: float) -> None: ...


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("model: nowhere/at-all", "nowhere/at-all"),
        ("stages.1.mix: {source: random-words, words: 150}", "longer than 256 tokens"),
        (
            "record.mix: {source: random-words, words: 150}",
            "1000 longer than 256 tokens .*, 8 asked for",
        ),
        ("record.mix: {source: none.jsonl}", "none.jsonl"),
        ("chat_template: tokenizer", "chat template 'tokenizer': this tokenizer has none"),
        ("chat_template: none.jinja", "none.jinja': no such file"),
        (
            "stages.0.data: {source: short.jsonl, limit: 2, split: held-out}",
            "0 examples found in sp.*, 2 asked",
        ),
    ],
)
def test_a_mistake_in_the_second_arm_is_found_before_the_first_trains(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, change: str, says: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    row = '{"prompt": "a?", "target": "b"}\n'
    Path("short.jsonl").write_text(row, encoding="utf-8")
    file = tmp_path / "run.yaml"
    file.write_text(CONFIG.format(model=tiny_model, change=change), encoding="utf-8")
    experiment = load(file, sources=tuple(SOURCES))
    with pytest.raises(UserError, match=says) as raised:
        run_experiment(experiment, tmp_path / "out", lambda _: Silent())
    assert len(raised.value.lines) == 1
    assert not (tmp_path / "out").exists()


def test_a_token_that_the_model_does_not_embed_is_found_first(
    tmp_path: Path, tiny_model: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["value"])  # a word of every KVR prompt
    tokenizer.save_pretrained(model)
    file = tmp_path / "run.yaml"
    file.write_text(CONFIG.format(model=model, change=""), encoding="utf-8")
    with pytest.raises(UserError, match="source 'kvr': its tokenizer gives id"):
        run_experiment(load(file), tmp_path / "out", lambda _: Silent())
    assert not (tmp_path / "out").exists()


def test_training_and_record_are_in_the_chat_format_of_the_run(
    tmp_path: Path, tiny_model: Path
) -> None:
    """The losses at θ_0 are those of texts that are put together and scored here, one by one."""
    file = tmp_path / "run.yaml"
    change = 'chat_template: "Q {prompt} A:\\n{target}"'
    file.write_text(CONFIG.format(model=tiny_model, change=change), encoding="utf-8")
    run = run_experiment(load(file), tmp_path / "out", lambda _: Quiet())
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    losses = []
    for example in kvr.examples(4, 0, "train"):
        prefix = tokenizer(f"Q {example.prompt} A:\n")["input_ids"]
        ids = torch.tensor([*prefix, *tokenizer(example.target)["input_ids"], 1])
        logits = model(ids[None]).logits[0, len(prefix) - 1 : -1].detach()
        losses.append(cross_entropy(logits, ids[len(prefix) :], reduction="none"))
    (arm,) = (arm for arm in open_run(run.path).arms if arm.name == "other")
    first = json.loads(arm.metrics_file.read_text(encoding="utf-8").splitlines()[0])
    assert (first["moment"], first["set"]) == ("start", "D_A")
    assert first["loss"] == pytest.approx(float(torch.cat(losses).mean()), rel=1e-4)
    with h5py.File(arm.snapshots()[0]) as snapshot:
        recorded = snapshot["probes/D_A/loss"][:]
    assert recorded == pytest.approx([float(loss.mean()) for loss in losses[:2]], rel=1e-4)


def test_a_folder_whose_name_no_file_can_hold_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(CONFIG.format(model=tiny_model, change=""), encoding="utf-8")
    folder = tmp_path / os.fsdecode(b"r\xff")
    with pytest.raises(UserError, match="not UTF-8"):
        run_experiment(load(file), folder, lambda _: Silent())
    assert not folder.exists()


def test_a_reader_that_leaves_does_not_stop_the_training(tmp_path: Path, tiny_model: Path) -> None:
    """`geomix train | head -1`, on a terminal that cannot show Greek either."""
    file = tmp_path / "run.yaml"
    file.write_text(CONFIG.format(model=tiny_model, change=""), encoding="utf-8")
    shell = shutil.which("sh")
    assert shell
    geomix = Path(sys.executable).with_name("geomix")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii"}
    command = f"'{geomix}' train '{file}' --out out | head -n 1"
    done = subprocess.run(
        [shell, "-c", command], cwd=tmp_path, env=environment, capture_output=True, check=True
    )
    assert done.stderr == b""
    assert open_run(tmp_path / "out").status()["state"] == "done"


@pytest.mark.parametrize(
    ("precisions", "dtype"),
    [
        (("fp32", "bf16-pure"), torch.float32),
        (("bf16-pure", "bf16-pure"), torch.bfloat16),
        (("bf16", "bf16"), torch.float32),
    ],
)
def test_the_base_is_rounded_only_where_no_stage_keeps_more(
    tiny_model: Path, precisions: tuple[str, str], dtype: torch.dtype
) -> None:
    stages = [{"data": "kvr", "train": {"precision": precision}} for precision in precisions]
    config = RunConfig.model_validate({"model": str(tiny_model), "stages": stages, "record": None})
    loaded = prepared_arms({"": config}, torch.device("cpu")).loaded
    assert loaded is not None
    assert {p.dtype for p in loaded.model.parameters()} == {dtype}
