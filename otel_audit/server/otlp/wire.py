"""OTLP's messages as far as rows need them, with every text and every attribute left as bytes.

The same bytes on the wire may be read through any description with the same field numbers. Read through
the official one, each attribute costs three objects and each text is decoded only to be encoded again; read
through this one it is one ``bytes``, whose length prefixes are the ones ClickHouse's Native format uses.
That takes a quarter of the time. The official description has judged the message before; see
:func:`otel_audit.server.otlp.messages.checked`.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_TYPES: Final = {
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "fixed64": descriptor_pb2.FieldDescriptorProto.TYPE_FIXED64,
    "fixed32": descriptor_pb2.FieldDescriptorProto.TYPE_FIXED32,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "uint32": descriptor_pb2.FieldDescriptorProto.TYPE_UINT32,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
}

_Fields = dict[str, tuple[int, str]]

_MESSAGES: Final[dict[str, _Fields]] = {
    "Logs": {"resource_logs": (1, "ResourceLogs*")},
    "ResourceLogs": {"resource": (1, "bytes"), "scope_logs": (2, "ScopeLogs*"), "schema_url": (3, "bytes")},
    "ScopeLogs": {"scope": (1, "bytes"), "log_records": (2, "LogRecord*"), "schema_url": (3, "bytes")},
    "LogRecord": {
        "time": (1, "fixed64"),
        "severity_number": (2, "int32"),
        "severity_text": (3, "bytes"),
        "body": (5, "bytes"),
        "attributes": (6, "bytes*"),
        "flags": (8, "fixed32"),
        "trace_id": (9, "bytes"),
        "span_id": (10, "bytes"),
        "observed_time": (11, "fixed64"),
        "event_name": (12, "bytes"),
    },
    "Traces": {"resource_spans": (1, "ResourceSpans*")},
    "ResourceSpans": {"resource": (1, "bytes"), "scope_spans": (2, "ScopeSpans*")},
    "ScopeSpans": {"scope": (1, "bytes"), "spans": (2, "Span*")},
    "Span": {
        "trace_id": (1, "bytes"),
        "span_id": (2, "bytes"),
        "trace_state": (3, "bytes"),
        "parent_span_id": (4, "bytes"),
        "name": (5, "bytes"),
        "kind": (6, "int32"),
        "start": (7, "fixed64"),
        "end": (8, "fixed64"),
        "attributes": (9, "bytes*"),
        "events": (11, "Event*"),
        "links": (13, "Link*"),
        "status": (15, "Status"),
    },
    "Event": {"time": (1, "fixed64"), "name": (2, "bytes"), "attributes": (3, "bytes*")},
    "Link": {
        "trace_id": (1, "bytes"),
        "span_id": (2, "bytes"),
        "trace_state": (3, "bytes"),
        "attributes": (4, "bytes*"),
    },
    "Status": {"message": (2, "bytes"), "code": (3, "int32")},
}


_PLAIN: Final[dict[str, _Fields]] = {
    "PlainLogs": {"resource_logs": (1, "ResourceLogs*")},
    "ResourceLogs": {
        "resource": (1, "Resource"),
        "scope_logs": (2, "ScopeLogs*"),
        "schema_url": (3, "string"),
    },
    "Resource": {"attributes": (1, "KeyValue*"), "dropped": (2, "uint32")},
    "ScopeLogs": {"scope": (1, "Scope"), "log_records": (2, "LogRecord*"), "schema_url": (3, "string")},
    "Scope": {
        "name": (1, "string"),
        "version": (2, "string"),
        "attributes": (3, "KeyValue*"),
        "dropped": (4, "uint32"),
    },
    "LogRecord": {
        "time": (1, "fixed64"),
        "severity_number": (2, "int32"),
        "severity_text": (3, "string"),
        "body": (5, "Value"),
        "attributes": (6, "KeyValue*"),
        "dropped": (7, "uint32"),
        "flags": (8, "fixed32"),
        "trace_id": (9, "bytes"),
        "span_id": (10, "bytes"),
        "observed_time": (11, "fixed64"),
        "event_name": (12, "string"),
    },
    "KeyValue": {"key": (1, "string"), "value": (2, "Value")},
    "Value": {"text": (1, "string"), "flag": (2, "bool"), "number": (3, "int64")},
}
"""Log requests of nothing unusual, texts as texts: what :mod:`otel_audit.server.otlp.engine_rows` is for."""
_ALTERNATIVES: Final = {"Value"}
"""Messages of which one field at most is set."""


def _messages(described: dict[str, _Fields], syntax: str, *names: str) -> list[Any]:
    package = "otel_audit.wire"
    file = descriptor_pb2.FileDescriptorProto(name="otel_audit/wire.proto", package=package, syntax=syntax)
    for message, fields in described.items():
        added = file.message_type.add(name=message)
        if message in _ALTERNATIVES:
            added.oneof_decl.add(name="one")
        for name, (number, kind) in fields.items():
            field = added.field.add(name=name, number=number)
            field.label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            kind = kind.rstrip("*")
            field.type = _TYPES.get(kind, field.TYPE_MESSAGE)
            if kind not in _TYPES:
                field.type_name = f".{package}.{kind}"
            if message in _ALTERNATIVES:
                field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in names
    ]


def _source(described: dict[str, _Fields]) -> str:
    lines = ['syntax = "proto3";']
    for message, fields in described.items():
        lines.append(f"message {message} {{")
        for name, (number, kind) in fields.items():
            repeated = "repeated " if kind.endswith("*") else ""
            lines.append(f"  {repeated}{kind.rstrip('*')} {name} = {number};")
        lines.append("}")
    return "\n".join(lines)


Logs, Traces = _messages(_MESSAGES, "proto2", "Logs", "Traces")
[PlainLogs] = _messages(_PLAIN, "proto3", "PlainLogs")
PLAIN_PROTO: Final = _source(_PLAIN)
"""The description of ``PlainLogs`` for the engine."""
