"""The tables that keep something, step by step as they were released, for one server and for a cluster.

A released step never changes, a new one is added. A table whose name holds ``{log}`` stands for one of each
log of :data:`otel_audit.store.schema.LOGS`; a log that is added later is given all steps from the first.
"""

from __future__ import annotations

import re
from typing import Final

from otel_audit.named_tuples import NamedTuple
from otel_audit.store import work
from otel_audit.store.schema import (
    DEFAULT_LOG,
    LOGS_TABLE,
    METRICS,
    MIGRATIONS,
    OTHER_LOG,
    TRACE_TIMES,
    TRACES,
    events,
)

_LOG_COLUMNS: Final = """
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


class Table(NamedTuple):
    """A table: its columns and indexes, its engine, how its rows lie on disk, and on which shard.

    ``shard_by`` is the expression that chooses a cluster's shard. A table without one keeps nothing (engine
    ``Null``), or the same rows on every host.
    """

    name: str
    columns: str
    engine: str
    keys: str = ""
    settings: str = ""
    shard_by: str = ""

    @property
    def keeps_rows(self) -> bool:
        """Whether what is inserted stays there."""
        return self.engine != "Null"

    @property
    def each_log(self) -> bool:
        """Whether there is one for each log."""
        return "{log}" in self.name

    def of(self, log: str) -> Table:
        """Return the table of one log."""
        return self._replace(name=self.name.replace("{log}", log))


class Addition(NamedTuple):
    """Columns and indexes that the table of each log is given after it was made.

    Parts that were written before get an index when they are merged, and are read without it until then;
    those of ``tables`` without waiting for a merge, in the background. Only these have ``own_indexes``.
    ``sums`` are projections of the default log's table alone: what the engine keeps summed up with each part,
    and sums up again when parts are merged and duplicates go.
    """

    table: Table
    columns: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    own_indexes: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    sums: tuple[str, ...] = ()

    def indexes_here(self) -> tuple[str, ...]:
        """Return the indexes of the table."""
        return (*self.indexes, *self.own_indexes) if self.table.name in self.tables else self.indexes

    def of(self, log: str) -> Addition:
        """Return the addition to the table of one log."""
        return self._replace(table=self.table.of(log), sums=self.sums if log == DEFAULT_LOG else ())


class Step(NamedTuple):
    """A released step: its name, the tables it brings, and what it adds to those of former steps."""

    name: str
    tables: tuple[Table, ...]
    additions: tuple[Addition, ...] = ()


_LANDING: Final = Table("{log}_log", _LOG_COLUMNS, "Null")

_EVENTS: Final = Table(
    "{log}_events",
    """
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
  INDEX ix_record record_id TYPE bloom_filter(0.001) GRANULARITY 4""",
    "ReplacingMergeTree",
    "PARTITION BY toYYYYMM(timestamp)\nORDER BY (timestamp, record_id, ordinal)",
    "index_granularity = 2048, non_replicated_deduplication_window = 1000",
    # A resend must meet the first sending on one shard, or the two would never be merged; so must the rows of
    # a bulk record; and a stream's chain is proved without asking another shard. Of other senders' records,
    # which have no stream, each goes its own way.
    "cityHash64(if(stream = '', toString(record_id), toString(stream)))",
)

_PER_DAY: Final = "toDate(timestamp), ordinal = 0, log, action, outcome, target_type"
_WORK: Final = Addition(
    _EVENTS,
    (
        *(
            f"{name} {kind} DEFAULT {work.attribute_of(name)} CODEC(ZSTD(1))"
            for name, kind in (
                ("slug", "LowCardinality(String)"),
                ("parent", "String"),
                ("path", "String"),
                ("view", "LowCardinality(String)"),
            )
        ),
        f"work {work.TYPE} DEFAULT {work.extracted()} CODEC(ZSTD(1))",
        f"request_items Array(String) ALIAS {work.items()}",
    ),
    ("ix_parent parent TYPE text(tokenizer = 'array')",),
    # Its texts are made of each row that is inserted, request or not: a third more memory for a large block.
    ("ix_requests request_items TYPE text(tokenizer = 'array')",),
    tuple(events(log) for log in (*work.REQUEST_LOGS, OTHER_LOG)),
    (f"per_day (SELECT {_PER_DAY}, count() GROUP BY {_PER_DAY})",),
)
"""What requests, calls, commands and tasks are asked by, and what a list says of them."""

_NAMED: Final = "actor_name, actor_type, actor_id"
_NAMES: Final = Addition(_EVENTS, sums=(f"actor_names (SELECT {_NAMED}, count() GROUP BY {_NAMED})",))
"""Which ids a name has: a record may have only one of the two."""

_INDEXES: Final = dict(re.findall(r"INDEX (\w+) (.+?)(?:,\n|$)", _EVENTS.columns)) | dict(
    each.split(" ", 1) for each in (*_WORK.indexes, *_WORK.own_indexes)
)
_SMALL: Final = {
    f"ix_{name}_bloom": f"{name}_id TYPE bloom_filter(0.001) GRANULARITY 4" for name in ("trace", "request")
}
INDEXES: Final = {
    "all": _INDEXES,
    "small": {
        **{
            name: each for name, each in _INDEXES.items() if name not in ("ix_text", "ix_trace", "ix_request")
        },
        **_SMALL,
    },
}
"""The indexes of the tables of records, by name, in each selection of ``indexes`` in [store]."""

UNCHANGED: Final = "unchanged"
"""In place of a selection: the one there is."""

INDEXES_THAT_WAIT: Final = tuple(name for name in _INDEXES if name != "ix_items")
"""Indexes of records that the first merge may make instead of the insert, where that has few rows.

Not that of an expression with a lambda: the engine (26.9) fails to ask a part that lacks it (code 43).
"""

_LOGS: Final = Table(
    LOGS_TABLE,
    f"""{_LOG_COLUMNS},
  INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
  INDEX idx_body Body TYPE tokenbf_v1(32768, 3, 0) GRANULARITY 8""",
    "MergeTree",
    "PARTITION BY toDate(Timestamp)\nORDER BY (toStartOfFiveMinutes(Timestamp), ServiceName, Timestamp)",
    "index_granularity = 8192, ttl_only_drop_parts = 1",
    "cityHash64(ServiceName, Timestamp)",
)

_TRACES: Final = Table(
    TRACES,
    """
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
  INDEX idx_duration Duration TYPE minmax GRANULARITY 1""",
    "MergeTree",
    "PARTITION BY toDate(Timestamp)\nORDER BY (ServiceName, SpanName, toDateTime(Timestamp))",
    "index_granularity = 8192, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000",
    "cityHash64(TraceId)",
)

_TRACE_TIMES: Final = Table(
    TRACE_TIMES,
    """
  TraceId String CODEC(ZSTD(1)),
  Start DateTime CODEC(Delta, ZSTD(1)),
  End DateTime CODEC(Delta, ZSTD(1)),
  INDEX idx_trace_id TraceId TYPE bloom_filter(0.01) GRANULARITY 1""",
    "MergeTree",
    "PARTITION BY toDate(Start)\nORDER BY (TraceId, Start)",
    "index_granularity = 8192, ttl_only_drop_parts = 1",
    "cityHash64(TraceId)",
)

METRICS_KEPT: Final = "30d"
_METRICS: Final = Table(
    METRICS,
    """
  Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
  StartTimestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
  ServiceName LowCardinality(String) CODEC(ZSTD(1)),
  MetricName LowCardinality(String) CODEC(ZSTD(1)),
  MetricUnit LowCardinality(String) CODEC(ZSTD(1)),
  Value Float64 CODEC(ZSTD(1)),
  Attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
  ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1))""",
    "MergeTree",
    "PARTITION BY toDate(Timestamp)\nORDER BY (MetricName, ServiceName, Timestamp)\n"
    "TTL Timestamp + INTERVAL 30 DAY DELETE",
    "index_granularity = 8192, ttl_only_drop_parts = 1",
    "cityHash64(ServiceName, MetricName)",
)

JOURNAL: Final = Table(
    MIGRATIONS,
    """
  kind LowCardinality(String),
  name String,
  version UInt32,
  checksum String,
  applied_at DateTime64(3, 'UTC') DEFAULT now64(3),
  applied_by String""",
    "MergeTree",
    "ORDER BY (kind, name, applied_at)",
)
"""What was applied, when and by which version; it comes before all steps."""

STEPS: Final[tuple[Step, ...]] = (
    Step("tables", (_LANDING.of(DEFAULT_LOG), _LOGS, _TRACES, _TRACE_TIMES, _EVENTS.of(DEFAULT_LOG))),
    Step("logs", (_LANDING, _EVENTS)),
    Step("metrics", (_METRICS,)),
    # What `attributes` leaves out: see otel_audit.store.columns.
    Step(
        "attributes",
        (),
        (
            Addition(
                _EVENTS,
                ("attributes_form UInt16 CODEC(ZSTD(1))", "observed_after Int64 CODEC(T64, ZSTD(1))"),
            ),
        ),
    ),
    Step("work", (), (_WORK,)),
    Step("names", (), (_NAMES,)),
)
"""In the order they were released."""

CURRENT: Final = len(STEPS)
"""The schema version of a database that has them all."""
