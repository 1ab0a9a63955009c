"""The event on a span: a record's second sight, for people who read traces. Never the record itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec
from opentelemetry.trace import Span
from opentelemetry.util.types import AttributeValue

from otel_audit import semconv
from otel_audit.audit_context import Moment
from otel_audit.audit_record import AuditRecord
from otel_audit.otel_api import SDK, current_span
from otel_audit.pipeline.record_heads import Made, whole
from otel_audit.pipeline.validation import repaired
from otel_audit.values import portable

Content: TypeAlias = Literal["summary", "full", "none"]

MAX_EVENTS: Final = 64
"""Most events of one emit or transaction: a span keeps its newest 128, the application's own included."""


def add_span_event(record: Made, at: Moment, content: Content) -> None:
    """Add the event of ``record`` to the span of the write, or to the current one if that has ended.

    The event has the time of the write. Of a bulk statement's parts only the first adds one.
    """
    if content == "none" or (record.bulk is not None and record.bulk.part > 1):
        return
    span: Span = at.span
    if not span.is_recording():
        span = current_span()
        if not span.is_recording():
            return
    if content == "full":
        span.add_event(_text(record.event_name), _whole(whole(record)), timestamp=record.timestamp)
        return
    name, attributes = _summary(record)
    if type(span).__module__ == SDK and _add_directly(span, name, record.timestamp, attributes):
        return
    span.add_event(name, attributes, timestamp=record.timestamp)


def _text(value: str) -> str:
    # An exporter that meets a lone surrogate loses the whole batch of spans.
    return value if value.isascii() else str(portable(value))


def _whole(record: AuditRecord) -> Mapping[str, AttributeValue]:
    try:
        attributes = semconv.to_attributes(record)
        msgspec.json.encode(attributes)
    except UnicodeEncodeError:
        attributes = semconv.to_attributes(repaired(record))
    return {**attributes, semconv.RECORD_ID: semconv.EventRecordId(record.id)}


def _add_directly(span: Any, name: str, timestamp: int, attributes: dict[str, AttributeValue]) -> bool:
    """Add an event to a span of the SDK, past its look at each attribute; False if it has to look.

    Ours are clean already, and that look took longer than the rest of the event. What is used here of the
    SDK is private; should it change, the public way is as good.
    """
    try:
        limits, sdk = span._limits, sys.modules[SDK]
        most, longest = limits.max_event_attributes, limits.max_attribute_length
        if longest is not None or (most is not None and most < len(attributes)):
            return False
        bounded = sdk.BoundedAttributes(most, immutable=True)
        bounded._dict = attributes
        event = sdk.Event(name, bounded, timestamp)
        with span._lock:
            if span._end_time is not None:
                return False
            span._events.append(event)
    except (AttributeError, TypeError):
        return False
    return True


def _summary(record: Made) -> tuple[str, dict[str, AttributeValue]]:
    name, action, target, fields = record.event_name, record.action, record.target, record.changed_fields
    attributes: dict[str, AttributeValue] = {
        semconv.RECORD_ID: semconv.EventRecordId(record.id),
        semconv.ACTION: action,
        semconv.OUTCOME: record.outcome,
    }
    texts = [name, action, *fields]
    if target is not None:
        attributes[semconv.TARGET_TYPE] = target.type
        if target.id:
            attributes[semconv.TARGET_ID] = target.id
        texts += (target.type, target.id)
    if fields:
        attributes[semconv.CHANGED_FIELDS] = tuple(fields)
    if "".join(texts).isascii():
        return name, attributes
    return _text(name), {key: portable(value) for key, value in attributes.items()}
