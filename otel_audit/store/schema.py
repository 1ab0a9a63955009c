"""The names of the store's tables, and the views behind them: embedded engine, or ClickHouse 26.2 or newer.

Records land in ``audit_log``, which has the columns of the Collector's ClickHouse exporter and keeps nothing;
one view turns each into rows of ``audit_events``: the record itself at ordinal 0, whose columns give it back
byte for byte (:mod:`otel_audit.store.columns`), and one row a target for the rows of a bulk record, from
ordinal 1. Nothing is stored twice, and no crash can leave a record in the one and not in the other.

Each log, that is kind of record, has such a pair: so it can be kept for a time of its own, and many page
views slow no question about changes. A record is stored by the log it names (:func:`landing`). One that was
sent to the landing table of another log goes on from there to ``other_log``, and ``other_events`` keeps it; a
question about a log reads both, so it is found.

Which attribute fills which column is derived from :mod:`otel_audit.semconv`; no name is written here.
"""

from __future__ import annotations

from typing import Final

from otel_audit.named_tuples import NamedTuple
from otel_audit.semconv import RECORD_ID, SCHEMA_VERSION
from otel_audit.store import columns as of_rows
from otel_audit.store.columns import TEXT_COLUMNS, attribute


class Log(NamedTuple):
    """A kind of record: its name, and whether its records tell what happened to an object."""

    name: str
    in_history: bool = True


DEFAULT_LOG: Final = "audit"
OTHER_LOG: Final = "other"
ACCESS_LOG: Final = "access"
"""Who asked what of the store; it has no tables of its own."""

LOGS: Final = (
    Log(DEFAULT_LOG),
    Log("activity"),
    Log("pageview", in_history=False),  # to look at an order does nothing to it, and happens a thousandfold
    Log(OTHER_LOG),
)
"""The logs with tables of their own; the last one takes all that have none.

To add one, add an entry here and a block in ``collector/config.yaml``; the next migration makes its tables.
"""


def landing(log: str) -> str:
    """Name the table that records of a log are inserted into.

    >>> landing("activity"), landing(""), landing("billing")
    ('activity_log', 'audit_log', 'other_log')
    """
    return f"{own(log)}_log"


def events(log: str) -> str:
    """Name the table that keeps the records of a log."""
    return f"{own(log)}_events"


def own(log: str) -> str:
    """Name the log whose tables keep the records of ``log``."""
    log = log or DEFAULT_LOG
    return log if any(log == each.name for each in LOGS) else OTHER_LOG


LANDING: Final = landing(DEFAULT_LOG)
EVENTS: Final = events(DEFAULT_LOG)
LOGS_TABLE: Final = "otel_logs"
TRACES: Final = "otel_traces"
TRACE_TIMES: Final = "otel_traces_trace_id_ts"
METRICS: Final = "otel_audit_metrics"
MIGRATIONS: Final = "otel_audit_migrations"

WRITABLE: Final = (*(landing(log.name) for log in LOGS), LOGS_TABLE, TRACES, TRACE_TIMES)
"""Tables a client may insert into; the others are filled by views."""


class View(NamedTuple):
    """A view: its name, the table it fills (none: it is only asked), its SELECT.

    ``{db}`` is the database; ``{stored}`` ends the name of a table where its rows lie: on a cluster each host
    has a part of them, in a table of its own.
    """

    name: str
    target: str | None
    select: str


_VALID: Final = f"toUUIDOrNull(LogAttributes['{RECORD_ID}']) IS NOT NULL"
_LOG: Final = f"if({attribute('log')} = '', '{DEFAULT_LOG}', {attribute('log')})"
_LOG_COLUMNS: Final = (
    "Timestamp, TraceId, SpanId, TraceFlags, SeverityText, SeverityNumber, ServiceName, Body, "
    "ResourceSchemaUrl, ResourceAttributes, ScopeSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, "
    "LogAttributes, EventName"
)


def _marked(value: str) -> str:
    # One character before a value says what it is while rows and columns are turned: v(alue) or n(ull).
    return f"ifNull(concat('v', {value}), 'n')"


class _Shape(NamedTuple):
    """The parts of the SELECT of records that differ with whether a record may have rows of its own."""

    names: str
    total: str
    fields: str
    types: str
    rows: str
    join: str


_SINGLE: Final = _Shape(
    names="",
    total="0",
    fields="",
    types="emptyArrayString()",
    rows="0 AS ordinal, own_key AS key, own_pairs AS pairs, own_related AS related, "
    "rest AS own_attributes, ResourceAttributes AS own_resource",
    join="",
)
_MOST_CELLS: Final = 4_000_000
_MOST_REPEATED: Final = 1024 * 1024 * 1024
"""Cells of the columns of one bulk record, and bytes its rows repeat of it, up to which it is given rows of
its own. Ours have at most 1000 rows and 1 MiB; one of 100 kB can be made that would take 10 GB."""
_CELLS: Final = ", ".join(
    f"arrayResize(arrayMap(v -> {_marked('v')}, c.{side}), n, '-')" for side in ("old", "new")
)
_BULK: Final = _Shape(
    names=f""",
    JSONExtract({attribute("bulk")}, 'Tuple(count UInt64, keys Array(String), columns Array(Tuple(
      field String, old Array(Nullable(String)), new Array(Nullable(String)), type String)))') AS bulk,
    length(bulk.keys) * length(bulk.columns) <= {_MOST_CELLS}
      AND length(bulk.keys) * (byteSize(LogAttributes) - length({attribute("bulk")}) + length(Body))
        <= {_MOST_REPEATED} AS fits,
    if(fits, bulk.keys, []) AS keys, if(fits, bulk.columns, []) AS columns,
    length(keys) AS n, length(columns) AS width,
    range(n * width) AS cell_numbers""",
    total="bulk.count",
    fields="""
      width > 0, tupleElement(columns, 'field'),""",
    types="tupleElement(columns, 'type')",
    rows=f"""arrayPushFront(keys, own_key) AS keys_,
    arrayPushFront(
      arrayResize(
        arraySplit((v, i) -> i % width = 0,
          arraySort((v, i) -> i % n * width + intDiv(i, n),
            arrayFlatten(arrayMap(c -> arrayZip({_CELLS}), columns)),
            cell_numbers),
          cell_numbers),
        n),
      own_pairs) AS pairs_,
    arrayResize([own_related], n + 1) AS related_,
    arrayResize([rest], n + 1) AS attributes_,
    arrayResize([ResourceAttributes], n + 1) AS resource_""",
    join="""
ARRAY JOIN range(length(keys_)) AS ordinal, keys_ AS key, pairs_ AS pairs, related_ AS related,
  attributes_ AS own_attributes, resource_ AS own_resource""",
)


def record_rows(log: Log, source: str, *, sure: bool = False, bulk: bool = True) -> str:
    """Return the SELECT from ``source``, rows as they land, to the table that keeps the records of a log.

    Rows that are no records of this log are left out; if there should be none (``sure``), it fails instead.
    Where no record can have rows of its own (``bulk`` is false), there is less to analyse.

    A bulk record's columns are turned into rows by sorting the flattened cells by row number: a lambda that
    captured the columns would copy all of them for every row, which is quadratic (one record of 1000 rows
    and 75 kB took 0.8 s that way, 1 ms this way). For the same reason the record's own attributes and related
    objects travel as the first element of a joined array instead of being copied to every row.

    The engine analyses this anew for each insert, which for few rows costs more than the rows: each lambda
    takes some 0.4 ms. So old and new values go together, and an array is padded rather than mapped.
    """
    columns = ",\n    ".join(
        f"{_LOG if path == 'log' else attribute(path)} AS {name}" for name, path in TEXT_COLUMNS.items()
    )
    own = ", ".join(
        f"if(mapContains(c, '{side}'), {_marked(f'c[{chr(39)}{side}{chr(39)}]')}, '-')"
        for side in ("old", "new")
    )
    shape = _BULK if bulk else _SINGLE
    split = of_rows.split()
    parts = ",\n    ".join(f"{each} AS {name}" for name, each in split.named.items())
    # However little the parts of a broken record fit each other, the arrays of a row must have one length:
    # the engine would refuse it, and everything in its batch, for ever.
    filled = "arrayResize(pairs, length(fields), ('-', '-'))"
    return f"""
SELECT timestamp, record_id, ordinal, {", ".join(TEXT_COLUMNS)},
  service, key AS target_id, truncated, row_count, sequence, schema_version, trace_id, span_id, message,
  related,
  fields AS `changes.field`,
  arrayMap(v -> substring(v.1, 2), {filled}) AS `changes.old`,
  arrayMap(v -> substring(v.2, 2), {filled}) AS `changes.new`,
  arrayResize(types, length(fields)) AS `changes.type`,
  arrayMap(v -> concat(substring(v.1, 1, 1), substring(v.2, 1, 1)), {filled}) AS `changes.known`,
  own_attributes AS attributes, own_resource AS resource,
  if(ordinal = 0, form, toUInt16({of_rows.WHOLE})) AS attributes_form, observed_after
FROM (
  WITH
    JSONExtract({attribute("changes")}, 'Array(Map(String, Nullable(String)))') AS listed,
    arrayMap(c -> ({own}), listed) AS own_pairs,
    {attribute("target.id")} AS own_key{shape.names},
    {parts}
  SELECT
    Timestamp AS timestamp,
    toUUIDOrZero(LogAttributes['{RECORD_ID}']) AS record_id,
    {columns},
    ServiceName AS service,
    {attribute("truncated")} = 'true' AS truncated,
    {shape.total} AS row_count,
    toUInt64OrZero({attribute("sequence.number")}) AS sequence,
    LogAttributes['{SCHEMA_VERSION}'] AS schema_version,
    TraceId AS trace_id,
    SpanId AS span_id,
    Body AS message,
    arrayMap(r -> if(r.id = '', r.type, concat(r.type, '/', r.id)),
      JSONExtract({attribute("related")}, 'Array(Tuple(type String, id String))')) AS own_related,
    multiIf(
      notEmpty(listed), arrayMap(c -> ifNull(c['field'], ''), listed),{shape.fields}
      JSONExtract({attribute("fields")}, 'Array(String)')) AS fields,
    if(notEmpty(listed), arrayMap(c -> ifNull(c['type'], ''), listed), {shape.types}) AS types,
    {of_rows.observed_after()} AS observed_after,
    {split.rest} AS rest,
    {split.form} AS form,
    {shape.rows}
  FROM {source}
  WHERE {f"throwIf(NOT ({_is_kept(log)})) = 0" if sure else _is_kept(log)}
){shape.join}"""


def _is_kept(log: Log) -> str:
    """Return the condition on the rows of a log's landing table that its own table keeps."""
    return _VALID if log.name == OTHER_LOG else f"{_VALID} AND {_LOG} = '{log.name}'"


def _strays(log: Log) -> View:
    """Return the view for what was sent to the wrong landing table; one without a valid id is no record."""
    name = landing(log.name)
    target = LOGS_TABLE if log.name == OTHER_LOG else landing(OTHER_LOG)
    return View(
        f"{name}_strays_mv",
        target,
        f"\nSELECT {_LOG_COLUMNS} FROM {{db}}.{name} WHERE NOT ({_is_kept(log)})",
    )


_LATER: Final = ", ".join((*of_rows.LATER, "work"))
"""Columns that came last: the views show them behind those they have always had."""


def _trail(log: Log) -> View:
    # Every row seen once, whatever was sent twice and is not merged yet: for dashboards and people. It costs
    # two to three times as much as the table, from whose sorted rows our own queries take each record once.
    return View(
        f"{log.name}_trail",
        None,
        f"""
SELECT * EXCEPT (attributes_form, observed_after, {_LATER}) REPLACE ({of_rows.whole()} AS attributes), target,
  {_LATER}
FROM {{db}}.{events(log.name)} FINAL""",
    )


VIEWS: Final[tuple[View, ...]] = (
    *(_strays(log) for log in reversed(LOGS)),
    *(
        View(f"{events(log.name)}_mv", events(log.name), record_rows(log, f"{{db}}.{landing(log.name)}"))
        for log in LOGS
    ),
    View(
        f"{TRACE_TIMES}_mv",
        f"{TRACE_TIMES}{{stored}}",
        f"""
SELECT TraceId, min(Timestamp) AS Start, max(Timestamp) AS End
FROM {{db}}.{TRACES}{{stored}} WHERE TraceId != '' GROUP BY TraceId""",
    ),
    *(_trail(log) for log in LOGS),
)
"""All views, in the order they are made: what a view no longer keeps must have its new place already."""

RETIRED_VIEWS: Final = (f"{LANDING}_others_mv",)
"""Views of former versions, dropped when those that replace them are there."""
