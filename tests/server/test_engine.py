"""The engine's edges that cost records if they are not minded, each in a process of its own."""

from __future__ import annotations

from pathlib import Path

from tests.engine_process import in_engine

SCRIPT = """
import json, os, sys
from pathlib import Path
from otel_audit.errors import StoreError
from otel_audit.server.engine import native
from otel_audit.server.engine.engine import Engine, EngineError

engine = Engine(Path(sys.argv[1]), memory_bytes=2**30, fsync=True)
result = {}
with engine.connection() as connection:
    def block(*values):
        return native.block(len(values), [native.Column("a", "String", b"".join(map(native.text, values)))])

    def attempt(table, input_format, *chunks, columns=("a",)):
        try:
            connection.insert(table, columns, input_format, chunks)
        except EngineError as error:
            return error.code
        return "ok"

    connection.query("CREATE DATABASE t")
"""


def test_an_insert_that_fails_at_its_last_step_is_told(tmp_path: Path) -> None:
    """A constraint, a view that raises, a view whose arrays do not fit: an error, and nothing inserted."""
    result = in_engine(
        tmp_path,
        SCRIPT,
        "connection.query('CREATE TABLE t.kept (a String, CONSTRAINT c CHECK length(a) < 5) '\n"
        "                 'ENGINE = MergeTree ORDER BY a')\n"
        "connection.query('CREATE TABLE t.landing (a String) ENGINE = Null')\n"
        "connection.query('CREATE TABLE t.numbers (n UInt8) ENGINE = MergeTree ORDER BY n')\n"
        "connection.query('CREATE MATERIALIZED VIEW t.v TO t.numbers AS '\n"
        "                 'SELECT toUInt8(a) AS n FROM t.landing')\n"
        "result['constraint'] = attempt('t.kept', 'Native', block('fine', 'too long'))\n"
        "result['second block'] = attempt('t.kept', 'Native', block('fine'), block('too long'))\n"
        "result['view'] = attempt('t.landing', 'Native', block('1', 'x'))\n"
        "count = 'SELECT (SELECT count() FROM t.kept), (SELECT count() FROM t.numbers)'\n"
        "result['rows'] = connection.rows(count)\n"
        "result['after'] = [attempt('t.kept', 'Native', block('fine'))]\n"
        "result['after'] += [attempt('t.landing', 'Native', block('7'))]\n",
    )
    assert result == {
        "constraint": 469,
        "second block": 469,
        "view": 6,
        "rows": [[0, 0]],
        "after": ["ok", "ok"],
    }


def test_rows_are_bytes_and_stay_what_they_are(tmp_path: Path) -> None:
    """Empty lines, semicolons, zeros and statements within rows; several chunks are one part."""
    nasty = ["", "\n\n", ";\n\nDROP TABLE t.kept;\n", "\0\1\2", "'\\", "\x1a", "x" * 100_000]
    result = in_engine(
        tmp_path,
        SCRIPT,
        "connection.query('CREATE TABLE t.kept (a String) ENGINE = MergeTree ORDER BY tuple()')\n"
        f"nasty = {nasty!r}\n"
        "result['inserted'] = attempt('t.kept', 'Native', *(block(value) for value in nasty))\n"
        "kept = connection.rows('SELECT a FROM t.kept')\n"
        "result['same'] = sorted(row[0] for row in kept) == sorted(nasty)\n"
        "parts = \"SELECT count() FROM system.parts WHERE table = 'kept' AND active\"\n"
        "result['parts'] = connection.rows(parts)\n"
        "rows = b''.join(json.dumps({'a': value}).encode() + b'\\n' for value in nasty)\n"
        "result['json'] = attempt('t.kept', 'JSONEachRow', rows[:50], rows[50:], columns=())\n"
        "result['count'] = connection.rows('SELECT count(), uniqExact(a) FROM t.kept')\n",
    )
    assert result == {
        "inserted": "ok",
        "same": True,
        "parts": [[1]],
        "json": "ok",
        "count": [[2 * len(nasty), len(nasty)]],
    }


def test_each_connection_is_its_own(tmp_path: Path) -> None:
    """Settings of one are not another's, and no descriptor is left behind."""
    result = in_engine(
        tmp_path,
        SCRIPT,
        "connection.query('CREATE TABLE t.kept (a String) ENGINE = MergeTree ORDER BY a')\n"
        "with engine.connection() as other:\n"
        "    other.query('SET readonly = 1')\n"
        "    result['other'] = other.rows(\"SELECT getSetting('readonly')\")\n"
        "result['first'] = connection.rows(\"SELECT getSetting('readonly')\")\n"
        "attempt('t.kept', 'Native', block('a'))\n"
        "descriptors = Path('/proc/self/fd')\n"
        "def open_files():\n"
        "    return len(list(descriptors.iterdir())) if descriptors.exists() else 0\n"
        "attempt('t.kept', 'Native', b'broken')\n"
        "before = open_files()\n"
        "for _ in range(50):\n"
        "    attempt('t.kept', 'Native', block('a'))\n"
        "    attempt('t.kept', 'Native', b'broken')\n"
        "result['left'] = open_files() - before < 25\n",
    )
    assert result == {"other": [[1]], "first": [[0]], "left": True}


def test_a_large_row_is_read_with_few_others(tmp_path: Path) -> None:
    """A list shows rows far from each other: a granule has at most 1 MB, or the rows its table says."""
    result = in_engine(
        tmp_path,
        SCRIPT,
        "for name, letters in (('large', 4000), ('small', 40)):\n"
        "    connection.query(f'CREATE TABLE t.{name} (a String) ENGINE = MergeTree ORDER BY a '\n"
        "                     'SETTINGS index_granularity = 2048')\n"
        "    connection.query(f'INSERT INTO t.{name} SELECT leftPad(toString(number), {letters}, \\'0\\') '\n"
        "                     'FROM numbers(4096)')\n"
        "result = {name: int(marks) for name, marks in connection.rows(\n"
        "    'SELECT table, sum(marks) FROM system.parts WHERE active AND database = {} GROUP BY table'\n"
        "    .format(repr('t')))}\n",
    )
    assert result["large"] >= 16, "250 rows of 4 kB"
    assert result["small"] == 3, "two of 2048 rows, and the end"
