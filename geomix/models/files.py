"""Files of a model's folder; ambiguous or incomplete ones are rejected before loading."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from geomix.util.errors import UserError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"

_EXPLICIT = "transformers_weights"
"""Key of `config.json` that names another file of weights."""

_OTHERS = (
    *("*.bin", "*.pt", "*.pth", "*.ckpt"),  # pickled: reading them runs code
    *("*.gguf", "*.h5", "*.msgpack", "*.onnx", "consolidated*.safetensors"),
)
_NAMED = 3
"""Most files that a message names."""


def read_config(folder: Path) -> dict[str, Any]:
    """Read a model's `config.json`, unmodified.

    Raises:
        UserError: the folder has none, only an adapter or adapters too, or it is no JSON object.
    """
    _reject_adapters(folder)
    file = folder / CONFIG
    if not file.is_file():
        raise UserError(f"{folder}: not a model folder of transformers (it holds no {CONFIG})")
    content = _read_json(file)
    if not isinstance(content, dict):
        raise UserError(f"{file}: not a model's configuration (no JSON object)")
    return content


def check_indices(folder: Path) -> None:
    """Check that every index of shards names only safetensors; transformers would unpickle others.

    Raises:
        UserError: one does not.
    """
    for index in sorted(folder.rglob("*.safetensors.index.json")):
        for shard in _shards(index):
            if not shard.endswith(".safetensors"):
                raise UserError(f"{index}: '{shard}' is no .safetensors file; no other is opened")


def weight_files(folder: Path, config: Mapping[str, Any]) -> list[Path]:
    """Return a folder's only set of weights, shard by shard.

    Args:
        folder: of the model.
        config: its `config.json`.

    Raises:
        UserError: it holds none, two sets, shards that its index does not name, or lacks some that
            the index names.
    """
    explicit = config.get(_EXPLICIT)
    if isinstance(explicit, str):
        if explicit.endswith(".index.json"):
            return _all_there(folder, folder / explicit)
        return _present(folder, [explicit], f"{CONFIG} ({_EXPLICIT})")
    whole, index = folder / WEIGHTS, folder / INDEX
    loose = sorted(file.name for file in folder.glob("model-*-of-*.safetensors"))
    if whole.is_file() and (index.is_file() or loose):
        other = INDEX if index.is_file() else _names(loose)
        raise UserError(
            f"{folder}: two sets of weights, {WEIGHTS} and {other}; remove the one that is not "
            "meant"
        )
    if whole.is_file():
        return [whole]
    if not index.is_file():
        raise UserError(f"{folder}: {_no_weights(folder, loose)}")
    files = _all_there(folder, index)
    if extra := sorted(set(loose) - {file.name for file in files}):
        raise UserError(
            f"{folder}: {INDEX} does not name {_names(extra)}; remove what belongs to another model"
        )
    return files


def tensor_shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of all tensors, from the files' headers: no value is read.

    Raises:
        UserError: a file is truncated, or no safetensors file.
    """
    found: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                found |= {
                    name: tuple(tensors.get_slice(name).get_shape())
                    for name in tensors.keys()  # noqa: SIM118 (no dict)
                }
        except (SafetensorError, OSError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{file}: cannot be read as safetensors ({reason:.200}); fetch or copy it again"
            ) from None
    return found


def _reject_adapters(folder: Path) -> None:
    found = sorted(
        file.name
        for pattern in ("adapter_config.json", "adapter_model*")
        for file in folder.glob(pattern)
    )
    if not found:
        return
    if any(folder.glob("*.safetensors.index.json")) or (folder / WEIGHTS).is_file():
        raise UserError(
            f"{folder}: adapter files ({_names(found)}) beside the weights of a model, which "
            "would be added to them once more; remove them if they are merged already, else merge "
            "them (peft: merge_and_unload) and give the folder of the result"
        )
    raise UserError(
        f"{folder}: an adapter ({_names(found)}){_base(folder)}, not a model; merge it into its "
        "base (peft: merge_and_unload, save_pretrained) and give the folder of the result"
    )


def _base(folder: Path) -> str:
    file = folder / ADAPTER_CONFIG
    content = _read_json(file) if file.is_file() else None
    base = content.get("base_model_name_or_path") if isinstance(content, dict) else None
    return f" for the base model '{base:.100}'" if isinstance(base, str) and base else ""


def _no_weights(folder: Path, loose: list[str]) -> str:
    if loose:
        return f"shards ({_names(loose)}) without their index, {INDEX}; fetch or copy it too"
    others = sorted({file.name for pattern in _OTHERS for file in folder.glob(pattern)})
    if any(name.endswith(".gguf") for name in others):
        return (
            f"no weights that geomix reads, only {_names(others)}; convert them: pip install "
            "'geomix[gguf]', then AutoModelForCausalLM.from_pretrained(…, gguf_file=…) and "
            "AutoTokenizer the same, and save_pretrained both into a new folder"
        )
    if others:
        return (
            f"no weights that geomix reads, only {_names(others)}; load them with transformers in "
            f"a place that you trust and save_pretrained them as {WEIGHTS}"
        )
    return f"no weights ({WEIGHTS}, or shards and their index)"


def _all_there(folder: Path, index: Path) -> list[Path]:
    return _present(folder, sorted(set(_shards(index))), index.name)


def _present(folder: Path, names: list[str], named_by: str) -> list[Path]:
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise UserError(f"{folder}: {named_by} names {_names(outside)}, outside the folder")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UserError(
            f"{folder}: {named_by} names {_names(missing)}, not to be found "
            "there; fetch or copy the whole model"
        )
    return [folder / name for name in names]


def _shards(index: Path) -> list[str]:
    content = _read_json(index)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict):
        raise UserError(f"{index}: not an index of weights (it holds no weight_map)")
    return [str(shard) for shard in shards.values()]


def _names(files: list[str]) -> str:
    more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
    return ", ".join(files[:_NAMED]) + more


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from None
