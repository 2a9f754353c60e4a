"""Words of a text, and the entities of a fact: its subject and its accepted answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from unicodedata import normalize

from geomix.data.example import Example

Entity = tuple[str, ...]
"""The case-folded words of a name."""

SubjectRule = Literal["named", "guessed", "none"]
"""Whether the source names a fact's subject, it is guessed from the prompt, or there is no pair."""

MOST_WORDS = 20
"""An answer with more words than this is a text, not an entity."""

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
    """A text cut into words: runs of letters and digits, whatever stands between them.

    Attributes:
        text: the text, in Unicode's composed form (NFC).
        words: case-folded.
        spans: characters of `text` that each word covers, first and one past the last.
    """

    text: str
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]

    def stretch(self, first: int, end: int) -> str:
        """The text from word `first` up to word `end`, which is not part of it."""
        return self.text[self.spans[first][0] : self.spans[end - 1][1]]


def words_of(text: str) -> Words:
    """Cut a text into words. Text without spaces between its words (Chinese) is one word."""
    text = normalize("NFC", text)
    found = list(_WORD.finditer(text))
    return Words(text, tuple(m[0].casefold() for m in found), tuple(m.span() for m in found))


def whole_text(example: Example) -> str:
    """Everything that is said in an example: earlier exchanges, prompt and target."""
    earlier = (text for exchange in example.earlier for text in exchange)
    return " ".join((*earlier, example.prompt, example.target))


def entities_of(example: Example) -> tuple[SubjectRule, tuple[Entity, ...], tuple[Entity, ...]]:
    """How the subject was found, its names and the answers; no names or answers under `none`.

    A guessed subject that is one of the answers is left out: it would be a pair on its own.
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
    """Each name as words, once; what has no letter or digit is left out."""
    return tuple(dict.fromkeys(words for name in names if (words := words_of(name).words)))


def guessed_subjects(prompt: str) -> tuple[str, ...]:
    """What a question may be about: quoted texts, and longest runs of capitalised words or numbers.

    The first word of a sentence counts only where the run goes on after it, and no question word
    or preposition does there; the words of a template ("Question:", "The answer is:") never do.
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
    """The run as written, without the words that are capitalised for opening a sentence only."""
    names = list(run)
    while opens and names and names[0][0].casefold() in _OPENERS:
        names = names[1:]
    alone = opens and len(names) == len(run) == 1 and names[0][0].isalpha()
    if names and not alone:
        yield text[names[0].start() : names[-1].end()]
