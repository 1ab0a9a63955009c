"""A document is redacted with one look if it can be, and then it is what it would be value by value."""

from __future__ import annotations

import copy
import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_audit.config.model import AuditConfig, RedactionConfig
from otel_audit.http.contents import Contents
from otel_audit.http.contents.documents import redacted
from otel_audit.redaction import Redactor

NAMES = [
    *(
        "id",
        "name",
        "password",
        "tokens",
        "api_key",
        "postcode",
        "card",
        "pin",
        "value",
        "key",
        "old",
        "note",
    ),
    *(
        "authorization",
        "clave",
        "lines",
        "form-0-pin",
        "x=password",
        "password=x",
        "é",
        "пароль",
        "--password",
    ),
]
TEXTS = [
    *("", "amber", "tea", "password=hunter2", "token: abc", "Bearer abcdef1234567890abcd", "-p", "--token=x"),
    *("4111 1111 1111 1111", "DE89370400440532013000", "code: 7", "a: b", "x\ny", "12.50", "shopping", "key"),
    *("2026-11-29T12:00:00Z", "Müller", "https://u:p@h/x", '{"password": "x"}', "curl -u a:b http://x", "7"),
]
NUMBERS = [0, -5, 7, 10**12, 4111111111111111, 2**63, 2**64 - 1, True, False, None, 1.5]
SCALARS = st.sampled_from(TEXTS) | st.sampled_from(NUMBERS) | st.text(max_size=12)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES), inside, max_size=5)
        | st.lists(st.fixed_dictionaries({"id": inside, "note": inside, "pin": inside}), max_size=4)
    ),
    max_leaves=30,
)
CONFIGURATIONS = [
    RedactionConfig(),
    RedactionConfig(allow=["card", "pin"]),
    RedactionConfig(names=["note"]),
    RedactionConfig(values=["tea"]),
    RedactionConfig(enabled=False),
]


@settings(max_examples=400, deadline=None)
@given(DOCUMENTS, st.sampled_from(CONFIGURATIONS))
def test_one_look_at_a_document_finds_what_a_look_at_each_value_does(
    document: Any, rules: RedactionConfig
) -> None:
    expected = Redactor(rules).field("", copy.deepcopy(document))
    redactor = Redactor(rules)
    assert redacted(copy.deepcopy(document), redactor) == expected
    assert redacted(document, redactor) == expected, "also when its names and texts are known"


CELLS = st.sampled_from([*TEXTS, *NUMBERS, "tea for two", "shopping 7", ["tea"], {"pin": 7}])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True).flatmap(
        lambda names: st.lists(
            st.fixed_dictionaries({name: st.just("tea 7") | CELLS for name in names}), min_size=8, max_size=12
        )
    ),
    st.sampled_from(CONFIGURATIONS),
)
def test_tables_are_redacted_column_by_column_as_row_by_row(
    rows: list[dict[str, Any]], rules: RedactionConfig
) -> None:
    document: Any = {"lines": rows}
    expected = Redactor(rules).field("", copy.deepcopy(document))
    redactor = Redactor(rules)
    assert redacted(copy.deepcopy(document), redactor) == expected
    assert redacted(document, redactor) == expected, "also when its names and texts are known"


@given(st.dictionaries(st.text(), st.integers(-9, 10**20) | st.text() | st.none() | st.lists(st.text())))
def test_a_document_that_fits_as_it_was_sent_fits_as_it_is_kept(document: dict[str, Any]) -> None:
    for sent in (json.dumps(document), json.dumps(document, ensure_ascii=False, indent=1)):
        try:
            content = sent.encode()
        except UnicodeEncodeError:
            continue
        body = Contents.of(AuditConfig()).body(content, "application/json", len(content))
        assert len(msgspec.json.encode(body.value)) <= len(content)


def test_a_text_that_only_looks_like_a_secret_leaves_the_document_as_it_is() -> None:
    document = {"postcode": "1234", "notes": ["Promo code: tea", "the key is under the mat"] * 9}
    redactor = Redactor(RedactionConfig())
    assert redacted(document, redactor) is document


def deep(levels: int) -> Any:
    inside: Any = "tea"
    for _ in range(levels):
        inside = {"a": inside}
    return inside


def test_what_is_too_deep_is_cut_before_a_sensitive_name_hides_it() -> None:
    body = json.dumps({"id": 7, "password": deep(30), "note": "a: b"}).encode()
    shown = Contents.of(AuditConfig()).body(body, "application/json", 8192)
    assert shown.value == {"id": 7, "password": "[redacted]", "note": "a: b"}
    assert shown.cut == "more than 24 levels"


def test_of_levels_as_many_as_are_read_nothing_is_cut() -> None:
    contents = Contents.of(AuditConfig())
    for levels, cut in ((24, ""), (25, "more than 24 levels")):
        shown = contents.body(json.dumps(deep(levels)).encode(), "application/json", 8192)
        assert shown.cut == cut
