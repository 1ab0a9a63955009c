"""The sink is reached through the proxies of the environment, as the exporters of the SDK reach theirs."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest

from otel_audit.config.model import SinkConfig
from otel_audit.pipeline.delivery.otlp_http import Transport, Verdict
from otel_audit.pipeline.delivery.proxies import proxy_for
from tests.pipeline.otlp_sink import Reply, Sink
from tests.pipeline.test_otlp_http import self_signed


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine has."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "request_method"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Tunnel:
    """A proxy that knows CONNECT only, and leads everywhere to one port of this machine."""

    def __init__(self, port: int, answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> None:
        self.requests: list[bytes] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._port = port
        self._answer = answer
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                request = b""
                while b"\r\n\r\n" not in request:
                    request += client.recv(1)
                self.requests.append(request)
                client.sendall(self._answer)
                if b" 200 " not in self._answer:
                    client.close()
                    continue
                sink = socket.create_connection(("127.0.0.1", self._port))
                for pair in ((client, sink), (sink, client)):
                    threading.Thread(target=self._pipe, args=pair, daemon=True).start()

    def _pipe(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[Sink, Path]]:
    """A sink behind TLS under the name ``localhost``, and the certificate it is trusted by."""
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Sink() as sink:
        sink.use_tls(context)
        yield sink, certificate


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_an_http_sink_is_reached_through_the_proxy(
    sink: Sink, monkeypatch: pytest.MonkeyPatch, variable: str, scheme: str
) -> None:
    """The proxy resolves the name; the connection is kept for the next request."""
    monkeypatch.setenv(variable, f"{scheme}us%40er:p%3Aw@127.0.0.1:{sink.port}")
    transport = Transport(SinkConfig(endpoint="http://audit.corp.example:4318/v1/audit", token="t"))
    assert transport.send(b"").verdict is Verdict.ACCEPTED
    assert transport.send(b"").verdict is Verdict.ACCEPTED
    transport.close()
    assert [headers["Host"] for headers in sink.headers] == ["audit.corp.example:4318"] * 2
    assert sink.headers[0]["Authorization"] == "Bearer t"
    given = base64.b64encode(b"us@er:p:w").decode()
    assert sink.headers[0]["Proxy-Authorization"] == f"Basic {given}"


def test_an_https_sink_is_reached_through_a_tunnel(
    tls: tuple[Sink, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy sees host and its own password, and nothing of the request."""
    sink, certificate = tls
    with Tunnel(sink.port) as tunnel:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:pw@{tunnel.url}")
        config = SinkConfig(endpoint="https://localhost:4443/v1/audit", ca_file=str(certificate), token="t")
        answer = Transport(config).send(b"")
        assert answer.verdict is Verdict.ACCEPTED, answer.reason
    assert tunnel.requests[0].startswith(b"CONNECT localhost:4443 ")
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"user:pw") in tunnel.requests[0]
    assert b"Bearer" not in tunnel.requests[0]
    assert "Proxy-Authorization" not in sink.headers[0]
    assert sink.headers[0]["Authorization"] == "Bearer t"


def test_a_proxy_that_refuses_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both kinds; records wait."""
    with Tunnel(9, b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as tunnel:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:s3cr3t@{tunnel.url}")
        answer = Transport(SinkConfig(endpoint="https://sink.example/v1/audit")).send(b"")
    assert answer.verdict is Verdict.UNAVAILABLE
    assert f"through the proxy http://{tunnel.url}" in answer.reason
    assert "407" in answer.reason
    assert "s3cr3t" not in answer.reason
    with Sink(lambda records: Reply(407)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:s3cr3t@127.0.0.1:{proxy.port}")
        answer = Transport(SinkConfig(endpoint="http://sink.example/v1/audit")).send(b"")
    assert answer.verdict is Verdict.MISCONFIGURED
    assert "the proxy's user and password" in answer.reason


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "http://", "http://x:notaport", "ftp://x"])
def test_a_proxy_that_cannot_be_used_is_refused_aloud(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """Going around it in silence would be against what somebody wanted."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    answer = Transport(SinkConfig(endpoint="http://sink.example/v1/audit")).send(b"")
    assert answer.verdict is Verdict.MISCONFIGURED
    assert "ALL_PROXY" in answer.reason
    assert "NO_PROXY" in answer.reason


@pytest.mark.parametrize(
    ("address", "no_proxy", "direct"),
    [
        ("http://sink.corp.example:4318", "sink.corp.example", True),
        ("http://sink.corp.example:4318", "corp.example", True),
        ("http://sink.corp.example:4318", ".corp.example", True),
        ("http://corp.example:4318", ".corp.example", True),
        ("http://SINK.corp.example:4318", "a.example, Sink.Corp.Example", True),
        ("http://sink.corp.example:4318", "sink.corp.example:4318", True),
        ("http://sink.corp.example:4318", "sink.corp.example:80", False),
        ("http://sink.corp.example", "sink.corp.example:80", True),
        ("http://sink.corp.example:4318", "other.example", False),
        ("http://sink.corp.example:4318", "", False),
        ("http://sink.corp.example:4318", "*", True),
        ("http://10.1.2.3:4318", "10.0.0.0/8", True),
        ("http://10.1.2.3:4318", "10.1.2.3", True),
        ("http://11.1.2.3:4318", "10.0.0.0/8", False),
        ("http://127.0.0.1:4318", "localhost,127.0.0.1", True),
        ("http://[::1]:4318", "::1", True),
        ("https://sink.corp.example:4318", "", True),
    ],
)
def test_no_proxy_names_what_is_reached_directly(
    monkeypatch: pytest.MonkeyPatch, address: str, no_proxy: str, direct: bool
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxy_for(urlsplit(address)) is None) == direct


def test_a_cgi_request_cannot_choose_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its header ``Proxy`` becomes HTTP_PROXY there (httpoxy)."""
    monkeypatch.setenv("HTTP_PROXY", "http://evil.example:3128")
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    assert proxy_for(urlsplit("http://sink.example")) is None
