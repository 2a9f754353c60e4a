"""A model's folder is unambiguous, and its configuration matches the weights, before loading."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from geomix.models.claims import _outline, check_weights
from geomix.models.files import read_config
from geomix.models.load import LoadedModel, check_saved, load_model, load_tokenizer
from geomix.util.errors import UserError

CPU = torch.device("cpu")
INDEX = "model.safetensors.index.json"


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model's folder, to be spoilt."""
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


@pytest.fixture
def sharded(copy: Path, loaded: LoadedModel) -> Path:
    """The tiny model in shards."""
    (copy / "model.safetensors").unlink()
    model: Any = loaded.model
    model.save_pretrained(copy, max_shard_size="40KB")
    return copy


def edit(folder: Path, **keys: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


def refused(folder: Path, load: Callable[..., object] = load_model) -> str:
    with pytest.raises(UserError) as raised:
        load(str(folder), *([CPU] if load is load_model else []))
    (line,) = raised.value.lines
    assert str(folder) in line
    assert "\n" not in line
    return line


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_adapter_files_beside_weights_are_named(sharded: Path, file: str) -> None:
    (sharded / file).write_text('{"peft_type": "LORA"}')
    assert f"({file}) beside the weights" in refused(sharded)


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_an_adapter_alone_is_named_with_its_base(
    tmp_path: Path, load: Callable[..., object]
) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}')
    assert "for the base model 'owner/base', not a model; merge" in refused(tmp_path, load)


def test_a_whole_set_of_weights_beside_shards_is_refused(sharded: Path, tiny_model: Path) -> None:
    shutil.copy(tiny_model / "model.safetensors", sharded)
    assert f"two sets of weights, model.safetensors and {INDEX}" in refused(sharded)
    (sharded / INDEX).unlink()
    assert "two sets of weights, model.safetensors and model-00001-of-" in refused(sharded)


def test_shards_and_their_index_must_agree(sharded: Path) -> None:
    shards = sorted(sharded.glob("model-*"))
    shutil.copy(shards[0], sharded / "model-00009-of-00009.safetensors")
    assert "does not name model-00009-of-00009.safetensors" in refused(sharded)
    (sharded / "model-00009-of-00009.safetensors").unlink()
    shards[1].unlink()
    assert f"{INDEX} names {shards[1].name}, not to be found there" in refused(sharded)
    (sharded / INDEX).unlink()
    assert f"without their index, {INDEX}" in refused(sharded)


def test_an_index_leads_nowhere_else(sharded: Path) -> None:
    index = json.loads((sharded / INDEX).read_text())
    first = next(iter(index["weight_map"]))
    index["weight_map"][first] = "../other.safetensors"
    (sharded / INDEX).write_text(json.dumps(index))
    assert "names ../other.safetensors, outside the folder" in refused(sharded)


@pytest.mark.parametrize(
    ("file", "advice"),
    [("pytorch_model.bin", "save_pretrained them as"), ("m.Q4.gguf", "pip install 'geomix[gguf]'")],
)
def test_weights_in_other_formats_are_named(copy: Path, file: str, advice: str) -> None:
    (copy / "model.safetensors").rename(copy / file)
    line = refused(copy)
    assert f"only {file}" in line
    assert advice in line


def test_two_tokenizers_that_differ_are_named(copy: Path) -> None:
    known = json.loads((copy / "tokenizer.json").read_text())["model"]["vocab"]
    (copy / "vocab.json").write_text(json.dumps(known))
    load_tokenizer(str(copy))
    rotated = {token: (i + 1) % len(known) for token, i in known.items()}
    (copy / "vocab.json").write_text(json.dumps(rotated))
    assert "two tokenizers that differ, tokenizer.json and vocab.json (id " in refused(copy)


def test_a_sentencepiece_model_of_another_tokenizer_is_named(copy: Path, tmp_path: Path) -> None:
    import sentencepiece

    text = tmp_path / "text.txt"
    text.write_text("a b c d e f g h i j k l m n o p q r s t u v w x y z\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "p"), vocab_size=40, hard_vocab_limit=False
    )
    shutil.copy(tmp_path / "p.model", copy / "tokenizer.model")
    assert "tokenizer.json and tokenizer.model (id " in refused(copy, load_tokenizer)


def test_a_folder_without_a_tokenizer_says_which_file_it_lacks(copy: Path) -> None:
    for file in copy.glob("*token*"):
        file.unlink()
    assert "no tokenizer (tokenizer.json)" in refused(copy, load_tokenizer)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer", "num_local_experts"])
def test_counts_beyond_the_weights_are_refused_before_anything_is_built(
    copy: Path, key: str, nested: bool
) -> None:
    edit(copy, **({"text_config": {key: 10**9}} if nested else {key: 10**9}))
    line = refused(copy, load_tokenizer)
    assert f"{key} is 1,000,000,000; its weights hold 20 tensors" in line
    (copy / "model.safetensors").unlink()
    assert "no model has so many" in refused(copy, load_tokenizer)


def test_more_parameters_than_the_weights_have_end_the_description(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geomix.models.claims._AT_LEAST", 10)
    monkeypatch.setattr("geomix.models.claims._PER_TENSOR", 2)
    edit(copy, num_hidden_layers=9, layer_types=None)
    assert "describes over 40 tensors, its weights hold 20" in refused(copy)


@pytest.mark.parametrize(
    ("key", "value", "claimed"),
    [("vocab_size", 10**9, "1,000,000,000 × 32"), ("hidden_size", 10**6, "1,000,000")],
)
def test_sizes_that_the_weights_do_not_have_are_said(
    copy: Path, key: str, value: int, claimed: str
) -> None:
    edit(copy, **{key: value})
    line = refused(copy)
    assert "the weights hold" in line
    assert claimed in line


def test_tables_beyond_all_measure_are_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geomix.models.claims._BUFFERS", 16)  # of rotary frequencies there are more
    edit(copy, key="of its own")
    assert "tables beside the weights" in refused(copy)


def test_equal_models_are_described_once(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever differs in the description, or in the weights' sizes and types, is another model."""
    described: list[Path] = []

    def counted(folder: Path) -> Any:
        described.append(folder)
        return _outline(folder)

    monkeypatch.setattr("geomix.models.claims._outline", counted)
    edit(copy, key="described once")
    tensors = load_file(copy / "model.safetensors")
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    check_weights(copy, read_config(copy))
    other = Path(shutil.copytree(copy, tmp_path / "other"))
    negative = {name: -tensor for name, tensor in tensors.items()}
    save_file(negative, other / "model.safetensors", {"format": "pt"})
    check_weights(other, read_config(other))
    assert described == [copy]
    halves = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    save_file(halves, other / "model.safetensors", {"format": "pt"})
    check_weights(other, read_config(other))
    edit(copy, key="another")
    check_weights(copy, read_config(copy))
    assert described == [copy, other, copy]


def test_a_saved_model_that_would_not_be_loaded_again_is_found(
    copy: Path, loaded: LoadedModel
) -> None:
    weights = loaded.model.state_dict()
    check_saved(copy, weights)
    file = copy / "model.safetensors"
    tensors = load_file(file)
    save_file({k: v for k, v in tensors.items() if "1.mlp" not in k}, file, {"format": "pt"})
    with pytest.raises(UserError, match="3 weights are missing"):
        check_saved(copy, weights)
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"extra\.weight would not be loaded"):
        check_saved(copy, {**weights, "extra.weight": torch.zeros(1)})
    (copy / "tokenizer.json").unlink()
    with pytest.raises(UserError):
        check_saved(copy, weights)
