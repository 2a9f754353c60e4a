"""Partial results of an analysis that is killed; the same command resumes from them.

`RUN/analysis.partial/grad_angle-HASH/` holds a file for each finished checkpoint, and is removed
once the results are saved. A file's name is the hash of everything that decides its numbers, and
its first bytes are the hash of the rest: results of something else, or damaged ones, are computed
again.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geomix.analysis.checkpoints import NamedCheckpoint
from geomix.analysis.measurement import Measurement, Secant
from geomix.analysis.parameter_groups import Layout
from geomix.runs.directory import RunDirectory
from geomix.util.files import written_file
from geomix.util.package import PACKAGE

if TYPE_CHECKING:
    from geomix.experiments.checkpoints import Revisit, StoredCheckpoint

SCHEMA = 1

_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Partial results of a command.

    Attributes:
        folder: holds them; None keeps nothing.
    """

    folder: Path | None = None

    def find(self, key: str) -> bytes | None:
        """Return the content stored under a key; None if there is none, or it is damaged."""
        if self.folder is None:
            return None
        try:
            content = (self.folder / key).read_bytes()
        except OSError:
            return None
        digest, found = content[:_DIGEST], content[_DIGEST:]
        return found if hashlib.sha256(found).digest() == digest else None

    def keep(self, key: str, content: bytes) -> None:
        """Store a result atomically."""
        if self.folder is not None:
            with written_file(self.folder / key) as partial:
                partial.write_bytes(hashlib.sha256(content).digest() + content)


@contextmanager
def unfinished(run: RunDirectory, command: Mapping[str, Any]) -> Iterator[Unfinished]:
    """Provide a command's partial results; they are removed when the block ends without an error.

    A second process of the same command keeps nothing.

    Args:
        run: whose folder will hold the results.
        command: distinguishes it from others, as JSON can hold it.
    """
    parent = run.path / "analysis.partial"
    folder = parent / f"{command['analysis']}-{_hash(command)[:16]}"
    if parent.is_symlink() or folder.is_symlink():  # in a foreign run; nothing is written elsewhere
        yield Unfinished()
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (parent / f"{folder.name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield Unfinished()
            return
        complete = False
        try:
            yield Unfinished(folder)
            complete = True
        finally:
            if complete or not any(folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)
                Path(lock.name).unlink(missing_ok=True)
                with suppress(OSError):  # another command's results are in it
                    parent.rmdir()


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ArmResults:
    """Partial results of one arm.

    Attributes:
        kept: those of the command.
        decides: the hash of everything that decides the numbers of every checkpoint.
    """

    kept: Unfinished
    decides: str

    def measurement(self, checkpoint: StoredCheckpoint) -> Measurement | None:
        """Return the measurement stored for a checkpoint, if any."""
        found = self.kept.find(self._key(checkpoint, "look"))
        return None if found is None else _measurement_of(found)

    def keep_measurement(self, checkpoint: StoredCheckpoint, measurement: Measurement) -> None:
        """Store the measurement at a checkpoint."""
        self.kept.keep(self._key(checkpoint, "look"), _bytes_of(measurement))

    def tables(self, checkpoint: StoredCheckpoint) -> Any:
        """Return the tables of single examples at a checkpoint, if stored."""
        found = self.kept.find(self._key(checkpoint, "tables"))
        return None if found is None else json.loads(found)

    def keep_tables(self, checkpoint: StoredCheckpoint, tables: Any) -> None:
        """Store the tables of single examples at a checkpoint."""
        found = json.dumps(tables, default=lambda number: number.item())
        self.kept.keep(self._key(checkpoint, "tables"), found.encode())

    def _key(self, at: StoredCheckpoint, what: str) -> str:
        return f"{_hash([self.decides, at.stage, at.step, at.last, what])}.{what}"


def arm_results(
    kept: Unfinished, past: Revisit, settings: Mapping[str, Any], of: Sequence[Path]
) -> ArmResults:
    """Return the partial results of an arm.

    Args:
        kept: those of the command.
        past: the arm.
        settings: everything else that decides its numbers, as JSON can hold it.
        of: other checkpoints that the results depend on.
    """
    if kept.folder is None or not past.arm.base_file.is_file():  # nothing would identify θ_0
        return ArmResults(Unfinished(), "")
    from geomix.analysis.past_checkpoints import ignored
    from geomix.models.load import default_device
    from geomix.util.environment import describe_environment

    checkpoints = past.checkpoints(ignored)
    decides = {
        "schema": SCHEMA,
        "geomix": _code(),
        "environment": describe_environment(default_device(), 1),
        "arm": str(past.arm.path.absolute()),
        "config": past.config.model_dump(mode="json"),
        "base": past.arm.base_file.read_text(encoding="utf-8"),
        "points": [
            [p.stage, p.step, p.last, p.folder and _manifest(p.folder)] for p in checkpoints
        ],
        "of": [_manifest(folder) for folder in of],
        "probes": _probes(past),
        "settings": dict(settings),
    }
    return ArmResults(kept, _hash(decides))


@cache
def _code() -> str:
    """Hash geomix's own code: in a checkout the version is not specific enough."""
    folder = PACKAGE
    whole = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        whole.update(f"{file.relative_to(folder)}\n".encode() + file.read_bytes())
    return whole.hexdigest()


def _manifest(checkpoint: Path) -> str:
    """Hash a checkpoint's manifest, which holds the hashes of its files."""
    from geomix.training.checkpoint import MANIFEST

    return hashlib.sha256((checkpoint / MANIFEST).read_bytes()).hexdigest()


def _probes(past: Revisit) -> str:
    """Hash the tokens and loss positions of all measured probe sets."""
    from geomix.analysis.past_checkpoints import probe_texts
    from geomix.data.chat import chat_format
    from geomix.data.tokenise import tokenise_all
    from geomix.models.load import load_tokenizer

    tokenizer = load_tokenizer(past.config.model)
    chat = chat_format(past.config.chat_template, tokenizer)
    sets = {
        name: [(e.ids, e.labels, astuple(e.text)) for e in tokenise_all(tokenizer, examples, chat)]
        for name, examples in probe_texts(past).items()
    }
    return _hash([sets, {name: len(whole) for name, whole in past.prepared.probes.items()}])


def _bytes_of(measurement: Measurement) -> bytes:
    layout = measurement.layout
    about = {
        "moment": asdict(measurement.checkpoint),
        "sets": measurement.sets,
        "directions": measurement.directions,
        "parameters": layout.parameters,
        "modules": layout.parameter_modules,
        "layers": layout.layers,
        "tied_head": layout.tied_head,
        "heads": layout.heads,
    }
    arrays = {"inner": measurement.inner, "sizes": layout.sizes, "places": layout.parameter_layers}
    if measurement.secant is not None:
        arrays |= {f"secant_{name}": value for name, value in asdict(measurement.secant).items()}
    file = io.BytesIO()
    np.savez(file, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _measurement_of(content: bytes) -> Measurement:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        about: dict[str, Any] = json.loads(str(file["about"]))
        arrays = {name: file[name] for name in file.files if name != "about"}
    layout = Layout(
        tuple(about["parameters"]),
        arrays["sizes"],
        arrays["places"],
        tuple(about["modules"]),
        about["layers"],
        about["tied_head"],
        tuple(about["heads"]),
    )
    secant = {k.removeprefix("secant_"): v for k, v in arrays.items() if k.startswith("secant_")}
    return Measurement(
        NamedCheckpoint(**about["moment"]),
        layout,
        tuple(about["sets"]),
        tuple(about["directions"]),
        arrays["inner"],
        Secant(**secant) if secant else None,
    )
