"""Models that cannot be used are one line, and nothing but safetensors is ever opened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from geomix.models import load as module
from geomix.models.load import (
    LoadedModel,
    load_model,
    load_parameters,
    load_tokenizer,
    quiet_libraries,
)
from geomix.util.errors import UserError

CPU = torch.device("cpu")
INDEX = "model.safetensors.index.json"


def edit_config(folder: Path, name: str = "config.json", **keys: object) -> None:
    file = folder / name
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


def write_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def without_a_tensor(folder: Path) -> None:
    write_tensors(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))


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
    "config of brackets": lambda f: (f / "config.json").write_text("[" * 100_000),
    "config of nothing": lambda f: (f / "config.json").write_text("{}"),
    "config of other bytes": lambda f: (f / "config.json").write_bytes(b"\xff\xfe"),
    "unknown architecture": lambda f: edit_config(f, model_type="nonesuch"),
    "no causal LM": lambda f: edit_config(f, model_type="vit"),
    "encoder and decoder": lambda f: edit_config(f, model_type="t5"),
    "shape of another model": lambda f: edit_config(f, intermediate_size=48),
    "a number that is a text": lambda f: edit_config(f, hidden_size="wide"),
    "index of no JSON": lambda f: (f / INDEX).write_text("{"),
    "index of a list": lambda f: (f / INDEX).write_text("[]"),
    "index of a list of shards": lambda f: (f / INDEX).write_text('{"weight_map": []}'),
    "index of brackets": lambda f: (f / INDEX).write_text("[" * 100_000),
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


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model's folder, to be spoilt."""
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("file", "own"),
    [
        ("config.json", {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}),
        ("config.json", {"model_type": "t5", "auto_map": {"AutoModelForCausalLM": "own.Own"}}),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}},
        ),
    ],
)
def test_code_of_a_model_never_runs_whatever_is_piped_in(
    copy: Path, monkeypatch: pytest.MonkeyPatch, file: str, own: dict[str, object]
) -> None:
    (copy / "own.py").write_text(f"open({str(copy / 'it-ran')!r}, 'w').close()\nclass Own: pass\n")
    edit_config(copy, file, **own)
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    assert "needs code of its own, which geomix never runs" in refused(str(copy))
    assert not (copy / "it-ran").exists()


def test_one_token_more_than_embeddings_loads(copy: Path, loaded: LoadedModel) -> None:
    """Gemma 3's text models have such a tokenizer; data that uses the token is refused later."""
    loaded.tokenizer.add_tokens(["<one more>"])
    loaded.tokenizer.save_pretrained(copy)
    assert load_model(str(copy), torch.device("cpu")).pad_id < len(loaded.tokenizer)


def test_an_end_token_without_an_embedding_is_refused(copy: Path, loaded: LoadedModel) -> None:
    loaded.tokenizer.add_special_tokens({"eos_token": "<the end>"})
    loaded.tokenizer.save_pretrained(copy)
    assert "not its tokenizer's end token" in refused(str(copy))


def test_spare_embeddings_are_usual(copy: Path, loaded: LoadedModel) -> None:
    model: Any = loaded.model
    model.resize_token_embeddings(len(loaded.tokenizer) + 5, mean_resizing=False)
    model.save_pretrained(copy)
    assert load_model(str(copy), CPU).tokenizer.eos_token == "</s>"


def test_numbers_that_underflow_are_zeros(loaded: LoadedModel) -> None:
    """Gradients of what a model knows underflow; some processors are slow with such numbers."""
    assert loaded.model is not None
    tiny = torch.full((64,), 1e-30)
    assert float((tiny * 1e-10).abs().sum()) == 0
    assert float((tiny * 1e-5).abs().sum()) > 0


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm", "electra"])
def test_an_encoder_is_refused(copy: Path, loaded: LoadedModel, kind: str) -> None:
    assert "not causal" in refused(str(random_model(copy, loaded, kind)))


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "opt", "bloom", "mamba", "gemma2", "bert"])
def test_any_causal_model_is_loaded(copy: Path, loaded: LoadedModel, kind: str) -> None:
    keys = {"is_decoder": True} if kind == "bert" else {}
    model = load_model(str(random_model(copy, loaded, kind, **keys)), CPU).model
    assert all(p.grad is None for p in model.parameters())


def random_model(folder: Path, loaded: LoadedModel, kind: str, **keys: object) -> Path:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        kind,
        vocab_size=len(loaded.tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        **keys,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def test_weights_without_a_place_are_refused(copy: Path) -> None:
    edit_config(copy, num_hidden_layers=1)
    assert "9 weights that config.json has no place for, such as model.layers.1." in refused(
        str(copy)
    )


def test_saved_parameters_are_read_without_trying_the_model_out(
    copy: Path, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tried in ("_is_causal", "neighbour_problem", "packs", "can_cache"):
        monkeypatch.delattr(module, tried)
    found = load_parameters(copy)
    named = dict(loaded.model.named_parameters())
    assert [*found] == [*named]
    assert all(torch.equal(found[name], value) for name, value in named.items())
    assert {value.dtype for value in found.values()} == {torch.float32}
    weights = load_file(copy / "model.safetensors")
    save_file({**weights, "more": torch.zeros(2)}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights .* no place for, such as more"):
        load_parameters(copy)


def test_what_older_versions_saved_beside_the_weights_is_let_be(copy: Path) -> None:
    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()  # tied
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        tensors["model.layers.0.self_attn.masked_bias"] = torch.ones(1)

    write_tensors(copy, add)
    assert load_model(str(copy), CPU).pad_id == 2


@pytest.mark.parametrize("shard", ["weights.bin", "pytorch_model-00001.safetensors.bin", 3])
def test_an_index_opens_nothing_but_safetensors(copy: Path, shard: object) -> None:
    file = copy / "model.safetensors"
    tensors = load_file(file)
    torch.save(tensors, copy / str(shard))
    file.unlink()
    index = copy / INDEX
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(tensors, shard)}))
    assert f"'{shard}' is no .safetensors file" in refused(str(copy))


def test_shards_are_loaded(copy: Path, loaded: LoadedModel) -> None:
    (copy / "model.safetensors").unlink()
    model: Any = loaded.model
    model.save_pretrained(copy, max_shard_size="40KB")
    assert (copy / INDEX).is_file()
    again = load_model(str(copy), CPU).model.state_dict()
    assert all(torch.equal(again[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["built-in", "Builtin", "buitlin"])
def test_a_name_close_to_the_builtin_one_is_corrected(name: str) -> None:
    assert refused(name).endswith("did you mean 'builtin'?")
    assert "builtin'?" not in refused(f"me/{name}")


def test_a_hub_out_of_reach_is_asked_once_and_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    nowhere = hub.HUGGINGFACE_CO_URL_TEMPLATE.replace(hub.ENDPOINT, "http://127.0.0.1:1")
    monkeypatch.setattr(hub, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere)
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waited to ask again"))
    told = refused("nobody/nothing")
    assert "no such local folder, and the hub cannot be reached; give the path of a folder" in told
    assert told.endswith("hf download nobody/nothing")


def test_a_path_without_a_folder_is_never_a_hub_id(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "modell.csv").touch()
    for name, near in ((f"{tmp_path}/modell", tmp_path / "model"), ("./modell", Path("model"))):
        told = f"model '{name}': no such folder {Path(name)}; did you mean '{near}'?"
        assert refused(name) == told
    assert refused("~/modell").endswith(f"did you mean '{tmp_path / 'model'}'?")
    assert "is a file, no folder; give the folder that holds its config.json" in refused(
        "./modell.csv"
    )
    assert "no hub id owner/name; did you mean the folder 'model'?" in refused("modell!")
    shutil.copytree(tiny_model, tmp_path / "model", dirs_exist_ok=True)
    assert load_tokenizer("~/model").is_fast


def test_the_hub_client_keeps_its_warnings_to_itself() -> None:
    from huggingface_hub.utils import logging
    from transformers.utils import logging as others

    before, other = logging.get_verbosity(), others.get_verbosity()
    try:
        quiet_libraries()
        assert not logging.get_logger("huggingface_hub.utils._http").isEnabledFor(30)
    finally:
        logging.set_verbosity(before)
        others.set_verbosity(other)
        others.enable_progress_bar()


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
