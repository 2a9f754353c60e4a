"""Loader of any causal LM of transformers, by hub id or local folder, or of the built-in one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geomix.data.foreign import trust
from geomix.models.claims import check_counts, check_weights
from geomix.models.files import check_indices, read_config
from geomix.models.hub import check_reachable, fetched_config, fetched_weights
from geomix.models.kv_cache import can_cache
from geomix.models.neighbours import neighbour_problem
from geomix.models.packing import packs
from geomix.models.positions import Positions, positions_of
from geomix.models.tokenizers import check_knows_letters, check_tokenizer_files
from geomix.util.errors import UserError, first_line, is_failure
from geomix.util.package import PACKAGE
from geomix.util.progress import during
from geomix.util.signals import ending_at_once

BUILTIN = "builtin"
CPU = torch.device("cpu")

_END_TOKENS = ("bos", "eos", "pad")

_NOT_CAUSAL = 1e-4
"""Share of the largest logit by which a later token may change those before it. A causal model
gives 0, float32's noise is 1e-6, and encoders start at 2e-3, random ones included."""

_PLACES = (PACKAGE / "builtin", PACKAGE.parent / "data" / "base")  # installed; from a checkout


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A causal LM with its tokenizer.

    Attributes:
        model: in float32, in evaluation mode, on `device`.
        tokenizer: a fast tokenizer.
        pad_id: token id that pads a batch; nothing is predicted from it.
        packs: whether several examples may share a row (`geomix.models.packing`).
        can_cache: whether it can decode from stored keys and values (`geomix.models.kv_cache`).
    """

    model: nn.Module
    tokenizer: Any
    pad_id: int
    packs: bool = False
    can_cache: bool = False

    @property
    def device(self) -> torch.device:
        """Device of the model's parameters."""
        return next(self.model.parameters()).device

    @property
    def positions(self) -> Positions:
        """Limit on the tokens of a text."""
        return positions_of(self.model.config)


def builtin_folder() -> Path:
    """Return the folder of the built-in base model.

    Raises:
        UserError: the installation lacks it.
    """
    for place in _PLACES:
        if (place / "config.json").is_file():
            return place
    raise UserError(f"{_PLACES[0]}: the built-in model is missing; install geomix again")


def default_device() -> torch.device:
    """Return the first GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def quiet_libraries() -> None:
    """Keep the libraries' own progress bars and notices out of the command line's output."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    hub_logging.set_verbosity(logging.ERROR)


@during(lambda name, *_: f"loading {name}")
def load_model(name: str, device: torch.device) -> LoadedModel:
    """Load model and tokenizer; weights from safetensors only, no code of the model's own.

    Args:
        name: `builtin`, a local folder, or a hub id.
        device: of the model.

    Raises:
        Interrupted: the process was asked to end (`geomix.util.signals`).
        UserError: there is no such model, or it is not a causal LM that can be used.
    """
    with ending_at_once():
        flush_denormals()
        return _load_model(name, device)


def flush_denormals() -> None:
    """Compute with float32 numbers below 1.2e-38 (float64: 2.2e-308) as with zeros, on the CPU.

    The gradients of what a model already knows underflow, and Intel's processors take many times
    longer for such numbers (`benchmarks/denormals.py`). It holds for this thread and for those that
    OpenMP starts later, so it is called before a model is loaded.
    """
    torch.set_flush_denormal(True)


def load_parameters(folder: Path) -> dict[str, torch.Tensor]:
    """Load the parameters of a model that geomix saved, by name, in float32 on the CPU.

    The files are checked as `load_model` checks them. The model is not tried out: its base was.

    Raises:
        Interrupted: the process was asked to end (`geomix.util.signals`).
        UserError: there is no such model.
    """
    with ending_at_once():
        model, info = _read_model(str(folder))
    if problem := _unplaced(model, info):
        raise UserError(f"model '{folder}': {problem}")
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _read_model(name: str) -> tuple[Any, dict[str, Any]]:
    """Return a model as transformers builds and fills it, and what it says about that."""
    from transformers import AutoModelForCausalLM

    _check_weights(name)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            path_of_model(name),
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,  # None would ask, and `yes |` would answer
            output_loading_info=True,
        )
    except BaseException as error:  # a broken file raises anything, a panic of Rust included
        raise _unusable(name, error) from None
    return model, info


def _load_model(name: str, device: torch.device) -> LoadedModel:
    from transformers import GenerationConfig

    tokenizer = load_tokenizer(name)
    model, info = _read_model(name)
    model.to(device).eval()
    try:
        tokens = _two_tokens(model, tokenizer)
        problem = _problem(model, tokenizer, tokens, info)
        problem = problem or neighbour_problem(model, *tokens)
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
        packs=packs(model, *tokens),
        can_cache=can_cache(model, *tokens),
    )


def check_saved(folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Check that `load_model` would read a saved model: names and shapes, without reading a value.

    Args:
        folder: holds the model and its tokenizer.
        weights: the saved tensors, by their names in the model.

    Raises:
        UserError: a file is missing, or other tensors than these would be loaded.
    """
    load_tokenizer(str(folder))
    described = check_weights(folder, read_config(folder)).state_dict(keep_vars=True)
    found = {name: tuple(tensor.shape) for name, tensor in described.items()}
    saved = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    held = {id(tensor) for name, tensor in described.items() if name in saved}
    tied = {name for name, tensor in described.items() if id(tensor) in held}
    saved |= {name: found[name] for name in tied - saved.keys()}
    if wrong := sorted(set(saved.items()) ^ set(found.items())):
        raise UserError(f"{folder}: {wrong[0][0]} would not be loaded as it is in the model")


def load_tokenizer(name: str) -> Any:
    """Load a model's tokenizer alone.

    Args:
        name: `builtin`, a local folder, or a hub id.

    Raises:
        UserError: there is no such model, or its tokenizer is not a fast one with an end token.
    """
    from transformers import AutoTokenizer

    source = path_of_model(name)
    if not Path(source).is_dir():
        check_reachable(name, BUILTIN)
    if (folder := _folder(name)) is not None:
        with _naming(name):
            config = read_config(folder)
            check_indices(folder)
            check_counts(folder, config)
            if Path(source).is_dir():
                check_tokenizer_files(folder)
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
    check_knows_letters(name, tokenizer)
    return tokenizer


def path_of_model(name: str) -> str:
    """Return the folder of a model's files, or its id on the hub."""
    if name == BUILTIN:
        return str(builtin_folder())
    return str(Path(name).expanduser()) if name.startswith("~/") else name


def _folder(name: str) -> Path | None:
    """Return the local folder with a model's configuration, fetched from the hub if needed."""
    source = Path(path_of_model(name))
    return source if source.is_dir() else fetched_config(name)


def _check_weights(name: str) -> None:
    """Compare a model's weights with its configuration before anything is built or read."""
    folder = _folder(name)
    local = Path(path_of_model(name)).is_dir()
    if folder is None or not (local or fetched_weights(name)):
        return  # transformers reports what it lacks
    with _naming(name):
        config = read_config(folder)
        try:
            check_weights(folder, config)
        except UserError:
            raise
        except Exception as error:  # a broken configuration raises anything
            raise _unusable(name, error) from None


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Prefix errors about files in the hub's cache with the model's name."""
    try:
        yield
    except UserError as error:
        if Path(path_of_model(name)).is_dir() or f"'{name}'" in str(error):
            raise
        raise UserError(*(f"model '{name}': {line}" for line in error.lines)) from None


def embedded_tokens(model: Any) -> int:
    """Return the number of token ids that the model embeds; some tokenizers know a few more."""
    rows: int = model.get_input_embeddings().num_embeddings
    return rows


def _problem(
    model: Any, tokenizer: Any, tokens: tuple[int, int], info: dict[str, Any]
) -> str | None:
    """Return why geomix cannot use a model that transformers loads; None if it can."""
    if tokenizer.eos_token_id >= embedded_tokens(model):
        return f"it embeds {embedded_tokens(model)} tokens, but not its tokenizer's end token"
    if not _is_causal(model, *tokens):
        return "not causal: a token changes what is predicted before it (an encoder?)"
    return _unplaced(model, info)


def _unplaced(model: Any, info: dict[str, Any]) -> str | None:
    """Return which weights of its file a model has no place for; None if it has all."""
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
def _is_causal(model: Any, first: int, last: int) -> bool:
    """Return whether two sequences that differ in the last token agree in all earlier logits."""
    both = [[first, last, first, first], [first, last, first, last]]
    one, other = model(input_ids=torch.tensor(both, device=model.device)).logits[:, :-1]
    return not bool((one - other).abs().max() > _NOT_CAUSAL * one.abs().max())


def _two_tokens(model: Any, tokenizer: Any) -> tuple[int, int]:
    """Return the first and the last ordinary token that the model embeds."""
    known = set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)
    ids = [token for token in known if token < embedded_tokens(model)]
    return min(ids, default=0), max(ids, default=0)


def _unusable(name: str, error: BaseException) -> BaseException:
    """Return a library's failure as one line; an interrupt unchanged."""
    if not is_failure(error):
        return error
    if "trust_remote_code" in str(error):
        return UserError(f"model '{name}': needs code of its own, which geomix never runs")
    return UserError(
        f"model '{name}': cannot be loaded as a causal LM with its tokenizer: {first_line(error)}"
    )
