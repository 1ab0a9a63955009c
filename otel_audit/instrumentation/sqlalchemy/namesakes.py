"""Of several tables of one name, those that a database may have: a name means one table in each database.

What belongs to which database nobody says: statements show it. A table is taken for another database's only
if others of its MetaData were written there, and none of them here.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from sqlalchemy.schema import MetaData, Table

from otel_audit.capture.sql.sql_text import folded


def by_name(tables: Iterable[Table]) -> dict[str, list[Table]]:
    """Return tables by the names that text calls them."""
    named: dict[str, list[Table]] = {}
    for table in tables:
        if table.name:
            named.setdefault(folded(table.name), []).append(table)
    return named


def in_schema(tables: list[Table], schema: str, dialect: Any) -> list[Table]:
    """Return those of tables of one name that a statement means by a schema.

    All of them where none is known to be in it: a search path may decide, or a translation of schemas.

    Args:
        tables: have the name.
        schema: what the statement names; empty if nothing.
        dialect: knows the schema that is meant then, as it was when the engine connected first.
    """
    default = getattr(dialect, "default_schema_name", None) or ""
    asked = (schema or default).lower()
    if not asked:
        return tables
    return [table for table in tables if (table.schema or default).lower() == asked] or tables


class Namesakes:
    """Which MetaData have been used with which database; ``generation`` changes with what is known."""

    def __init__(self) -> None:
        self._used: weakref.WeakKeyDictionary[MetaData, set[str]] = weakref.WeakKeyDictionary()
        self.generation = 0

    def used(self, database: str, table: Any) -> bool:
        """Note that a table is one of a database's; say whether that is news. ``""``: nobody knows which."""
        if not database or not isinstance(table, Table):
            return False
        databases = self._used.setdefault(table.metadata, set())
        if database in databases:
            return False
        databases.add(database)
        self.generation += 1
        return True

    def of(self, database: str, tables: Iterable[Table], beside: MetaData | None = None) -> list[Table]:
        """Return those of these tables that may be the database's, the likeliest first.

        Args:
            database: that of the statement.
            tables: have one name.
            beside: has the table that refers to the one looked for.
        """
        possible = [table for table in tables if self._may_be_of(database, table, beside)]
        return sorted(
            possible,
            key=lambda table: (
                table.metadata is not beside,
                database not in self._used.get(table.metadata, ()),
            ),
        )

    def _may_be_of(self, database: str, table: Table, beside: MetaData | None) -> bool:
        databases = self._used.get(table.metadata)
        return not (database and databases) or database in databases or table.metadata is beside
