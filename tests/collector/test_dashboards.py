"""Grafana's dashboards: every query against the real store, through the driver of Grafana's data source."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from otel_audit.audit_record import Actor, Bulk, Change, Column, Sequence, Source, Target
from otel_audit.store.client import StoreClient
from tests.collector.dashboards import (
    STORE,
    Answer,
    Query,
    Range,
    ask,
    chosen,
    expand,
    queries,
)
from tests.trail import land, land_span, record, serving

SECOND = 10**9
NOW = time.time_ns() - 60 * SECOND
SHOWN = Range(NOW // SECOND - 1800, NOW // SECOND + 86_400)
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ORDER = "shop.Order/17"
NASTY = "o'Brien\\' OR 1=1 -- \"$__timeFilter(x)\" ${log} {a:b} 100% é\n"
CHOSEN = {"object": ORDER, "trace": TRACE, "stream": "gappy"}
"""What somebody has chosen who looks at one object, trace and stream."""

EXPECTED: Mapping[str, list[Mapping[str, Any]]] = {
    "trail: In this time": [
        {"records": 11, "failed": 2, "requests denied": 1, "logins failed": 1, "bulk writes": 1, "actors": 4}
    ],
    "trail: Newest records": [
        {"actor": NASTY, "action": "DELETE", "target": "shop.Order/99"},
        {"actor": "7", "name": "ann", "fields": "state, note, total", "target": ORDER, "trace": TRACE},
    ],
    "trail: Busiest actors": [{"actor": "7", "name": "ann", "records": 4, "failed": 1}],
    "trail: Objects touched most": [{"target": "shop.Order", "records": 1}, {"target": ORDER, "records": 1}],
    "trail: Failed and denied": [
        {"event": "http.request.denied", "error": "permission_denied"},
        {"event": "user.login.failure", "address": "198.51.100.9"},
    ],
    "trail: Failed logins by address": [
        {"address": "198.51.100.9", "failed": 1, "succeeded": 1, "names": 1, "such as": "root"}
    ],
    "trail: Bulk writes": [{"type": "shop.Order", "rows": 2, "completeness": "full", "fields": "state"}],
    "trail: Changes of the object": [
        {"field": "note", "old value": "NULL", "new value": "it's", "in bulk": ""},
        {"field": "state", "old value": "open", "new value": "paid", "in bulk": ""},
        {"field": "total", "old value": "(not known)", "new value": "12.50", "in bulk": ""},
        {"field": "state", "old value": "new", "new value": "open", "in bulk": "yes"},
        {"action": "MAIL", "field": "", "old value": "", "new value": ""},
    ],
    "trail: Spans of the trace": [
        {"operationName": "POST /orders/{id}", "parentSpanID": "", "statusCode": 0, "duration": 25},
        {"operationName": "UPDATE shop_order", "parentSpanID": "00f067aa0ba902b7", "statusCode": 2},
    ],
    "trail: Records of the trace": [
        {"log": "activity", "action": "MAIL"},
        {"log": "audit", "target": ORDER, "actor": "7"},
        {"log": "pageview", "action": "VIEW"},
    ],
    "trail: variable actor": [{"actor_id": "7"}, {"actor_id": NASTY}],
    "trail: variable service": [{"service": "shop"}],
    "trail: variable outcome": [{"outcome": "success"}, {"outcome": "failure"}],
    "trail: variable target_type": [{"target_type": "shop.Order"}],
    "delivery: In this time": [{"streams": 4, "numbers missing": 3}],
    "delivery: Newest record of each service": [{"service": "billing", "log": "audit", "streams": 1}],
    "delivery: Streams with numbers missing": [
        {"stream": "gappy", "service": "billing", "missing": 3, "first": 1, "last": 7}
    ],
    "delivery: Numbers missing in a stream: ${stream}": [
        {"first missing": 2, "last missing": 3, "missing": 2},
        {"first missing": 6, "last missing": 6, "missing": 1},
    ],
    "delivery: Open streams": [{"stream": "gappy", "last": 7}, {"stream": "shop-audit"}],
    "delivery: Records of logs without tables of their own": [{"log": "cinema", "service": "shop"}],
    "delivery: Tables": [{"table": "audit_events"}, {"table": "otel_traces"}],
}
"""Rows that a panel must have, in this order, among others: of each the values that tell it."""


def fill(store: StoreClient) -> None:
    """Write a small trail: changes, a bulk update, failures, logins, several logs, a gap, a span."""
    numbers = itertools.count(1)
    moment = (NOW + tick * SECOND for tick in itertools.count())
    ann, visitor = Actor("7", "user", "ann"), Actor()
    here, there = Source("203.0.113.4"), Source("198.51.100.9")

    def place(stream: str, number: int = 0, *, end: bool = False) -> dict[str, Sequence]:
        return {"sequence": Sequence(stream, number or next(numbers), end=end)}

    traced = {"trace_id": TRACE, "span_id": "00f067aa0ba902b7"}
    land(
        store,
        [
            record(
                "shop.order.bulk_update",
                "UPDATE",
                at=next(moment),
                actor=ann,
                target=Target("shop.Order"),
                message="2 orders opened",
                bulk=Bulk(2, ["17", "18"], [Column("state", ["new", "new"], ["open", "open"])]),
                **place("shop-audit"),
            ),
            record(
                "user.login.failure",
                "LOGIN",
                at=next(moment),
                actor=visitor,
                target=Target("user.name", "root"),
                outcome="failure",
                error="authentication_failed",
                source=there,
                **place("shop-audit"),
            ),
            record(
                "user.login.success",
                "LOGIN",
                at=next(moment),
                actor=ann,
                target=Target("auth.User", "7"),
                source=there,
                **place("shop-audit"),
            ),
            record(
                "http.request.denied",
                "ACCESS",
                at=next(moment),
                actor=ann,
                target=Target("http.route", "/staff/"),
                outcome="failure",
                error="permission_denied",
                source=here,
                **place("shop-audit"),
            ),
            record(
                "shop.customer.create",
                "CREATE",
                at=next(moment),
                actor=Actor("importer", "service"),
                target=Target("shop.Customer", "1"),
                **place("shop-audit"),
            ),
            record(
                "shop.order.update",
                "UPDATE",
                at=next(moment),
                actor=ann,
                target=Target("shop.Order", "17"),
                changes=[
                    Change("state", "open", "paid"),
                    Change("note", None, "it's"),
                    Change("total", new="12.50", type="decimal"),
                ],
                message="Order 17 was paid",
                **traced,
                **place("shop-audit"),
            ),
            record(
                "shop.order.delete",
                "DELETE",
                at=next(moment),
                actor=Actor(NASTY, "user"),
                target=Target("shop.Order", "99"),
                **place("shop-audit"),
            ),
            record(
                "shop.mail.sent",
                "MAIL",
                at=NOW - 5 * SECOND,
                log="activity",
                actor=ann,
                target=Target("shop.Order", "17"),
                **(traced | {"span_id": ""}),
                **place("shop-activity", 1),
            ),
            record(
                "audit.stream.end",
                "STREAM",
                at=next(moment),
                log="activity",
                **place("shop-activity", 2, end=True),
            ),
            record(
                "shop.order.view",
                "VIEW",
                at=next(moment),
                log="pageview",
                actor=ann,
                target=Target("shop.Order", "17"),
                **traced,
                **place("shop-pageview", 1),
            ),
            record("cinema.film.shown", "SHOW", at=next(moment), log="cinema", actor=ann),
        ],
    )
    gappy = [
        record("billing.invoice.create", "CREATE", at=NOW - 60 * SECOND + number, **place("gappy", number))
        for number in (1, 4, 5, 7)
    ]
    land(store, gappy, service="billing")
    land(store, [gappy[2]], service="billing")  # sent again
    for span, parent, name, status, start, milliseconds in (
        ("00f067aa0ba902b7", "", "POST /orders/{id}", "Ok", 0, 25),
        ("b7ad6b7169203331", "00f067aa0ba902b7", "UPDATE shop_order", "Error", 5, 3),
    ):
        land_span(
            store,
            Timestamp=f"{NOW // SECOND}.{start * 1_000_000:09d}",
            TraceId=TRACE,
            SpanId=span,
            ParentSpanId=parent,
            SpanName=name,
            ServiceName="shop",
            Duration=milliseconds * 1_000_000,
            StatusCode=status,
            SpanAttributes={"http.request.method": "POST"},
        )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A store with the trail in it; its address."""
    with serving(tmp_path_factory.mktemp("dashboards")) as server:
        client = StoreClient(server.clickhouse)
        fill(client)
        client.close()
        yield server.clickhouse


@pytest.fixture(scope="module")
def answers(store: str) -> dict[str, Answer]:
    """What the store answers to every query, once an object, a trace and a stream are chosen."""
    asked = list(queries(STORE))
    statements = [expand(each.text, chosen(each.dashboard) | CHOSEN, SHOWN) for each in asked]
    return {each.name: answer for each, answer in zip(asked, ask(store, statements), strict=True)}


@pytest.mark.parametrize("query", [*queries(STORE)], ids=lambda query: query.name)
def test_a_query_gives_the_columns_its_panel_draws_and_the_rows_of_the_trail(
    query: Query, answers: dict[str, Answer]
) -> None:
    """With what clickhouse-go makes of the store's answer, since that is what Grafana gets."""
    columns, rows = answers[query.name]
    assert rows, "no rows"
    draws(query, columns)
    remaining = iter(rows)
    for expected in EXPECTED.get(query.name, []):
        assert any(expected.items() <= row.items() for row in remaining), f"no row {expected} in {rows}"


def test_a_record_that_was_sent_twice_is_told_apart(answers: dict[str, Answer]) -> None:
    """Until the engine has merged its two rows, which it does when it likes."""
    (row,) = answers["delivery: In this time"].rows
    assert row["sent twice, not merged yet"] in (0, 1)
    assert row["records stored"] - row["sent twice, not merged yet"] == 15


def test_every_record_is_listed_once(answers: dict[str, Answer]) -> None:
    """Also the one that was sent twice, and the one that has rows of its own."""
    listed = [row["record"] for row in answers["trail: Newest records"].rows]
    assert len(listed) == len(set(listed)) == 11


def draws(query: Query, columns: Mapping[str, str]) -> None:
    """Fail if a panel does not find the columns it needs, or one of a type Grafana shows as JSON."""
    plain = re.compile(
        r"String|LowCardinality\(String\)|U?Int\d+|Nullable\(Int64\)|Float64|DateTime(64)?(\(.*\))?"
    )
    assert all(plain.fullmatch(kind) for name, kind in columns.items() if name not in ("tags", "serviceTags"))
    numeric = {name for name, kind in columns.items() if re.match(r"(?:Nullable\()?(?:U?Int|Float)", kind)}
    if query.kind == "variable":
        assert list(columns.values()) in (["String"], ["LowCardinality(String)"])  # one: both name and value
    elif query.kind == "timeseries":
        (moment, kind), *rest = columns.items()
        assert moment == "time"
        assert kind.startswith("DateTime")
        assert [name in numeric for name, _ in rest] == [False, True]
    elif query.kind == "stat":
        assert set(columns) == numeric
    elif query.kind == "traces":
        assert set(columns) >= {"traceID", "spanID", "parentSpanID", "serviceName", "operationName"}
        assert {"startTime", "duration", "statusCode"} <= numeric
        assert columns["tags"] == columns["serviceTags"] == "Array(Map(String, String))"
    else:
        assert query.kind == "table"
    if query.kind in ("table", "stat"):
        named = {each["matcher"]["options"] for each in query.panel["fieldConfig"]["overrides"]}
        assert named <= set(columns), "an override for a column there is not"


def test_every_expected_row_belongs_to_a_query() -> None:
    """A panel that was renamed must not lose its test."""
    assert set(EXPECTED) <= {each.name for each in queries(STORE)}


@pytest.mark.parametrize("name", ["service", "actor", "action", "outcome", "target_type"])
def test_what_is_chosen_narrows_what_is_shown(name: str, store: str) -> None:
    """Each variable, with a value the trail has and one it has not."""
    text = next(each.text for each in queries(STORE) if each.name == "trail: Newest records")
    known = {
        "service": "shop",
        "actor": "ann",
        "action": "LOGIN",
        "outcome": "failure",
        "target_type": "shop.Order",
    }
    some, none = ask(
        store,
        [expand(text, chosen("trail") | {name: value}, SHOWN) for value in (known[name], "nothing")],
    )
    assert 0 < len(some.rows) <= 7
    assert not none.rows


@pytest.mark.parametrize("log", ["activity", "pageview", "other"])
def test_another_log_is_shown_from_its_own_tables(log: str, store: str) -> None:
    """The log chosen is part of a table's name."""
    text = next(each.text for each in queries(STORE) if each.name == "trail: Newest records")
    (answer,) = ask(store, [expand(text, chosen("trail") | {"log": log}, SHOWN)])
    assert answer.rows


def test_text_is_looked_for_in_messages_and_values(store: str) -> None:
    """Without case, and where nothing is written everything is shown."""
    text = next(each.text for each in queries(STORE) if each.name == "trail: Newest records")
    found = ask(
        store,
        [
            expand(text, chosen("trail") | {"text": word}, SHOWN)
            for word in ("WAS PAID", "12.5", "it's", "nowhere")
        ],
    )
    assert [[row["target"] for row in answer.rows] for answer in found] == [[ORDER], [ORDER], [ORDER], []]


@pytest.mark.parametrize("query", [*queries(STORE)], ids=lambda query: query.name)
def test_a_value_of_the_trail_stays_a_value(query: Query, store: str) -> None:
    """An actor chooses its name, and the name becomes the value of a variable by a click."""
    values = chosen(query.dashboard)
    used = [name for name in values if f"${{{name}:" in query.text and name != "log"]
    for name in used:
        (answer,) = ask(store, [expand(query.text, values | {name: NASTY}, SHOWN)])
        if query.kind in ("table", "traces"):
            wanted = 1 if name == "actor" and "Newest" in query.title else None
            assert wanted is None or [row["actor"] for row in answer.rows] == [NASTY]
            assert name == "actor" or not answer.rows
