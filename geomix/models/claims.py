"""Validation of the sizes in a model's `config.json` against the headers of its weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geomix.models.files import CONFIG, INDEX, tensor_shapes, weight_files
from geomix.util.errors import UserError

_COUNTED = re.compile(r"(layer|layers|block|blocks|expert|experts|head|heads|depth)$")
"""Keys whose number becomes a loop or a list when a model is described or built."""

_USUAL = 1000
"""Largest count of layers, experts or heads accepted without weights that show them."""

_BUFFERS = 1 << 32
"""Most bytes of tables (of positions, masks) that a model may compute beside its weights."""

_PER_TENSOR, _AT_LEAST = 100, 10_000
"""Parameters that may be built for each tensor of the files (experts may be stored as one), and in
any case, before the description is rejected."""


def check_counts(folder: Path, config: Mapping[str, Any]) -> None:
    """Reject counts of layers, experts or heads that the weights cannot have.

    Args:
        folder: of the model.
        config: its `config.json`, with nested configurations.

    Raises:
        UserError: states the claimed count and what the files hold.
    """
    many = [(k, v) for k, v in _numbers(config) if _COUNTED.search(k) and v > _USUAL]
    if not many:
        return
    shapes = tensor_shapes(sorted(folder.glob("*.safetensors")))
    most = max(len(shapes), *(size for shape in shapes.values() for size in shape), _USUAL)
    for key, value in many:
        if value > most:
            held = f"its weights hold {len(shapes):,} tensors" if shapes else "no model has so many"
            raise UserError(f"{folder / CONFIG}: {key} is {value:,}; {held}")


def check_weights(folder: Path, config: Mapping[str, Any]) -> nn.Module:
    """Compare `config.json` with the headers of the weights; no value is read.

    Args:
        folder: of the model.
        config: its `config.json`.

    Returns:
        The model as described, without values (on the meta device).

    Raises:
        UserError: the weights are ambiguous, incomplete, or of other shapes.
    """
    files = weight_files(folder, config)
    held = len(tensor_shapes(files))
    return _checked(_described(folder, files), held)


@dataclass(frozen=True, slots=True)
class _Described:
    """All that a model's outline depends on; that of equal descriptions is built once.

    Attributes:
        folder: where they are read; equal ones lie in many, such as a run's checkpoints.
        texts: of the files that describe the model; None for an absent one.
        headers: names, sizes and headers of the weights' files.
    """

    folder: Path = field(compare=False)
    texts: tuple[bytes | None, ...]
    headers: tuple[tuple[str, int, bytes], ...]


def _described(folder: Path, files: Sequence[Path]) -> _Described:
    paths = [folder / name for name in (CONFIG, "generation_config.json", INDEX)]
    texts = tuple(path.read_bytes() if path.is_file() else None for path in paths)
    headers = tuple((file.name, file.stat().st_size, _header(file)) for file in files)
    return _Described(folder, texts, headers)


def _header(file: Path) -> bytes:
    """Return a safetensors file's header, which names its tensors with their types and shapes."""
    with file.open("rb") as opened:
        return opened.read(int.from_bytes(opened.read(8), "little"))


@lru_cache(maxsize=8)
def _checked(described: _Described, held: int) -> nn.Module:
    """Return the outline of a model whose weights hold so many tensors, or raise what is wrong."""
    folder = described.folder
    most = max(_AT_LEAST, _PER_TENSOR * held)
    problem = f"{folder}: {CONFIG} describes over {most:,} tensors, its weights hold {held:,}"
    with _at_most(most, problem):
        model, info = _outline(folder)
    if wrong := sorted(info["mismatched_keys"]):
        name, found, claimed = wrong[0]
        others = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UserError(
            f"{folder}: by {CONFIG}, {name} has the shape {_shape(claimed)}, the weights hold "
            f"{_shape(found)}{others}; they are not of one model"
        )
    if info["missing_keys"]:  # transformers would draw them at random, with a warning
        missing = sorted(info["missing_keys"])
        raise UserError(
            f"{folder}: {len(missing)} weights are missing, such as {missing[0]}; is it a causal "
            "LM of this architecture?"
        )
    tables = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    if tables > _BUFFERS:
        raise UserError(
            f"{folder}: {CONFIG} asks for {tables / 2**30:,.0f} GiB of tables beside the weights; "
            "is its number of positions right?"
        )
    return model


def _outline(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the model that `from_pretrained` would build, on the meta device, and its report."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)  # geomix reports it
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=torch.float32,
            device_map="meta",
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    finally:
        logging.set_verbosity(before)
    return model, info


@contextmanager
def _at_most(parameters: int, problem: str) -> Iterator[None]:
    """Raise as soon as the block creates more parameters than this."""
    made = 0

    def count(*_: object) -> None:
        nonlocal made
        made += 1
        if made > parameters:
            raise UserError(problem)

    handle = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, int | float]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", number) for inner, number in _numbers(value))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield key, value


def _shape(sizes: torch.Size) -> str:
    return " × ".join(f"{size:,}" for size in sizes) or "of one number"
