"""Nothing in a value can act on a terminal."""

from __future__ import annotations

import unicodedata

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from otel_audit.cli.output.safe import safe, safe_json, safe_lines

ACTING = {"Cc", "Cf", "Zl", "Zp", "Cs"}


@given(st.text(st.characters()))
def test_no_character_that_acts_or_hides_is_left(text: str) -> None:
    shown = safe(text)
    assert not [letter for letter in shown if unicodedata.category(letter) in ACTING - {"Cf"}]
    assert not [
        letter for letter in shown if unicodedata.bidirectional(letter) in {"LRE", "RLE", "LRO", "RLO", "PDF"}
    ]


@given(st.text())
def test_text_that_does_nothing_is_shown_as_it_is(text: str) -> None:
    harmless = "".join(
        letter for letter in text if unicodedata.category(letter)[0] in "LNPS" or letter == " "
    )
    assert safe(harmless) == harmless


def test_what_is_escaped_stays_readable() -> None:
    assert safe("\x1b[31mred\x07\n\t\x9b\u202e\U000e0041") == "\\x1b[31mred\\x07\\n\\t\\x9b\\u202e\\U000e0041"
    assert safe_lines("a\nb\x1b") == "a\nb\\x1b"


@given(st.dictionaries(st.text(), st.text() | st.lists(st.text())))
def test_json_is_the_same_value_on_one_harmless_line(value: dict[str, object]) -> None:
    line = safe_json(value)
    assert msgspec.json.decode(line) == value
    assert safe(line) == line
