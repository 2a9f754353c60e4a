"""Stored output distributions of a stage's initial model, for comparison with later ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from geomix.config.evaluate import KLConfig
from geomix.data.batch import chunks, collate
from geomix.data.example import TokenisedExample
from geomix.models.divergence import kl_divergence, log_probabilities
from geomix.models.forward import plain_forward
from geomix.models.load import LoadedModel
from geomix.util.errors import UserError
from geomix.util.files import file_hash, write_text, written_file


@dataclass(frozen=True, slots=True)
class Reference:
    """Log-probabilities at a stage's start, in one safetensors file.

    By set name `(P, V)` float32, P answer positions of the set's first examples: no more than 4 ·
    `positions` · V bytes a set. It is written once and then only read, row by row.

    Attributes:
        file: their file.
        config: number of examples and positions.
        batch_size: examples in one pass.
        width: of packed rows, see `geomix.data.batch.collate`.
    """

    file: Path
    config: KLConfig
    batch_size: int
    width: int | None

    def write(self, loaded: LoadedModel, sets: Mapping[str, Sequence[TokenisedExample]]) -> None:
        """Store the model's distributions on every set, at the start of a stage.

        Raises:
            UserError: they cannot be written, as on a full disk.
        """
        kept = {
            name: torch.cat([found.cpu() for found in self._probes(loaded, examples)])
            for name, examples in sets.items()
        }
        try:
            with written_file(self.file) as partial:
                save_file(kept, partial)
        except SafetensorError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{self.file}: cannot be written ({reason})") from None
        write_text(self._hash_file, file_hash(self.file) + "\n")

    def check(self) -> None:
        """Reject a file that has changed; a stage that resumes needs it.

        Raises:
            UserError: it does not exist, or is damaged.
        """
        try:
            same = self._hash_file.read_text(encoding="utf-8").strip() == file_hash(self.file)
        except OSError as error:
            raise UserError(f"{self.file}: cannot be read ({error.strerror or error})") from None
        if not same:
            raise UserError(f"{self.file}: damaged; restore it or begin a new run")

    @property
    def _hash_file(self) -> Path:
        return self.file.with_name(self.file.name + ".sha256")

    def divergence(
        self, loaded: LoadedModel, name: str, examples: Sequence[TokenisedExample]
    ) -> float:
        """Return the mean KL(p_start ‖ p_now) over the stored positions of a set, in nats.

        Raises:
            UserError: the file cannot be read, or belongs to another set.
        """
        total, done = 0.0, 0
        try:
            with safe_open(self.file, framework="pt") as kept:
                rows = kept.get_slice(name)
                for now in self._probes(loaded, examples):
                    start = rows[done : done + len(now)].to(now.device)
                    total += float(kl_divergence(start, now).sum())
                    done += len(now)
                if rows.get_shape()[0] != done:
                    raise ValueError(f"{rows.get_shape()[0]} positions of {name}, not {done}")
        except (OSError, SafetensorError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{self.file}: not what the stage began with ({error}); restore it or begin a new "
                "run"
            ) from None
        return total / done

    def _probes(
        self, loaded: LoadedModel, examples: Sequence[TokenisedExample]
    ) -> Iterator[Tensor]:
        """Yield log-probabilities of the probe's answer positions, batch after batch."""
        model, was_training = loaded.model, loaded.model.training
        forward, left = plain_forward(model), self.config.positions
        model.eval()
        try:
            for part in chunks(examples[: self.config.examples], self.batch_size):
                if left <= 0:
                    break
                batch = collate(part, [1.0] * len(part), loaded.pad_id, self.width)
                with torch.no_grad():
                    found = log_probabilities(forward(batch.to(loaded.device))[:left])
                left -= len(found)
                yield found
        finally:
            model.train(was_training)
