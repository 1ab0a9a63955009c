"""Record <-> attributes: the only place that knows attribute names.

Names follow the draft OpenTelemetry *Audit Logging* data model where it has one and the standard
semantic conventions where they have one; the rest is ours under ``otel_audit.``. The draft still moves,
so the mapping is chosen by ``audit.schema.version``, and every version ever written stays readable.

Attributes are text, integers and booleans only, lists and mappings one JSON text each: a store that keeps
only strings loses nothing, because the schema version fixes the type of each name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final, Literal, TypeAlias

import msgspec

from otel_audit.audit_record import (
    Actor,
    AuditRecord,
    Bulk,
    Change,
    Database,
    Origin,
    Request,
    Sequence,
    Source,
    Target,
)
from otel_audit.errors import InvalidRecord
from otel_audit.named_tuples import NamedTuple

AttributeValue: TypeAlias = "str | int | bool"
Attributes: TypeAlias = dict[str, AttributeValue]
Kind: TypeAlias = Literal["text", "int", "bool", "json"]

RECORD_ID: Final = "audit.record.id"
SCHEMA_VERSION: Final = "audit.schema.version"
ACTOR_ID: Final = "audit.actor.id"
ACTION: Final = "audit.action"
OUTCOME: Final = "audit.outcome"
TARGET_TYPE: Final = "audit.target.type"
TARGET_ID: Final = "audit.target.id"
CHANGED_FIELDS: Final = "otel_audit.changed_fields"
LOG: Final = "otel_audit.log"
REQUEST_ID: Final = "otel_audit.request.id"
CAPTURE_PLACE: Final = "otel_audit.capture.place"
ERROR_TYPE: Final = "error.type"

CURRENT_SCHEMA: Final = "1"


class EventRecordId(str):
    """The record id on the event a record adds to a span; an application's own event has a plain text."""

    __slots__ = ()


class Field(NamedTuple):
    """One value of a record: where it stands in the record, its attribute name, its type."""

    path: str
    name: str
    kind: Kind


class Schema(NamedTuple):
    """One version of the mapping."""

    version: str
    fields: tuple[Field, ...]

    def kinds(self) -> dict[str, Kind]:
        """The type of every attribute of this version, by name."""
        return {field.name: field.kind for field in self.fields}


_V1 = Schema(
    "1",
    (
        Field("id", RECORD_ID, "text"),
        Field("event_name", "otel_audit.event.name", "text"),
        Field("observed_timestamp", "otel_audit.observed_timestamp", "int"),
        Field("log", LOG, "text"),
        Field("action", ACTION, "text"),
        Field("outcome", OUTCOME, "text"),
        Field("actor.id", ACTOR_ID, "text"),
        Field("actor.type", "audit.actor.type", "text"),
        Field("actor.name", "user.name", "text"),
        Field("actor.on_behalf_of", "otel_audit.on_behalf_of", "text"),
        Field("actor.on_behalf_of_name", "otel_audit.on_behalf_of_name", "text"),
        Field("actor.roles", "otel_audit.actor.roles", "text"),
        Field("origin.actor", "otel_audit.origin.actor.id", "text"),
        Field("origin.name", "otel_audit.origin.actor.name", "text"),
        Field("origin.request", "otel_audit.origin.request.id", "text"),
        Field("target.type", TARGET_TYPE, "text"),
        Field("target.id", TARGET_ID, "text"),
        Field("source.id", "audit.source.id", "text"),
        Field("source.type", "audit.source.type", "text"),
        Field("source.user_agent", "user_agent.original", "text"),
        Field("source.session", "session.id", "text"),
        Field("request.id", REQUEST_ID, "text"),
        Field("request.method", "http.request.method", "text"),
        Field("request.route", "http.route", "text"),
        Field("request.path", "url.path", "text"),
        Field("request.view", "otel_audit.request.view", "text"),
        Field("request.parent", "otel_audit.request.parent_id", "text"),
        Field("database.system", "db.system.name", "text"),
        Field("database.namespace", "db.namespace", "text"),
        Field("database.table", "db.collection.name", "text"),
        Field("database.transaction", "otel_audit.transaction.id", "text"),
        Field("database.query", "db.query.text", "text"),
        Field("database.address", "server.address", "text"),
        Field("database.port", "server.port", "int"),
        Field("changes", "otel_audit.changes", "json"),
        Field("image", "otel_audit.image", "json"),
        Field("bulk", "otel_audit.bulk", "json"),
        Field("fields", "otel_audit.fields", "json"),
        Field("completeness", "otel_audit.completeness", "text"),
        Field("old_values", "otel_audit.old_values", "text"),
        Field("reason", "otel_audit.reason", "text"),
        Field("tenant", "otel_audit.tenant", "text"),
        Field("system", "otel_audit.system", "text"),
        Field("event_type", "otel_audit.event.type", "text"),
        Field("event_code", "otel_audit.event.code", "text"),
        Field("slug", "otel_audit.slug", "text"),
        Field("error", ERROR_TYPE, "text"),
        Field("code", "code.function.name", "text"),
        Field("related", "otel_audit.related", "json"),
        Field("attributes", "otel_audit.attributes", "json"),
        Field("truncated", "otel_audit.truncated", "bool"),
        Field("sequence.stream", "audit.sequence.stream_id", "text"),
        Field("sequence.number", "audit.sequence.number", "int"),
        Field("sequence.previous_hash", "audit.sequence.previous_hash", "text"),
        Field("sequence.previous_record", "audit.sequence.previous_record_id", "text"),
        Field("sequence.end", "audit.sequence.end", "bool"),
    ),
)

SCHEMAS: Final[dict[str, Schema]] = {_V1.version: _V1}

_ALWAYS: Final = frozenset(
    {
        "id",
        "event_name",
        "observed_timestamp",
        "log",
        "action",
        "outcome",
        "actor.id",
        "actor.type",
        "completeness",
    }
)
_GROUPS: Final[dict[str, type[msgspec.Struct]]] = {
    "actor": Actor,
    "target": Target,
    "source": Source,
    "request": Request,
    "database": Database,
    "origin": Origin,
    "sequence": Sequence,
}
_JSON_TYPES: Final[dict[str, Any]] = {
    "changes": list[Change],
    "image": dict[str, Any],
    "bulk": Bulk,
    "fields": list[str],
    "related": list[Target],
    "attributes": dict[str, Any],
}

encode_json: Final = msgspec.json.Encoder().encode
"""Writes a list or mapping of a record as its attribute does."""
_decode_json: Final[dict[str, Callable[[str], Any]]] = {
    path: msgspec.json.Decoder(kind).decode for path, kind in _JSON_TYPES.items()
}


class Attribute(NamedTuple):
    """One attribute of a record: its name and type, and whether it is there when its value is empty.

    ``repeats``: most records of a process share their value with others.
    """

    name: str
    kind: Kind
    always: bool
    repeats: bool


_UNIQUE: Final = frozenset(
    {
        "id",
        "request.id",
        "request.path",
        "request.parent",
        "database.transaction",
        "origin.request",
        "database.query",
        "target.id",
        "sequence.previous_hash",
        "sequence.previous_record",
    }
)
_NO_TARGET: Final = Target("")
_NO_SEQUENCE: Final = Sequence("", 0)
"""What stands in for a part that a record lacks: empty, so none of its attributes is there."""


def _fields_of(part: str) -> list[Field]:
    return [field for field in SCHEMAS[CURRENT_SCHEMA].fields if field.path.startswith(f"{part}.")]


_TARGET_FIELDS: Final = _fields_of("target")
_SEQUENCE_FIELDS: Final = _fields_of("sequence")
_ORIGIN_FIELDS: Final = _fields_of("origin")
_COMMON_FIELDS: Final = [
    field
    for field in SCHEMAS[CURRENT_SCHEMA].fields
    if field not in (*_TARGET_FIELDS, *_SEQUENCE_FIELDS, *_ORIGIN_FIELDS)
]

ATTRIBUTES: Final = tuple(
    Attribute(
        field.name, field.kind, field.path in _ALWAYS, field.kind == "text" and field.path not in _UNIQUE
    )
    for field in (*_COMMON_FIELDS, *_TARGET_FIELDS, *_SEQUENCE_FIELDS, *_ORIGIN_FIELDS)
)
"""The attributes of the current schema but for the version itself, in the order of :func:`values`."""

_common = attrgetter(*(field.path for field in _COMMON_FIELDS))
_target = attrgetter(*(field.path.removeprefix("target.") for field in _TARGET_FIELDS))
_sequence = attrgetter(*(field.path.removeprefix("sequence.") for field in _SEQUENCE_FIELDS))
_NO_ORIGIN: Final = ("",) * len(_ORIGIN_FIELDS)
_origin = attrgetter(*(field.path.removeprefix("origin.") for field in _ORIGIN_FIELDS))


def values(record: AuditRecord) -> tuple[Any, ...]:
    """Return what the :data:`ATTRIBUTES` of a record are made of, in their order."""
    return (
        *_common(record),
        *_target(record.target or _NO_TARGET),
        *_sequence(record.sequence or _NO_SEQUENCE),
        *(_NO_ORIGIN if record.origin is None else _origin(record.origin)),
    )


def to_attributes(record: AuditRecord) -> Attributes:
    """Return the attributes of a record in the current schema; empty values are absent.

    ``timestamp``, ``trace_id``, ``span_id`` and ``message`` are not among them: OTLP has fields for these.
    """
    attributes: Attributes = {SCHEMA_VERSION: CURRENT_SCHEMA}
    for value, attribute in zip(values(record), ATTRIBUTES, strict=True):
        if value or attribute.always:
            attributes[attribute.name] = encode_json(value).decode() if attribute.kind == "json" else value
    return attributes


def from_attributes(
    attributes: Mapping[str, Any],
    *,
    timestamp: int,
    trace_id: str = "",
    span_id: str = "",
    message: str = "",
) -> AuditRecord:
    """Rebuild a record from its attributes, typed or all text; names not of its schema are ignored.

    Raises:
        InvalidRecord: the schema version is unknown, or a value does not fit it.
    """
    version = str(attributes.get(SCHEMA_VERSION, CURRENT_SCHEMA))
    schema = SCHEMAS.get(version)
    if schema is None:
        raise InvalidRecord(
            f"{SCHEMA_VERSION} is {version!r}; this version of otel-audit reads {', '.join(sorted(SCHEMAS))}"
        )
    values: dict[str, Any] = {
        "timestamp": timestamp,
        "trace_id": trace_id,
        "span_id": span_id,
        "message": message,
    }
    groups: dict[str, dict[str, Any]] = {}
    try:
        for path, name, kind in schema.fields:
            raw = attributes.get(name)
            if raw is None:
                continue
            value = _typed(path, kind, raw)
            group, _, member = path.partition(".")
            if member:
                groups.setdefault(group, {})[member] = value
            else:
                values[group] = value
        for group, members in groups.items():
            values[group] = _GROUPS[group](**members)
        return msgspec.convert(values, AuditRecord)
    except (TypeError, ValueError) as error:
        raise InvalidRecord(f"record {attributes.get(RECORD_ID, 'without id')}: {error}") from error


def _typed(path: str, kind: Kind, raw: Any) -> Any:
    if kind == "int":
        return int(raw)
    if kind == "bool":
        return raw is True or raw == "true"
    if kind == "json":
        return _decode_json[path](raw)
    return raw


# --- requests, calls, commands, jobs and tasks --------------------------------------------------

WORK_EVENTS: Final = {
    "request": ("http.server.request",),
    "outgoing": ("http.client.request",),
    "command": ("command.start", "command.output", "command.run"),
    "job": ("job.start", "job.output", "job.run"),
    "task": ("task.publish", "task.start", "task.output", "task.run", "task.retry", "task.stale"),
}
"""The kinds of work, and the event names of their records."""

# --- requests, calls and their answers: names in `attributes` ---------------------------------------------

METHOD: Final = "http.request.method"
URL: Final = "url.full"
SCHEME: Final = "url.scheme"
QUERY: Final = "url.query"
STATUS_CODE: Final = "http.response.status_code"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
REQUEST_SIZE: Final = "http.request.body.size"
RESPONSE_SIZE: Final = "http.response.body.size"
REQUEST_HEADER: Final = "http.request.header."
RESPONSE_HEADER: Final = "http.response.header."
REQUEST_BODY: Final = "request.body"
RESPONSE_BODY: Final = "response.body"
REQUEST_BODY_CUT: Final = "request.body.cut"
RESPONSE_BODY_CUT: Final = "response.body.cut"
"""What of a body is missing, in words."""
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
DURATION: Final = "duration"
RESPONSE_STATE: Final = "response.state"
"""``closed``: the application left the response before its end; ``open``: it had not come to its end yet."""

# --- refusals of throttling, among the attributes of a record ------------------------------------

THROTTLING_RULE: Final = "throttling.rule"
THROTTLING_LIMIT: Final = "throttling.limit"
THROTTLING_TIMEFRAME: Final = "throttling.timeframe"
THROTTLING_RETRY_AFTER: Final = "throttling.retry_after"
THROTTLING_MESSAGE: Final = "throttling.message"


# --- tasks: names in `attributes` -------------------------------------------------------------------------

TASK_ID: Final = "task.id"
TASK_STATE: Final = "task.state"
"""``PENDING`` once published, ``STARTED``, and how it ended: ``SUCCESS``, ``FAILURE``, ``RETRY``, …"""
TASK_QUEUE: Final = "task.queue"
TASK_RETRIES: Final = "task.retries"
"""How often it was tried before."""
TASK_ETA: Final = "task.eta"
TASK_COUNTDOWN: Final = "task.countdown"
TASK_EXPIRES: Final = "task.expires"
TASK_REDELIVERED: Final = "task.redelivered"
TASK_EAGER: Final = "task.eager"
TASK_PARENT: Final = "task.parent_id"
TASK_ROOT: Final = "task.root_id"
TASK_GROUP: Final = "task.group"
TASK_WORKER: Final = "task.worker"
TASK_SCHEDULE: Final = "task.schedule"
"""The entry of a schedule that published it."""
TASK_RESULT: Final = "task.result"
PROCESS_PID: Final = "process.pid"
ARGUMENTS: Final = "arguments"
CLOSE_CODE: Final = "websocket.close.code"


# --- commands, jobs and tasks: names in `attributes` -----------------------------------------------------

EXIT_CODE: Final = "process.exit.code"
OUTPUT: Final = "output"
OUTPUT_SIZE: Final = "output.size"
FORKED_FROM: Final = "process.parent_pid"
