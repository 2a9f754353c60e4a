"""Scores that are asked for, measured of real models: what they say, and where it is written."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from geomix.api import Run
from geomix.config.evaluate import EvaluateConfig
from geomix.config.run import RunConfig
from geomix.data.example import IGNORED, Example, TokenisedExample
from geomix.data.plan import plan_stages
from geomix.data.sources import kvr, triples
from geomix.data.tokenise import tokenise_all
from geomix.measures.scores import DEFAULT, chosen
from geomix.measures.scores.association import Association
from geomix.measures.scores.extraction import strength
from geomix.measures.scores.recognition import Recognition
from geomix.models.candidates import Candidates
from geomix.models.load import LoadedModel
from geomix.models.score import score
from geomix.training.engine import Engine
from geomix.training.evaluate import SetResult, evaluate
from tests.teaching import Lookup
from tests.training.test_retention import STAGES, Silent, evaluations

Lines = list[dict[str, Any]]


def pairs(loaded: LoadedModel, n: int = 12) -> list[TokenisedExample]:
    return tokenise_all(loaded.tokenizer, kvr.examples(n, 5, "train"))


def lookup(loaded: LoadedModel, known: Sequence[TokenisedExample]) -> LoadedModel:
    """A model that holds these answers with certainty."""
    table = Lookup.of([(e.ids, e.target_start) for e in known], loaded.model.config)
    return replace(loaded, model=table, can_cache=False, packs=False)


def measured(
    loaded: LoadedModel, examples: Sequence[TokenisedExample], folder: Path, *names: str
) -> tuple[SetResult, Lines]:
    """The set's scores, and its examples' lines."""
    file = folder / "lines.jsonl"
    scores = chosen(names)
    found = evaluate(loaded, {"D_A": examples}, "token", 5, file, scores=scores)
    return found["D_A"], [json.loads(line) for line in file.read_text().splitlines()]


def test_a_lookup_has_all_bits_and_an_untrained_model_none(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    examples = pairs(loaded)
    found, lines = measured(lookup(loaded, examples), examples, tmp_path, "bits")
    assert found["bits"] == pytest.approx(kvr.ENTROPY, abs=1e-9)
    assert (found["bits_end"], found["exact_match"]) == (0, 100)
    untrained, lines = measured(loaded, examples, tmp_path, "bits")
    assert untrained["bits"] < 0
    assert -1 <= untrained["bits_hedged"] <= 0
    for line in lines:
        assert line["bits"] == pytest.approx(kvr.ENTROPY - line["nll"] / math.log(2), abs=1e-4)
        assert line["bits_end"] > 0


def test_bits_of_a_conversation_are_those_of_its_last_answer(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """The loss is of all answers; the fact that is asked for is the last one."""
    first, last = kvr.examples(2, 5, "train")
    told = replace(last, earlier=((first.prompt, first.target),))
    _, (line,) = measured(loaded, tokenise_all(loaded.tokenizer, [told]), tmp_path, "bits")
    assert line["bits"] > kvr.ENTROPY - line["nll"] / math.log(2) + 1


def test_what_is_asked_for_joins_the_lines_and_changes_no_training(
    tmp_path: Path, loaded: LoadedModel
) -> None:
    config = RunConfig.model_validate({"stages": STAGES, "evaluate": {"scores": ["bits"]}})
    run = Run(tmp_path / "asked")
    start = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    Engine(config, loaded, run, [], Silent()).train(plan_stages(config))
    loaded.model.load_state_dict(start)
    plain = evaluations(tmp_path / "plain", loaded)
    steps = [
        [x for x in Run(tmp_path / n).metrics() if x["event"] == "step"] for n in ("asked", "plain")
    ]
    assert steps[0] == steps[1]
    lines = [line for line in run.metrics() if line["event"] == "evaluation"]
    names = [*plain[0], "bits", "bits_hedged", "bits_end"]
    assert [list(line) for line in lines] == [names] * len(lines)
    assert [{k: line[k] for k in plain[0]} for line in lines] == plain
    facts = [line["bits"] for line in lines if line["set"] == "D_A"]
    assert len(facts) == 5, "at three boundaries, and after an epoch of each stage"
    assert all(value < kvr.ENTROPY for value in facts)
    assert all(line["bits"] is None for line in lines if line["set"] == "D_B"), "arithmetic"
    end = next((tmp_path / "asked").glob("stages/0-*/eval/epoch-002.jsonl")).read_text()
    columns = list(json.loads(end.splitlines()[0]))
    assert columns[-6:] == ["nll", "tokens", "entropy", "bits", "bits_hedged", "bits_end"]


def test_the_key_is_absent_where_nothing_is_asked_for() -> None:
    """Configurations and hashes of before stay what they were."""
    assert "scores" not in EvaluateConfig().model_dump()
    assert EvaluateConfig(scores=("bits",)).model_dump()["scores"] == ("bits",)
    assert [score.name for score in chosen(["bits"])][: len(DEFAULT)] == list(DEFAULT)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["bit"], "no score is called 'bit'; did you mean bits"),
        (["loss"], "loss is measured in any case; leave it out"),
        (["kl"], "kl is measured where evaluate.kl says so"),
        (["bits", "bits"], "bits is given twice"),
    ],
)
def test_a_mistake_in_the_names_is_told(names: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EvaluateConfig.model_validate({"scores": names})


def test_facts_of_an_invented_world_have_six_bits(loaded: LoadedModel, tmp_path: Path) -> None:
    examples = tokenise_all(loaded.tokenizer, triples.examples(6, 5, "train"))
    found, _ = measured(lookup(loaded, examples), examples, tmp_path, "bits")
    assert found["bits"] == pytest.approx(6.0, abs=1e-9)


def test_a_lookup_recognises_what_it_holds(loaded: LoadedModel, tmp_path: Path) -> None:
    examples = pairs(loaded)
    found, lines = measured(lookup(loaded, examples), examples, tmp_path, "recognition")
    assert (found["recognition"], found["recognition_auc"]) == (100, 100)
    assert found["choice_bits"] == pytest.approx(math.log2(12))
    assert found["recognition_chance"] == pytest.approx(100 / 12)
    assert [line["candidates"] for line in lines] == [12] * 12
    half = Candidates(lookup(loaded, examples[:6]), examples, 5)
    rows = Recognition().ask(half, range(12))
    assert [row["recognised"] for row in rows[:6]] == [1.0] * 6
    assert sum(row["recognised"] for row in rows[6:]) <= 1, "of equal chances, the shortest"


def test_two_candidates_are_what_the_model_says_of_them(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    """N = 2, by hand from four log-probabilities."""
    examples = pairs(loaded, 2)
    found, lines = measured(loaded, examples, tmp_path, "recognition")
    table = Candidates(loaded, examples, 2).log_probabilities([0, 1], [[0, 1], [0, 1]])
    right = [table[0][0] > table[0][1], table[1][1] > table[1][0]]
    assert [line["recognised"] for line in lines] == right
    assert found["recognition"] == 50 * sum(right)
    share = 1 / (1 + math.exp(table[0][1] - table[0][0]))
    assert lines[0]["choice_bits"] == pytest.approx(1 + math.log2(share), abs=1e-4)


def test_processes_that_share_a_set_find_the_same(loaded: LoadedModel) -> None:
    examples = pairs(loaded, 7)
    score = Recognition()
    whole = score.ask(Candidates(loaded, examples, 4), range(7))
    parts = [score.ask(Candidates(loaded, examples, 4), range(r, 7, 3)) for r in range(3)]
    for rank, part in enumerate(parts):
        for row, other in zip(part, whole[rank::3], strict=True):
            assert row == pytest.approx(other, abs=1e-4)


def test_recognition_is_asked_at_the_ends_of_stages_alone(
    tmp_path: Path, loaded: LoadedModel
) -> None:
    lines = evaluations(tmp_path, loaded, scores=["recognition"])
    asked = [line for line in lines if "recognition" in line]
    assert {line["moment"] for line in asked} == {"start", "end"}
    assert {line["moment"] for line in lines} > {line["moment"] for line in asked}
    known = [line["recognition"] is not None for line in asked]
    assert known == [line["set"] == "D_A" for line in asked], "sums are said by their prompts"


def test_association_and_shared_bits_are_the_bits(loaded: LoadedModel, tmp_path: Path) -> None:
    """From the model's own table, which recognition reads too; parts find what the whole does."""
    examples = pairs(loaded, 5)
    names = ("bits", "recognition", "association")
    found, lines = measured(loaded, examples, tmp_path, *names)
    assert found["association"] + found["shared_bits"] == pytest.approx(found["bits"], abs=1e-3)
    for line in lines:
        assert line["association"] + line["shared_bits"] == pytest.approx(line["bits"], abs=1e-3)
    parts = [Association().ask(Candidates(loaded, examples, 2), [i]) for i in range(5)]
    for (row,), line in zip(parts, lines, strict=True):
        assert row == pytest.approx({name: line[name] for name in row}, abs=1e-3)


def decoded(loaded: LoadedModel, ids: tuple[int, ...], count: int) -> list[int]:
    """Greedy tokens after a beginning, one plain pass each."""
    found = list(ids)
    model: Any = loaded.model
    for _ in range(count):
        with torch.no_grad():
            found.append(int(model(input_ids=torch.tensor([found])).logits[0, -1].argmax()))
    return found[len(ids) :]


def test_extraction_strength_is_that_of_decoding_after_forced_prefixes(
    loaded: LoadedModel,
) -> None:
    """Answers are the model's own continuations with tokens replaced at some places."""
    (asked,) = tokenise_all(loaded.tokenizer, [Example("The value of q is?", "x")])
    prompt, end = asked.ids[: asked.target_start], asked.ids[-1]
    strengths = []
    for wrong in ((), (0,), (2,), (1, 4), (5,), (0, 1, 2, 3, 4, 5)):
        said = prompt
        for place in range(6):
            (token,) = decoded(loaded, said, 1)
            if place in wrong or token == end:
                token = next(t for t in range(20, 99) if t not in (token, end))
            said += (token,)
        target = said[len(prompt) :]
        labels = (IGNORED,) * len(prompt) + (*target, end)
        example = TokenisedExample((*said, end), labels, asked.text)
        (answer,) = score(loaded, [example], 1, exact_only=True)
        given = next(
            k
            for k in range(7)
            if decoded(loaded, said[: len(prompt) + k], 6 - k) == list(target[k:])
        )
        found = strength(answer.greedy)
        assert found == pytest.approx(1 - given / 6)
        strengths.append(found)
    assert len(set(strengths)) > 3, "else it says little"


def test_extraction_of_a_lookup_is_whole(loaded: LoadedModel, tmp_path: Path) -> None:
    examples = pairs(loaded)
    found, lines = measured(lookup(loaded, examples), examples, tmp_path, "extraction")
    names = ("extraction", "extraction_tokens", "extraction_half", "extractable")
    assert [found[name] for name in names] == [100] * 4
    untrained, lines = measured(loaded, examples, tmp_path, "extraction")
    assert untrained["extractable"] == 0
    for line in lines:
        assert sum(line["token_nll"]) == pytest.approx(line["nll"], abs=1e-4)
