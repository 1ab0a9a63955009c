"""Bring a database to the current schema: each step once, in order, whatever was done before.

The same steps run against the embedded engine and a ClickHouse server; ``execute`` is all they need. First
the state of the database is read, then what is missing is planned, then the plan is run: so the plan can be
shown instead. A step is a list of statements that may be run again after a crash in the middle. Views are not
steps: they follow the code (:mod:`otel_audit.semconv` names the attributes they read), and are altered in
place when it has changed. In place, because the landing tables keep nothing: between dropping a view and
creating it, records would be lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from otel_audit.errors import StoreError
from otel_audit.store import schema, tables
from otel_audit.store.tables import CURRENT
from otel_audit.version import __version__

Execute = Callable[[str], Sequence[Sequence[Any]]]
"""Run one statement; give the rows of a SELECT, each a sequence of values."""

_JOURNAL: Final = tables.Table(
    schema.MIGRATIONS,
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


class State(msgspec.Struct, frozen=True):
    """What a database has: tables and views, the version of its steps and of each log, its views' texts."""

    found: frozenset[str] = frozenset()
    version: int = 0
    logs: dict[str, int] = {}
    views: dict[str, str] = {}


class Change(msgspec.Struct, frozen=True):
    """Something to apply: its name, and its statements in order, the note in the journal last."""

    name: str
    statements: tuple[str, ...]


def migrate(execute: Execute, database: str = "otel") -> list[str]:
    """Apply what is missing; give the names of what was applied, empty if all was there.

    Raises:
        StoreError: the database was written by a newer otel-audit, or has tables that are not ours.
    """
    state = read_state(execute, database)
    for statement in foundation(database):
        execute(statement)
    changes = plan(state, database)
    for change in changes:
        for statement in change.statements:
            execute(statement)
    return [change.name for change in changes]


def read_state(execute: Execute, database: str = "otel") -> State:
    """Read what a database has.

    Raises:
        StoreError: it was written by a newer otel-audit, or has a table of one of our names, but no record of
            our migrations.
    """
    found = frozenset(
        str(row[0]) for row in execute(f"SELECT name FROM system.tables WHERE database = '{database}'")
    )
    if schema.MIGRATIONS not in found:
        if schema.EVENTS in found:
            raise StoreError(
                f"database {database!r} has a table {schema.EVENTS}, but no {schema.MIGRATIONS}: it is not a "
                "store of otel-audit; set `database` in [store] to another name"
            )
        return State(found)
    version, logs, views = 0, {}, {}
    for kind, name, number, checksum in execute(
        f"SELECT kind, name, max(version), argMax(checksum, applied_at) FROM {database}.{schema.MIGRATIONS} "
        "GROUP BY kind, name"
    ):
        if kind == "tables":
            version = max(version, int(number))
        elif kind == "log":
            logs[str(name)] = int(number)
        elif kind == "view":
            views[str(name)] = str(checksum)
    if version > CURRENT:
        raise StoreError(
            f"database {database!r} has schema version {version}, this is otel-audit {__version__}, which "
            f"knows {CURRENT}; install the newer otel-audit that wrote it"
        )
    return State(found, version, logs, views)


def foundation(database: str = "otel") -> tuple[str, ...]:
    """Give the statements that come before all others: the database, and the journal of what was applied."""
    return f"CREATE DATABASE IF NOT EXISTS {database}", tables.create(_JOURNAL, database)


def plan(state: State, database: str = "otel") -> list[Change]:
    """Say what brings a database from its state to the current one."""
    return [
        *_steps(state, database),
        *(change for view in schema.VIEWS if (change := _view(state, database, view))),
        *_retired(state, database),
    ]


def _steps(state: State, database: str) -> Iterator[Change]:
    for number, (name, made) in enumerate(tables.STEPS, start=1):
        statements = []
        if number > state.version:
            statements += [tables.create(table, database) for table in made if not table.each_log]
            statements.append(_note(database, "tables", name, number))
        behind = [log.name for log in schema.LOGS if state.logs.get(log.name, 0) < number]
        for log in behind:
            own = [tables.create(table.of(log), database) for table in made if table.each_log]
            if own:
                statements += [*own, _note(database, "log", log, number)]
        if statements:
            # A log that was added after the step was released is named; otherwise the step says it all.
            yield Change(name if number > state.version else f"{name}: {', '.join(behind)}", (*statements,))


def _view(state: State, database: str, view: schema.View) -> Change | None:
    select = view.select.replace("{db}", database).strip()
    checksum = hashlib.sha256(select.encode()).hexdigest()
    applied = state.views.get(view.name)
    if checksum == applied:
        return None
    if view.target is None:
        statement = f"CREATE OR REPLACE VIEW {database}.{view.name} AS {select}"
    elif applied is None:
        statement = (
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.{view.name} "
            f"TO {database}.{view.target} AS {select}"
        )
    else:
        statement = f"ALTER TABLE {database}.{view.name} MODIFY QUERY {select}"
    return Change(view.name, (statement, _note(database, "view", view.name, 0, checksum)))


def _retired(state: State, database: str) -> Iterator[Change]:
    for name in schema.RETIRED_VIEWS:
        if name in state.found:
            yield Change(f"{name} dropped", (f"DROP VIEW IF EXISTS {database}.{name}",))


def _note(database: str, kind: str, name: str, version: int, checksum: str = "") -> str:
    return (
        f"INSERT INTO {database}.{schema.MIGRATIONS} (kind, name, version, checksum, applied_by) "
        f"VALUES ('{kind}', '{name}', {version}, '{checksum}', 'otel-audit {__version__}')"
    )
