"""Whatever an application sends, or a server hands over: the application behaves as without us."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

import otel_audit
from otel_audit.audit_record import Actor
from otel_audit.testing import CapturedAudit
from tests.instrumentation.starlette.conftest import Instrumented

START: dict[str, Any] = {"type": "http.response.start", "status": 403, "headers": []}
SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "GET",
    "path": "/raw/x",
    "root_path": "",
    "query_string": b"",
    "headers": [],
    "client": ("192.0.2.1", 1),
}


async def _outcome(app: Any, scope: dict[str, Any]) -> tuple[list[Any], str]:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    try:
        await app(dict(scope), receive, send)
    except Exception as error:  # noqa: BLE001 - it is what is compared
        return sent, repr(error)
    return sent, ""


def outcome(app: Any, scope: dict[str, Any] = SCOPE) -> tuple[list[Any], str]:
    """Return what a server sees: messages, and what was raised."""
    return asyncio.run(_outcome(app, scope))


@pytest.mark.parametrize(
    "message",
    [
        *({}, {"type": None}, {"type": "http.response.start"}, START | {"status": "403"}),
        *(START | {"headers": None}, START | {"headers": 7}, START | {"headers": [("location", "x")]}),
        *(START | {"status": 302, "headers": [(b"location", b"http://[::1/?next=\xff")]}, [], "text", None),
        *({"type": "http.response.push"}, {"type": "websocket.close"}, {"type": ["unhashable"]}),
    ],
)
def test_a_message_of_any_kind_goes_through(instrumented: Instrumented, message: Any) -> None:
    async def raw(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        await send(message)

    app = Starlette(routes=[Mount("/raw", app=raw)])
    alone = outcome(app)
    with instrumented():
        assert outcome(app) == alone


@pytest.mark.parametrize(
    "handed_over",
    [
        *({"headers": [("baggage", "text")]}, {"headers": [(b"baggage", "text")]}, {"headers": None}),
        *({"headers": [[b"baggage", b"\xff"]]}, {"client": None}, {"client": ("not an address", 0)}),
        *(
            {"client": []},
            {"state": None},
            {"state": {"user": None}},
            {"method": None},
            {"path": "/raw/\ud800"},
        ),
        *({"root_path": "/raw"}, {"query_string": None}, {"user": object()}),
    ],
)
def test_a_request_of_any_kind_is_answered(instrumented: Instrumented, handed_over: dict[str, Any]) -> None:
    async def raw(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        otel_audit.record("ship.note", "NOTE")
        await send(START)

    app = Starlette(routes=[Mount("/raw", app=raw)])
    alone = outcome(app, SCOPE | handed_over)
    with instrumented() as audit:
        assert outcome(app, SCOPE | handed_over) == alone
        if not alone[1] and alone[0] == [START]:
            audit.one(event_name="ship.note")


def test_a_task_group_that_cancels_a_request_cancels_it(audit: CapturedAudit) -> None:
    async def page(request: Request) -> Response:
        otel_audit.set_actor("alice")
        try:
            await asyncio.Event().wait()
        finally:
            otel_audit.record("ship.note", "NOTE")
        return PlainTextResponse("")

    async def visit() -> None:
        scope = SCOPE | {"path": "/"}
        task = asyncio.create_task(_outcome(Starlette(routes=[Route("/", page)]), scope))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        otel_audit.record("ship.outside", "NOTE")

    asyncio.run(visit())
    assert audit.one(event_name="ship.note").actor == Actor("alice", "user")
    assert audit.one(event_name="ship.outside").request.id == ""


def test_an_account_without_a_key_yet_is_the_actor_once_it_has_one(audit: CapturedAudit) -> None:
    class Account:
        id: int | None = None

    app = FastAPI()

    @app.post("/signup")
    def signup(request: Request) -> None:
        request.state.user = account = Account()
        otel_audit.record("ship.before", "NOTE")
        account.id = 7
        otel_audit.record("ship.after", "NOTE")

    TestClient(app).post("/signup")
    assert audit.one(event_name="ship.before").actor.id == "unknown"
    assert audit.one(event_name="ship.after").actor == Actor("7", "user")
