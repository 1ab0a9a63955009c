"""Foreign keys by which a database deletes or changes rows by itself, as its catalog has them: one query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from otel_audit.named_tuples import NamedTuple

Query = Callable[[str, Sequence[Any]], Sequence[Any]]
"""Runs a statement through the driver and returns its rows."""


class Named(NamedTuple):
    """A table as the catalog calls it; ``bare``: its name alone finds it."""

    schema: str
    name: str
    bare: bool


class ForeignKey(NamedTuple):
    """What a database does to rows of ``table``: ``CASCADE``, ``SET NULL``, ``SET DEFAULT`` or nothing.

    ``referred_columns`` is empty where they are the primary key of the table referred to.
    """

    table: Named
    columns: tuple[str, ...]
    referred: Named
    referred_columns: tuple[str, ...]
    on_delete: str
    on_update: str


def foreign_keys(system: str, query: Query) -> list[ForeignKey]:
    """Return those of a database that do something; of systems that nobody has tried, none."""
    read = _READERS.get(system)
    return [] if read is None else read(query)


_POSTGRESQL: Final = """
SELECT pg_table_is_visible(t.oid), tn.nspname::text, t.relname::text,
       array(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS c (number, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.number
             ORDER BY c.place),
       pg_table_is_visible(r.oid), rn.nspname::text, r.relname::text,
       array(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS c (number, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = c.number
             ORDER BY c.place),
       k.confdeltype::text, k.confupdtype::text
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class t ON t.oid = k.conrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
JOIN pg_catalog.pg_class r ON r.oid = k.confrelid JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
WHERE k.contype = 'f' AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))
ORDER BY k.oid
"""
_ACTIONS: Final = {"c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


def _postgresql(query: Query) -> list[ForeignKey]:
    return [
        ForeignKey(
            Named(schema, table, visible),
            tuple(columns),
            Named(referred_schema, referred, referred_visible),
            tuple(referred_columns),
            _ACTIONS.get(on_delete, ""),
            _ACTIONS.get(on_update, ""),
        )
        for (
            visible,
            schema,
            table,
            columns,
            referred_visible,
            referred_schema,
            referred,
            referred_columns,
            on_delete,
            on_update,
        ) in query(_POSTGRESQL, ())
    ]


_MARIADB: Final = """
SELECT r.CONSTRAINT_NAME, k.TABLE_SCHEMA = DATABASE(), k.TABLE_SCHEMA, k.TABLE_NAME,
       k.REFERENCED_TABLE_SCHEMA = DATABASE(), k.REFERENCED_TABLE_SCHEMA, k.REFERENCED_TABLE_NAME,
       r.DELETE_RULE, r.UPDATE_RULE, k.COLUMN_NAME, k.REFERENCED_COLUMN_NAME
FROM information_schema.REFERENTIAL_CONSTRAINTS r
JOIN information_schema.KEY_COLUMN_USAGE k
  ON k.CONSTRAINT_SCHEMA = r.CONSTRAINT_SCHEMA AND k.CONSTRAINT_NAME = r.CONSTRAINT_NAME
 AND k.TABLE_NAME = r.TABLE_NAME
WHERE r.CONSTRAINT_SCHEMA = DATABASE() AND k.TABLE_SCHEMA = DATABASE()
  AND (r.DELETE_RULE IN ('CASCADE', 'SET NULL') OR r.UPDATE_RULE IN ('CASCADE', 'SET NULL'))
ORDER BY k.TABLE_NAME, r.CONSTRAINT_NAME, k.ORDINAL_POSITION
"""


def _mariadb(query: Query) -> list[ForeignKey]:
    found: dict[tuple[str, str], ForeignKey] = {}
    for (
        name,
        here,
        schema,
        table,
        there,
        other,
        referred,
        on_delete,
        on_update,
        column,
        referred_column,
    ) in query(_MARIADB, ()):
        key = (_text(table), _text(name))
        known = found.get(key)
        found[key] = ForeignKey(
            Named(_text(schema), _text(table), bool(here)),
            (*(known.columns if known else ()), _text(column)),
            Named(_text(other), _text(referred), bool(there)),
            (*(known.referred_columns if known else ()), _text(referred_column)),
            _action(on_delete),
            _action(on_update),
        )
    return list(found.values())


_SQLITE: Final = """
SELECT m.name, k.id, k."table", k.on_delete, k.on_update, k."from", k."to"
FROM sqlite_master AS m, pragma_foreign_key_list(m.name) AS k
WHERE m.type = 'table' AND (k.on_delete IN ('CASCADE', 'SET NULL', 'SET DEFAULT')
                            OR k.on_update IN ('CASCADE', 'SET NULL', 'SET DEFAULT'))
ORDER BY m.name, k.id, k.seq
"""


def _sqlite(query: Query) -> list[ForeignKey]:
    found: dict[tuple[str, int], ForeignKey] = {}
    for table, number, referred, on_delete, on_update, column, referred_column in query(_SQLITE, ()):
        known = found.get((table, number))
        found[table, number] = ForeignKey(
            Named("main", table, True),
            (*(known.columns if known else ()), column),
            Named("main", referred, True),
            (
                *(known.referred_columns if known else ()),
                *([] if referred_column is None else [referred_column]),
            ),
            _action(on_delete),
            _action(on_update),
        )
    return list(found.values())


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _action(value: Any) -> str:
    action = _text(value).upper()
    return action if action in _ACTIONS.values() else ""


_READERS: Final[dict[str, Callable[[Query], list[ForeignKey]]]] = {
    "postgresql": _postgresql,
    "mariadb": _mariadb,
    "mysql": _mariadb,
    "sqlite": _sqlite,
}
