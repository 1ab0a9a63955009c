"""The event on a span: a record's second sight, for people who read traces. Never the record itself."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from opentelemetry.trace import Span, get_current_span
from opentelemetry.util.types import AttributeValue

from otel_audit import semconv
from otel_audit.context import Moment
from otel_audit.record import AuditRecord

Content: TypeAlias = Literal["summary", "full", "none"]

MAX_EVENTS: Final = 64
"""Most events of one emit or transaction: a span keeps its newest 128, the application's own included."""


def add_span_event(record: AuditRecord, at: Moment, content: Content) -> None:
    """Add the event of ``record`` to the span of the write, or to the current one if that has ended.

    The event has the time of the write. Of a bulk statement's parts only the first adds one.
    """
    if content == "none" or (record.bulk is not None and record.bulk.part > 1):
        return
    span: Span = at.span
    if not span.is_recording():
        span = get_current_span()
        if not span.is_recording():
            return
    attributes = _summary(record) if content == "summary" else semconv.to_attributes(record)
    span.add_event(record.event_name, attributes, timestamp=record.timestamp)


def _summary(record: AuditRecord) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        semconv.RECORD_ID: record.id,
        semconv.ACTION: record.action,
        semconv.OUTCOME: record.outcome,
    }
    if record.target is not None:
        attributes[semconv.TARGET_TYPE] = record.target.type
        if record.target.id:
            attributes[semconv.TARGET_ID] = record.target.id
    fields = record.changed_fields
    if fields:
        attributes[semconv.CHANGED_FIELDS] = fields
    return attributes
