"""Models that cannot be used are one line, and nothing but safetensors is ever opened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from geomix.errors import UserError
from geomix.model.load import load_model

CPU = torch.device("cpu")


def edit_config(folder: Path, **keys: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


def emptied(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def only_pickles(folder: Path) -> None:
    """The very weights, in the old format: it would load if it were opened."""
    file = folder / "model.safetensors"
    torch.save(load_file(file), folder / "pytorch_model.bin")
    file.unlink()


def truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def without_a_tensor(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})


def without_end_token(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in content.items() if k != "eos_token"}))


def no_fast_tokenizer(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()


BREAKS: dict[str, Callable[[Path], object]] = {
    "empty folder": emptied,
    "config of no JSON": lambda f: (f / "config.json").write_text("{"),
    "config of a list": lambda f: (f / "config.json").write_text("[]"),
    "config of nothing": lambda f: (f / "config.json").write_text("{}"),
    "config of other bytes": lambda f: (f / "config.json").write_bytes(b"\xff\xfe"),
    "unknown architecture": lambda f: edit_config(f, model_type="nonesuch"),
    "no causal LM": lambda f: edit_config(f, model_type="vit"),
    "encoder and decoder": lambda f: edit_config(f, model_type="t5"),
    "shape of another model": lambda f: edit_config(f, intermediate_size=48),
    "a number that is a text": lambda f: edit_config(f, hidden_size="wide"),
    "no weights": lambda f: (f / "model.safetensors").unlink(),
    "only pickles": only_pickles,
    "truncated weights": truncated,
    "a tensor is missing": without_a_tensor,
    "no tokenizer": no_fast_tokenizer,
    "tokenizer of no JSON": lambda f: (f / "tokenizer.json").write_text("{"),
    "no end token": without_end_token,
    "code of its own": lambda f: edit_config(
        f, model_type="own", auto_map={"AutoModelForCausalLM": "code.Model"}
    ),
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub is asked, and asking for one fails at once."""
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def refused(name: str) -> str:
    with pytest.raises(UserError) as raised:
        load_model(name, CPU)
    (line,) = raised.value.lines
    assert "\n" not in line
    assert name in line
    assert len(line) < 600
    return line


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", BREAKS)
def test_a_folder_that_cannot_be_used_is_one_line(
    tiny_model: Path, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    BREAKS[kind](folder)
    refused(str(folder))


@pytest.mark.parametrize("name", ["nobody/nothing", "./not/there/at/all", "a b", "/", "\x00"])
def test_a_name_that_is_no_model_is_one_line(name: str) -> None:
    refused(name)


def test_what_is_loaded_is_in_single_precision_and_evaluation_mode(tiny_model: Path) -> None:
    loaded = load_model(str(tiny_model), CPU)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert not loaded.model.training
    assert loaded.device == CPU
    assert loaded.pad_id == loaded.tokenizer.pad_token_id != loaded.tokenizer.eos_token_id


def test_half_precision_weights_are_loaded_in_single(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    shutil.copytree(tiny_model, tmp_path / "half")
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(
        tmp_path / "half"
    )
    loaded = load_model(str(tmp_path / "half"), CPU)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}


def test_without_a_pad_token_the_end_token_fills(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in content.items() if k != "pad_token"}))
    loaded = load_model(str(folder), CPU)
    assert loaded.tokenizer.pad_token_id is None
    assert loaded.pad_id == loaded.tokenizer.eos_token_id
