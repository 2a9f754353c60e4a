"""Saved state is restored bit for bit, and anything that changed since is named."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from geomix.config.training import TrainConfig
from geomix.data.sources import kvr
from geomix.data.tokenise import tokenise_all
from geomix.models.load import LoadedModel, load_model
from geomix.training.checkpoint import Position, check, restore, save, training_state
from geomix.training.optimiser import make_optimiser, second_moments
from geomix.training.step import Stepper, seed_dropout
from geomix.util.errors import UserError

CPU = torch.device("cpu")
CONFIG = TrainConfig(lr=1e-2, weight_decay=0.1)
AT = Position(1, 2, 3, 40, 5678, {"below": 2, "total": 0.1 + 0.2, "steps": 3, "waited": 1})


def train(loaded: LoadedModel, optimiser: torch.optim.Optimizer, seeds: list[int]) -> list[float]:
    """One step a seed on six facts; the losses, which hang on the dropout too."""
    stepper = Stepper(loaded.model.train(), optimiser, CONFIG, loaded.pad_id, CPU)
    losses = []
    for seed in seeds:
        facts = tokenise_all(loaded.tokenizer, kvr.examples(6, seed, "train"))
        seed_dropout(5, 1, seed)
        losses.append(stepper.step({"D_A": facts}).loss)
    return losses


def state(loaded: LoadedModel, optimiser: Any) -> dict[str, torch.Tensor]:
    """Everything that training goes on from."""
    found = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
    for name, parameter in loaded.model.named_parameters():
        for key, value in optimiser.state[parameter].items():
            found[f"{key} of {name}"] = value.clone()
    return found


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, dropout_model: Path) -> Path:
    """A checkpoint after three steps, and in `final` what is kept of it at a stage's end."""
    loaded = load_model(str(dropout_model), CPU)
    optimiser = make_optimiser(loaded.model, CONFIG)
    train(loaded, optimiser, [0, 1, 2])
    folder = tmp_path_factory.mktemp("saved")
    save(folder / "step-000040", loaded, training_state(loaded.model, optimiser, None), AT)
    save(folder / "final", loaded, second_moments(loaded.model, optimiser), Position(2))
    return folder


def test_training_goes_on_bit_for_bit(tmp_path: Path, dropout_model: Path) -> None:
    """Weights, both moments, Adam's step and the dropout, after the save and three steps on."""
    whole = load_model(str(dropout_model), CPU)
    optimiser = make_optimiser(whole.model, CONFIG)
    train(whole, optimiser, [0, 1, 2])
    save(tmp_path / "step-000003", whole, training_state(whole.model, optimiser, None), AT)
    before = state(whole, optimiser)
    losses = train(whole, optimiser, [3, 4, 5])
    after = state(whole, optimiser)

    torch.manual_seed(6)  # the random state is none of what a step hangs on
    checkpoint = check(tmp_path / "step-000003")
    assert checkpoint.position == AT
    again = load_model(str(checkpoint.path), CPU)
    fresh = make_optimiser(again.model, CONFIG)
    restore(checkpoint, again.model, fresh)
    assert {key.split(" of ")[0] for key in before if " of " in key} == {
        "step",
        "exp_avg",
        "exp_avg_sq",
    }
    assert_equal(state(again, fresh), before)
    assert train(again, fresh, [3, 4, 5]) == losses
    assert_equal(state(again, fresh), after)


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


def test_tied_weights_are_kept_once_and_stay_tied(saved: Path) -> None:
    weights = load_file(saved / "step-000040" / "model.safetensors")
    assert "transformer.wte.weight" in weights
    assert "lm_head.weight" not in weights
    moments = load_file(saved / "step-000040" / "optimiser.safetensors")
    assert "exp_avg:transformer.wte.weight" in moments
    assert len(moments) == 3 * len(weights)
    model: Any = load_model(str(saved / "step-000040"), CPU).model
    assert model.lm_head.weight is model.transformer.wte.weight


def test_a_stages_end_keeps_the_second_moments_alone(saved: Path) -> None:
    moments = load_file(saved / "final" / "adam_second_moments.safetensors")
    whole = load_file(saved / "step-000040" / "optimiser.safetensors")
    assert not (saved / "final" / "optimiser.safetensors").exists()
    for name, value in moments.items():
        steps = float(whole[f"step:{name}"])
        torch.testing.assert_close(value, whole[f"exp_avg_sq:{name}"] / (1 - 0.95**steps))
    assert check(saved / "final").position == Position(2)


def test_what_stands_there_stays(saved: Path, dropout_model: Path) -> None:
    before = {file: file.read_bytes() for file in (saved / "final").iterdir()}
    loaded = load_model(str(dropout_model), CPU)
    save(saved / "final", loaded, {}, Position(0))
    assert {file: file.read_bytes() for file in (saved / "final").iterdir()} == before


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "optimiser.safetensors",
    "position.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


def test_the_manifest_names_every_file(saved: Path) -> None:
    folder = saved / "step-000040"
    assert sorted(json.loads((folder / "manifest.json").read_text())) == sorted(FILES)
    assert {file.name for file in folder.iterdir()} == {*FILES, "manifest.json"}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("damage", "says"),
    [(flip, "{} is damaged"), (cut, "{} is damaged"), (Path.unlink, "incomplete, it lacks {}")],
)
def test_a_file_that_is_not_as_it_was_is_named(
    saved: Path, tmp_path: Path, name: str, damage: Callable[[Path], None], says: str
) -> None:
    copy = tmp_path / "step-000040"
    shutil.copytree(saved / "step-000040", copy)
    assert check(copy).position == AT
    damage(copy / name)
    with pytest.raises(UserError) as raised:
        check(copy)
    assert raised.value.lines == (f"{copy}: {says.format(name)}",)


@pytest.mark.parametrize(
    "content", ["", "{", "{}", "[]", "3", '{"position.json": 3}', "[" * 100_000, "\xff"]
)
def test_a_manifest_that_is_none_is_one_line(saved: Path, tmp_path: Path, content: str) -> None:
    copy = tmp_path / "step-000040"
    shutil.copytree(saved / "step-000040", copy)
    (copy / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"step-000040: ") as raised:
        check(copy)
    assert len(raised.value.lines) == 1
    (copy / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"step-000040: incomplete, it lacks manifest\.json"):
        check(copy)


def test_a_disk_that_is_full_when_the_tokenizer_is_written(
    tmp_path: Path, dropout_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokenizers library raises a bare Exception there; nothing is left behind."""
    loaded = load_model(str(dropout_model), CPU)
    optimiser = make_optimiser(loaded.model, CONFIG)
    monkeypatch.setattr(loaded.model, "save_pretrained", lambda *_, **__: None)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        with pytest.raises(UserError, match="final: the checkpoint cannot be written") as raised:
            save(tmp_path / "final", loaded, second_moments(loaded.model, optimiser), AT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(raised.value.lines) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_of_the_program_is_not_called_a_full_disk(
    tmp_path: Path, dropout_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(str(dropout_model), CPU)

    def wrong(_: Path, **__: Any) -> None:
        raise TypeError("a mistake")

    monkeypatch.setattr(loaded.model, "save_pretrained", wrong)
    with pytest.raises(TypeError, match="a mistake"):
        save(tmp_path / "final", loaded, {}, AT)
