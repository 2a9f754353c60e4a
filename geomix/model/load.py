"""Any causal LM of transformers, by hub id, local folder, or the built-in one."""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geomix.data.foreign import trust
from geomix.errors import UserError, first_line, is_failure
from geomix.model.packing import packs
from geomix.model.past import goes_on

BUILTIN = "builtin"
CPU = torch.device("cpu")

_END_TOKENS = ("bos", "eos", "pad")

_PACKAGE = Path(__file__).resolve().parent.parent
_NOT_CAUSAL = 1e-4
"""Share of the largest logit by which a later token may change those before it. A causal model
gives 0, float32's noise is 1e-6, and encoders start at 2e-3, random ones included."""

_PLACES = (_PACKAGE / "builtin", _PACKAGE.parent / "data" / "base")  # installed; from a checkout


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A causal LM with its tokenizer.

    Attributes:
        model: in float32, in evaluation mode, on `device`.
        tokenizer: a fast tokenizer.
        pad_id: token id that fills a batch; nothing is predicted from it.
        packs: whether several examples may share a row (`geomix.model.packing`).
        goes_on: whether it can decode from what a forward pass kept (`geomix.model.past`).
    """

    model: nn.Module
    tokenizer: Any
    pad_id: int
    packs: bool = False
    goes_on: bool = False

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return next(self.model.parameters()).device


def builtin_folder() -> Path:
    """Folder of the built-in base model.

    Raises:
        UserError: the installation lacks it.
    """
    for place in _PLACES:
        if (place / "config.json").is_file():
            return place
    raise UserError(f"{_PLACES[0]}: the built-in model is missing; install geomix again")


def default_device() -> torch.device:
    """The first GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def quiet_libraries() -> None:
    """Keep the libraries' own progress bars and notices out of the command line's output."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    hub_logging.set_verbosity(logging.ERROR)


def load_model(name: str, device: torch.device) -> LoadedModel:
    """Load model and tokenizer; weights from safetensors only, no code of the model's own.

    Args:
        name: `builtin`, a local folder, or a hub id.
        device: where the model goes.

    Raises:
        UserError: there is no such model, or it is not a causal LM that can be used.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig

    tokenizer = load_tokenizer(name)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            place_of_model(name),
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,  # None would ask, and `yes |` would answer
            output_loading_info=True,
        )
    except BaseException as error:  # a broken file raises anything, a panic of Rust included
        raise _unusable(name, error) from None
    model.to(device).eval()
    try:
        problem = _problem(model, tokenizer, info)
    except BaseException as error:  # an architecture that takes no token ids raises anything
        raise _unusable(name, error) from None
    if problem:
        raise UserError(f"model '{name}': {problem}")
    ends = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in _END_TOKENS}
    model.generation_config = GenerationConfig(**ends)  # plain greedy, whatever its own file says
    pad = tokenizer.pad_token_id
    if pad is None or pad >= embedded_tokens(model):
        pad = tokenizer.eos_token_id
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        pad_id=pad,
        packs=packs(model, *_two_tokens(model, tokenizer)),
        goes_on=goes_on(model, *_two_tokens(model, tokenizer)),
    )


def load_tokenizer(name: str) -> Any:
    """Load a model's tokenizer alone.

    Args:
        name: `builtin`, a local folder, or a hub id.

    Raises:
        UserError: there is no such model, or its tokenizer is not a fast one with an end token.
    """
    from transformers import AutoTokenizer

    source = place_of_model(name)
    if Path(source).is_dir():
        _check_folder(Path(source))
    else:
        _check_hub(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except BaseException as error:  # a broken file raises anything, a panic of Rust included
        raise _unusable(name, error) from None
    # A tokenizer's first use would change these, and with them its hash; no text is cut or padded.
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    if name == BUILTIN:
        trust(tokenizer)
    for origin in ("is_local", "local_files_only"):  # a checkpoint is the same wherever θ_0 was
        tokenizer.init_kwargs.pop(origin, None)
    if not tokenizer.is_fast or tokenizer.eos_token_id is None:
        raise UserError(f"model '{name}': geomix needs a fast tokenizer that has an end token")
    return tokenizer


def place_of_model(name: str) -> str:
    """The folder of a model's files, or its id on the hub."""
    return str(builtin_folder()) if name == BUILTIN else name


def embedded_tokens(model: Any) -> int:
    """How many token ids the model embeds; some tokenizers know a few more, for other models."""
    rows: int = model.get_input_embeddings().num_embeddings
    return rows


def _problem(model: Any, tokenizer: Any, info: dict[str, Any]) -> str | None:
    """Why a model that transformers loads is none that geomix can use."""
    if info["missing_keys"]:  # transformers would draw them at random, with a warning
        missing = sorted(info["missing_keys"])
        return (
            f"{len(missing)} weights are missing, such as {missing[0]}; "
            "is it a causal LM of this architecture?"
        )
    if tokenizer.eos_token_id >= embedded_tokens(model):
        return f"it embeds {embedded_tokens(model)} tokens, but not its tokenizer's end token"
    if not _is_causal(model, tokenizer):
        return "not causal: a token changes what is predicted before it (an encoder?)"
    # Masks and the like that older versions saved are computed now.
    buffers = {buffer for buffer, _ in model.named_buffers()}
    unknown = sorted(
        key
        for key in info["unexpected_keys"]
        if key not in buffers and not key.endswith(".masked_bias")
    )
    if unknown:
        return (
            f"its file holds {len(unknown)} weights that config.json has no place for, "
            f"such as {unknown[0]}"
        )
    return None


@torch.no_grad()
def _is_causal(model: Any, tokenizer: Any) -> bool:
    """Whether two sequences that differ in the last token agree in all logits before it."""
    first, last = _two_tokens(model, tokenizer)
    both = [[first, last, first, first], [first, last, first, last]]
    one, other = model(input_ids=torch.tensor(both, device=model.device)).logits[:, :-1]
    return not bool((one - other).abs().max() > _NOT_CAUSAL * one.abs().max())


def _two_tokens(model: Any, tokenizer: Any) -> tuple[int, int]:
    """The first and the last ordinary token that the model embeds."""
    known = set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)
    ids = [token for token in known if token < embedded_tokens(model)]
    return min(ids), max(ids)


def _unusable(name: str, error: BaseException) -> BaseException:
    """The line for a library's failure; an interrupt stays what it is."""
    if not is_failure(error):
        return error
    if "trust_remote_code" in str(error):
        return UserError(f"model '{name}': needs code of its own, which geomix never runs")
    return UserError(
        f"model '{name}': cannot be loaded as a causal LM with its tokenizer: {first_line(error)}"
    )


def _check_hub(name: str) -> None:
    """Ask once for what is not cached: transformers would try for most of a minute."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if "/" not in name and difflib.get_close_matches(name.lower(), [BUILTIN]):
        raise UserError(f"model '{name}': no such local folder; did you mean '{BUILTIN}'?")
    try:
        if not isinstance(try_to_load_from_cache(name, "config.json"), str):
            get_hf_file_metadata(hf_hub_url(name, "config.json"))
    except Exception as error:  # the network raises anything
        raise UserError(
            f"model '{name}': no such local folder, and the hub did not give it: "
            f"{first_line(error)}"
        ) from None


def _check_folder(folder: Path) -> None:
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(f"{folder}: not a model folder of transformers (it holds no config.json)")
    _read_json(config)
    for index in sorted(folder.rglob("*.safetensors.index.json")):
        content = _read_json(index)
        shards = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(shards, dict):
            raise UserError(f"{index}: not an index of weights (it holds no weight_map)")
        for shard in shards.values():  # transformers would unpickle any other
            if not str(shard).endswith(".safetensors"):
                raise UserError(f"{index}: '{shard}' is no .safetensors file; no other is opened")


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from None
