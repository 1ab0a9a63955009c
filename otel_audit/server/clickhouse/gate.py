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

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Final

from otel_audit.errors import StoreError
from otel_audit.named_tuples import NamedTuple
from otel_audit.server.clickhouse.allowed import (
    AI_FUNCTIONS,
    DATABASES,
    HARMLESS_FUNCTIONS,
    INPUT_FORMATS,
    OUTPUT_FORMATS,
    SETTINGS,
    SHOWN,
    SYSTEM_TABLES,
)
from otel_audit.server.engine.engine import Connection, EngineError
from otel_audit.store import schema

ACCESS_DENIED: Final = 497
SYNTAX_ERROR: Final = 62
UNKNOWN_FORMAT: Final = 73
UNKNOWN_DATABASE: Final = 81

_PLAIN_NAME: Final = re.compile(r"[\w $:-][\w $:.-]*|")
_TOKEN: Final = re.compile(
    r"(?P<text>'(?:[^'\\]|\\.|'')*')"
    r"|(?P<quoted>`(?:[^`\\]|\\.|``)*`|\"(?:[^\"\\]|\\.|\"\")*\")"
    r"|\{(?P<parameter>\w+):Identifier\}"
    r"|(?P<number>[0-9]\w*)"
    r"|(?P<word>[A-Za-z_]\w*)"
    r"|(?P<sign>\S)",
    re.DOTALL,
)
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
_DESCRIBE: Final = re.compile(rf"\A\s*DESC(?:RIBE)?\s+(?:TABLE\s+)?{_NAME}\s*\Z", re.IGNORECASE)
_ALIVE: Final = re.compile(r"\A\s*SELECT\s+1\s*\Z", re.IGNORECASE)
_SET: Final = re.compile(
    r"\A\s*SET\s+(?P<name>\w+)\s*=\s*(?:'(?P<text>[^'\\]*)'|(?P<bare>[\w.+-]+))\s*;?\s*\Z", re.IGNORECASE
)
_USE: Final = re.compile(rf"\A\s*USE\s+(?:DATABASE\s+)?(?P<database>{_IDENTIFIER})\s*;?\s*\Z", re.IGNORECASE)

_SPELLED: Final = {name.lower(): name for name in OUTPUT_FORMATS}


class Denied(StoreError):
    """A statement is not for clients; ``code`` is ClickHouse's error code."""

    def __init__(self, message: str, code: int = ACCESS_DENIED) -> None:
        super().__init__(message)
        self.code = code


def readable(database: str) -> tuple[str, ...]:
    """Return the tables clients may ask, for :class:`otel_audit.server.engine.engine.Engine`."""
    return (f"{database}.*", *(f"system.{table}" for table in sorted(SYSTEM_TABLES)))


def check_database(current: str, database: str) -> None:
    """Refuse to take names without a database from one that clients do not know.

    Raises:
        Denied: say so.
    """
    if current != database and current.lower() not in DATABASES:
        raise Denied(f"Database {current} does not exist here; the store's is {database}", UNKNOWN_DATABASE)


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
            "an INSERT must contain its rows: INSERT INTO table [(columns)] FORMAT <format>, or "
            "VALUES; clients of this store cannot use INSERT … SELECT or table functions"
        )
    table, where = _bare(found["table"]), _bare(found["database"] or current)
    if where != database or table not in schema.WRITABLE:
        raise Denied(
            f"{where}.{table} does not accept rows from clients; these tables in {database} do: "
            f"{', '.join(schema.WRITABLE)}"
        )
    name = "Values" if found["values"] else INPUT_FORMATS.get(found["format"].lower(), "")
    if not name:
        raise Denied(
            f"input format {found['format']} is not accepted; send one of {', '.join(INPUT_FORMATS.values())}"
        )
    columns = tuple(
        ".".join(_bare(part.group()) for part in _PART.finditer(column.group()))
        for column in _COLUMN.finditer(found["columns"] or "")
    )
    return Insert(f"{where}.{table}", columns, name, found.end())


def created_name(sql: str, current: str) -> tuple[str, str] | None:
    """Return database and table of a ``CREATE … IF NOT EXISTS``; None for any other statement.

    The table is empty where the database itself is created.
    """
    found = _CREATE.match(sql)
    if found is None:
        return None
    if found["schema"]:
        return _bare(found["table"]), ""
    return _bare(found["database"] or current), _bare(found["table"])


def is_greeting(sql: str) -> bool:
    """Return whether a statement only asks whether somebody is there."""
    return _ALIVE.match(sql) is not None


def asked_by_writers(sql: str, database: str, current: str) -> bool:
    """Return whether a statement is one that the Collector's exporter asks in order to insert."""
    if created_name(sql, current) is not None:
        return True
    found = _DESCRIBE.match(sql)
    return (
        found is not None
        and _bare(found["database"] or current) == database
        and _bare(found["table"]) in schema.WRITABLE
    )


def parse_set(sql: str) -> tuple[str, str] | None:
    """Return name and value of a ``SET``; None for any other statement."""
    found = _SET.match(sql)
    return (
        None
        if found is None
        else (found["name"], found["text"] if found["text"] is not None else found["bare"])
    )


def parse_use(sql: str) -> str | None:
    """Return the database of a ``USE``; None for any other statement."""
    found = _USE.match(sql)
    return None if found is None else _bare(found["database"])


def allowed_settings(settings: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Keep the settings a client may choose."""
    return {name: value for name, value in settings if name in SETTINGS}


def output_format(name: str) -> str:
    """Return a format of answers as the engine spells it.

    Raises:
        Denied: there is no such format, or it is not for clients.
    """
    spelled = _SPELLED.get(name.lower())
    if spelled is None:
        raise Denied(
            f"output format {name} is not supported; use one of {', '.join(sorted(OUTPUT_FORMATS))}",
            UNKNOWN_FORMAT,
        )
    return spelled


class ReadGate:
    """Decides whether a statement may run on the read path; remembers its verdicts by text."""

    def __init__(self, connection: Connection) -> None:
        functions = connection.rows("SELECT name FROM system.table_functions")
        self._tables = {str(name).lower() for (name,) in functions} - HARMLESS_FUNCTIONS
        self._tables |= {"file", "catboostevaluate"}
        self._passed: set[str] = set()

    def check(self, connection: Connection, sql: str, parameters: Mapping[str, str] | None = None) -> None:
        """Return if ``sql`` may run; names in it may come from its parameters.

        Raises:
            Denied: it may not; the message says what would be accepted.
            EngineError: it does not parse.
        """
        if sql in self._passed:
            return
        kind, count = connection.classify(sql)
        if kind == "UNKNOWN":
            # Only ever as a value: behind a word of ours the text could be two statements, both of them run.
            _normal_form(connection, sql)  # raises the syntax error
            raise Denied("this statement cannot be checked", SYNTAX_ERROR)
        if count != 1:
            raise Denied(f"{count} statements in one request; send one per request", SYNTAX_ERROR)
        if kind != "READ_ONLY":
            raise Denied(
                "only statements that read are accepted, and INSERTs into the tables that clients may "
                "write to"
            )
        tokens = _tokens(_normal_form(connection, sql))
        if written := _written_as(tokens):
            output_format(written)
        self._check_names(_named(tokens, parameters or {}))
        if any(token.kind == "parameter" for token in tokens):
            return  # the verdict is on these names, not on the text
        if len(self._passed) > 4096:
            self._passed.clear()
        self._passed.add(sql)

    def _check_names(self, tokens: list[Token]) -> None:
        first, second = [*(token.text.lower() for token in tokens[:2]), "", ""][:2]
        if first == "show" and second not in SHOWN:
            raise Denied(f"SHOW {second.upper()} is not for clients of this store")
        for database, dot, table in zip(tokens, tokens[1:], tokens[2:], strict=False):
            if (
                database.kind in ("word", "quoted")
                and database.text.lower() == "system"
                and dot == Token("sign", ".")
                and table.text not in SYSTEM_TABLES
            ):
                raise Denied(
                    f"clients of this store cannot read system.{table.text}; they can read "
                    f"{', '.join(sorted(SYSTEM_TABLES))}"
                )
        # Every name counts, not only calls: `arrayMap(file, …)` and `* APPLY file` call too.
        for token, following in itertools.pairwise([*tokens, Token("sign", "")]):
            if token.kind not in ("word", "quoted"):
                continue
            name = token.text.lower()
            called = following == Token("sign", "(")
            if name == "file" or (called and (name in self._tables or name in AI_FUNCTIONS)):
                raise Denied(f"{token.text} reaches beyond this store and is not for its clients")


class Token(NamedTuple):
    """A piece of a statement: its kind (``word``, ``quoted`` for a name in quotes, ``sign``, …), and it."""

    kind: str
    text: str


def _tokens(normal: str) -> list[Token]:
    """Take a statement in its normal form apart; quoted names come without their quotes.

    Raises:
        Denied: a quote has no end.
    """
    tokens = [Token(str(found.lastgroup), found.group()) for found in _TOKEN.finditer(normal)]
    if any(token.kind == "sign" and token.text in "'`\"" for token in tokens):
        raise Denied("this statement cannot be checked", SYNTAX_ERROR)
    return [
        Token(kind, re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL) if kind == "quoted" else text)
        for kind, text in tokens
    ]


def _named(tokens: list[Token], parameters: Mapping[str, str]) -> list[Token]:
    """Put names that are given as parameters into their places.

    Raises:
        Denied: one is written in a way that only the engine could read.
    """
    named = []
    for token in tokens:
        if token.kind == "parameter":
            name = parameters.get(token.text[1:-1].partition(":")[0], "")
            if not _PLAIN_NAME.fullmatch(name):
                raise Denied(f"{token.text}: use a column or table name of letters, digits and spaces")
            token = Token("quoted", name)
        named.append(token)
    return named


def _written_as(tokens: list[Token]) -> str:
    """Return the format named at the end of a statement, or before its SETTINGS; empty if none is."""
    for at in range(len(tokens) - 2, -1, -1):
        if tokens[at] == Token("word", "FORMAT") and tokens[at + 1].kind == "word":
            rest = tokens[at + 2 :]
            return tokens[at + 1].text if not rest or rest[0] == Token("word", "SETTINGS") else ""
    return ""


def _normal_form(connection: Connection, sql: str) -> str:
    """Return a statement as the engine writes it: no comments, no escapes in names, one kind of string.

    Raises:
        EngineError: it does not parse.
    """
    quoted = sql.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\0", "\\0")
    normal = connection.query("SELECT formatQuerySingleLine({q:String})", "RawBLOB", {"q": quoted}).body
    return normal.decode("utf-8", "replace")


def engine_code(error: StoreError) -> int:
    """Return ClickHouse's code of an error; 1002 (unknown exception) if it has none."""
    return (error.code if isinstance(error, EngineError | Denied) else 0) or 1002


def _bare(identifier: str) -> str:
    return identifier[1:-1] if identifier[:1] in ('"', "`") else identifier
