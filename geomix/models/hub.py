"""Models of the Hugging Face hub: requested once, and validated in the hub's cache."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

from geomix.models.files import ADAPTER_CONFIG, CONFIG, INDEX, WEIGHTS
from geomix.util.errors import UserError, first_line
from geomix.util.nearby import close_to, no_such_folder


def is_path(name: str) -> bool:
    """Return whether a model's name can only be a path; a hub id has at most one slash."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def no_folder(name: str) -> str | None:
    """Return why a model's path holds no model; None if it may, or if the name is no path."""
    path = Path(name).expanduser() if name.startswith("~") else Path(name)
    if not is_path(name) or path.is_dir():
        return None
    message = no_such_folder(path)
    if path.exists():
        return f"{message}; give the folder that holds its {CONFIG}"
    return message + "; give one that is there, or a hub id" * ("did you mean" not in message)


def check_reachable(name: str, builtin: str) -> None:
    """Query the hub once for an uncached model: transformers would try for most of a minute.

    Args:
        name: the model's id on the hub.
        builtin: the built-in model's name, for a suggestion.

    Raises:
        UserError: there is no such model, or the hub does not answer.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if "/" not in name and difflib.get_close_matches(name.lower(), [builtin]):
        raise UserError(f"model '{name}': no such local folder; did you mean '{builtin}'?")
    if (why := no_folder(name)) is not None:
        raise UserError(f"model '{name}': {why}")
    try:
        if not isinstance(try_to_load_from_cache(name, CONFIG), str):
            get_hf_file_metadata(hf_hub_url(name, CONFIG))
    except Exception as error:  # the network raises anything
        near = close_to(Path(name), folders=True)
        guess = f"; did you mean the folder '{near}'?" * bool(near)
        raise UserError(
            f"model '{name}': no such local folder, and {_rejection(name, error)}{guess}"
        ) from None


def _rejection(name: str, error: Exception) -> str:
    """Return the hub's answer, or that it cannot be reached and what to do then."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    if isinstance(error, HFValidationError):
        return "no hub id owner/name"
    if isinstance(error, HfHubHTTPError):  # an answer
        return f"the hub did not give it: {first_line(error)}"
    why = " (HF_HUB_OFFLINE is set)" * isinstance(error, OfflineModeIsEnabled)
    return (
        f"the hub cannot be reached{why}; give the path of a folder, or download it where there is "
        f"a network: hf download {name}"
    )


def fetched_config(name: str) -> Path | None:
    """Return the folder in the hub's cache with a model's configuration, fetched if needed.

    An adapter's configuration is fetched too, if there is one: transformers would add it.
    """
    _fetch(name, ADAPTER_CONFIG)
    config = _fetch(name, CONFIG)
    return None if config is None else config.parent


def fetched_weights(name: str) -> bool:
    """Fetch a model's weights, as transformers does; return whether safetensors were found."""
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
