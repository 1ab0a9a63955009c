"""What leaves over TLS, straight or through a proxy: the service is told, and the proxy reads nothing."""

from __future__ import annotations

import asyncio
import http.client
import select
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx
import pytest
import requests
import urllib3

import otel_audit
from otel_audit.config.model import AuditConfig, ContextConfig
from otel_audit.instrumentation.http_clients import HttpClientsAuditInstrumentor
from otel_audit.propagation import acceptance
from otel_audit.propagation.signed_context import NAME
from otel_audit.testing import capture_audit
from tests.collector.certificates import Certificates, make
from tests.propagation.servers import Listening, listening

SECRET = "a secret of the shop and of fulfilment"


class Tunnel:
    """A proxy on 127.0.0.1 that keeps what it can read, and tunnels whatever it is asked to."""

    def __init__(self, listener: socket.socket) -> None:
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.read: list[bytes] = []
        self.passed = b""

    def serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            self.read.append(head)
            host, _, port = head.split()[1].decode().rpartition(":")
            with socket.create_connection((host, int(port))) as server:
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                ends = {client: server, server: client}
                while True:
                    for end in select.select(list(ends), [], [])[0]:
                        data = end.recv(65536)
                        if not data:
                            return
                        self.passed += data
                        ends[end].sendall(data)


@contextmanager
def tunnelling() -> Iterator[Tunnel]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tunnel = Tunnel(listener)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=tunnel.serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield tunnel
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def by_urllib(url: str, authority: Path, proxy: str) -> None:
    trusted = ssl.create_default_context(cafile=authority)
    handlers = (
        urllib.request.ProxyHandler({"https": proxy} if proxy else {}),
        urllib.request.HTTPSHandler(context=trusted),
    )
    urllib.request.build_opener(*handlers).open(url).close()


def by_http_client(url: str, authority: Path, proxy: str) -> None:
    parts, trusted = urlsplit(url), ssl.create_default_context(cafile=authority)
    through = urlsplit(proxy or url)
    connection = http.client.HTTPSConnection(through.hostname or "", through.port, context=trusted)
    if proxy:
        connection.set_tunnel(parts.hostname or "", parts.port)
    connection.request("GET", parts.path)
    assert connection.getresponse().status == 200
    connection.close()


def by_urllib3(url: str, authority: Path, proxy: str) -> None:
    pool = urllib3.ProxyManager(proxy, ca_certs=str(authority)) if proxy else None
    with pool or urllib3.PoolManager(ca_certs=str(authority)) as manager:
        assert manager.request("GET", url).status == 200


def by_requests(url: str, authority: Path, proxy: str) -> None:
    with requests.Session() as session:
        session.trust_env = False
        assert session.get(url, verify=str(authority), proxies={"https": proxy} if proxy else {}).ok


def by_httpx(url: str, authority: Path, proxy: str) -> None:
    trusted = ssl.create_default_context(cafile=authority)
    with httpx.Client(proxy=proxy or None, trust_env=False, verify=trusted) as client:
        client.get(url).raise_for_status()


def by_httpx_async(url: str, authority: Path, proxy: str) -> None:
    async def call() -> None:
        trusted = ssl.create_default_context(cafile=authority)
        async with httpx.AsyncClient(proxy=proxy or None, trust_env=False, verify=trusted) as client:
            (await client.get(url)).raise_for_status()

    asyncio.run(call())


def by_aiohttp(url: str, authority: Path, proxy: str) -> None:
    async def call() -> None:
        trusted = ssl.create_default_context(cafile=authority)
        async with (
            aiohttp.ClientSession() as client,
            client.get(url, proxy=proxy or None, ssl=trusted) as response,
        ):
            assert response.status == 200

    asyncio.run(call())


CLIENTS = [by_urllib, by_http_client, by_urllib3, by_requests, by_httpx, by_httpx_async, by_aiohttp]
each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda each: each.__name__)
Client = Callable[..., Any]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def ours(certificates: Certificates) -> Iterator[Listening]:
    with listening(certificates) as server:
        context = ContextConfig(keys={"k1": SECRET}, propagate_to=[server.host])
        with capture_audit(AuditConfig(context=context)):
            HttpClientsAuditInstrumentor().uninstrument()
            HttpClientsAuditInstrumentor().instrument()
            try:
                yield server
            finally:
                HttpClientsAuditInstrumentor().uninstrument()


def accepted(server: Listening) -> bool:
    accepts = acceptance(AuditConfig(context=ContextConfig(keys={"k1": SECRET}, audience=[server.host])))
    assert accepts is not None
    [header] = server.baggage
    return accepts.accepted(header or "") is not None


@each_client
def test_a_service_is_told_over_tls(client: Client, ours: Listening, certificates: Certificates) -> None:
    with otel_audit.context(actor="7"):
        client(f"{ours.url}/orders", certificates.authority, "")
    assert accepted(ours)


@each_client
def test_a_service_behind_a_tunnel_is_told_and_the_proxy_reads_nothing(
    client: Client, ours: Listening, certificates: Certificates
) -> None:
    with tunnelling() as proxy, otel_audit.context(actor="7"):
        client(f"{ours.url}/orders", certificates.authority, proxy.url)
    assert accepted(ours)
    [head] = proxy.read
    assert head.startswith(b"CONNECT ")
    for secret in (NAME.encode(), b"eyJ", b"baggage"):
        assert secret not in head + proxy.passed


def test_a_tunnel_without_tls_inside_lets_the_proxy_read_so_nothing_is_told(
    certificates: Certificates,
) -> None:
    with listening() as plain, tunnelling() as proxy:
        context = ContextConfig(keys={"k1": SECRET}, propagate_to=[plain.host])
        with capture_audit(AuditConfig(context=context)), otel_audit.context(actor="7"):
            HttpClientsAuditInstrumentor().uninstrument()
            HttpClientsAuditInstrumentor().instrument()
            try:
                through, target = urlsplit(proxy.url), urlsplit(plain.url)
                connection = http.client.HTTPConnection(through.hostname or "", through.port)
                connection.set_tunnel(target.hostname or "", target.port)
                connection.request("GET", "/orders")
                assert connection.getresponse().status == 200
                connection.close()
            finally:
                HttpClientsAuditInstrumentor().uninstrument()
    assert plain.baggage == [None]
    assert b"eyJ" not in proxy.passed
