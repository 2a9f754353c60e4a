"""Comparison of a predicted text with the accepted answers: pure functions on two texts.

Exact match and the final number of a solution are right or wrong; token F1 and ROUGE-L give partial
credit, 0 to 1 an example. A set's score is reported as 0 to 100 (`percent`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from string import punctuation

FINAL_MARK = "####"
"""Mark that GSM8K writes before the number that is the answer."""

_NO_PUNCTUATION = str.maketrans("", "", punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_ALPHANUMERICS = re.compile(r"[a-z0-9]+")
_NUMBER = re.compile(
    r"(?<!\w)"  # not within a word (CO2)
    r"(?P<sign>(?:(?<!\))[-−]\$?|\$[-−]?)?)"  # the hyphen of 10-5 or (a+b)-5 is no minus either
    r"(?P<digits>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
)


def normalise(text: str) -> str:
    """Normalise a text as the paper does before the comparison: stripped, in lower case."""
    return text.strip().lower()


def exact(prediction: str, target: str) -> bool:
    """Return whether two texts are equal once normalised; an empty text is never right.

    Source: the paper's exact match (appendix B). Its published code gives full marks to an empty
    answer where the target is empty; here there is nothing to recall, so nothing is right.
    """
    wanted = normalise(target)
    return wanted != "" and normalise(prediction) == wanted


def may_become(predicted: str, target: str) -> bool:
    """Return whether continuing the text so far could still give an exact match of the target.

    Never False where it could: letters are compared case-folded (`ς` and `σ` are one, whatever
    follows), white space is ignored (some tokenizers drop it again before a full stop), and so is
    everything from the first U+FFFD on, which may be a character whose last bytes are still to
    come.
    """
    wanted = _letters(target)
    return wanted != "" and wanted.startswith(_letters(predicted.split("\ufffd", maxsplit=1)[0]))


def _letters(text: str) -> str:
    return "".join(text.casefold().split())


def matches_any(prediction: str, answers: Iterable[str]) -> bool:
    """Return whether the prediction is an exact match of any accepted answer."""
    return any(exact(prediction, answer) for answer in answers)


def token_f1(prediction: str, answers: Iterable[str]) -> float:
    """Return the word overlap of prediction and answer: the best F1 over the answers, 0 to 1.

    Words are split at white space after lower-casing and removing ASCII punctuation and articles.
    Source: SQuAD's evaluation script (Rajpurkar et al. 2018, `compute_f1`), except for an answer
    that these leave empty (the band The The): there an exact match is 1, anything else 0.

    Args:
        prediction: the model's answer.
        answers: every accepted answer; none gives 0.
    """
    predicted = _squad_words(prediction)
    return max((_word_f1(prediction, predicted, answer) for answer in answers), default=0.0)


def _squad_words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def _word_f1(prediction: str, predicted: Sequence[str], answer: str) -> float:
    wanted = _squad_words(answer)
    if not predicted and not wanted:
        return float(exact(prediction, answer))
    return _f_measure((Counter(predicted) & Counter(wanted)).total(), len(predicted), len(wanted))


def _f_measure(common: int, predicted: int, wanted: int) -> float:
    """Return the harmonic mean of precision `common / predicted` and recall `common / wanted`."""
    return 2 * common / (predicted + wanted) if common else 0.0


def rouge_l(prediction: str, target: str) -> float:
    """Return the F-measure of the longest common subsequence of tokens, 0 to 1.

    Tokens are runs of a–z and 0–9 in the lower-cased text, without stemming, so a text of another
    script has none and scores 0. Source: Lin (2004); equal to `rougeL` of the package rouge-score
    0.1.2.
    """
    predicted, wanted = (_ALPHANUMERICS.findall(text.lower()) for text in (prediction, target))
    return _f_measure(common_subsequence(predicted, wanted), len(predicted), len(wanted))


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, one table row in one Python integer.

    Source: Hyyrö (2004), "Bit-parallel LCS-length computation revisited": bit i of `row` is zero
    where the length grows at `first[i]`.
    """
    positions: dict[str, int] = {}
    for index, token in enumerate(first):
        positions[token] = positions.get(token, 0) | (1 << index)
    every = (1 << len(first)) - 1
    row = every
    for token in second:
        matched = row & positions.get(token, 0)
        row = ((row + matched) | (row - matched)) & every
    return len(first) - row.bit_count()


def final_number(text: str) -> Decimal | None:
    """Return the number that a worked solution ends in, exactly; None if it has none.

    The first number after the last `####` if that mark occurs; else the last number of the text.
    Thousands separators, `$`, `%`, units and a full stop after it are ignored; a minus counts if it
    touches the number, or the `$` before it, and nothing precedes it that it could subtract from.
    Source: GSM8K (Cobbe et al. 2021), where every solution ends in `#### number`.
    """
    _, mark, after = text.rpartition(FINAL_MARK)
    numbers = [_value(found) for found in _NUMBER.finditer(after)]
    return numbers[0 if mark else -1] if numbers else None


def _value(found: re.Match[str]) -> Decimal:
    value = Decimal(found["digits"].replace(",", ""))
    return -value if found["sign"].strip("$") else value


def same_final_number(prediction: str, target: str) -> bool | None:
    """Return whether both end in the same number; None if the target has no `#### number`."""
    wanted = final_number(target) if FINAL_MARK in target else None
    return None if wanted is None else final_number(prediction) == wanted


def percent(scores: Iterable[float | None]) -> float | None:
    """Return the mean of the scores that are not None, 0 to 100; None if there are none."""
    known = [score for score in scores if score is not None]
    return 100.0 * sum(known) / len(known) if known else None
