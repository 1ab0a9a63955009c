"""Which statements the query port runs: one read-only statement, or rows for one of our tables.

The embedded engine has no users and runs with the rights of this process, so the gate stands before it:

- a statement that reads must be alone, classified read-only by the engine's own parser, and call nothing that
  reaches files or the network; it then runs under ``readonly = 1``. That setting alone is not enough: it lets
  ``SELECT file('/etc/passwd')``, ``DESCRIBE TABLE url(…)`` and ``INTO OUTFILE`` through.
- an INSERT must carry its rows with it and name a table clients may write.
- ``CREATE … IF NOT EXISTS`` of what is there, as the Collector's exporter sends it, is answered, not run.
- ``SET`` and ``USE`` last for a session.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from otel_audit.errors import StoreError
from otel_audit.server.engine import Connection, EngineError
from otel_audit.store import schema

ACCESS_DENIED: Final = 497
SYNTAX_ERROR: Final = 62

_HARMLESS: Final = frozenset(
    {
        "format",
        "generate_series",
        "generaterandom",
        "generateseries",
        "merge",
        "mergetreeindex",
        "mergetreeprojection",
        "mergetreetextindex",
        "null",
        "numbers",
        "numbers_mt",
        "primes",
        "sqlstandardvalues",
        "values",
        "view",
        "viewexplain",
        "viewifpermitted",
        "zeros",
        "zeros_mt",
    }
)
"""Table functions that read nothing but tables of this store, or nothing at all."""

_AI: Final = frozenset(
    {
        "aiclassify",
        "aiembed",
        "aiextract",
        "aifilter",
        "aigenerate",
        "airedact",
        "aisimilarity",
        "aitranslate",
    }
)
"""Functions that send what they are given to a service."""

_STRING: Final = re.compile(r"'(?:[^'\\]|\\.|'')*'", re.DOTALL)
_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_IDENTIFIER: Final = r"(?:[A-Za-z_]\w*|`[^`\\]+`|\"[^\"\\]+\")"
_NAME: Final = rf"(?:(?P<database>{_IDENTIFIER})\s*\.\s*)?(?P<table>{_IDENTIFIER})"
_SPACE: Final = r"(?:\s|/\*.*?\*/|--[^\n]*\n)"
_INSERT: Final = re.compile(rf"\A{_SPACE}*INSERT\s", re.IGNORECASE | re.DOTALL)
_INSERT_ROWS: Final = re.compile(
    rf"\A{_SPACE}*INSERT\s+INTO\s+(?:TABLE\s+)?{_NAME}\s*"
    rf"(?P<columns>\(\s*{_IDENTIFIER}(?:\.{_IDENTIFIER})?(?:\s*,\s*{_IDENTIFIER}(?:\.{_IDENTIFIER})?)*\s*\))?\s*"
    r"(?:SETTINGS\s+\w+\s*=\s*(?:'[^'\\]*'|[\w.+-]+)(?:\s*,\s*\w+\s*=\s*(?:'[^'\\]*'|[\w.+-]+))*\s*)?"
    r"(?:FORMAT\s+(?P<format>\w+)[ \t;]*(?:\r?\n|\Z|(?=[ \t]))|(?P<values>VALUES\b))",
    re.IGNORECASE | re.DOTALL,
)
_COLUMN: Final = re.compile(rf"{_IDENTIFIER}(?:\.{_IDENTIFIER})?")
_PART: Final = re.compile(_IDENTIFIER)
_CREATE: Final = re.compile(
    rf"\A{_SPACE}*CREATE\s+(?:(?P<schema>DATABASE)|TABLE|(?:MATERIALIZED\s+)?VIEW)\s+IF\s+NOT\s+EXISTS\s+{_NAME}",
    re.IGNORECASE | re.DOTALL,
)
_SET: Final = re.compile(
    r"\A\s*SET\s+(?P<name>\w+)\s*=\s*(?:'(?P<text>[^'\\]*)'|(?P<bare>[\w.+-]+))\s*;?\s*\Z", re.IGNORECASE
)
_USE: Final = re.compile(rf"\A\s*USE\s+(?:DATABASE\s+)?(?P<database>{_IDENTIFIER})\s*;?\s*\Z", re.IGNORECASE)

_FORMATS: Final = {
    name.lower(): name
    for name in (
        "Arrow",
        "ArrowStream",
        "CSV",
        "CSVWithNames",
        "CSVWithNamesAndTypes",
        "JSON",
        "JSONCompact",
        "JSONCompactEachRow",
        "JSONCompactEachRowWithNames",
        "JSONCompactEachRowWithNamesAndTypes",
        "JSONEachRow",
        "JSONLines",
        "Native",
        "NDJSON",
        "Parquet",
        "RowBinary",
        "RowBinaryWithNames",
        "RowBinaryWithNamesAndTypes",
        "TSV",
        "TSVWithNames",
        "TSVWithNamesAndTypes",
        "TabSeparated",
        "TabSeparatedWithNames",
        "TabSeparatedWithNamesAndTypes",
        "Values",
    )
}
"""Input formats that are data and nothing else."""

_SETTINGS: Final = re.compile(
    r"input_format_(?!values)\w+|output_format_\w+|format_(?:csv|tsv|json|binary)\w*|date_time_\w+|session_timezone|join_\w+|"
    r"max_(?:execution_time|result_rows|result_bytes|rows_to_read|bytes_to_read|block_size|threads)|"
    r"(?:result|read|timeout)_overflow_mode|extremes|limit|offset|final|use_query_cache|"
    r"use_skip_indexes\w*|optimize_(?:read_in_order|move_to_prewhere|skip_unused_shards|use_projections)|"
    r"enable_analyzer|prefer_column_name_to_alias|insert_deduplication_token|insert_deduplicate|"
    r"distributed_product_mode|union_default_mode|group_by_use_nulls|transform_null_in|any_join_distinct_\w+"
)
"""Settings a client may choose; others are ignored, as is what belongs to a server of many machines."""


class Denied(StoreError):
    """A statement is not for clients; ``code`` is ClickHouse's error code."""

    def __init__(self, message: str, code: int = ACCESS_DENIED) -> None:
        super().__init__(message)
        self.code = code


class Insert(NamedTuple):
    """An INSERT that carries its rows: into what, in which format, where the rows begin."""

    table: str
    columns: tuple[str, ...]
    format: str
    data_at: int


def parse_insert(text: str, database: str, current: str) -> Insert | None:
    """Take an INSERT apart; None if the text is something else.

    Args:
        text: the statement, possibly followed by its rows.
        database: the store's database.
        current: the database of names without one.

    Raises:
        Denied: it is an INSERT that is not for clients.
    """
    if not _INSERT.match(text):
        return None
    found = _INSERT_ROWS.match(text)
    if found is None:
        raise Denied(
            "an INSERT must carry its rows: INSERT INTO table [(columns)] FORMAT <format>, or VALUES; "
            "INSERT … SELECT and table functions are not for clients of this store"
        )
    table, where = _bare(found["table"]), _bare(found["database"] or current)
    if where != database or table not in schema.WRITABLE:
        raise Denied(
            f"{where}.{table} takes no rows from clients; {', '.join(schema.WRITABLE)} in {database} do"
        )
    name = "Values" if found["values"] else _FORMATS.get(found["format"].lower(), "")
    if not name:
        raise Denied(
            f"input format {found['format']} is not accepted; send one of {', '.join(_FORMATS.values())}"
        )
    columns = tuple(
        ".".join(_bare(part.group()) for part in _PART.finditer(column.group()))
        for column in _COLUMN.finditer(found["columns"] or "")
    )
    return Insert(f"{where}.{table}", columns, name, found.end())


def created_name(sql: str, current: str) -> tuple[str, str] | None:
    """Give database and table of a ``CREATE … IF NOT EXISTS``; None if it is none.

    The table is empty where the database itself is created.
    """
    found = _CREATE.match(sql)
    if found is None:
        return None
    if found["schema"]:
        return _bare(found["table"]), ""
    return _bare(found["database"] or current), _bare(found["table"])


def parse_set(sql: str) -> tuple[str, str] | None:
    """Give name and value of a ``SET``; None if it is none."""
    found = _SET.match(sql)
    return (
        None
        if found is None
        else (found["name"], found["text"] if found["text"] is not None else found["bare"])
    )


def parse_use(sql: str) -> str | None:
    """Give the database of a ``USE``; None if it is none."""
    found = _USE.match(sql)
    return None if found is None else _bare(found["database"])


def allowed_settings(settings: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Keep the settings a client may choose."""
    return {name: value for name, value in settings if _SETTINGS.fullmatch(name)}


class ReadGate:
    """Decides whether a statement may run on the read path; remembers its verdicts by text."""

    def __init__(self, connection: Connection) -> None:
        functions = connection.rows("SELECT name FROM system.table_functions")
        self._tables = {str(name).lower() for (name,) in functions} - _HARMLESS
        self._tables |= {"file", "catboostevaluate"}
        self._passed: set[str] = set()

    def check(self, connection: Connection, sql: str) -> None:
        """Return if ``sql`` may run.

        Raises:
            Denied: it may not; the message says what would be accepted.
            EngineError: it does not parse.
        """
        if sql in self._passed:
            return
        kind, count = connection.classify(sql)
        if kind == "UNKNOWN":
            connection.query(f"EXPLAIN AST {sql}")  # raises the syntax error
            raise Denied("this statement cannot be judged", SYNTAX_ERROR)
        if count != 1:
            raise Denied(f"{count} statements in one request; send one at a time", SYNTAX_ERROR)
        if kind != "READ_ONLY":
            raise Denied(
                "only statements that read are accepted here, and INSERTs into the tables for clients"
            )
        self._check_functions(connection, sql)
        if len(self._passed) > 4096:
            self._passed.clear()
        self._passed.add(sql)

    def _check_functions(self, connection: Connection, sql: str) -> None:
        # The engine writes the statement in its normal form: no comments, no escapes in names, one kind of
        # string. Every name in it counts, not only calls: `arrayMap(file, …)` and `* APPLY file` call too.
        quoted = sql.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\0", "\\0")
        normal = connection.query("SELECT formatQuerySingleLine({q:String})", "RawBLOB", {"q": quoted}).body
        words = _STRING.sub("''", normal.decode("utf-8", "replace"))
        for found in _WORD.finditer(words):
            word = found.group().lower()
            called = words[found.end() : found.end() + 1] == "("
            if (
                word == "file"
                or (called and word in self._tables)
                or (called and word.startswith("ai") and word in _AI)
            ):
                raise Denied(f"{found.group()} reaches beyond this store and is not for its clients")


def engine_code(error: StoreError) -> int:
    """Give ClickHouse's code of an error; 1002 (unknown exception) if it has none."""
    return (error.code if isinstance(error, EngineError | Denied) else 0) or 1002


def _bare(identifier: str) -> str:
    return identifier[1:-1] if identifier[:1] in ('"', "`") else identifier
