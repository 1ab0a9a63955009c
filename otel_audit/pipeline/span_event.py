"""The event on a span: a record's second sight, for people who read traces. Never the record itself."""

from __future__ import annotations

import sys
from typing import Any, Final, Literal, TypeAlias

from opentelemetry.trace import Span, get_current_span
from opentelemetry.util.types import AttributeValue

from otel_audit import semconv
from otel_audit.context import Moment
from otel_audit.record import AuditRecord

Content: TypeAlias = Literal["summary", "full", "none"]

_SDK: Final = "opentelemetry.sdk.trace"
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
    if content == "full":
        full = semconv.to_attributes(record) | {semconv.RECORD_ID: semconv.EventRecordId(record.id)}
        span.add_event(record.event_name, full, timestamp=record.timestamp)
        return
    attributes = _summary(record)
    if type(span).__module__ == _SDK and _add_directly(span, record, attributes):
        return
    span.add_event(record.event_name, attributes, timestamp=record.timestamp)


def _add_directly(span: Any, record: AuditRecord, attributes: dict[str, AttributeValue]) -> bool:
    """Add an event to a span of the SDK, past its look at each attribute; False if it has to look.

    Ours are clean already, and that look took longer than the rest of the event. What is used here of the
    SDK is private; should it change, the public way is as good.
    """
    try:
        limits, sdk = span._limits, sys.modules[_SDK]
        most, longest = limits.max_event_attributes, limits.max_attribute_length
        if longest is not None or (most is not None and most < len(attributes)):
            return False
        bounded = sdk.BoundedAttributes(most, immutable=True)
        bounded._dict = attributes
        span._add_event(sdk.Event(record.event_name, bounded, record.timestamp))
    except (AttributeError, TypeError):
        return False
    return True


def _summary(record: AuditRecord) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        semconv.RECORD_ID: semconv.EventRecordId(record.id),
        semconv.ACTION: record.action,
        semconv.OUTCOME: record.outcome,
    }
    if record.target is not None:
        attributes[semconv.TARGET_TYPE] = record.target.type
        if record.target.id:
            attributes[semconv.TARGET_ID] = record.target.id
    fields = record.changed_fields
    if fields:
        attributes[semconv.CHANGED_FIELDS] = tuple(fields)
    return attributes
