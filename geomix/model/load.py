"""Any causal LM of transformers, by hub id, local folder, or the built-in one."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geomix.errors import UserError

BUILTIN = "builtin"

_PACKAGE = Path(__file__).resolve().parent.parent
_PLACES = (_PACKAGE / "builtin", _PACKAGE.parent / "data" / "base")  # installed; from a checkout


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A causal LM with its tokenizer.

    Attributes:
        model: in float32, in evaluation mode, on `device`.
        tokenizer: a fast tokenizer.
        pad_id: token id that fills a batch; masked wherever it stands.
    """

    model: nn.Module
    tokenizer: Any
    pad_id: int

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
    from transformers.utils import logging

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def load_model(name: str, device: torch.device) -> LoadedModel:
    """Load model and tokenizer; weights from safetensors only, no code of the model's own.

    Args:
        name: `builtin`, a local folder, or a hub id.
        device: where the model goes.

    Raises:
        UserError: there is no such model, or it is not a causal LM that can be used.
    """
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(name)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            _place(name), dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # a broken file raises anything, a bare Exception included
        raise _unusable(name, error) from None
    if info["missing_keys"]:  # transformers would draw them at random, with a warning
        missing = sorted(info["missing_keys"])
        raise UserError(
            f"model '{name}': {len(missing)} weights are missing, such as {missing[0]}; "
            "is it a causal LM of this architecture?"
        )
    pad = tokenizer.pad_token_id
    return LoadedModel(
        model=model.to(device).eval(),
        tokenizer=tokenizer,
        pad_id=tokenizer.eos_token_id if pad is None else pad,
    )


def load_tokenizer(name: str) -> Any:
    """Load a model's tokenizer alone.

    Args:
        name: `builtin`, a local folder, or a hub id.

    Raises:
        UserError: there is no such model, or its tokenizer is not a fast one with an end token.
    """
    from transformers import AutoTokenizer

    source = _place(name)
    if Path(source).is_dir():
        _check_folder(Path(source))
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except Exception as error:  # a broken file raises anything, a bare Exception included
        raise _unusable(name, error) from None
    if not tokenizer.is_fast or tokenizer.eos_token_id is None:
        raise UserError(f"model '{name}': geomix needs a fast tokenizer that has an end token")
    return tokenizer


def _place(name: str) -> str:
    return str(builtin_folder()) if name == BUILTIN else name


def _unusable(name: str, error: Exception) -> UserError:
    lines = (line.strip() for line in str(error).splitlines())
    first = next(filter(None, lines), type(error).__name__)
    return UserError(f"model '{name}': cannot be loaded as a causal LM with its tokenizer: {first}")


def _check_folder(folder: Path) -> None:
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(f"{folder}: not a model folder of transformers (it holds no config.json)")
    try:
        json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{config}: cannot be read ({error})") from None
