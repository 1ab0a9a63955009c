"""The query port, as drivers speak to it: clickhouse-connect itself, and what clickhouse-go sends."""

from __future__ import annotations

import datetime
import gzip
import struct
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import clickhouse_connect
import httpx
import lz4.frame
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from otel_audit.server.clickhouse import framing
from otel_audit.server.engine import native
from tests.trail import DRIVER, Serving

HOSTILE = 'it\'s \\ "x" {y:String}\n\r\t\0\b ü 日本 ;-- \U0001f600'


def host_and_port(server: Serving) -> dict[str, Any]:
    host, _, port = server.clickhouse.removeprefix("http://").partition(":")
    return {"host": host, "port": int(port), "username": "default"}


@pytest.fixture(params=[False, "lz4", "zstd", "gzip"], ids=["plain", "lz4", "zstd", "gzip"])
def driver(request: pytest.FixtureRequest, server: Serving) -> Iterator[Client]:
    """An unmodified clickhouse-connect, in each of its encodings."""
    client = clickhouse_connect.get_client(**host_and_port(server), compress=request.param)
    yield client
    client.close()


@pytest.fixture
def port(server: Serving) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.clickhouse, headers=DRIVER, timeout=30) as client:
        yield client


def test_a_driver_connects_and_asks(driver: Client) -> None:
    """Rows, columns of no rows, large answers, blocks, frames."""
    assert driver.ping()
    assert driver.command("SELECT 1 + 1") == 2
    assert driver.query("SELECT number, toString(number) FROM numbers(3)").result_rows == [
        (0, "0"),
        (1, "1"),
        (2, "2"),
    ]
    nothing = driver.query(
        "SELECT actor_id AS who, timestamp FROM otel.audit_events WHERE actor_id = 'nobody'"
    )
    assert (nothing.result_rows, nothing.column_names) == ([], ("who", "timestamp"))
    assert driver.query("SELECT 1 AS one LIMIT 0").column_names == ("one",)
    large = driver.query("SELECT number, repeat('x', 50) FROM numbers(50000)").result_rows
    assert (len(large), large[-1]) == (50_000, (49_999, "x" * 50))
    with driver.query_row_block_stream("SELECT number FROM numbers(100000)") as blocks:
        assert sum(row[0] for block in blocks for row in block) == 4_999_950_000
    assert driver.query_df("SELECT 1 AS x, 'a' AS y").to_dict("records") == [{"x": 1, "y": "a"}]
    assert driver.query_arrow("SELECT 7 AS x").to_pylist() == [{"x": 7}]


def test_parameters_arrive_as_they_were_given(driver: Client) -> None:
    """Whatever they contain, in every type."""
    given: dict[str, Any] = {
        "text": HOSTILE,
        "number": -5,
        "none": None,
        "list": ["a'b", "c\\", HOSTILE],
        "moment": datetime.datetime(2026, 11, 23, 12, 0, 1, tzinfo=datetime.UTC),
        "table": "audit_events",
    }
    (row,) = driver.query(
        "SELECT {text:String}, {number:Int64}, {none:Nullable(String)}, {list:Array(String)}, "
        "{moment:DateTime('UTC')}, (SELECT count() >= 0 FROM otel.{table:Identifier})",
        parameters=given,
    ).result_rows
    assert row[:4] == (HOSTILE, -5, None, ["a'b", "c\\", HOSTILE])
    # The driver gives it in the zone of the process (naive in UTC), which Django's settings may have moved.
    moment = row[4] if row[4].tzinfo else row[4].replace(tzinfo=datetime.UTC)
    assert moment == given["moment"]
    assert row[5] == 1


def test_a_driver_inserts_what_clients_may_insert(driver: Client) -> None:
    """Native blocks with maps, VALUES, CSV; each is there when the call returns."""
    marker = str(uuid.uuid4())
    moment = datetime.datetime(2026, 11, 23, 12, 0, 1, 5000)
    driver.insert(
        "otel.otel_logs",
        [[moment, marker, {HOSTILE: HOSTILE}], [moment, marker, {}]],
        column_names=["Timestamp", "Body", "LogAttributes"],
    )
    driver.command(
        f"INSERT INTO otel.otel_logs (Body, SeverityText) VALUES ('{marker}', 'it\\'s'), ('x;\n\ny', '')"
    )
    driver.raw_insert("otel.otel_logs", ["Body", "SeverityText"], f"{marker},csv\n".encode(), fmt="CSV")
    found = driver.query(
        "SELECT SeverityText, LogAttributes FROM otel.otel_logs WHERE Body = {m:String} "
        "ORDER BY SeverityText, length(LogAttributes)",
        parameters={"m": marker},
    )
    assert found.result_rows == [("", {}), ("", {HOSTILE: HOSTILE}), ("csv", {}), ("it's", {})]


def test_errors_carry_the_engine_s_code(driver: Client, port: httpx.Client) -> None:
    """Drivers tell an unknown table from a syntax error by the number."""
    for sql, code, status in (
        ("SELECT * FROM otel.nope", 60, 404),
        ("SELECT nope()", 46, 404),
        ("SELECT nope FROM otel.otel_logs", 47, 404),
        ("SELEC 1", 62, 400),
        ("SELECT 1 FROM", 62, 400),
        ("", 62, 400),
        ("SELECT {x:String}", 456, 400),
        ("SELECT throwIf(1)", 395, 400),
        ("SELECT number FROM numbers(1e12) FORMAT Nope", 73, 400),
    ):
        answer = port.post("/", content=sql or b"\n")
        assert (answer.headers.get("X-ClickHouse-Exception-Code"), answer.status_code) == (
            str(code),
            status,
        ), sql
        assert f"Code: {code}." in answer.text
        assert answer.text.rstrip().endswith(")")
    with pytest.raises(DatabaseError, match="60"):
        driver.query("SELECT * FROM otel.nope")
    assert driver.command("SELECT 1") == 1


def test_a_failed_insert_is_an_error_and_leaves_nothing(port: httpx.Client) -> None:
    """Bad values, columns, blocks; and the next insert works."""
    marker = str(uuid.uuid4())
    block = native.block(1, [native.Column("Body", "String", native.text(marker))])
    for sql, data, code in (
        ("INSERT INTO otel.otel_logs (TraceFlags) FORMAT JSONEachRow", b'{"TraceFlags":"x"}', "27"),
        ("INSERT INTO otel.otel_logs (Nope) FORMAT JSONEachRow", b'{"Nope":1}', "16"),
        ("INSERT INTO otel.otel_logs (Nope) FORMAT Native", block, "16"),
        ("INSERT INTO otel.otel_logs (Body) FORMAT Native", block[:-3], "33"),
        ("INSERT INTO otel.otel_logs (Body) FORMAT Native", block + b"\1\1\1x", "32"),
    ):
        answer = port.post("/", params={"query": sql}, content=data)
        assert answer.status_code >= 400, sql
        assert answer.headers["X-ClickHouse-Exception-Code"] == code, answer.text
    good = port.post("/", params={"query": "INSERT INTO otel.otel_logs (Body) FORMAT Native"}, content=block)
    assert good.status_code == 200
    count = port.post("/", content=f"SELECT count() FROM otel.otel_logs WHERE Body = '{marker}'")
    assert count.text == "1\n"


def test_an_insert_in_the_body_alone_keeps_bytes_that_look_like_sql(port: httpx.Client) -> None:
    """Rows are rows: empty lines, semicolons and statements within them change nothing."""
    marker = str(uuid.uuid4())
    nasty = f"{marker};\n\nDROP TABLE otel.otel_logs;\n"
    block = native.block(2, [native.Column("Body", "String", native.text(nasty) * 2)])
    for body in (
        b"INSERT INTO otel.otel_logs (`Body`) FORMAT Native\n" + block,
        b'/* c */ insert into "otel"."otel_logs" (Body) SETTINGS async_insert=1, x=\'y\' format Native\n'
        + block,
        b"INSERT INTO otel.otel_logs FORMAT Native\n" + block + block,
    ):
        assert port.post("/", content=body).status_code == 200
    values = f"INSERT INTO otel_logs (Body) VALUES ('{marker}');\n\nDROP TABLE otel.otel_logs"
    assert port.post("/", params={"database": "otel"}, content=values).status_code == 200
    found = port.post(
        "/", content=f"SELECT count(), uniqExact(Body) FROM otel.otel_logs WHERE Body LIKE '{marker}%'"
    )
    assert found.text.split("\t")[0] == "9"


def test_forms_headers_and_addresses(port: httpx.Client) -> None:
    """What else drivers send: forms, headers instead of parameters, GET, pings."""
    assert port.get("/ping").text == "Ok.\n"
    assert port.get("/").text == "Ok.\n"
    assert port.get("/replicas_status").text == "Ok.\n"
    assert port.get("/", params={"query": "SELECT 1"}).text == "1\n"
    form = httpx.post(port.base_url, files={"query": (None, "SELECT {a:String}"), "param_a": (None, "ü")})
    assert form.text == "ü\n"
    as_json = port.post("/", content="SELECT 1 AS x", headers={"X-ClickHouse-Format": "JSONEachRow"})
    assert as_json.json() == {"x": 1}
    tables = port.post("/", content="SELECT currentDatabase()", headers={"X-ClickHouse-Database": "otel"})
    assert tables.text == "otel\n"
    both = port.post("/", params={"query": "SELECT\n"}, content="5")
    assert both.text == "5\n"
    packed = port.post("/", content=gzip.compress(b"SELECT 6"), headers={"Content-Encoding": "gzip"})
    assert packed.text == "6\n"
    framed = port.post("/", content=lz4.frame.compress(b"SELECT 8"), headers={"Content-Encoding": "lz4"})
    assert framed.text == "8\n"
    named = port.post("/", content="SELECT 7", params={"query_id": "my-id"})
    assert named.headers["X-ClickHouse-Query-Id"] == "my-id"
    split = port.post("/", content="SELECT 7", params={"query_id": "a\r\nSet-Cookie: b"})
    assert "set-cookie" not in split.headers


def test_sessions_remember_settings_and_database(port: httpx.Client) -> None:
    """Only within the session; what a client may not set is ignored."""
    session = {"session_id": str(uuid.uuid4())}
    asked = "SELECT getSetting('max_block_size'), currentDatabase(), getSetting('readonly')"
    before = port.post("/", content=asked, params=session).text
    assert before.split("\t")[1:] == ["default", "1\n"]
    for sql in ("SET max_block_size = 7", "USE otel", "SET readonly = 0"):
        assert port.post("/", content=sql, params=session).status_code == 200
    assert port.post("/", content=asked, params=session).text == "7\totel\t1\n"
    assert port.post("/", content=asked).text == before
    once = port.post("/", content=asked, params={"max_block_size": "9"}).text
    assert once.split("\t")[0] == "9"


def test_a_query_has_limits(port: httpx.Client) -> None:
    """Time as asked for, and the size of an answer."""
    slow = port.post(
        "/", content="SELECT sum(sleepEachRow(1)) FROM numbers(60)", params={"max_execution_time": "1"}
    )
    assert slow.headers["X-ClickHouse-Exception-Code"] in ("159", "160")
    huge = port.post("/", content="SELECT repeat('x', 1000000) FROM numbers(5000)")
    assert huge.headers["X-ClickHouse-Exception-Code"] in ("396", "241", "307")


def test_the_hello_of_clickhouse_go_is_answered_by_hand(port: httpx.Client) -> None:
    """With block info and serialization flags, and revision 0, so that all else is plain Native."""
    hello = "SELECT displayName(), version(), revision(), timezone()"
    options = {"default_format": "Native", "client_protocol_version": "54485"}
    data = port.post("/", content=hello, params=options).content
    assert data[:10] == b"\x01\x00\x02\xff\xff\xff\xff\x00\x04\x01"
    assert data[10:].startswith(b"\x0ddisplayName()\x06String\x00\x0aotel-audit")
    assert b"\x0arevision()\x06UInt32\x00\x00\x00\x00\x00" in data
    old = port.post("/", content=hello, params=options | {"client_protocol_version": "54000"}).content
    assert old.startswith(b"\x04\x01\x0ddisplayName()\x06String\x0aotel-audit")


def test_clickhouse_go_s_framing_is_spoken_both_ways(port: httpx.Client) -> None:
    """Compressed, checksummed blocks in and out; a flipped byte is refused."""
    marker = str(uuid.uuid4())
    block = native.block(1, [native.Column("Body", "String", native.text(marker * 1000))])
    framed = framing.frame(block)
    assert len(framed) < len(block)
    query = {"query": "INSERT INTO `otel`.`otel_logs` (`Body`) FORMAT Native", "decompress": "1"}
    flipped = framed[:30] + bytes([framed[30] ^ 1]) + framed[31:]
    refused = port.post("/", params=query, content=flipped)
    assert (refused.status_code, refused.headers["X-ClickHouse-Exception-Code"]) == (400, "117")
    assert port.post("/", params=query, content=framed).status_code == 200
    asked = {"compress": "1", "default_format": "Native"}
    answer = port.post(
        "/",
        params=asked,
        content=f"SELECT length(Body) AS n FROM otel.otel_logs WHERE startsWith(Body, '{marker}')",
    )
    plain = framing.unframe(answer.content, 10_000)
    assert plain == native.block(1, [native.Column("n", "UInt64", struct.pack("<Q", 36_000))])


def test_what_the_collector_s_exporter_asks_at_its_start(port: httpx.Client) -> None:
    """Its DDL for what is there is answered; for what is not, the answer says what to configure."""
    for sql in (
        "CREATE DATABASE IF NOT EXISTS `otel`",
        'CREATE TABLE IF NOT EXISTS "otel"."otel_logs"  (Timestamp DateTime64(9)) ENGINE = MergeTree()',
        "\nCREATE TABLE IF NOT EXISTS otel.otel_traces_trace_id_ts (TraceId String) ENGINE MergeTree",
        "CREATE MATERIALIZED VIEW IF NOT EXISTS otel.otel_traces_trace_id_ts_mv TO otel.x AS SELECT 1",
    ):
        assert port.post("/", content=sql).status_code == 200, sql
    described = port.post("/", content="DESC TABLE otel.audit_log", params={"default_format": "TSV"})
    assert "EventName\tString" in described.text
    assert "LogAttributes\tMap(LowCardinality(String), String)" in described.text
    refused = port.post("/", content="CREATE TABLE IF NOT EXISTS otel.my_logs (a String) ENGINE = Memory")
    assert refused.status_code == 403
    assert "create_schema: false" in refused.text


def test_many_clients_at_once_get_their_own_values(port: httpx.Client) -> None:
    """Parameters of one request never show in another's answer."""

    def ask(number: int) -> bool:
        text = f"{number}-{HOSTILE}"
        escaped = text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\0", "\\0")
        escaped = escaped.replace("\r", "\\r").replace("\b", "\\b")
        answer = port.post(
            "/",
            content="SELECT {text:String} AS t, {number:Int64} AS n",
            params={"param_text": escaped, "param_number": str(number), "default_format": "JSONEachRow"},
        )
        return bool(answer.json() == {"t": text, "n": number})

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(300)))
