"""Beside OpenTelemetry's own instrumentation, under uvicorn, and with frameworks not instrumented by us."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from flask import Flask, abort, stream_with_context
from litestar import Litestar, get
from litestar.exceptions import NotAuthorizedException
from opentelemetry import baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.propagate import get_global_textmap, set_global_textmap
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import otel_audit
from otel_audit.audit_record import Actor, Target
from otel_audit.config.model import AuditConfig, ContextConfig
from otel_audit.instrumentation.starlette import StarletteAuditInstrumentor
from otel_audit.propagation import ActorSpanProcessor
from otel_audit.propagation.signed_context import NAME
from otel_audit.testing import CapturedAudit, capture_audit
from tests.instrumentation.starlette.conftest import Instrumented
from tests.instrumentation.starlette.serving import serving


def note(name: str = "note") -> None:
    otel_audit.record(f"ship.{name}", "NOTE")


# --- OpenTelemetry's -----------------------------------------------------------------------------


@pytest.mark.parametrize("ours_first", [True, False])
def test_the_span_of_the_request_is_that_of_its_records_in_either_order(ours_first: bool) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(ActorSpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = FastAPI()

    @app.get("/ships/{number}")
    async def ship(number: int) -> None:
        otel_audit.set_actor("alice")
        note()
        raise HTTPException(403)

    with capture_audit(AuditConfig()) as audit:
        ours = StarletteAuditInstrumentor()
        if ours_first:
            ours.instrument()
        FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
        if not ours_first:
            ours.instrument()
        try:
            assert TestClient(app).get("/ships/7").status_code == 403
        finally:
            ours.uninstrument()
            FastAPIInstrumentor.uninstrument_app(app)
        [span] = [each for each in exporter.get_finished_spans() if each.kind is SpanKind.SERVER]
        assert span.context is not None
        for name in ("ship.note", "http.request.denied"):
            record = audit.one(event_name=name)
            assert record.span_id == f"{span.context.span_id:016x}"
            assert record.actor == Actor("alice", "user")
        assert span.attributes is not None
        assert span.attributes["audit.actor.id"] == "alice"


@contextmanager
def global_propagator(propagator: TextMapPropagator) -> Iterator[None]:
    before = get_global_textmap()
    set_global_textmap(propagator)
    try:
        yield
    finally:
        set_global_textmap(before)


@pytest.mark.parametrize("ours_first", [True, False])
def test_baggage_of_a_peer_under_our_names_does_not_go_on(ours_first: bool) -> None:
    """OpenTelemetry's middleware reads it inside ours, by a propagator that was set after audit started."""
    app = FastAPI()
    seen: list[dict[str, object]] = []

    @app.get("/")
    def index() -> None:
        seen.append(dict(baggage.get_all()))

    with capture_audit(AuditConfig()), global_propagator(W3CBaggagePropagator()):
        ours = StarletteAuditInstrumentor()
        if ours_first:
            ours.instrument()
        FastAPIInstrumentor.instrument_app(app, tracer_provider=TracerProvider())
        if not ours_first:
            ours.instrument()
        try:
            TestClient(app).get("/", headers={"baggage": f"theirs=kept,{NAME}=x.y.z,audit.actor.id=7"})
        finally:
            ours.uninstrument()
            FastAPIInstrumentor.uninstrument_app(app)
    assert seen == [{"theirs": "kept"}]
    assert not baggage.get_all()


def test_the_ids_of_a_request_are_in_the_baggage_of_the_process_if_asked(instrumented: Instrumented) -> None:
    app = FastAPI()
    seen: list[dict[str, object]] = []

    @app.get("/")
    def index() -> None:
        otel_audit.set_actor("alice")
        seen.append(dict(baggage.get_all()))
        headers: dict[str, str] = {}
        W3CBaggagePropagator().inject(headers)
        assert "alice" not in str(headers)

    with instrumented(context=ContextConfig(baggage="process")):
        FastAPIInstrumentor.instrument_app(app, tracer_provider=TracerProvider())
        try:
            TestClient(app).get("/", headers={"baggage": "theirs=kept"})
        finally:
            FastAPIInstrumentor.uninstrument_app(app)
    [names] = seen
    assert names["audit.actor.id"] == "alice"
    assert names["theirs"] == "kept"
    assert not baggage.get_all()


# --- uvicorn -------------------------------------------------------------------------------------


@pytest.mark.parametrize("proxy_headers", [True, False])
def test_the_source_is_the_peer_of_the_socket_though_uvicorn_believes_a_header(
    audit: CapturedAudit, proxy_headers: bool
) -> None:
    seen: list[str] = []

    async def page(request: Request) -> Response:
        assert request.client is not None
        seen.append(request.client.host)
        note()
        return PlainTextResponse("")

    with serving(Starlette(routes=[Route("/", page)]), proxy_headers=proxy_headers) as address:
        httpx.get(f"http://{address}/", headers={"X-Forwarded-For": "198.51.100.1"})
    assert seen == ["198.51.100.1" if proxy_headers else "127.0.0.1"], "the application sees what it saw"
    assert audit.one(event_name="ship.note").source.id == "127.0.0.1"


def test_a_client_that_goes_away_does_not_take_its_name_along(audit: CapturedAudit) -> None:
    done = threading.Event()

    async def page(request: Request) -> Response:
        otel_audit.set_actor("alice")

        async def body() -> Any:
            try:
                yield b"a"
                await asyncio.Event().wait()  # Starlette cancels the body of a client that is gone
            finally:
                note()
                done.set()

        return StreamingResponse(body())

    with serving(Starlette(routes=[Route("/ships/{id}", page)])) as address:
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"GET /ships/7 HTTP/1.1\r\nHost: x\r\n\r\n")
            connection.recv(1024)
        assert done.wait(30)
    record = audit.one(event_name="ship.note")
    assert record.actor == Actor("alice", "user")
    assert record.request.route == "/ships/{id}"


# --- other frameworks ----------------------------------------------------------------------------


def test_litestar_by_the_asgi_middleware() -> None:
    @get("/ships/{number:int}")
    async def ship(number: int) -> str:
        otel_audit.set_actor("alice")
        note()
        return "ship"

    @get("/private")
    async def private() -> str:
        raise NotAuthorizedException

    app: Any = otel_audit.ASGIAuditMiddleware(Litestar([ship, private]))

    async def visit() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as calls:
            assert (await calls.get("/ships/7")).text == "ship"
            assert (await calls.get("/private")).status_code == 401

    with capture_audit(AuditConfig()) as audit:
        asyncio.run(visit())
        record = audit.one(event_name="ship.note")
        assert record.actor == Actor("alice", "user")
        assert (record.request.route, record.request.path) == ("/ships/{number}", "/ships/7")
        assert record.request.view.endswith(".ship")
        denied = audit.one(event_name="http.request.denied")
        assert (denied.target, denied.error) == (Target("http.route", "/private"), "401")
        assert denied.actor.id == "anonymous"


def test_flask_by_the_wsgi_middleware() -> None:
    app = Flask(__name__)

    @app.get("/ships/<int:number>")
    def ship(number: int) -> Any:
        otel_audit.set_actor("alice")
        note()

        def body() -> Iterator[str]:
            note("stream")
            yield json.dumps(number)

        return stream_with_context(body())

    @app.get("/private")
    def private() -> str:
        abort(403)

    app.wsgi_app = otel_audit.WSGIAuditMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    with capture_audit(AuditConfig()) as audit:
        calls = app.test_client()
        assert calls.get("/ships/7", environ_base={"REMOTE_ADDR": "192.0.2.7"}).text == "7"
        assert calls.get("/private").status_code == 403
        record, stream = audit.one(event_name="ship.note"), audit.one(event_name="ship.stream")
        assert record.actor == stream.actor == Actor("alice", "user")
        assert record.request == stream.request
        assert (record.request.route, record.request.path) == ("/ships/<int:number>", "/ships/7")
        assert record.request.view.endswith(".<locals>.ship")
        assert record.source.id == "192.0.2.7"
        assert audit.one(event_name="http.request.denied").target == Target("http.route", "/private")


async def asynchronous(request: Any) -> str:
    return "alice"


def test_a_function_that_nobody_calls_for_us_must_be_a_plain_one(caplog: pytest.LogCaptureFixture) -> None:
    async def page(request: Request) -> Response:
        note()
        return PlainTextResponse("")

    app: Any = otel_audit.ASGIAuditMiddleware(Starlette(routes=[Route("/", page)]))
    context = ContextConfig(actor_from=f"{__name__}:asynchronous")
    with capture_audit(AuditConfig(context=context)) as audit:
        assert TestClient(app).get("/").status_code == 200
        assert audit.one(event_name="ship.note").actor.id == "anonymous"
    assert "is not a plain function" in caplog.text


def test_the_middleware_passes_everything_on_while_audit_is_not_running() -> None:
    app: Any = otel_audit.ASGIAuditMiddleware(
        Starlette(routes=[Route("/", lambda _: PlainTextResponse("x"))])
    )
    assert TestClient(app).get("/").text == "x"
