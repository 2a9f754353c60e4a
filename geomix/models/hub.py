"""Models of the Hugging Face hub: asked for once, and checked where their files lie."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

from geomix.models.files import ADAPTER_CONFIG, CONFIG, INDEX, WEIGHTS
from geomix.util.errors import UserError


def check_reachable(name: str, builtin: str) -> None:
    """Ask once for what is not cached: transformers would try for most of a minute.

    Args:
        name: the model's id on the hub.
        builtin: the built-in model's name, which may be what was meant.

    Raises:
        UserError: there is no such model, or the hub does not answer.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if "/" not in name and difflib.get_close_matches(name.lower(), [builtin]):
        raise UserError(f"model '{name}': no such local folder; did you mean '{builtin}'?")
    try:
        if not isinstance(try_to_load_from_cache(name, CONFIG), str):
            get_hf_file_metadata(hf_hub_url(name, CONFIG))
    except Exception as error:  # the network raises anything
        reason = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
        raise UserError(
            f"model '{name}': no such local folder, and the hub did not give it: {reason}"
        ) from None


def fetched_config(name: str) -> Path | None:
    """Folder in the hub's cache that holds a model's configuration, fetched where it was not.

    An adapter's configuration is fetched too, where there is one: transformers would add it.
    """
    _fetch(name, ADAPTER_CONFIG)
    config = _fetch(name, CONFIG)
    return None if config is None else config.parent


def fetched_weights(name: str) -> bool:
    """Fetch a model's weights, as transformers does; whether there are any as safetensors."""
    index = _fetch(name, INDEX)
    if _fetch(name, WEIGHTS) is not None:
        return True
    if index is None:
        return False
    for shard in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())):
        _fetch(name, shard)
    return True


def _fetch(name: str, file: str) -> Path | None:
    from transformers.utils import cached_file

    found = cached_file(
        name,
        file,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else Path(found)
