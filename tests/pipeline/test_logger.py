"""Making records: context, portable values, hooks, redaction, size; and what becomes of failures."""

from __future__ import annotations

import datetime
import decimal
import enum
import functools
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace import TracerProvider

from otel_audit.audit_context import ContextFields, Moment, context, enter_scope, leave_scope, moment
from otel_audit.audit_record import Actor, AuditRecord, Bulk, Change, Column, Database, Target
from otel_audit.config.model import ContextConfig
from otel_audit.errors import AuditError, InvalidRecord
from otel_audit.pipeline import limits, provider
from otel_audit.pipeline.provider import AuditPipeline
from tests.hostile_values import Lazy, Markup, Mute, Plain
from tests.pipeline.spooling import audit_config, make_record, spooled_records

Make = Callable[..., AuditPipeline]


def test_a_record_has_the_context_of_its_moment(pipeline: AuditPipeline) -> None:
    """Not that of the time it is made at: a transaction makes its records at the commit."""
    tracer = TracerProvider().get_tracer("test")
    with (
        context(actor=Actor("7", "user"), reason="because", tenant="t1", ticket=12),
        tracer.start_as_current_span("write") as span,
    ):
        at = moment()
    with context(actor="8"):
        record = make_record(pipeline, at=at, attributes={"own": 1})
    assert record.actor == Actor("7", "user")
    assert (record.reason, record.tenant) == ("because", "t1")
    assert record.attributes == {"ticket": 12, "own": 1}
    assert record.timestamp == at.time
    assert record.trace_id == f"{span.get_span_context().trace_id:032x}"
    assert record.span_id == f"{span.get_span_context().span_id:016x}"


def test_a_record_names_the_function_of_the_application_if_asked_to(spool_directory: Path) -> None:
    """That of its moment, past everything of ours and of libraries; unless asked, none."""

    class Desk:
        def refund(self) -> Moment:
            # Through the standard library, whose frames are nobody's answer.
            return functools.reduce(lambda _, __: moment(), [1, 2])  # type: ignore[arg-type, return-value]

    try:
        pipeline = provider.start(
            audit_config(spool_directory, context=ContextConfig(code_location=True)), ship=False
        )
        code = make_record(pipeline, at=Desk().refund()).code
        assert code.startswith(f"{__name__}.test_a_record_names_the_function")
        assert "Desk.refund" in code

        pipeline = provider.start(audit_config(spool_directory), ship=False)
        assert make_record(pipeline, at=Desk().refund()).code == ""
    finally:
        provider.stop()


def test_configured_tenant_and_system_stand_where_the_context_has_none(
    spool_directory: Path, pipelines: Make
) -> None:
    """The context wins."""
    pipeline = pipelines(audit_config(spool_directory, tenant="main", system="app"))
    with context(system="scheduler"):
        record = make_record(pipeline)
    assert (record.tenant, record.system) == ("main", "scheduler")


def test_values_become_portable_and_say_what_they_were(pipeline: AuditPipeline) -> None:
    """Whatever the application put in, a reader can read."""
    identifier = uuid.uuid4()
    record = make_record(
        pipeline,
        changes=[
            Change("price", decimal.Decimal("1.10"), decimal.Decimal("1.20")),
            Change("due", None, datetime.date(2026, 11, 23)),
            Change("note", "a", "b"),
            Change("ratio", 0.5, float("nan")),
            Change("big", 1, 2**70),
            Change("broken", "ok", "lone \ud800 surrogate"),
            Change("unknown", new=3),
        ],
        image={"id": identifier, "tags": ("a", b"b")},
        attributes={"when": datetime.timedelta(seconds=90), "n": 1},
    )
    assert record.changes[0] == Change("price", "1.10", "1.20", "decimal")
    assert record.changes[1] == Change("due", None, "2026-11-23", "date")
    assert record.changes[2] == Change("note", "a", "b")
    assert record.changes[3].new == "nan"
    assert record.changes[4].new == str(2**70)
    assert record.changes[5].new == "lone ? surrogate"
    assert record.changes[6].old is msgspec.UNSET
    assert record.image == {"id": str(identifier), "tags": ["a", "Yg=="]}
    assert record.attributes["n"] == 1


def test_bulk_values_become_portable(pipeline: AuditPipeline) -> None:
    """In every array."""
    bulk = Bulk(2, ["1", "2"], [Column("price", new=[decimal.Decimal("1.5"), None], type="decimal")])
    record = make_record(pipeline, changes=[], bulk=bulk)
    assert record.bulk is not None
    assert record.bulk.columns[0].new == ["1.5", None]


def test_what_was_kept_is_what_was_made(pipeline: AuditPipeline, spool_directory: Path) -> None:
    """Nothing is lost or changed on the way to the disk."""
    record = make_record(
        pipeline, message="héllo", attributes={"deep": {"list": [1, 2.5, None, True, "x"]}}, error="E"
    )
    pipeline.logger.emit(record)
    assert spooled_records(spool_directory) == [record]


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"target": Target("", "7")}, "target.type"),
        ({"target": "shop.Order"}, "Target"),
        ({"log": ""}, "log"),
        ({"outcome": "maybe"}, "maybe"),
        ({"changes": [Change("", 1, 2)]}, "field"),
        ({"completeness": "half"}, "completeness"),
        ({"old_values": "guessed"}, "old_values"),
    ],
)
def test_a_record_that_does_not_say_what_happened_is_refused(
    pipeline: AuditPipeline, values: dict[str, Any], word: str
) -> None:
    """The message names the part."""
    with pytest.raises(InvalidRecord, match=word):
        make_record(pipeline, **values)


class Kind(enum.StrEnum):
    ORDER = "shop.Order"
    FAILED = "failure"


@pytest.mark.parametrize(
    ("values", "part", "expected"),
    [
        ({"target": Target("shop.Order", 7)}, "target", Target("shop.Order", "7")),  # type: ignore[arg-type]
        ({"target": Target(Kind.ORDER, "7")}, "target", Target("shop.Order", "7")),
        ({"actor": Actor(7)}, "actor", Actor("7")),  # type: ignore[arg-type]
        ({"actor": 7}, "actor", Actor("7", "user")),
        ({"message": Markup("x")}, "message", "x"),
        ({"message": Lazy()}, "message", "later"),
        ({"error": Markup("x")}, "error", "x"),
        ({"outcome": Kind.FAILED}, "outcome", "failure"),
        ({"log": Markup("activity")}, "log", "activity"),
        ({"event_type": Markup("x")}, "event_type", "x"),
        ({"changes": [Change(3, 1, 2)]}, "changes", [Change("3", 1, 2)]),  # type: ignore[arg-type]
        ({"fields": [1, Markup("b")]}, "fields", ["1", "b"]),
        ({"fields": "price"}, "fields", ["price"]),
        ({"database": Database(table=Markup("t"))}, "database", Database(table="t")),
        ({"related": [Target("a.B", 3)]}, "related", [Target("a.B", "3")]),  # type: ignore[arg-type]
        ({"attributes": {Markup("a"): Markup("b")}}, "attributes", {"a": "b"}),
    ],
)
def test_ids_and_texts_of_another_type_become_text(
    pipeline: AuditPipeline, spool_directory: Path, values: dict[str, Any], part: str, expected: Any
) -> None:
    """A reader checks the type of every part: it is written as it will be read."""
    record = make_record(pipeline, **values)
    assert getattr(record, part) == expected
    assert not record.truncated
    pipeline.logger.emit(record)
    assert spooled_records(spool_directory) == [record]


@pytest.mark.parametrize(
    ("values", "part", "expected"),
    [
        ({"actor": Actor("")}, "actor", Actor("unknown")),
        ({"actor": Actor("7", "robot")}, "actor", Actor("7", "unknown")),  # type: ignore[arg-type]
        ({"actor": Mute()}, "actor", Actor("unknown", "user")),
        ({"message": Mute()}, "message", ""),
        ({"target": Target("shop.Order", Mute())}, "target", Target("shop.Order")),  # type: ignore[arg-type]
        ({"attributes": {"a": Mute(), "b": 1}}, "attributes", {"a": "<Mute>", "b": 1}),
        ({"changes": [Change("a", Plain(), 1)]}, "changes", [Change("a", "<Plain>", 1, "text")]),
    ],
)
def test_what_has_no_text_is_left_out_and_the_record_says_so(
    pipeline: AuditPipeline, spool_directory: Path, values: dict[str, Any], part: str, expected: Any
) -> None:
    """It costs itself, not the record."""
    record = make_record(pipeline, **values)
    assert getattr(record, part) == expected
    assert record.truncated
    pipeline.logger.emit(record)
    assert spooled_records(spool_directory) == [record]


def test_a_scope_that_raises_costs_who_and_not_what(
    pipeline: AuditPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    """Scopes are made by instrumentors and applications."""

    class Torn:
        def fields(self) -> ContextFields:
            raise RuntimeError("torn")

    token = enter_scope(Torn())
    try:
        record = make_record(pipeline)
    finally:
        leave_scope(token)
    assert (record.actor, record.truncated) == (Actor("unknown"), True)
    assert record.target == Target("shop.Order", "0")
    assert "context" in caplog.text


@pytest.mark.parametrize(
    ("event_name", "action"),
    [("", "UPDATE"), ("a.b", ""), ("a.b", "update"), ("a\nb", "UPDATE"), (None, "UPDATE"), ("a.b", 7)],
)
def test_event_name_and_action_are_checked(pipeline: AuditPipeline, event_name: Any, action: Any) -> None:
    """The message says what to write instead."""
    with pytest.raises(InvalidRecord, match=r"shop\.order\.update|UPDATE"):
        pipeline.logger.record(event_name, action)


def test_observed_is_never_before_it_happened(
    pipeline: AuditPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock went back an hour between write and commit."""
    at = moment()
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 3600 * 10**9)
    record = make_record(pipeline, at=at)
    assert record.timestamp == at.time
    assert record.observed_timestamp == at.time


def test_hooks_enrich_and_a_broken_one_costs_nothing(
    spool_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Before redaction, so that what they add is redacted as well."""

    def add(record: AuditRecord) -> AuditRecord:
        return msgspec.structs.replace(
            record, attributes={**record.attributes, "password": "hunter2", "a": 1}
        )

    def broken(record: AuditRecord) -> AuditRecord:
        raise RuntimeError("hook")

    def unreadable(record: AuditRecord) -> AuditRecord:
        return msgspec.structs.replace(record, message=7)

    hooks = [broken, unreadable, add]
    pipeline = AuditPipeline(audit_config(spool_directory), hooks=hooks, ship=False)
    record = make_record(pipeline)
    assert record.attributes["a"] == 1
    assert "hunter2" not in str(record)
    assert any("hook" in line.message for line in caplog.records)


def test_when_redaction_fails_no_value_is_kept(
    spool_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The record is there, with names and counts; what might be a secret is not."""

    class Broken:
        has_own_values = False

        def are_clean(self, *_: object) -> bool:
            raise RuntimeError("rules")

        def record(
            self,
            record: AuditRecord,
            strategies: Mapping[str, str] | None = None,
            key: Sequence[str] | None = None,
        ) -> AuditRecord:
            raise RuntimeError("rules")

        def shortened(
            self, record: AuditRecord, strategies: Mapping[str, str] | None, limit: int
        ) -> AuditRecord:
            raise RuntimeError("limits")

        def mapping(self, mapping: Mapping[str, Any]) -> dict[str, Any]:
            return dict(mapping)

        def digest(self, digest: bytes) -> str:
            return ""

    pipeline = AuditPipeline(audit_config(spool_directory), redactor=Broken(), ship=False)
    record = make_record(
        pipeline,
        changes=[Change("iban", "secret-1", "secret-2")],
        image={"iban": "secret-2"},
        attributes={"x": "secret-3"},
        message="secret-4",
    )
    assert "secret" not in str(record)
    assert record.changed_fields == ["iban"]
    assert record.truncated
    assert any("redaction" in line.message for line in caplog.records)
    pipeline.shutdown(0)


def test_half_a_surrogate_pair_does_not_blank_a_record(
    pipeline: AuditPipeline, spool_directory: Path
) -> None:
    half = "\ud83d"
    record = pipeline.logger.record(
        "shop.order.update",
        "UPDATE",
        target=Target("shop.Order", f"7{half}"),
        changes=[Change("status", "a", "b"), Change("payload", f'{{"a": "{half}"}}', "x")],
        actor=Actor(f"ann{half}", "user"),
        message=f'{{"note": "{half}", "p\\u0061ssword": "hunter2"}}',
        attributes={half: half, "password": "hunter2"},
        strategies={"payload": "hmac"},
    )
    assert not record.truncated
    assert record.changes[0] == Change("status", "a", "b")
    pipeline.logger.emit(record)
    raw = b"".join(file.read_bytes() for file in spool_directory.rglob("*") if file.is_file())
    assert b"shop.order.update" in raw
    assert b"hunter2" not in raw


def encoded_size(record: AuditRecord) -> int:
    return len(msgspec.msgpack.encode(record))


@pytest.mark.parametrize(
    "values",
    [
        {"changes": [Change("text", "a" * 3_000_000, "b" * 3_000_000)]},
        {"changes": [Change(f"f{n}", "a" * 2000, "b" * 2000) for n in range(400)]},
        {"image": {f"f{n}": "a" * 20_000 for n in range(100)}},
        {"attributes": {"nested": [["x" * 1000] * 100] * 20}},
        {"message": "m" * 5_000_000},
        {"fields": [f"field{n}" for n in range(200_000)]},
        {"related": [Target("shop.Order", str(n)) for n in range(100_000)]},
        {"changes": [Change("f" * 2_000_000, 1, 2)]},
        {"error": "e" * 2_000_000},
        {"actor": Actor("a" * 2_000_000)},
        {"database": Database(table="t" * 2_000_000)},
    ],
    ids=lambda values: next(iter(values)),
)
def test_a_record_too_large_is_cut_and_says_so(pipeline: AuditPipeline, values: dict[str, Any]) -> None:
    """It keeps who, what and which fields; a signer further down refuses larger ones for ever."""
    record = make_record(pipeline, **values)
    assert record.truncated
    assert encoded_size(record) <= limits.MAX_BYTES
    assert record.target == Target("shop.Order", "0")


def test_a_bulk_too_large_keeps_its_ids_or_at_least_its_count(pipeline: AuditPipeline) -> None:
    """And says which."""
    keys = [str(n) for n in range(1000)]
    wide = Bulk(1000, keys, [Column("text", new=["x" * 2000] * 1000)])
    record = make_record(pipeline, changes=[], bulk=wide)
    assert (record.completeness, record.truncated) == ("ids", True)
    assert record.bulk is not None
    assert record.bulk.keys == keys
    assert record.changed_fields == ["text"]
    long = Bulk(1000, ["k" * 3000] * 1000, [])
    record = make_record(pipeline, changes=[], bulk=long)
    assert record.completeness == "count"
    assert record.bulk is not None
    assert (record.bulk.count, record.bulk.keys) == (1000, [])


def test_an_ordinary_record_is_not_cut(pipeline: AuditPipeline) -> None:
    """Sixty thousand characters are ordinary."""
    record = make_record(pipeline, changes=[Change("text", "a" * 60_000, "b" * 60_000)])
    assert not record.truncated


def test_what_slips_through_is_repaired_before_it_is_written(
    pipeline: AuditPipeline, spool_directory: Path
) -> None:
    """A record built by hand may hold what cannot be encoded."""
    record = msgspec.structs.replace(
        make_record(pipeline),
        message="lone \udc80",
        attributes={"when": datetime.date(2026, 1, 1), "o": object},
    )
    pipeline.logger.emit(record)
    [kept] = spooled_records(spool_directory)
    assert kept.message == "lone ?"
    assert kept.attributes["when"] == "2026-01-01"
    assert kept.id == record.id


def test_what_cannot_be_repaired_is_counted_and_harms_no_other(
    pipeline: AuditPipeline, spool_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The records beside it are kept."""
    broken = msgspec.structs.replace(make_record(pipeline, 1), target=object())
    pipeline.logger.emit(make_record(pipeline, 0), broken, make_record(pipeline, 2))
    assert len(spooled_records(spool_directory)) == 2
    assert pipeline.health.capture_failures == {"encode": 1}
    assert any(line.levelno == logging.ERROR for line in caplog.records)


def test_what_cannot_be_repaired_is_raised_if_asked_for(spool_directory: Path, pipelines: Make) -> None:
    """fail_closed."""
    pipeline = pipelines(audit_config(spool_directory, on_error="fail_closed"))
    broken = msgspec.structs.replace(make_record(pipeline, 1), target=object())
    with pytest.raises(AuditError):
        pipeline.logger.emit(broken)


def test_after_the_stop_nothing_is_kept_and_that_is_said(pipeline: AuditPipeline) -> None:
    """Not silently."""
    record = make_record(pipeline)
    pipeline.shutdown(0)
    pipeline.logger.emit(record)
    assert pipeline.health.dropped == 1
