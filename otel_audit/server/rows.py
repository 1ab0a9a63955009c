"""OTLP messages -> rows of the landing, log and trace tables, as Native blocks.

The hot path of the server: one pass over each message, every text encoded as it is met, columns joined at
the end. Upb's message objects are made on access, so nothing is read twice.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from otel_audit.semconv import RECORD_ID
from otel_audit.server import native
from otel_audit.server.native import Column, text
from otel_audit.server.values import value_text
from otel_audit.store import schema

_MAP: Final = "Map(String, String)"
_MAX_TIME: Final = 2**63 - 1
_SERVICE: Final = "service.name"
_SPAN_KINDS: Final = ("Unspecified", "Internal", "Server", "Client", "Producer", "Consumer")
_STATUS: Final = ("Unset", "Ok", "Error")


class Rows(NamedTuple):
    """Rows for one table, encoded, and what was noticed on the way."""

    table: str
    columns: str
    block: bytes
    count: int
    notices: tuple[str, ...] = ()


class _Keys(dict[str, bytes]):
    """Encoded attribute names: few, and met again and again. Emptied rather than grown without bound."""

    def __missing__(self, key: str) -> bytes:
        if len(self) > 8192:
            self.clear()
        encoded = self[key] = text(key)
        return encoded


_keys: Final = _Keys()


class _Maps:
    """A column of maps from text to text, being built."""

    __slots__ = ("keys", "offset", "offsets", "values")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.offsets: list[int] = []
        self.offset = 0

    def add(self, attributes: Iterable[Any]) -> None:
        """Append the map of one row."""
        keys, values, known = self.keys, self.values, _keys
        for pair in attributes:
            keys.append(known[pair.key])
            value = pair.value
            # Nearly all values are text: asking for it first saves the question which kind it is.
            values.append(text(value.string_value or value_text(value)))
        self.offset = len(keys)
        self.offsets.append(self.offset)

    def repeat(self, keys: list[bytes], values: list[bytes]) -> None:
        """Append a map that is encoded already."""
        self.keys += keys
        self.values += values
        self.offset = len(self.keys)
        self.offsets.append(self.offset)

    def data(self) -> bytes:
        return native.uint64s(self.offsets) + self.contents()

    def contents(self) -> bytes:
        return b"".join(self.keys) + b"".join(self.values)


def _encoded(attributes: Iterable[Any]) -> tuple[list[bytes], list[bytes]]:
    maps = _Maps()
    maps.add(attributes)
    return maps.keys, maps.values


def _service(resource: Any) -> bytes:
    for pair in resource.attributes:
        if pair.key == _SERVICE:
            return text(value_text(pair.value))
    return b"\0"


def log_rows(request: Any) -> Rows:
    """Give the rows of an ``ExportLogsServiceRequest`` for the landing table.

    The views behind it tell audit records from ordinary logs. A record whose id is no UUID is kept as an
    ordinary log; this is noted.
    """
    times: list[int] = []
    trace_ids: list[bytes] = []
    span_ids: list[bytes] = []
    flags: list[int] = []
    severities: list[bytes] = []
    numbers: list[int] = []
    services: list[bytes] = []
    bodies: list[bytes] = []
    resource_urls: list[bytes] = []
    scope_urls: list[bytes] = []
    scope_names: list[bytes] = []
    scope_versions: list[bytes] = []
    names: list[bytes] = []
    resources, scopes, attributes = _Maps(), _Maps(), _Maps()
    invalid: list[str] = []
    for resource_logs in request.resource_logs:
        service = _service(resource_logs.resource)
        resource = _encoded(resource_logs.resource.attributes)
        resource_url = text(resource_logs.schema_url)
        for scope_logs in resource_logs.scope_logs:
            scope = _encoded(scope_logs.scope.attributes)
            scope_url = text(scope_logs.schema_url)
            scope_name = text(scope_logs.scope.name)
            scope_version = text(scope_logs.scope.version)
            records = scope_logs.log_records
            for record in records:
                time = record.time_unix_nano or record.observed_time_unix_nano
                times.append(time if time <= _MAX_TIME else _MAX_TIME)
                trace_ids.append(text(record.trace_id.hex()))
                span_ids.append(text(record.span_id.hex()))
                flags.append(record.flags & 255)
                severities.append(text(record.severity_text))
                numbers.append(min(max(record.severity_number, 0), 255))
                bodies.append(text(value_text(record.body)))
                names.append(text(record.event_name))
                attributes.add(record.attributes)
                resources.repeat(*resource)
                scopes.repeat(*scope)
            count = len(records)
            services += [service] * count
            resource_urls += [resource_url] * count
            scope_urls += [scope_url] * count
            scope_names += [scope_name] * count
            scope_versions += [scope_version] * count
    join = b"".join
    columns = (
        Column("Timestamp", "DateTime64(9)", native.int64s(times)),
        Column("TraceId", "String", join(trace_ids)),
        Column("SpanId", "String", join(span_ids)),
        Column("TraceFlags", "UInt8", native.uint8s(flags)),
        Column("SeverityText", "String", join(severities)),
        Column("SeverityNumber", "UInt8", native.uint8s(numbers)),
        Column("ServiceName", "String", join(services)),
        Column("Body", "String", join(bodies)),
        Column("ResourceSchemaUrl", "String", join(resource_urls)),
        Column("ResourceAttributes", _MAP, resources.data()),
        Column("ScopeSchemaUrl", "String", join(scope_urls)),
        Column("ScopeName", "String", join(scope_names)),
        Column("ScopeVersion", "String", join(scope_versions)),
        Column("ScopeAttributes", _MAP, scopes.data()),
        Column("LogAttributes", _MAP, attributes.data()),
        Column("EventName", "String", join(names)),
    )
    return _rows(schema.LANDING, len(times), columns, _invalid_ids(attributes))


def _invalid_ids(attributes: _Maps) -> tuple[str, ...]:
    wanted = _keys[RECORD_ID]
    notices = []
    for key, value in zip(attributes.keys, attributes.values, strict=True):
        if key is wanted and not (len(value) == 37 and _is_uuid(value[1:])):
            shown = value[1:81].decode("utf-8", "replace")
            notices.append(
                f"{RECORD_ID} {shown!r} is no UUID; kept as an ordinary log, not as an audit record"
            )
    return tuple(notices)


def _is_uuid(value: bytes) -> bool:
    try:
        uuid.UUID(value.decode("ascii"))
    except ValueError:
        return False
    return True


def _rows(table: str, count: int, columns: tuple[Column, ...], notices: tuple[str, ...] = ()) -> Rows:
    names = ", ".join(f"`{column.name}`" if "." in column.name else column.name for column in columns)
    return Rows(table, names, native.block(count, columns) if count else b"", count, notices)


def span_rows(request: Any) -> Rows:
    """Give the rows of an ``ExportTraceServiceRequest`` for the trace table."""
    times: list[int] = []
    trace_ids: list[bytes] = []
    span_ids: list[bytes] = []
    parents: list[bytes] = []
    states: list[bytes] = []
    names: list[bytes] = []
    kinds: list[bytes] = []
    services: list[bytes] = []
    scope_names: list[bytes] = []
    scope_versions: list[bytes] = []
    durations: list[int] = []
    codes: list[bytes] = []
    messages: list[bytes] = []
    resources, attributes = _Maps(), _Maps()
    events, links = _Events(), _Links()
    for resource_spans in request.resource_spans:
        service = _service(resource_spans.resource)
        resource = _encoded(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            scope_name = text(scope_spans.scope.name)
            scope_version = text(scope_spans.scope.version)
            for span in scope_spans.spans:
                start = min(span.start_time_unix_nano, _MAX_TIME)
                times.append(start)
                durations.append(max(span.end_time_unix_nano - start, 0))
                trace_ids.append(text(span.trace_id.hex()))
                span_ids.append(text(span.span_id.hex()))
                parents.append(text(span.parent_span_id.hex()))
                states.append(text(span.trace_state))
                names.append(text(span.name))
                kinds.append(text(_named(_SPAN_KINDS, span.kind)))
                codes.append(text(_named(_STATUS, span.status.code)))
                messages.append(text(span.status.message))
                attributes.add(span.attributes)
                resources.repeat(*resource)
                events.add(span.events)
                links.add(span.links)
                services.append(service)
                scope_names.append(scope_name)
                scope_versions.append(scope_version)
    join = b"".join
    columns = (
        Column("Timestamp", "DateTime64(9)", native.int64s(times)),
        Column("TraceId", "String", join(trace_ids)),
        Column("SpanId", "String", join(span_ids)),
        Column("ParentSpanId", "String", join(parents)),
        Column("TraceState", "String", join(states)),
        Column("SpanName", "String", join(names)),
        Column("SpanKind", "String", join(kinds)),
        Column("ServiceName", "String", join(services)),
        Column("ResourceAttributes", _MAP, resources.data()),
        Column("ScopeName", "String", join(scope_names)),
        Column("ScopeVersion", "String", join(scope_versions)),
        Column("SpanAttributes", _MAP, attributes.data()),
        Column("Duration", "UInt64", native.uint64s(durations)),
        Column("StatusCode", "String", join(codes)),
        Column("StatusMessage", "String", join(messages)),
        *events.columns(),
        *links.columns(),
    )
    return _rows(schema.TRACES, len(times), columns)


def _named(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else str(number)


class _Events:
    """The nested columns of span events, being built."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.times: list[int] = []
        self.names: list[bytes] = []
        self.attributes = _Maps()

    def add(self, events: Iterable[Any]) -> None:
        for event in events:
            self.times.append(min(event.time_unix_nano, _MAX_TIME))
            self.names.append(text(event.name))
            self.attributes.add(event.attributes)
        self.offsets.append(len(self.times))

    def columns(self) -> tuple[Column, ...]:
        offsets = native.uint64s(self.offsets)
        return (
            Column("Events.Timestamp", "Array(DateTime64(9))", offsets + native.int64s(self.times)),
            Column("Events.Name", "Array(String)", offsets + b"".join(self.names)),
            Column("Events.Attributes", f"Array({_MAP})", offsets + self.attributes.data()),
        )


class _Links:
    """The nested columns of span links, being built."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.trace_ids: list[bytes] = []
        self.span_ids: list[bytes] = []
        self.states: list[bytes] = []
        self.attributes = _Maps()

    def add(self, links: Iterable[Any]) -> None:
        for link in links:
            self.trace_ids.append(text(link.trace_id.hex()))
            self.span_ids.append(text(link.span_id.hex()))
            self.states.append(text(link.trace_state))
            self.attributes.add(link.attributes)
        self.offsets.append(len(self.trace_ids))

    def columns(self) -> tuple[Column, ...]:
        offsets = native.uint64s(self.offsets)
        return (
            Column("Links.TraceId", "Array(String)", offsets + b"".join(self.trace_ids)),
            Column("Links.SpanId", "Array(String)", offsets + b"".join(self.span_ids)),
            Column("Links.TraceState", "Array(String)", offsets + b"".join(self.states)),
            Column("Links.Attributes", f"Array({_MAP})", offsets + self.attributes.data()),
        )
