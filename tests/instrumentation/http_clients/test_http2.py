"""Calls of httpx by HTTP/2, many at a time on one connection, to a real server: each has its own record."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config

import otel_audit
from otel_audit.config.sections.policy import PolicyRule
from otel_audit.testing import CapturedAudit
from tests.collector.certificates import Certificates, make
from tests.instrumentation.http_clients.conftest import recording
from tests.services import free_port, wait_until

JSON = {"Content-Type": "application/json"}


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the body and the version of HTTP; ``/endless`` goes on for ten seconds."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    endless = scope["path"] == "/endless"
    headers = [(b"content-type", b"application/json"), (b"x-token", b"s3cret-header")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(1000 if endless else 0):  # nobody tells an application of hypercorn that its client left
        await send({"type": "http.response.body", "body": b"x" * 100, "more_body": True})
        await asyncio.sleep(0.01)
    answer = {"version": scope["http_version"], "got": body.decode(), "password": "s3cret-in-answer"}
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


class Running:
    """A server of HTTP/2 in a thread."""

    def __init__(self, certificates: Certificates) -> None:
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.trusted = ssl.create_default_context(cafile=certificates.authority)
        self._config = Config()
        self._config.bind = [f"127.0.0.1:{self.port}"]
        self._config.certfile, self._config.keyfile = str(certificates.certificate), str(certificates.key)
        self._config.accesslog = self._config.errorlog = None
        self._config.graceful_timeout = 0.1
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        self._loop.run_until_complete(serve(echo, self._config, shutdown_trigger=self._over.wait))
        self._loop.close()

    def begin(self) -> None:
        self._thread.start()
        wait_until(self._answers, 30, "the server answers")

    def _answers(self) -> bool:
        try:
            return httpx.get(self.url, verify=self.trusted, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def client(self) -> httpx.Client:
        return httpx.Client(http1=False, http2=True, verify=self.trusted, trust_env=False, timeout=30)

    def async_client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(http1=False, http2=True, verify=self.trusted, trust_env=False, timeout=30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(make(Path(tmp_path_factory.mktemp("certificates"))))
    running.begin()
    yield running
    running.end()


def test_a_call_by_http_2_is_recorded_once_with_headers_and_bodies(server: Running) -> None:
    with (
        recording(PolicyRule(path="/orders*", level="request_response")) as captured,
        server.client() as client,
        otel_audit.context(slug="pay-invoice", related=["shop.Order/7"]),
    ):
        content = b'{"id": 7, "password": "s3cret-sent"}'
        answer = client.post(f"{server.url}/orders?token=s3cret-query", content=content, headers=JSON)
        assert answer.json()["version"] == "2"
        [record] = captured.records
    assert (record.outcome, record.slug) == ("success", "pay-invoice")
    attributes = record.attributes
    assert attributes["url.full"] == f"{server.url}/orders?token=[redacted]"
    assert attributes["http.response.status_code"] == 200
    assert attributes["http.request.body.size"] == len(content)
    assert attributes["http.response.body.size"] == len(answer.content)
    assert attributes["request.body"] == {"id": 7, "password": "[redacted]"}
    got = '{"id":7,"password":"[redacted]"}'
    assert attributes["response.body"] == {"version": "2", "got": got, "password": "[redacted]"}
    assert attributes["http.response.header.x-token"] == "[redacted]"
    assert "s3cret" not in str(record)


def test_calls_beside_each_other_on_one_connection_are_recorded_each_as_its_own(
    server: Running, captured: CapturedAudit
) -> None:
    async def call(client: httpx.AsyncClient, number: int) -> None:
        with otel_audit.context(slug=f"call-{number}"):
            answer = await client.post(f"{server.url}/orders/{number}", content=str(number))
        assert (answer.json()["got"], answer.http_version) == (str(number), "HTTP/2")

    async def calls() -> None:
        async with server.async_client() as client:
            await asyncio.gather(*(call(client, number) for number in range(40)))

    asyncio.run(calls())
    told = {
        (record.slug, str(record.attributes["url.full"]).rpartition("/")[2]) for record in captured.records
    }
    assert told == {(f"call-{number}", str(number)) for number in range(40)}
    assert len(captured.records) == 40


def test_a_call_that_is_left_says_so_and_the_others_go_on(server: Running, captured: CapturedAudit) -> None:
    async def leave() -> None:
        async with server.async_client() as client:
            async with client.stream("GET", f"{server.url}/endless") as response:
                async for _ in response.aiter_bytes():
                    break
            assert (await client.get(f"{server.url}/orders")).status_code == 200
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.get(f"{server.url}/endless")
            assert (await client.get(f"{server.url}/orders")).status_code == 200

    asyncio.run(leave())
    told = [
        (record.outcome, record.attributes.get("response.state"), record.error) for record in captured.records
    ]
    assert told == [
        ("success", "closed", ""),
        ("success", None, ""),
        ("failure", None, "CancelledError"),
        ("success", None, ""),
    ]
