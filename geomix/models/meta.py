"""Models without their weights: from the configuration alone, and never from the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geomix.models.hub import is_path, no_folder
from geomix.models.load import BUILTIN, builtin_folder, load_tokenizer, path_of_model
from geomix.util.errors import UserError
from geomix.util.package import PACKAGE

SHAPES = PACKAGE / "config" / "presets" / "shapes.json"
"""Published configurations of the presets' models, each with its source."""


def local_folder(name: str) -> Path | None:
    """Return the folder of a model's files on this machine: its own, or in the hub's cache.

    Args:
        name: `builtin`, a local folder, or a hub id.

    Raises:
        UserError: it is a path without a folder, and not that of a shipped shape.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if name == BUILTIN:
        return builtin_folder()
    if (folder := Path(path_of_model(name))).is_dir():
        return folder
    if is_path(name):
        if stand_in_shape(name) is None:
            raise UserError(f"model '{name}': {no_folder(name)}")
        return None
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        raise UserError(f"model '{name}': neither a folder here nor a hub id owner/name") from None
    return Path(cached).parent if isinstance(cached, str) else None


def _shapes() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(SHAPES.read_text(encoding="utf-8"))
    return found


def stand_in_shape(name: str) -> str | None:
    """Return the shipped shape that replaces a missing folder, by the folder's own name.

    `/models/Meta-Llama-3-8B` has the sizes of `meta-llama/Meta-Llama-3-8B`; None if no shipped
    model has that name, or the name is no path, or the folder exists.
    """
    if not is_path(name) or Path(path_of_model(name)).is_dir():
        return None
    folder = Path(name).name.lower()
    return next((shape for shape in _shapes() if Path(shape).name.lower() == folder), None)


def local_tokenizer(name: str) -> Any | None:
    """Load a model's tokenizer; None if it is not on this machine.

    Raises:
        UserError: it is here and cannot be used.
    """
    folder = local_folder(name)
    here = folder is not None and any(folder.glob("*token*"))
    return load_tokenizer(str(folder)) if here else None


def local_config(name: str) -> Any | None:
    """Load a model's configuration; None if it is neither on this machine nor shipped.

    Raises:
        UserError: it is here and cannot be read.
    """
    from transformers import AutoConfig

    folder = local_folder(name)
    if folder is None:
        known = _shapes().get(stand_in_shape(name) or name)
        if known is None:
            return None
        kind = known.pop("model_type")
        known.pop("source")
        return AutoConfig.for_model(kind, **known)
    try:
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # a broken file raises anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"model '{name}': its config.json cannot be used: {reason:.300}") from None


def weightless(config: Any, dtype: torch.dtype) -> nn.Module:
    """Build a configuration's model in training mode; the caller chooses the device.

    Within `torch.device("meta")`, or in a `FakeTensorMode`, it takes no memory.
    """
    from transformers import AutoModelForCausalLM

    model: nn.Module = AutoModelForCausalLM.from_config(
        config, dtype=dtype, trust_remote_code=False
    )
    return model.train()
