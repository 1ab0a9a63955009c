"""The columns of bulk records: looked at as a whole, redacted as their cells are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from otel_audit.audit_record import Actor, AuditRecord, Bulk, Column
from otel_audit.config.model import RedactionConfig
from otel_audit.redaction import Redactor
from otel_audit.redaction.text.suspicions import may_hold_secret
from otel_audit.redaction.text.together import any_may_hold_secret
from tests.redaction.leaks import BY_SHAPE

CARD = "4111 1111 1111 1111"
SECRETS = (
    *BY_SHAPE.values(),
    CARD,
    CARD.replace(" ", ""),
    "DE89 3704 0044 0532 0130 00",
    "Bearer abcdefghij0123456789xyz",
    "Basic YTpiYw==",
    "password=hunter2",
    "пароль: hunter2",
    '{"token": "hunter2"}',
    "https://user:hunter2@host/",
    "Failing row contains (1, hunter2).",
)
# What could be taken for a secret together with a neighbour, or hide one.
PIECES = (
    "Bearer ", "abcdefghij0123456789", "4111 1111", "1111 1111", "4111", "1111", "passw", "ord=hunter2",
    "eyJ", "hbGciOiJIUzI1NiJ9", "key", "=", ":", "\n", "\0", "\0\0\0\0", "DE89", "3704", "Σ", "\u0301", "pan",
    "pana", "cc", "num", "", " ", "-", "--", "12.50", "2026-01-01T12:30:05.001000+00:00", "K", "ｐａｓｓ",
)  # fmt: skip


@pytest.fixture
def redactor() -> Redactor:
    return Redactor(RedactionConfig())


texts = st.one_of(
    st.sampled_from(PIECES), st.sampled_from(SECRETS), st.text(max_size=12), st.just("amber birch " * 60)
)
short_texts = st.one_of(st.sampled_from(["pw=x", "pin: 12", "cvc=123"]), st.text("pwin=:'>12. -", max_size=9))
numbers = st.one_of(
    st.integers(-5, 10**4), st.sampled_from([4111111111111111, 4111111111111112, 10**12]), st.floats()
)
structures = st.recursive(
    st.one_of(texts, numbers, st.none(), st.booleans(), st.just("[redacted]")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["name", "password", "id", "note", "password=x", "key", "value"]),
            inner,
            max_size=3,
        ),
        st.lists(st.sampled_from(["--password", "-p", "x"]), max_size=3),
        st.lists(st.tuples(st.sampled_from(["password", "accept"]), inner).map(list), max_size=2),
    ),
    max_leaves=8,
)
columns = st.one_of(
    *(
        st.lists(st.one_of(cell, st.none()), min_size=2, max_size=150)
        for cell in (texts, short_texts, numbers, structures)
    )
)


def bulk_of(redactor: Redactor, name: str, cells: list[Any], strategy: str | None = None) -> Column:
    bulk = Bulk(len(cells), [str(index) for index in range(len(cells))], [Column(name, new=cells)])
    record = AuditRecord(
        id="1",
        timestamp=0,
        observed_timestamp=0,
        event_name="a.b",
        action="UPDATE",
        actor=Actor("a"),
        bulk=bulk,
    )
    redacted = redactor.record(record, {} if strategy is None else {name: strategy}).bulk
    assert redacted is not None
    return redacted.columns[0]


@settings(max_examples=300, deadline=None)
@given(
    cells=columns,
    name=st.sampled_from(["note", "password", "row_id", "status"]),
    strategy=st.sampled_from([None, None, None, "keep", "mask", "keep_last:3"]),
    config=st.sampled_from(
        [
            RedactionConfig(),
            RedactionConfig(values=[r"amber \w+"]),
            RedactionConfig(names=["note"], allow=["password"]),
            RedactionConfig(enabled=False),
            RedactionConfig(personal_numbers=True),
        ]
    ),
)
def test_a_column_is_redacted_as_each_of_its_cells_is(
    cells: list[Any], name: str, strategy: str | None, config: RedactionConfig
) -> None:
    alone = [Redactor(config).field(name, cell, strategy) for cell in cells]
    assert repr(bulk_of(Redactor(config), name, cells, strategy).new) == repr(alone)


@pytest.mark.parametrize("position", [0, 63, 64, 150, 199])
@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))
def test_one_secret_is_found_wherever_it_stands_in_a_column(secret: str, position: int) -> None:
    cells: list[Any] = [f"Item {index} amber" for index in range(200)]
    cells[position] = secret
    redacted = bulk_of(Redactor(RedactionConfig(personal_numbers=True)), "note", cells).new
    assert isinstance(redacted, list)
    assert redacted[position] != secret
    del cells[position], redacted[position]
    assert redacted == cells


@settings(max_examples=300, deadline=None)
@given(st.lists(texts, max_size=6))
def test_what_is_suspected_of_one_text_is_suspected_of_all_together(some: list[str]) -> None:
    assert any_may_hold_secret(some) or not any(map(may_hold_secret, some))


MOMENTS = (
    "2026-01-41T12:30:05.001000+00:00",
    "2026-01-05T12:30:05",
    "2026-01-41",
    "2026-11-11T11:11:11+00:41",
)
numerals = st.one_of(
    st.sampled_from(MOMENTS),
    st.sampled_from(["4111", "1111", "41111111", "11", "1", "4111111111111111", "37144963", "5398431"]),
    st.text("0123456789T:.+-\0", max_size=8),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.lists(numerals, max_size=6).map("".join), max_size=3))
def test_a_card_number_is_suspected_among_numbers_and_moments(some: list[str]) -> None:
    redactor = Redactor(RedactionConfig())
    assert any_may_hold_secret(some) or all(redactor.text(text) == text for text in some)


def test_a_column_without_secrets_is_the_same_list(redactor: Redactor) -> None:
    for cells in (["amber", None], [1, 2], [{"a": ["b", 1]}, None], [1.5, UNSET]):
        assert bulk_of(redactor, "note", cells).new is cells


def calls(action: Callable[[], object]) -> int:
    """Count the Python functions of the package that are called."""
    count = 0

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        if event == "call" and "otel_audit" in frame.f_code.co_filename:
            count += 1

    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    "cells",
    [
        [f"Item {index} amber: birch" for index in range(1000)],
        [f"{index:04}" for index in range(1000, 2000)],  # in groups of four, as card numbers are
        [f"2026-01-01T12:30:05.{index:06}+00:00" for index in range(1000)],
        list(range(1000)),
        [index / 7 for index in range(1000)],
    ],
    ids=["texts", "groups of digits", "moments", "integers", "floats"],
)
def test_a_thousand_clean_cells_need_a_few_looks(cells: list[Any], redactor: Redactor) -> None:
    assert calls(lambda: bulk_of(redactor, "note", cells)) < 200


def test_one_secret_costs_a_closer_look_at_its_neighbours_only(redactor: Redactor) -> None:
    cells = [f"Item {index} amber" for index in range(1000)]
    cells[500] = f"card {CARD}"
    assert calls(lambda: bulk_of(redactor, "note", cells)) < 1000
