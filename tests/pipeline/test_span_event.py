"""The event on the span: at the right span, with the right time, and only what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.trace import use_span

from otel_audit import semconv
from otel_audit.audit_context import moment
from otel_audit.audit_record import Bulk, Change, Column
from otel_audit.config.model import SpanEventConfig
from otel_audit.pipeline.provider import AuditPipeline
from tests.pipeline.spooling import audit_config, make_record

Make = Callable[..., AuditPipeline]
TRACER = TracerProvider().get_tracer("test")


def events(span: Any) -> list[Any]:
    assert isinstance(span, ReadableSpan)
    return list(span.events)


def test_the_summary_has_names_and_no_values(pipeline: AuditPipeline) -> None:
    """Traces are read by more people than the trail."""
    record = make_record(pipeline, changes=[Change("status", "new", "paid"), Change("total", 1, 2)])
    with TRACER.start_as_current_span("request") as span:
        pipeline.logger.emit(record)
    [event] = events(span)
    assert event.name == "shop.order.update"
    assert event.timestamp == record.timestamp
    assert dict(event.attributes) == {
        semconv.RECORD_ID: record.id,
        semconv.ACTION: "UPDATE",
        semconv.OUTCOME: "success",
        semconv.TARGET_TYPE: "shop.Order",
        semconv.TARGET_ID: "0",
        semconv.CHANGED_FIELDS: ("status", "total"),
    }


def test_an_sdk_with_other_internals_gets_the_same_event(
    pipeline: AuditPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short way into the SDK's span is private; the public one says the same."""
    record = make_record(pipeline, changes=[Change("status", "new", "paid")])
    with TRACER.start_as_current_span("request") as short:
        pipeline.logger.emit(record)
    made: list[str] = []

    def by_keyword_only(*, name: str, attributes: Any, timestamp: int) -> Event:
        made.append(name)
        return Event(name, attributes, timestamp)

    monkeypatch.setattr("opentelemetry.sdk.trace.Event", by_keyword_only)
    with TRACER.start_as_current_span("request") as public:
        pipeline.logger.emit(record)
    assert made == [record.event_name]
    [first], [second] = events(short), events(public)
    assert (first.name, first.timestamp, dict(first.attributes)) == (
        second.name,
        second.timestamp,
        dict(second.attributes),
    )


def test_full_has_the_record_and_none_nothing(spool_directory: Path, pipelines: Make) -> None:
    """As configured."""
    contents: list[tuple[Literal["full", "none"], int]] = [("full", 1), ("none", 0)]
    for content, expected in contents:
        config = audit_config(spool_directory, span_event=SpanEventConfig(content=content))
        pipeline = pipelines(config)
        record = make_record(pipeline)
        with TRACER.start_as_current_span("request") as span:
            pipeline.logger.emit(record)
        found = events(span)
        assert len(found) == expected
        if found:
            assert dict(found[0].attributes) == semconv.to_attributes(record)


def test_it_goes_to_the_span_of_the_write_while_that_records(pipeline: AuditPipeline) -> None:
    """The commit may happen under another one."""
    with TRACER.start_as_current_span("request") as outer:
        with TRACER.start_as_current_span("write", end_on_exit=False) as inner:
            at = moment()
            record = make_record(pipeline, at=at)
        pipeline.logger.emit(record, at=at)
        inner.end()
        late = make_record(pipeline, at=at)
        pipeline.logger.emit(late, at=at)
    assert [event.attributes[semconv.RECORD_ID] for event in events(inner)] == [record.id]
    assert [event.attributes[semconv.RECORD_ID] for event in events(outer)] == [late.id]
    assert events(outer)[0].timestamp == at.time


def test_bulk_work_adds_one_event(pipeline: AuditPipeline) -> None:
    """However many parts its record has."""
    with TRACER.start_as_current_span("request") as span:
        pipeline.logger.emit(
            *[
                make_record(
                    pipeline,
                    changes=[],
                    bulk=Bulk(3000, ["1"], [Column("price", new=[1])], id="b", part=part, parts=3),
                )
                for part in (1, 2, 3)
            ]
        )
    [event] = events(span)
    assert event.attributes[semconv.CHANGED_FIELDS] == ("price",)


def test_a_large_emit_leaves_room_for_the_application_s_own_events(pipeline: AuditPipeline) -> None:
    """A span keeps its newest 128 events: ours must not push out theirs."""
    with TRACER.start_as_current_span("request") as span:
        span.add_event("theirs")
        pipeline.logger.emit(*[make_record(pipeline, number) for number in range(300)])
    assert events(span)[0].name == "theirs"
    assert len(events(span)) == 65


def test_no_event_before_the_record_is_kept(
    spool_directory: Path, pipelines: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """A trace must not show what the trail does not have."""
    pipeline = pipelines(audit_config(spool_directory))
    record = make_record(pipeline)
    pipeline.shutdown(0)
    with TRACER.start_as_current_span("request") as span:
        pipeline.logger.emit(record)
    assert events(span) == []


def test_the_current_span_is_left_current(pipeline: AuditPipeline) -> None:
    """Adding an event changes no context."""
    from opentelemetry.trace import get_current_span

    span = TRACER.start_span("request")
    with use_span(span):
        pipeline.logger.emit(make_record(pipeline))
        assert get_current_span() is span
