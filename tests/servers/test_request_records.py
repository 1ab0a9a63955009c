"""Requests to real servers, recorded at the highest level, by clients that behave badly."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from otel_audit.audit_record import AuditRecord
from otel_audit.store import AuditStore
from otel_audit.store.client import StoreClient
from tests.e2e.running import eventually
from tests.servers.site import Site, small_site
from tests.trail import serving

EVENT = "http.server.request"
SECRET = "hunter2-tok_9f8e7d6c5b4a"
MEGABYTE = 1024 * 1024

_WSGI = "tests.servers.small.wsgi:application"
_ASGI = "tests.servers.small.asgi:application"
_FASTAPI = "tests.servers.small.recorded_fastapi:application"
SERVERS = {
    "gunicorn, Django": (
        "gunicorn",
        "--bind=127.0.0.1:{port}",
        "--workers=1",
        "--threads=4",
        "--no-control-socket",
        _WSGI,
    ),
    "uvicorn, Django": ("uvicorn", _ASGI, "--port={port}"),
    "uvicorn, FastAPI": ("uvicorn", _FASTAPI, "--port={port}"),
}

POLICY = """
[requests]
enabled = true
max_request_body = 2000
max_response_body = 2000
ignore_paths = ["/peak/"]

[[policy]]
path = "/slow/"
level = "metadata"
stages = ["start", "end"]

[[policy]]
view = "tests.servers.small.*"
level = "request_response"
"""


class Recorded:
    """A site whose requests are recorded."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.url = site.url
        self.working = site.directory / "working"

    def records(self, path: str) -> list[AuditRecord]:
        """The records of requests to a path that have arrived."""
        return [
            record
            for record in self.site.sink.records
            if record.event_name == EVENT and record.request.path.startswith(path)
        ]

    def once(self, query: str) -> AuditRecord:
        """Wait for the record of the one request with a query."""

        def found() -> list[AuditRecord]:
            return [each for each in self.records("/") if each.attributes.get("url.query") == query]

        eventually(found, f"a record of ?{query}; {self.site.log}")
        [record] = found()
        return record

    def peak(self) -> int:
        """The most memory the server has taken, in bytes."""
        return int(httpx.get(f"{self.url}peak/").text)


@contextmanager
def running(directory: Path, server: str) -> Iterator[Recorded]:
    with small_site(directory) as site:
        (directory / "otel-audit.toml").write_text(POLICY)
        recorded = Recorded(site)
        site.environment["DJANGO_SETTINGS_MODULE"] = "tests.servers.small.recorded_settings"
        site.environment["SMALL_WORKING"] = str(recorded.working)
        site.serve(*SERVERS[server])
        yield recorded


@pytest.fixture(scope="module", params=SERVERS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """One server for all tests of it; each asks for paths with a query of its own."""
    with running(tmp_path_factory.mktemp("recorded"), request.param) as recorded:
        yield recorded


def raw(served: Recorded, *parts: bytes, pause: float = 0) -> bytes:
    """Send bytes over a connection of their own, and return what comes back."""
    with socket.create_connection(("127.0.0.1", served.site.port), timeout=30) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                answer += piece
        return answer


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: small.example", *lines, "", ""]).encode()


# --- large, endless, slow ------------------------------------------------------------------------


def test_a_body_of_100_megabytes_is_not_held_for_us(served: Recorded) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * MEGABYTE

    httpx.post(f"{served.url}pieces/?small", content=b"x", headers={"content-type": "text/plain"})
    served.once("small")
    before = served.peak()
    headers = {"content-type": "text/plain", "content-length": str(100 * MEGABYTE)}
    with httpx.Client(timeout=120) as client:
        answer = client.post(f"{served.url}pieces/?large", content=body(), headers=headers)
    assert answer.text == str(100 * MEGABYTE)
    assert served.peak() - before < 30 * MEGABYTE


def test_of_a_large_json_a_part_is_recorded(served: Recorded) -> None:
    body = json.dumps({"first": 1, "password": SECRET, "rows": [{"name": "n" * 100}] * 200_000})
    answer = httpx.post(
        f"{served.url}echo/?json", content=body, headers={"content-type": "application/json"}, timeout=120
    )
    assert int(answer.text) == len(body)
    attributes = served.once("json").attributes
    assert attributes["http.request.body.size"] == len(body)
    assert attributes["request.body"]["first"] == 1
    assert attributes["request.body"]["password"] == "[redacted]"
    assert len(json.dumps(attributes["request.body"])) < 3000
    assert attributes["request.body.cut"]


def test_a_large_upload_is_on_record_without_its_content(served: Recorded, tmp_path: Path) -> None:
    scan = tmp_path / "scan.bin"
    scan.write_bytes(SECRET.encode() * 1_000_000)
    with scan.open("rb") as file:
        answer = httpx.post(f"{served.url}upload/?upload", files={"scan": ("scan.bin", file)}, timeout=120)
    assert int(answer.text) == scan.stat().st_size
    record = served.once("upload")
    assert record.attributes["http.request.body.size"] > scan.stat().st_size
    assert SECRET not in json.dumps(record.attributes)


def test_a_stream_that_is_left_has_a_record(served: Recorded) -> None:
    with httpx.stream("GET", f"{served.url}endless/?endless", timeout=30) as response:
        assert next(response.iter_raw())
    record = served.once("endless")
    assert record.attributes["http.response.status_code"] == 200
    assert "hunter2" not in json.dumps(record.attributes)


def test_a_client_that_writes_slowly_is_on_record(served: Recorded) -> None:
    lines = ("Content-Type: application/json", "Content-Length: 9", "Connection: close")
    body = b'{"a": 12}'
    answer = raw(served, head("POST", "/echo/?slowly", *lines), *[bytes([each]) for each in body], pause=0.02)
    assert body in answer
    assert served.once("slowly").attributes["request.body"] == {"a": 12}


def test_a_client_that_leaves_before_its_body_is_sent(served: Recorded) -> None:
    lines = ("Content-Type: application/json", "Content-Length: 900000", "Connection: close")
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", served.site.port), timeout=30) as connection:
            connection.sendall(head("POST", "/echo/?left", *lines) + b'{"a": ')
    assert httpx.get(served.url).status_code == 200, "the server goes on"


def test_a_body_in_chunks_is_recorded(served: Recorded) -> None:
    lines = ("Content-Type: application/json", "Transfer-Encoding: chunked", "Connection: close")
    chunks = b'5\r\n{"a":\r\n3\r\n 1}\r\n0\r\n\r\n'
    answer = raw(served, head("POST", "/echo/?chunks", *lines), chunks)
    assert b"200 OK" in answer
    if b'{"a": 1}' in answer:
        assert served.once("chunks").attributes["request.body"] == {"a": 1}
    else:
        served.once("chunks")  # Django under WSGI takes no body without its length


# --- several requests, odd requests --------------------------------------------------------------


def test_each_request_of_a_connection_has_a_record(served: Recorded) -> None:
    before = {record.id for record in served.site.sink.records}
    with httpx.Client() as client:
        for number in range(20):
            client.post(
                f"{served.url}unread/?n={number}", content=b"{}", headers={"content-type": "text/plain"}
            )

    def queries() -> list[str]:
        return sorted(
            record.attributes["url.query"]
            for record in served.records("/unread/")
            if record.id not in before and record.attributes["url.query"].startswith("n=")
        )

    eventually(lambda: len(queries()) == 20, "twenty records")
    assert queries() == sorted(f"n={number}" for number in range(20))


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "PROPFIND"])
def test_other_methods_are_on_record(served: Recorded, method: str) -> None:
    answer = httpx.request(method, f"{served.url}?{method}")
    record = served.once(method)
    assert record.request.method == method
    assert record.attributes["http.response.status_code"] == answer.status_code


def test_what_is_not_found_and_what_fails_is_on_record(served: Recorded) -> None:
    assert httpx.get(f"{served.url}nowhere/at/all?nowhere").status_code == 404
    assert httpx.get(f"{served.url}boom/?boom").status_code == 500
    assert served.once("nowhere").error == "404"
    failed = served.once("boom")
    assert (failed.outcome, failed.error) == ("failure", "LookupError")
    assert failed.attributes["http.response.status_code"] == 500
    assert "hunter2" not in json.dumps(failed.attributes)


# --- secrets -------------------------------------------------------------------------------------

NAMES = ["password", "passwd", "token", "access_token", "api_key", "apikey", "secret", "client_secret"]
HEADERS = ["authorization", "cookie", "x-api-key", "x-auth-token", "proxy-authorization", "x-csrf-token"]


def _requests() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in NAMES:
        yield f"echo/?{name}={SECRET}", {"content": b"{}"}
        yield "echo/", {"json": {"deep": [{name: SECRET}]}}
        yield "echo/", {"data": {name: SECRET}}
    for name in HEADERS:
        value = f"session={SECRET}" if name == "cookie" else SECRET
        yield "echo/", {"headers": {name: value}, "content": b"{}"}
    yield f"echo/{SECRET}/", {"content": b"{}"}
    yield "echo/", {"content": f"<password>{SECRET}</password>", "headers": {"content-type": "text/xml"}}
    yield "echo/", {"content": f'{{"password": "{SECRET}"', "headers": {"content-type": "application/json"}}
    yield "echo/", {"content": f"password={SECRET}", "headers": {"content-type": "text/plain"}}
    yield "echo/", {"files": {"password": (None, SECRET)}}
    yield f"echo/?next=/x%3Ftoken%3D{SECRET}", {"content": b"{}"}
    yield "echo/", {"json": {"note": f"Authorization: Bearer {SECRET}"}}
    yield "echo/", {"json": {"url": f"https://ann:{SECRET}@ship.example/"}}
    yield (
        "echo/",
        {
            "content": gzip.compress(json.dumps({"password": SECRET}).encode()),
            "headers": {"content-encoding": "gzip", "content-type": "application/json"},
        },
    )
    yield f"echo/?q=%7B%22password%22%3A%22{SECRET}%22%7D", {"content": b"{}"}


def in_a_store(requests: Sequence[ExportLogsServiceRequest], directory: Path) -> tuple[int, str]:
    """Send a store what was sent; return the number of requests in it, and all that its tables say."""
    with serving(directory) as store:
        for each in requests:
            headers = {"Content-Type": "application/x-protobuf"}
            answer = httpx.post(f"{store.http}/v1/audit", content=each.SerializeToString(), headers=headers)
            assert answer.status_code == 200, answer.text
        client = StoreClient(store.clickhouse)
        tables = client.rows("SELECT name FROM system.tables WHERE database = 'otel' AND engine LIKE '%Tree'")
        held = [json.dumps(client.rows(f"SELECT * FROM otel.`{name}`")) for (name,) in tables]
        client.close()
        with AuditStore(store.clickhouse) as asked:
            return asked.count_requests(since="1 day ago", path="/echo/*"), "".join(held)


def test_secrets_in_forty_places_are_nowhere_on_disk_or_on_the_wire(served: Recorded, tmp_path: Path) -> None:
    """Nor in a store that was sent it."""
    places = list(_requests())
    assert len(places) == 40
    before = {record.id for record in served.site.sink.records}
    with httpx.Client(timeout=60) as client:
        for path, options in places:
            client.post(f"{served.url}{path}", **options)

    def new() -> list[AuditRecord]:
        return [
            each
            for each in served.site.sink.records
            if each.event_name == EVENT and each.id not in before and each.request.path.startswith("/echo/")
        ]

    eventually(lambda: len(new()) == len(places), f"{len(places)} records", 60)
    sent = [record.SerializeToString() for request in served.site.sink.requests for record in [request]]
    assert not [payload for payload in sent if SECRET.encode() in payload]
    spooled = [path for path in served.site.spool.rglob("*") if path.is_file()]
    assert not [path for path in spooled if SECRET.encode() in path.read_bytes()]
    counted, held = in_a_store(served.site.sink.requests, tmp_path)
    assert counted >= len(places)
    assert "/echo/" in held
    assert SECRET not in held


# --- killed midway -------------------------------------------------------------------------------


@pytest.mark.parametrize("server", SERVERS)
def test_a_request_whose_worker_is_killed_leaves_a_record(tmp_path: Path, server: str) -> None:
    """Again and again: its outcome is `unknown`, and there is one record of each."""
    times = 3
    with running(tmp_path, server) as recorded:
        site = recorded.site
        for number in range(times):
            if number:
                site.serve(*SERVERS[server])
            recorded.working.unlink(missing_ok=True)
            asked = f"slow/?number={number}"
            with socket.create_connection(("127.0.0.1", site.port), timeout=30) as connection:
                connection.sendall(head("GET", f"/{asked}", "Connection: close"))
                eventually(recorded.working.exists, "somebody works on it")
                eventually(recorded.working.read_text, "it has said who")
                assert site.process is not None
                os.kill(int(recorded.working.read_text().split()[0]), signal.SIGKILL)
                site.process.kill()
        site.serve(*SERVERS[server])
        eventually(lambda: len(recorded.records("/slow/")) == times, f"{times} records; {site.log}", 60)
        assert {record.outcome for record in recorded.records("/slow/")} == {"unknown"}
        queries = sorted(record.attributes["url.query"] for record in recorded.records("/slow/"))
        assert queries == [f"number={number}" for number in range(times)]
