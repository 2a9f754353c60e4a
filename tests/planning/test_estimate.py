"""A dry run's padding, memory and disk, against the finished run."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from click.testing import CliRunner, Result

from geomix.api import Run
from geomix.cli import main
from geomix.config.run import RunConfig
from geomix.config.training import LoraConfig, TrainConfig
from geomix.data.batch import Batch, collate
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.data.tokenise import tokenise_all
from geomix.experiments.prepare import prepare
from geomix.models.forward import backward_over
from geomix.models.load import load_model
from geomix.models.loss import weighted_loss
from geomix.models.meta import SHAPES, local_config, weightless
from geomix.planning.cost import amount
from geomix.planning.estimate import PACKED, Arm, Packing
from geomix.planning.memory import Memory, MicroBatch, memory_of, size_of
from geomix.training.optimiser import make_optimiser
from geomix.training.step import Stepper, training_forward
from geomix.training.trainable import attach

CPU = torch.device("cpu")
Prepare = Callable[[torch.nn.Module], torch.nn.Module]


def config(model: Path | str, *, epochs: int = 2, **more: Any) -> RunConfig:
    stages = [
        {
            "data": {"source": "kvr", "limit": 20},
            "mix": {"source": "random-words", "ratio": 2, "words": 3},
        },
        {"data": {"source": "arithmetic", "limit": 10}},
    ]
    whole = {"model": str(model), "stages": stages, "evaluate": {"epochs": 1}, **more}
    whole.setdefault("train", {"batch_size": 8, "micro_batch_size": 3, "lr": 1e-3})
    for stage in stages:
        stage.setdefault("stop", {"epochs": epochs})
        stage.setdefault("train", whole["train"])
    return RunConfig.model_validate(whole)


def shape_of(folder: Path) -> Any:
    return local_config(str(folder))


def arm(run: RunConfig) -> Arm:
    prepared = prepare(run)
    return Arm(run, prepared.plans, prepared.probes, prepared.evaluated)


def rows_of(rows: int, width: int, targets: int) -> list[TokenisedExample]:
    labels = (IGNORED,) * (width - targets) + (7,) * targets
    return [TokenisedExample(tuple([5] * width), labels, Example("", ""))] * rows


def saved_bytes(model: torch.nn.Module, batch: Batch, precision: str) -> int:
    """Bytes of all that autograd keeps of a real forward pass, the parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    forward = training_forward(model, precision, CPU)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward(batch)
    return sum(kept.values())


def adapted(model: torch.nn.Module) -> torch.nn.Module:
    attach(model, LoraConfig(rank=4), "lora")
    return model


@pytest.mark.parametrize("prepare", [torch.nn.Module.train, adapted])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["tiny_model", "dropout_model"])
def test_the_activations_are_what_autograd_keeps(
    request: pytest.FixtureRequest, kind: str, precision: str, prepare: Prepare
) -> None:
    """Autograd's own hooks, on a real model, list every tensor that it saves."""
    folder = request.getfixturevalue(kind)
    model = prepare(load_model(str(folder), CPU).model.train())
    examples = rows_of(6, 30, 5) + rows_of(6, 10, 5)
    batch = collate(examples, [0.1] * 12, 0, 40)
    assert batch.ids.shape == (6, 40)
    real = saved_bytes(model, batch, precision)
    shape, micro = local_config(str(folder)), MicroBatch(6, 40, 60)
    said = memory_of(shape, micro, precision, prepare=prepare).activations
    assert said == pytest.approx(real, rel=0.05)


def test_twice_the_rows_keep_twice_the_activations(tiny_model: Path) -> None:
    shape = local_config(str(tiny_model))
    one, two = (memory_of(shape, MicroBatch(n, 64, 8 * n), "fp32") for n in (4, 8))
    assert two.activations == pytest.approx(2 * one.activations, rel=0.02)
    assert two.logits == pytest.approx(2 * one.logits, rel=0.02)
    assert (one.weights, one.gradients, one.adam) == (two.weights, two.gradients, two.adam)


@pytest.mark.parametrize("prepare", [torch.nn.Module.train, adapted])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_gradients_and_moments_are_those_of_a_real_step(
    tiny_model: Path, dtype: torch.dtype, prepare: Prepare
) -> None:
    """A real model's, prepared in the order of training: first its type, then its adapters."""
    model = prepare(load_model(str(tiny_model), CPU).model.to(dtype))
    train = TrainConfig()
    optimiser = make_optimiser(model, train)
    Stepper(model, optimiser, train, 0, CPU).step({"D_A": rows_of(2, 8, 2)})
    moments = sum(
        state[name].nbytes
        for state in optimiser.state.values()
        for name in ("exp_avg", "exp_avg_sq")
    )
    shape = local_config(str(tiny_model))
    found = memory_of(shape, MicroBatch(2, 8, 4), "fp32", dtype, prepare)
    weights = sum(p.nbytes for p in model.parameters())
    assert found.adam == moments
    assert found.gradients == sum(p.nbytes for p in model.parameters() if p.requires_grad)
    buffers = sum(b.nbytes for b in model.buffers())
    assert found.weights == pytest.approx(weights + buffers, rel=0.01)


def test_the_logits_are_those_of_the_targets(tiny_model: Path) -> None:
    """Logits, log-softmax, and the gradients of both count at the P target tokens only."""
    shape = shape_of(tiny_model)
    few, many = (memory_of(shape, MicroBatch(8, 64, n), "fp32").logits for n in (10, 110))
    per_target = (many - few) / 100
    assert 3.8 * 4 * shape.vocab_size <= per_target <= 4.2 * 4 * shape.vocab_size


def test_bfloat16_weights_take_half(tiny_model: Path) -> None:
    shape, micro = local_config(str(tiny_model)), MicroBatch(4, 64, 32)
    full, half = (memory_of(shape, micro, "fp32", t) for t in (torch.float32, torch.bfloat16))
    assert half.gradients * 2 == full.gradients
    assert half.adam * 2 == full.adam


def test_a_frozen_parameter_has_no_gradient_and_no_moments(tiny_model: Path) -> None:
    def freeze(model: torch.nn.Module) -> torch.nn.Module:
        model.get_input_embeddings().requires_grad_(False)  # type: ignore[operator]
        return model

    shape, micro = shape_of(tiny_model), MicroBatch(4, 16, 8)
    found = memory_of(shape, micro, "fp32", prepare=freeze)
    whole = memory_of(shape, micro, "fp32")
    embedding = 4 * shape.vocab_size * shape.hidden_size
    assert whole.gradients - found.gradients == embedding
    assert whole.adam - found.adam == 2 * embedding


def test_the_highest_point_of_a_step_and_of_a_snapshot() -> None:
    """Worked out by hand: 10 of weights, 8 of gradients, 16 of moments."""
    found = Memory(10, 8, 16, 100, 20, pass_alone=135, pass_after=140)
    assert found.step(passes=1) == 16 + 135
    assert found.step(passes=2) == 16 + 140
    assert found.snapshot(sets=1) == 16 + 140
    assert found.snapshot(sets=4) == 16 + 140 + 3 * 8
    small = Memory(10, 8, 16, 1, 1, pass_alone=12, pass_after=13)
    assert small.step(passes=1) == 16 + 10 + 8


def layers(hidden: int, inner: int, heads: int, shared: int) -> int:
    """Parameters of a Llama layer by hand: q and o, k and v, three of the MLP, two norms."""
    return 2 * hidden**2 + 2 * hidden * hidden // heads * shared + 3 * hidden * inner + 2 * hidden


@pytest.mark.parametrize(
    ("name", "count", "vocabulary"),
    [
        ("meta-llama/Meta-Llama-3-8B", 8_030_261_248, 128_256),
        ("mistralai/Mistral-7B-v0.3", 7_248_023_552, 32_768),
    ],
)
def test_the_shipped_shapes_have_the_published_parameters(
    name: str, count: int, vocabulary: int
) -> None:
    with torch.device("meta"):
        found = size_of(weightless(local_config(name), torch.float32))
    by_hand = 32 * layers(4096, 14336, 32, 8) + 2 * vocabulary * 4096 + 4096
    assert found.parameters == found.trainable == by_hand == count
    assert (found.layers, found.features, found.item) == (32, 4096, 4)
    assert f"{count:,}" in json.loads(SHAPES.read_text(encoding="utf-8"))[name]["source"]


@pytest.mark.parametrize("pack", [64, None])
def test_the_padding_is_that_of_the_batches_as_they_are_trained(
    tiny_model: Path, pack: int | None
) -> None:
    """Every batch of the first epoch is laid out for real, and its padding counted."""
    train = {"batch_size": 8, "micro_batch_size": 3, "pack": pack}
    run = config(tiny_model, train=train)
    made = arm(run)
    found, plan = made.packing(0), made.plans[0]
    tokenizer = load_model(str(tiny_model), CPU).tokenizer
    tokens = {n: tokenise_all(tokenizer, part.examples) for n, part in plan.sets.items()}
    real, slots, most, passes = 0, 0, 0, []
    for batch in plan.batches(run.seed, 0, 0, 8):
        passes.append(0)
        for name, places in plan.by_set(batch).items():
            for start in range(0, len(places), 3):
                examples = [tokens[name][i] for i in places[start : start + 3]]
                laid = collate(examples, [1.0] * len(examples), 0, pack)
                real += sum(len(e.ids) for e in examples)
                slots += laid.ids.numel()
                most = max(most, laid.ids.numel())
                passes[-1] += 1
    assert found.padding == pytest.approx(1 - real / slots)
    assert found.padding > 0
    assert (found.micro.tokens, found.passes) == (most, max(passes))
    assert found.packed == found.batches == 8


def test_a_large_set_is_estimated_from_its_first_batches(tiny_model: Path) -> None:
    stages = [{"data": {"source": "kvr", "limit": 200}, "train": {"batch_size": 2}}]
    run = RunConfig.model_validate({"model": str(tiny_model), "stages": stages})
    found = arm(run).packing(0)
    assert (found.packed, found.batches) == (PACKED, 100)


def test_padding_that_carries_loss_is_still_padding(tiny_model: Path) -> None:
    whole = config(tiny_model, train={"batch_size": 30, "pack": None, "micro_batch_size": 3})
    literal = whole.model_copy(update={"paper_literal": ("padding-loss",)})
    plain, padded = arm(whole).packing(0), arm(literal).packing(0)
    assert padded.padding > plain.padding  # to the longest of the batch, not of the micro-batch
    assert padded.micro.targets > plain.micro.targets


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and no way to the network."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the network was asked")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tmp_path


def dry(run: RunConfig | str, *arguments: str) -> Result:
    file = Path("run.yaml")
    text = run if isinstance(run, str) else run.model_dump_json(exclude={"name"})
    file.write_text(text, encoding="utf-8")
    return CliRunner().invoke(main, ["train", "run.yaml", "--dry-run", *arguments])


def test_a_model_that_is_not_here_is_unknown_without_the_network(place: Path) -> None:
    result = dry(config("someone/some-model"))
    assert result.exit_code == 0, result.output
    assert "someone/some-model: its config.json is not on this machine" in result.stdout
    assert "memory unknown, disk unknown" in result.stdout
    found = json.loads(dry(config("someone/some-model"), "--json").stdout)["cost"]
    assert (found["memory"], found["disk"]) == (None, None)
    assert found["arms"][""]["stages"][0]["padding"] is None


def test_a_preset_is_estimated_without_the_network(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights, gradients and moments alone are 16 bytes a parameter."""
    whole = config("meta-llama/Meta-Llama-3-8B", record=None)
    result = dry(whole.model_copy(update={"stages": whole.stages[:1]}), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["cost"]
    state = 16 * 8_030_261_248
    assert state < found["memory"] < 1.2 * state
    final = found["arms"][""]["stages"][0]["disk"]["final"]
    assert final == 8 * 8_030_261_248  # weights and v̂, float32
    shapes = json.loads(SHAPES.read_text(encoding="utf-8"))
    shapes["mistralai/Mistral-7B-v0.3"]["num_hidden_layers"] = 2  # which are sooner measured
    (place / "shapes.json").write_text(json.dumps(shapes), encoding="utf-8")
    monkeypatch.setattr("geomix.models.meta.SHAPES", place / "shapes.json")
    assert "≈ in tokens of the built-in" in dry(config("mistralai/Mistral-7B-v0.3")).stdout


def test_a_mistake_in_a_model_that_is_here_is_one_line(place: Path) -> None:
    Path("broken").mkdir()
    Path("broken/config.json").write_text("{", encoding="utf-8")
    result = dry(config("broken"))
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "config.json" in result.stderr


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stages.0.data.limit": 10_000_000}, "stages[0].data.limit: 10,000,000 examples"),
        (
            {"stages.0.mix.ratio": 1000, "stages.0.data.limit": 20_000},
            "stages[0].mix: 20,000,000 examples",
        ),
        (
            {"record.at": "[every:1]", "stages.0.stop.epochs": 1_000_000, "train.batch_size": 1},
            "about 60,000,000 snapshots in the 60,000,000 steps of stage 1",
        ),
        ({"record.at": "[log:999999999]", "stages.1.stop.epochs": 1_000_000}, "snapshots"),
    ],
)
def test_absurd_sizes_are_refused_at_once(
    place: Path, changes: dict[str, object], says: str
) -> None:
    text = """stages:
  - {data: {source: kvr, limit: 20}, mix: {source: random-words, ratio: 2}}
  - {data: {source: arithmetic, limit: 20}}
"""
    given = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    result = dry(text, *given)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert says in result.stderr


def test_the_disk_is_what_a_run_takes(tiny_model: Path, place: Path) -> None:
    """Each kind of file, of a run that is there, within a fifth."""
    record = {"at": ["boundaries", "every:5"], "probes": 8, "sketches": {}}
    run = config(tiny_model, epochs=1, record=record)
    found = json.loads(dry(run, "--json").stdout)["cost"]
    result = CliRunner().invoke(main, ["train", "run.yaml", "--out", "made", "--quiet"])
    assert result.exit_code == 0, result.output
    stages = found["arms"][""]["stages"]

    def size(*patterns: str) -> int:
        files = {file for p in patterns for file in Path("made").glob(p) if file.is_file()}
        assert files
        return sum(file.stat().st_size for file in files)

    weights = size("stages/*/checkpoints/final/*.safetensors")
    assert sum(s["disk"]["final"] for s in stages) == pytest.approx(weights, rel=0.1)
    snapshots = size("records/snapshots/*.h5")
    assert sum(s["disk"]["snapshots"] for s in stages) == pytest.approx(snapshots, rel=0.2)
    told = size("stages/*/eval/*.jsonl", "metrics.jsonl")
    assert sum(s["disk"]["verdicts"] for s in stages) == pytest.approx(told, rel=0.2)


def test_json_holds_the_counts_and_the_cost(tiny_model: Path, place: Path) -> None:
    found = json.loads(dry(config(tiny_model), "--json").stdout)
    first, second = found["arms"][""]
    assert (first["stage"], first["own"], first["mixed_in"], first["steps"]) == ("kvr", 20, 40, 16)
    assert (second["set"], second["mixed_in"], second["replay"]) == ("D_B", 0, {})
    (cost,) = found["cost"]["arms"].values()
    assert [stage["stage"] for stage in cost["stages"]] == ["kvr", "arithmetic"]
    highest = max(*(s["memory"] for s in cost["stages"]), cost["snapshot_memory"])
    assert found["cost"]["memory"] == highest


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (12 * 2**20, "12 MiB"),
        (int(1.44 * 2**30), "1.4 GiB"),
        (129 * 2**30, "129 GiB"),
        (3 * 2**40, "3.0 TiB"),
        (5000 * 2**40, "5000 TiB"),
        (None, "unknown"),
    ],
)
def test_amounts_in_words(size: int | None, says: str) -> None:
    assert amount(size) == says


def test_the_real_loss_of_a_batch_is_not_changed_by_looking(tiny_model: Path) -> None:
    """The fake tensors leave no mode behind: a real step gives numbers before and after."""
    model = load_model(str(tiny_model), CPU).model
    batch = collate(rows_of(2, 8, 2), [0.25] * 2, 0, 8)
    forward = training_forward(model, "fp32", CPU)
    before = weighted_loss(forward(batch), batch).item()
    memory_of(local_config(str(tiny_model)), MicroBatch(2, 8, 4), "bf16")
    assert weighted_loss(forward(batch), batch).item() == before


def test_activations_that_are_computed_again_are_not_kept(tiny_model: Path) -> None:
    """Each layer keeps its input: rows × width × d × 4 bytes."""
    train = {"batch_size": 8, "micro_batch_size": 8}
    kept = []
    for again in (False, True):
        made = arm(config(tiny_model, train={**train, "gradient_checkpointing": again}))
        parts = made.memory_parts(0, made.packing(0))
        assert parts is not None
        kept.append(parts.activations)
    assert kept[1] < 0.3 * kept[0]


def test_adapters_are_counted(tiny_model: Path, place: Path) -> None:
    """q and v of two layers: rank × (32 in + 32 or 16 out) each."""
    lora = {"rank": 2, "targets": ["q_proj", "v_proj"]}
    result = dry(config(tiny_model, train={"batch_size": 8, "lora": lora}), "--json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["cost"]["arms"].values()
    assert found["stages"][0]["size"]["trainable"] == 2 * 2 * (32 + 32 + 32 + 16)
    assert found["stages"][0]["memory"] > 4 * found["stages"][0]["size"]["parameters"]


def test_a_snapshot_of_a_taken_stage_needs_no_optimiser(tiny_model: Path) -> None:
    """All its parameters have gradients, whatever its `train` says, and two moments fewer each."""
    record = {"at": ["boundaries"], "probes": 8}
    train = {"batch_size": 8, "micro_batch_size": 3}

    def recorded(taken: bool, **more: Any) -> int:
        run = config(tiny_model, record=record, train={**train, **more})
        stage = run.stages[0].model_copy(update={"from_": "elsewhere"} if taken else {})
        found = arm(run.model_copy(update={"stages": [stage]})).snapshot_memory()
        assert found is not None
        return found

    weights = sum(p.nbytes for p in load_model(str(tiny_model), CPU).model.parameters())
    whole = recorded(taken=True)
    assert recorded(taken=False) - whole == 2 * weights
    assert recorded(taken=True, lora={"rank": 2}) == whole
    assert recorded(taken=False, lora={"rank": 2}) < whole


def test_a_packing_has_a_share(tiny_model: Path) -> None:
    found = arm(config(tiny_model)).packing(1)
    assert isinstance(found, Packing)
    assert 0 <= found.padding < 1


def everything_recorded(model: Path, scratch: str) -> RunConfig:
    """A run that records all that there is."""
    record = {"preset": "path", "at": ["every:4"], "probes": 5, "activations": 2, "lens": True}
    train = {"batch_size": 8, "lr": 1e-3, "update_shares": True, "weight_decay": 0.1}
    record |= {"modules": ["*.mlp"], "gradients": True, "scratch": scratch}
    return config(model, epochs=1, record=record, train=train)


@pytest.mark.parametrize("scratch", ["memory", "disk"])
def test_a_record_holds_so_many_copies(tiny_model: Path, place: Path, scratch: str) -> None:
    run = everything_recorded(tiny_model, scratch)
    (cost,) = json.loads(dry(run, "--json").stdout)["cost"]["arms"].values()
    found = cost["record"]
    one = cost["stages"][0]["size"]["trainable"] * 4
    sets = 4  # D_A, D_B, D_M and held-out
    parts = 3  # D_A, D_M and decay
    before = (0 if scratch == "disk" else sets) + 1 + parts  # of the pairs
    assert found["copies"] == (1 if scratch == "disk" else sets) + 2 + parts + before
    assert found["memory"] == found["copies"] * one
    assert found["scratch"] == (2 * sets * one if scratch == "disk" else 0)


def test_the_cost_of_a_record_is_what_recording_does(
    tiny_model: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes are counted where gradients are computed, files are weighed, snapshots are listed."""
    run = everything_recorded(tiny_model, "disk")
    (cost,) = json.loads(dry(run, "--json").stdout)["cost"]["arms"].values()
    passes: list[int] = []
    real = backward_over

    def counted(forward: Any, batches: Any) -> Any:
        for batch, logits in real(forward, batches):
            passes.append(batch.examples)
            yield batch, logits

    monkeypatch.setattr("geomix.recording.recorder.backward_over", counted)
    result = CliRunner().invoke(main, ["train", "run.yaml", "--out", "made", "--quiet"])
    assert result.exit_code == 0, result.output
    made = Run(place / "made")
    found = cost["record"]
    assert found["snapshots"] == len(made.snapshots())
    steps = [line for line in made.metrics() if line["event"] == "step"]
    assert found["training"] == sum(line["examples"] for line in steps)
    assert len(json.loads(made.probes_file.read_text())) == 4, "sets, as above"
    assert found["passes"] == sum(passes)
    weight = sum(file.stat().st_size for file in made.snapshots())
    assert sum(found["disk"].values()) == pytest.approx(weight, rel=0.2)
    shown = dry(run).stdout
    assert f"{found['snapshots']} snapshots, {found['passes']:,} example passes beside" in shown
    assert dry(config(tiny_model, record=None)).stdout.count("example passes") == 0
    assert "Record: nothing" in dry(config(tiny_model, record={"at": [4000]})).stdout
