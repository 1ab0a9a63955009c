"""Texts are searched by their words: what was seen before changes no answer, only how long it takes."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_audit.redaction.text.suspicions import may_hold_secret
from otel_audit.redaction.text.together import SEAM
from otel_audit.redaction.text.vocabulary import Vocabulary
from tests.redaction.test_shapes import CASES

PIECES = [
    *(
        "eyJ",
        "$",
        "private",
        "key",
        "bearer",
        "basic",
        "digest",
        "negotiate",
        "failing",
        "row",
        "auth",
        "AKIA",
    ),
    *(
        "Asia",
        "ATATT3",
        "_live_",
        "_v1_",
        "_v0_",
        "ghp_",
        "hf_",
        "sk-",
        "xoxb-",
        "glpat-",
        "sq0",
        "SG.",
        "ya29.",
    ),
    *("://", ":\\/", "@", "%40", "%2F", "%70", "%0A", "-" + "0f" * 16, ":1a2b3c:" + "x" * 43, "4111", "1111"),
    *(
        "=",
        ":",
        '"',
        "'",
        "--",
        ">",
        "|",
        "\n",
        " -",
        "\\",
        "&#",
        "lt;",
        "│",
        " is ",
        " was ",
        "\t",
        "\0",
        "\u00a0",
    ),
    *(
        "pass",
        "word",
        "pan",
        "tax",
        "cc",
        "number",
        "sig=",
        "duplicate",
        "entry",
        "already",
        "exists",
        "7z",
        "curl",
    ),
    *(
        "парол",
        "密码",
        "schlüs",
        "sel",
        "\\u00e4",
        "amber",
        "tea",
        "ß",
        "İ",
        "\ud800",
        "７z",
        " ",
        " ",
        "  ",
        ".",
        "_",
        "x" * 33,
        "-u",
    ),
]
texts = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join),
    st.sampled_from([text for text, _ in CASES]),
    st.text(max_size=40),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(texts, max_size=8))
def test_what_was_seen_before_changes_no_answer(some: list[str]) -> None:
    with mock.patch.object(Vocabulary, "may_hold", return_value=True):  # as if each text were searched whole
        expected = [may_hold_secret(text) for text in some]
    assert [may_hold_secret(text) for text in (*some, *some)] == expected * 2


@settings(max_examples=500, deadline=None)
@given(st.lists(texts, min_size=1, max_size=6), st.sampled_from(["1", "23", "tea 7", ""]))
def test_texts_that_are_alike_but_for_digits_change_no_answer(some: list[str], number: str) -> None:
    joined = SEAM.join([*some, *(text + number for text in some), *some])
    with mock.patch.object(Vocabulary, "may_hold", return_value=True):
        expected = may_hold_secret(joined)
    assert [may_hold_secret(joined) for _ in range(2)] == [expected] * 2


@pytest.mark.parametrize("text", [text for text, expected in CASES if text != expected])
def test_a_secret_is_suspected_also_among_words_that_are_known(text: str) -> None:
    for word in text.split():
        may_hold_secret(f"{word} is amber: tea")
    for around in (text, f"amber {text} tea", f"amber\n{text}\ntea " * 9):
        assert may_hold_secret(around)


class Search:
    """Finds what has the letters in it, and counts how often it is asked."""

    def __init__(self, letters: str) -> None:
        self.letters = letters
        self.calls = 0

    def __call__(self, words: str) -> bool:
        self.calls += 1
        return self.letters in words


def test_words_that_were_searched_are_not_searched_again() -> None:
    search = Search("cat")
    vocabulary = Vocabulary(search)
    assert not vocabulary.may_hold([b"dog", b"bird"])
    assert not vocabulary.may_hold([b"bird", b"bird", b"dog"])
    assert search.calls == 1
    assert not vocabulary.may_hold([b"dog", b"fish"])
    assert search.calls == 2


def test_a_word_with_something_in_it_is_known_by_itself() -> None:
    search = Search("cat")
    vocabulary = Vocabulary(search)
    assert vocabulary.may_hold([b"dog", b"wildcat"])
    calls = search.calls
    assert vocabulary.may_hold([b"wildcat"])
    assert not vocabulary.may_hold([b"dog"])
    assert search.calls == calls


def test_long_words_and_many_of_them_are_not_remembered() -> None:
    search = Search("cat")
    vocabulary = Vocabulary(search)
    long = b"dog" * 40
    for _ in range(2):
        assert not vocabulary.may_hold([long])
    assert search.calls == 2
    for number in range(20_000):
        assert not vocabulary.may_hold([b"dog%d" % number])
    assert not vocabulary.may_hold([b"dog1"])
    assert search.calls == 20_003, "the first ones were forgotten"
