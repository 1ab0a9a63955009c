"""OTLP requests -> rows of the landing and trace tables, as Native blocks.

The hot path of the server: one pass over each message, texts copied with the length prefixes they came with,
columns joined at the end.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from contextlib import suppress
from typing import Any, Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_audit.named_tuples import NamedTuple
from otel_audit.semconv import RECORD_ID
from otel_audit.server.engine import native
from otel_audit.server.engine.native import Column, prefixed, text
from otel_audit.server.otlp import wire
from otel_audit.server.otlp.limits import Budget
from otel_audit.server.otlp.values import value_text
from otel_audit.store import schema
from otel_audit.store.columns import attribute_names

_MAP: Final = "Map(String, String)"
_MAX_TIME: Final = 2**63 - 1
_SERVICE: Final = "service.name"
_SPAN_KINDS: Final = ("Unspecified", "Internal", "Server", "Client", "Producer", "Consumer")
_STATUS: Final = ("Unset", "Ok", "Error")
_KEY, _VALUE, _STRING = 0x0A, 0x12, 0x0A
"""Protobuf tags: of an attribute's key and value, of a text within the value."""
_HEADS: Final = {size: bytes([_VALUE, size - 2, _STRING, size - 4]) for size in range(4, 130)}
"""How the value of an attribute begins that is a text and ends the attribute, by its encoded size."""


class Rows(NamedTuple):
    """Rows for one table: the names of the columns, the rows encoded, and what was noticed on the way.

    The rows are a block of the Native format, or what ``select`` makes rows of. ``dropped`` counts what was
    accepted and is not kept. ``awaited``: a question that comes after them waits until it can see them.
    """

    table: str
    columns: tuple[str, ...]
    block: bytes
    size: int
    notices: tuple[str, ...] = ()
    select: str = ""
    dropped: int = 0
    awaited: bool = True


class Maps:
    """A column of maps from text to text, being built."""

    __slots__ = ("_budget", "keys", "offsets", "values")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.offsets: list[int] = []

    def add(self, attributes: Iterable[bytes]) -> None:
        """Append the map of one row, given as encoded ``KeyValue`` messages."""
        add_key, add_value, heads = self.keys.append, self.values.append, _HEADS.get
        for pair in attributes:
            # Nearly always: a key shorter than 128 bytes, then a value that is one text. What comes after the
            # tag of each is its length and its bytes, which is what the block wants too. All lengths are
            # checked: a block that disagrees with itself would fail together with everyone else's rows.
            if len(pair) > 1:
                end = pair[1] + 2
                if pair[end : end + 4] == heads(len(pair) - end) and pair[0] == _KEY and end < 130:
                    add_key(pair[1:end])
                    add_value(pair[end + 3 :])
                    continue
            key, value = _longer(pair) or _any(pair, self._budget)
            add_key(key)
            add_value(value)
        self.offsets.append(len(self.keys))

    def leave_out(self, begin: int, names: Container[bytes]) -> None:
        """Take these attributes out of the last map, which begins there, unless they are empty."""
        kept = [
            pair
            for pair in zip(self.keys[begin:], self.values[begin:], strict=True)
            if pair[0] not in names or pair[1] == b"\0"
        ]
        self.keys[begin:] = [key for key, _ in kept]
        self.values[begin:] = [value for _, value in kept]
        self.offsets[-1] = len(self.keys)

    def data(self) -> bytes:
        """Return the column."""
        return native.uint64s(self.offsets) + b"".join(self.keys) + b"".join(self.values)


class Origin(NamedTuple):
    """A resource or scope, encoded once for all its rows: its map, that map's length, and what names it."""

    keys: bytes
    values: bytes
    length: int
    name: bytes
    version: bytes

    @property
    def size(self) -> int:
        """Bytes of it in each row."""
        return len(self.keys) + len(self.values) + len(self.name) + len(self.version)


class Origins:
    """A column of maps of resources or scopes, being built; each is kept once for all rows that repeat it."""

    __slots__ = ("_length", "_offsets", "_parts")

    def __init__(self) -> None:
        self._parts: list[tuple[Origin, int]] = []
        self._offsets: list[int] = []
        self._length = 0

    def repeat(self, origin: Origin, count: int) -> None:
        """Append the map of an origin for ``count`` rows."""
        self._parts.append((origin, count))
        step, first = origin.length, self._length
        self._length += step * count
        if step:
            self._offsets += range(first + step, self._length + 1, step)
        else:
            self._offsets += [first] * count

    def data(self) -> bytes:
        """Return the column."""
        keys = [origin.keys * count for origin, count in self._parts]
        values = [origin.values * count for origin, count in self._parts]
        return b"".join((native.uint64s(self._offsets), *keys, *values))


def _longer(pair: bytes) -> tuple[bytes, bytes] | None:
    """Take apart an attribute whose value is one text of up to 16 kB; None if it is anything else."""
    try:
        end = pair[1] + 2
        low, high = pair[end + 1], pair[end + 2]
        at = end + 4
        if (
            pair[0] != _KEY
            or end >= 130
            or pair[end] != _VALUE
            or low < 128
            or high > 127
            or pair[end + 3] != _STRING
            or len(pair) != end + 3 + (low & 127 | high << 7)
        ):
            return None
        first, second = pair[at], pair[at + 1]
        length = 1 + first if first < 128 else 2 + (first & 127 | second << 7)
        if second > 127 <= first or len(pair) != at + length:
            return None
    except IndexError:
        return None
    return pair[1:end], pair[at:]


def _any(pair: bytes, budget: Budget) -> tuple[bytes, bytes]:
    attribute = KeyValue.FromString(pair)
    key, value = text(attribute.key), text(_text_of(attribute.value, budget))
    budget.add(max(len(key) + len(value) - len(pair), 0))
    return key, value


def _text_of(value: AnyValue, budget: Budget) -> str:
    if value.WhichOneof("value") in _NESTED:
        budget.nested(value.ByteSize())
    return value_text(value)


_NESTED: Final = ("array_value", "kvlist_value")


def resource_origin(encoded: bytes, budget: Budget) -> Origin:
    """Return an encoded resource as its rows have it."""
    attributes = Resource.FromString(encoded).attributes
    name = next((_text_of(pair.value, budget) for pair in attributes if pair.key == _SERVICE), "")
    return Origin(*_encoded(attributes, budget), text(name), b"")


def _scope(encoded: bytes, budget: Budget) -> Origin:
    scope = InstrumentationScope.FromString(encoded)
    return Origin(*_encoded(scope.attributes, budget), text(scope.name), text(scope.version))


def _encoded(attributes: Any, budget: Budget) -> tuple[bytes, bytes, int]:
    keys = b"".join(text(pair.key) for pair in attributes)
    return keys, b"".join(text(_text_of(pair.value, budget)) for pair in attributes), len(attributes)


def landed_time(nanoseconds: int) -> int:
    """Return a time as a column can hold it."""
    # Later than April 2262 does not fit the column; the record is worth more than its wrong clock.
    return nanoseconds if nanoseconds <= _MAX_TIME else _MAX_TIME


class _Scoped(NamedTuple):
    """Log records of one scope, as far as they are for one table."""

    resource: Origin
    resource_url: bytes
    scope: Origin
    scope_url: bytes
    records: list[Any]


def log_rows(body: bytes, budget: Budget | None = None) -> list[Rows]:
    """Return the rows of an ``ExportLogsServiceRequest``, for each landing table its records are for.

    The views behind them tell audit records from ordinary logs. A record whose id is not a UUID is kept as an
    ordinary log; this is noted.

    Raises:
        TooLarge: the rows are more than the budget has.
    """
    budget = budget or Budget()
    budget.add(len(body))
    tables: dict[str, list[_Scoped]] = {}
    for resource_logs in wire.Logs.FromString(body).resource_logs:
        resource = resource_origin(resource_logs.resource, budget)
        resource_url = prefixed(resource_logs.schema_url)
        for scope_logs in resource_logs.scope_logs:
            scope = _scope(scope_logs.scope, budget)
            scope_url = prefixed(scope_logs.schema_url)
            shared = resource.size + len(resource_url) + scope.size + len(scope_url)
            budget.rows(len(scope_logs.log_records), shared)
            by_table: dict[str, list[Any]] = {}
            for record in scope_logs.log_records:
                by_table.setdefault(_landing(record.attributes), []).append(record)
            for table, records in by_table.items():
                tables.setdefault(table, []).append(
                    _Scoped(resource, resource_url, scope, scope_url, records)
                )
    return [_log_rows(table, scoped, budget) for table, scoped in tables.items()]


_LOG: Final = tuple(bytes([_KEY, len(name), *name.encode(), _VALUE]) for name in attribute_names("log"))


def _landing(attributes: Iterable[bytes]) -> str:
    found = next((pair for pair in attributes if pair.startswith(_LOG)), None)
    return schema.landing(value_text(KeyValue.FromString(found).value) if found else "")


def _log_rows(table: str, groups: list[_Scoped], budget: Budget) -> Rows:
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
    resources, scopes, attributes = Origins(), Origins(), Maps(budget)
    for resource, resource_url, scope, scope_url, records in groups:
        for record in records:
            times.append(landed_time(record.time or record.observed_time))
            trace_ids.append(text(record.trace_id.hex()))
            span_ids.append(text(record.span_id.hex()))
            flags.append(record.flags & 255)
            severities.append(prefixed(record.severity_text))
            numbers.append(min(max(record.severity_number, 0), 255))
            bodies.append(body_text(record.body, budget))
            names.append(prefixed(record.event_name))
            attributes.add(record.attributes)
        count = len(records)
        resources.repeat(resource, count)
        scopes.repeat(scope, count)
        services += [resource.name] * count
        resource_urls += [resource_url] * count
        scope_urls += [scope_url] * count
        scope_names += [scope.name] * count
        scope_versions += [scope.version] * count
    return _rows(
        table,
        len(times),
        (
            Column("Timestamp", "DateTime64(9)", native.int64s(times)),
            Column("TraceId", "String", b"".join(trace_ids)),
            Column("SpanId", "String", b"".join(span_ids)),
            Column("TraceFlags", "UInt8", native.uint8s(flags)),
            Column("SeverityText", "String", b"".join(severities)),
            Column("SeverityNumber", "UInt8", native.uint8s(numbers)),
            Column("ServiceName", "String", b"".join(services)),
            Column("Body", "String", b"".join(bodies)),
            Column("ResourceSchemaUrl", "String", b"".join(resource_urls)),
            Column("ResourceAttributes", _MAP, resources.data()),
            Column("ScopeSchemaUrl", "String", b"".join(scope_urls)),
            Column("ScopeName", "String", b"".join(scope_names)),
            Column("ScopeVersion", "String", b"".join(scope_versions)),
            Column("ScopeAttributes", _MAP, scopes.data()),
            Column("LogAttributes", _MAP, attributes.data()),
            Column("EventName", "String", b"".join(names)),
        ),
        _invalid_ids(attributes),
    )


def body_text(encoded: bytes, budget: Budget) -> bytes:
    """Return the body of a log record as a text, encoded."""
    if not encoded:
        return b"\0"
    body = text(_text_of(AnyValue.FromString(encoded), budget))
    budget.add(max(len(body) - len(encoded), 0))
    return body


_RECORD_ID_KEY: Final = text(RECORD_ID)
UUID: Final = re.compile(rb"\x24[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|\x20[0-9a-fA-F]{32}")
"""A UUID as text, after its length: what the views take for one."""


def _invalid_ids(attributes: Maps) -> tuple[str, ...]:
    notices = []
    keys, at = attributes.keys, -1
    with suppress(ValueError):  # no more of them
        while True:
            at = keys.index(_RECORD_ID_KEY, at + 1)
            value = attributes.values[at]
            if not UUID.fullmatch(value):
                shown = value[1:81].decode("utf-8", "replace")
                notices.append(
                    f"{RECORD_ID} {shown!r} is not a UUID; kept as an ordinary log, not as an audit record"
                )
    return tuple(notices)


def _rows(table: str, size: int, columns: tuple[Column, ...], notices: tuple[str, ...] = ()) -> Rows:
    names = tuple(column.name for column in columns)
    return Rows(table, names, native.block(size, columns) if size else b"", size, notices)


def span_rows(body: bytes, budget: Budget | None = None) -> list[Rows]:
    """Return the rows of an ``ExportTraceServiceRequest`` for the trace table.

    Raises:
        TooLarge: the rows are more than the budget has.
    """
    budget = budget or Budget()
    budget.add(len(body))
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
    resources, attributes = Origins(), Maps(budget)
    events, links = _Events(budget), _Links(budget)
    for resource_spans in wire.Traces.FromString(body).resource_spans:
        resource = resource_origin(resource_spans.resource, budget)
        for scope_spans in resource_spans.scope_spans:
            scope = _scope(scope_spans.scope, budget)
            spans = scope_spans.spans
            budget.rows(len(spans), resource.size + len(scope.name) + len(scope.version))
            resources.repeat(resource, len(spans))
            for span in spans:
                start = landed_time(span.start)
                times.append(start)
                durations.append(max(span.end - start, 0))
                trace_ids.append(text(span.trace_id.hex()))
                span_ids.append(text(span.span_id.hex()))
                parents.append(text(span.parent_span_id.hex()))
                states.append(prefixed(span.trace_state))
                names.append(prefixed(span.name))
                kinds.append(text(_named(_SPAN_KINDS, span.kind)))
                codes.append(text(_named(_STATUS, span.status.code)))
                messages.append(prefixed(span.status.message))
                attributes.add(span.attributes)
                events.add(span.events)
                links.add(span.links)
            services += [resource.name] * len(spans)
            scope_names += [scope.name] * len(spans)
            scope_versions += [scope.version] * len(spans)
    return [
        _rows(
            schema.TRACES,
            len(times),
            (
                Column("Timestamp", "DateTime64(9)", native.int64s(times)),
                Column("TraceId", "String", b"".join(trace_ids)),
                Column("SpanId", "String", b"".join(span_ids)),
                Column("ParentSpanId", "String", b"".join(parents)),
                Column("TraceState", "String", b"".join(states)),
                Column("SpanName", "String", b"".join(names)),
                Column("SpanKind", "String", b"".join(kinds)),
                Column("ServiceName", "String", b"".join(services)),
                Column("ResourceAttributes", _MAP, resources.data()),
                Column("ScopeName", "String", b"".join(scope_names)),
                Column("ScopeVersion", "String", b"".join(scope_versions)),
                Column("SpanAttributes", _MAP, attributes.data()),
                Column("Duration", "UInt64", native.uint64s(durations)),
                Column("StatusCode", "String", b"".join(codes)),
                Column("StatusMessage", "String", b"".join(messages)),
                *events.columns(),
                *links.columns(),
            ),
        )
    ]


_METER: Final = "otel_audit"


def metric_rows(body: bytes, budget: Budget | None = None) -> list[Rows]:
    """Return the rows of an ``ExportMetricsServiceRequest``: the numbers our own meter counts.

    Points of others are accepted, counted and not kept: this is no store of metrics, and an exporter that is
    refused complains each minute.

    Raises:
        TooLarge: the rows are more than the budget has.
    """
    budget = budget or Budget()
    budget.add(len(body))
    times: list[int] = []
    starts: list[int] = []
    services: list[bytes] = []
    names: list[bytes] = []
    units: list[bytes] = []
    values: list[float] = []
    resources, attributes = Origins(), Maps(budget)
    dropped = 0
    for resource_metrics in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        resource = resource_origin(resource_metrics.resource.SerializeToString(), budget)
        for scope_metrics in resource_metrics.scope_metrics:
            for metric in scope_metrics.metrics:
                points = _points(metric)
                numbers = points if metric.WhichOneof("data") in ("sum", "gauge") else ()
                if scope_metrics.scope.name != _METER or not numbers:
                    dropped += len(points)
                    continue
                budget.rows(len(numbers), resource.size + len(metric.name) + len(metric.unit))
                for point in numbers:
                    times.append(landed_time(point.time_unix_nano))
                    starts.append(landed_time(point.start_time_unix_nano))
                    values.append(float(getattr(point, point.WhichOneof("value") or "as_int")))
                    attributes.add(pair.SerializeToString() for pair in point.attributes)
                services += [resource.name] * len(numbers)
                names += [text(metric.name)] * len(numbers)
                units += [text(metric.unit)] * len(numbers)
                resources.repeat(resource, len(numbers))
    rows = _rows(
        schema.METRICS,
        len(times),
        (
            Column("Timestamp", "DateTime64(9)", native.int64s(times)),
            Column("StartTimestamp", "DateTime64(9)", native.int64s(starts)),
            Column("ServiceName", "String", b"".join(services)),
            Column("MetricName", "String", b"".join(names)),
            Column("MetricUnit", "String", b"".join(units)),
            Column("Value", "Float64", native.float64s(values)),
            Column("Attributes", _MAP, attributes.data()),
            Column("ResourceAttributes", _MAP, resources.data()),
        ),
    )
    return [rows._replace(dropped=dropped)]


def _points(metric: Metric) -> Any:
    data = metric.WhichOneof("data")
    return getattr(metric, data).data_points if data else ()


def _named(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else str(number)


class _Events:
    """The nested columns of span events, being built."""

    def __init__(self, budget: Budget) -> None:
        self.offsets: list[int] = []
        self.times: list[int] = []
        self.names: list[bytes] = []
        self.attributes = Maps(budget)

    def add(self, events: Iterable[Any]) -> None:
        for event in events:
            self.times.append(landed_time(event.time))
            self.names.append(prefixed(event.name))
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

    def __init__(self, budget: Budget) -> None:
        self.offsets: list[int] = []
        self.trace_ids: list[bytes] = []
        self.span_ids: list[bytes] = []
        self.states: list[bytes] = []
        self.attributes = Maps(budget)

    def add(self, links: Iterable[Any]) -> None:
        for link in links:
            self.trace_ids.append(text(link.trace_id.hex()))
            self.span_ids.append(text(link.span_id.hex()))
            self.states.append(prefixed(link.trace_state))
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
