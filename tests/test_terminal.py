"""Text that comes from files is printed without doing anything to the terminal."""

from __future__ import annotations

from geomix.terminal import ESCAPED, harmless


def test_what_would_act_on_a_terminal_is_shown_as_a_sign() -> None:
    acting = "\x00\x07\x08\x0d\x1b\x7f\x9b\u202e\u2066"
    assert harmless(f"a{acting}b") == f"a{ESCAPED * len(acting)}b"


def test_text_of_every_language_stays_as_it_is() -> None:
    text = "é 日本 שלום\u200f \u200d👩\u200d🔬\n\tx"
    assert harmless(text) == text
