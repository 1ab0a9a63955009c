"""A web page in a browser on this machine: it neither reads the trail nor writes into it, on any port."""

from __future__ import annotations

import http.client
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import clickhouse_connect
import grpc
import httpx
import pytest

from otel_audit.config.model import AuditConfig, ServerConfig
from otel_audit.errors import ConfigurationError
from otel_audit.server import run
from otel_audit.store.client import StoreClient
from tests.server.otlp_messages import audit
from tests.trail import DRIVER, Serving, record, serving

NOW = 1_790_000_000_000_000_000
PROTOBUF = {"Content-Type": "application/x-protobuf"}
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain;charset=UTF-8")
LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
FOREIGN = (
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
    {"Origin": "http://127.0.0.1.evil.example"},
    {"Origin": "http://{host}@evil.example"},
    {"Origin": "{host}"},
    {"Origin": "chrome-extension://{host}"},
    {"Origin": "not an origin"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "Cross-Site", "Sec-Fetch-Mode": "navigate"},
)


def ask(
    url: str, *, headers: dict[str, str], method: str = "POST", path: str = "/", body: bytes = b"SELECT 1"
) -> tuple[int, str]:
    """Send exactly these headers, with Host as given; return status and text of the answer."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value.replace("{host}", address.netloc))
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


@pytest.fixture
def counted(store: StoreClient) -> Iterator[str]:
    """A text that must not get into the store."""
    marker = str(uuid.uuid4())
    yield marker
    found = store.rows(
        "SELECT count() FROM otel.otel_logs WHERE position(Body, {m:String}) > 0", {"m": marker}
    )
    assert found == [[0]]


def attempts(server: Serving, headers: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Yield each way in with these headers, and the status it is answered with."""
    host = {"Host": "{host}"}
    sent = audit([record("a.b", "READ", at=NOW)]).SerializeToString()
    for path in ("/v1/audit", "/v1/logs", "/v1/traces"):
        yield path, ask(server.http, path=path, headers=host | PROTOBUF | headers, body=sent)[0]
    for path in ("/health", "/ready", "/nothing"):
        yield path, ask(server.http, method="GET", path=path, headers=host | headers, body=b"")[0]
    for path in ("/ping", "/?query=SELECT%201", "/"):
        yield path, ask(server.clickhouse, method="GET", path=path, headers=host | headers, body=b"")[0]
    yield "POST", ask(server.clickhouse, headers=host | DRIVER | headers)[0]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_server_is_not_answered(server: Serving, headers: dict[str, str]) -> None:
    """On every port and path, reading or writing."""
    assert {way: status for way, status in attempts(server, headers) if status != 403} == {}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://{host}", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "HTTP://{host}"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
        {"Referer": "http://{host}/"},
    ],
    ids=str,
)
def test_the_server_s_own_pages_may_ask_but_not_write(
    server: Serving, counted: str, headers: dict[str, str]
) -> None:
    """A write that shows a browser needs a token, whoever's page it was."""
    host = {"Host": "{host}"}
    assert ask(server.clickhouse, headers=host | headers) == (200, "1\n")
    insert = f"INSERT INTO otel.otel_logs (Body) VALUES ('{counted}')".encode()
    status, text = ask(server.clickhouse, headers=host | DRIVER | headers, body=insert)
    assert status == 403
    assert "browser" in text
    sent = audit([record("a.b", "READ", at=NOW)]).SerializeToString()
    status, text = ask(server.http, path="/v1/audit", headers=host | PROTOBUF | headers, body=sent)
    assert status == 403
    assert "not accepted without a token" in text


@pytest.mark.parametrize("content_type", [*FORMS, "TEXT/PLAIN", ""])
def test_what_a_form_can_send_is_not_written(server: Serving, counted: str, content_type: str) -> None:
    """Nor what has no type: rows come with one of their own, or with credentials."""
    headers = {"Host": "{host}"} | ({"Content-Type": content_type} if content_type else {})
    insert = f"INSERT INTO otel.otel_logs (Body) VALUES ('{counted}')"
    assert ask(server.clickhouse, headers=headers, body=insert.encode())[0] in (400, 403)
    in_url = f"/?query={quote(insert)}"
    assert ask(server.clickhouse, headers=headers, path=in_url, body=b"")[0] == 403
    rows = f"/?query={quote('INSERT INTO otel.otel_logs (Body) FORMAT TSV')}"
    assert ask(server.clickhouse, headers=headers, path=rows, body=counted.encode())[0] == 403
    assert ask(server.clickhouse, headers=headers | DRIVER, body=b"SELECT 1")[0] == 200
    sent = audit([record("a.b", "READ", at=NOW)]).SerializeToString()
    assert ask(server.http, path="/v1/audit", headers=headers, body=sent)[0] in (403, 415)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_nothing_is_inserted_by_get(server: Serving, counted: str, method: str) -> None:
    """A link, a picture or a prefetch is enough for one; asking that way is as ever."""
    insert = quote(f"INSERT INTO otel.otel_logs (Body) VALUES ('{counted}')")
    headers = {"Host": "{host}"} | DRIVER
    status, text = ask(server.clickhouse, method=method, path=f"/?query={insert}", headers=headers, body=b"")
    assert status == 403
    assert method == "HEAD" or "send POST" in text
    assert ask(
        server.clickhouse, method="GET", path="/?query=SELECT%201", headers={"Host": "{host}"}, body=b""
    ) == (200, "1\n")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8123",
        "localhost.evil.example",
        "localhost@evil.example",
        "127.0.0.1.evil.example",
        "192.0.2.7",
        "[2001:db8::1]",
        "2130706433",
        "0.0.0.0",
        "localhost evil",
        "localhost/evil",
        "[::1",
        "localhost:port",
        "",
    ],
)
def test_another_name_that_leads_here_is_not_ours(server: Serving, host: str) -> None:
    """As after DNS rebinding, where the page's origin is that name; health is told to anybody."""
    headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    for given in (headers, {"Host": host}):
        status, text = ask(server.clickhouse, headers=given)
        assert status in (400, 403, 421), text
        assert "hosts" in text or status != 421
        assert ask(server.http, path="/v1/audit", headers=PROTOBUF | given, body=b"")[0] in (400, 403, 421)
    if host == "evil.example":
        status, text = ask(server.clickhouse, headers={"Host": host})
        assert status == 421
        assert "does not accept requests for the host name 'evil.example'" in text
        assert "`hosts` in [server] (OTEL_AUDIT_SERVER_HOSTS)" in text
        assert ask(server.http, method="GET", path="/health", headers={"Host": host}, body=b"")[0] == 200
        assert ask(server.clickhouse, method="GET", path="/ping", headers={"Host": host}, body=b"")[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8123",
        "localhost.",
        "localhost.:1",
        "127.0.0.1",
        "127.0.0.2:80",
        "[::1]:8123",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:0:0:1]:9",
        "{host}",
    ],
)
def test_names_and_addresses_of_this_machine_are_ours(server: Serving, host: str) -> None:
    """In every spelling, with any port: it may have been forwarded."""
    assert ask(server.clickhouse, headers={"Host": host}) == (200, "1\n")
    assert ask(server.http, path="/v1/audit", headers=PROTOBUF | {"Host": host}, body=b"")[0] == 200


def test_configured_names_are_ours_and_a_token_needs_none(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The names a proxy, Compose or Kubernetes gives; a page has no token."""
    hosts = "store, Store.audit.svc,192.0.2.7"
    with serving(tmp_path_factory.mktemp("hosts"), OTEL_AUDIT_SERVER_HOSTS=hosts) as running:
        for host in ("store:8123", "STORE", "store.audit.svc.", "192.0.2.7:1"):
            assert ask(running.clickhouse, headers={"Host": host}) == (200, "1\n"), host
        assert ask(running.clickhouse, headers={"Host": "audit.svc"})[0] == 421
    with serving(tmp_path_factory.mktemp("token"), OTEL_AUDIT_SERVER_TOKEN="s3cret") as running:
        other = {"Host": "audit.example.org"}
        bearer = other | {"Authorization": "Bearer s3cret"}
        assert ask(running.clickhouse, headers=bearer) == (200, "1\n")
        assert ask(running.clickhouse, headers=other)[0] == 403
        sent = audit([record("a.b", "READ", at=NOW)]).SerializeToString()
        assert ask(running.http, path="/v1/audit", headers=PROTOBUF | bearer, body=sent)[0] == 200
        assert ask(running.http, path="/v1/audit", headers=PROTOBUF | other, body=sent)[0] == 401
        insert = b"INSERT INTO otel.otel_logs (Body) VALUES ('x')"
        assert ask(running.clickhouse, headers=bearer, body=insert)[0] == 200
        page = {"Origin": "https://audit.example.org"}
        assert ask(running.clickhouse, headers=bearer | page, body=insert)[0] == 200
        assert ask(running.clickhouse, headers=bearer | {"Origin": "https://evil.example"})[0] == 403


@pytest.mark.parametrize("name", ["http://store", "store:8123", "a b", "", "store/"])
def test_a_host_that_is_no_name_is_refused_at_the_start(tmp_path: Path, name: str) -> None:
    """With the key and an example."""
    with pytest.raises(ConfigurationError, match=r"server\.hosts"):
        run(
            AuditConfig(
                server=ServerConfig(hosts=[name], http_port=0, clickhouse_port=0, data=str(tmp_path / "data"))
            )
        )


def test_a_driver_that_writes_as_a_form_does_gives_a_token(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """clickhouse-connect sends an INSERT given as a command as text/plain."""
    with serving(tmp_path_factory.mktemp("form"), OTEL_AUDIT_SERVER_TOKEN="s3cret") as running:
        address = urlsplit(running.clickhouse)
        where: dict[str, Any] = {"host": address.hostname, "port": address.port}
        given: list[dict[str, Any]] = [
            {"username": "default", "password": "s3cret"},
            {"access_token": "s3cret"},
        ]
        for credentials in given:
            driver = clickhouse_connect.get_client(**where, **credentials)
            driver.command("INSERT INTO otel.otel_logs (Body) VALUES", data="('known')")
            driver.close()
        counted = StoreClient(f"http://default:s3cret@{address.netloc}")
        assert counted.rows("SELECT count() FROM otel.otel_logs WHERE Body = 'known'") == [[2]]


def test_a_page_cannot_speak_grpc(server: Serving) -> None:
    """A browser's request is no HTTP/2; what a proxy translates for it carries its marks."""
    host, _, port = server.grpc.rpartition(":")
    body = audit([record("a.b", "READ", at=NOW)]).SerializeToString()
    with socket.create_connection((host, int(port)), timeout=30) as plain:
        request = f"POST {LOGS} HTTP/1.1\r\nHost: evil.example\r\nContent-Length: {len(body)}\r\n\r\n"
        plain.sendall(request.encode() + body)
        answer = b""
        while chunk := plain.recv(4096):
            answer += chunk
    assert b"200 OK" not in answer
    with grpc.insecure_channel(server.grpc) as channel:
        export = channel.unary_unary(LOGS)
        for mark in ("origin", "sec-fetch-site", "referer"):
            with pytest.raises(grpc.RpcError) as refused:
                export(body, metadata=((mark, "https://evil.example"),), timeout=30)
            code: Any = refused.value
            assert code.code() is grpc.StatusCode.PERMISSION_DENIED
        assert export(body, timeout=30) == b""


def test_known_clients_pass(server: Serving) -> None:
    """clickhouse-connect, our own client, curl with a type, and clickhouse-go's headers."""
    address = urlsplit(server.clickhouse)
    driver = clickhouse_connect.get_client(host=address.hostname or "", port=address.port or 0)
    driver.insert("otel.otel_logs", [["known"]], column_names=["Body"])
    driver.close()
    client = StoreClient(server.clickhouse)
    client.insert("otel_logs", [{"Body": "known"}])
    exporter = {
        "User-Agent": "otelcol/0.161.0 clickhouse-go/2.47.0",
        "Authorization": "Basic ZGVmYXVsdDo=",
        "Host": "{host}",
    }
    insert = b"INSERT INTO otel.otel_logs (Body) VALUES ('known')"
    assert ask(server.clickhouse, headers=exporter, body=insert)[0] == 200
    with httpx.Client(headers=DRIVER) as curl:
        assert curl.post(server.clickhouse, content=insert).status_code == 200
    assert client.rows("SELECT count() FROM otel.otel_logs WHERE Body = 'known'") == [[4]]
    client.close()
