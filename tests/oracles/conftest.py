"""Tokenizers of the five families that causal LMs use, trained from a few lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from geomix.data.sources import arithmetic, kvr, triples

ADDED = ["<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
KINDS = ("gpt-2", "llama-3", "llama-2", "mistral", "unigram")


def corpus() -> list[str]:
    """Prompts and answers, in chat formats too: merges over a boundary need to be learnt."""
    made = [e for m in (kvr, arithmetic, triples) for e in m.examples(80, 3, "train")]
    plain = [f"{e.prompt} {e.target}" for e in made]
    chats = [f"<|user|>\n{e.prompt}\n<|assistant|>\n{e.target}" for e in made]
    gaps = ["|>\n\n", "\n\n\n", "  \n", "A: x", "é ü", "日本", "\n ", "   "] * 40
    return [*plain, *chats, *gaps]


def byte_level(*, pattern: str | None) -> Tokenizer:
    inner = Tokenizer(models.BPE())
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    if pattern is None:
        inner.pre_tokenizer = plain
    else:
        split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        inner.pre_tokenizer = pre_tokenizers.Sequence([split, plain])
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(corpus(), trainer)
    return inner


def sentencepiece_bpe() -> Tokenizer:
    """Merges learnt within words, as SentencePiece does; bytes for what the vocabulary lacks."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learner.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=500, show_progress=False, special_tokens=["<unk>"])
    )
    model = json.loads(learner.to_str())["model"]
    vocab: dict[str, int] = model["vocab"]
    vocab |= {piece: len(vocab) + i for i, piece in enumerate(BYTES)}
    merges = [(left, right) for left, right in model["merges"]]
    return Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )


def unigram() -> Tokenizer:
    learner = Tokenizer(models.Unigram())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learner.train_from_iterator(
        corpus(),
        trainers.UnigramTrainer(
            vocab_size=300, show_progress=False, special_tokens=["<unk>"], unk_token="<unk>"
        ),
    )
    vocab = [(piece, score) for piece, score in json.loads(learner.to_str())["model"]["vocab"]]
    vocab += [(piece, -20.0) for piece in BYTES]
    inner = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return inner


def make(kind: str) -> Any:
    """A tokenizer of transformers with end token, added tokens and the ChatML template."""
    begin, end = "<s>", "</s>"
    if kind == "gpt-2":
        begin = end = "<|endoftext|>"
        inner = byte_level(pattern=None)
    elif kind == "llama-3":
        begin, end = "<|begin_of_text|>", "<|end_of_text|>"
        inner = byte_level(pattern=LLAMA_3)
    elif kind == "unigram":
        inner = unigram()
    else:
        inner = sentencepiece_bpe()
        fallback = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        inner.decoder = decoders.Sequence([*fallback, decoders.Strip(" ", 1, 0)])
        if kind == "llama-2":
            inner.normalizer = normalizers.Sequence(
                [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
            )
        else:
            inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    inner.add_special_tokens(list(dict.fromkeys([begin, end])))
    trimming = processors.ByteLevel(trim_offsets=True)  # as GPT-2 and Llama 3 come
    first = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, inner.token_to_id(begin))]
    )
    if kind == "gpt-2":
        inner.post_processor = trimming
    elif kind == "llama-3":
        inner.post_processor = processors.Sequence([trimming, first])
    else:
        inner.post_processor = first
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=begin,
        eos_token=end,
        additional_special_tokens=ADDED,
        chat_template=CHATML,
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def families() -> dict[str, Any]:
    """By name: GPT-2's and Llama 3's byte-level BPE, SentencePiece's BPE with a space put before
    every section (Llama 2) or the first (Mistral), and its Unigram; all but GPT-2's begin with a
    begin token, the last three have byte fallback."""
    return {kind: make(kind) for kind in KINDS}


@pytest.fixture(scope="session")
def make_family() -> Callable[[str], Any]:
    """A fresh tokenizer of a family, for tests that change it."""
    return make
