"""The paper's factoids in question form with short answers: four published datasets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from geomix.data.example import Example
from geomix.data.sources.base import Found, Hub, Request, Source
from geomix.data.sources.published import published, read
from geomix.data.sources.rows import RowError, answered, field_in, text_in, texts_in

PROMPT = "Question: {question} The answer is:"
"""The paper's prompt of PopQA (appendix B), also used for the sets without a printed prompt."""

TRIVIAQA_PROMPT = "Question: {question}\nThe answer is:"
"""The paper's prompt of TriviaQA (appendix B), on two lines."""

QUESTIONS = (
    *("Which country is [X] located in?", "Where was [X] born?", "Where did [X] die?"),
    *("Who is [X] married to?", "What is the capital of [X]?", "Who is [X]'s child?"),
    *("Who is the author of [X]?", "Where was [X] educated?", "What kind of work does [X] do?"),
    *("Who founded [X]?", "Who owns [X]?", "Where is [X] located?", "Who performed [X]?"),
    *("What type of music does [X] play?", "Where is the headquarter of [X]?"),
    *("Who was [X] created by?", "Which company is [X] produced by?"),
    *("What music label is [X] represented by?", "Which language was [X] written in?"),
    *("What position does [X] play?", "Which country was [X] created in?"),
    *("Where was [X] founded?", "What is [X] famous for?"),
)
"""Questions of EntityQuestions' 24 relations, from its authors' templates."""

_ASKS = [re.compile(re.escape(q).replace(re.escape("[X]"), "(.+)")) for q in QUESTIONS]

NOT_PRINTED = "PopQA's in the paper, appendix B; it prints none for this set"


def popqa_row(row: Mapping[str, Any]) -> Example:
    """Convert `question`, `obj`, `possible_answers` (JSON list as text) and, if given, `subj`."""
    prompt = PROMPT.format(question=text_in(row, "question"))
    target = text_in(row, "obj")
    return answered(prompt, target, texts_in(row, "possible_answers"), row.get("subj"))


def triviaqa_row(row: Mapping[str, Any]) -> Example:
    """Convert `question` and `answer` (`value`, `aliases`); official files write `Question` etc.

    Source: Joshi et al. (2017); the hub's columns are the official ones in lower case.
    """
    official = "Question" in row
    question = text_in(row, "Question" if official else "question")
    answer = field_in(row, "Answer" if official else "answer")
    if not isinstance(answer, dict):
        raise RowError("the answer is not an object with a value and aliases")
    target = text_in(answer, "Value" if official else "value")
    aliases = texts_in(answer, "Aliases" if official else "aliases")
    return answered(TRIVIAQA_PROMPT.format(question=question), target, aliases)


def entityquestions_row(row: Mapping[str, Any]) -> Example | None:
    """Convert `question` and `answers`; the first answer is the target."""
    question = text_in(row, "question")
    return _first(question, texts_in(row, "answers"), entity_of(question))


def entity_of(question: str) -> str:
    """Return the entity that a question of EntityQuestions asks about; empty if ambiguous.

    Source: `relation_query_templates.json` (Sciavolino et al., 2021) has one question a relation.
    Those of two relations can be the same ("Where is … located?"), but then so is the entity.
    """
    found = {match[1] for asks in _ASKS if (match := asks.fullmatch(question))}
    return found.pop() if len(found) == 1 else ""


def webqa_row(row: Mapping[str, Any], *, unanswered: bool = False) -> Example | None:
    """Convert `question` and `answers`; upstream `utterance` and `targetValue`, a Lisp list.

    A question without an answer is left out, or with `unanswered` gets an empty target, as in the
    paper's published code.
    """
    if "targetValue" in row:
        question = text_in(row, "utterance")
        answers = _descriptions(text_in(row, "targetValue"))
    else:
        question = text_in(row, "question")
        answers = texts_in(row, "answer" if "answer" in row else "answers")
    if unanswered and not answers:
        return Example(PROMPT.format(question=question), "")
    return _first(question, answers)


def _webqa(source: Source, request: Request) -> Found:
    row = partial(webqa_row, unanswered=request.unanswered)
    return read(source, request, row, ("*train*",))


def _first(question: str, answers: tuple[str, ...], subject: str = "") -> Example | None:
    """Build the example, or None without an answer: every empty prediction would be right."""
    prompt = PROMPT.format(question=question)
    return answered(prompt, answers[0], answers, subject) if answers else None


def _descriptions(value: str) -> tuple[str, ...]:
    """Parse the answers: `(list (description "A B") (description C))` → `("A B", "C")`."""
    found = re.findall(r'\(description (?:"((?:[^"\\]|\\.)*)"|([^\s()"]+))\)', value)
    if not found:
        raise RowError("'targetValue' is not a (list (description …))")
    return tuple(re.sub(r"\\(.)", r"\1", quoted) or bare for quoted, bare in found)


def _entityquestions(source: Source, request: Request) -> Found:
    relation = request.subset or "P*"
    files = (f"{relation}.train.json", f"{relation}.*.json")
    return read(source, request, entityquestions_row, files)


POPQA = Source(
    name="popqa",
    kind="factoid",
    loader=published(popqa_row, "*.tsv", "*.jsonl", "*.parquet"),
    licence="MIT",
    prompt=PROMPT,
    prompt_from="the paper, appendix B",
    rows=14_267,
    hub=Hub("akariasai/PopQA", split="test"),
    upstream="popQA.tsv, or JSONL or Parquet with the hub's columns",
)

TRIVIAQA = Source(
    name="triviaqa",
    kind="factoid",
    loader=published(triviaqa_row, "unfiltered-web-train.json", "train-*.parquet"),
    licence="Apache-2.0",
    prompt=TRIVIAQA_PROMPT,
    prompt_from="the paper, appendix B",
    rows=87_622,
    hub=Hub("mandarjoshi/trivia_qa", "unfiltered.nocontext"),
    upstream="unfiltered-web-train.json, or the hub's Parquet",
    note="the licence is that of the authors' repository; the hub's card says unknown",
)

ENTITYQUESTIONS = Source(
    name="entityquestions",
    kind="factoid",
    loader=_entityquestions,
    licence="MIT",
    prompt=PROMPT,
    prompt_from=NOT_PRINTED,
    rows=176_560,
    download="download https://nlp.cs.princeton.edu/projects/entity-questions/dataset.zip",
    upstream="dataset/train/P*.train.json",
    subsets=tuple(
        f"P{number}"
        for number in (
            *(17, 19, 20, 26, 36, 40, 50, 69, 106, 112, 127, 131),
            *(136, 159, 170, 175, 176, 264, 276, 407, 413, 495, 740, 800),
        )
    ),
    note="subset: one relation, by its Wikidata property; without one, all of them",
)

WEBQA = Source(
    name="webqa",
    kind="factoid",
    loader=_webqa,
    licence="unknown",
    prompt=PROMPT,
    prompt_from=NOT_PRINTED,
    rows=3_778,
    hub=Hub("stanfordnlp/web_questions"),
    upstream="webquestions.examples.train.json, or the hub's columns as JSONL or Parquet",
    note="WebQuestions; the target is the first answer, questions without one are left out",
)
