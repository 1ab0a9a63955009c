"""Responses without an end, and those that the application leaves: recorded, and never read for us."""

from __future__ import annotations

import asyncio
import gc
import http.client
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import requests
import urllib3

import otel_audit
from otel_audit.audit_record import AuditRecord
from otel_audit.config.sections.policy import PolicyRule
from otel_audit.http.outgoing import call as calls
from otel_audit.http.outgoing import calls as outgoing
from otel_audit.testing import CapturedAudit
from tests.instrumentation.http_clients.conftest import recording
from tests.instrumentation.http_clients.service import CLIENTS, Client, Service

BOTH = PolicyRule(kind="outgoing", path="*", level="request_response")


def first_part(library: str, url: str) -> bytes:
    """Read the first part of a response, and leave it."""
    if library == "requests":
        with requests.get(url, stream=True, timeout=5) as response:
            return next(response.iter_content(10))
    if library == "urllib3":
        with urllib3.PoolManager() as pool:
            raw = pool.request("GET", url, preload_content=False, timeout=5)
            part: bytes = next(raw.stream(10))
            raw.close()
            return part
    if library == "http.client":
        connection = http.client.HTTPConnection(url.split("/")[2], timeout=5)
        connection.request("GET", "/" + url.split("/", 3)[3])
        part = connection.getresponse().read(10)
        connection.close()
        return part
    if library == "httpx":
        with httpx.Client(trust_env=False) as client, client.stream("GET", url) as answer:
            return next(answer.iter_raw(10))

    async def by_httpx() -> bytes:
        async with httpx.AsyncClient(trust_env=False) as client, client.stream("GET", url) as response:
            async for part in response.aiter_raw(10):
                return part
        return b""

    async def by_aiohttp() -> bytes:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return await response.content.readexactly(10)

    return asyncio.run({"httpx async": by_httpx, "aiohttp": by_aiohttp}[library]())


LIBRARIES = ["requests", "urllib3", "http.client", "httpx", "httpx async", "aiohttp"]
each_library = pytest.mark.parametrize("library", LIBRARIES)


@each_library
def test_a_stream_of_events_is_recorded_as_it_begins(service: Service, library: str) -> None:
    with recording(BOTH) as captured:
        assert first_part(library, f"{service.url}/events") == b"data: s3cr"
    [record] = captured.records
    assert (record.outcome, record.attributes["response.state"]) == ("success", "open")
    assert "s3cret" not in str(record.attributes)


@each_library
def test_a_response_that_is_left_is_recorded(service: Service, library: str) -> None:
    with recording(BOTH) as captured:
        assert first_part(library, f"{service.url}/endless") == b"x" * 10
    [record] = captured.records
    assert (record.outcome, record.attributes["response.state"]) == ("success", "closed")


def test_an_endless_response_does_not_wait_for_its_end(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_PATIENCE", 0)
    with (
        recording(BOTH) as captured,
        requests.get(f"{service.url}/endless", stream=True, timeout=5) as response,
    ):
        parts = response.iter_content(1000)
        for _ in range(3):
            assert next(parts) == b"x" * 1000
        [record] = captured.records
        assert record.attributes["response.state"] == "open"
        for _ in range(3):
            assert next(parts) == b"x" * 1000
        assert len(captured.records) == 1


def test_a_response_nobody_reads_is_recorded_at_the_latest_when_it_is_collected(service: Service) -> None:
    with recording() as captured:
        connection = http.client.HTTPConnection("127.0.0.1", service.port)
        connection.request("GET", "/large/1000")
        response = connection.getresponse()
        assert not captured.records
        del response, connection
        gc.collect()
        [record] = captured.records
        assert record.outcome == "success"
        assert record.attributes["http.response.body.size"] == 1000


def test_responses_that_are_open_when_recording_ends_are_recorded(service: Service) -> None:
    with recording() as captured:
        connection = http.client.HTTPConnection("127.0.0.1", service.port)
        connection.request("GET", "/large/1000")
        response = connection.getresponse()
    assert [record.attributes["response.state"] for record in captured] == ["open"]
    assert len(response.read()) == 1000
    connection.close()
    assert len(captured.records) == 1


def test_a_forked_child_does_not_record_the_call_of_its_parent(
    service: Service, captured: CapturedAudit
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    connection.request("GET", "/large/10")
    response = connection.getresponse()
    child = os.fork()
    if not child:
        try:
            response.close()
            connection.close()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not captured.records
    assert response.read() == b"more of it"
    connection.close()
    assert len(captured.records) == 1


@pytest.mark.parametrize("client", CLIENTS, ids=lambda each: each.__name__)
def test_threads_record_each_call_once_and_as_their_own(
    client: Client, service: Service, captured: CapturedAudit
) -> None:
    def call(number: int) -> None:
        with otel_audit.context(slug=f"call-{number}"):
            client("GET", f"{service.url}/orders?number={number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, range(20)))
    assert sorted(told(record) for record in captured) == sorted((f"call-{n}", n) for n in range(20))


@pytest.mark.parametrize("library", ["httpx", "aiohttp"])
def test_tasks_of_one_loop_record_each_call_once_and_as_their_own(
    service: Service, captured: CapturedAudit, library: str
) -> None:
    async def call(session: Any, number: int) -> None:
        with otel_audit.context(slug=f"call-{number}"):
            url = f"{service.url}/orders?number={number}"
            if library == "httpx":
                await session.get(url)
            else:
                async with session.get(url) as response:
                    await response.json()

    async def all_of_them() -> None:
        session = httpx.AsyncClient(trust_env=False) if library == "httpx" else aiohttp.ClientSession()
        async with session:
            await asyncio.gather(*(call(session, number) for number in range(20)))

    asyncio.run(all_of_them())
    assert sorted(told(record) for record in captured) == sorted((f"call-{n}", n) for n in range(20))


def told(record: AuditRecord) -> tuple[str, int]:
    return record.slug, int(record.attributes["url.full"].partition("number=")[2])


@pytest.mark.parametrize("within", ["moment", "_outcome"])
def test_a_signal_handler_may_call_while_a_call_is_noted(
    service: Service, captured: CapturedAudit, within: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled = []

    def handler(signum: int, frame: object) -> None:
        if not handled:
            handled.append(signum)
            requests.get(f"{service.url}/orders?number=2", timeout=60)

    original = getattr(outgoing, within)

    def interrupted(*args: Any) -> Any:
        signal.raise_signal(signal.SIGUSR1)
        return original(*args)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        monkeypatch.setattr(outgoing, within, interrupted)
        requests.get(f"{service.url}/orders?number=1", timeout=60)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert sorted(told(record) for record in captured) == [("", 1), ("", 2)]


PROGRAM = """
import http.client, sys
import otel_audit
from otel_audit.config.model import AuditConfig, OutgoingConfig, SinkConfig, SpoolConfig

spool, sink = SpoolConfig(directory="spool"), SinkConfig(shutdown_timeout=0)
otel_audit.setup(AuditConfig(spool=spool, sink=sink, outgoing=OutgoingConfig(enabled=True)))
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
connection.request("GET", "/large/1000")
response = connection.getresponse()
"""


def test_a_response_that_is_open_when_its_process_ends_is_recorded(service: Service, tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "DJANGO_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(service.port)],
        cwd=tmp_path,
        env=environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Exception ignored" not in done.stderr
    kept = b"".join(each.read_bytes() for each in (tmp_path / "spool").rglob("*") if each.is_file())
    assert kept.count(b"http.client.request") == 1
