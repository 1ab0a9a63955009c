"""The tables of the store, for the embedded engine and for a ClickHouse server alike (26.2 or newer).

Records land in ``audit_log``, which has the columns of the Collector's ClickHouse exporter and keeps nothing;
one view turns each into rows of ``audit_events``: the record itself at ordinal 0, complete, so that it can be
rebuilt byte for byte, and one row a target for the rows of a bulk record, from ordinal 1. Nothing is stored
twice, and no crash can leave a record in the one and not in the other.

Which attribute fills which column is derived from :mod:`otel_audit.semconv`; no name is written here.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from otel_audit.semconv import RECORD_ID, SCHEMA_VERSION, SCHEMAS

LANDING: Final = "audit_log"
EVENTS: Final = "audit_events"
TRAIL: Final = "audit_trail"
LOGS: Final = "otel_logs"
TRACES: Final = "otel_traces"
TRACE_TIMES: Final = "otel_traces_trace_id_ts"
MIGRATIONS: Final = "otel_audit_migrations"

WRITABLE: Final = (LANDING, LOGS, TRACES, TRACE_TIMES)
"""Tables a client may insert into; the others are filled by views."""


class View(NamedTuple):
    """A view: its name, the table it fills (none: it is only asked), its SELECT; `{db}` is a database."""

    name: str
    target: str | None
    select: str


def attribute(path: str) -> str:
    """Give the SQL of the attribute that holds ``path`` of a record, as text, under every schema version."""
    names = dict.fromkeys(
        field.name for schema in SCHEMAS.values() for field in schema.fields if field.path == path
    )
    if not names:
        raise KeyError(f"{path!r} is no part of a record")
    found = [f"LogAttributes['{name}']" for name in names]
    if len(found) == 1:
        return found[0]
    return f"coalesce({', '.join(f'nullIf({name}, {chr(39) * 2})' for name in found)}, '')"


TEXT_COLUMNS: Final = {
    "log": "log",
    "event_name": "event_name",
    "actor_id": "actor.id",
    "actor_type": "actor.type",
    "actor_name": "actor.name",
    "on_behalf_of": "actor.on_behalf_of",
    "action": "action",
    "outcome": "outcome",
    "target_type": "target.type",
    "source_ip": "source.id",
    "session": "source.session",
    "request_id": "request.id",
    "method": "request.method",
    "route": "request.route",
    "tenant": "tenant",
    "system": "system",
    "event_type": "event_type",
    "reason": "reason",
    "error": "error",
    "transaction": "database.transaction",
    "completeness": "completeness",
    "old_values": "old_values",
    "stream": "sequence.stream",
}
"""Columns that are one text attribute, and the part of the record it holds."""

_EMPTY_MAP: Final = "CAST(map(), 'Map(LowCardinality(String), String)')"
_VALID: Final = f"toUUIDOrNull(LogAttributes['{RECORD_ID}']) IS NOT NULL"
_LOG_COLUMNS: Final = (
    "Timestamp, TraceId, SpanId, TraceFlags, SeverityText, SeverityNumber, ServiceName, Body, "
    "ResourceSchemaUrl, ResourceAttributes, ScopeSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, "
    "LogAttributes, EventName"
)
_LOG_COLUMN_TYPES: Final = """
  Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
  TraceId String CODEC(ZSTD(1)),
  SpanId String CODEC(ZSTD(1)),
  TraceFlags UInt8,
  SeverityText LowCardinality(String) CODEC(ZSTD(1)),
  SeverityNumber UInt8,
  ServiceName LowCardinality(String) CODEC(ZSTD(1)),
  Body String CODEC(ZSTD(1)),
  ResourceSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
  ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ScopeSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
  ScopeName String CODEC(ZSTD(1)),
  ScopeVersion LowCardinality(String) CODEC(ZSTD(1)),
  ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  LogAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  EventName String CODEC(ZSTD(1))"""

_EVENTS_TABLE: Final = f"""
CREATE TABLE IF NOT EXISTS {{db}}.{EVENTS} (
  timestamp DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
  record_id UUID CODEC(ZSTD(1)),
  ordinal UInt32 CODEC(T64, ZSTD(1)),
  log LowCardinality(String),
  event_name LowCardinality(String),
  actor_id String CODEC(ZSTD(1)),
  actor_type LowCardinality(String),
  actor_name String CODEC(ZSTD(1)),
  on_behalf_of String CODEC(ZSTD(1)),
  action LowCardinality(String),
  outcome LowCardinality(String),
  target_type LowCardinality(String),
  target_id String CODEC(ZSTD(1)),
  source_ip String CODEC(ZSTD(1)),
  session String CODEC(ZSTD(1)),
  request_id String CODEC(ZSTD(1)),
  method LowCardinality(String),
  route LowCardinality(String),
  service LowCardinality(String),
  tenant LowCardinality(String),
  system LowCardinality(String),
  event_type LowCardinality(String),
  reason String CODEC(ZSTD(1)),
  error String CODEC(ZSTD(1)),
  transaction String CODEC(ZSTD(1)),
  completeness LowCardinality(String),
  old_values LowCardinality(String),
  truncated Bool,
  row_count UInt64 CODEC(T64, ZSTD(1)),
  stream LowCardinality(String),
  sequence UInt64 CODEC(DoubleDelta, ZSTD(1)),
  schema_version LowCardinality(String),
  trace_id String CODEC(ZSTD(1)),
  span_id String CODEC(ZSTD(1)),
  message String CODEC(ZSTD(1)),
  related Array(String) CODEC(ZSTD(1)),
  changes Nested(
    field LowCardinality(String),
    old String,
    new String,
    type LowCardinality(String),
    known LowCardinality(String)
  ) CODEC(ZSTD(1)),
  attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  resource Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  target String ALIAS if(target_id = '', target_type, concat(target_type, '/', target_id)),
  change_items Array(String) ALIAS arrayMap((f, v) -> concat(f, '=', v), changes.field, changes.new),
  search_text String ALIAS lower(concat(message, ' ', arrayStringConcat(changes.new, ' '), ' ',
    arrayStringConcat(changes.old, ' '))),
  INDEX ix_target target TYPE text(tokenizer = 'array'),
  INDEX ix_actor actor_id TYPE text(tokenizer = 'array'),
  INDEX ix_actor_name actor_name TYPE text(tokenizer = 'array'),
  INDEX ix_trace trace_id TYPE text(tokenizer = 'array'),
  INDEX ix_request request_id TYPE text(tokenizer = 'array'),
  INDEX ix_related related TYPE text(tokenizer = 'array'),
  INDEX ix_field changes.field TYPE text(tokenizer = 'array'),
  INDEX ix_items change_items TYPE text(tokenizer = 'array'),
  INDEX ix_text search_text TYPE text(tokenizer = 'splitByNonAlpha'),
  INDEX ix_record record_id TYPE bloom_filter(0.001) GRANULARITY 4
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (timestamp, record_id, ordinal)
SETTINGS index_granularity = 2048, non_replicated_deduplication_window = 1000"""

_TRACES_TABLE: Final = f"""
CREATE TABLE IF NOT EXISTS {{db}}.{TRACES} (
  Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
  TraceId String CODEC(ZSTD(1)),
  SpanId String CODEC(ZSTD(1)),
  ParentSpanId String CODEC(ZSTD(1)),
  TraceState String CODEC(ZSTD(1)),
  SpanName LowCardinality(String) CODEC(ZSTD(1)),
  SpanKind LowCardinality(String) CODEC(ZSTD(1)),
  ServiceName LowCardinality(String) CODEC(ZSTD(1)),
  ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ScopeName String CODEC(ZSTD(1)),
  ScopeVersion String CODEC(ZSTD(1)),
  SpanAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  Duration UInt64 CODEC(ZSTD(1)),
  StatusCode LowCardinality(String) CODEC(ZSTD(1)),
  StatusMessage String CODEC(ZSTD(1)),
  Events Nested(
    Timestamp DateTime64(9),
    Name LowCardinality(String),
    Attributes Map(LowCardinality(String), String)
  ) CODEC(ZSTD(1)),
  Links Nested(
    TraceId String,
    SpanId String,
    TraceState String,
    Attributes Map(LowCardinality(String), String)
  ) CODEC(ZSTD(1)),
  INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
  INDEX idx_duration Duration TYPE minmax GRANULARITY 1
) ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (ServiceName, SpanName, toDateTime(Timestamp))
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000"""

TABLES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (
        "tables",
        (
            f"CREATE TABLE IF NOT EXISTS {{db}}.{LANDING} ({_LOG_COLUMN_TYPES}\n) ENGINE = Null",
            f"""
CREATE TABLE IF NOT EXISTS {{db}}.{LOGS} ({_LOG_COLUMN_TYPES},
  INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
  INDEX idx_body Body TYPE tokenbf_v1(32768, 3, 0) GRANULARITY 8
) ENGINE = MergeTree
PARTITION BY toDate(Timestamp)
ORDER BY (toStartOfFiveMinutes(Timestamp), ServiceName, Timestamp)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1""",
            _TRACES_TABLE,
            f"""
CREATE TABLE IF NOT EXISTS {{db}}.{TRACE_TIMES} (
  TraceId String CODEC(ZSTD(1)),
  Start DateTime CODEC(Delta, ZSTD(1)),
  End DateTime CODEC(Delta, ZSTD(1)),
  INDEX idx_trace_id TraceId TYPE bloom_filter(0.01) GRANULARITY 1
) ENGINE = MergeTree
PARTITION BY toDate(Start)
ORDER BY (TraceId, Start)
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1""",
            _EVENTS_TABLE,
        ),
    ),
)
"""Named steps in the order they were released; a released step never changes, a new one is added."""


def _known(value: str) -> str:
    # One character before a value says what it is while rows and columns are turned: v(alue) or n(ull).
    return f"if(isNull({value}), 'n', concat('v', assumeNotNull({value})))"


def _record_rows() -> str:
    """Give the SELECT from the landing table to ``audit_events``.

    A bulk record's columns are turned into rows by sorting the flattened cells by row number: a lambda that
    captured the columns would copy all of them for every row, which is quadratic (one record of 1000 rows
    and 75 kB took 0.8 s that way, 1 ms this way). For the same reason the record's own attributes travel as
    the first element of a joined array instead of being copied to every row.
    """
    columns = ",\n    ".join(f"{attribute(path)} AS {name}" for name, path in TEXT_COLUMNS.items())
    bulk = attribute("bulk")
    cells = {
        side: f"arrayFlatten(arrayMap(c -> arrayResize(arrayMap(v -> {_known('v')}, c), n, '-'), "
        f"tupleElement(columns, '{side}')))"
        for side in ("old", "new")
    }
    rows = {
        side: f"arrayResize(arraySplit((v, i) -> i % width = 0, "
        f"arraySort((v, i) -> i % n * width + intDiv(i, n), {cells[side]}, cell_numbers), cell_numbers), n, "
        "emptyArrayString())"
        for side in ("old", "new")
    }
    own = {
        side: f"arrayMap(c -> if(mapContains(c, '{side}'), {_known(f'c[{chr(39)}{side}{chr(39)}]')}, '-'), "
        "listed)"
        for side in ("old", "new")
    }
    # However little the parts of a broken record fit each other, the arrays of a row must have one length:
    # the engine would refuse it, and everything in its batch, for ever.
    filled = "arrayMap(v -> arrayResize(v, length(fields), '-'), {})"
    return f"""
SELECT timestamp, record_id, ordinal, {", ".join(TEXT_COLUMNS)},
  service, key AS target_id, truncated, row_count, sequence, schema_version, trace_id, span_id, message,
  related,
  fields AS `changes.field`,
  arrayMap(v -> substring(v, 2), old) AS `changes.old`,
  arrayMap(v -> substring(v, 2), new) AS `changes.new`,
  types AS `changes.type`,
  arrayMap((o, v) -> concat(substring(o, 1, 1), substring(v, 1, 1)), old, new) AS `changes.known`,
  own_attributes AS attributes, own_resource AS resource
FROM (
  WITH
    JSONExtract({attribute("changes")}, 'Array(Map(String, Nullable(String)))') AS listed,
    JSONExtract({bulk}, 'Tuple(count UInt64, keys Array(String), columns Array(Tuple(field String,
      old Array(Nullable(String)), new Array(Nullable(String)), type String)))') AS bulk,
    bulk.keys AS keys, bulk.columns AS columns, length(keys) AS n, length(columns) AS width,
    range(n * width) AS cell_numbers
  SELECT
    Timestamp AS timestamp,
    toUUIDOrZero(LogAttributes['{RECORD_ID}']) AS record_id,
    {columns},
    ServiceName AS service,
    {attribute("truncated")} = 'true' AS truncated,
    bulk.count AS row_count,
    toUInt64OrZero({attribute("sequence.number")}) AS sequence,
    LogAttributes['{SCHEMA_VERSION}'] AS schema_version,
    TraceId AS trace_id,
    SpanId AS span_id,
    Body AS message,
    arrayMap(r -> if(r.id = '', r.type, concat(r.type, '/', r.id)),
      JSONExtract({attribute("related")}, 'Array(Tuple(type String, id String))')) AS related,
    multiIf(
      notEmpty(listed), arrayMap(c -> ifNull(c['field'], ''), listed),
      notEmpty(columns), tupleElement(columns, 'field'),
      JSONExtract({attribute("fields")}, 'Array(String)')) AS fields,
    multiIf(
      notEmpty(listed), arrayMap(c -> ifNull(c['type'], ''), listed),
      notEmpty(columns), tupleElement(columns, 'type'),
      arrayResize(emptyArrayString(), length(fields), '')) AS types,
    arrayPushFront(keys, {attribute("target.id")}) AS keys_,
    {filled.format(f"arrayPushFront({rows['old']}, {own['old']})")} AS old_,
    {filled.format(f"arrayPushFront({rows['new']}, {own['new']})")} AS new_,
    arrayPushFront(arrayMap(k -> {_EMPTY_MAP}, keys), LogAttributes) AS attributes_,
    arrayPushFront(arrayMap(k -> {_EMPTY_MAP}, keys), ResourceAttributes) AS resource_
  FROM {{db}}.{LANDING}
  WHERE {_VALID}
)
ARRAY JOIN range(length(keys_)) AS ordinal, keys_ AS key, old_ AS old, new_ AS new,
  attributes_ AS own_attributes, resource_ AS own_resource"""


VIEWS: Final[tuple[View, ...]] = (
    View(f"{EVENTS}_mv", EVENTS, _record_rows()),
    View(
        f"{LANDING}_others_mv",
        LOGS,
        f"\nSELECT {_LOG_COLUMNS} FROM {{db}}.{LANDING} WHERE NOT ({_VALID})",
    ),
    View(
        f"{TRACE_TIMES}_mv",
        TRACE_TIMES,
        f"""
SELECT TraceId, min(Timestamp) AS Start, max(Timestamp) AS End
FROM {{db}}.{TRACES} WHERE TraceId != '' GROUP BY TraceId""",
    ),
    # Every row seen once, whatever was sent twice and is not merged yet: for dashboards and people. It costs
    # two to three times as much as the table, from whose sorted rows our own queries take each record once.
    View(TRAIL, None, f"\nSELECT *, target FROM {{db}}.{EVENTS} FINAL"),
)
"""All views. A record without a valid id is no audit record: it is kept as an ordinary log."""
