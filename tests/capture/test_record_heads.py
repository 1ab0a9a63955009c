"""Records of one transaction: what they share is encoded once, and each is what it would be made alone."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from otel_audit.audit_context import Moment, context, moment
from otel_audit.audit_record import AuditRecord
from otel_audit.capture.plan import FieldPlan, TablePlan
from otel_audit.capture.table_policy import KeyStrategies, TableSettings
from otel_audit.capture.transactions.connection import Connection
from otel_audit.capture.transactions.state import CaptureState
from otel_audit.capture.transactions.transaction_buffer import TransactionBuffer
from otel_audit.capture.writes import RowWrite
from otel_audit.config.model import RedactionConfig, SpanEventConfig
from otel_audit.errors import SpoolError
from otel_audit.pipeline import record_heads
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.pipeline.provider import AuditPipeline
from otel_audit.pipeline.spool.writer import SpoolWriter
from otel_audit.values import RECORDED, freeze
from tests.hostile_values import anything
from tests.pipeline.spooling import audit_config, spooled_records

NOW = 1_800_000_000_000_000_000
FIELDS = [FieldPlan(name) for name in ("name", "password", "data", "seen", "é")]
SECRETS = [
    "hunter2",
    "password=hunter2",
    "ghp_" + "a" * 36,
    "4111 1111 1111 1111",
    "\ud800",
    4111111111111111,
]
"""What rules find, or what cannot be encoded."""
ZONES = st.one_of(st.none(), st.timezones())
SCALARS = st.one_of(
    st.datetimes(timezones=ZONES),
    st.dates(),
    st.times(),
    st.decimals(),
    st.uuids(),
)
JSON = {"tags": ["new", "blue"], "deep": {"x": 1.5, "ok": True}}
USUAL_VALUES = st.one_of(
    st.text(max_size=8), st.integers(-9, 9), st.floats(), SCALARS, st.just(JSON), st.none(), st.booleans()
)
VALUES = st.one_of(*[USUAL_VALUES] * 8, st.sampled_from(SECRETS), st.integers(), anything, st.just(UNSET))
SOME_FIELDS = st.sampled_from([FIELDS[0], FIELDS[2], FIELDS[4]] * 5 + FIELDS)
VOLATILE = ("record.id", "transaction.id", "observed_timestamp", "span.id")
"""Ends of names of attributes that differ from one record to the next."""
TRACER = TracerProvider().get_tracer("test")


class Written(NamedTuple):
    """A write as hypothesis draws it."""

    verb: str
    key: Any
    changed: list[tuple[FieldPlan, Any, Any]]
    written: list[tuple[FieldPlan, Any]]
    place: int
    plan: int
    old_values: str | None
    error: str


writes = st.builds(
    Written,
    verb=st.sampled_from(["update", "update", "create"]),
    key=st.one_of(*[st.integers(0, 9)] * 5, st.text(max_size=4), st.sampled_from(SECRETS), st.just(UNSET)),
    changed=st.lists(st.tuples(SOME_FIELDS, VALUES, VALUES), max_size=3),
    written=st.lists(st.tuples(SOME_FIELDS, VALUES), max_size=4),
    place=st.integers(0, 2),
    plan=st.sampled_from([0, 0, 0, 0, 0, 1, 2, 3]),
    old_values=st.sampled_from(["as_loaded", "as_loaded", "exact", None]),
    error=st.sampled_from([""] * 9 + ["ValueError"]),
)
places = st.fixed_dictionaries(
    {},
    optional={
        "actor": st.one_of(st.sampled_from([1, "1", 1.0, True]), anything),
        "reason": st.one_of(st.text(max_size=5), st.sampled_from(SECRETS)),
        "tenant": st.sampled_from(["", "a", "b", 1]),
        "system": st.sampled_from(["x", "y"]),
        "flag": st.sampled_from([1, True, 1.0, "1", None]),
        "more": anything,
    },
)


def table(label: str, **settings: Any) -> TablePlan:
    return TablePlan(
        label, label.lower(), FIELDS, FIELDS[:1], TableSettings(True, False, "as_loaded", {}), **settings
    )


PLANS = [
    table("shop.Order"),
    table("shop.Article"),
    table("shop.Key", secret=KeyStrategies(("keep_last:4",), {"name": "keep_last:4"})),
    table("shop.Link", secret=KeyStrategies(("",), {"data": "keep"}), ends={"data": "shop.Order"}),
]


class Made(NamedTuple):
    payloads: list[bytes]
    records: int


def spooled_bytes(logger: AuditLogger, pendings: list[RowWrite], *, quickly: bool) -> Made:
    """Commit writes; return the bytes of each record, made at one time and with one id.

    ``quickly``: in the quick ways there are, of one write and of many; else each in the general way.
    """
    taken: list[bytes] = []

    def intend(self: SpoolWriter, payloads: list[bytes]) -> int:
        taken.extend(payloads)
        return 1

    calls = 0
    record = AuditLogger.record

    def count(self: AuditLogger, *args: Any, **values: Any) -> AuditRecord:
        nonlocal calls
        calls += 1
        return record(self, *args, **values)

    buffer = TransactionBuffer(logger)
    for pending in pendings:
        buffer.add(pending)
    with ExitStack() as stack:
        stack.enter_context(patch("time.time_ns", lambda: NOW + 7))
        made_in = ("pipeline.logger", "pipeline.lone_records", "pipeline.record_heads")
        for place in (*made_in, "capture.transactions.transaction_buffer"):
            stack.enter_context(patch(f"otel_audit.{place}.new_record_id", lambda *_: "01" * 18))
        stack.enter_context(patch.object(SpoolWriter, "intend", intend))
        stack.enter_context(patch.object(AuditLogger, "record", count))
        if not quickly:
            for way in ("heads", "lone_records"):
                stack.enter_context(patch.object(AuditLogger, way, lambda _: None))
        buffer.before_commit()
    return Made(taken, calls)


def connection_of(pipeline: AuditPipeline) -> Connection:
    config = pipeline.config
    return Connection(CaptureState("toy", config, config.django, pipeline), system="sqlite", namespace="main")


@pytest.fixture
def connection(pipeline: AuditPipeline) -> Connection:
    return connection_of(pipeline)


def row(connection: Connection, number: int = 1, **parts: Any) -> RowWrite:
    """An update of a row; ``parts`` stand in place of the usual ones."""
    name = f"name {number}"
    parts = {
        "plan": PLANS[0],
        "verb": "update",
        "key": number,
        "changed": [(FIELDS[0], "before", name)],
        "written": [(FIELDS[0], name), (FIELDS[3], 7)],
        "old_values": "as_loaded",
        **parts,
    }
    return RowWrite(parts.pop("plan"), parts.pop("verb"), connection, **parts)


def moments(described: list[dict[str, Any]]) -> list[Moment]:
    """The present moment in contexts nested into each other, and in a span of each."""
    made = []
    with ExitStack() as stack:
        stack.enter_context(patch("time.time_ns", lambda: NOW))
        for place in described:
            stack.enter_context(context(**place))
            stack.enter_context(TRACER.start_as_current_span("work"))
            made.append(moment())
    return made


# --- the same bytes ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditPipeline]:
    redaction = RedactionConfig(hmac_key="k" * 32, names=["^seen$"])
    pipeline = AuditPipeline(audit_config(tmp_path_factory.mktemp("heads"), redaction=redaction), ship=False)
    yield pipeline
    pipeline.shutdown(0)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=st.lists(writes, min_size=2, max_size=6), described=st.lists(places, min_size=3, max_size=3))
def test_whatever_is_written_and_wherever_the_bytes_are_those_of_records_made_alone(
    keyed: AuditPipeline, drawn: list[Written], described: list[dict[str, Any]]
) -> None:
    """Any values, keys, contexts, spans, verbs and errors, one after the other."""
    connection = connection_of(keyed)
    at = moments(described)

    def pendings() -> list[RowWrite]:
        made = []
        for each in drawn * 3:  # at least the second of each has a head
            write = row(
                connection,
                plan=PLANS[each.plan],
                verb=each.verb,
                key=each.key,
                changed=[(plan, freeze(old), freeze(new)) for plan, old, new in each.changed],
                written=[(plan, freeze(value)) for plan, value in each.written],
                old_values=each.old_values,
                at=at[each.place],
            )
            write.error = each.error
            made.append(write)
        return made

    held = pendings()
    together = spooled_bytes(keyed.logger, held, quickly=True)
    assert together.payloads == spooled_bytes(keyed.logger, held, quickly=False).payloads


@given(value=st.one_of(st.datetimes(timezones=ZONES), st.dates(), st.times()))
def test_no_rule_finds_anything_in_a_date_or_time(keyed: AuditPipeline, value: Any) -> None:
    """They need not be looked at."""
    record = keyed.logger.record("a.b", "UPDATE", image={"name": value}, message="x")
    assert record.image["name"] == RECORDED[type(value)][0](value)


PLACES: list[dict[str, Any]] = [
    {"flag": 1},
    {"flag": True},
    {"flag": 1.0},
    {"flag": "1"},
    {"flag": None},
    {"actor": "1"},
    {"actor": "2"},
    {"reason": "a"},
    {"tenant": "a"},
    {"system": "a"},
    {"on_behalf_of": "3"},
    {},
]


def test_a_head_ends_where_anything_of_the_context_changes(
    connection: Connection, pipeline: AuditPipeline
) -> None:
    """Values that are equal in Python and not in a record are different ones; equal contexts share a head."""
    with patch("time.time_ns", lambda: NOW):
        at = []
        for place in PLACES * 3:
            with context(**place):
                at.append(moment())
    pendings = [row(connection, number, at=each) for number, each in enumerate(at, 1)]
    together = spooled_bytes(pipeline.logger, pendings, quickly=True)
    assert together.payloads == spooled_bytes(pipeline.logger, pendings, quickly=False).payloads
    assert together.records == len(PLACES)


# --- encoded once --------------------------------------------------------------------------------

USUAL: list[Any] = [
    "a text",
    None,
    True,
    7,
    2.5,
    decimal.Decimal("12.50"),
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    datetime.date(2026, 1, 2),
    datetime.time(1, 2),
    uuid.UUID(int=7),
    JSON,
]


@pytest.mark.parametrize("value", USUAL, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("kept", [{}, {"data": "keep"}])
def test_what_the_records_of_a_transaction_share_is_made_once(
    connection: Connection, pipeline: AuditPipeline, kept: dict[str, str], value: Any
) -> None:
    """Fifty rows of the values most columns hold: one record is made, the others are put behind its head."""
    plan = table("shop.Kept", secret=KeyStrategies(("",), kept))
    pendings = [
        row(
            connection,
            number,
            plan=plan,
            changed=[(FIELDS[2], None, freeze(value)), (FIELDS[0], "a", f"b {number}")],
            written=[(FIELDS[2], freeze(value)), (FIELDS[0], f"b {number}")],
        )
        for number in range(1, 51)
    ]
    assert spooled_bytes(pipeline.logger, pendings, quickly=True).records == 1
    assert spooled_bytes(pipeline.logger, pendings, quickly=False).records == 50


def test_a_secret_is_removed_from_a_record_that_has_a_head(
    connection: Connection, pipeline: AuditPipeline, spool_directory: Path
) -> None:
    """Before it is on disk, as from any other (G5)."""
    for number in range(1, 5):
        name = "password=hunter2" if number == 4 else f"name {number}"
        connection.add(row(connection, number, written=[(FIELDS[0], name)], changed=[(FIELDS[0], "a", name)]))
    connection.settle()
    assert all(b"hunter2" not in path.read_bytes() for path in spool_directory.rglob("*") if path.is_file())
    assert [record.changes[0].new for record in spooled_records(spool_directory)][:3] == [
        "name 1",
        "name 2",
        "name 3",
    ]


@pytest.mark.parametrize("settings", [{"hooks": [lambda record: record]}, {"values": ["x[0-9]+"]}])
def test_hooks_and_own_patterns_see_each_record(spool_directory: Path, settings: dict[str, Any]) -> None:
    """Every one is made by itself."""
    config = audit_config(spool_directory, redaction=RedactionConfig(values=settings.get("values", [])))
    pipeline = AuditPipeline(config, hooks=settings.get("hooks", ()), ship=False)
    connection = connection_of(pipeline)
    made = spooled_bytes(pipeline.logger, [row(connection, number) for number in range(1, 6)], quickly=True)
    assert made.records == 5
    pipeline.shutdown(0)


def test_a_fault_in_the_quick_way_costs_no_record(
    connection: Connection, pipeline: AuditPipeline, spool_directory: Path
) -> None:
    """Nor any detail: the record is made in the general way."""
    with patch.object(record_heads.Head, "payload", side_effect=RuntimeError("broken")):
        for number in range(1, 6):
            connection.add(row(connection, number))
        connection.settle()
    records = spooled_records(spool_directory)
    assert [record.target and record.target.id for record in records] == ["1", "2", "3", "4", "5"]
    assert [record.image["name"] for record in records] == [f"name {number}" for number in range(1, 6)]


# --- what becomes of them ------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["summary", "full"])
def test_records_with_a_head_have_their_events_on_spans(spool_directory: Path, content: str) -> None:
    """The same as of records made alone."""
    pipeline = AuditPipeline(
        audit_config(spool_directory, span_event=SpanEventConfig(content=content)),  # type: ignore[arg-type]
        ship=False,
    )
    connection = connection_of(pipeline)

    def events() -> list[tuple[str, dict[str, Any], int]]:
        with TRACER.start_as_current_span("work") as span:
            at = msgspec.structs.replace(moment(), time=NOW)
            for number in range(1, 4):
                connection.add(row(connection, number, at=at))
            connection.settle()
        assert isinstance(span, ReadableSpan)
        return [
            (
                event.name,
                {
                    name: value
                    for name, value in (event.attributes or {}).items()
                    if not name.endswith(VOLATILE)
                },
                event.timestamp,
            )
            for event in span.events
        ]

    together = events()
    with patch.object(AuditLogger, "heads", lambda _: None):
        assert together == events()
    assert len(together) == 3
    pipeline.shutdown(0)


def test_a_commit_whose_answer_was_lost_is_unknown_on_spans_as_well(
    connection: Connection, pipeline: AuditPipeline, spool_directory: Path
) -> None:
    """Though the records were encoded as a success."""
    with TRACER.start_as_current_span("work") as span:
        for number in range(1, 4):
            connection.add(row(connection, number))
        connection.before_commit()
        connection.unknown()
    assert isinstance(span, ReadableSpan)
    assert {(event.attributes or {})["audit.outcome"] for event in span.events} == {"unknown"}
    assert {record.outcome for record in spooled_records(spool_directory)} == {"unknown"}


def test_records_wait_in_memory_while_the_spool_cannot_take_them(
    connection: Connection, pipeline: AuditPipeline, spool_directory: Path
) -> None:
    """And are kept when it can."""
    for number in range(1, 4):
        connection.add(row(connection, number))
    with patch.object(SpoolWriter, "intend", side_effect=SpoolError("full")):
        connection.before_commit()
    connection.committed()
    assert [record.outcome for record in spooled_records(spool_directory)] == ["success"] * 3


def test_records_the_spool_never_took_are_told_of(
    connection: Connection, pipeline: AuditPipeline, spool_directory: Path
) -> None:
    """How many, and of what."""
    for number in range(1, 4):
        connection.add(row(connection, number))
    with (
        patch.object(SpoolWriter, "intend", side_effect=SpoolError("full")),
        patch.object(SpoolWriter, "append", side_effect=SpoolError("full")),
    ):
        connection.before_commit()
        connection.committed()
    assert pipeline.logger.health.dropped == 3
