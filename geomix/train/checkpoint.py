"""The end of a stage on disk: weights and tokenizer as transformers reads them, and Adam's v̂."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from geomix.atomic import written_folder
from geomix.errors import UserError
from geomix.model.load import LoadedModel
from geomix.train.optimiser import second_moments

SECOND_MOMENTS = "adam_second_moments.safetensors"


def save_final(path: Path, loaded: LoadedModel, optimiser: torch.optim.Optimizer) -> None:
    """Write a checkpoint that `from_pretrained` reads; complete whenever it exists.

    Args:
        path: the checkpoint's folder.
        loaded: the trained model and its tokenizer.
        optimiser: the stage's AdamW; its v̂ defines the metric of the update.

    Raises:
        UserError: the weights cannot be written, as on a full disk.
    """
    moments = second_moments(loaded.model, optimiser)
    try:
        with written_folder(path) as folder:
            loaded.model.save_pretrained(folder)  # type: ignore[operator]
            loaded.tokenizer.save_pretrained(folder)
            save_file(
                {name: moment.contiguous() for name, moment in moments.items()},
                folder / SECOND_MOMENTS,
            )
    except SafetensorError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: the checkpoint cannot be written ({reason})") from None
