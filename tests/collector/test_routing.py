"""Each kind of record ends in its own table, as it was sealed; ordinary telemetry beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from otel_audit.audit_record import (
    Actor,
    AuditRecord,
    Bulk,
    Change,
    Column,
    Database,
    Request,
    Sequence,
    Source,
    Target,
    new_record_id,
)
from otel_audit.pipeline.delivery import otlp_encoding
from otel_audit.semconv import RECORD_ID, to_attributes
from tests.collector.running import Site, delivered, mirrored_ids, site
from tests.e2e.running import eventually

TABLES = {
    "audit": "audit_events",
    "activity": "activity_events",
    "pageview": "pageview_events",
    "export": "other_events",
}
RESOURCE: dict[str, str | bool | float] = {
    "service.name": "billing",
    "host.name": "web-1",
    "process.pid": 4711,
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Store, Collector with the mirror; nobody records."""
    with site(tmp_path_factory.mktemp("site"), ["config.yaml", "profiles/mirror.yaml"]) as made:
        made.store.start()
        made.collector.start()
        yield made


def send(running: Site, records: list[AuditRecord]) -> None:
    """Send records as the sender does."""
    body = otlp_encoding.export_request(RESOURCE, [otlp_encoding.log_record(record) for record in records])
    assert running.collector.post(body).status_code == 200


def make(number: int, **values: Any) -> AuditRecord:
    """Make a sealed record."""
    now = time.time_ns()
    given = {
        "id": new_record_id(now),
        "timestamp": now,
        "observed_timestamp": now + 17,
        "event_name": "billing.invoice.update",
        "action": "UPDATE",
        "sequence": Sequence(f"stream/{values.get('log', 'audit')}", number, previous_hash="ab" * 32),
        **values,
    }
    return AuditRecord(**given)


def every_shape(log: str) -> list[AuditRecord]:
    """Records of every shape there is, with values that are easily harmed on the way."""
    nasty = "ünïcode ✓ 🦊\t\"quoted\" 'single' \\ \n\r\x00\x7f {}[]=, 00123 1e5 true null"
    target, changes = Target("billing.Invoice", nasty), [Change("state", None, nasty), Change("n", 1, 2.5)]
    whole = make(
        1,
        log=log,
        outcome="failure",
        actor=Actor(id="7", type="user", name=nasty, on_behalf_of="9"),
        target=target,
        source=Source(id="2001:db8::7", type="ipv6", user_agent=nasty, session="5e55"),
        request=Request(id="r-1", method="POST", route="invoices/<int:pk>/", path="/invoices/7/", view="x.y"),
        database=Database(system="postgresql", namespace="shop", table="invoice", transaction="t-1"),
        changes=changes,
        image={"id": 7, "paid": True, "note": nasty, "nothing": None, "deep": {"a": [1, 2, {"b": "c"}]}},
        old_values="exact",
        message=nasty,
        reason=nasty,
        tenant="acme",
        system="scheduler",
        event_type="legal",
        error="django.db.utils.IntegrityError",
        code="billing.tasks.close",
        related=[Target("shop.Order", "1"), Target("shop.Order", "2")],
        attributes={"big": 2**53 + 1, "small": -5, "ratio": 0.1, "yes": True, "no": False, "text": nasty},
        truncated=True,
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="b7ad6b7169203331",
    )
    return [
        whole,
        make(2, log=log, action="CREATE", target=target, changes=[Change("state", new="open")]),
        make(3, log=log, action="READ", target=Target("billing.Invoice"), fields=["iban", "note"]),
        make(
            4,
            log=log,
            target=Target("billing.Invoice"),
            bulk=Bulk(
                2,
                keys=["1", nasty],
                columns=[
                    Column("state", old=[None, nasty], new=["paid", "paid"]),
                    Column("total", old=["1.50", "2.50"], new=["3.50", None], type="decimal"),
                ],
                id="bulk-1",
                part=1,
                parts=2,
            ),
        ),
        make(5, log=log, action="DELETE", bulk=Bulk(100_000), completeness="count", outcome="unknown"),
        make(6, log=log, action="LOGIN", outcome="failure", actor=Actor(), attributes={"name": "ana"}),
        make(
            7,
            log=log,
            action="END",
            actor=Actor(id="billing", type="service"),
            sequence=Sequence("stream/x", 2**40, previous_record=new_record_id(), end=True),
        ),
    ]


@pytest.mark.parametrize("log", TABLES)
def test_a_record_rebuilt_from_its_table_is_the_one_that_was_sealed(running: Site, log: str) -> None:
    """Byte for byte, as it would be sent again; and the mirror's line has the same attributes, typed."""
    sealed = every_shape(log)
    wanted = {record.id: record for record in sealed}
    send(running, sealed)
    trail = running.trail
    eventually(lambda: set(wanted) <= set(trail.ids(TABLES[log])), "they are in their table", 60)
    found = {record.id: record for record in running.store.records(table=TABLES[log]) if record.id in wanted}
    for identifier, record in wanted.items():
        assert to_attributes(found[identifier]) == to_attributes(record)
        assert otlp_encoding.log_record(found[identifier]) == otlp_encoding.log_record(record)
    for other in {*TABLES.values()} - {TABLES[log]}:
        assert not set(wanted) & set(trail.ids(other)), f"also in {other}"

    eventually(lambda: set(wanted) <= set(mirrored_ids(running.collector.mirrored())), "the mirror has them")
    mirrored = {}
    for line in running.collector.mirrored():
        for resource in json.loads(line)["resourceLogs"]:
            for scope in resource["scopeLogs"]:
                for each in scope["logRecords"]:
                    attributes = {pair["key"]: typed(pair["value"]) for pair in each["attributes"]}
                    mirrored[attributes[RECORD_ID]] = attributes, each
    for identifier, record in wanted.items():
        attributes, each = mirrored[identifier]
        assert attributes == to_attributes(record)
        assert (int(each["timeUnixNano"]), int(each["observedTimeUnixNano"]), each["eventName"]) == (
            record.timestamp,
            record.observed_timestamp,
            record.event_name,
        )


def typed(value: dict[str, Any]) -> Any:
    """Read a value of OTLP/JSON, where integers are texts."""
    [(kind, content)] = value.items()
    return int(content) if kind == "intValue" else content


def test_an_application_that_records_all_kinds_finds_each_in_its_table(tmp_path: Path) -> None:
    """In one request they arrive mixed; each stream is whole in its own table."""
    with site(tmp_path) as (store, collector, application, trail):
        store.start()
        collector.start()
        application.start(rate=200, logs=",".join(TABLES))
        eventually(lambda: len(application.told().ids) > 400, "it records")
        application.stop()
        delivered(application)
        told = application.told().ids

        tables = list(TABLES.values())
        eventually(lambda: sum(trail.count(table) for table in tables) >= len(told), "all are there", 60)
        for position, table in enumerate(tables):
            seen = trail.ids(table)
            mine = set(told[position :: len(tables)])
            assert mine <= set(seen)
            assert set(seen) & set(told) == mine
            assert set(seen.values()) == {1}
            assert trail.gaps(table) == []


def test_ten_thousand_rows_of_a_bulk_change_are_ten_thousand_rows(running: Site) -> None:
    """Ten records of 1000 rows each, through the exporter: every row once, with its old and new values."""
    parts, rows, kind = 10, 1000, "billing.Bulk"
    keys = [str(number) for number in range(parts * rows)]
    send(
        running,
        [
            make(
                part + 1,
                target=Target(kind),
                bulk=Bulk(
                    parts * rows,
                    keys=keys[part * rows : (part + 1) * rows],
                    columns=[
                        Column(
                            field,
                            old=[f"old {field} {key}" for key in keys[part * rows : (part + 1) * rows]],
                            new=[
                                None if int(key) % 7 == 0 else f"new {field} {key}"
                                for key in keys[part * rows : (part + 1) * rows]
                            ],
                        )
                        for field in ("state", "total", "note")
                    ],
                    id="bulk-10000",
                    part=part + 1,
                    parts=parts,
                ),
            )
            for part in range(parts)
        ],
    )
    of_kind = f"FROM otel.audit_events FINAL WHERE target_type = '{kind}'"
    counted = f"SELECT count() AS n {of_kind}"
    eventually(lambda: running.store.query(counted)[0]["n"] == parts * (rows + 1), "all rows are there", 60)
    found = running.store.query(
        "SELECT target_id, changes.field AS fields, changes.old AS old, changes.new AS new, changes.known AS "
        f"known {of_kind} AND ordinal > 0 ORDER BY toUInt32(target_id)"
    )
    assert [row["target_id"] for row in found] == keys
    for row in found:
        key = row["target_id"]
        absent = int(key) % 7 == 0
        assert row["fields"] == ["state", "total", "note"]
        assert [json.loads(value) if value[:1] == '"' else value for value in row["old"]] == [
            f"old {field} {key}" for field in row["fields"]
        ]
        assert row["known"] == ["vn" if absent else "vv"] * 3
        if not absent:
            assert [json.loads(value) if value[:1] == '"' else value for value in row["new"]] == [
                f"new {field} {key}" for field in row["fields"]
            ]


def test_ordinary_logs_and_spans_take_the_other_way(running: Site) -> None:
    """And what arrives there is never part of the trail, whatever it says of itself."""
    pretender = new_record_id()
    now = str(time.time_ns())
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "web"}}]}
    attributes = [
        {"key": "audit.record.id", "value": {"stringValue": pretender}},
        {"key": "otel_audit.log", "value": {"stringValue": "audit"}},
    ]
    logs = {
        "resourceLogs": [
            {
                "resource": resource,
                "scopeLogs": [
                    {
                        "logRecords": [
                            {"timeUnixNano": now, "body": {"stringValue": "an ordinary line"}},
                            {
                                "timeUnixNano": now,
                                "body": {"stringValue": "pretends"},
                                "attributes": attributes,
                            },
                        ]
                    }
                ],
            }
        ]
    }
    span = {"traceId": "0a" * 16, "spanId": "0b" * 8, "name": "GET /", "kind": 2}
    spans = {
        "resourceSpans": [
            {
                "resource": resource,
                "scopeSpans": [{"spans": [{**span, "startTimeUnixNano": now, "endTimeUnixNano": now}]}],
            }
        ]
    }
    for path, content in (("logs", logs), ("traces", spans)):
        answer = httpx.post(f"{running.collector.otlp}/v1/{path}", json=content, timeout=30)
        assert answer.status_code == 200, answer.text
    query = running.store.query
    eventually(lambda: len(query("SELECT 1 FROM otel.otel_logs WHERE ServiceName = 'web'")) == 2, "the logs")
    eventually(lambda: query("SELECT 1 FROM otel.otel_traces WHERE ServiceName = 'web'"), "the span")
    assert pretender not in running.trail.ids()
