"""Bring a database to the current schema: each step once, in order, whatever was done before.

The same steps run against the embedded engine and a ClickHouse server; ``execute`` is all they need. A step
is a list of statements that may be run again after a crash in the middle. Views are not steps: they follow
the code (:mod:`otel_audit.semconv` names the attributes they read), and are altered in place when it has
changed. In place, because the landing table keeps nothing: between dropping a view and creating it, records
would be lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from otel_audit.errors import StoreError
from otel_audit.store import schema
from otel_audit.version import __version__

Execute = Callable[[str], Sequence[Sequence[Any]]]
"""Run one statement; give the rows of a SELECT, each a sequence of values."""

CURRENT: Final = len(schema.TABLES)

_JOURNAL: Final = f"""
CREATE TABLE IF NOT EXISTS {{db}}.{schema.MIGRATIONS} (
  kind LowCardinality(String),
  name String,
  version UInt32,
  checksum String,
  applied_at DateTime64(3, 'UTC') DEFAULT now64(3),
  applied_by String
) ENGINE = MergeTree ORDER BY (kind, name, applied_at)"""


def migrate(execute: Execute, database: str = "otel") -> list[str]:
    """Apply what is missing; give the names of what was applied, empty if all was there.

    Raises:
        StoreError: the database was written by a newer otel-audit, or has tables that are not ours.
    """
    execute(f"CREATE DATABASE IF NOT EXISTS {database}")
    version = current_version(execute, database)
    if version > CURRENT:
        raise StoreError(
            f"database {database!r} has schema version {version}, this is otel-audit {__version__}, which "
            f"knows {CURRENT}; install the newer otel-audit that wrote it"
        )
    execute(_JOURNAL.replace("{db}", database).strip())
    applied = []
    for number, (name, statements) in enumerate(schema.TABLES[version:], start=version + 1):
        for statement in statements:
            execute(statement.replace("{db}", database).strip())
        _note(execute, database, "tables", name, number, "")
        applied.append(name)
    done = {
        str(name): str(checksum)
        for name, checksum in execute(
            f"SELECT name, argMax(checksum, applied_at) FROM {database}.{schema.MIGRATIONS} "
            "WHERE kind = 'view' GROUP BY name"
        )
    }
    applied += [view.name for view in schema.VIEWS if _view(execute, database, view, done.get(view.name))]
    return applied


def current_version(execute: Execute, database: str = "otel") -> int:
    """Give the schema version of a database; 0 if it has none of our tables yet.

    Raises:
        StoreError: it has a table of one of our names, but no record of our migrations.
    """
    found = {str(row[0]) for row in execute(f"SELECT name FROM system.tables WHERE database = '{database}'")}
    if schema.MIGRATIONS not in found:
        if schema.EVENTS in found:
            raise StoreError(
                f"database {database!r} has a table {schema.EVENTS}, but no {schema.MIGRATIONS}: it is not a "
                "store of otel-audit; set `database` in [store] to another name"
            )
        return 0
    rows = execute(f"SELECT max(version) FROM {database}.{schema.MIGRATIONS}")
    return int(rows[0][0]) if rows else 0


def _view(execute: Execute, database: str, view: schema.View, applied: str | None) -> bool:
    select = view.select.replace("{db}", database).strip()
    checksum = hashlib.sha256(select.encode()).hexdigest()
    if checksum == applied:
        return False
    if view.target is None:
        execute(f"CREATE OR REPLACE VIEW {database}.{view.name} AS {select}")
    elif applied is None:
        execute(
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.{view.name} "
            f"TO {database}.{view.target} AS {select}"
        )
    else:
        execute(f"ALTER TABLE {database}.{view.name} MODIFY QUERY {select}")
    _note(execute, database, "view", view.name, 0, checksum)
    return True


def _note(execute: Execute, database: str, kind: str, name: str, version: int, checksum: str) -> None:
    execute(
        f"INSERT INTO {database}.{schema.MIGRATIONS} (kind, name, version, checksum, applied_by) "
        f"VALUES ('{kind}', '{name}', {version}, '{checksum}', 'otel-audit {__version__}')"
    )
