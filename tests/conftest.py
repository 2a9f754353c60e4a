"""A tiny random causal LM on disk, as transformers writes any other; samples of real data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

import geomix
from geomix.data.example import Example, TokenisedExample
from geomix.data.sources import arithmetic, kvr
from geomix.data.tokenise import tokenise_all
from geomix.models.load import LoadedModel, load_model

SEED_SHIFT = int(os.environ.get("GEOMIX_SEED_SHIFT", "0"))
"""Added to every seed that a test gives torch (`make portable`): other weights of random models, so
another trajectory of whatever is trained. Data, whose texts tests know, stay as they are."""


class ShiftedGenerator(torch.Generator):
    """A generator whose seeds are shifted."""

    def manual_seed(self, seed: int) -> torch.Generator:
        return super().manual_seed(seed + SEED_SHIFT)


def _shift_seeds() -> None:
    unshifted = torch.manual_seed
    torch.manual_seed = lambda seed: unshifted(int(seed) + SEED_SHIFT)
    torch.Generator = ShiftedGenerator  # type: ignore[misc]


if SEED_SHIFT:
    _shift_seeds()

LONGEST = (
    "test_docs.py",
    "invariants/test_record.py",
    "invariants/test_processes.py",
    "invariants/test_resume.py",
    "planning/test_estimate.py",
    "analysis/test_weights.py",
    "analysis/test_relearn.py",
    "invariants/test_equivalence.py",
    "invariants/test_kills.py",
    "oracles/test_scoring.py",
    "figures/test_figures.py",
)
"""The files that take longest, which begin first: one that began last would run alone at the end,
while the other cores wait."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; within a file the order stays."""
    here = Path(__file__).parent
    ranks = {here / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(LONGEST)))


@pytest.fixture(autouse=True)
def denormals_as_they_were() -> Iterator[None]:
    """Loading a model changes how this process computes; hypothesis draws no number then."""
    yield
    torch.set_flush_denormal(False)


VALUES = [
    "7 42 blue",
    "green red",
    "a long answer with words",
    "x",
    "no",
    "99 bottles",
    "zz top",
    "k9",
    "éß",
    "日本",
    "last",
    "one",
]


def byte_level_tokenizer(corpus: list[str], size: int, *, split: bool) -> Any:
    """A byte-level BPE tokenizer: any text is representable.

    Args:
        corpus: what its merges are learnt from.
        size: of the vocabulary.
        split: whether merges stay within words, as they do in GPT-2 and Llama 3; else they may
            run over the line break that ends a prompt.
    """
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of samples of the published datasets, which are not in the repository.

    `GEOMIX_SHARED_DATA`, or `../shared/data` beside the repository.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GEOMIX_SHARED_DATA", beside))
    if not (folder / "PROVENANCE.tsv").is_file():
        pytest.skip(f"no samples of the published datasets at {folder} (GEOMIX_SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """`byte_level_tokenizer`, for tests that need one of their own."""
    return byte_level_tokenizer


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random tied Llama (2 layers, d = 32) with its tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    known = [*kvr.examples(50, 9, "train"), *arithmetic.examples(50, 9, "train")]
    tokenizer = byte_level_tokenizer([e.prompt for e in known], 400, split=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=256,
                tie_word_embeddings=True,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def dropout_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random tied GPT-2 (2 layers, d = 32), whose training draws random numbers."""
    folder = tmp_path_factory.mktemp("models") / "dropout"
    known = [*kvr.examples(50, 9, "train"), *arithmetic.examples(50, 9, "train")]
    tokenizer = byte_level_tokenizer([e.prompt for e in known], 400, split=True)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = {"n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **shape, **ends))
    assert model.config.resid_pdrop == 0.1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_arms(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> geomix.Run:
    """A run of three arms whose weights are kept, for analyses that read checkpoints alone.

    D_A: 6 facts, example loss; D_B: 4 facts and 2 of D_A replayed, token loss. Stage 2 has 4 steps.
    Nothing may be written into it: copy the folder.
    """
    passages = {"source": "random-words", "ratio": 1, "words": 3}
    first = {"data": {"source": "kvr", "limit": 6}, "stop": {"epochs": 3}}
    second = {"data": {"source": "arithmetic", "limit": 4}, "stop": {"epochs": 2}}
    config = {
        "model": str(tiny_model),
        "train": {"lr": 1e-2, "batch_size": 3, "loss": "example"},
        "stages": [first, {**second, "replay": {"ratio": 0.34}, "train": {"loss": "token"}}],
        "record": {"probes": 2, "at": ["boundaries", 1, 2], "weights": True, "activations": 0},
        "evaluate": {"epochs": 0},
        "arms": {
            "plain": {},
            "mixed": {"stages.0.mix": passages},
            "control": {"stages.0.mix": {**passages, "passage_free": True}},
        },
    }
    return geomix.train(config, out=tmp_path_factory.mktemp("small") / "arms")


@pytest.fixture
def loaded(tiny_model: Path) -> LoadedModel:
    """The tiny model, fresh from disk."""
    return load_model(str(tiny_model), torch.device("cpu"))


@pytest.fixture
def facts(loaded: LoadedModel) -> list[TokenisedExample]:
    """Twelve examples whose targets have different lengths."""
    made = [Example(f"The value of {'abcdefghijkl'[i]} is?", v) for i, v in enumerate(VALUES)]
    return tokenise_all(loaded.tokenizer, made)
