"""OTLP requests for tests, made with the official messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otel_audit.audit_record import AuditRecord
from otel_audit.semconv import to_attributes

RESOURCE = {"service.name": "shop", "host.name": "web-1", "process.pid": 12}


def any_value(value: Any) -> AnyValue:
    """Return a value of Python as OTLP has it."""
    message = AnyValue()
    if isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, int):
        message.int_value = value
    elif isinstance(value, float):
        message.double_value = value
    elif isinstance(value, bytes):
        message.bytes_value = value
    elif isinstance(value, str):
        message.string_value = value
    elif isinstance(value, list):
        message.array_value.values.extend(any_value(item) for item in value)
        message.array_value.SetInParent()
    elif isinstance(value, dict):
        message.kvlist_value.values.extend(key_values(value))
        message.kvlist_value.SetInParent()
    return message


def key_values(attributes: Mapping[str, Any]) -> list[KeyValue]:
    """Return attributes as OTLP has them."""
    return [KeyValue(key=name, value=any_value(value)) for name, value in attributes.items()]


def logs(entries: Iterable[Mapping[str, Any]]) -> ExportLogsServiceRequest:
    """Make a request of log records, each given by ``time``, ``body`` and ``attributes``."""
    request = ExportLogsServiceRequest()
    resource_logs = request.resource_logs.add()
    resource_logs.resource.attributes.extend(key_values(RESOURCE))
    scope_logs = resource_logs.scope_logs.add()
    scope_logs.scope.name = "tests"
    scope_logs.scope.version = "1"
    for entry in entries:
        log = scope_logs.log_records.add(
            time_unix_nano=entry.get("time", 0),
            observed_time_unix_nano=entry.get("observed_time", 1),
            severity_text=entry.get("severity_text", ""),
            trace_id=bytes.fromhex(entry.get("trace_id", "")),
            span_id=bytes.fromhex(entry.get("span_id", "")),
            event_name=entry.get("event_name", ""),
        )
        if "body" in entry:
            log.body.CopyFrom(any_value(entry["body"]))
        log.attributes.extend(key_values(entry.get("attributes", {})))
    return request


def audit(records: Iterable[AuditRecord]) -> ExportLogsServiceRequest:
    """Make the request our sender makes of records."""
    return logs(
        {
            "time": record.timestamp,
            "observed_time": record.observed_timestamp,
            "event_name": record.event_name,
            "trace_id": record.trace_id,
            "span_id": record.span_id,
            "attributes": to_attributes(record),
            **({"body": record.message} if record.message else {}),
        }
        for record in records
    )


def traces(spans: Iterable[Mapping[str, Any]]) -> ExportTraceServiceRequest:
    """Make a request of spans, each given by ``trace_id``, ``span_id`` and whatever else matters."""
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.extend(key_values(RESOURCE))
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "tests"
    for given in spans:
        span = scope_spans.spans.add(
            trace_id=bytes.fromhex(given["trace_id"]),
            span_id=bytes.fromhex(given["span_id"]),
            parent_span_id=bytes.fromhex(given.get("parent", "")),
            name=given.get("name", "GET /"),
            kind=given.get("kind", 2),
            start_time_unix_nano=given.get("start", 1_790_000_000_000_000_000),
            end_time_unix_nano=given.get("end", 1_790_000_000_005_000_000),
        )
        span.attributes.extend(key_values(given.get("attributes", {})))
        span.status.code = given.get("status", 0)
        span.status.message = given.get("message", "")
        for name, time, attributes in given.get("events", ()):
            event = span.events.add(name=name, time_unix_nano=time)
            event.attributes.extend(key_values(attributes))
        for trace_id, span_id, attributes in given.get("links", ()):
            link = span.links.add(trace_id=bytes.fromhex(trace_id), span_id=bytes.fromhex(span_id))
            link.attributes.extend(key_values(attributes))
    return request
