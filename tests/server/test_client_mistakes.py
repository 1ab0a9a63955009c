"""What a client gets wrong is answered with 4xx, and what it no longer waits for is stopped."""

from __future__ import annotations

import gzip
import os
import random
import socket
import time
import urllib.parse
from pathlib import Path
from typing import Any

import httpx
import pytest

from otel_audit.server.clickhouse.http_status import _STATUSES, http_status
from otel_audit.store.client import StoreClient
from tests.trail import Serving


@pytest.fixture
def client(server: Serving) -> Any:
    """An HTTP client of the shared server's query port."""
    with httpx.Client(base_url=server.clickhouse, timeout=60) as client:
        yield client


def nested(depth: int, one: str = "NOT ") -> str:
    """Make an expression that is nested that deep."""
    return "SELECT " + one * depth + "1" + ")" * (depth if one.endswith("(") else 0)


MISTAKES: list[tuple[int, str, dict[str, str]]] = [
    (400, "SELECT", {}),
    (400, "", {"query": "  "}),
    (400, "SELECT 1; SELECT 2", {}),
    (404, "SELECT nothing FROM otel.audit_events", {}),
    (404, "SELECT 1 FROM otel.nothing", {}),
    (404, "SELECT 1", {"database": "nothing"}),
    (404, "SELECT no_such(1)", {}),
    (404, "SELECT getMacro('x')", {}),
    (400, "SELECT 1 FORMAT Nothing", {}),
    (400, "SELECT 1", {"default_format": "Nothing"}),
    (404, "SELECT CAST(1 AS Nothing1)", {}),
    (400, "SELECT CAST('x' AS UInt8)", {}),
    (400, "SELECT CAST('x' AS Bool)", {}),
    (400, "SELECT toDateTime('x')", {}),
    (400, "SELECT toUUID('x')", {}),
    (400, "SELECT toIPv4('x')", {}),
    (400, "SELECT plus(1)", {}),
    (400, "SELECT 1 + 'x'", {}),
    (400, "SELECT [1, 'x']", {}),
    (400, "SELECT match('x', '(')", {}),
    (400, "SELECT throwIf(1)", {}),
    (400, "SELECT intDiv(1, 0)", {}),
    (400, "SELECT arrayElement([1], 'x')", {}),
    (400, "SELECT range(1000000000)", {}),
    (400, "SELECT {x:UInt8}", {}),
    (400, "SELECT {x:UInt8}", {"param_x": "x"}),
    (400, "SELECT {x:DateTime}", {"param_x": "yesterday"}),
    (400, "SELECT number FROM numbers(10) ORDER BY count()", {}),
    (400, "SELECT 1 LIMIT -1.5", {}),
    (400, "SELECT 1", {"max_block_size": "many"}),
    (400, "SELECT number FROM numbers(100000)", {"max_result_rows": "10"}),
    (400, "SELECT sum(number) FROM numbers(100000)", {"max_rows_to_read": "10"}),
    (400, nested(5000), {}),
    (400, nested(5000, "toString("), {}),
    (400, nested(5000, "("), {}),
    (400, "SELECT 1 FORMAT Template", {}),
    (
        408,
        "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1",
        {"max_execution_time": "1"},
    ),
    (403, "CREATE TABLE x (a Int8) ENGINE = Null", {}),
    (403, "SELECT 1 SETTINGS max_threads = 1, allow_ddl = 1", {}),
]


@pytest.mark.parametrize(("status", "sql", "parameters"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_in_a_question_is_the_client_s(
    client: httpx.Client, status: int, sql: str, parameters: dict[str, str]
) -> None:
    """With ClickHouse's code and message; the server is well."""
    answer = client.post("/", content=sql, params=parameters)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.status_code == status, answer.text
    assert answer.text.startswith(f"Code: {answer.headers['X-ClickHouse-Exception-Code']}.")


INSERTS: list[tuple[str, bytes]] = [
    ("JSONEachRow", b"{"),
    ("JSONEachRow", b'{"Timestamp": "yesterday"}'),
    ("JSONEachRow", b'{"SeverityNumber": "many"}'),
    ("JSONEachRow", b'{"LogAttributes": [1]}'),
    ("CSV", b"1,2"),
    ("TSV", b"a\tb\n"),
    ("Values", b"(now(), 'x'"),
    ("RowBinary", b"\1\2\3"),
    ("Native", b"\1"),
    ("Native", b"\xff" * 100),
    ("Native", b"\1\1\4Body\6String\5ab"),
    ("Native", b"\1\xff\xff\xff\xff\xff\xff\xff\x7f\4Body\6String\1a"),
    ("Native", b"\1\1\7Nothing\6String\1a"),
    ("Native", b"\1\1\4Body\7Nothing\1a"),
    ("Native", b"\1\1\x0eSeverityNumber\6String\1a"),
    ("Parquet", b"PAR1"),
    ("Arrow", b"ARROW1"),
    ("ArrowStream", b"\xff\xff\xff\xff\0\0\0\1"),
]


@pytest.mark.parametrize(("form", "rows"), INSERTS, ids=range(len(INSERTS)))
def test_a_mistake_in_an_insert_is_the_client_s(client: httpx.Client, form: str, rows: bytes) -> None:
    """Rows that are cut short, of another type, of columns that do not exist."""
    answer = client.post("/", params={"query": f"INSERT INTO otel.otel_logs FORMAT {form}"}, content=rows)
    assert 400 <= answer.status_code < 500, answer.text


def test_no_cut_or_changed_block_is_the_server_s_fault(client: httpx.Client) -> None:
    """Of a valid one: cut at each place, and a byte changed at each."""
    plain = client.post(
        "/",
        content="SELECT toDateTime64(1, 9) AS Timestamp, 'x' AS Body, map('a', 'b') AS LogAttributes "
        "FORMAT Native",
    ).content
    chance = random.Random(7)
    bodies = [plain[:at] for at in range(1, len(plain))]
    bodies += [plain[:at] + bytes([chance.randrange(256)]) + plain[at + 1 :] for at in range(len(plain))]
    wrong = [
        (body, answer.text)
        for body in bodies
        if (
            answer := client.post(
                "/", params={"query": "INSERT INTO otel.otel_logs FORMAT Native"}, content=body
            )
        ).status_code
        >= 500
    ]
    assert not wrong, wrong[:3]


@pytest.mark.parametrize(
    ("content", "headers", "params"),
    [
        (b"abc", {"Content-Encoding": "gzip"}, {}),
        (gzip.compress(b"SELECT 1")[:-4], {"Content-Encoding": "gzip"}, {}),
        (b"SELECT '\xff'", {}, {}),
        (b"abc", {}, {"decompress": "1"}),
        (b"--x", {"Content-Type": "multipart/form-data; boundary=x"}, {}),
        (b"", {"Content-Type": "multipart/form-data"}, {}),
    ],
    ids=range(6),
)
def test_a_body_that_is_not_what_it_claims_is_the_client_s_mistake(
    client: httpx.Client, content: bytes, headers: dict[str, str], params: dict[str, str]
) -> None:
    """Whatever it claims."""
    assert 400 <= client.post("/", content=content, headers=headers, params=params).status_code < 500


def test_each_code_of_the_engine_has_one_status(store: StoreClient) -> None:
    """Codes that say "unknown", "illegal" or "cannot parse" are never ours; a logical error always is."""
    names = {
        int(code): str(name)
        for code, name in store.rows(
            "SELECT number, errorCodeToName(number) FROM numbers(1100) WHERE errorCodeToName(number) != ''"
        )
    }
    sorted_in = [code for codes, _ in _STATUSES for code in codes]
    assert len(sorted_in) == len(set(sorted_in))
    assert set(sorted_in) <= set(names)
    ours = {"CANNOT_PARSE_ELF", "CANNOT_PARSE_DWARF"}
    for code, name in names.items():
        if name.startswith(
            ("CANNOT_PARSE_", "ILLEGAL_TYPE", "ILLEGAL_COLUMN", "BAD_ARG", "SYNTAX", "TOO_DEEP")
        ):
            assert http_status(code) == (500 if name in ours else 400), name
    for code in (0, 49, 76, 236, 246, 999, 1000, 1001, 1002, 5000):
        assert http_status(code) == 500
    for code in (27, 72, 73, 167, 306, 396, 467, 474):
        assert http_status(code) == 400


ENDLESS = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1"


def spent(pid: int) -> float:
    """Return the seconds of processor time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def calculates(pid: int, wanted: bool) -> bool:
    """Wait until a process is busy, or idle; return which of the two it is."""
    found = not wanted
    for _ in range(200):
        before = spent(pid)
        time.sleep(0.3)
        found = spent(pid) - before > 0.05
        if found == wanted:
            break
    return found


@pytest.mark.parametrize("how", ["close", "reset", "get"])
def test_a_question_whose_client_went_away_no_longer_runs(
    server: Serving, client: httpx.Client, how: str
) -> None:
    """The engine stops it, however the connection ended."""
    host, port = server.clickhouse.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    if how == "get":
        head = f"GET /?query={urllib.parse.quote(ENDLESS)} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"
    else:
        head = f"POST / HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(ENDLESS)}\r\n\r\n{ENDLESS}"
    connection.sendall(head.encode())
    assert calculates(server.pid, True)
    if how == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
    assert not calculates(server.pid, False)
    assert client.post("/", content="SELECT 1").text == "1\n"


def test_questions_that_wait_for_a_thread_do_not_begin_when_their_client_is_gone(
    server: Serving, client: httpx.Client
) -> None:
    """More than run at once: all are gone, and the next one is answered."""
    host, port = server.clickhouse.removeprefix("http://").split(":")
    head = (
        f"POST / HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(ENDLESS)}\r\n\r\n{ENDLESS}".encode()
    )
    sockets = [socket.create_connection((host, int(port))) for _ in range(30)]
    for connection in sockets:
        connection.sendall(head)
    assert calculates(server.pid, True)
    for connection in sockets:
        connection.close()
    assert not calculates(server.pid, False)
