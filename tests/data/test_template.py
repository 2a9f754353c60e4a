"""The loss tokens are exactly the target and the end token."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import processors

from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.data.tokenise import tokenise, tokenise_all

PROMPT_FORMAT = "<|user|>\n{prompt}\n<|assistant|>\n"

# No lone surrogates: they are no text. No special tokens: "</s>" in a target is an end token.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda text: "</s>" not in text and "<s>" not in text and "<pad>" not in text
)
TRICKY = (
    "\n\n a",
    " leading",
    "👩‍👩‍👧",
    "مرحبا",
    "é",
    "日本語",
    "\u2028",
    "a\n",
    "{x}",
    "<|user|>",
)


@pytest.fixture(scope="module")
def tokenizers(make_tokenizer: Callable[..., Any]) -> dict[str, Any]:
    """One whose tokens stay within words; one whose tokens run over the end of the prompt; one
    that adds tokens of its own at both ends."""
    over = [PROMPT_FORMAT.format(prompt="q") + word for word in ("aa", "\nab", "日本", " x", "é")]
    both = make_tokenizer(over * 3, 300, split=True)
    both.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        special_tokens=[("<s>", both.bos_token_id), ("</s>", both.eos_token_id)],
    )
    return {
        "within": make_tokenizer(over * 3, 300, split=True),
        "over": make_tokenizer(over * 3, 320, split=False),
        "both ends": both,
    }


def check(tokenizer: Any, text: Example) -> TokenisedExample:
    tokens = tokenise(tokenizer, text)
    loss = [label for label in tokens.labels if label != IGNORED]
    assert tokenizer.decode(loss[:-1], clean_up_tokenization_spaces=False) == text.target
    assert loss[-1] == tokenizer.eos_token_id
    start = tokens.target_start
    assert tokens.labels == (IGNORED,) * start + tokens.ids[start:]
    prompt = [t for t in tokens.ids[:start] if t != tokenizer.bos_token_id]
    assert tokenizer.decode(prompt) == f"<|user|>\n{text.prompt}\n<|assistant|>\n"
    assert tokens.target_tokens == len(loss)
    assert tokens.ids.count(tokenizer.eos_token_id) == 1
    assert tokens.text == text
    return tokens


@pytest.mark.parametrize("kind", ["within", "over", "both ends"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(prompt=TEXT, target=TEXT)
@example(prompt=TRICKY[0], target=TRICKY[0])
@example(prompt=TRICKY[2], target=TRICKY[1])
@example(prompt=TRICKY[3], target=TRICKY[3])
@example(prompt=TRICKY[8], target=TRICKY[9])
def test_loss_tokens_decode_to_the_target(
    tokenizers: dict[str, Any], kind: str, prompt: str, target: str
) -> None:
    check(tokenizers[kind], Example(prompt, target))


@pytest.mark.parametrize("target", TRICKY)
def test_tricky_targets(tokenizers: dict[str, Any], target: str) -> None:
    for tokenizer in tokenizers.values():
        check(tokenizer, Example(target, target))


def test_a_token_over_the_boundary_is_cut(tokenizers: dict[str, Any]) -> None:
    """First that there is such a token: else the test could not fail."""
    tokenizer, text = tokenizers["over"], Example("q", "aa")
    prefix = PROMPT_FORMAT.format(prompt="q")
    whole = tokenizer(prefix + "aa", return_offsets_mapping=True)["offset_mapping"]
    assert any(start < len(prefix) < end for start, end in whole)
    check(tokenizer, text)


def test_without_such_a_token_the_text_is_tokenised_as_one(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["within"]
    tokens = tokenise(tokenizer, Example("q", "aa x"))
    whole = tokenizer(PROMPT_FORMAT.format(prompt="q") + "aa x")["input_ids"]
    assert list(tokens.ids) == [*whole, tokenizer.eos_token_id]


def test_a_token_of_its_own_at_the_start_is_kept(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["both ends"]
    tokens = check(tokenizer, Example("q", "aa"))
    assert tokens.ids[0] == tokenizer.bos_token_id


def test_a_tokenizer_without_an_end_token_is_refused(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(["a"], 260, split=True)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end token"):
        tokenise(tokenizer, Example("a", "b"))


def test_all_in_order(tokenizers: dict[str, Any]) -> None:
    texts = [Example("a", "b"), Example("c", "d")]
    assert [t.text for t in tokenise_all(tokenizers["within"], iter(texts))] == texts


def test_a_process_that_has_tokenised_can_fork() -> None:
    """In one of its own: tokenizers before 0.23 warns at a fork after it has used threads."""
    choice = "TOKENIZERS_PARALLELISM"
    code = (
        "import os; from geomix.data.sources import kvr; "
        "from geomix.data.tokenise import tokenise_all; "
        "from geomix.models.load import load_tokenizer; tokenizer = load_tokenizer('builtin'); "
        "tokenise_all(tokenizer, kvr.examples(500, 0, 'train')); child = os.fork(); "
        f"print(os.environ['{choice}'], flush=True) if child else tokenizer(['a', 'b']); "
        "child and os.waitpid(child, 0); os._exit(0)"
    )
    environment = {k: v for k, v in os.environ.items() if k != choice}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        check=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("false\n", "")


@pytest.mark.parametrize("split", [True, False])
def test_every_answer_of_a_conversation_carries_loss(
    make_tokenizer: Callable[..., Any], split: bool
) -> None:
    tokenizer = make_tokenizer(["<|user|>\na\n<|assistant|>\nb"], 300, split=split)
    earlier = (("Hallo?", " Ja.\n"), ("Wie\ngeht’s?", "gut"))
    made = tokenise(tokenizer, Example("Schön.", "日本", earlier=earlier))
    end = tokenizer.eos_token
    carried = [i for i, label in zip(made.ids, made.labels, strict=True) if label != IGNORED]
    assert tokenizer.decode(carried) == f" Ja.\n{end}gut{end}日本{end}"
    assert tokenizer.decode(made.ids) == (
        f"<|user|>\nHallo?\n<|assistant|>\n Ja.\n{end}\n<|user|>\nWie\ngeht’s?\n<|assistant|>\n"
        f"gut{end}\n<|user|>\nSchön.\n<|assistant|>\n日本{end}"
    )
    assert tokenizer.decode(made.ids[made.target_start :]) == f"日本{end}"
