"""The one write of a transaction: its record is made in a quick way, and is what the general way makes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from otel_audit.audit_context import ContextFields, context, enter_scope, leave_scope, moment
from otel_audit.audit_record import (
    Actor,
    AuditRecord,
    Bulk,
    Database,
    Origin,
    Request,
    Source,
    Target,
    new_record_id,
)
from otel_audit.capture.reads import KeyColumn, Reading, ReadRecords, Tally
from otel_audit.capture.transactions.connection import Connection
from otel_audit.capture.writes import RowWrite
from otel_audit.config.model import RedactionConfig, SpanEventConfig
from otel_audit.pipeline import lone_records
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.pipeline.provider import AuditPipeline
from otel_audit.pipeline.spool.frames import decode_record
from otel_audit.pipeline.spool.writer import SpoolWriter
from otel_audit.values import freeze
from tests.capture.test_record_heads import (
    FIELDS,
    NOW,
    PLACES,
    PLANS,
    SECRETS,
    TRACER,
    USUAL,
    Made,
    Written,
    connection_of,
    moments,
    places,
    row,
    spooled_bytes,
    table,
    writes,
)
from tests.hostile_values import Broken, anything
from tests.pipeline.spooling import audit_config, spooled_records

TEXTS = st.one_of(*[st.text(max_size=6)] * 6, st.just(""), st.sampled_from(SECRETS), anything)
IDS = st.one_of(st.builds(new_record_id), TEXTS)
fields = st.builds(
    ContextFields,
    actor=st.one_of(
        st.builds(Actor, TEXTS, st.sampled_from(["user", "user", "service", "robot", 1]), TEXTS, TEXTS),
        st.just(Actor()),
        anything,
    ),
    source=st.one_of(st.builds(Source, TEXTS, TEXTS, TEXTS, TEXTS), st.just(Source())),
    request=st.one_of(st.builds(Request, IDS, TEXTS, TEXTS, TEXTS, TEXTS), st.just(Request())),
    tenant=TEXTS,
    reason=TEXTS,
    system=TEXTS,
    attributes=st.one_of(st.just({}), st.just({}), st.just({"flag": 1})),
    truncated=st.sampled_from([False, False, False, True]),
    origin=st.sampled_from([None, None, Origin("1", "ana", "r")]),
)


class Said:
    """A scope that says what it was given."""

    def __init__(self, said: ContextFields) -> None:
        self._said = said

    def fields(self) -> ContextFields:
        return self._said


def same_both_ways(logger: AuditLogger, pending: RowWrite) -> Made:
    quick = spooled_bytes(logger, [pending], quickly=True)
    assert quick.payloads == spooled_bytes(logger, [pending], quickly=False).payloads
    return quick


@pytest.fixture
def connection(pipeline: AuditPipeline) -> Connection:
    return connection_of(pipeline)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    redaction = RedactionConfig(hmac_key="k" * 32, names=["^seen$"])
    pipeline = AuditPipeline(
        audit_config(tmp_path_factory.mktemp("lone"), redaction=redaction, tenant="acme"), ship=False
    )
    yield pipeline
    pipeline.shutdown(0)


# --- the same bytes ------------------------------------------------------------------------------


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(each=writes, described=st.lists(places, min_size=3, max_size=3))
def test_whatever_is_written_the_bytes_are_those_of_the_general_way(
    keyed: AuditPipeline, each: Written, described: list[dict[str, Any]]
) -> None:
    """Any values, keys, nested contexts, spans, verbs and errors."""
    write = row(
        connection_of(keyed),
        plan=PLANS[each.plan],
        verb=each.verb,
        key=each.key,
        changed=[(plan, freeze(old), freeze(new)) for plan, old, new in each.changed],
        written=[(plan, freeze(value)) for plan, value in each.written],
        old_values=each.old_values,
        at=moments(described)[each.place],
    )
    write.error = each.error
    same_both_ways(keyed.logger, write)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(said=fields, tenant=st.sampled_from(["", "a", None]))
def test_whatever_a_scope_says_the_bytes_are_those_of_the_general_way(
    keyed: AuditPipeline, said: ContextFields, tenant: str | None
) -> None:
    """Parts of any type, secrets, ids of requests that are none of ours."""
    token = enter_scope(Said(said))
    try:
        at = msgspec.structs.replace(moment(), time=NOW, tenant=tenant)
        same_both_ways(keyed.logger, row(connection_of(keyed), at=at))
    finally:
        leave_scope(token)


def test_what_is_made_of_a_scope_that_cannot_be_recorded_is_the_same_each_time(keyed: AuditPipeline) -> None:
    """As of an intent and of its outcome: not once with and once without what the row held."""
    token = enter_scope(Said(ContextFields(reason="Á", system=Broken())))  # type: ignore[arg-type]
    try:
        same_both_ways(keyed.logger, row(connection_of(keyed), at=moment()))
    finally:
        leave_scope(token)


# --- made quickly --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", USUAL, ids=lambda value: type(value).__name__)
def test_a_record_of_usual_values_is_made_quickly(
    connection: Connection, pipeline: AuditPipeline, value: Any
) -> None:
    """Of the types most columns hold, in a request as well."""
    request = Request(new_record_id(), "POST", "articles/<int:pk>/", "/articles/7/", "shop.views.update")
    said = ContextFields(Actor("7", "user", "ana"), Source("192.0.2.1", "ipv4", "curl/8"), request)
    token = enter_scope(Said(said))
    try:
        write = row(connection, changed=[(FIELDS[2], None, freeze(value))], written=[(FIELDS[0], "b")])
        made = same_both_ways(pipeline.logger, write)
    finally:
        leave_scope(token)
    assert made.records == 0
    [record] = map(decode_record, made.payloads)
    assert (record.actor, record.request) == (said.actor, request)


def test_the_intent_of_a_row_whose_key_the_database_will_give_is_made_quickly(
    connection: Connection, pipeline: AuditPipeline
) -> None:
    write = row(connection, verb="create", key=UNSET, changed=[(FIELDS[0], UNSET, "a")], written=())
    made = same_both_ways(pipeline.logger, write)
    assert made.records == 0
    [record] = map(decode_record, made.payloads)
    assert record.target == Target(PLANS[0].label, "")


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_record_says_what_the_context_of_its_own_moment_says(
    connection: Connection, pipeline: AuditPipeline, place: dict[str, Any]
) -> None:
    """Nothing is kept from one record to the next."""
    for around in (place, {}, place, {"actor": "9", "reason": "z"}):
        with context(**around):
            same_both_ways(pipeline.logger, row(connection, at=msgspec.structs.replace(moment(), time=NOW)))


@pytest.mark.parametrize("settings", [{"hooks": [lambda record: record]}, {"values": ["x[0-9]+"]}])
def test_hooks_and_own_patterns_see_the_record(spool_directory: Path, settings: dict[str, Any]) -> None:
    """It is made in the general way."""
    config = audit_config(spool_directory, redaction=RedactionConfig(values=settings.get("values", [])))
    pipeline = AuditPipeline(config, hooks=settings.get("hooks", ()), ship=False)
    assert same_both_ways(pipeline.logger, row(connection_of(pipeline))).records == 1
    pipeline.shutdown(0)


@pytest.mark.parametrize(
    "plan",
    [*PLANS[2:], table("shop.Masked")],
    ids=lambda plan: plan.label,
)
def test_what_needs_more_than_one_look_is_made_in_the_general_way(
    connection: Connection, pipeline: AuditPipeline, plan: Any
) -> None:
    """Keys that are secrets, relations, fields with a strategy."""
    if plan.label == "shop.Masked":
        plan.strategies["name"] = "mask"
    assert same_both_ways(pipeline.logger, row(connection, plan=plan)).records == 1


def test_a_secret_is_removed_before_it_is_on_disk(
    connection: Connection, pipeline: AuditPipeline, spool_directory: Path
) -> None:
    """From values and from what the context says (G5)."""
    with context(reason="password=hunter2"):
        connection.add(row(connection))
        connection.settle()
    connection.add(row(connection, written=[(FIELDS[0], "password=hunter2")]))
    connection.settle()
    assert all(b"hunter2" not in path.read_bytes() for path in spool_directory.rglob("*") if path.is_file())
    assert len(spooled_records(spool_directory)) == 2


def test_a_large_record_is_held_to_its_limits(connection: Connection, pipeline: AuditPipeline) -> None:
    """In the general way."""
    long = "a text of many words " * 5000
    made = same_both_ways(pipeline.logger, row(connection, written=[(FIELDS[0], long)]))
    assert made.records == 1
    assert decode_record(made.payloads[0]).truncated


def test_a_fault_in_the_quick_way_costs_no_record(
    connection: Connection, pipeline: AuditPipeline, spool_directory: Path
) -> None:
    """Nor any detail: the record is made in the general way."""
    with patch.object(lone_records, "encode_record", side_effect=RuntimeError("broken")):
        connection.add(row(connection))
        connection.settle()
    [record] = spooled_records(spool_directory)
    assert record.image["name"] == "name 1"


@pytest.mark.parametrize("content", ["summary", "full"])
def test_its_event_on_the_span_is_the_same(spool_directory: Path, content: Any) -> None:
    """Of an outcome that is known and of one that is not."""
    pipeline = AuditPipeline(
        audit_config(spool_directory, span_event=SpanEventConfig(content=content)), ship=False
    )
    connection = connection_of(pipeline)

    def events() -> list[tuple[str, dict[str, Any], int | None]]:
        found = []
        for settle in (connection.committed, connection.unknown):
            with TRACER.start_as_current_span("work") as span:
                connection.add(row(connection, at=msgspec.structs.replace(moment(), time=NOW)))
                connection.before_commit()
                settle()
            found += [
                (
                    event.name,
                    {
                        name: value
                        for name, value in (event.attributes or {}).items()
                        if not name.endswith(("id", "observed_timestamp")) or name == "audit.target.id"
                    },
                    event.timestamp,
                )
                for event in getattr(span, "events", ())
            ]
        return found

    quickly = events()
    with patch.object(AuditLogger, "lone_records", lambda _: None):
        assert quickly == events()
    assert len(quickly) == 2
    pipeline.shutdown(0)


# --- reads ---------------------------------------------------------------------------------------


def read_both_ways(pipeline: AuditPipeline, reading: Reading, *keys: str) -> tuple[bytes, int]:
    """Record that objects were read; return its bytes, and how many records the general way made."""
    made = [read_bytes(pipeline, reading, *keys, quickly=quickly) for quickly in (True, False)]
    assert made[0].payloads == made[1].payloads
    assert made[1].records in (1, 2)  # two where the first could not be made, and one says the least
    [payload] = made[0].payloads
    return payload, made[0].records


def read_bytes(pipeline: AuditPipeline, reading: Reading, *keys: str, quickly: bool) -> Made:
    taken: list[bytes] = []
    calls: list[str] = []
    record = AuditLogger.record

    def count(self: AuditLogger, event_name: str, *args: Any, **values: Any) -> AuditRecord:
        calls.append(event_name)
        return record(self, event_name, *args, **values)

    with ExitStack() as stack:
        stack.enter_context(patch("time.time_ns", lambda: NOW + 7))
        for place in ("logger", "lone_records"):
            stack.enter_context(patch(f"otel_audit.pipeline.{place}.new_record_id", lambda *_: "01" * 18))
        stack.enter_context(patch.object(SpoolWriter, "append", lambda _, payloads: taken.extend(payloads)))
        stack.enter_context(patch.object(AuditLogger, "record", count))
        if not quickly:
            stack.enter_context(patch.object(AuditLogger, "lone_records", lambda _: None))
        where = Database("sqlite", "main", address="192.0.2.9", port=5432)
        records = ReadRecords(pipeline.logger, pipeline.logger.failures, where)
        tally = Tally(reading, [str], 10)
        records.count([tally], keys)
        records.keep([tally])
    return Made(taken, len(calls))


NAMES = st.one_of(st.sampled_from(["name", "price", "password", "token"]), st.text(max_size=6), TEXTS)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    said=fields,
    tenant=st.sampled_from(["", "a", None]),
    names=st.lists(NAMES, max_size=4),
    keys=st.lists(st.one_of(st.integers(1).map(str), st.text(), st.sampled_from(SECRETS)), max_size=12),
    key_strategies=st.sampled_from([(), ("",), ("mask",), ("keep_last:4",)]),
)
def test_whatever_is_read_the_bytes_are_those_of_the_general_way(
    keyed: AuditPipeline,
    said: ContextFields,
    tenant: str | None,
    names: list[Any],
    keys: list[str],
    key_strategies: tuple[str, ...],
) -> None:
    """Any names of fields, keys and contexts, secrets among them."""
    token = enter_scope(Said(said))
    try:
        at = msgspec.structs.replace(moment(), time=NOW, tenant=tenant)
        reading = Reading("shop.Order", "shop.order", "shop_order", tuple(names), True, key_strategies)
        with patch("otel_audit.capture.reads.moment", lambda: at):
            read_both_ways(keyed, reading, *keys)
    finally:
        leave_scope(token)


@pytest.mark.parametrize("part", ["source", "request", "tenant", "system", "origin"])
def test_a_scope_that_cannot_be_recorded_costs_a_read_its_keys_not_its_record(
    pipeline: AuditPipeline, part: str
) -> None:
    reading = Reading("shop.Order", "shop.order", "shop_order", ("name",), True)
    token = enter_scope(Said(ContextFields(**{part: Broken()})))  # type: ignore[arg-type]
    try:
        payload, _ = read_both_ways(pipeline, reading, "7", "8")
    finally:
        leave_scope(token)
    record = decode_record(payload)
    assert (record.target, record.bulk, record.truncated) == (Target("shop.Order"), Bulk(2), True)
    assert record.completeness == "count"


@pytest.mark.parametrize("keys", [["7"], ["7", "8", "9"], []])
def test_what_was_read_is_recorded_quickly(pipeline: AuditPipeline, keys: list[str]) -> None:
    """And the event on its span names the fields that were read, as that of any other record."""
    reading = Reading("shop.Order", "shop.order", "shop_order", ("name", "price"), True)
    payload, records = read_both_ways(pipeline, reading, *keys)
    assert records == 0
    record = decode_record(payload)
    assert record.target == Target("shop.Order", "7" if len(keys) == 1 else "")
    assert record.bulk == (None if len(keys) == 1 else Bulk(len(keys), keys))
    assert (record.fields, record.database.port) == (["name", "price"], 5432)
    spans: list[Any] = []
    for quickly in (True, False):
        with TRACER.start_as_current_span("read") as span:
            read_bytes(pipeline, reading, *keys, quickly=quickly)
        [event] = span.events  # type: ignore[attr-defined]
        spans.append((event.name, dict(event.attributes)))
    assert spans[0] == spans[1]
    assert spans[0][1]["otel_audit.changed_fields"] == ("name", "price")


@given(
    chunks=st.lists(
        st.lists(st.one_of(st.integers(0, 9), st.none(), st.integers(), st.just(""), st.text(), st.floats()))
    ),
    most=st.integers(0, 12),
    every_row=st.booleans(),
)
def test_keys_read_all_at_once_are_those_read_one_by_one(
    chunks: list[list[Any]], most: int, every_row: bool
) -> None:
    reading = Reading("shop.Order", "shop.order", "shop_order", (), every_row)
    column = KeyColumn(1, int, freeze)
    tallies = [Tally(reading, [read], most) for read in (column, column.__call__)]
    for chunk in chunks:
        for tally in tallies:
            tally.add([("x", value) for value in chunk])
    at_once, one_by_one = [(list(tally.keys), tally.count, tally.complete) for tally in tallies]
    assert at_once == one_by_one
