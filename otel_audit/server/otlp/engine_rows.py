"""Log requests, and the Collector's blocks, whose rows the engine makes itself, of the bytes as they came.

The engine reads protobuf in a fraction of the time our rows take, without holding up other threads. It puts
the records into their table by the SELECT of the view: one to analyse where there are several otherwise.

It reads what it is told of and no more, so this is for requests that consist of that and nothing else:
records of one log with valid ids, values that are texts, whole numbers or booleans, each field once, in the
shortest form. Our own senders' are. What is not goes the other way, :mod:`otel_audit.server.otlp.rows`.

Several requests after each other are one request: protobuf appends what is repeated. So a group is one file.

A block in the columns of a landing table is in the engine's own format. What it is spared is the views: those
for what does not belong there, and the turning of bulk records into rows where there are none.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from google.protobuf.message import DecodeError

from otel_audit.named_tuples import NamedTuple
from otel_audit.semconv import RECORD_ID
from otel_audit.server.otlp import wire
from otel_audit.server.otlp.limits import Budget
from otel_audit.server.otlp.rows import Rows
from otel_audit.store import schema
from otel_audit.store.columns import RECORD_COLUMNS, attribute_names

_TEXT_TAG: Final = rb"\x0a"
_VALUE_TAG: Final = rb"\x12"


def rows_by_engine(body: bytes, budget: Budget | None = None) -> Rows | None:
    """Return the rows of an ``ExportLogsServiceRequest`` if the engine can make them, else None.

    That the bytes are well-formed, with texts in UTF-8, is judged here for those that it can.

    Raises:
        TooLarge: the rows are more than the budget has; each has the resource.
    """
    message = wire.PlainLogs()
    try:
        message.ParseFromString(body)
    except DecodeError:
        return None
    # What the description does not have, and what is there twice or in a longer form than needed, makes the
    # message shorter than the body was.
    message.DiscardUnknownFields()
    if message.ByteSize() != len(body):
        return None
    size = sum(len(scope.log_records) for resource in message.resource_logs for scope in resource.scope_logs)
    if not body.count(RECORD_ID.encode()) == len(_VALID_ID.findall(body)) == size:
        return None
    logs = _logs(body, size)
    if logs is None or len(logs) > 1:
        return None
    if budget is not None:
        budget.add(len(body))
        for resource in message.resource_logs:
            count = sum(len(scope.log_records) for scope in resource.scope_logs)
            budget.rows(count, resource.resource.ByteSize())
    log = schema.own(next(iter(logs), ""))
    bulk = any(name in body for name in _BULK_NAMES)
    return Rows(schema.events(log), RECORD_COLUMNS, body, size, select=_SELECTS[log, bulk])


class Made(NamedTuple):
    """What makes rows of a block: their table, and the SELECT from the file ``{path}``."""

    table: str
    select: str


def block_by_engine(landing: str, columns: Collection[str], data: bytes, at: int) -> Made | None:
    """Say how the rows of a Native block are made without the views of its landing table, if they can be.

    The SELECT fails on a block with other rows than records of that log; then it is the views' to part.

    Args:
        landing: the table the block is for.
        columns: those it has.
        data: what has the block.
        at: where in it the block begins.
    """
    log = _LANDINGS.get(landing)
    if log is None or not _NEEDED.issubset(columns):
        return None
    bulk = any(data.find(name, at) >= 0 for name in _BULK_NAMES)
    return Made(schema.events(log), _OF_BLOCKS[log, bulk])


def _logs(body: bytes, size: int) -> set[str] | None:
    """Return the logs the records name; None if that takes a closer look."""
    mentioned = sum(body.count(name) for name in _LOG_NAMES)
    if not mentioned:
        return set()
    found = _LOG.findall(body)
    if not len(found) == mentioned == size:
        return None
    # What follows the name may look like a part of it, so its length says where it ends.
    return {following[: length[0]].decode(errors="replace") for length, following in set(found)}


def _key(name: str) -> bytes:
    return _TEXT_TAG + re.escape(bytes([len(name)])) + re.escape(name.encode()) + _VALUE_TAG


_LOG_NAMES: Final = [name.encode() for name in attribute_names("log")]
_BULK_NAMES: Final = [name.encode() for name in attribute_names("bulk")]
_VALID_ID: Final = re.compile(
    _key(RECORD_ID)
    + rb"(?:\x26\x0a\x24[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|\x22\x0a\x20[0-9a-fA-F]{32})"
)
_LOG: Final = re.compile(
    b"(?:" + b"|".join(_key(name.decode()) for name in _LOG_NAMES) + rb").\x0a([\x00-\x20])(.{0,32})",
    re.DOTALL,
)

_VALUE: Final = "Tuple(text String, flag Nullable(Bool), number Nullable(Int64))"
_ATTRIBUTES: Final = f"Array(Tuple(key String, value {_VALUE}))"
_STRUCTURE: Final = f"""resource_logs Array(Tuple(
      resource Tuple(attributes {_ATTRIBUTES}),
      scope_logs Array(Tuple(
        log_records Array(Tuple(time UInt64, body {_VALUE}, attributes {_ATTRIBUTES}, trace_id String,
          span_id String, observed_time UInt64))))))"""


def _text(value: str) -> str:
    return f"coalesce(toString({value}.number), toString({value}.flag), {value}.text)"


def _map(attributes: str) -> str:
    return f"mapFromArrays({attributes}.key, arrayMap(v -> {_text('v')}, {attributes}.value))"


_LANDED: Final = f"""(
    SELECT
      fromUnixTimestamp64Nano(toInt64(least(if(log.time = 0, log.observed_time, log.time), {2**63 - 1})))
        AS Timestamp,
      lower(hex(log.trace_id)) AS TraceId, lower(hex(log.span_id)) AS SpanId,
      {_text("log.body")} AS Body, {_map("log.attributes")} AS LogAttributes,
      resource AS ResourceAttributes, resource['service.name'] AS ServiceName
    FROM (
      SELECT {_map("one.resource.attributes")} AS resource, arrayFlatten(one.scope_logs.log_records) AS logs
      FROM file('{{path}}', 'ProtobufSingle', '{_STRUCTURE}')
      ARRAY JOIN resource_logs AS one
    )
    ARRAY JOIN logs AS log
  )"""
_FORMAT: Final = "plain_logs.proto"
FORMATS: Final = {_FORMAT: wire.PLAIN_PROTO}
"""The description the engine needs of such requests, by the name of its file."""
# There is nothing to optimise, and to find that out takes as long as some thousand rows.
_PLAIN: Final = "\nSETTINGS query_plan_enable_optimizations = 0, optimize_functions_to_subcolumns = 0"
_SETTINGS: Final = (
    f"{_PLAIN},\n  format_schema = '{{formats}}/{_FORMAT}', format_schema_message_name = 'PlainLogs'"
)

_COLUMNS: Final = ("Timestamp", "TraceId", "SpanId", "ServiceName", "Body")
_MAPS: Final = ("LogAttributes", "ResourceAttributes")
_NEEDED: Final = frozenset((*_COLUMNS, *_MAPS))
_LANDINGS: Final = {schema.landing(log.name): log.name for log in schema.LOGS}
_CASTS: Final = ",\n      ".join(
    f"CAST({name}, 'Map(LowCardinality(String), String)') AS {name}" for name in _MAPS
)
_BLOCK: Final = f"""(
    SELECT {", ".join(_COLUMNS)},
      {_CASTS}
    FROM file('{{path}}', 'Native')
  )"""


def _selects(source: str, settings: str) -> dict[tuple[str, bool], str]:
    """Return the SELECT of rows from ``source`` by log, and by whether there are bulk records."""
    return {
        (log.name, bulk): schema.record_rows(log, source, sure=True, bulk=bulk) + settings
        for log in schema.LOGS
        for bulk in (False, True)
    }


_SELECTS: Final = _selects(_LANDED, _SETTINGS)
"""The rows of the table of a log from requests in the file ``path``."""
_OF_BLOCKS: Final = _selects(_BLOCK, _PLAIN)
"""The same from a block of the columns of a landing table."""
