"""Teacher-forced scores against greedy decoding, one example at a time and unpadded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from geomix.data.batch import collate
from geomix.data.chat import chat_format
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.data.tokenise import tokenise, tokenise_all
from geomix.measures.scores import chosen
from geomix.measures.scores.base import Answer
from geomix.measures.text import normalise
from geomix.models.forward import plain_forward
from geomix.models.load import LoadedModel, load_model
from geomix.models.loss import correct_tokens
from geomix.models.score import KnownAnswer, known_answer, score
from geomix.training.evaluate import row_of, summarise
from tests.teaching import teach

WRONG = {
    "green red": "green",
    "x": "yes",
    "99 bottles": "99 bottles and more of them than anybody will ever want to count",
    "k9": "k 9",
    "日本": "日本語",
    "one": "two or one",
}
"""Wrong answers: too little, something else, more than is decoded, the same but a space."""


def teach_answers(loaded: LoadedModel, examples: list[TokenisedExample]) -> None:
    """Let the model answer so, each token by a margin."""
    teach(loaded.model, [(example.ids, example.target_start) for example in examples])


@pytest.fixture(scope="module")
def taught_weights() -> dict[str, torch.Tensor]:
    """The weights of `half_taught`, once they are found."""
    return {}


@pytest.fixture
def half_taught(
    loaded: LoadedModel, facts: list[TokenisedExample], taught_weights: dict[str, torch.Tensor]
) -> LoadedModel:
    """Knows every other fact, and has something else to say to the others."""
    if not taught_weights:
        told = [Example(e.text.prompt, WRONG.get(e.text.target, e.text.target)) for e in facts]
        teach_answers(loaded, tokenise_all(loaded.tokenizer, told))
        taught_weights.update({k: v.clone() for k, v in loaded.model.state_dict().items()})
    loaded.model.load_state_dict(taught_weights)
    return loaded


def greedy(loaded: LoadedModel, example: TokenisedExample, most: int = 40) -> str:
    """Argmax after argmax without `generate`, cache, padding or teacher forcing."""
    ids = list(example.ids[: example.target_start])
    for _ in range(most):
        with torch.no_grad():
            model: Any = loaded.model
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == loaded.tokenizer.eos_token_id:
            break
    text: str = loaded.tokenizer.decode(ids[example.target_start :], skip_special_tokens=True)
    return text


def test_verdicts_are_those_of_greedy_decoding(
    half_taught: LoadedModel, facts: list[TokenisedExample]
) -> None:
    verdicts = score(half_taught, facts, 5)
    decoded = [greedy(half_taught, example) for example in facts]
    expected = [
        text.strip().lower() == example.text.target.strip().lower()
        for text, example in zip(decoded, facts, strict=True)
    ]
    assert [verdict.exact for verdict in verdicts] == expected
    assert expected == [True, False] * 6, "some right, some wrong: else this says nothing"
    for verdict, text, example in zip(verdicts, decoded, facts, strict=True):
        assert (verdict.prompt, verdict.target) == (example.text.prompt, example.text.target)
        assert verdict.tokens == example.target_tokens
        if verdict.exact:
            assert verdict.prediction == text
        else:
            assert text.startswith(str(verdict.prediction).rstrip("\ufffd"))


def test_generate_of_transformers_agrees(
    half_taught: LoadedModel, facts: list[TokenisedExample]
) -> None:
    model: Any = half_taught.model
    for verdict, example in zip(score(half_taught, facts, 5), facts, strict=True):
        start = example.target_start
        ids = model.generate(
            torch.tensor([example.ids[:start]]),
            attention_mask=torch.ones((1, start), dtype=torch.int64),
            max_new_tokens=example.target_tokens + 8,
            do_sample=False,
        )
        text = half_taught.tokenizer.decode(ids[0, start:], skip_special_tokens=True)
        assert verdict.exact == (normalise(text) == normalise(verdict.target))


def test_another_case_or_a_space_is_still_exact(
    half_taught: LoadedModel, facts: list[TokenisedExample]
) -> None:
    """Greedy decoding gives what was taught; the target asked for differs in case and spaces only.

    Teacher forcing alone would call it wrong, so this needs the decode of the failures.
    """
    known = next(v for v in score(half_taught, facts, 5) if v.exact and " " in v.target)
    taught = known.target
    example = Example(known.prompt, f" {taught.upper()} ")
    (verdict,) = score(half_taught, [tokenise(half_taught.tokenizer, example)], 1)
    assert verdict.exact
    assert verdict.prediction == taught
    missing = Example(known.prompt, taught.rsplit(" ", 1)[0])
    (verdict,) = score(half_taught, [tokenise(half_taught.tokenizer, missing)], 1)
    assert not verdict.exact, "the end token is part of the answer"


def test_where_exact_match_is_enough_only_what_may_still_match_is_decoded(
    half_taught: LoadedModel, facts: list[TokenisedExample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right answers in capitals are decoded to their end, wrong ones of the same run are not."""
    known = [v for v in score(half_taught, facts, 5) if v.exact and v.target.isascii()]
    texts = [Example(v.prompt, v.target.upper()) for v in known]
    texts += [Example(v.prompt, f"{v.target.upper()} Q and much more") for v in known]
    texts += [Example(v.prompt, f"Qx {v.target}") for v in known]
    asked = tokenise_all(half_taught.tokenizer, texts)
    whole = score(half_taught, asked, 32)
    lengths: list[int] = []
    model: Any = half_taught.model
    generate = model.generate

    def noted(**keys: Any) -> Any:
        made = generate(**keys)
        lengths.append(made.shape[1] - keys["input_ids"].shape[1])
        assert len(made) == 2 * len(known), "what begins wrongly is not decoded"
        return made

    monkeypatch.setattr(model, "generate", noted)
    brief = score(half_taught, asked, 32, exact_only=True)
    assert [(v.exact, v.nll) for v in brief] == [(v.exact, v.nll) for v in whole]
    n = len(known)
    assert [v.exact for v in brief] == [True] * n + [False] * 2 * n
    assert [v.prediction for v in brief] == [v.target for v in known] * 2 + [None] * n
    assert max(lengths) <= max(len(e.ids) - e.target_start for e in asked[:n]) + 8


def test_every_metric_of_a_verdict_is_that_of_its_texts(
    half_taught: LoadedModel, facts: list[TokenisedExample]
) -> None:
    """The model says what it was taught; targets and accepted answers are chosen around it."""
    known = next(v for v in score(half_taught, facts, 5) if v.exact and " " in v.target)
    taught, (first, *_) = known.target, known.target.split()
    asked = [
        Example(known.prompt, f"{first} Zorro", ("Zorro", taught.upper())),
        Example(known.prompt, taught),
        Example(known.prompt, "q\n#### 5"),
        Example(known.prompt, f"{taught}\n#### 5"),
    ]
    alias, target, wrong, close = score(half_taught, tokenise_all(half_taught.tokenizer, asked), 3)
    assert alias.prediction == target.prediction == close.prediction == taught
    rows = [_scores(one) for one in (alias, target, wrong, close)]
    assert rows[0][:3] == (False, True, 1.0)
    assert rows[0][3] == pytest.approx(2 / (len(taught.split()) + 2)), "the target alone counts"
    assert rows[1] == (True, True, 1.0, 1.0, None)
    assert rows[0][4] is None
    assert (rows[2][:3], rows[2][4]) == ((False, False, 0.0), False)
    assert rows[3][2] == pytest.approx(2 * len(_words(taught)) / (2 * len(_words(taught)) + 1))


def _scores(answer: Answer) -> tuple[Any, ...]:
    row = row_of(answer, chosen(()))
    return tuple(row[name] for name in ("exact", "alias", "f1", "rouge_l", "final_number"))


def _words(text: str) -> list[str]:
    return [word for word in text.split() if word not in ("a", "an", "the")]


def test_a_target_with_an_end_token_inside_is_decoded(loaded: LoadedModel) -> None:
    """Every token is the argmax given the true prefix, yet greedy decoding stops at the first end.

    The model is taught the example itself, so teacher forcing alone would call it right.
    """
    example = tokenise(loaded.tokenizer, Example("The value of m is?", "left</s> right"))
    end = loaded.tokenizer.eos_token_id
    assert example.ids.count(end) == 2
    teach_answers(loaded, [example])
    batch = collate([example], [1.0], loaded.pad_id)
    assert correct_tokens(plain_forward(loaded.model)(batch), batch).all()
    (verdict,) = score(loaded, [example], 1)
    assert verdict.prediction == greedy(loaded, example) == "left"
    assert not verdict.exact


@pytest.mark.parametrize(
    ("target", "earlier", "said"),
    [("d", (("a", "b"),), "d"), ("d", (("a", "b</s> c"),), "d"), ("d</s> e", (), "d")],
)
def test_an_answer_ends_at_the_first_end_token_of_its_own(
    loaded: LoadedModel, target: str, earlier: tuple[tuple[str, str], ...], said: str
) -> None:
    """Every answer of a conversation ends in one, and what was wrong in one says nothing here."""
    made = tokenise(loaded.tokenizer, Example("c", target, earlier=earlier))
    argmaxes = [label for label in made.labels if label != IGNORED]
    if earlier:
        argmaxes[0] += 1
    answer = known_answer(made, argmaxes)
    assert loaded.tokenizer.decode(answer.tokens) == said
    assert (answer.ended, answer.target) == (True, target == said)


def test_an_answer_is_known_up_to_its_first_wrong_token(loaded: LoadedModel) -> None:
    made = tokenise(loaded.tokenizer, Example("c", "7 42 blue"))
    argmaxes = list(made.ids[made.target_start :])
    assert len(argmaxes) >= 4
    argmaxes[1] += 1
    assert known_answer(made, argmaxes) == KnownAnswer(argmaxes[:2], ended=False, target=False)
    argmaxes[1] = made.ids[-1]
    assert known_answer(made, argmaxes) == KnownAnswer(argmaxes[:1], ended=True, target=False)
    more = [*made.ids[made.target_start : -1], argmaxes[0]]
    assert known_answer(made, more) == KnownAnswer(more, ended=False, target=False)


def test_decoding_stops_at_the_end_token_of_the_chat_format(loaded: LoadedModel) -> None:
    """Taught to end in "<s>", not the tokenizer's end token, and to go on; asked in capitals."""
    loaded.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<s>{% endfor %}"
    )
    chat = chat_format("tokenizer", loaded.tokenizer)
    right = tokenise(loaded.tokenizer, Example("q?", "green red"), chat)
    more = tuple(loaded.tokenizer("and more")["input_ids"])
    taught = TokenisedExample(right.ids + more, right.labels + more, right.text)
    teach_answers(loaded, [taught])
    asked = tokenise(loaded.tokenizer, Example("q?", "GREEN RED"), chat)
    (verdict,) = score(loaded, [asked], 1)
    assert verdict.prediction == "green red"
    assert verdict.exact


def test_a_derivation_may_be_longer_than_the_one_it_is_compared_with(loaded: LoadedModel) -> None:
    """Only the number at its end must be right, so there must be room for that."""
    long, short = "so 2 and 3 make 5\n#### 5", "#### 5"
    right, asked = tokenise_all(loaded.tokenizer, [Example("q?", long), Example("q?", short)])
    n = asked.target_tokens
    assert n + 8 < right.target_tokens <= 2 * n + 8
    teach_answers(loaded, [right])
    (verdict,) = score(loaded, [asked], 1)
    assert verdict.prediction == long
    assert _scores(verdict)[::4] == (False, True)


def test_only_empty_targets_are_given_where_that_is_asked_for(loaded: LoadedModel) -> None:
    made = tokenise_all(loaded.tokenizer, [Example("a?", ""), Example("b?", "blue")])
    assert [_scores(v)[:2] for v in score(loaded, made, 2)] == [(False, False)] * 2
    given, asked = score(loaded, made, 2, empty_right=True)
    assert _scores(given)[:2] == (True, True)
    assert _scores(asked)[:2] == (False, False)


def test_losses_are_those_of_each_example_alone(
    half_taught: LoadedModel, facts: list[TokenisedExample]
) -> None:
    model: Any = half_taught.model
    for verdict, example in zip(score(half_taught, facts, 5), facts, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([example.ids])).logits[0, :-1]
        labels = torch.tensor(example.labels[1:])
        expected = torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        assert verdict.nll == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_batch_size_changes_no_verdict(
    half_taught: LoadedModel, facts: list[TokenisedExample], size: int
) -> None:
    whole = score(half_taught, facts, 12)
    for verdict, other in zip(score(half_taught, facts, size), whole, strict=True):
        assert verdict.exact == other.exact
        assert verdict.nll == pytest.approx(other.nll, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored_and_no_gradient_is_left(
    loaded: LoadedModel, facts: list[TokenisedExample], training: bool
) -> None:
    loaded.model.train(training)
    score(loaded, facts[:2], 2)
    assert loaded.model.training is training
    assert all(p.grad is None for p in loaded.model.parameters())


def test_a_pad_token_that_is_the_end_token_changes_nothing(
    half_taught: LoadedModel, facts: list[TokenisedExample]
) -> None:
    own = score(half_taught, facts, 5)
    end = LoadedModel(half_taught.model, half_taught.tokenizer, half_taught.tokenizer.eos_token_id)
    assert [v.exact for v in score(end, facts, 5)] == [v.exact for v in own]


def test_the_generation_settings_of_a_model_leak_into_no_verdict(
    half_taught: LoadedModel, facts: list[TokenisedExample], tmp_path: Path
) -> None:
    model: Any = half_taught.model
    model.save_pretrained(tmp_path)
    half_taught.tokenizer.save_pretrained(tmp_path)
    settings = {
        "return_dict_in_generate": True,
        "guidance_scale": 3.0,
        "stop_strings": ["e"],
        "do_sample": True,
        "num_beams": 3,
        "repetition_penalty": 5.0,
        "no_repeat_ngram_size": 1,
        "bad_words_ids": [[7]],
        "suppress_tokens": list(range(3, 200)),
        "min_new_tokens": 5,
    }
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    again = load_model(str(tmp_path), torch.device("cpu"))
    assert score(again, facts, 5) == score(half_taught, facts, 5)


def test_means_by_hand() -> None:
    """Losses of 6 nats in 3 tokens and 1 nat in 1: 7/4 a token; (2 + 1)/2 an example."""
    scores = chosen(())
    rows = [
        row_of(Answer(prompt="", target="", prediction="", exact=e, nll=n, tokens=t), scores)
        for e, n, t in ((True, 6.0, 3), (False, 1.0, 1))
    ]
    assert summarise(rows, scores, "token")["exact_match"] == 50
    assert summarise(rows, scores, "token")["loss"] == 7 / 4
    assert summarise(rows, scores, "example")["loss"] == 3 / 2


def test_texts_of_every_kind_are_scored(loaded: LoadedModel) -> None:
    texts = [Example("a", "日本"), Example("b\n", "\n x"), Example("c" * 50, "é" * 9)]
    verdicts = score(loaded, tokenise_all(loaded.tokenizer, texts), 2)
    assert [v.target for v in verdicts] == [t.target for t in texts]


def test_an_answer_that_is_decoded_in_part_says_so(
    half_taught: LoadedModel, facts: list[TokenisedExample]
) -> None:
    """Its scores are those of its beginning; all other answers end, right or wrong."""
    for batch_size in (1, 12):
        made = {v.target: v for v in score(half_taught, facts, batch_size)}
        assert [target for target, v in made.items() if v.cut] == ["99 bottles"]
        said = made["99 bottles"].prediction
        assert said is not None
        assert WRONG["99 bottles"].startswith(said)
        assert said != WRONG["99 bottles"]
    quick = {v.target: v for v in score(half_taught, facts, 12, exact_only=True)}
    assert not any(v.cut for v in quick.values() if v.exact)
    assert quick["99 bottles"].cut
    scores = chosen(())
    rows = [row_of(answer, scores) for answer in made.values()]
    assert summarise(rows, scores, "token")["cut"] == pytest.approx(100 / 12)
