"""What a caller asks becomes SQL: values as parameters only, nonsense refused with what is valid."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_audit.errors import QueryError
from otel_audit.store.filters import Filters, read_cursor, select, trace_id, write_cursor
from otel_audit.store.query import AuditStore

ID = "019ab3c2-7d1e-7c41-9f0a-51d2a90b3f7e"
HOSTILE = "x' OR 1=1 -- {p0:String}"


@given(st.text(min_size=1).filter(lambda text: text.strip()))
def test_no_value_becomes_part_of_the_sql(value: str) -> None:
    marked = f"\u2603{value}\u2603"  # a mark no SQL of ours has
    filters = Filters(
        actor=marked,
        target=f"shop.Order/{marked}",
        action=marked.replace(",", ""),
        field=f"{marked}={marked}",
        request_id=marked,
        text=marked,
        log=marked,
        tenant=marked,
    )
    sql, parameters = select("otel", filters, rows=10)
    assert "\u2603" not in sql
    assert "\u2603" in str(parameters)


def test_every_placeholder_has_its_parameter() -> None:
    filters = Filters(
        actor=HOSTILE, target=f"shop.Order/{HOSTILE}", text="two words", since="1h", until="now"
    )
    sql, parameters = select("otel", filters, rows=10, cursor=write_cursor(5, ID), related=True)
    assert set(re.findall(r"\{(p\d+):", sql)) == parameters.keys()


def test_rows_of_bulk_records_answer_only_where_they_can_differ_from_their_record() -> None:
    for filters in (Filters(), Filters(actor="ana"), Filters(target="shop.Order"), Filters(field="price")):
        assert "ordinal = 0" in select("otel", filters, rows=1).sql
    for filters in (Filters(target="shop.Order/7"), Filters(field="price=1")):
        assert "ordinal = 0" not in select("otel", filters, rows=1).sql


def test_a_question_looks_for_strays_once_however_many_tables_it_reads() -> None:
    """Each look costs the engine as much as another column of every table."""
    for log, read in ((None, 1), ("activity,audit", 2), ("*", 3)):
        sql, parameters = select("otel", Filters(log=log, actor="ana"), rows=10, others=False, related=True)
        assert len(re.findall(r"FROM otel\.(?!other)\w+_events", sql)) == read
        assert sql.count("FROM otel.other_events") == 1
        assert set(re.findall(r"\{(p\d+):", sql)) == parameters.keys()


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(outcome="fail"), "valid are success, failure, unknown"),
        (Filters(since="soon"), "2 hours ago"),
        (Filters(since="1h", until="2h"), "so the range is empty"),
        (Filters(trace_id="12"), "32 hexadecimal digits"),
        (Filters(target="/7"), "shop.Order/7"),
        (Filters(target="shop.*/7"), "a pattern and an id"),
        (Filters(target=" "), "target is empty"),
        (Filters(field=""), "field is empty"),
        (Filters(action="CREATE,,"), "action is empty"),
        (Filters(text="!"), "at least one letter or digit"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_is_valid(filters: Filters, expected: str) -> None:
    with pytest.raises(QueryError) as refused:
        select("otel", filters, rows=10, now=1_800_000_000 * 10**9)
    assert expected in str(refused.value)


@pytest.mark.parametrize("limit", [0, -1, 10_001])
def test_limits_outside_of_what_a_page_can_hold_are_refused(limit: int) -> None:
    with pytest.raises(QueryError, match="from 1 to 10000"):
        AuditStore("http://127.0.0.1:1").query(limit=limit)


def test_trace_ids_are_taken_as_people_have_them() -> None:
    plain = "4bf92f3577b34da6a3ce929d0e0e4736"
    for text in (plain, plain.upper(), f"0x{plain}", f"00-{plain}-00f067aa0ba902b7-01", f" {plain}\n"):
        assert trace_id(text) == plain


def test_cursor_carries_time_and_id() -> None:
    assert read_cursor(write_cursor(1_700_000_000_123_456_789, ID)) == (1_700_000_000_123_456_789, ID)


@pytest.mark.parametrize("moment", [2**63, -(2**63) - 1, -(10**30)])
def test_a_cursor_of_no_time_the_store_can_hold_is_refused(moment: int) -> None:
    with pytest.raises(QueryError, match="copy it unchanged from the previous page"):
        read_cursor(write_cursor(moment, ID))


@given(st.text())
def test_any_other_text_is_refused_as_cursor(text: str) -> None:
    with pytest.raises(QueryError, match="copy it unchanged from the previous page"):
        read_cursor(text)
