"""Facts that the base model already knows: excluded from training, or only evaluated.

Source: the paper trains on facts that θ_0 does not know (exact match 0) and evaluates those that it
knows (tables 5 and 6). It does not print the prompts; these are geomix's. A fact is familiar if the
first line of the greedy continuation equals one of its answers, stripped and lower-cased. A base
model continues the plain text, without a chat format, which it has never seen.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from geomix.data.example import Example
from geomix.data.foreign import where_of
from geomix.models.decode import greedy
from geomix.models.load import LoadedModel
from geomix.util.errors import UserError, one_line
from geomix.util.files import append_json_line
from geomix.util.progress import phase

SLACK = 4
"""Tokens decoded beyond the longest answer: a line break must still fit."""


def cache_folder() -> Path:
    """Return the folder of stored results: `GEOMIX_CACHE`, else the user's cache folder.

    Raises:
        UserError: it begins with the home of a user who does not exist.
    """
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(os.environ.get("GEOMIX_CACHE") or Path(base) / "geomix")
    try:
        return folder.expanduser()
    except RuntimeError:
        raise UserError(f"{folder}: no such home; set GEOMIX_CACHE to a folder of yours") from None


def model_hash(model: torch.nn.Module) -> str:
    """Hash the names, shapes and values of all weights (SHA-256)."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def shown(example: Example, shots: Sequence[Example] = ()) -> str:
    """Return the text that the model continues: solved examples, if any, then the prompt."""
    solved = "".join(f"{shot.prompt} {shot.target}\n\n" for shot in shots)
    return solved + example.prompt


def as_text(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return token ids of texts for a base model to continue: a begin token, but no end token."""
    with one_line(where_of(tokenizer)):
        ids = tokenizer(list(texts))["input_ids"] if texts else []
    return [one[:-1] if one[-1:] == [tokenizer.eos_token_id] else one for one in ids]


def familiar(
    loaded: LoadedModel,
    examples: Sequence[Example],
    prompts: Sequence[Sequence[int]],
    ends: Collection[int],
    batch_size: int,
    cache: Path,
) -> list[bool]:
    """Return whether the model knows each fact; stored results are looked up first.

    Args:
        loaded: the base model; its mode is restored.
        examples: the facts; in a conversation the last answer is tested.
        prompts: token ids to continue, one for each; see `shown` for a base model's.
        ends: token ids that end a continuation.
        batch_size: prompts decoded together; changes no result.
        cache: folder of the stored results, one file a model.

    Raises:
        UserError: the cache cannot be read or written, or a prompt is too long for the model.
    """
    tokenizer = loaded.tokenizer
    answers = [_answers(example) for example in examples]
    keys = [_key(p, a) for p, a in zip(prompts, answers, strict=True)]
    file = cache / "familiar" / f"{model_hash(loaded.model)}.jsonl"
    known = _read(file)
    todo = {key: i for i, key in enumerate(keys) if key not in known}
    most = loaded.positions.most
    rest = list(todo.values())
    with one_line(where_of(tokenizer)):
        budgets = [
            SLACK + max(map(len, tokenizer(sorted(texts), add_special_tokens=False)["input_ids"]))
            for texts in (answers[i] or {""} for i in rest)  # an empty answer is never known
        ]
    for i, budget in zip(rest, budgets, strict=True):
        if most is not None and len(prompts[i]) + budget > most:
            raise UserError(
                f"familiar: a prompt and its answer have {len(prompts[i]) + budget} tokens, the "
                f"model takes at most {most}; ask for fewer shots, or prompt: plain"
            )
    made: dict[str, bool] = {}
    training = loaded.model.training
    loaded.model.eval()
    try:
        with phase("asking what the base model knows, facts", len(rest)) as advance:
            for start in range(0, len(rest), 8 * batch_size):  # the most that a kill loses
                part = rest[start : start + 8 * batch_size]
                lines = greedy(
                    loaded,
                    [prompts[i] for i in part],
                    budgets[start : start + len(part)],
                    ends,
                    batch_size,
                )
                verdicts = {
                    keys[i]: _normalised(line) in answers[i]
                    for i, line in zip(part, lines, strict=True)
                }
                made.update(verdicts)
                _append(file, verdicts)
                advance(len(part))
    finally:
        loaded.model.train(training)
    known.update(made)
    return [known[key] for key in keys]


def _answers(example: Example) -> frozenset[str]:
    found = {_normalised(answer) for answer in (example.target, *example.aliases)}
    return frozenset(found - {""})


def _normalised(text: str) -> str:
    line = text.strip().split("\n", maxsplit=1)[0]
    return line.strip().lower()


def _key(prompt: Sequence[int], answers: frozenset[str]) -> str:
    content = json.dumps([list(prompt), sorted(answers)])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _read(file: Path) -> dict[str, bool]:
    try:
        if file.exists() and not file.is_file():  # a pipe would block for ever
            raise OSError("it is no regular file")
        text = file.read_text(encoding="utf-8") if file.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read ({error}); delete it") from None
    found: dict[str, bool] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            verdicts = json.loads(line)
            if not all(isinstance(verdict, bool) for verdict in verdicts.values()):
                raise ValueError
            found.update(verdicts)
        except (ValueError, AttributeError, RecursionError):
            raise UserError(f"{file}:{number}: not as geomix writes it; delete the file") from None
    return found


def _append(file: Path, verdicts: dict[str, bool]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        append_json_line(file, verdicts)
    except OSError as error:
        raise UserError(
            f"{file}: cannot be written ({error.strerror}); set GEOMIX_CACHE to a folder of yours"
        ) from None
