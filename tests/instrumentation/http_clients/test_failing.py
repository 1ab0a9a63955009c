"""A call that fails is recorded as failed, and the application gets the exception it would have got."""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests
import urllib3

from otel_audit.audit_record import Target
from otel_audit.config.sections.policy import PolicyRule
from otel_audit.errors import AuditError
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.testing import CapturedAudit
from tests.collector.certificates import make
from tests.instrumentation.http_clients.conftest import recording
from tests.instrumentation.http_clients.service import CLIENTS, Client, Service
from tests.propagation.servers import listening

each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda each: each.__name__)


def outcome_without_us(client: Client, url: str) -> type[BaseException] | None:
    try:
        client("GET", url)
    except Exception as error:  # noqa: BLE001 - the same with us as without
        return type(error)
    return None


@contextmanager
def failing(client: Client, url: str) -> Iterator[CapturedAudit]:
    """Call with and without us: the application gets the same."""
    expected = outcome_without_us(client, url)
    with recording() as captured:
        assert outcome_without_us(client, url) is expected
        assert expected is not None
        yield captured


@each_client
@pytest.mark.parametrize("path", ["/hangup", "/cutchunks", "/cut"])
def test_a_server_that_does_not_answer_in_full_is_a_failure(
    client: Client, service: Service, path: str
) -> None:
    with failing(client, f"{service.url}{path}") as captured:
        assert 2 * len(captured.records) == len(service.requests)  # aiohttp asks twice after a hang-up
        for record in captured:
            assert record.outcome == "failure"
            assert record.error
            assert record.attributes.get("http.response.status_code") == (None if path == "/hangup" else 200)
            assert record.attributes["url.full"] == f"{service.url}{path}"


@each_client
@pytest.mark.parametrize("path", ["/slow", "/slowly"])
def test_a_server_that_is_too_slow_is_a_failure(
    client: Client, service: Service, captured: CapturedAudit, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.instrumentation.http_clients.service.PATIENCE", 0.5)
    assert outcome_without_us(client, f"{service.url}{path}") is not None
    [record] = captured.records
    assert record.outcome == "failure"
    assert "Timeout" in record.error
    assert record.attributes["url.full"] == f"{service.url}{path}"


@each_client
def test_a_port_nobody_listens_on_is_a_failure(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with failing(client, f"http://127.0.0.1:{port}/orders") as captured:
        [record] = captured.records
        assert record.outcome == "failure"
        assert record.attributes["server.port"] == port
        assert "http.response.status_code" not in record.attributes


@each_client
def test_a_name_nobody_has_is_a_failure(client: Client) -> None:
    with failing(client, "http://nobody.invalid/orders") as captured:
        [record] = captured.records
        assert (record.outcome, record.target and record.target.id) == ("failure", "nobody.invalid")


@pytest.mark.parametrize(
    "client", [each for each in CLIENTS if each.__name__ != "by_http_client"], ids=lambda each: each.__name__
)
def test_a_certificate_nobody_knows_is_a_failure(client: Client, tmp_path: Path) -> None:
    with listening(make(tmp_path)) as server, failing(client, f"{server.url}/orders") as captured:
        [record] = captured.records
        assert record.outcome == "failure"
        assert record.error
        assert record.attributes["url.full"] == f"{server.url}/orders"
        assert not server.headers


def test_each_attempt_is_recorded(service: Service, captured: CapturedAudit) -> None:
    with urllib3.PoolManager() as pool, pytest.raises(urllib3.exceptions.MaxRetryError):
        pool.request("GET", f"{service.url}/status/503", retries=urllib3.Retry(2, status_forcelist=[503]))
    assert [record.error for record in captured] == ["503"] * 3
    assert len(service.requests) == 3


def test_a_request_nobody_asks_the_answer_of_is_unknown(service: Service, captured: CapturedAudit) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    connection.request("POST", "/orders", b"{}")
    connection.close()
    [record] = captured.records
    assert (record.outcome, record.error) == ("unknown", "")


@pytest.mark.parametrize("path", ["/slow", "/slowly"])
@pytest.mark.parametrize("library", ["httpx", "aiohttp"])
def test_a_cancelled_call_is_recorded_and_stays_cancelled(
    service: Service, captured: CapturedAudit, library: str, path: str
) -> None:
    async def by_httpx() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            await client.get(f"{service.url}{path}")

    async def by_aiohttp() -> None:
        async with aiohttp.ClientSession() as session, session.get(f"{service.url}{path}") as response:
            await response.read()

    async def cancelled() -> None:
        task = asyncio.create_task({"httpx": by_httpx, "aiohttp": by_aiohttp}[library]())
        while not service.requests:  # noqa: ASYNC110 - of another thread
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    [record] = captured.records
    assert (record.outcome, record.error) == ("failure", "CancelledError")


@each_client
def test_a_call_that_is_killed_midway_leaves_a_record_where_a_rule_asks_for_it(
    client: Client, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = PolicyRule(kind="outgoing", path="/orders*", level="metadata", stages=["start", "end"])
    with recording(rule) as captured:
        intended = []
        intend = AuditLogger.intend
        monkeypatch.setattr(
            AuditLogger, "intend", lambda logger, records: intended.extend(records) or intend(logger, records)
        )
        client("GET", f"{service.url}/orders")
        client("GET", f"{service.url}/other")
    [begun] = intended
    assert (begun.outcome, begun.attributes["url.full"]) == ("unknown", f"{service.url}/orders")
    done, other = captured.records
    assert (done.id, done.outcome) == (begun.id, "success")
    assert done.attributes["http.response.status_code"] == 200
    assert other.outcome == "success"


def test_a_proxy_that_makes_no_tunnel_is_a_failure(captured: CapturedAudit) -> None:
    with listening() as proxy, requests.Session() as session:
        session.trust_env = False
        with pytest.raises(requests.exceptions.ProxyError):
            session.get("https://fulfilment.invalid/orders", proxies={"https": proxy.url}, timeout=5)
    [record] = captured.records
    assert (record.outcome, record.error) == ("failure", "OSError")
    assert record.target == Target("http.host", "fulfilment.invalid")
    assert record.attributes["http.request.method"] == "CONNECT"


@each_client
def test_under_fail_closed_no_request_leaves_that_could_not_be_recorded(
    client: Client, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("a fault of ours")

    with recording(on_error="fail_closed"):
        monkeypatch.setattr("otel_audit.http.outgoing.calls.moment", fail)
        with pytest.raises(AuditError):
            client("GET", service.url)
    assert not service.requests
