"""Words of a text, and the entities of a fact: its subject and its accepted answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from unicodedata import normalize

from geomix.data.example import Example

Entity = tuple[str, ...]
"""Case-folded words of a name."""

SubjectRule = Literal["named", "guessed", "none"]
"""Origin of a fact's subject: named by the source, guessed from the prompt, or no entity pair."""

MOST_WORDS = 20
"""Most words of an answer that counts as an entity; longer ones are texts."""

_WORD = re.compile(r"[^\W_]+")
_TEMPLATE = re.compile(
    r"\A\s*(?:question|q|fill in the blank)\s*:|\b(?:the answer is|answer|a)\s*:\s*\Z",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"(?<!\w)(?:\"(.{1,200}?)\"|“(.{1,200}?)”|‘(.{1,200}?)’|'(.{1,200}?)')(?!\w)")
_WITHIN_NAME = re.compile(r"[ \-–'’&]{1,3}")
_AFTER_ABBREVIATION = re.compile(r"\.[ -]?")
_ENDS_SENTENCE = re.compile(r"[.?!:;\n]")
_ABBREVIATION = 3  # letters of J., St., Mrs.

# Words that begin a sentence with a capital and belong to no name after them: "In Paris, who …".
_OPENERS = frozenset(
    (
        *("what", "which", "who", "whom", "whose", "where", "when", "why", "how"),
        *("in", "on", "at", "from", "to", "of", "by", "for", "with", "during", "after", "before"),
        *("is", "are", "was", "were", "did", "does", "do", "has", "have", "had", "can", "could"),
        *("under", "name", "if", "as", "and"),
    )
)


@dataclass(frozen=True, slots=True)
class Words:
    """A text split into words: runs of letters and digits, whatever separates them.

    Attributes:
        text: the text, in Unicode's composed form (NFC).
        words: case-folded.
        spans: characters of `text` that each word covers, first and one past the last.
    """

    text: str
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]

    def stretch(self, first: int, end: int) -> str:
        """Return the text from word `first` up to, but not including, word `end`."""
        return self.text[self.spans[first][0] : self.spans[end - 1][1]]


def words_of(text: str) -> Words:
    """Split a text into words. Text without spaces between its words (Chinese) is one word."""
    text = normalize("NFC", text)
    found = list(_WORD.finditer(text))
    return Words(text, tuple(m[0].casefold() for m in found), tuple(m.span() for m in found))


def whole_text(example: Example) -> str:
    """Return an example's whole text: earlier exchanges, prompt and target."""
    earlier = (text for exchange in example.earlier for text in exchange)
    return " ".join((*earlier, example.prompt, example.target))


def entities_of(example: Example) -> tuple[SubjectRule, tuple[Entity, ...], tuple[Entity, ...]]:
    """Return the rule for the subject, its names and the answers; both are empty under `none`.

    A guessed subject that equals one of the answers is left out: it would be a pair by itself.
    """
    answers = _entities((example.target, *example.aliases))
    answers = tuple(answer for answer in answers if len(answer) <= MOST_WORDS)
    rule: SubjectRule = "named"
    subjects = _entities((example.subject,))
    if not subjects:
        rule = "guessed"
        guessed = _entities(guessed_subjects(example.prompt))
        subjects = tuple(subject for subject in guessed if subject not in answers)
    return (rule, subjects, answers) if subjects and answers else ("none", (), ())


def _entities(names: tuple[str, ...]) -> tuple[Entity, ...]:
    """Return the words of each distinct name; names without a letter or digit are left out."""
    return tuple(dict.fromkeys(words for name in names if (words := words_of(name).words)))


def guessed_subjects(prompt: str) -> tuple[str, ...]:
    """Guess the subjects of a question: quoted texts, and runs of capitalised words or numbers.

    The first word of a sentence counts only if the run continues after it, and no question word or
    preposition does there; the words of a template ("Question:", "The answer is:") never do.
    """
    question = _TEMPLATE.sub("\n", prompt)
    quoted = tuple(next(filter(None, found.groups())) for found in _QUOTED.finditer(question))
    runs = _runs(_QUOTED.sub("|", question))
    return (*quoted, *runs)


def _runs(text: str) -> Iterator[str]:
    run: list[re.Match[str]] = []
    opens = False  # whether the run began a sentence
    before = None
    for word in _WORD.finditer(text):
        gap = text[before.end() if before else 0 : word.start()]
        short = before is not None and before[0][0].isupper() and len(before[0]) <= _ABBREVIATION
        abbreviated = short and _AFTER_ABBREVIATION.fullmatch(gap) is not None
        before = word
        named = word[0][0].isupper() or any(character.isdigit() for character in word[0])
        if named and run and (abbreviated or _WITHIN_NAME.fullmatch(gap)):
            run.append(word)
            continue
        yield from _name(text, run, opens=opens)
        first = word.start() == len(gap) or _ENDS_SENTENCE.search(gap) is not None
        run, opens = ([word] if named else []), first
    yield from _name(text, run, opens=opens)


def _name(text: str, run: list[re.Match[str]], *, opens: bool) -> Iterator[str]:
    """Yield the run as written, without words capitalised only because they open a sentence."""
    names = list(run)
    while opens and names and names[0][0].casefold() in _OPENERS:
        names = names[1:]
    alone = opens and len(names) == len(run) == 1 and names[0][0].isalpha()
    if names and not alone:
        yield text[names[0].start() : names[-1].end()]
