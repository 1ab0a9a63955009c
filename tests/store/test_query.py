"""Asking a real ``otel-audit serve``: what is found, once, in order, whatever the values look like."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import UNSET

from otel_audit.audit_record import (
    Actor,
    AuditRecord,
    Bulk,
    Change,
    Column,
    Request,
    Sequence,
    Source,
    Target,
)
from otel_audit.config.model import StoreConfig
from otel_audit.errors import QueryError, StoreError
from otel_audit.store.client import StoreClient
from otel_audit.store.filters import Filters
from otel_audit.store.query import AuditStore
from otel_audit.store.tail import Tail
from tests.trail import land, land_span, record, serving

S = 10**9
NOW = time.time_ns()
ANA = Actor("2", "user", "ana")
BEN = Actor("3", "user", "ben", on_behalf_of="2")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HOSTILE = 'it\'s \\ "a" {x:String} \n\t\0 ;-- ü 日本'


def at(seconds: int) -> int:
    """Return a time ``seconds`` into the afternoon, an hour ago."""
    return NOW - 3600 * S + seconds * S


CREATED = record(
    "shop.order.create",
    "CREATE",
    at=at(1),
    actor=ANA,
    target=Target("shop.Order", "7"),
    changes=[
        Change("status", new="new"),
        Change("total", new="19.80", type="decimal"),
        Change("memo", None, 5),
    ],
    source=Source("203.0.113.7", "ipv4"),
    request=Request("r-1", "POST", "/orders/"),
    trace_id=TRACE,
    span_id="00f067aa0ba902b7",
    message="Order taken by phone",
    sequence=Sequence("stream-1", 3),
)
PAID = record(
    "shop.order.update",
    "UPDATE",
    at=at(2),
    actor=ANA,
    target=Target("shop.Order", "7"),
    changes=[Change("status", "new", "paid")],
    trace_id=TRACE,
    span_id="ffffffffffffffff",
)
PRICED = record(
    "shop.product.update",
    "UPDATE",
    at=at(3),
    actor=BEN,
    target=Target("shop.Product"),
    bulk=Bulk(
        3, ["1", "2", "3"], [Column("price", ["1.00", "2.00", "3.00"], ["1.50", None, "3.50"], "decimal")]
    ),
    message="Prices up for ana@example.com",
)
READ = record(
    "shop.card.read",
    "READ",
    at=at(4),
    actor=BEN,
    target=Target("shop.Card", "9"),
    fields=["number", "holder"],
    related=[Target("shop.Order", "7")],
)
REFUSED = record(
    "shop.order.update",
    "UPDATE",
    at=at(5),
    outcome="failure",
    actor=ANA,
    target=Target("shop.Order", "8"),
    changes=[Change("status", "new", "paid")],
    error="OutOfStock",
)
STRANGE = record(
    "shop.note.update",
    "UPDATE",
    at=at(6),
    actor=Actor(HOSTILE, "user"),
    target=Target("shop.Note", HOSTILE),
    changes=[Change(HOSTILE, HOSTILE, HOSTILE)],
    request=Request(HOSTILE),
    tenant="acme",
    log="activity",
    attributes={"ticket": 42},
)
VIEWED = record(
    "shop.page.view",
    "READ",
    at=at(7),
    actor=BEN,
    target=Target("shop.Order", "7"),
    trace_id=TRACE,
    log="pageview",
)
ALL = [CREATED, PAID, PRICED, READ, REFUSED, STRANGE, VIEWED]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreClient]:
    with serving(tmp_path_factory.mktemp("store")) as server:
        client = StoreClient(server.clickhouse)
        land(client, ALL)
        land(client, ALL)  # everything sent twice
        yield client
        client.close()


@pytest.fixture
def store(client: StoreClient) -> Iterator[AuditStore]:
    with AuditStore(client.config) as store:
        yield store


def ids(records: list[AuditRecord]) -> list[str]:
    return [each.id for each in records]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ({}, [REFUSED, READ, PRICED, PAID, CREATED]),
        ({"log": "*"}, [VIEWED, STRANGE, REFUSED, READ, PRICED, PAID, CREATED]),
        ({"actor": "ana"}, [REFUSED, PAID, CREATED]),
        ({"actor": "2"}, [REFUSED, PAID, CREATED]),
        ({"actor": "nobody"}, []),
        ({"target": "shop.Order/7"}, [PAID, CREATED]),
        ({"target": "shop.Order"}, [REFUSED, PAID, CREATED]),
        ({"target": "shop.*d*"}, [REFUSED, READ, PRICED, PAID, CREATED]),
        ({"target": "shop_*"}, []),
        ({"action": "read"}, [READ]),
        ({"action": ["READ", "CREATE"]}, [READ, CREATED]),
        ({"action": "read, create"}, [READ, CREATED]),
        ({"outcome": "failure"}, [REFUSED]),
        ({"outcome": "failure,unknown"}, [REFUSED]),
        ({"field": "status"}, [REFUSED, PAID, CREATED]),
        ({"field": "number"}, [READ]),
        ({"field": "price"}, [PRICED]),
        ({"field": "status=paid"}, [REFUSED, PAID]),
        ({"field": "status=new"}, [CREATED]),
        ({"trace_id": TRACE.upper()}, [PAID, CREATED]),
        ({"request_id": "r-1"}, [CREATED]),
        ({"text": "PHONE order"}, [CREATED]),
        ({"text": "paid"}, [REFUSED, PAID]),
        ({"text": "ana@example.com"}, [PRICED]),
        ({"text": "example.ana"}, []),
        ({"log": "activity"}, [STRANGE]),
        ({"log": "audit"}, [REFUSED, READ, PRICED, PAID, CREATED]),
        ({"log": ["pageview", "activity"]}, [VIEWED, STRANGE]),
        ({"log": "pageview, activity"}, [VIEWED, STRANGE]),
        ({"log": "!audit, !pageview"}, [STRANGE]),
        ({"log": "other"}, []),
        ({"log": "*", "trace_id": TRACE}, [VIEWED, PAID, CREATED]),
        ({"log": "*", "tenant": "acme"}, [STRANGE]),
        ({"tenant": "acme"}, []),
        ({"since": at(3), "until": at(5)}, [READ, PRICED]),
        ({"since": "2 hours ago", "action": "CREATE"}, [CREATED]),
        ({"until": "2 hours ago"}, []),
        ({"actor": "ana", "outcome": "success", "field": "status"}, [PAID, CREATED]),
        ({"log": "activity", "actor": HOSTILE}, [STRANGE]),
        ({"log": "*", "target": f"shop.Note/{HOSTILE}"}, [STRANGE]),
        ({"log": "*", "field": HOSTILE}, [STRANGE]),
        ({"log": "*", "request_id": HOSTILE}, [STRANGE]),
        ({"log": HOSTILE}, []),
        ({"request_id": "' OR 1 = 1 --"}, []),
    ],
    # Without the values: the times are of this run, and the workers of one run must agree on the names.
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_questions_find_each_matching_record_once_newest_first(
    store: AuditStore, question: dict[str, object], answer: list[AuditRecord]
) -> None:
    page = store.query(**question)  # type: ignore[arg-type]
    assert [entry.id for entry in page] == ids(answer)
    assert page.cursor is None


def test_a_row_of_a_bulk_record_answers_for_its_target_with_its_own_values(store: AuditStore) -> None:
    for question in ({"target": "shop.Product/2"}, {"target": "shop.Product/2", "field": "price"}):
        [entry] = store.query(**question)  # type: ignore[arg-type]
        assert (entry.id, entry.target) == (PRICED.id, Target("shop.Product", "2"))
        assert entry.changes == [Change("price", "2.00", None, "decimal")]
    [entry] = store.query(field="price=3.50")
    assert entry.target == Target("shop.Product", "3")
    [entry] = store.query(text="prices")
    assert (entry.ordinal, entry.rows, entry.fields) == (0, 3, ["price"])


def test_an_entry_says_what_the_record_said(store: AuditStore) -> None:
    [entry] = store.query(request_id="r-1")
    assert entry.timestamp == CREATED.timestamp
    assert (entry.event_name, entry.action, entry.outcome) == ("shop.order.create", "CREATE", "success")
    assert entry.actor == ANA
    assert entry.changes == [
        Change("status", UNSET, "new"),
        Change("total", UNSET, "19.80", "decimal"),
        Change("memo", None, "5"),
    ]
    assert (entry.source, entry.service, entry.sequence) == ("203.0.113.7", "shop", 3)
    [entry] = store.query(actor="ben", action="READ")
    assert (entry.actor.on_behalf_of, entry.fields, entry.related) == (
        "2",
        ["number", "holder"],
        ["shop.Order/7"],
    )
    assert (entry.actor_known_as, entry.customer_known_as) == ("", "ana")


def test_who_was_acted_for_is_found_by_id_and_by_name(store: AuditStore) -> None:
    asked = [entry.id for entry in store.query(on_behalf_of="2", limit=100)]
    assert READ.id in asked
    assert CREATED.id not in asked
    assert [entry.id for entry in store.query(on_behalf_of="ana", limit=100)] == asked
    assert not store.query(on_behalf_of="nobody")


def test_a_name_finds_the_nameless_records_of_every_user_who_carries_it(client: StoreClient) -> None:
    """Of one user, of none but a service, of one whose id it is, and of several who share it."""
    wanted: dict[str, list[str]] = {}
    cases = {
        "Cleo": [Actor("c-1", "user", "Cleo")],
        "Robot": [Actor("c-2", "service", "Robot")],
        "c-3": [Actor("c-3", "user", "c-3")],
        "Dora": [Actor("c-4", "user", "Dora"), Actor("c-5", "user", "Dora"), Actor("Dora", "user", "Dora")],
        "Both": [Actor("c-6", "service", "Both"), Actor("c-6", "user", "Both")],
    }
    for number, (name, actors) in enumerate(cases.items()):
        nameless = [Actor(each.id, "user") for each in actors]
        found = [*actors, *(each for each in nameless if name != "Robot")]
        all_of_them = [
            record("shop.order.update", "UPDATE", at=at(4000 + 20 * number + index), actor=each)
            for index, each in enumerate([*found, *(nameless if name == "Robot" else ())])
        ]
        land(client, all_of_them)
        wanted[name] = [each.id for each in all_of_them[: len(found)]][::-1]
    with AuditStore(client.config) as store:
        for name, ids in wanted.items():
            assert [each.id for each in store.query(actor=name)] == ids, name
        assert not store.query(actor="nobody's")


def test_records_come_back_as_they_were_signed(store: AuditStore) -> None:
    for each in ALL:
        assert store.get(each.id) == each
    stored = store.stored(CREATED.id.upper())
    assert stored is not None
    assert stored.resource == {"service.name": "shop", "host.name": "web-1"}
    assert store.get("019ab3c2-7d1e-7c41-9f0a-51d2a90b3f7e") is None
    with pytest.raises(QueryError, match="8-4-4-4-12"):
        store.get("7")


def test_pages_together_hold_every_record_once_also_at_equal_times(client: StoreClient) -> None:
    same_moment = at(-1000)
    crowd = [record("crowd.event", "CREATE", at=same_moment, tenant="crowd") for _ in range(23)]
    for _ in range(8):
        land(client, crowd)
    with AuditStore(client.config) as store:
        found: list[str] = []
        cursor = None
        for _ in range(100):
            page = store.query(tenant="crowd", limit=4, cursor=cursor)
            assert len(page) <= 4
            found += [entry.id for entry in page]
            cursor = page.cursor
            if cursor is None:
                break
        assert sorted(found) == sorted(ids(crowd))


def test_bulk_records_of_which_many_rows_match_are_one_entry_each(client: StoreClient) -> None:
    keys = [str(number) for number in range(300)]
    bulks = [
        record(
            "bulk.event",
            "UPDATE",
            at=at(-2000 - number),
            target=Target("bulk.Thing"),
            bulk=Bulk(300, keys, [Column("state", ["before"] * 300, ["afterwards"] * 300)]),
        )
        for number in range(6)
    ]
    land(client, bulks)
    with AuditStore(client.config) as store:
        for question in ({"text": "afterwards"}, {"field": "state=afterwards"}):
            first = store.query(**question, limit=4)
            second = store.query(**question, limit=4, cursor=first.cursor)
            assert [entry.id for entry in (*first, *second)] == ids(bulks)
            assert second.cursor is None


def test_history_tells_of_changes_and_of_records_that_name_the_object_as_related(store: AuditStore) -> None:
    assert [entry.id for entry in store.history("shop.Order/7")] == ids([READ, PAID, CREATED])
    assert [entry.id for entry in store.history("shop.Product/3")] == ids([PRICED])
    assert [entry.id for entry in store.history(f"shop.Note/{HOSTILE}")] == ids([STRANGE])
    assert [entry.id for entry in store.history("shop.Order/7", log="pageview")] == ids([VIEWED])
    page = store.history("shop.Order/7", limit=2)
    assert [entry.id for entry in store.history("shop.Order/7", cursor=page.cursor)] == ids([CREATED])
    for target in ("shop.Order", "shop.*/7", "/7", "shop.Order/"):
        with pytest.raises(QueryError, match="such as shop"):
            store.history(target)


def test_a_trace_holds_spans_and_records_also_those_whose_span_is_missing(client: StoreClient) -> None:
    start = at(0)
    for _ in range(2):  # sent twice
        land_span(
            client,
            Timestamp=f"{start // S}.{start % S:09d}",
            TraceId=TRACE,
            SpanId="00f067aa0ba902b7",
            SpanName="POST /orders/",
            SpanKind="Server",
            ServiceName="shop",
            Duration=12_000_000,
            StatusCode="Unset",
            SpanAttributes={"http.route": "/orders/"},
        )
    with AuditStore(client.config) as store:
        trace = store.trace(f"00-{TRACE}-00f067aa0ba902b7-01")
        assert (trace.spans, trace.entries) == (1, 3)
        first, homeless = trace.roots
        assert first.span is not None
        assert (first.span.name, first.span.duration, first.span.start) == (
            "POST /orders/",
            12_000_000,
            start,
        )
        assert [entry.id for entry in first.entries] == [CREATED.id]
        assert [entry.id for entry in homeless.entries] == [PAID.id, VIEWED.id]
        assert not store.trace("0" * 31 + "1")


def test_shortened_ids_and_the_vocabulary_of_the_trail(store: AuditStore) -> None:
    assert [entry.id for entry in store.with_fragment(READ.id[-8:])] == [READ.id]
    assert [entry.id for entry in store.with_fragment(VIEWED.id[-8:])] == [VIEWED.id]
    assert store.with_fragment(READ.id[-8:], since=READ.timestamp + 1) == []
    with pytest.raises(QueryError, match="last 6"):
        store.with_fragment("abc")
    assert {"status", "price", "number"} <= set(store.vocabulary("field"))
    assert store.vocabulary("field", target="shop.Product/1") == ["price"]
    assert {"ana", "ben"} <= set(store.vocabulary("actor"))
    assert store.vocabulary("actor", log="pageview") == ["ben"]
    assert {"audit", "activity", "pageview"} <= set(store.vocabulary("log"))


def test_a_tail_gives_each_record_once_also_one_that_arrives_late(client: StoreClient) -> None:
    with AuditStore(client.config) as store:
        tail = Tail(store, Filters(tenant="tail"))
        now = time.time_ns()
        before = [record("a.b", "CREATE", at=now - number * S, tenant="tail") for number in (3, 2, 1)]
        land(client, before)
        assert [entry.id for entry in tail.last(2)] == ids(before[1:])
        assert tail.arrived() == []
        new = record("a.b", "CREATE", at=time.time_ns(), tenant="tail")
        late = record("a.b", "CREATE", at=now - 10 * S, tenant="tail")
        land(client, [new, late])
        assert [entry.id for entry in tail.arrived()] == ids([late, new])
        very_late = record("a.b", "CREATE", at=now - 300 * S, tenant="tail")
        land(client, [very_late, new])
        seen = [entry.id for _ in range(20) for entry in tail.arrived()]
        assert seen == [very_late.id]


def test_an_unreachable_store_is_told_with_its_address() -> None:
    with pytest.raises(StoreError, match=r"http://127\.0\.0\.1:1"):
        AuditStore("http://127.0.0.1:1").query()


def test_a_token_is_asked_for_and_taken(tmp_path: Path) -> None:
    with serving(tmp_path, OTEL_AUDIT_SERVER_TOKEN="secret-token-of-the-test") as server:
        with (
            pytest.raises(StoreError, match="token"),
            contextlib.closing(AuditStore(server.clickhouse)) as store,
        ):
            store.query()
        token = "secret-token-of-the-test"
        for config in (
            StoreConfig(url=server.clickhouse, token=token),
            StoreConfig(url=server.clickhouse, user="default", password=token),
            StoreConfig(url=server.clickhouse.replace("//", f"//default:{token}@")),
        ):
            with AuditStore(config) as store:
                assert len(store.query()) == 0
