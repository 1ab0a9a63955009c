"""Beside OpenTelemetry's own instrumentations, beside mocks, and beside what the application wraps itself."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any, Final

import aiohttp
import httpcore
import httpx
import pytest
import requests
import responses
import respx
import urllib3
from opentelemetry.instrumentation.utils import suppress_http_instrumentation, suppress_instrumentation
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_audit.instrumentation.http_clients import HttpClientsAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests.instrumentation.http_clients.conftest import recording
from tests.instrumentation.http_clients.service import (
    CLIENTS,
    Client,
    Service,
    by_aiohttp,
    by_httpx,
    by_httpx_async,
    by_requests,
    by_urllib,
    by_urllib3,
)

each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda each: each.__name__)
SPANS_OF: Final[dict[str, set[Client]]] = {
    "httpx": {by_httpx, by_httpx_async},
    "requests": {by_requests},
    # Of these the newest release is a step behind the others, and asks for another version of the rest: they
    # are not pinned, and tried wherever they are installed.
    "aiohttp-client": {by_aiohttp},
    "urllib": {by_urllib},
    "urllib3": {by_urllib3},
}
"""OpenTelemetry's instrumentations of clients, by name, and whose calls they make spans of."""
INSTALLED: Final = [
    each for each in entry_points(group="opentelemetry_instrumentor") if each.name in SPANS_OF
]
THEIRS: Final[list[type[Any]]] = [each.load() for each in INSTALLED]


def attributes() -> dict[str, object]:
    """Return everything that we or OpenTelemetry might wrap."""
    owners = (
        http.client.HTTPConnection,
        http.client.HTTPResponse,
        urllib.request.OpenerDirector,
        urllib3.connectionpool.HTTPConnectionPool,
        urllib3.response.HTTPResponse,
        requests.Session,
        httpx.HTTPTransport,
        httpx.AsyncHTTPTransport,
        httpcore.ConnectionPool,
        httpcore.AsyncConnectionPool,
        aiohttp.ClientSession,
        aiohttp.ClientRequest,
        aiohttp.ClientResponse,
        aiohttp.BaseConnector,
    )
    return {
        f"{owner.__module__}.{owner.__qualname__}.{name}": value
        for owner in owners
        for name, value in vars(owner).items()
        if callable(value)
    }


class Theirs:
    """OpenTelemetry's instrumentations of the clients, and the spans they make."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self._provider = TracerProvider()
        self._provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def instrument(self) -> None:
        for each in THEIRS:
            each().instrument(tracer_provider=self._provider, skip_dep_check=True)

    def uninstrument(self) -> None:
        for each in THEIRS:
            each().uninstrument()


@pytest.fixture
def theirs() -> Iterator[Theirs]:
    theirs = Theirs()
    yield theirs
    for each in THEIRS:
        if each().is_instrumented_by_opentelemetry:
            each().uninstrument()


@each_client
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_a_call_has_one_record_beside_opentelemetry(
    client: Client, service: Service, theirs: Theirs, first: str
) -> None:
    before = attributes()
    if first == "theirs":
        theirs.instrument()
    with recording() as captured:
        if first == "ours":
            theirs.instrument()
        assert client("GET", f"{service.url}/orders").status == 200
        [record] = captured.records
        spans = theirs.exporter.get_finished_spans()
        if any(client in SPANS_OF[each.name] for each in INSTALLED):
            assert [record.span_id] == [f"{span.context.span_id:016x}" for span in spans]
        if first == "ours":
            theirs.uninstrument()
            assert client("GET", f"{service.url}/orders").status == 200
            assert len(captured.records) == 2
    if first == "theirs":
        assert client("GET", f"{service.url}/orders").status == 200
        assert len(captured.records) == 1
        theirs.uninstrument()
    assert attributes() == before


@each_client
def test_whoever_suppresses_http_spans_is_recorded_and_the_pipeline_itself_is_not(
    client: Client, service: Service, captured: CapturedAudit
) -> None:
    with suppress_http_instrumentation():  # as OpenTelemetry does for what happens inside a call
        client("GET", service.url)
    assert len(captured.records) == 1
    with suppress_instrumentation():  # as all exporters do
        client("GET", service.url)
    assert len(captured.records) == 1


def test_exporters_of_the_sdk_are_not_recorded(service: Service, captured: CapturedAudit) -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{service.url}/v1/traces", timeout=2)))
    with provider.get_tracer("shop").start_as_current_span("work"):
        pass
    provider.force_flush(5000)
    provider.shutdown()
    assert "POST /v1/traces" in service.requests
    assert not captured.records


def test_our_own_sender_and_store_are_not_recorded(service: Service, captured: CapturedAudit) -> None:
    from otel_audit.config.model import SinkConfig
    from otel_audit.pipeline.delivery.otlp_http import Transport
    from otel_audit.store.client import StoreClient

    Transport(SinkConfig(endpoint=service.url)).send(b"")
    StoreClient(service.url).query("SELECT 1")
    assert len(service.requests) == 2
    assert not captured.records


def test_mocks_of_requests_work(captured: CapturedAudit) -> None:
    with responses.RequestsMock() as mocked:
        mocked.get("http://nobody.invalid/orders", json={"id": 7})
        assert requests.get("http://nobody.invalid/orders", timeout=1).json() == {"id": 7}
    assert not captured.records  # nothing left the process


def test_mocks_of_httpx_work(captured: CapturedAudit) -> None:
    with respx.mock:
        respx.get("http://nobody.invalid/orders").respond(json={"id": 7})
        assert httpx.get("http://nobody.invalid/orders").json() == {"id": 7}
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"id": 7}))
    assert httpx.Client(transport=transport).get("http://nobody.invalid/orders").json() == {"id": 7}
    assert not captured.records


def test_hooks_and_adapters_of_the_application_go_on(service: Service, captured: CapturedAudit) -> None:
    seen: list[object] = []

    class Adapter(requests.adapters.HTTPAdapter):
        def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
            seen.append("adapter")
            return super().send(request, *args, **kwargs)

    with requests.Session() as session:
        session.mount("http://", Adapter())
        session.hooks["response"].append(lambda response, *args, **kwargs: seen.append(response.status_code))
        session.get(service.url, timeout=5)
    hooks = {
        "request": [lambda request: seen.append("request")],
        "response": [lambda r: seen.append(r.read())],
    }
    with httpx.Client(trust_env=False, event_hooks=hooks) as client:
        client.get(service.url)
    assert seen[:3] == ["adapter", 200, "request"]
    assert b"granted" in seen[3]  # type: ignore[operator]
    assert len(captured.records) == 2


@pytest.mark.parametrize("fails", ["begin", "_record"])
@each_client
def test_a_fault_of_ours_costs_a_record_and_nothing_else(
    client: Client, service: Service, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    from otel_audit.http.outgoing import calls

    def fail(*args: object) -> None:
        raise RuntimeError("a fault of ours")

    name = {"begin": "moment", "_record": "_outcome"}[fails]
    with recording() as captured:
        monkeypatch.setattr(calls, name, fail)
        assert client("POST", f"{service.url}/chunked", b"{}").status == 200
        assert not captured.records
        monkeypatch.undo()
        client("GET", service.url)
        assert len(captured.records) == 1


def test_nothing_is_wrapped_unless_calls_are_recorded() -> None:
    before = attributes()
    instrumentor = HttpClientsAuditInstrumentor()
    from otel_audit.config.model import AuditConfig
    from tests.audited import audited

    with audited(instrumentor, AuditConfig()):
        assert attributes() == before
