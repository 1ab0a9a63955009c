"""Requests of few records give the rows that the engine's own reading of them gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_audit.audit_record import Actor, AuditRecord, Change, Request, Target, new_record_id
from otel_audit.semconv import RECORD_ID
from otel_audit.server.otlp.engine_rows import rows_by_engine
from otel_audit.server.otlp.few_rows import few_rows
from otel_audit.store.client import StoreClient
from otel_audit.store.columns import attribute_names
from otel_audit.store.schema import events, own
from tests.engine_process import in_stopped_server
from tests.server.otlp_messages import audit, logs
from tests.server.test_engine_rows import NOW, PROTOBUF, UNKNOWN_FIELD, entry, kept
from tests.trail import record, records, sent, serving

CHANGES, RELATED, FIELDS, NUMBER = (
    attribute_names(path)[0] for path in ("changes", "related", "fields", "sequence.number")
)
USUAL = '[{"field":"a","old":"x","new":null,"type":"int"}]'


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, StoreClient]]:
    with serving(tmp_path_factory.mktemp("few")) as server:
        store = StoreClient(server.clickhouse)
        with httpx.Client(base_url=server.http, timeout=30) as otlp:
            yield otlp, store
        store.close()


def made_here(body: bytes) -> bool:
    """Say whether the rows of a request are made without SQL."""
    made = rows_by_engine(body)
    return made is not None and few_rows(made.table, made.block) is not None


def rows_both_ways(
    otlp: httpx.Client, store: StoreClient, body: bytes, ids: list[str], table: str
) -> list[list[dict[str, Any]]]:
    """Post a request as it is, and again under other ids in a form that the views make rows of."""
    fresh = [new_record_id() for _ in ids]
    slow = body + UNKNOWN_FIELD
    for old, new in zip(ids, fresh, strict=True):
        slow = slow.replace(old.encode(), new.encode())
    assert rows_by_engine(slow) is None
    for each in (body, slow):
        answer = otlp.post("/v1/audit", content=each, headers=PROTOBUF)
        assert answer.status_code == 200, answer.text
    return [kept(store, table, ids), kept(store, table, fresh)]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(records, min_size=1, max_size=3))
def test_any_record_has_the_same_rows(
    client: tuple[httpx.Client, StoreClient], some: list[AuditRecord]
) -> None:
    """Whichever way it goes: changes of any type, related objects, names of other alphabets, every log."""
    otlp, store = client
    some = [
        msgspec.structs.replace(sent(each), timestamp=NOW + number, log=some[0].log)
        for number, each in enumerate(some)
    ]
    body = audit(some).SerializeToString()
    few, views = rows_both_ways(otlp, store, body, [each.id for each in some], events(own(some[0].log)))
    assert few == views
    assert len(few) >= len(some)


def test_what_our_sender_sends_is_made_here(client: tuple[httpx.Client, StoreClient]) -> None:
    """Changes of texts, NULL and unknown values, related objects, names of fields, no attribute at all."""
    otlp, store = client
    some = [
        record(
            "shop.order.update",
            "UPDATE",
            at=NOW,
            actor=Actor("7", "user", "Ünal"),
            target=Target("shop.Order", "1"),
            changes=[Change("a", 'ü"\\\n\0', None), Change("b", None, "1", "int"), Change("c", new="2")],
            related=[Target("shop.Customer", "3"), Target("shop.Basket")],
            truncated=True,
        ),
        record("shop.order.view", "READ", at=NOW + 1, fields=["total", "Straße"]),
        record("shop.order.view", "READ", at=NOW + 2, message="x" * 20_000),
    ]
    body = audit(some).SerializeToString()
    assert made_here(body)
    few, views = rows_both_ways(otlp, store, body, [each.id for each in some], "audit_events")
    assert few == views
    assert [row["changes.known"] for row in few] == [["vn", "nv", "-v"], ["--", "--"], []]
    assert few[0]["related"] == ["shop.Customer/3", "shop.Basket"]


@pytest.mark.parametrize(
    "attributes",
    [
        {CHANGES: '[{"field":"a","new":1}]'},
        {CHANGES: '[{"field":"a", "new":"1"}]'},
        {CHANGES: '[{"field":"a","new":"1","new":"2"}]'},
        {CHANGES: '[{"field":"a","new":"\\u00fc"}]'},
        {CHANGES: '[{"field":["a"]}]'},
        {CHANGES: '{"field":"a"}'},
        {CHANGES: "no JSON"},
        {CHANGES: 7},
        {FIELDS: '["a",1]'},
        {RELATED: '[{"id":"1"}]'},
        {RELATED: '[{"type":"shop.Order","id":1}]'},
        {RELATED: '[{"type":"shop.Order","id":"1","name":"n"}]'},
        {NUMBER: "-1"},
        {NUMBER: "many"},
        {NUMBER: "18446744073709551616"},
    ],
    ids=str,
)
def test_what_is_unusual_is_left_to_the_engine(
    client: tuple[httpx.Client, StoreClient], attributes: dict[str, Any]
) -> None:
    """And kept as it always was; what travels with it in one group is, too."""
    otlp, store = client
    odd, usual = entry("audit", **attributes), {**entry("audit", **{CHANGES: USUAL}), "time": NOW + 1}
    body = logs([odd, usual]).SerializeToString()
    assert made_here(logs([usual]).SerializeToString())
    assert not made_here(body)
    ids = [each["attributes"][RECORD_ID] for each in (odd, usual)]
    few, views = rows_both_ways(otlp, store, body, ids, "audit_events")
    assert few == views
    assert len(few) == 2


def test_a_record_with_one_attribute_twice_is_left_to_the_engine() -> None:
    """Which of the two counts is for it to say."""
    body = logs([entry("audit", **{CHANGES: USUAL})])
    pairs = body.resource_logs[0].scope_logs[0].log_records[0].attributes
    pairs.append(next(pair for pair in pairs if pair.key == CHANGES))
    assert not made_here(body.SerializeToString())


def test_rows_that_were_not_indexed_at_once_are_found(tmp_path: Path) -> None:
    """By every condition that asks an index, beside indexed rows; and after a merge, which indexes all."""
    wanted = record(
        "shop.order.update",
        "UPDATE",
        at=NOW,
        actor=Actor("few-1", "user", "Scarce"),
        target=Target("shop.Order", "few"),
        changes=[Change("fewness", "low", "tiny")],
        related=[Target("shop.Basket", "few")],
        request=Request("r-few"),
        message="scarcely any",
        trace_id="fe" * 16,
    )
    others = [
        record(
            "shop.order.update", "UPDATE", at=NOW + n, target=Target("shop.Order", str(n)), message="anything"
        )
        for n in range(1500)
    ]
    plain = ("actor_id", "actor_name", "target", "trace_id", "request_id", "message", "search_text")
    values = (
        "few-1",
        "Scarce",
        "shop.Order/few",
        wanted.trace_id,
        "r-few",
        "scarcely any",
        "scarcely any tiny low",
    )
    conditions = [
        *(f"{column} = '{value}'" for column, value in zip(plain, values, strict=True)),
        *(f"{column} IN ('{value}', 'x')" for column, value in zip(plain, values, strict=True)),
        *(f"{column} LIKE '{value[:5]}%'" for column, value in zip(plain, values, strict=True)),
        *(f"{column} ILIKE '%{value[-4:]}%'" for column, value in zip(plain, values, strict=True)),
        *(f"startsWith({column}, '{value[:4]}')" for column, value in zip(plain, values, strict=True)),
        *(f"has({column}, 'shop.Basket/few')" for column in ("related",)),
        "hasAny(related, ['shop.Basket/few', 'x'])",
        "hasAll(related, ['shop.Basket/few'])",
        "target = 'shop.Order/few' OR has(related, 'shop.Order/few')",
        "has(changes.field, 'fewness')",
        "has(change_items, 'fewness=tiny')",
        "hasAllTokens(search_text, ['scarcely', 'tiny'])",
        "hasAnyTokens(search_text, ['scarcely', 'x'])",
        "hasAllTokens(search_text, ['any'])",
        "hasToken(search_text, 'tiny')",
        f"record_id = '{wanted.id}'",
    ]

    def asked(store: StoreClient) -> dict[str, list[int]]:
        """Return rows and letters: counted, which an index alone may answer, and read."""
        return {
            each: [
                store.rows(f"SELECT count() FROM otel.audit_events WHERE {each}")[0][0],
                *store.rows(f"SELECT count(), sum(length(message)) FROM otel.audit_events WHERE {each}")[0],
            ]
            for each in conditions
        }

    parts = [f"countIf({each}), countIf({each}), sumIf(length(message), {each})" for each in conditions]
    unindexed = (
        "SELECT count() AS n FROM system.parts WHERE database = 'otel' AND table = 'audit_events' AND active "
        "AND rows < 10 AND secondary_indices_compressed_bytes < 1000"
    )
    with serving(tmp_path):
        pass
    in_stopped_server(tmp_path, largest_merge(1))
    with serving(tmp_path) as server, closing(StoreClient(server.clickhouse)) as store:
        for some in ([wanted], others):
            body = audit(some).SerializeToString()
            sent = httpx.post(f"{server.http}/v1/audit", content=body, headers=PROTOBUF, timeout=30)
            assert sent.status_code == 200
        [row] = store.rows(f"SELECT {', '.join(parts)} FROM otel.audit_events")  # no condition, no index
        expected = {each: row[3 * at : 3 * at + 3] for at, each in enumerate(conditions)}
        assert min(count for count, *_ in expected.values()) == 1
        assert store.query(unindexed)[0]["n"] > 0
        assert asked(store) == expected
    in_stopped_server(
        tmp_path,
        largest_merge(2**37) + "connection.query('OPTIMIZE TABLE otel.audit_events FINAL')\n",
    )
    with serving(tmp_path) as server, closing(StoreClient(server.clickhouse)) as store:
        assert store.query(unindexed)[0]["n"] == 0
        assert asked(store) == expected


def largest_merge(size: int) -> str:
    """Return what bounds merges, in bytes: on a busy machine one came before the questions."""
    setting = f"max_bytes_to_merge_at_max_space_in_pool = {size}"
    return f"connection.query('ALTER TABLE otel.audit_events MODIFY SETTING {setting}')\n"
