"""A sealed record as OTLP protobuf, written by hand: a tenth of the time of building messages.

The same record always gives the same bytes: attributes stand in the order of the schema.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from otel_audit import semconv
from otel_audit.record import AuditRecord
from otel_audit.version import __version__

SCOPE: Final = "otel_audit"

_FIXED64: Final = struct.Struct("<Q")
# Tags of opentelemetry/proto/logs/v1/logs.proto: field number << 3 | wire type.
_TIME: Final = b"\x09"
_BODY: Final = b"\x2a"
_ATTRIBUTE: Final = b"\x32"
_TRACE_ID: Final = b"\x4a\x10"
_SPAN_ID: Final = b"\x52\x08"
_OBSERVED_TIME: Final = b"\x59"
_EVENT_NAME: Final = b"\x62"
_SCOPE_LOG_RECORD: Final = b"\x12"


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SHORT: Final = tuple(_varint(length) for length in range(4096))


def _sized(data: bytes) -> bytes:
    length = len(data)
    return (_SHORT[length] if length < 4096 else _varint(length)) + data


def _any_value(value: str | int | bool | float) -> bytes:  # noqa: PYI041 - an int is no float on the wire
    if isinstance(value, str):
        return b"\x0a" + _sized(value.encode())
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, float):
        return b"\x21" + struct.pack("<d", value)
    return b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)


@lru_cache(maxsize=4096)
def _key(name: str) -> bytes:
    return b"\x0a" + _sized(name.encode()) + b"\x12"


def _key_value(name: str, value: str | int | bool | float) -> bytes:  # noqa: PYI041
    return _sized(_key(name) + _sized(_any_value(value)))


# Most attributes are short texts: their lengths fit into one byte each, what surrounds them into a table.
_SHORT_HEADS: Final = tuple(_ATTRIBUTE + _varint(length) for length in range(128))
_SHORT_TEXTS: Final = tuple(bytes((length + 2, 0x0A, length)) for length in range(126))


def log_record(record: AuditRecord) -> bytes:
    """Encode a record as one ``LogRecord`` message."""
    parts = [_TIME, _FIXED64.pack(record.timestamp)]
    if record.message:
        parts += (_BODY, _sized(_any_value(record.message)))
    for name, value in semconv.to_attributes(record).items():
        if isinstance(value, str):
            key, data = _key(name), value.encode()
            length = len(data)
            whole = len(key) + length + 3
            if whole < 128:
                parts += (_SHORT_HEADS[whole], key, _SHORT_TEXTS[length], data)
                continue
        parts += (_ATTRIBUTE, _key_value(name, value))
    if record.trace_id:
        parts += (_TRACE_ID, bytes.fromhex(record.trace_id))
        if record.span_id:
            parts += (_SPAN_ID, bytes.fromhex(record.span_id))
    parts += (_OBSERVED_TIME, _FIXED64.pack(record.observed_timestamp))
    parts += (_EVENT_NAME, _sized(record.event_name.encode()))
    return b"".join(parts)


def export_request(resource: Mapping[str, str | bool | float], log_records: Iterable[bytes]) -> bytes:
    """Encode an ``ExportLogsServiceRequest`` of one resource from encoded log records."""
    attributes = b"".join(b"\x0a" + _key_value(name, value) for name, value in resource.items())
    scope = b"\x0a" + _sized(SCOPE.encode()) + b"\x12" + _sized(__version__.encode())
    scope_logs = b"".join(
        (b"\x0a", _sized(scope), *(_SCOPE_LOG_RECORD + _sized(data) for data in log_records))
    )
    resource_logs = b"\x0a" + _sized(attributes) + b"\x12" + _sized(scope_logs)
    return b"\x0a" + _sized(resource_logs)
