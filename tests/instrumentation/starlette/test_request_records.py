"""The record of each request to Starlette and FastAPI, and to others in our ASGI and WSGI middleware."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request, UploadFile, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from flask import Flask
from flask import request as flask_request
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.websockets import WebSocketDisconnect

import otel_audit
from otel_audit.audit_record import Actor, AuditRecord, Target
from otel_audit.config.model import AuditConfig, RequestsConfig
from otel_audit.config.sections.policy import PolicyRule
from otel_audit.http.asgi import Message, Scope
from otel_audit.testing import CapturedAudit, capture_audit
from tests.instrumentation.starlette.conftest import Instrumented

EVENT = "http.server.request"
SECRET = "hunter2"
Recorded = Callable[..., AbstractContextManager[CapturedAudit]]


def everything(**conditions: Any) -> PolicyRule:
    return PolicyRule(level="request_response", **(conditions or {"path": "*"}))


@pytest.fixture
def recorded(instrumented: Instrumented) -> Recorded:
    """Instrument with requests recorded, by rules of the test's own."""

    @contextmanager
    def record(*rules: PolicyRule, **options: Any) -> Iterator[CapturedAudit]:
        config = {"requests": RequestsConfig(enabled=True, **options), "policy": list(rules)}
        with instrumented(config=config) as captured:
            yield captured

    return record


@pytest.fixture
def audit(recorded: Recorded) -> Iterator[CapturedAudit]:
    with recorded() as captured:
        yield captured


def request_of(captured: CapturedAudit) -> AuditRecord:
    return captured.one(event_name=EVENT)


def client(app: Any, **options: Any) -> TestClient:
    return TestClient(app, **options)


def shop() -> FastAPI:
    """An application with an endpoint of each kind."""
    app = FastAPI()

    @app.post("/cards/{pk}", status_code=201)
    async def card(pk: int, given: dict[str, Any]) -> dict[str, Any]:
        otel_audit.set_actor("alice")
        otel_audit.record("shop.note", "NOTE")
        return {"card": pk, "token": "tok_hunter2", "given": given}

    @app.get("/boom")
    async def boom() -> None:
        raise LookupError("no such card, password=hunter2")

    @app.get("/boom-sync")
    def boom_sync() -> None:
        raise LookupError("no such card, password=hunter2")

    @app.get("/missing")
    def missing() -> None:
        raise HTTPException(404)

    @app.post("/unread")
    async def unread() -> str:
        return "ok"

    @app.post("/form")
    async def form(request: Request) -> list[str]:
        async with request.form() as fields:
            return list(fields)

    @app.post("/upload")
    async def upload(scan: UploadFile) -> int:
        return len(await scan.read())

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body(), media_type=request.headers.get("content-type"))

    @app.get("/exported")
    async def exported(fails: bool = False) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one,hunter2\n"
            if fails:
                raise LookupError("midway")
            yield b"two\n"

        return StreamingResponse(pieces(), media_type="text/csv")

    @app.websocket("/talk")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        said = await websocket.receive_text()
        if said == "refuse":
            await websocket.close(1008)
            return
        await websocket.send_text(said)

    @app.get("/annotated/{pk}")
    async def annotated(pk: int) -> None:
        otel_audit.annotate(slug="said-inside", event_code="E7", deck="upper")
        otel_audit.relate(f"shop.Card/{pk}")

    @app.get("/exempt")
    @otel_audit.audit_exempt
    async def exempt() -> None:
        otel_audit.record("shop.note", "NOTE")

    @app.post("/marked/{pk}")
    @otel_audit.audit_request(
        slug="pay", level="request_response", related=["shop.Card/{pk}", Target("a", "1")]
    )
    def marked(pk: int, given: dict[str, Any]) -> dict[str, Any]:
        return given

    @app.post("/hidden")
    @otel_audit.audit_request(hide_body=True)
    async def hidden(given: dict[str, Any]) -> dict[str, Any]:
        return given

    return app


# --- what stands in it ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/cards/7", "/unread"])
def test_a_request_that_is_on_record_is_let_go_of(recorded: Recorded, path: str) -> None:
    """Else it is kept, with its bodies, until Python looks for cycles."""
    known: list[weakref.ref[Any]] = []
    app = shop()

    async def serve() -> None:
        class Receiving:
            async def __call__(self) -> Message:
                return {"type": "http.request", "body": b'{"note": "private"}', "more_body": False}

        async def send(message: Message) -> None:
            assert message.get("status", 200) < 400

        receive = Receiving()
        known.append(weakref.ref(receive))
        headers = [(b"content-type", b"application/json"), (b"host", b"shop.example")]
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": headers,
            "query_string": b"",
        }
        await app(scope, receive, send)

    with recorded(everything()) as captured:
        gc.collect()
        gc.disable()
        try:
            asyncio.run(serve())
            assert [reference() for reference in known] == [None]
        finally:
            gc.enable()
    assert request_of(captured).attributes["http.response.status_code"] in (200, 201)


def test_nothing_is_recorded_unless_it_is_switched_on(instrumented: Instrumented) -> None:
    with instrumented() as captured:
        client(shop()).get("/missing")
    assert not captured.find(event_name=EVENT)


def test_a_request_is_on_record_with_all_but_headers_and_bodies(audit: CapturedAudit) -> None:
    response = client(shop(), base_url="https://ship.example:8443").post(
        "/cards/7?page=2&token=hunter2", json={"password": SECRET}, headers={"user-agent": "Browser/1"}
    )
    record = request_of(audit)
    assert (record.action, record.outcome, record.log, record.error) == ("REQUEST", "success", "activity", "")
    assert record.actor == Actor("alice", "user")
    assert record.target == Target("http.route", "/cards/{pk}")
    assert (record.request.method, record.request.path) == ("POST", "/cards/7")
    assert record.request.view.endswith("shop.<locals>.card")
    assert record.request.id == audit.one(event_name="shop.note").request.id
    assert record.source.user_agent == "Browser/1"
    attributes = record.attributes
    assert attributes.pop("duration") > 0
    assert attributes == {
        "url.scheme": "https",
        "server.address": "ship.example",
        "server.port": 8443,
        "url.query": "page=2&token=[redacted]",
        "http.response.status_code": 201,
        "http.request.body.size": 22,
        "http.response.body.size": len(response.content),
    }


@pytest.mark.parametrize("path", ["/boom", "/boom-sync"])
def test_an_exception_that_nobody_handled_is_on_record(audit: CapturedAudit, path: str) -> None:
    with pytest.raises(LookupError):
        client(shop()).get(path)
    record = request_of(audit)
    assert (record.outcome, record.error) == ("failure", "LookupError")
    assert record.attributes["exception.type"] == "LookupError"
    assert "test_request_records" in record.attributes["exception.stacktrace"]
    assert record.attributes["http.response.status_code"] == 500
    audit.assert_no_secrets(SECRET)


def test_an_exception_that_is_an_answer_is_none(audit: CapturedAudit) -> None:
    client(shop()).get("/missing")
    record = request_of(audit)
    assert (record.error, record.attributes.get("exception.type")) == ("404", None)


def test_what_the_endpoint_says_of_the_request_is_on_its_record(audit: CapturedAudit) -> None:
    client(shop()).get("/annotated/7")
    record = request_of(audit)
    assert (record.slug, record.event_code, record.attributes["deck"]) == ("said-inside", "E7", "upper")
    assert record.related == [Target("shop.Card", "7")]


@pytest.mark.parametrize("ours_first", [True, False])
def test_the_span_of_the_request_is_that_of_its_record_in_either_order(ours_first: bool) -> None:
    from otel_audit.instrumentation.starlette import StarletteAuditInstrumentor

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = shop()
    with capture_audit(AuditConfig(requests=RequestsConfig(enabled=True))) as audit:
        ours = StarletteAuditInstrumentor()
        if ours_first:
            ours.instrument()
        FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
        if not ours_first:
            ours.instrument()
        try:
            client(app).post("/cards/7", json={})
        finally:
            ours.uninstrument()
            FastAPIInstrumentor.uninstrument_app(app)
        [span] = [each for each in exporter.get_finished_spans() if each.kind is SpanKind.SERVER]
        assert span.context is not None
        record = request_of(audit)
        assert record.span_id == f"{span.context.span_id:016x}"
        assert record.trace_id == audit.one(event_name="shop.note").trace_id


# --- headers and bodies --------------------------------------------------------------------------


def test_a_rule_that_names_the_path_has_headers_and_bodies_recorded(recorded: Recorded) -> None:
    with recorded(everything(route="/cards/{pk}")) as captured:
        client(shop()).post(
            "/cards/7",
            json={"password": SECRET, "deep": [{"api_key": SECRET}], "note": "x"},
            headers={"authorization": f"Bearer {SECRET}", "x-kind": "a"},
        )
    attributes = request_of(captured).attributes
    assert attributes["http.request.header.x-kind"] == "a"
    assert attributes["http.request.header.authorization"] == "[redacted]"
    assert attributes["http.response.header.content-type"] == "application/json"
    assert attributes["request.body"] == {
        "password": "[redacted]",
        "deep": [{"api_key": "[redacted]"}],
        "note": "x",
    }
    assert attributes["response.body"]["token"] == "[redacted]"
    captured.assert_no_secrets(SECRET)


def test_a_body_that_the_endpoint_does_not_read_is_not_read_for_us(recorded: Recorded) -> None:
    asked = 0

    async def receive() -> Message:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b'{"a": 1}', "more_body": False}

    async def early(request: StarletteRequest) -> Response:
        return PlainTextResponse("early")

    async def send(message: Message) -> None: ...

    app = Starlette(routes=[Route("/", early, methods=["POST"])])
    headers = [(b"content-type", b"application/json"), (b"content-length", b"8")]
    with recorded(everything()) as captured:
        asyncio.run(app(asgi("POST", "/", headers), receive, send))
    assert asked == 0
    attributes = request_of(captured).attributes
    assert attributes.get("request.body") is None
    assert attributes["http.request.body.size"] == 8


def asgi(method: str, path: str, headers: Iterable[tuple[bytes, bytes]] = (), **more: Any) -> Scope:
    """Make an ASGI scope."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": list(headers),
        "client": ("192.0.2.1", 1),
        "server": ("127.0.0.1", 80),
        **more,
    }


def test_forms_are_recorded_by_field_and_files_by_name_size_and_type(recorded: Recorded) -> None:
    with recorded(everything()) as captured:
        client(shop()).post("/form", data={"name": "x", "password": SECRET})
        client(shop()).post("/upload", files={"scan": ("scan.png", b"hunter2" * 100, "image/png")})
        client(shop()).post("/upload", files={"scan": ("scan.png", b"hunter2" * 1_000_000, "image/png")})
    form, small, large = captured.find(event_name=EVENT)
    assert form.attributes["request.body"] == {"name": "x", "password": "[redacted]"}
    assert small.attributes["request.body"] == {
        "scan": {"file": "scan.png", "type": "image/png", "size": 700}
    }
    assert "request.body" not in large.attributes
    assert large.attributes["http.request.body.size"] > 7_000_000
    captured.assert_no_secrets(SECRET)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": ',
        b"[" * 100_000,
        b"\xff\xfe\x00",
        "\ud800".encode("utf-8", "surrogatepass"),
        b'{"password": "hunter2", broken',
        b"",
    ],
    ids=["broken", "deep", "no utf-8", "surrogate", "broken with a secret", "empty"],
)
@pytest.mark.parametrize("charset", ["", "; charset=utf-7", "; charset=nonsense"])
def test_no_body_costs_a_record_or_an_answer(recorded: Recorded, body: bytes, charset: str) -> None:
    headers = {"content-type": f"application/json{charset}"}
    with recorded(everything()) as captured:
        response = client(shop()).post("/echo", content=body, headers=headers)
        assert response.content == body
        assert client(shop()).post("/cards/7", content=body, headers=headers).status_code in (400, 422)
    assert len(captured.find(event_name=EVENT)) == 2
    captured.assert_no_secrets(SECRET)


def test_a_content_type_that_one_rule_excludes_is_recorded_by_another(recorded: Recorded) -> None:
    other = everything(path="/cards/*", content_types=["!application/json"])
    with recorded(other, everything()) as captured:
        client(shop()).post("/echo", json={"card": 7})
    assert request_of(captured).attributes["request.body"] == {"card": 7}


def test_a_compressed_answer_is_recorded_as_it_reads(recorded: Recorded) -> None:
    app = shop()
    app.add_middleware(GZipMiddleware, minimum_size=10)
    with (
        recorded(everything()) as captured,
        client(app).stream("POST", "/cards/7", json={"note": "n" * 2000}) as response,
    ):
        assert json.loads(gzip.decompress(b"".join(response.iter_raw())))["card"] == 7
    assert request_of(captured).attributes["response.body"]["card"] == 7


def test_a_packed_answer_that_would_become_huge_is_not_unpacked(recorded: Recorded) -> None:
    packed = gzip.compress(b" " * 50_000_000)

    async def bomb(request: StarletteRequest) -> Response:
        return Response(packed, headers={"content-encoding": "gzip"}, media_type="text/plain")

    app = Starlette(routes=[Route("/", bomb)])
    with recorded(everything()) as captured, client(app).stream("GET", "/") as response:
        assert b"".join(response.iter_raw()) == packed
    attributes = request_of(captured).attributes
    assert len(attributes["response.body"]) <= 16 * 1024
    assert attributes["response.body.cut"]


def test_answers_behind_a_middleware_of_functions_are_recorded(recorded: Recorded) -> None:
    """Starlette's own turns every answer into a stream, with the length it had."""

    async def passing(request: StarletteRequest, call_next: Any) -> Response:
        return await call_next(request)  # type: ignore[no-any-return]

    app = shop()
    app.add_middleware(BaseHTTPMiddleware, dispatch=passing)
    with recorded(everything()) as captured:
        assert client(app).post("/cards/7", json={"a": 1}).status_code == 201
    attributes = request_of(captured).attributes
    assert attributes["request.body"] == {"a": 1}
    assert attributes["response.body"]["given"] == {"a": 1}


# --- streams and connections ---------------------------------------------------------------------


def test_a_stream_is_on_record_when_it_has_ended_and_without_its_body(recorded: Recorded) -> None:
    with recorded(everything()) as captured:
        assert client(shop()).get("/exported").content == b"one,hunter2\ntwo\n"
        with pytest.raises(LookupError):
            client(shop()).get("/exported?fails=1")
    fine, failed = captured.find(event_name=EVENT)
    assert (fine.outcome, fine.attributes["http.response.body.size"]) == ("success", 16)
    assert (failed.outcome, failed.error) == ("failure", "LookupError")
    captured.assert_no_secrets(SECRET)


def test_every_message_goes_on_at_once(recorded: Recorded) -> None:
    """Nothing is buffered: the application's first piece is out before it makes the second."""
    log: list[str] = []

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            log.append(f"made {number}")
            yield b"data: hunter2\n\n"

    async def events(request: StarletteRequest) -> Response:
        return StreamingResponse(pieces(), media_type="text/event-stream")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            log.append("sent")

    async def receive() -> Message:
        await asyncio.sleep(30)
        return {"type": "http.disconnect"}

    app = Starlette(routes=[Route("/", events)])
    with recorded(everything()) as captured:
        asyncio.run(app(asgi("GET", "/"), receive, send))
    assert log == ["made 0", "sent", "made 1", "sent", "made 2", "sent"]
    assert request_of(captured).attributes["http.response.body.size"] == 45
    captured.assert_no_secrets(SECRET)


def test_a_request_that_is_cancelled_is_aborted(recorded: Recorded) -> None:
    async def waiting(request: StarletteRequest) -> Response:
        await asyncio.sleep(60)
        return PlainTextResponse("late")

    async def run() -> None:
        async def nothing(*_: Any) -> Any:
            await asyncio.sleep(60)

        task = asyncio.ensure_future(
            Starlette(routes=[Route("/", waiting)])(asgi("GET", "/"), nothing, nothing)
        )
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with recorded() as captured:
        asyncio.run(run())
    record = request_of(captured)
    assert (record.outcome, record.error) == ("failure", "aborted")


def test_a_websocket_is_one_record_without_what_was_said(recorded: Recorded) -> None:
    with recorded(everything()) as captured:
        with client(shop()).websocket_connect("/talk") as socket:
            socket.send_text(SECRET)
            assert socket.receive_text() == SECRET
        with client(shop()).websocket_connect("/talk") as socket:
            socket.send_text("refuse")
            with pytest.raises(WebSocketDisconnect):
                socket.receive_text()
        with pytest.raises(WebSocketDisconnect), client(shop()).websocket_connect("/nowhere"):
            pass
    talked, refused, nowhere = captured.find(event_name=EVENT)
    assert talked.attributes["url.scheme"] == "ws"
    assert talked.attributes["http.response.status_code"] == 101
    assert talked.target == Target("http.route", "/talk")
    assert refused.attributes["websocket.close.code"] == 1008
    assert (nowhere.outcome, nowhere.error) == ("failure", "403")
    captured.assert_no_secrets(SECRET)


# --- which requests ------------------------------------------------------------------------------


def test_paths_and_addresses_may_be_ignored(recorded: Recorded) -> None:
    with recorded(ignore_paths=["/miss*"], ignore_addresses=["192.0.2.0/24"]) as captured:
        client(shop()).get("/missing")
        client(shop(), client=("192.0.2.7", 1)).get("/nowhere")
        client(shop(), client=("198.51.100.7", 1)).post("/unread")
    assert request_of(captured).request.path == "/unread"


def test_endpoints_may_be_exempt_and_say_what_is_recorded(recorded: Recorded) -> None:
    with recorded() as captured:
        client(shop()).get("/exempt")
        client(shop()).post("/marked/7", json={"note": "x", "password": SECRET})
    record = request_of(captured)
    assert record.slug == "pay"
    assert record.related == [Target("shop.Card", "7"), Target("a", "1")]
    assert record.attributes["request.body"] == {"note": "x", "password": "[redacted]"}
    assert record.attributes["response.body"] == {"note": "x", "password": "[redacted]"}
    assert captured.find(event_name="shop.note")


def test_a_hidden_body_is_never_recorded(recorded: Recorded) -> None:
    with recorded(everything()) as captured:
        client(shop()).post("/hidden", json={"note": "private note"})
    attributes = request_of(captured).attributes
    assert "http.request.header.content-type" in attributes
    assert "request.body" not in attributes
    assert "response.body" not in attributes


def test_endpoints_that_are_classes_may_be_marked(recorded: Recorded) -> None:
    @otel_audit.audit_request(slug="class")
    class Endpoint(HTTPEndpoint):
        async def get(self, request: StarletteRequest) -> Response:
            return PlainTextResponse("got")

        @otel_audit.audit_exempt
        async def post(self, request: StarletteRequest) -> Response:
            return PlainTextResponse("posted")

    app = Starlette(routes=[Route("/", Endpoint)])
    with recorded() as captured:
        client(app).get("/")
        client(app).head("/")
        assert client(app).post("/").text == "posted"
    assert [record.slug for record in captured.find(event_name=EVENT)] == ["class", "class"]


def test_a_decorator_leaves_a_function_what_it_is() -> None:
    def function(a: int) -> int:
        return a

    assert otel_audit.audit_exempt(function) is function
    assert otel_audit.audit_request(slug="x")(function) is function
    with pytest.raises(ValueError, match="level is 'everything'; write one of none, metadata, request, "):
        otel_audit.audit_request(level="everything")  # type: ignore[arg-type]


# --- one request, one record ---------------------------------------------------------------------


def test_applications_inside_others_make_one_record(recorded: Recorded) -> None:
    inner = FastAPI()

    @inner.get("/cards/{pk}")
    async def card(pk: int) -> int:
        return pk

    app = Starlette(routes=[Mount("/inner", app=otel_audit.ASGIAuditMiddleware(inner))])
    with recorded() as captured:
        assert client(otel_audit.ASGIAuditMiddleware(app)).get("/inner/cards/7").json() == 7
    record = request_of(captured)
    assert record.request.path == "/inner/cards/7"
    assert record.attributes["http.response.status_code"] == 200


def test_a_middleware_that_answers_first_is_recorded(recorded: Recorded) -> None:
    async def refusing(request: StarletteRequest, call_next: Any) -> Response:
        return JSONResponse({"detail": "later"}, status_code=503)

    middleware = [Middleware(BaseHTTPMiddleware, dispatch=refusing)]
    with recorded() as captured:
        client(Starlette(middleware=middleware)).get("/cards/7")
    record = request_of(captured)
    assert (record.target, record.error) == (Target("http.route", "/cards/7"), "503")


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "BREW"])
def test_every_method_is_recorded(recorded: Recorded, method: str) -> None:
    with recorded(everything()) as captured:
        client(shop()).request(method, "/cards/7")
    assert request_of(captured).request.method == method


# --- messages that are none ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"type": "http.response.start"}],
        [{"type": "http.response.start", "status": "200", "headers": [(b"a",)]}],
        [{"type": "http.response.start", "status": 200, "headers": iter([(b"a", b"b")])}],
        [
            {"type": "http.response.start", "status": 200, "headers": None},
            {"type": "http.response.body", "body": 7},
        ],
        [{"type": "http.response.start", "status": 200, "headers": [(b"\xff", "text")]}],
        ["nonsense"],
        [{"type": 7}],
        [None],
    ],
)
def test_messages_reach_the_server_as_they_are(recorded: Recorded, messages: list[Any]) -> None:
    sent: list[Any] = []

    async def application(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        for message in messages:
            await send(message)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": "text"}

    headers = [(b"content-type", b"application/json")]
    with recorded(everything()) as captured:
        asyncio.run(otel_audit.ASGIAuditMiddleware(application)(asgi("POST", "/", headers), receive, send))
    assert sent == messages
    assert request_of(captured).outcome in ("success", "failure")


# --- intents -------------------------------------------------------------------------------------


def test_the_intent_is_on_disk_before_the_endpoint_runs_where_a_rule_asks_for_it(recorded: Recorded) -> None:
    seen: list[int] = []
    rules = [
        PolicyRule(route="/start", method="GET", level="metadata", stages=["start", "end"]),
        PolicyRule(path="/start", level="none"),
    ]

    async def endpoint(request: StarletteRequest) -> Response:
        lock = captured.pipeline.spool.lock
        files = [] if lock is None else [each for each in lock.path.iterdir() if each.is_file()]
        seen.append(sum(each.read_bytes().count(EVENT.encode()) for each in files))
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/start", endpoint, methods=["GET", "POST"]), Route("/other", endpoint)])
    with recorded(*rules) as captured:
        client(app).post("/start")
        client(app).get("/start")
    assert seen == [0, 1]
    assert request_of(captured).outcome == "success"


# --- WSGI ----------------------------------------------------------------------------------------


@pytest.fixture
def recorded_wsgi() -> Recorded:
    @contextmanager
    def record(*rules: PolicyRule, **options: Any) -> Iterator[CapturedAudit]:
        config = AuditConfig(requests=RequestsConfig(enabled=True, **options), policy=list(rules))
        with capture_audit(config) as captured:
            yield captured

    return record


def wsgi_client(app: Any) -> httpx.Client:
    return httpx.Client(transport=httpx.WSGITransport(app=app), base_url="http://ship.example")


def flask_shop() -> Any:
    """An application of Flask's in our middleware."""
    app = Flask(__name__)

    @app.post("/cards/<int:pk>")
    def card(pk: int) -> Any:
        otel_audit.set_actor("alice")
        return {"card": pk, "given": flask_request.get_json()}, 201

    @app.get("/boom")
    def boom() -> str:
        raise LookupError("password=hunter2")

    @app.post("/unread")
    def unread() -> str:
        return "ok"

    @app.get("/exported")
    def exported() -> Any:
        return iter([b"one,hunter2\n", b"two\n"]), {"content-type": "text/csv"}

    app.config["PROPAGATE_EXCEPTIONS"] = True
    app.wsgi_app = otel_audit.WSGIAuditMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    return app


def test_a_request_to_a_wsgi_application_is_on_record(recorded_wsgi: Recorded) -> None:
    with recorded_wsgi(everything()) as captured:
        response = wsgi_client(flask_shop()).post("/cards/7?a=1", json={"password": SECRET, "note": "x"})
    record = request_of(captured)
    assert record.actor == Actor("alice", "user")
    assert record.target == Target("http.route", "/cards/<int:pk>")
    attributes = record.attributes
    assert attributes["server.address"] == "ship.example"
    assert attributes["url.query"] == "a=1"
    assert attributes["http.response.status_code"] == 201
    assert attributes["http.response.body.size"] == len(response.content)
    assert attributes["http.request.header.content-type"] == "application/json"
    assert attributes["request.body"] == {"password": "[redacted]", "note": "x"}
    assert attributes["response.body"]["card"] == 7
    captured.assert_no_secrets(SECRET)


def test_a_wsgi_application_that_fails_or_streams_is_on_record(recorded_wsgi: Recorded) -> None:
    with recorded_wsgi(everything()) as captured:
        with pytest.raises(LookupError):
            wsgi_client(flask_shop()).get("/boom")
        assert wsgi_client(flask_shop()).get("/exported").content == b"one,hunter2\ntwo\n"
        wsgi_client(flask_shop()).post("/unread", json={"a": 1})
        wsgi_client(flask_shop()).get("/nowhere")
    boom, exported, unread, nowhere = captured.find(event_name=EVENT)
    assert (boom.outcome, boom.error) == ("failure", "LookupError")
    assert (exported.outcome, exported.attributes["http.response.body.size"]) == ("success", 16)
    assert "response.body" not in exported.attributes
    assert unread.attributes.get("request.body") is None
    assert nowhere.error == "404"
    captured.assert_no_secrets(SECRET)


@pytest.mark.parametrize("how", ["read", "readline", "readlines", "iterate", "readinto", "read1"])
def test_what_a_wsgi_application_reads_in_any_way_is_recorded(recorded_wsgi: Recorded, how: str) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        stream = environ["wsgi.input"]
        if how == "read":
            got = stream.read(4) + stream.read()
        elif how == "readline":
            got = stream.readline() + stream.readline()
        elif how == "readlines":
            got = b"".join(stream.readlines())
        elif how == "readinto":
            into = bytearray(20)
            got = bytes(into[: stream.readinto(into)])
        elif how == "read1":
            got = stream.read1(20)
        else:
            got = b"".join(stream)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(got)))])
        yield got

    with recorded_wsgi(everything()) as captured:
        app = otel_audit.WSGIAuditMiddleware(application)
        response = wsgi_client(app).post("/", content=b"one\ntwo\n", headers={"content-type": "text/plain"})
        assert response.content == b"one\ntwo\n"
    attributes = request_of(captured).attributes
    assert attributes["request.body"] == "one\ntwo\n"
    assert attributes["response.body"] == "one\ntwo\n"
