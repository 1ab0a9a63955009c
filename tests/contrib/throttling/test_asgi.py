"""Starlette, FastAPI and Litestar, throttled by the middleware: in memory, and by a real Redis."""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx
import litestar
import pytest
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

import otel_audit
from otel_audit.audit_record import Target
from otel_audit.config.model import (
    AuditConfig,
    ContextConfig,
    StarletteConfig,
    ThrottlingConfig,
    ThrottlingRuleConfig,
)
from otel_audit.contrib.throttling import (
    Rule,
    ThrottlingException,
    ThrottlingMiddleware,
    acheck_login,
    check_login,
    per_request,
    throttling,
)
from otel_audit.contrib.throttling.counters.memory import MemoryCounter
from otel_audit.contrib.throttling.counters.redis_counter import RedisCounter
from otel_audit.contrib.throttling.instrumentor import ThrottlingInstrumentor
from otel_audit.http.asgi import ASGIAuditMiddleware
from otel_audit.instrumentation.starlette import StarletteAuditInstrumentor
from otel_audit.testing import CapturedAudit
from tests.audited import audited
from tests.contrib.throttling.clock import Clock
from tests.instrumentation.starlette.serving import serving
from tests.services import RedisServer

Throttled = Callable[..., AbstractContextManager[CapturedAudit]]


@pytest.fixture
def throttled() -> Throttled:
    """Audit Starlette and throttle, with settings of the test's own."""

    @contextmanager
    def throttle(*, context: ContextConfig | None = None, **options: Any) -> Iterator[CapturedAudit]:
        options["rules"] = {
            name: ThrottlingRuleConfig(**rule) for name, rule in options.get("rules", {}).items()
        }
        config = AuditConfig(
            throttling=ThrottlingConfig(**{"enabled": True, **options}),
            starlette=StarletteConfig(),
            context=context or ContextConfig(),
        )
        with audited(StarletteAuditInstrumentor(), config) as captured:
            instrumentor = ThrottlingInstrumentor()
            instrumentor.instrument(config=config)
            try:
                yield captured
            finally:
                instrumentor.uninstrument()

    return throttle


@pytest.fixture(params=["memory", "redis"])
def counter(request: pytest.FixtureRequest, clock: Clock) -> Any:
    if request.param == "memory":
        return MemoryCounter(clock)
    return RedisCounter(request.getfixturevalue("redis").url, 5, clock=clock)


def index(request: Any) -> PlainTextResponse:
    return PlainTextResponse("ok")


def starlette(*validators: Any, counter: Any = None, routes: Any = ()) -> Starlette:
    app = Starlette(routes=[Route("/", index, methods=["GET", "POST"]), *routes])
    app.add_middleware(ThrottlingMiddleware, *validators, counter=counter)
    return app


def fastapi(*validators: Any, counter: Any = None) -> FastAPI:
    app = FastAPI()
    app.add_middleware(ThrottlingMiddleware, *validators, counter=counter)

    @app.get("/")
    def root() -> str:
        return "ok"

    return app


def of_litestar(*validators: Any, counter: Any = None) -> Any:
    @litestar.get("/")
    async def root() -> str:
        return "ok"

    app: Any = litestar.Litestar([root])
    return ASGIAuditMiddleware(ThrottlingMiddleware(app, *validators, counter=counter))


@pytest.mark.parametrize("make", [starlette, fastapi, of_litestar])
def test_the_default_set(throttled: Throttled, make: Any, counter: Any, clock: Clock) -> None:
    with throttled() as audit, TestClient(make(counter=counter), client=("192.0.2.7", 1)) as client:
        assert [client.get("/").status_code for _ in range(21)] == [200] * 20 + [429]
        clock.move(601)
        assert client.get("/").status_code == 200
        record = audit.one(event_name="http.request.throttled")
    assert (record.action, record.outcome, record.error) == ("REFUSE", "failure", "429")
    assert (record.target, record.source.id) == (Target("http.route", "/"), "192.0.2.7")
    assert record.attributes["throttling.rule"] == "minute: 20 requests in 60 s by address"
    assert record.message == record.attributes["throttling.rule"]


def test_while_it_is_off_everything_passes(throttled: Throttled) -> None:
    with throttled(enabled=False), TestClient(starlette(per_request(1, 60))) as client:
        assert [client.get("/").status_code for _ in range(30)] == [200] * 30


def test_the_answer(throttled: Throttled) -> None:
    with throttled(), TestClient(starlette(per_request(1, 60, "<b>No</b>"))) as client:
        client.get("/")
        refused = client.get("/")
        page = client.get("/", headers={"Accept": "text/html,*/*"})
    assert refused.json() == {"detail": "<b>No</b>", "retry_after": int(refused.headers["Retry-After"])}
    assert refused.headers["Cache-Control"] == "no-store"
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "&lt;b&gt;No&lt;/b&gt;" in page.text
    assert (refused.status_code, page.status_code) == (429, 429)


def refused_view(scope: Any, refusal: ThrottlingException) -> PlainTextResponse:
    return PlainTextResponse(f"{scope['path']} {refusal}", status_code=420)


def broken_view(scope: Any, refusal: ThrottlingException) -> PlainTextResponse:
    raise RuntimeError("broken")


@pytest.mark.parametrize(("view", "status"), [("refused_view", 420), ("broken_view", 429), ("none", 429)])
def test_a_failure_view(throttled: Throttled, view: str, status: int) -> None:
    app = starlette(per_request(1, 60))
    with throttled(failure_view=f"{__name__}:{view}") as audit, TestClient(app) as client:
        assert [client.get("/").status_code for _ in range(2)] == [200, status]
        assert audit.pipeline.health.capture_failures == ({} if status == 420 else {"throttling": 1})


def test_a_decorated_function_and_what_it_calls(throttled: Throttled) -> None:
    """No view is known when the middleware runs; the function itself asks."""

    @throttling(per_request(1, 60))
    def sync(request: Any) -> PlainTextResponse:
        return PlainTextResponse("ok")

    @throttling(per_request(1, 60))
    async def asynchronous(request: Any) -> PlainTextResponse:
        return PlainTextResponse("ok")

    app = starlette(routes=[Route("/sync", sync), Route("/async", asynchronous)])
    with throttled() as audit, TestClient(app) as client:
        for path in ("/sync", "/async"):
            assert [client.get(path).status_code for _ in range(2)] == [200, 429]
        assert [each.target for each in audit.find(event_name="http.request.throttled")] == [
            Target("http.route", "/sync"),
            Target("http.route", "/async"),
        ]


def test_what_a_framework_takes_for_a_fault_is_a_refusal_all_the_same(throttled: Throttled) -> None:
    """Litestar answers an exception that it does not know with 500, inside of the middleware."""

    @litestar.get("/", sync_to_thread=False)
    @throttling(per_request(1, 60))
    def root() -> str:
        return "ok"

    app: Any = ASGIAuditMiddleware(ThrottlingMiddleware(litestar.Litestar([root])))
    with throttled() as audit, TestClient(app) as client:
        answers = [client.get("/") for _ in range(2)]
        assert [each.status_code for each in answers] == [200, 429]
        assert "Retry-After" in answers[1].headers
        assert len(audit.find(event_name="http.request.throttled")) == 1


def test_an_answer_that_has_begun_is_not_begun_again(throttled: Throttled) -> None:
    def stream(request: Any) -> StreamingResponse:
        def parts() -> Iterator[str]:
            yield "first "
            raise ThrottlingException("too late")

        return StreamingResponse(parts())

    app = starlette(routes=[Route("/stream", stream)])
    with throttled(), TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/stream").status_code == 200


def test_a_websocket_is_refused_before_it_is_accepted(throttled: Throttled) -> None:
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    app = starlette(per_request(1, 60), routes=[WebSocketRoute("/ws", socket)])
    with throttled() as audit, TestClient(app) as client:
        with client.websocket_connect("/ws"):
            pass
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/ws"):
            pass
        assert len(audit.find(event_name="http.request.throttled")) == 1


def test_own_validators_sync_and_async(throttled: Throttled) -> None:
    class Night:
        def validate(self, scope: Any) -> None:
            if scope["query_string"] == b"hour=3":
                raise ThrottlingException("Come back in the morning", retry_after=3600)

    class AsyncNight(Night):
        async def validate(self, scope: Any) -> None:  # type: ignore[override]
            await asyncio.sleep(0)
            super().validate(scope)

    for validator in (Night(), AsyncNight()):
        with throttled(), TestClient(starlette(validator)) as client:
            assert client.get("/").status_code == 200
            assert client.get("/?hour=3").headers["Retry-After"] == "3600"


def test_by_the_user_that_the_application_names(throttled: Throttled) -> None:
    context = ContextConfig(actor_from=f"{__name__}:user_of")
    app = starlette(Rule(1, 60, by="user"))
    with throttled(context=context), TestClient(app) as client:
        assert client.get("/", headers={"X-User": "alice"}).status_code == 200
        assert client.get("/", headers={"X-User": "alice"}).status_code == 429
        assert client.get("/", headers={"X-User": "bob"}).status_code == 200


def user_of(request: Any) -> str | None:
    """For ``context.actor_from``; a test's own header says who it is."""
    return request.headers.get("x-user")  # type: ignore[no-any-return]


# --- the address -------------------------------------------------------------------------------


def test_a_forged_header_is_no_other_address_behind_a_real_server(throttled: Throttled) -> None:
    """uvicorn believes X-Forwarded-For of whoever calls from 127.0.0.1; throttling does not."""
    app = starlette(per_request(2, 60))
    with throttled(), serving(app) as host:
        headers = [{"X-Forwarded-For": f"203.0.113.{number}"} for number in range(4)]
        found = [httpx.get(f"http://{host}/", headers=each).status_code for each in headers]
    assert found == [200, 200, 429, 429]


def test_behind_a_trusted_proxy_each_client_has_its_own(throttled: Throttled) -> None:
    app = starlette(per_request(1, 60))
    with throttled(context=ContextConfig(trusted_proxies=1)), serving(app) as host:
        for client in ("203.0.113.1", "203.0.113.2"):
            headers = [{"X-Forwarded-For": f"198.51.100.{number}, {client}"} for number in range(3)]
            found = [httpx.get(f"http://{host}/", headers=each).status_code for each in headers]
            assert found == [200, 429, 429]


# --- logins ------------------------------------------------------------------------------------

FAILED = {"number": 3, "timeframe": 300, "on": "login_failed"}


def login_application() -> FastAPI:
    app = FastAPI()
    app.add_middleware(ThrottlingMiddleware)

    async def sign_in(name: str, password: str) -> Any:
        await acheck_login(name)
        await asyncio.sleep(0)  # the database
        if password != "correct horse":
            otel_audit.login_failed(name)
            return PlainTextResponse("wrong", status_code=401)
        otel_audit.login(name)
        return PlainTextResponse("in")

    def sign_in_sync(name: str, password: str) -> Any:
        check_login(name)
        if password != "correct horse":
            otel_audit.login_failed(name)
            return PlainTextResponse("wrong", status_code=401)
        otel_audit.login(name)
        return PlainTextResponse("in")

    app.post("/sign-in")(sign_in)
    app.post("/sign-in-sync")(sign_in_sync)

    @app.post("/unchecked")
    async def unchecked(name: str, request: Request) -> Any:
        otel_audit.login_failed(name)
        return PlainTextResponse("wrong", status_code=401)

    return app


@pytest.mark.parametrize("path", ["/sign-in", "/sign-in-sync"])
@pytest.mark.parametrize("storage", ["memory", "redis"])
def test_guesses_of_an_application_that_authenticates_by_itself(
    throttled: Throttled, redis: RedisServer, storage: str, path: str
) -> None:
    url = redis.url if storage == "redis" else storage
    rules = {"guesses": FAILED}
    with (
        throttled(defaults=False, rules=rules, storage=url, timeout=5) as audit,
        TestClient(login_application(), client=("192.0.2.1", 1)) as client,
    ):

        def sign_in(name: str, password: str) -> int:
            return client.post(path, params={"name": name, "password": password}).status_code  # type: ignore[no-any-return]

        assert [sign_in("alice", "correct horse") for _ in range(5)] == [200] * 5
        assert [sign_in("alice", "wrong") for _ in range(4)] == [401, 401, 401, 429]
        assert sign_in("alice", "correct horse") == 429
        assert sign_in("bob", "correct horse") == 200
        assert len(audit.find(event_name="user.login.failure")) == 3
    with (
        throttled(defaults=False, rules=rules, storage=url, timeout=5),
        TestClient(login_application(), client=("192.0.2.2", 1)) as client,
    ):
        assert client.post(path, params={"name": "alice", "password": "correct horse"}).status_code == 200


@pytest.mark.parametrize("storage", ["memory", "redis"])
def test_a_path_named_by_a_rule_is_refused_as_soon_as_it_is_asked_for(
    throttled: Throttled, redis: RedisServer, storage: str
) -> None:
    """Where the application only says that a login has failed, and the rule counts by address."""
    rule = FAILED | {"by": ["address"], "path": ["/unchecked"]}
    url = redis.url if storage == "redis" else storage
    with (
        throttled(defaults=False, rules={"guesses": rule}, storage=url, timeout=5),
        TestClient(login_application()) as client,
    ):
        found = [client.post("/unchecked", params={"name": f"user{n}"}).status_code for n in range(5)]
        assert found == [401, 401, 401, 429, 429]
        assert client.post("/sign-in", params={"name": "a", "password": "correct horse"}).status_code == 200


@pytest.mark.parametrize("storage", ["memory", "redis"])
def test_of_fifty_guesses_at_a_time_no_more_are_tried_than_may_fail(
    throttled: Throttled, redis: RedisServer, storage: str
) -> None:
    url = redis.url if storage == "redis" else storage

    async def guesses() -> list[int]:
        transport = httpx.ASGITransport(login_application())
        async with httpx.AsyncClient(transport=transport, base_url="http://site") as client:
            form = {"name": "alice", "password": "wrong"}
            answers = await asyncio.gather(*(client.post("/sign-in", params=form) for _ in range(50)))
        return [each.status_code for each in answers]

    with throttled(defaults=False, rules={"guesses": FAILED}, storage=url, timeout=60):
        assert Tally(asyncio.run(guesses())) == Tally({401: 3, 429: 47})
