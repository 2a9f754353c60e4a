"""Identity of a run's base model θ_0: `base.json`, and its check on resume."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from geomix.models.load import LoadedModel, path_of_model
from geomix.runs.directory import RunDirectory
from geomix.util.errors import UserError
from geomix.util.files import file_hash, write_json
from geomix.util.progress import during
from geomix.util.reading import read_json


def keep_base(run: RunDirectory, name: str, loaded: LoadedModel) -> None:
    """Record which θ_0 this is, or check that it is the one that the run started with.

    Args:
        run: a run that starts or resumes.
        name: of the model, as configured.
        loaded: that model.

    Raises:
        UserError: its weights have changed.
    """
    found = {
        "model": name,
        "weights": _weights(name, loaded.model),
        "tokenizer": _tokenizer(loaded.tokenizer),
    }
    if run.base_file.exists():
        check_base(run, name, loaded)
    else:
        write_json(run.base_file, found)


def check_base(run: RunDirectory, name: str, loaded: LoadedModel) -> None:
    """Check that θ_0 is the one that a run started with, if known; raises as `keep_base`."""
    if not run.base_file.exists():
        return
    known = read_json(run.base_file).get("weights")
    if known != (found := _weights(name, loaded.model)):
        raise UserError(
            f"model '{name}': its weights are not those that {run.path} began with ({found}, then "
            f"{known}); restore them, or begin a new run"
        )


@during(lambda name, _: f"hashing the weights of {name}")
def _weights(name: str, model: Any) -> str:
    """Hash the files of the weights; for a model of the hub, return its commit there."""
    folder = Path(path_of_model(name))
    if not folder.is_dir():
        return f"commit {getattr(model.config, '_commit_hash', None)}"
    whole = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        whole.update(f"{file.name} {file_hash(file)}\n".encode())
    return f"sha256 {whole.hexdigest()}"


def _tokenizer(tokenizer: Any) -> str:
    """Hash everything that decides which tokens a text becomes."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    known = fast.to_str() if fast is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return f"sha256 {hashlib.sha256(known.encode()).hexdigest()}"
