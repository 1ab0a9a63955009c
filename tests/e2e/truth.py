"""What really happened to the database, told by its own triggers: the other side of every comparison."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

WATCHED = (("shop_order", "note"), ("shop_product", "stock"))
"""Table and column: notes are unique, the stock only falls, so (table, id, old, new) happens once."""


class Change(NamedTuple):
    """One committed change of one watched column; ``old`` is ``None`` for a new row."""

    table: str
    id: str
    old: str | None
    new: str


def _sqlite() -> list[str]:
    statements = ["CREATE TABLE truth (tbl TEXT, id TEXT, old TEXT, new TEXT)"]
    for table, column in WATCHED:
        inserted = f"INSERT INTO truth VALUES ('{table}', NEW.id, NULL, NEW.{column})"
        updated = f"INSERT INTO truth VALUES ('{table}', NEW.id, OLD.{column}, NEW.{column})"
        changed = f"OLD.{column} <> NEW.{column}"
        statements += [
            f"CREATE TRIGGER {table}_i AFTER INSERT ON {table} BEGIN {inserted}; END",
            f"CREATE TRIGGER {table}_u AFTER UPDATE ON {table} WHEN {changed} BEGIN {updated}; END",
        ]
    return statements


def _postgresql() -> list[str]:
    statements = ["CREATE TABLE truth (tbl TEXT, id TEXT, old TEXT, new TEXT)"]
    for table, column in WATCHED:
        old = f"CASE WHEN TG_OP = 'UPDATE' THEN OLD.{column}::text END"
        body = f"INSERT INTO truth VALUES ('{table}', NEW.id, {old}, NEW.{column}); RETURN NULL;"
        changed = f"OLD.{column} IS DISTINCT FROM NEW.{column}"
        tell = f"EXECUTE FUNCTION {table}_truth()"
        statements += [
            f"CREATE FUNCTION {table}_truth() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$",
            f"CREATE TRIGGER {table}_i AFTER INSERT ON {table} FOR EACH ROW {tell}",
            f"CREATE TRIGGER {table}_u AFTER UPDATE ON {table} FOR EACH ROW WHEN ({changed}) {tell}",
        ]
    return statements


def execute(address: str, statements: Sequence[str]) -> list[tuple[str | None, ...]]:
    """Run statements on the shop's database in one transaction, return the rows of the last one."""
    url = urlsplit(address)
    rows: list[tuple[str | None, ...]] = []
    if url.scheme == "sqlite":
        with sqlite3.connect(url.path, timeout=30) as connection:
            for statement in statements:
                rows = connection.execute(statement).fetchall()
        connection.close()
        return rows
    import psycopg

    host = parse_qs(url.query)["host"][0]
    with psycopg.connect(host=host, user=url.username, dbname=url.path.lstrip("/")) as database:
        for statement in statements:
            cursor = database.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
    return rows


def watch(address: str) -> None:
    """Install the triggers."""
    execute(address, _sqlite() if address.startswith("sqlite:") else _postgresql())


def told(address: str) -> list[Change]:
    """Return every change that was committed."""
    rows = execute(address, ["SELECT tbl, id, old, new FROM truth"])
    return [Change(str(table), str(key), old, str(new)) for table, key, old, new in rows]
