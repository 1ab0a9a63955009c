"""What a statement nobody compiled writes to, and its text without values."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from otel_audit.capture.sql import sql_text
from otel_audit.capture.sql.sql_text import MAX_ENTRIES, MAX_PARSED, SqlTexts, folded

TABLES = {"a", "b", "shop_order", "odd name", "größe"}
WRITES = {
    "postgresql": {
        "WITH x AS (INSERT INTO a (b) VALUES (%s) RETURNING id) UPDATE c SET d = 1 FROM x": "create a",
        "WITH a AS (SELECT 1) UPDATE b SET x = 1": "update b #",
        "WITH x AS (DELETE FROM a RETURNING *) INSERT INTO b SELECT * FROM x": "create b, delete a",
        "MERGE INTO a USING b ON a.id=b.id WHEN MATCHED THEN UPDATE SET x=1 "
        "WHEN NOT MATCHED THEN INSERT (x) VALUES (1)": "update a #",
        "TRUNCATE a, b CASCADE": "delete a, delete b",
        "COPY a FROM STDIN": "create a #",
        "COPY a TO STDOUT": "",
        "COPY (SELECT * FROM a) TO STDOUT": "",
        "INSERT INTO s.a (x) VALUES (%(x)s) ON CONFLICT (x) DO UPDATE SET x = EXCLUDED.x": "create s.a #",
        "SELECT 1; DELETE FROM a": "delete a",
        "BEGIN; UPDATE a SET x=1; COMMIT": "update a",
        'UPDATE "S"."A" SET x = 1': "update S.a #",
        "DELETE FROM Old . a": "delete old.a #",
        "INSERT INTO old.a SELECT * FROM a": "create old.a #",
        "TRUNCATE db.old.a, b": "delete old.a, delete b",
        "COPY old.a FROM STDIN": "create old.a #",
        "WITH x AS (DELETE FROM a RETURNING *) INSERT INTO old.a SELECT * FROM x": "create old.a, delete a",
        "UPDATE a AS t SET x = (SELECT max(y) FROM b)": "update a #",
        "DELETE FROM ONLY a USING b WHERE a.x = b.x": "delete a #",
        "DELETE FROM c USING a WHERE c.x = a.x": "",
        'DELETE FROM "odd name"': "delete odd name #",
        'DELETE FROM "Größe"': "delete größe #",
        "UPDATE c SET x = (SELECT 1 FROM a)": "",
        "INSERT INTO c SELECT * FROM a": "",
        "SELECT * FROM a FOR UPDATE OF a": "",
        "GRANT UPDATE ON a TO x": "",
        "CREATE TRIGGER t AFTER UPDATE ON a EXECUTE PROCEDURE f()": "",
        "CREATE FUNCTION f() AS $$ DELETE FROM a $$": "",
        "EXPLAIN DELETE FROM a": "",
        "EXPLAIN ANALYZE DELETE FROM a": "delete a",
        "DO $$ BEGIN IF true THEN UPDATE a SET x = 1; END IF; END $$": "update a",
        "/* by hand */ UPDATE a SET x = 'DELETE FROM b' -- DELETE FROM b": "update a #",
        "/* a /* b */ DELETE FROM a */ SELECT 1": "",
        "UPDATE a SET x = 1 WHERE (((": "update a #",
        "UPDATE a SET x = 'it\\'s'; DELETE FROM b": "update a, delete b",
    },
    "mysql": {
        "DELETE a, b FROM a JOIN b ON a.x=b.x WHERE 1": "delete a, delete b",
        "DELETE t FROM a AS t JOIN b ON t.x=b.x": "delete a #",
        "UPDATE a JOIN b ON a.x=b.x SET b.y=1": "update b #",
        "UPDATE c JOIN b ON c.x=b.x SET c.y=1": "",
        "REPLACE INTO a (x) VALUES (%s)": "create a",
        "REPLACE INTO `Old`.a (x) VALUES (%s)": "create Old.a",
        "DELETE FROM `Old`.`a`": "delete Old.a #",
        "INSERT a VALUES (1)": "create a #",
        "INSERT INTO a VALUES (1) ON DUPLICATE KEY UPDATE x=1": "create a",
        "LOAD DATA LOCAL INFILE 'x' INTO TABLE a": "create a #",
        "/*!50001 UPDATE a SET x = 1 */": "update a #",
        "# DELETE FROM a\nSELECT 1": "",
    },
    "sqlite": {
        "INSERT OR REPLACE INTO a VALUES (?)": "create a #",
        "UPDATE OR IGNORE [a] SET x=1": "update a #",
        "replace into `a` values (1)": "create a",
    },
}


def read(sql: str, system: str = "postgresql") -> str:
    """Say it as the tables above do; # where the row count is that of the only write."""
    found = SqlTexts(TABLES).read(sql, system)
    if found is None:
        return ""
    writes = [f"{verb} {schema}{'.' * bool(schema)}{table}" for verb, table, schema in found.writes]
    return ", ".join(sorted(writes)) + " #" * found.counts


CASES = [(system, sql, right) for system, some in WRITES.items() for sql, right in some.items()]


@pytest.mark.parametrize(("system", "sql", "right"), CASES, ids=[sql[:60] for _, sql, _ in CASES])
def test_the_tables_a_statement_writes_to(system: str, sql: str, right: str) -> None:
    assert read(sql, system).split(" #")[0] == ", ".join(sorted(right.removesuffix(" #").split(", ")))
    assert read(sql, system).endswith("#") == right.endswith("#")


def test_what_one_database_calls_a_name_another_calls_a_text() -> None:
    """A process may have several, and send them the same words."""
    texts = SqlTexts(TABLES)
    sql = 'UPDATE a SET b = "swordfish"'
    shown = {system: texts.read(sql, system) for system in ("postgresql", "mysql", "postgresql")}
    assert {system: found and found.text for system, found in shown.items()} == {
        "postgresql": sql,
        "mysql": "UPDATE a SET b = ?",
    }


def test_without_sqlglot_names_decide() -> None:
    """In a process of its own, which cannot import it: the same, but for what only a parser can tell."""
    program = f"""
import sys
sys.modules["sqlglot"] = None
from tests.capture.test_sql_text import CASES, read
wrong = [(sql, right, read(sql, system)) for system, sql, right in CASES
         if read(sql, system).split(" #")[0] != ", ".join(sorted(right.removesuffix(" #").split(", ")))]
assert sorted(sql for sql, _, _ in wrong) == sorted({BY_PARSER!r}), wrong
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


BY_PARSER = [
    "DELETE t FROM a AS t JOIN b ON t.x=b.x",
    "UPDATE a JOIN b ON a.x=b.x SET b.y=1",
    "UPDATE c JOIN b ON c.x=b.x SET c.y=1",
]
"""Names alone say more: all tables of a joined statement of MySQL's."""

SECRETS = {
    "postgresql": [
        "UPDATE a SET x = 'hunter2' WHERE y = 77",
        "UPDATE a SET x = E'it\\'s hunter2', y = $$hunter2$$, z = $t$hunter2$t$",
        "UPDATE a SET x = 'it\\'s hunter2' WHERE y = 'hunter2'",
        "UPDATE a SET x = 'it''s hunter2', y = N'hunter2', z = 1.77e-77",
        "UPDATE a SET x = 1 /* hunter2 */ -- hunter2",
        "INSERT INTO a VALUES (1, 'hunter2'), (2, 'hunter2')",
        "UPDATE a SET x = 'hunter2",
    ],
    "mysql": [
        "UPDATE a SET x = \"hunter2\", y = 'it\\'s hunter2' # hunter2",
        "UPDATE a SET x = _utf8'hunter2', y = 0x77",
    ],
    "sqlite": [
        'UPDATE a SET x = "hunter2"',
        'INSERT INTO a VALUES (1, "hunter2")',
    ],
}


@pytest.mark.parametrize(("system", "sql"), [(key, sql) for key, some in SECRETS.items() for sql in some])
def test_no_literal_is_in_the_text_nor_kept(system: str, sql: str) -> None:
    texts = SqlTexts(TABLES)
    found = texts.read(sql, system)
    assert found is not None
    assert "hunter2" not in found.text
    assert "77" not in found.text
    assert found.text.startswith(sql[:8])
    assert "hunter2" not in repr(vars(texts))
    long = texts.read(sql + " " * MAX_PARSED, system)
    assert long is not None
    assert "hunter2" not in long.text


def test_parameters_and_names_stay_in_the_text() -> None:
    sql = 'UPDATE "a" SET x = %s, y = %(y)s, z = ? WHERE id IN (1, 2, 3) AND b.c = :d'
    found = SqlTexts(TABLES).read(sql, "postgresql")
    assert found is not None
    assert found.text == 'UPDATE "a" SET x = %s, y = %(y)s, z = ? WHERE id IN (?, ?, ?) AND b.c = :d'
    assert not found.cut


def test_of_many_rows_one_is_in_the_text() -> None:
    found = SqlTexts(TABLES).read("INSERT INTO a VALUES " + ", ".join(["(%s, 'x', NULL)"] * 50), "sqlite")
    assert found is not None
    assert found.text == "INSERT INTO a VALUES (%s, ?, NULL)"


def test_what_is_remembered_is_bounded() -> None:
    texts = SqlTexts(TABLES)
    for number in range(3 * MAX_ENTRIES):
        assert texts.read(f"UPDATE a SET x{number} = 1", "sqlite")
    assert max(len(texts._known["sqlite"]), len(texts._read)) <= MAX_ENTRIES


def test_statements_that_differ_in_their_literals_are_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = SqlTexts(TABLES)
    parsed: list[str] = []
    monkeypatch.setattr(
        texts,
        "_parsed",
        lambda piece, system: parsed.append(piece) or ([sql_text.Write("update", "a")], True),
    )
    for number in range(100):
        assert texts.read(f"UPDATE a SET x = {number}", "sqlite")
    assert len(parsed) == 1


def test_sqlglot_is_imported_at_the_first_statement_that_names_a_table() -> None:
    program = (
        "import sys\n"
        "from otel_audit.capture.sql.sql_text import SqlTexts\n"
        "texts = SqlTexts({'a'})\n"
        "assert texts.read('UPDATE other SET x = 1', 'sqlite') is None\n"
        "assert 'sqlglot' not in sys.modules\n"
        "assert texts.read('UPDATE a SET x = 1', 'sqlite')\n"
        "assert 'sqlglot' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


HOSTILE = [
    "UPDATE a SET x = " + "(" * 8000,
    "UPDATE a SET x = " + "(SELECT " * 1000,
    "UPDATE a SET x = " + "CASE WHEN " * 1000,
    "UPDATE a SET x = " + "f(" * 2000 + "1" + ")" * 2000,
    "UPDATE a SET x = " + "'" * 8001,
    "UPDATE a SET x = " + "/*" * 4000,
    "UPDATE a SET x = " + "$a$" * 2000,
    "UPDATE a SET x = 1" + ";" * 15000,
    "UPDATE a SET x = " + "[" * 8000,
    "UPDATE a SET x = 1 WHERE y IN (" + "?, " * 5000,
    "UPDATE a SET \x00 = \ud800",
    "UPDATE a " + "a" * 1_000_000,
    "UPDATE a SET x = " + "'" * 1_000_001,
    "UPDATE a SET x = " + "((" * 500_000,
    "UPDATE " * 150_000 + " a",
    "UPDATE a SET x = 1; " * 50_000,
    "DELETE " + " " * 1_000_000 + " FROM a",
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("sql", HOSTILE, ids=[f"{sql[:24]!r} {len(sql)}" for sql in HOSTILE])
@pytest.mark.parametrize("system", ["postgresql", "mysql", "sqlite"])
def test_a_hostile_text_is_read_all_the_same(sql: str, system: str) -> None:
    found = SqlTexts(TABLES).read(sql, system)
    assert found is not None
    assert {write.table for write in found.writes} == {"a"}


@pytest.mark.parametrize("spelling", [str, str.lower, str.title])
def test_a_long_text_is_read_to_its_end(spelling: Callable[[str], str]) -> None:
    values = ", ".join(f"({number}, 'DELETE FROM b', 'ß')" for number in range(2000))
    sql = f"INSERT INTO c VALUES {values}; {spelling('DELETE FROM')} a WHERE x = 'UPDATE b SET x = 1'"
    assert read(sql) == "delete a"
    assert read(sql.replace("ß", "s")) == "delete a"
    assert read(sql.replace("a WHERE", "c WHERE")) == ""
    block = "DO $$ BEGIN " + "PERFORM 1; " * 2000 + "DELETE FROM a; END $$"
    assert read(block) == "delete a"


def test_names_are_folded() -> None:
    assert folded('"Shop"."Order"') == "order"
    assert folded("[dbo].[Order]") == folded("`ORDER`") == "order"
