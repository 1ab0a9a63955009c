"""A toy library over sqlite3: a table mapper without a framework, as somebody might have written it.

It knows nothing of audit. ``toy_instrumentor`` audits it.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from typing import Any


class Database:
    """One connection, in autocommit until :meth:`begin`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.raw = sqlite3.connect(path, isolation_level=None)
        self._savepoints = itertools.count(1)

    def execute(self, sql: str, parameters: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        return self.raw.execute(sql, parameters)

    def insert(self, table: str, **values: Any) -> int:
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        cursor = self.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))
        return int(cursor.lastrowid or 0)

    def update(self, table: str, where: str, **values: Any) -> int:
        sets = ", ".join(f"{name} = ?" for name in values)
        return self.execute(f"UPDATE {table} SET {sets} WHERE {where}", tuple(values.values())).rowcount

    def select(self, table: str, where: str = "1") -> Iterator[tuple[Any, ...]]:
        yield from self.execute(f"SELECT * FROM {table} WHERE {where}")

    def begin(self) -> None:
        self.raw.execute("BEGIN")

    def commit(self) -> None:
        self.raw.execute("COMMIT")

    def rollback(self) -> None:
        self.raw.execute("ROLLBACK")

    def savepoint(self) -> str:
        name = f"s{next(self._savepoints)}"
        self.raw.execute(f"SAVEPOINT {name}")
        return name

    def rollback_to(self, name: str) -> None:
        self.raw.execute(f"ROLLBACK TO {name}")
