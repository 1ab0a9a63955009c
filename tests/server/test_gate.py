"""What the query port refuses: attacks on files, the network, the tables and other people's settings."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from otel_audit.server.clickhouse.allowed import SETTINGS, SYSTEM_TABLES
from otel_audit.server.clickhouse.gate import (
    Denied,
    allowed_settings,
    parse_insert,
    parse_set,
    parse_use,
)
from tests.trail import DRIVER, Serving, serving

READ_DESCRIPTIONS = Path(__file__).with_name("settings.json")
"""Setting to the hash of the description it had when it was read and found harmless."""
REACHING = re.compile(r"(?<![a-z])(?:path|schema|file|url|subject)s?(?![a-z])", re.IGNORECASE)
"""Words of settings that write files or call out: ``output_format_schema``, ``…_errors_file_path``, …"""
READ_NEVERTHELESS: dict[str, str] = {}
"""Setting to the reason why it is harmless although its name or description has one of those words."""


@pytest.fixture
def port(server: Serving) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.clickhouse, headers=DRIVER, timeout=30) as client:
        yield client


@pytest.fixture
def secret(tmp_path: Path) -> tuple[str, str]:
    """A file of the server's user, and what it says."""
    path = tmp_path / "secret.txt"
    text = str(uuid.uuid4())
    path.write_text(text)
    return str(path), text


READS = (
    "SELECT * FROM file('{path}', 'LineAsString')",
    "SELECT file('{path}')",
    "SELECT file ('{path}')",
    "SELECT /* x */ `file`('{path}')",
    "SELECT `fi\\x6ce`('{path}')",
    "SELECT \"file\"('{path}')",
    "SELECT arrayMap(file, ['{path}'])",
    "SELECT 1 AS `'`, file('{path}')",
    "SELECT 1 AS \"'\", file('{path}'), 'x'",
    "SELECT 1 AS `it's`, file('{path}') AS `b'`",
    "SELECT 1 AS `\\\\`, file('{path}') AS `\\\\`",
    "SELECT 1 AS `a\\`b'`, file('{path}'), '`'",
    "SELECT $a$'$a$, file('{path}'), $b$'$b$",
    "SELECT '\\'', file('{path}'), ''''",
    "SELECT 1 /* ' */, file('{path}') /* ' */",
    "SELECT 1 -- '\n, file('{path}') -- '",
    "SELECT x'27', file('{path}'), b'00100111'",
    "SELECT 1 AS `/*`, file('{path}') AS `*/`",
    "SELECT * APPLY(file) FROM (SELECT '{path}')",
    "SELECT COLUMNS('x') APPLY file FROM (SELECT '{path}' AS x)",
    "SELECT * APPLY(x -> file(x)) FROM (SELECT '{path}')",
    "WITH 'a' AS f SELECT arrayMap(x -> file(x), ['{path}'])",
    "DESCRIBE TABLE file('{path}')",
    "DESC file('{path}', 'CSVWithNames')",
    "EXPLAIN SELECT * FROM file('{path}')",
    "EXPLAIN ESTIMATE SELECT * FROM file('{path}')",
    "SELECT 1 UNION ALL SELECT length(file('{path}'))",
    "SELECT (SELECT file('{path}'))",
    "SELECT * FROM eval('SELECT file(''{path}'')')",
    "SELECT * FROM loop(file('{path}'))",
    "SELECT * FROM fileCluster('default', '{path}', 'LineAsString')",
    "SELECT * FROM view(SELECT file('{path}'))",
    "SELECT 1 WHERE EXISTS (SELECT file('{path}'))",
    "SELECT 1 ORDER BY file('{path}')",
    "SELECT count() OVER (PARTITION BY file('{path}'))",
    "SELECT 1 FORMAT TSV SETTINGS x = 1; SELECT file('{path}')",
    "SELECT * FROM filesystem('{path}')",
    "SELECT * FROM sqlite('{path}', 'x')",
    "INSERT INTO otel.otel_logs (Body) SELECT file('{path}')",
    "INSERT INTO otel.otel_logs (Body) VALUES (file('{path}'))",
    "INSERT INTO otel.otel_logs (Body) VALUES ((SELECT file('{path}')))",
    "INSERT INTO otel.otel_logs (Body) FORMAT Values ('a'), (concat('x', file('{path}')))",
    "INSERT INTO otel.otel_logs (Body) FROM INFILE '{path}' FORMAT LineAsString",
)


@pytest.mark.parametrize("attack", READS)
def test_no_statement_reads_a_file(port: httpx.Client, secret: tuple[str, str], attack: str) -> None:
    """Refused as access denied or never run, and the file's text is nowhere in the answer or the store."""
    path, text = secret
    answer = port.post("/", content=attack.replace("{path}", path))
    assert answer.status_code >= 400, answer.text
    assert text not in answer.text
    kept = port.post("/", content=f"SELECT count() FROM otel.otel_logs WHERE position(Body, '{text}') > 0")
    assert kept.text == "0\n"


def test_what_follows_values_is_not_run(port: httpx.Client, secret: tuple[str, str]) -> None:
    """Rows end at a semicolon; nothing after it is a statement."""
    path, text = secret
    answer = port.post("/", content=f"INSERT INTO otel.otel_logs (Body) VALUES ('a'); SELECT file('{path}')")
    assert text not in answer.text
    port.post("/", content="INSERT INTO otel.otel_logs (Body) VALUES ('a');\n\nDROP TABLE otel.otel_logs")
    assert port.post("/", content="EXISTS TABLE otel.otel_logs").text == "1\n"


@pytest.mark.parametrize(
    "attack",
    [
        "SELECT * FROM url('{url}', 'LineAsString')",
        "SELECT * FROM url('{url}', 'LineAsString', 'a String')",
        "DESCRIBE TABLE url('{url}')",
        "DESCRIBE TABLE s3('{url}/b/c')",
        "SELECT * FROM remote('127.0.0.1:1', system.one)",
        "SELECT * FROM cluster('default', system.one)",
        "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
        "SELECT * FROM postgresql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
        "SELECT * FROM executable('id', 'TSV', 'a String')",
        "SELECT * FROM Python(config)",
        "SELECT * FROM python('x')",
        "SELECT aiGenerate('x')",
        "INSERT INTO FUNCTION url('{url}', 'TSV', 'a String') VALUES ('x')",
        "INSERT INTO TABLE FUNCTION file('/tmp/never.tsv') VALUES (1)",
    ],
)
def test_no_statement_reaches_out(port: httpx.Client, server: Serving, attack: str) -> None:
    """Neither the network nor another program nor the memory of this one."""
    answer = port.post("/", content=attack.replace("{url}", server.http + "/health"))
    assert answer.status_code >= 400
    assert answer.headers["X-ClickHouse-Exception-Code"] in ("497", "46", "47"), answer.text
    assert "ok" not in answer.text.split("DB::Exception")[0]


@pytest.mark.parametrize(
    "attack",
    [
        "DROP TABLE otel.audit_events",
        "DROP VIEW otel.audit_events_mv",
        "DETACH TABLE otel.audit_events",
        "TRUNCATE TABLE otel.audit_events",
        "DELETE FROM otel.audit_events WHERE 1",
        "ALTER TABLE otel.audit_events DELETE WHERE 1",
        "ALTER TABLE otel.audit_events UPDATE actor_id = 'x' WHERE 1",
        "ALTER TABLE otel.audit_events DROP PARTITION tuple()",
        "ALTER TABLE otel.audit_events_mv MODIFY QUERY SELECT 1",
        "RENAME TABLE otel.audit_events TO otel.gone",
        "EXCHANGE TABLES otel.audit_events AND otel.otel_logs",
        "OPTIMIZE TABLE otel.audit_events FINAL",
        "CREATE OR REPLACE TABLE otel.audit_events (a String) ENGINE = Memory",
        "CREATE TABLE otel.x (a String) ENGINE = Memory",
        "CREATE TABLE IF NOT EXISTS otel.x (a String) ENGINE = URL('http://127.0.0.1:1/')",
        "CREATE FUNCTION f AS (x) -> x",
        "CREATE TEMPORARY TABLE x (a String)",
        "INSERT INTO otel.audit_events (actor_id) VALUES ('x')",
        "INSERT INTO otel.otel_audit_migrations (name) VALUES ('x')",
        "INSERT INTO system.one VALUES (1)",
        "INSERT INTO `otel`.`audit_events` (actor_id) FORMAT JSONEachRow {}",
        "SYSTEM STOP MERGES",
        "SYSTEM SHUTDOWN",
        "KILL QUERY WHERE 1",
        "BACKUP DATABASE otel TO Disk('a', 'b')",
        "GRANT ALL ON *.* TO default",
        "SELECT 1 INTO OUTFILE '/tmp/otel-audit-never'",
        "SELECT 1; DROP TABLE otel.audit_events",
        "SELECT 1;; SELECT 2",
        "ATTACH TABLE otel.y (a String) ENGINE = File(TSV)",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_memory_usage = 0",
    ],
)
def test_no_statement_changes_what_is_recorded(port: httpx.Client, attack: str) -> None:
    """Not the rows, not the tables, not the server."""
    before = port.post(
        "/", content="SELECT name, create_table_query FROM system.tables WHERE database = 'otel'"
    )
    answer = port.post("/", content=attack)
    assert answer.status_code in (400, 403), answer.text
    assert answer.headers["X-ClickHouse-Exception-Code"] in ("497", "62", "164"), answer.text
    after = port.post(
        "/", content="SELECT name, create_table_query FROM system.tables WHERE database = 'otel'"
    )
    assert after.text == before.text
    assert not Path("/tmp/otel-audit-never").exists()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'file(x)', 'it''s \\' file(1)' AS a",
        "WITH t AS (SELECT number FROM numbers(3)) SELECT sum(number) FROM t",
        "SELECT * FROM otel.audit_events WHERE has(changes.field, 'file') LIMIT 1",
        "SELECT format('{}-{}', 'a', 'b'), values FROM (SELECT 1 AS values)",
        "SHOW TABLES FROM otel",
        "SHOW CREATE TABLE otel.audit_events",
        "DESCRIBE TABLE otel.audit_events",
        "EXPLAIN SELECT 1",
        "EXISTS TABLE otel.audit_log",
        "SELECT name, value FROM system.settings LIMIT 1",
        "SELECT 1 -- file(",
        "SELECT 1 /* url( */",
        "SELECT '日本', 'url(''http://x'')'",
        "SELECT 1 AS `file of it`, 2 AS `it's`, 'x' AS \"a\\\"b\"",
        "SELECT 1 AS format, 2 AS SETTINGS",
        "SELECT redis.1 FROM (SELECT tuple(1) AS redis)",
        "SELECT 1;",
        "(SELECT 1) UNION ALL (SELECT 2)",
    ],
)
def test_honest_questions_pass(port: httpx.Client, sql: str) -> None:
    """Words in texts and comments are no calls."""
    answer = port.post("/", content=sql)
    assert answer.status_code == 200, answer.text


def test_a_verdict_is_remembered_for_the_text_it_was_given_for(
    port: httpx.Client, secret: tuple[str, str]
) -> None:
    """Asking an honest question first does not let another through."""
    path, text = secret
    assert port.post("/", content="SELECT 'x'").status_code == 200
    for _ in range(2):
        answer = port.post("/", content=f"SELECT file('{path}')")
        assert answer.status_code == 403
        assert text not in answer.text


def test_settings_that_widen_what_may_be_done_are_ignored() -> None:
    """Whatever is not on the list: limits of memory, files, other dialects."""
    given = {
        "readonly": "0",
        "dialect": "prql",
        "max_memory_usage": "0",
        "input_format_values_interpret_expressions": "1",
        "allow_introspection_functions": "1",
        "format_schema": "/etc/passwd",
        "output_format_schema": "/tmp/evil",
        "input_format_record_errors_file_path": "/tmp/evil",
        "output_format_avro_confluent_subject": "x",
        "max_block_size_of_another_name": "1",
        "max_block_size": "10",
        "output_format_json_quote_64bit_integers": "0",
    }
    assert allowed_settings(given.items()) == {
        "max_block_size": "10",
        "output_format_json_quote_64bit_integers": "0",
    }


def test_each_setting_a_client_may_choose_has_been_read(port: httpx.Client) -> None:
    """None names a file, a schema or an address; a new engine that describes one anew asks for a look."""
    answer = port.post("/", content="SELECT name, description FROM system.settings FORMAT JSONCompactEachRow")
    described = dict(json.loads(line) for line in answer.text.splitlines())
    assert len(described) > 1000
    assert described.keys() >= SETTINGS
    reaching = {name for name in SETTINGS if REACHING.search(f"{name.replace('_', ' ')} {described[name]}")}
    assert reaching == READ_NEVERTHELESS.keys()
    assert REACHING.search("output_format_schema".replace("_", " "))
    found = {name: hashlib.sha256(described[name].encode()).hexdigest()[:16] for name in sorted(SETTINGS)}
    read = json.loads(READ_DESCRIPTIONS.read_text())
    anew = [f"{name}: {described[name]}" for name in found if found[name] != read.get(name)]
    assert not anew, "read these, then put their hashes into settings.json:\n" + "\n".join(anew)
    assert read == found


def write_attempts(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield statements and parameters that would write ``path`` if the setting came through."""
    columns = "SELECT 1 AS `x\nevil`"
    for setting in ("output_format_schema", "format_schema", "input_format_record_errors_file_path"):
        for name in ("Protobuf", "ProtobufSingle", "ProtobufList", "CapnProto", "Template", "TSV"):
            yield f"{columns} FORMAT {name}", {setting: str(path)}
            yield columns, {setting: str(path), "default_format": name}
            yield f"{columns} FORMAT {name} SETTINGS {setting} = '{path}'", {}
            yield f"{columns} SETTINGS {setting} = '{path}' FORMAT {name}", {}
            yield f"SELECT * FROM ({columns} SETTINGS {setting} = '{path}') FORMAT {name}", {}
            yield f"({columns} SETTINGS {setting} = '{path}') UNION ALL (SELECT 1) FORMAT {name}", {}
            yield f"SELECT arrayMap(x -> (SELECT 1 SETTINGS {setting} = '{path}'), [1]) FORMAT {name}", {}
            yield f"EXPLAIN {columns} FORMAT {name}", {setting: str(path)}
        yield f"SET {setting} = '{path}'", {"session_id": "writer"}
        yield f"{columns} FORMAT Protobuf", {"session_id": "writer"}
        yield (
            "INSERT INTO otel.otel_logs (Timestamp) FORMAT CSV\nnot a time\n",
            {setting: str(path), "input_format_allow_errors_num": "9"},
        )
        yield (
            f"INSERT INTO otel.otel_logs (Timestamp) SETTINGS {setting} = '{path}' FORMAT CSV\nnot a time\n",
            {},
        )


def test_no_setting_writes_a_file(tmp_path: Path) -> None:
    """By parameter, SET, clause or session, with any format: nothing appears, not even beside the server."""
    aim = tmp_path / "aim"
    aim.mkdir()
    with (
        serving(tmp_path) as running,
        httpx.Client(base_url=running.clickhouse, headers=DRIVER, timeout=30) as client,
    ):
        before = {path.name for path in tmp_path.iterdir()}
        for sql, params in write_attempts(aim / "evil"):
            client.post("/", content=sql, params=params)
            assert not list(aim.iterdir()), (sql, params)
        assert {path.name for path in tmp_path.iterdir()} == before
        assert client.post("/", content="SELECT 1").text == "1\n"


@pytest.mark.parametrize("name", ["Protobuf", "CapnProto", "Template", "SQLInsert", "debug", "dataframe", ""])
@pytest.mark.parametrize(
    "asked", ["{}", "SELECT 1 FORMAT {} SETTINGS readonly = 1", "SELECT 1 SETTINGS readonly = 1 FORMAT {}"]
)
def test_an_answer_in_a_format_that_is_not_listed_is_refused(
    port: httpx.Client, name: str, asked: str
) -> None:
    """Wherever it is named, with the formats there are."""
    if asked == "{}":
        answer = port.post("/", content="SELECT 1", params={"default_format": name})
        assert answer.status_code == (400 if name else 200)
    else:
        answer = port.post("/", content=asked.format(name))
        assert answer.status_code == 400
    assert not name or "JSONEachRow" in answer.text or answer.headers["X-ClickHouse-Exception-Code"] == "62"


@pytest.mark.parametrize(
    "attack",
    [
        "optimize = 0 SELECT 1; DROP TABLE otel.audit_events",
        "graph=0 SELECT 1; TRUNCATE TABLE otel.audit_events",
        "graph = 1 SELECT 1 INTO OUTFILE '/tmp/otel-audit-never'",
        "; DROP TABLE otel.audit_events",
        "1); DROP TABLE otel.audit_events; --",
        "') ; DROP TABLE otel.audit_events; --",
        "SELECT 1\0; DROP TABLE otel.audit_events",
        "SELECT 1 FROM (SELECT 2) ; ; DROP TABLE otel.audit_events",
        "SELEC 1; DROP TABLE otel.audit_events",
        "$$; DROP TABLE otel.audit_events",
    ],
)
def test_what_does_not_parse_is_never_run(port: httpx.Client, attack: str) -> None:
    """Not in part either: behind a word of ours a text may be two statements that do parse."""
    answer = port.post("/", content=attack)
    assert answer.status_code in (400, 403), answer.text
    assert port.post("/", content="EXISTS TABLE otel.audit_events").text == "1\n"
    assert not Path("/tmp/otel-audit-never").exists()


@pytest.fixture
def there(tmp_path: Path) -> str:
    """A file that only its name tells of."""
    path = tmp_path / "there.csv"
    path.write_text("a,b\n1,2\n")
    return str(path)


@pytest.mark.parametrize(
    "question",
    [
        "EXISTS TABLE default.`{path}`",
        "EXISTS `{path}`",
        "EXISTS VIEW `{path}`",
        "EXISTS DICTIONARY default.`{path}`",
        "DESCRIBE TABLE `{path}`",
        "DESC default.`{path}`",
        "SELECT * FROM `{path}`",
        "SELECT * FROM default.`{path}`",
        "SELECT 1 IN `{path}`",
        "SELECT 1 IN default.`{path}`",
        "SHOW CREATE TABLE `{path}`",
        "SHOW COLUMNS FROM `{path}`",
        "SHOW INDEX FROM `{path}` FROM default",
        "SELECT hasColumnInTable('default', '{path}', 'a')",
        "SELECT * FROM merge('default', '{path}')",
        "SELECT count() FROM system.columns WHERE database = 'default' AND table = '{path}'",
        "SELECT joinGet('default.{path}', 'a', 1)",
        "SELECT dictGet('default.{path}', 'a', 1)",
        "EXPLAIN SELECT * FROM `{path}`",
        "CHECK TABLE `{path}`",
        "CREATE TABLE IF NOT EXISTS default.`{path}` (a String) ENGINE = Memory",
        "CREATE TABLE IF NOT EXISTS `{path}` (a String) ENGINE = Memory",
        "SELECT * FROM {d:Identifier}.{t:Identifier}",
        "EXISTS TABLE {d:Identifier}.{t:Identifier}",
        "SELECT * FROM mergeTreeIndex(default, `{path}`)",
        "INSERT INTO default.`{path}` (a) VALUES (1)",
    ],
)
def test_no_question_tells_whether_a_file_is_there(port: httpx.Client, there: str, question: str) -> None:
    """In the engine's default database every file of the host is a table."""
    answers = []
    for path in (there, there.replace("there", "never")):
        asked = question.replace("{path}", path)
        answer = port.post("/", content=asked, params={"param_d": "default", "param_t": path})
        answers.append((answer.status_code, answer.text.replace(path, "it")))
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "table", ["disks", "processes", "stack_trace", "user_processes", "query_cache", "users"]
)
@pytest.mark.parametrize(
    "question",
    [
        "SELECT * FROM system.{table}",
        "SELECT * FROM `system` . `{table}`",
        'SELECT * FROM "system"."{table}"',
        "SELECT * FROM system /* x */ . {table}",
        "SELECT 1 AS `'`, (SELECT count() FROM system.{table}) AS `b'`",
        "SELECT count() IN (SELECT 1 FROM system.{table}) FROM otel.audit_events",
        "SELECT 1 IN system.{table}",
        "WITH x AS (SELECT * FROM system.{table}) SELECT * FROM x",
        "DESCRIBE TABLE system.{table}",
        "SHOW CREATE TABLE system.{table}",
        "SHOW COLUMNS FROM system.{table}",
        "SELECT * FROM merge('system', '^{table}$')",
        "SELECT * FROM merge(system, '^{table}$')",
        "SELECT * FROM view(SELECT * FROM system.{table})",
        "SELECT * FROM loop('system', '{table}')",
        "SELECT * FROM {d:Identifier}.{t:Identifier}",
        "SELECT * FROM system.{t:Identifier}",
        "EXPLAIN SELECT * FROM system.{table}",
        "EXPLAIN ESTIMATE SELECT * FROM system.{table}",
    ],
)
def test_no_question_names_what_tells_of_the_process(port: httpx.Client, question: str, table: str) -> None:
    """Its disks, its threads, other people's questions: only listed tables of system can be asked."""
    asked = question.replace("{table}", table)
    for params in ({"param_d": "system", "param_t": table}, {"param_d": "s\\x79stem", "param_t": table}):
        answer = port.post("/", content=asked, params=params)
        if asked.startswith("SHOW COLUMNS") and answer.status_code == 200:
            assert answer.text == ""
            continue
        assert answer.status_code >= 400, answer.text
        assert answer.headers["X-ClickHouse-Exception-Code"] in ("497", "636", "164", "60", "81"), answer.text


def test_nor_is_it_named_from_within_its_database(port: httpx.Client) -> None:
    """By parameter, header, session or SHOW."""
    for answer in (
        port.post("/", content="SELECT * FROM disks", params={"database": "system"}),
        port.post("/", content="SELECT * FROM disks", headers={"X-ClickHouse-Database": "system"}),
        port.post("/", content="SHOW PROCESSLIST"),
        port.post("/", content="SHOW CLUSTERS"),
        port.post("/", content="SHOW GRANTS"),
        port.post("/", content="SET ROLE ALL"),
        port.post("/", content="SET ROLE otel_audit_owner"),
    ):
        assert answer.status_code in (403, 404), answer.text
    session = {"session_id": str(uuid.uuid4())}
    port.post("/", content="USE system", params=session)
    assert port.post("/", content="SELECT * FROM disks", params=session).status_code in (403, 404)
    role = port.post("/", content="SELECT currentRoles(), count() FROM otel.audit_events").text
    assert role.startswith("['otel_audit_reader']")


def test_names_given_as_parameters_are_judged_each_time(port: httpx.Client) -> None:
    """A verdict on a text whose names come from elsewhere is not kept."""
    asked = "SELECT count() > 0 FROM {d:Identifier}.{t:Identifier}"
    for table, status in (("one", 200), ("disks", 403), ("settings", 200), ("stack_trace", 403)):
        answer = port.post("/", content=asked, params={"param_d": "system", "param_t": table})
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize("name", sorted(SYSTEM_TABLES))
def test_listed_tables_can_be_asked(port: httpx.Client, name: str) -> None:
    """As the tools of a ClickHouse do."""
    answer = port.post("/", content=f"SELECT * FROM system.{name} LIMIT 1")
    assert answer.status_code == 200, answer.text


def test_inserts_are_taken_apart() -> None:
    """Table, columns, format and the first byte of the rows."""
    text = 'INSERT INTO `otel`.audit_log (`Timestamp`, "Body", Events.Name) FORMAT Native\n\x01\x02'
    insert = parse_insert(text, "otel", "default")
    assert insert is not None
    assert (insert.table, insert.columns) == ("otel.audit_log", ("Timestamp", "Body", "Events.Name"))
    assert (insert.format, text[insert.data_at :]) == ("Native", "\x01\x02")
    values = parse_insert("insert into otel_logs values ('a')", "otel", "otel")
    assert values is not None
    assert (values.format, values.columns) == ("Values", ())
    assert parse_insert("SELECT 1", "otel", "otel") is None
    for bad in ("INSERT INTO otel_logs SELECT 1", "INSERT INTO otel_logs (a) FORMAT CapnProto x"):
        with pytest.raises(Denied):
            parse_insert(bad, "otel", "otel")


def test_set_and_use_are_taken_apart() -> None:
    """And nothing that only begins like them."""
    assert parse_set("SET max_threads = 4;") == ("max_threads", "4")
    assert parse_set("set a = 'it is'") == ("a", "it is")
    assert parse_set("SET a = 1, b = 2") is None
    assert parse_use("USE `otel`") == "otel"
    assert parse_use("USE otel; DROP TABLE x") is None
