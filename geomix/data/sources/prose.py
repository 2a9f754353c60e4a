"""Plain English passages generated from patterns: generic mixing data without a download."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from geomix.data.example import Example
from geomix.data.sources.base import Found, Request, Source
from geomix.data.sources.passages import FROM, PROMPT, completion
from geomix.data.split import Split, split_of

_SLOTS: dict[str, tuple[str, ...]] = {
    "who": (
        *("the baker", "the old sailor", "the teacher", "a young doctor", "the gardener"),
        *("the mayor", "a travelling painter", "the miller", "a quiet student", "the shepherd"),
        *("the captain", "a clock maker", "the librarian", "her brother", "the neighbour"),
    ),
    "where": (
        *("the harbour", "the market square", "the old bridge", "the mill", "the library"),
        *("the edge of the forest", "the railway station", "the garden", "the river bank"),
        *("the lighthouse", "the school", "the village inn", "the northern gate", "the hill"),
    ),
    "when": (
        *("In the morning", "Late in the autumn", "After the storm", "On the first warm day"),
        *("Before the snow came", "Every Sunday", "When the bells rang", "That evening"),
        *("In the second year", "At the end of the summer", "Soon after midnight"),
    ),
    "thing": (
        *("a wooden box", "an old map", "a letter", "a basket of apples", "a silver coin"),
        *("a broken lamp", "a blue coat", "a small boat", "a bundle of papers", "a brass key"),
        *("a loaf of bread", "a painting", "a pair of boots", "a jar of honey", "a violin"),
    ),
    "kind": (
        *("quiet", "bright", "narrow", "crowded", "cold", "dusty", "green", "wide", "strange"),
        *("cheerful", "empty", "windy", "peaceful", "noisy"),
    ),
    "event": (
        *("the rain stopped", "the ferry arrived", "the fair was opened", "the lamps were lit"),
        *("the harvest failed", "the road was mended", "a stranger knocked at the door"),
        *("the river froze", "the election was held", "the roof was repaired", "a dog barked"),
    ),
    "view": (
        *("nobody was surprised", "most people were glad", "few believed it at first"),
        *("it was soon forgotten", "the price of grain rose", "the children laughed"),
        *("work began again", "the story spread quickly", "the council said nothing"),
    ),
    "number": ("two", "three", "four", "five", "seven", "nine", "a dozen", "twenty", "forty"),
}

_SENTENCES = (
    "{when} {who} walked to {where} with {thing}.",
    "{when} {event}, and {view}.",
    "There were {number} houses near {where}, each of them {kind} and {kind}.",
    "It was a {kind} place, and {who} had lived there for {number} years.",
    "{when} {who} sold {thing} to {who} for {number} coins.",
    "Nobody knew why {who} had left {thing} at {where}.",
    "As soon as {event}, {who} returned to {where}.",
    "The way from {where} to {where} was {kind}, and it took {number} hours.",
    "{who} said that {event} because {view}.",
    "Although {event}, {who} stayed at {where} and waited.",
    "{when} one could see {where} from {where}, if the air was clear.",
    "For {number} days {who} looked for {thing}, but {view}.",
    "The people who lived near {where} still remember how {event}.",
    "{who} had learned the trade from {who}, who kept {thing} in a {kind} room.",
    "What had once been a {kind} street was now {kind}, for {event}.",
    "Between {where} and {where} stood {number} trees, and under one of them lay {thing}.",
)


def sentences(rng: Random) -> Iterator[str]:
    """Yield sentences without end, with each slot drawn anew."""
    while True:
        parts = rng.choice(_SENTENCES).split("{")
        text = parts[0]
        for part in parts[1:]:
            slot, _, rest = part.partition("}")
            text += rng.choice(_SLOTS[slot]) + rest
        yield text[0].upper() + text[1:]


def examples(count: int, words: int, seed: int, split: Split) -> list[Example]:
    """Draw passages whose first `words` words are the prompt and whose next ones are the target.

    The splits share no passage. A larger `count` begins with the smaller one's examples. If `words`
    is so small that hardly any new passage can be drawn, there are fewer.

    Args:
        count: how many.
        words: words of the prompt, and of the target.
        seed: seed of the generator.
        split: which of the disjoint splits.
    """
    rng = Random(f"prose {seed}")  # noqa: S311
    found: dict[str, Example] = {}
    for _ in range(1000 + 20 * count):
        if len(found) == count:
            break
        text = ""
        for sentence in sentences(rng):
            text += sentence + " "
            if text.count(" ") >= 2 * words:
                break
        example = completion(text, words)
        if example is not None and split_of(example.prompt) == split:
            found.setdefault(example.prompt, example)
    return list(found.values())


def _load(source: Source, request: Request) -> Found:
    found = examples(request.count, request.words, request.seed, request.split)
    among = f" (different passages of {request.words} words; give words: more of them)"
    return Found(found, f"data source '{source.name}'", among)


SOURCE = Source(
    name="prose",
    kind="mixing",
    loader=_load,
    licence="none needed",
    prompt=PROMPT,
    prompt_from=FROM,
    note="sentences from patterns: plain English, but far fewer turns of phrase than real text",
)
