"""Validation of a model folder's tokenizer files: missing, conflicting, or without vocabulary."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from geomix.data.foreign import check_tokenizer
from geomix.util.errors import UserError, one_line

_FAST, _SENTENCEPIECE, _VOCABULARY = "tokenizer.json", "tokenizer.model", "vocab.json"
_KNOWN = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "tekken.json", "merges.txt", "spiece*")

_OTHER = 0.01
"""Share of the common ids that may differ between two files of one tokenizer; a publisher may have
renamed a few reserved tokens in one of them."""

_PLAIN = "the quick brown fox"


def check_tokenizer_files(folder: Path) -> None:
    """Reject a folder without a tokenizer, or with two that differ.

    Raises:
        UserError: names the files.
    """
    if not any(file for pattern in _KNOWN for file in folder.glob(pattern)):
        raise UserError(
            f"{folder}: no tokenizer ({_FAST}); save the model's own there "
            "(AutoTokenizer.from_pretrained(…).save_pretrained(…))"
        )
    pieces = folder / _SENTENCEPIECE
    if not (folder / _FAST).is_file():
        lacking = [n for n in ("sentencepiece", "google.protobuf") if _missing(n)]
        if pieces.is_file() and lacking:
            raise UserError(
                f"{pieces}: a sentencepiece tokenizer; reading it takes the packages sentencepiece "
                "and protobuf, which geomix depends on (pip install sentencepiece protobuf)"
            )
        return
    fast = _fast_tokens(folder / _FAST)
    for file, tokens in ((folder / _VOCABULARY, _vocabulary), (pieces, _pieces)):
        if fast and file.is_file():
            other = tokens(file)
            both = [i for i in other if i in fast]
            differing = [i for i in both if fast[i] != other[i]]
            if len(differing) > _OTHER * len(both):
                i = differing[0]
                raise UserError(
                    f"{folder}: two tokenizers that differ, {_FAST} and {file.name} (id {i} is "
                    f"{fast[i]!r:.40} in one, {other[i]!r:.40} in the other, one of "
                    f"{len(differing):,}); remove the one that is not meant"
                )


def check_knows_letters(name: str, tokenizer: Any) -> None:
    """Reject a tokenizer that knows no token of plain English.

    Raises:
        UserError: it knows none.
    """
    unknown = tokenizer.unk_token_id
    check_tokenizer(tokenizer, [_PLAIN], "load")
    with one_line(f"model '{name}': its tokenizer"):
        ids = set(tokenizer(_PLAIN, add_special_tokens=False)["input_ids"])
    if not ids or (unknown is not None and ids == {unknown}):
        raise UserError(
            f"model '{name}': its tokenizer knows no token of '{_PLAIN}'; is its file "
            f"({_FAST} or {_SENTENCEPIECE}) the whole one?"
        )


def _missing(package: str) -> bool:
    try:
        return find_spec(package) is None
    except ModuleNotFoundError:  # the package around it is missing
        return True


def _fast_tokens(file: Path) -> dict[int, str]:
    """Return tokens by id, without added ones; empty if the file is of another kind."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        added = {token["id"] for token in content.get("added_tokens") or []}
        vocabulary = content["model"]["vocab"]
        if isinstance(vocabulary, dict):
            found = {i: token for token, i in vocabulary.items()}
        else:  # Unigram: pairs of a token and its score
            found = {i: pair[0] for i, pair in enumerate(vocabulary)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # the library reports its error
    return {i: token for i, token in found.items() if i not in added}


def _vocabulary(file: Path) -> dict[int, str]:
    try:
        return {i: token for token, i in json.loads(file.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return {}


def _pieces(file: Path) -> dict[int, str]:
    """Return the pieces of a sentencepiece model by id; empty if it is none, or unreadable."""
    if _missing("sentencepiece"):
        return {}
    from sentencepiece import SentencePieceProcessor

    try:
        model = SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError):
        return {}  # some write another tokenizer's file under this name
    return {i: model.id_to_piece(i) for i in range(model.get_piece_size())}
