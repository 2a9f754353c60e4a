"""A dry run's answer: whether it fits, what would, and which parts are estimates."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from click.testing import CliRunner, Result

from geomix.cli import main
from geomix.config.load import PRESETS, load
from geomix.config.run import RunConfig
from geomix.data.sources import hub
from geomix.data.sources.base import Request
from geomix.data.sources.rows import SHARES
from geomix.data.sources.select import examples_of
from geomix.data.sources.stand_in import FACTOID, standing_in
from geomix.experiments.prepare import prepare
from geomix.models.meta import local_config, local_folder
from geomix.planning.estimate import Arm
from geomix.planning.node import (
    CONTEXT,
    GIB,
    Node,
    Way,
    of_snapshot,
    of_step,
    other_ways,
    recorded_otherwise,
    way_of,
)
from geomix.util.errors import Unreachable, UserError

STAGES = """stages:
  - {data: {source: kvr, limit: 20}, stop: {epochs: 2}}
  - {data: {source: arithmetic, limit: 10}, stop: {epochs: 1}}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and no way to the network."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError("no network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tmp_path


def dry(text: str, *arguments: str) -> Result:
    Path("run.yaml").write_text(text, encoding="utf-8")
    return CliRunner().invoke(main, ["train", "run.yaml", "--dry-run", *arguments])


@pytest.mark.parametrize("name", ["paper-llama3-8b", "paper-mistral-7b"])
def test_the_presets_are_for_a_node_of_eight_gpus(name: str) -> None:
    for run in load(PRESETS / f"{name}.yaml").arms.values():
        assert run.parallel == "fsdp"
        assert {s.train.precision for s in run.stages} == {"bf16"}
        assert all(s.train.gradient_checkpointing for s in run.stages)


@pytest.mark.slow
def test_a_preset_of_eight_billion_is_planned_without_anything(place: Path) -> None:
    """No hub, no corpus, no model: what fits comes first, and what is estimated is said."""
    model = "./models/Meta-Llama-3-8B"
    given = ["paper-llama3-8b", "--dry-run", "--arm", "random", "--set", f"model={model}"]
    result = CliRunner().invoke(main, ["train", *given, "--set", "record.probes=8"])
    assert result.exit_code == 0, result.output
    answer, tables = result.stdout.split("Plan of ")
    assert max(map(len, answer.splitlines())) <= 80
    first, second, *_ = answer.splitlines()
    assert first == f"model '{model}': no such folder;"
    assert second == "  sizes are those of meta-llama/Meta-Llama-3-8B"
    assert "Memory: fits on 8 GPUs of 80 GB (assumed; yours:" in answer
    assert "GiB a GPU: does not fit; parallel: ddp, bf16, checkpointing" in answer
    assert "16 bytes a parameter, 128 GB in each process of ddp" in answer
    assert "≈ random-words, lama: cannot be read here" in answer
    assert "D_A 2000 " in tables, "kvr is generated, and exact"
    assert "D_B ≈2000 " in tables
    assert "≈4000 " in tables
    assert result.stderr.startswith(f"measuring a step of {model}: 8 × ")


def test_a_model_that_fits_says_so_first_and_in_one_line(tiny_model: Path, place: Path) -> None:
    text = f"model: {tiny_model}\n{STAGES}"
    memory, time, disk, *rest = dry(text).stdout.splitlines()
    assert memory.startswith("Memory: ≈ ")
    assert ": fits on this machine (" in memory
    assert time == "Time: unknown until steps are timed; 3 steps"
    assert disk.startswith("Disk: ≈ ")
    assert rest[0] == ""
    (fit,) = json.loads(dry(text, "--json").stdout)["fits"]
    assert (fit["processes"], [way["verdict"] for way in fit["ways"]]) == (1, ["fits"])


def test_what_does_not_fit_is_told_what_would(tiny_model: Path, place: Path) -> None:
    text = f"model: {tiny_model}\nrecord: null\n{STAGES}"
    asked = ["--gpus", "8", "--json", "--gpu-memory"]
    (known,) = json.loads(dry(text, *asked, "8").stdout)["fits"]
    assert [way["verdict"] for way in known["ways"]] == ["fits"]
    assert (known["processes"], known["assumed"]) == (8, False)
    needed = known["ways"][0]["memory"]
    small = str((needed - 1 + CONTEXT) / GIB)
    (fit,) = json.loads(dry(text, *asked, small).stdout)["fits"]
    configured, *others = fit["ways"]
    assert (configured["parallel"], configured["verdict"]) == ("ddp", "does not fit")
    assert others
    lines = dry(text, "--gpus", "8", "--gpu-memory", small).stdout.splitlines()
    assert lines[0].startswith("Memory: does not fit on 8 GPUs of 0.5")
    assert "(as configured)" in lines[1]
    told = [line.strip() for line in lines if line.strip().startswith("--set ")]
    fitting = [way for way in others if way["verdict"] != "does not fit"]
    assert len(told) == len(fitting)


def arm(model: Path, **more: Any) -> Arm:
    stages = [{"data": {"source": "kvr", "limit": 32}, "train": {"micro_batch_size": 4}}]
    run = RunConfig.model_validate({"model": str(model), "stages": stages, **more})
    prepared = prepare(run)
    return Arm(run, prepared.plans, prepared.probes, prepared.evaluated)


def test_each_of_several_processes_has_its_share(tiny_model: Path) -> None:
    """ddp: the gradients once more; fsdp: a share of the state, and what is gathered."""
    for parallel in ("ddp", "fsdp"):
        made = arm(tiny_model, parallel=parallel, record={"probes": 8})
        alone, shared = made.packing(0), made.packing(0, 16)
        assert (alone.passes, shared.passes) == (8, 1)
        assert alone.micro.rows > shared.micro.rows
        parts, snapshot = made.memory_parts(0, shared), made.snapshot_parts(0, 16)
        assert parts is not None
        assert snapshot is not None
        outside, layer = made.groups(0)
        state = parts.weights + parts.adam
        passing = parts.pass_after - parts.weights - parts.gradients
        if parallel == "ddp":
            assert of_step(made, 0, shared, 16) == parts.step(1) + parts.gradients
            assert of_snapshot(made, 16) == snapshot.snapshot(made.held) + parts.gradients
            continue
        gathered = max(passing + 3 * outside + 4 * layer, parts.weights)
        assert of_step(made, 0, shared, 16) == (state + parts.gradients) // 16 + gathered
        at_snapshot = of_snapshot(made, 16)
        assert at_snapshot is not None
        held = (state + made.held * parts.gradients) // 16
        passing = snapshot.pass_after - parts.weights - parts.gradients
        gathered = max(passing + 3 * outside + 4 * layer, parts.weights)
        assert at_snapshot == held + gathered


def test_other_ways_change_little_first_and_only_what_is_allowed(tiny_model: Path) -> None:
    made = arm(tiny_model, record=None)
    given = way_of(made, 0, 8)
    assert given is not None
    ways = list(other_ways(made, 0, 8))
    assert [way.keys(given) for way in ways] == [
        "--set parallel=fsdp",
        "--set train.gradient_checkpointing=true",
        "--set parallel=fsdp --set train.gradient_checkpointing=true",
        "--set train.gradient_checkpointing=true --set train.precision=bf16-pure",
        "--set parallel=fsdp --set train.gradient_checkpointing=true "
        "--set train.precision=bf16-pure",
    ]
    assert min(ways, key=lambda way: way.memory) == ways[-1]
    assert {way.parallel for way in other_ways(made, 0, 1)} == {"ddp"}
    sketched = arm(tiny_model, record={"sketches": {}})
    assert {way.parallel for way in other_ways(sketched, 0, 8)} == {"ddp"}


def test_where_the_recorder_takes_most_it_gives_way_first(tiny_model: Path, place: Path) -> None:
    """Training stays the same; the answer states each alternative's memory and disk."""
    few = {"probes": 2, "batch_size": 1, "mix": {"source": "random-words", "words": 3}}
    stages = "stages: [{data: {source: kvr, limit: 2}, stop: {epochs: 1}}]\n"
    text = f"model: {tiny_model}\n{stages}record: {json.dumps(few)}\n"
    facts = json.loads(dry(text, "--gpus", "1", "--json").stdout)
    (lone,) = facts["cost"]["arms"].values()
    step, snapshot = lone["stages"][0]["memory"], lone["snapshot_memory"]
    assert step < snapshot
    node = str((snapshot - 1 + CONTEXT) / GIB)
    (fit,) = json.loads(dry(text, "--gpus", "1", "--gpu-memory", node, "--json").stdout)["fits"]
    configured, disk, none, *_ = fit["ways"]
    assert [way["record"] for way in (configured, disk, none)] == ["memory", "disk", "none"]
    assert disk["scratch"] == 3 * lone["stages"][0]["size"]["trainable"] * 4
    assert none["memory"] == step
    assert step <= disk["memory"] < configured["memory"]
    lines = dry(text, "--gpus", "1", "--gpu-memory", node).stdout.splitlines()
    changes = [line.split("--set ")[1] for line in lines if line.strip().startswith("--set ")]
    assert changes[0].startswith("record.scratch=disk (")
    assert changes[1] == "record=null"
    assert list(recorded_otherwise([arm(tiny_model, record=None)], 0, 1, 2**40)) == []


def test_where_the_disk_is_full_what_would_save_is_told(
    tiny_model: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = f"model: {tiny_model}\nrecord: {{gradients: true, lens: false, activations: 0}}\n"
    whole += f"{STAGES}arms: {{a: {{}}, b: {{seed: 1}}}}\n"
    assert "with --set" not in dry(whole).stdout
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    lines = dry(whole).stdout.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("Disk: ≈ ")) + 1
    told = [line.split(": ") for line in lines[begin:] if line.startswith("  with ")]
    changes = [change.removeprefix("  with ") for change, _ in told]
    assert changes[0] == "--set checkpoint.keep=1"
    assert "--set record.gradients=false" in changes
    assert changes[-1] == "one arm alone (--arm NAME)"
    assert "--set record.sketches=null" not in changes, "there are none to save"


def test_what_fits_leaves_room_for_the_allocator() -> None:
    node = Node(1, 10 * GIB)
    whole = 10 * GIB - CONTEXT
    assert node.verdict(9 * GIB - CONTEXT) == "fits"
    assert node.verdict(9 * GIB - CONTEXT + 1) == node.verdict(whole) == "tight"
    assert node.verdict(whole + 1) == "does not fit"
    assert replace(node, gpus=False).verdict(9 * GIB) == "fits"
    one = Way("ddp", "bf16", checkpointing=True, memory=1)
    assert one.keys(one) == ""


@pytest.mark.parametrize("flag", ["--gpus", "--gpu-memory"])
def test_a_node_is_for_plans_only(place: Path, flag: str) -> None:
    result = CliRunner().invoke(main, ["train", flag, "8"])
    assert result.exit_code == 2
    assert "torchrun --nproc_per_node N" in result.stderr


def test_a_model_folder_that_is_not_there_is_named(place: Path) -> None:
    for name in ("./llama3", "/nowhere/llama3", "../llama3", "a/b/c"):
        result = dry(f"model: {name}\n{STAGES}")
        assert result.exit_code == 2
        said = f"geomix: run.yaml:1 model: no such folder {Path(name)}; give one that is there"
        assert result.stderr.startswith(said)
        assert result.stderr.count("\n") == 1
    assert getattr(local_config("/nowhere/mistral-7b-V0.3"), "vocab_size", 0) == 32_768
    Path("Mistral-7B-v0.3").mkdir()
    assert local_folder("./Mistral-7B-v0.3") == Path("Mistral-7B-v0.3")


def test_stand_ins_are_as_many_and_as_long_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def unreachable(name: str) -> NoReturn:
        asked.append(name)
        raise ConnectionError("no way")

    monkeypatch.setattr(hub, "_ask_once", unreachable)
    with pytest.raises(Unreachable, match="no way"):
        examples_of("popqa", Request(3, 0))
    with standing_in(600) as absent:
        facts = examples_of("popqa", Request(30, 0))
        others = examples_of("popqa", Request(30, 0, split="id"))
        passages = examples_of("kpile", Request(5, 0, words=12))
        maths = examples_of("gsm8k", Request(5, 0))
        exact = examples_of("kvr", Request(5, 0))
        everything = examples_of("popqa", Request(10**6, 0, every=True))
    assert asked == [name for name in asked[:1] for _ in range(2)] + asked[2:]
    assert len(asked) == 4, "each source once within the block"
    assert list(absent.why) == ["popqa", "kpile", "gsm8k"]
    assert "no way" in absent.why["kpile"]
    assert len(facts) == len(others) == 30
    assert not {e.prompt for e in facts} & {e.prompt for e in others}
    assert {len(e.target.split()) for e in facts} == {FACTOID[1]}
    assert facts[0].prompt.startswith("Question: ")
    assert {len(e.target.split()) for e in passages} == {12}
    assert {len(e.target.split()) for e in maths} == {600 // 6}
    assert len(everything) == 14_267 * SHARES["train"] // sum(SHARES.values())
    assert exact == examples_of("kvr", Request(5, 0))


def test_a_dataset_that_is_not_there_is_a_mistake_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hub answers, and has none of that name."""

    def absent(name: str) -> NoReturn:
        raise FileNotFoundError(f"no dataset {name}")

    monkeypatch.setattr(hub, "_ask_once", absent)
    with standing_in(600) as stood, pytest.raises(UserError, match="no dataset"):
        examples_of("popqa", Request(3, 0))
    assert not stood.why


def test_all_of_an_unreachable_set_of_unknown_size_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreachable(_: str) -> NoReturn:
        raise ConnectionError("no way")

    monkeypatch.setattr(hub, "_ask_once", unreachable)
    with standing_in(600), pytest.raises(UserError, match=r"no way.* give a limit"):
        examples_of("someone/facts", Request(10**6, 0, every=True))


MIXES = """stages:
  - data: {source: kvr, limit: 8}
    mix:
      - {source: random-words, ratio: 1, words: 4}
      - {source: prose, ratio: 0.5, words: 5, passage_free: true}
    train: {batch_size: 4}
"""


@pytest.mark.usefixtures("place")
def test_each_mix_is_counted_by_itself() -> None:
    """8 facts, 8 passages of words and 4 of prose, which are left out: 5 steps an epoch."""
    facts = json.loads(dry(MIXES, "--json").stdout)
    ((stage,),) = facts["arms"].values()
    assert stage["mixes"] == {
        "D_M-random-words": {"examples": 8, "trained": True},
        "D_M-prose": {"examples": 4, "trained": False},
    }
    assert (stage["mixed_in"], stage["mixed_in_trained"]) == (12, True)
    assert stage["steps"] % 5 == 0
    printed = dry(MIXES).stdout
    assert "8+(4)" in printed
    assert "In brackets: left out by the control." in printed
