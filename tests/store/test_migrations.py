"""Bringing a database to the current schema: once, in order, from wherever it was left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from otel_audit.errors import StoreError
from otel_audit.store import schema
from otel_audit.store.client import StoreClient
from otel_audit.store.layout import Layout
from otel_audit.store.migrations import migrate, read_state
from otel_audit.store.tables import CURRENT, STEPS
from tests.engine_process import in_engine
from tests.trail import serving

ENGINE = """
import json, sys
from pathlib import Path
from otel_audit.server.engine.engine import Engine
from otel_audit.store import schema
from otel_audit.store.migrations import migrate

class Crash(Exception):
    pass

def limited(execute, statements):
    left = [statements]
    def run(sql):
        if left[0] == 0:
            raise Crash
        left[0] -= 1
        return execute(sql)
    return run

def shape(connection, database):
    return sorted(
        [name, query.replace(database + ".", "")] for name, query in connection.rows(
            f"SELECT name, create_table_query FROM system.tables WHERE database = '{database}' "
            "AND name NOT LIKE '.inner%'"
        )
    )

engine = Engine(Path(sys.argv[1]), memory_bytes=2**30, fsync=False)
with engine.connection() as connection:
    result = {}
"""


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.attack)], ids=["short", "long"])
def test_a_crash_after_any_statement_is_finished_by_the_next_run(tmp_path: Path, every: int) -> None:
    """Wherever it stopped, the next run leaves the same tables as an undisturbed one, once each."""
    result = in_engine(
        tmp_path,
        ENGINE,
        "counted = []\n"
        "migrate(lambda sql: counted.append(sql) or connection.rows(sql), 'whole')\n"
        "whole = shape(connection, 'whole')\n"
        "result['tables'] = len(whole)\n"
        "result['statements'] = len(counted)\n"
        "result['same'] = []\n"
        "others = ('pageview', 'activity')\n"  # whose tables and views are made like those of the other logs
        "stops = [n for n, sql in enumerate(counted) if n and not any(log in sql for log in others)]\n"
        "result['stops'] = len(stops)\n"
        f"for stop in stops[::{every}]:\n"
        "    name = f'stopped_{stop}'\n"
        "    try:\n"
        "        migrate(limited(connection.rows, stop), name)\n"
        "    except Crash:\n"
        "        pass\n"
        "    migrate(connection.rows, name)\n"
        "    again = migrate(connection.rows, name)\n"
        "    result['same'].append(shape(connection, name) == whole and again == [])\n"
        "    connection.query(f'DROP DATABASE {name} SYNC')\n",
    )
    assert result["tables"] == 4 + 2 * len(schema.LOGS) + len(schema.VIEWS) + 1
    assert 2 * result["stops"] > result["statements"] > 15
    assert len(result["same"]) > 3
    assert all(result["same"]), result


def test_a_view_that_changed_is_altered_in_place(tmp_path: Path) -> None:
    """Records go on arriving: the view is never gone, and what it makes follows the code."""
    result = in_engine(
        tmp_path,
        ENGINE,
        "seen = []\n"
        "migrate(connection.rows)\n"
        "number, old = next((n, v) for n, v in enumerate(schema.VIEWS) if v.name == 'audit_events_mv')\n"
        "select = old.select.replace('Body AS message', \"concat('new ', Body) AS message\")\n"
        "changed = old._replace(select=select)\n"
        "assert changed != old\n"
        "schema.VIEWS = (*schema.VIEWS[:number], changed, *schema.VIEWS[number + 1:])\n"
        "result['applied'] = migrate(lambda sql: seen.append(sql) or connection.rows(sql))\n"
        "result['again'] = migrate(connection.rows)\n"
        "result['dropped'] = [sql for sql in seen if 'DROP' in sql.upper()]\n"
        "attributes = {schema.RECORD_ID: '01a2091d-b343-7f43-89f8-fff4a1fed36c'}\n"
        "row = json.dumps({'Body': 'text', 'LogAttributes': attributes}).encode()\n"
        "connection.insert('otel.audit_log', (), 'JSONEachRow', [row])\n"
        "result['message'] = connection.rows('SELECT message FROM otel.audit_events')\n",
    )
    assert result == {
        "applied": ["audit_events_mv"],
        "again": [],
        "dropped": [],
        "message": [["new text"]],
    }


def test_a_foreign_or_newer_database_is_refused(tmp_path: Path) -> None:
    """With a table of our name but no journal, or a journal from the future, nothing is touched."""
    result = in_engine(
        tmp_path,
        ENGINE,
        "from otel_audit.errors import StoreError\n"
        "connection.query('CREATE DATABASE theirs')\n"
        "connection.query('CREATE TABLE theirs.audit_events (a Int8) ENGINE = Memory')\n"
        "migrate(connection.rows, 'ours')\n"
        "connection.query('INSERT INTO ours.otel_audit_migrations (kind, name, version) '\n"
        "                 \"VALUES ('tables', 'x', 9)\")\n"
        "before = shape(connection, 'theirs'), shape(connection, 'ours')\n"
        "for name in ('theirs', 'ours'):\n"
        "    try:\n"
        "        migrate(connection.rows, name)\n"
        "    except StoreError as error:\n"
        "        result[name] = str(error)\n"
        "result['untouched'] = before == (shape(connection, 'theirs'), shape(connection, 'ours'))\n",
    )
    assert "is not a store of otel-audit" in result["theirs"]
    assert "has schema version 9, but otel-audit" in result["ours"]
    assert f"supports only {CURRENT}" in result["ours"]
    assert result["untouched"]


def test_the_same_steps_run_over_http(tmp_path: Path) -> None:
    """Against a store that is up to date there is nothing to do, asked as a ClickHouse server would be."""
    with serving(tmp_path) as running:
        client = StoreClient(running.clickhouse)
        assert migrate(client.rows) == []
        assert read_state(client.rows, Layout()).version == CURRENT
        versions = client.rows("SELECT DISTINCT name FROM otel.otel_audit_migrations ORDER BY name")
    assert {row[0] for row in versions} == {
        *(step.name for step in STEPS),
        *(log.name for log in schema.LOGS),
        *(view.name for view in schema.VIEWS),
    }


def test_an_empty_database_is_given_each_statement_in_order() -> None:
    """The whole of it, with the database's name in place; no statement left unfilled."""
    given: list[str] = []

    def execute(sql: str) -> Sequence[Sequence[Any]]:
        given.append(sql)
        return []

    applied = migrate(execute, "trail")
    assert applied == [*(step.name for step in STEPS), *(view.name for view in schema.VIEWS)]
    assert not [sql for sql in given if "{db}" in sql]
    assert given[:2] == [
        "SELECT name FROM system.tables WHERE database = 'trail'",
        "CREATE DATABASE IF NOT EXISTS trail",
    ]
    created = [sql for sql in given if sql.startswith("CREATE TABLE")]
    assert "trail.otel_audit_migrations" in created[0]
    assert all(" trail." in sql for sql in created)


def test_a_journal_without_tables_is_version_0() -> None:
    """A run that stopped after its first statements."""

    def execute(sql: str) -> Sequence[Sequence[Any]]:
        return [[schema.MIGRATIONS]] if "system.tables" in sql else []

    assert read_state(execute, Layout()).version == 0

    def foreign(sql: str) -> Sequence[Sequence[Any]]:
        return [[schema.EVENTS]]

    with pytest.raises(StoreError, match="not a store of otel-audit"):
        read_state(foreign, Layout())
