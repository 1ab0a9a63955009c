"""Who makes a request, from where and through what: seen from records made inside it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

import httpx
import jwt
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.security import OAuth2PasswordBearer
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    BaseUser,
    SimpleUser,
    requires,
)
from starlette.concurrency import run_in_threadpool
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import HTTPConnection
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.websockets import WebSocketDisconnect

import otel_audit
from otel_audit.audit_record import Actor, AuditRecord, Origin, Target
from otel_audit.config.model import ContextConfig, RedactionConfig
from otel_audit.propagation.signed_context import NAME, Key, SignedContext, sign
from otel_audit.testing import CapturedAudit
from tests.instrumentation.starlette.conftest import Instrumented

ANONYMOUS = Actor("anonymous", "unknown")
UNKNOWN = Actor("unknown", "unknown")
ALICE = Actor("alice", "user", "alice")


def note(name: str = "note") -> AuditRecord | None:
    return otel_audit.record(f"ship.{name}", "NOTE")


class Tokens(AuthenticationBackend):
    """The bearer's token is the user's name."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        kind, _, name = conn.headers.get("authorization", "").partition(" ")
        return (AuthCredentials(["authenticated"]), SimpleUser(name)) if kind == "Bearer" else None


AUTHENTICATING = Middleware(AuthenticationMiddleware, backend=Tokens())


def bearer(name: str = "alice") -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


async def noting(request: StarletteRequest) -> Response:
    note()
    return PlainTextResponse("noted")


def client(app: Any, **options: Any) -> TestClient:
    return TestClient(app, **options)


# --- who -----------------------------------------------------------------------------------------


def test_a_visitor_without_credentials_is_anonymous(audit: CapturedAudit) -> None:
    client(Starlette(routes=[Route("/", noting)])).get("/")
    assert audit.one(event_name="ship.note").actor == ANONYMOUS


def test_credentials_that_nobody_looked_at_name_nobody(audit: CapturedAudit) -> None:
    """Nobody was authenticated; that is not to say that nobody was there."""
    client(Starlette(routes=[Route("/", noting)])).get("/", headers=bearer())
    assert audit.one(event_name="ship.note").actor == UNKNOWN


def test_the_user_of_the_authentication_middleware_is_the_actor(audit: CapturedAudit) -> None:
    app = Starlette(routes=[Route("/", noting)], middleware=[AUTHENTICATING])
    client(app).get("/", headers=bearer())
    client(app).get("/")
    known, visitor = audit.find(event_name="ship.note")
    assert known.actor == ALICE
    assert visitor.actor == ANONYMOUS


def test_a_user_on_the_state_of_the_request_is_the_actor(audit: CapturedAudit) -> None:
    app = FastAPI()

    class Account:
        id = UUID("6c1ad08b-5d2f-4b1c-9d3e-0c2b2f0f3a11")
        email = "alice@ship.example"

    async def current(request: Request) -> Account:
        request.state.user = Account()
        return request.state.user  # type: ignore[no-any-return]

    @app.get("/")
    async def index(account: Annotated[Account, Depends(current)]) -> None:
        note()

    client(app).get("/")
    actor = audit.one(event_name="ship.note").actor
    assert actor == Actor("6c1ad08b-5d2f-4b1c-9d3e-0c2b2f0f3a11", "user", "alice@ship.example")


@pytest.mark.parametrize("asynchronous", [True, False])
def test_an_actor_named_by_a_dependency_is_on_what_follows(audit: CapturedAudit, asynchronous: bool) -> None:
    app = FastAPI()

    def authenticate() -> None:
        note("before")
        otel_audit.set_actor(Actor("7", "user", "alice"))

    async def authenticate_async() -> None:
        authenticate()

    @app.get("/", dependencies=[Depends(authenticate_async if asynchronous else authenticate)])
    def index() -> None:
        note("after")

    client(app).get("/")
    assert audit.one(event_name="ship.before").actor == ANONYMOUS
    assert audit.one(event_name="ship.after").actor == Actor("7", "user", "alice")


@pytest.mark.parametrize(
    ("named", "actor"),
    [
        (7, Actor("7", "user")),
        ("alice", Actor("alice", "user")),
        (UUID(int=7), Actor(str(UUID(int=7)), "user")),
        ({"sub": "7", "preferred_username": "alice", "exp": 1}, Actor("7", "user", "alice")),
        (Actor("billing", "service"), Actor("billing", "service")),
    ],
)
def test_an_actor_may_be_named_by_an_id_claims_or_an_actor(
    audit: CapturedAudit, named: Any, actor: Actor
) -> None:
    async def naming(request: StarletteRequest) -> Response:
        otel_audit.set_actor(named)
        return await noting(request)

    client(Starlette(routes=[Route("/", naming)])).get("/")
    assert audit.one(event_name="ship.note").actor == actor


def test_claims_of_a_token_that_a_dependency_has_verified_name_the_actor(audit: CapturedAudit) -> None:
    """The dependency of docs/fastapi.md."""
    app, key = FastAPI(), "a key of at least thirty-two characters"

    def current_user(
        token: Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="token"))],
    ) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(token, key, algorithms=["HS256"])
        except jwt.InvalidTokenError:
            raise HTTPException(401) from None
        otel_audit.set_actor(claims)
        return claims

    @app.get("/")
    async def index(user: Annotated[dict[str, Any], Depends(current_user)]) -> None:
        note()

    claims = {"sub": "7", "preferred_username": "alice"}
    good, forged = jwt.encode(claims, key), jwt.encode(claims, key[::-1])
    assert client(app).get("/", headers=bearer(good)).status_code == 200
    assert client(app).get("/", headers=bearer(forged)).status_code == 401
    assert audit.one(event_name="ship.note").actor == Actor("7", "user", "alice")
    assert audit.one(event_name="http.request.denied").actor == UNKNOWN
    audit.assert_no_secrets(good, forged)


class Unloaded:
    """As an object that SQLAlchemy has expired: asking it would query."""

    class State:
        key = (object, (7,), None)
        dict = {"id": 7, "username": "alice"}

    _sa_instance_state = State()

    def __getattr__(self, name: str) -> Any:
        if name == "is_authenticated":
            raise AttributeError(name)
        raise AssertionError(f"{name} was loaded")


def test_a_mapped_user_is_not_loaded_for_us(audit: CapturedAudit) -> None:
    async def naming(request: StarletteRequest) -> Response:
        request.state.user = Unloaded()
        return await noting(request)

    client(Starlette(routes=[Route("/", naming)])).get("/")
    assert audit.one(event_name="ship.note").actor == Actor("7", "user", "alice")


# --- a function of the application ---------------------------------------------------------------


answers: list[Any] = []


def from_header(request: HTTPConnection) -> Any:
    return request.headers.get("x-user")


def raising(request: HTTPConnection) -> Any:
    raise RuntimeError("out of tokens")


def answering(request: HTTPConnection) -> Any:
    return answers[0]


def _configured(function: Callable[..., Any]) -> ContextConfig:
    return ContextConfig(actor_from=f"{__name__}:{function.__name__}")


def test_a_function_of_the_application_names_the_actor(instrumented: Instrumented) -> None:
    app = Starlette(routes=[Route("/", noting)], middleware=[AUTHENTICATING])
    with instrumented(context=_configured(from_header)) as audit:
        client(app).get("/", headers={"X-User": "bob"} | bearer())
        client(app).get("/", headers=bearer())
        named, not_named = audit.find(event_name="ship.note")
    assert named.actor == Actor("bob", "user")
    assert not_named.actor == ALICE, "what it does not know, the request's user may"


@pytest.mark.parametrize(
    ("function", "answer", "said"),
    [
        (raising, None, "raising failed RuntimeError('out of tokens')"),
        (answering, True, "answering returned 'bool'"),
        (answering, 1.5, "answering returned 'float'"),
        (answering, ["alice"], "answering returned 'list'"),
        (answering, object(), "answering returned 'object'"),
        (answering, {"password": "hunter2"}, "answering returned 'dict'"),
        (answering, noting, "answering returned 'function'"),
    ],
)
def test_nonsense_is_named_once_and_costs_nothing_but_the_actor(
    instrumented: Instrumented, caplog: pytest.LogCaptureFixture, function: Any, answer: Any, said: str
) -> None:
    answers[:] = [answer]
    with instrumented(context=_configured(function)) as audit, caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert client(Starlette(routes=[Route("/", noting)])).get("/").status_code == 200
        assert [record.actor for record in audit.find(event_name="ship.note")] == [ANONYMOUS] * 3
    [message] = [text for text in caplog.messages if "actor_from" in text]
    assert said in message
    assert f"{__file__}:{function.__code__.co_firstlineno}" in message
    assert ("must return an id" in message) == ("returned" in said)
    assert "hunter2" not in message


def test_a_function_that_does_not_exist_is_named(
    instrumented: Instrumented, caplog: pytest.LogCaptureFixture
) -> None:
    with instrumented(context=ContextConfig(actor_from="nowhere.at.all:actor")) as audit:
        assert client(Starlette(routes=[Route("/", noting)])).get("/").status_code == 200
        audit.one(event_name="ship.note")
    assert "nowhere.at.all:actor failed ModuleNotFoundError" in caplog.text


def test_a_user_object_that_raises_harms_nobody(
    audit: CapturedAudit, caplog: pytest.LogCaptureFixture
) -> None:
    class Confused:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError("confused")

    async def naming(request: StarletteRequest) -> Response:
        request.state.user = Confused()
        return await noting(request)

    for _ in range(2):
        assert client(Starlette(routes=[Route("/", naming)])).get("/").status_code == 200
    assert [record.actor for record in audit.find(event_name="ship.note")] == [UNKNOWN] * 2
    assert caplog.text.count("cannot be read as an actor") == 1


# --- from where ----------------------------------------------------------------------------------


FORWARDED = {"X-Forwarded-For": "198.51.100.1, 203.0.113.9", "X-Request-ID": "ab-12", "User-Agent": "curl/9"}


def test_the_source_is_the_peer_whatever_a_header_says(audit: CapturedAudit) -> None:
    client(Starlette(routes=[Route("/", noting)]), client=("192.0.2.7", 5)).get("/", headers=FORWARDED)
    record = audit.one(event_name="ship.note")
    assert (record.source.id, record.source.type) == ("192.0.2.7", "ipv4")
    assert record.source.user_agent == "curl/9"
    assert record.request.id != "ab-12"


def test_behind_trusted_proxies_the_source_is_the_client(instrumented: Instrumented) -> None:
    with instrumented(context=ContextConfig(trusted_proxies=1)) as audit:
        client(Starlette(routes=[Route("/", noting)]), client=("192.0.2.7", 5)).get("/", headers=FORWARDED)
        record = audit.one(event_name="ship.note")
    assert record.source.id == "203.0.113.9"
    assert record.request.id == "ab-12"


def test_a_session_is_a_hash_of_its_cookie(instrumented: Instrumented) -> None:
    app = Starlette(routes=[Route("/", noting)])
    with instrumented(context=ContextConfig(session_cookie="sid")) as audit:
        for cookie in ("a=1; sid=secret-1; b=2", "sid=secret-1", "sid=secret-2", "xsid=secret-1"):
            client(app).get("/", headers={"Cookie": cookie})
        sessions = [record.source.session for record in audit.find(event_name="ship.note")]
        actors = [record.actor for record in audit.find(event_name="ship.note")]
    assert sessions[0] == sessions[1] != sessions[2]
    assert sessions[0].startswith("sha256:")
    assert sessions[3] == ""
    assert actors == [UNKNOWN, UNKNOWN, UNKNOWN, ANONYMOUS]


def test_a_signed_context_says_who_began_the_work(instrumented: Instrumented) -> None:
    secret = "a secret of the shop and of fulfilment"
    said = SignedContext("ship.internal:80", int(time.time()) + 60, "7", "user", "acme", "r1")
    signed = {"baggage": f"{NAME}={sign(said, Key('k1', secret))}"}
    forged = {"baggage": f"{NAME}={sign(said, Key('k1', secret[::-1]))}"}
    app = Starlette(routes=[Route("/", noting)], middleware=[AUTHENTICATING])
    with instrumented(context=ContextConfig(keys={"k1": secret}, audience=["ship.internal"])) as audit:
        client(app).get("/", headers=signed | bearer("shop"))
        client(app).get("/", headers=forged | bearer("shop"))
        accepted, refused = audit.find(event_name="ship.note")
    assert accepted.origin == Origin("7", "", "r1")
    assert accepted.actor.id == refused.actor.id == "shop"
    assert accepted.tenant == "acme"
    assert refused.origin is None


# --- through what --------------------------------------------------------------------------------


class Shelf(HTTPEndpoint):
    async def get(self, request: StarletteRequest) -> Response:
        return await noting(request)


def _routes(audit: CapturedAudit) -> list[tuple[str, str, str]]:
    found = [record.request for record in audit.find(event_name="ship.note")]
    return [(each.method, each.route, each.view.removeprefix(f"{__name__}.")) for each in found]


def test_the_route_is_a_template_and_the_view_a_function(audit: CapturedAudit) -> None:
    inner = Starlette(routes=[Route("/{number:int}", noting), Route("/all", noting)])
    app = Starlette(
        routes=[
            Route("/shelves/{shelf}", Shelf),
            Mount("/ports/{port}", routes=[Route("/ships/{ship}", noting)]),
            Mount("/inner", app=inner),
        ]
    )
    for path in ("/shelves/3", "/ports/hamburg/ships/7", "/inner/7", "/inner/all"):
        assert client(app).get(path).status_code == 200
    assert _routes(audit) == [
        ("GET", "/shelves/{shelf}", "Shelf"),
        ("GET", "/ports/{port}/ships/{ship}", "noting"),
        ("GET", "/inner/{number}", "noting"),
        ("GET", "/inner/all", "noting"),
    ]


def test_the_routes_of_fastapi_have_their_prefixes(audit: CapturedAudit) -> None:
    def ship(number: int = 0) -> None:
        note()

    inner, outer = APIRouter(prefix="/ships"), APIRouter(prefix="/v1")
    inner.post("/{number}")(ship)
    outer.include_router(inner)
    sub = FastAPI()
    sub.get("/of/{number}")(ship)
    app = FastAPI()
    app.get("/plain/{number:int}")(ship)
    app.include_router(outer)
    app.include_router(inner, prefix="/v2")
    app.mount("/sub/{tenant}", sub)
    calls = client(app, root_path="/behind", base_url="http://testserver/behind/")
    calls.get("plain/1")
    calls.post("v1/ships/2")
    calls.post("v2/ships/3")
    calls.get("sub/acme/of/4")
    late = APIRouter()
    late.get("/late/{number}")(ship)
    app.include_router(late)
    time.sleep(0.2)  # routes that were not found are looked for again, but not at every record
    calls.get("late/5")
    name = "test_the_routes_of_fastapi_have_their_prefixes.<locals>."
    assert _routes(audit) == [
        ("GET", "/plain/{number}", f"{name}ship"),
        ("POST", "/v1/ships/{number}", f"{name}ship"),
        ("POST", "/v2/ships/{number}", f"{name}ship"),
        ("GET", "/sub/{tenant}/of/{number}", f"{name}ship"),
        ("GET", "/late/{number}", f"{name}ship"),
    ]


def test_a_middleware_writes_before_the_route_is_known(audit: CapturedAudit) -> None:
    async def writing(request: Any, call_next: Any) -> Any:
        note("before")
        response = await call_next(request)
        note("after")
        return response

    app = Starlette(
        routes=[Route("/{id}", noting)], middleware=[Middleware(BaseHTTPMiddleware, dispatch=writing)]
    )
    client(app).get("/7")
    before, inside, after = audit.records
    assert [each.request.route for each in (before, inside, after)] == ["", "/{id}", "/{id}"]
    assert len({each.request.id for each in (before, inside, after)}) == 1


def test_sensitive_parts_of_a_path_are_not_kept(audit: CapturedAudit) -> None:
    app = Starlette(routes=[Route("/reset/{user}/{token}/{token_again}", noting)])
    client(app).get("/reset/alice/alice/s3cr3t-t0ken")
    path = audit.one(event_name="ship.note").request.path
    assert path.startswith("/reset/alice/")
    assert path.count("alice") == 1
    audit.assert_no_secrets("s3cr3t-t0ken")


def test_a_middleware_that_copies_the_asgi_scope_hides_nothing(audit: CapturedAudit) -> None:
    class Copying:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(dict(scope), receive, send)

    app = Starlette(routes=[Route("/{id}", noting)], middleware=[Middleware(Copying), AUTHENTICATING])
    client(app).get("/7", headers=bearer())
    record = audit.one(event_name="ship.note")
    assert (record.actor, record.request.route) == (ALICE, "/{id}")


# --- where work goes on --------------------------------------------------------------------------


def test_the_thread_pool_background_tasks_and_streams_are_the_requests(audit: CapturedAudit) -> None:
    app = FastAPI(middleware=[AUTHENTICATING])

    @app.get("/")
    async def index(tasks: BackgroundTasks) -> StreamingResponse:
        await run_in_threadpool(note, "pool")
        tasks.add_task(note, "background")

        async def body() -> AsyncIterator[bytes]:
            note("stream")
            yield b"a"

        return StreamingResponse(body(), background=tasks)

    @app.get("/sync")
    def synchronous() -> StreamingResponse:
        note("endpoint")

        def body() -> Iterator[bytes]:
            note("syncstream")
            yield b"a"

        return StreamingResponse(body())

    client(app).get("/", headers=bearer())
    client(app).get("/sync", headers=bearer())
    found = {record.event_name.removeprefix("ship."): record for record in audit}
    assert set(found) == {"pool", "background", "stream", "endpoint", "syncstream"}
    assert {record.actor for record in found.values()} == {ALICE}
    assert found["pool"].request.id == found["stream"].request.id == found["background"].request.id
    assert found["endpoint"].request.id == found["syncstream"].request.id != found["pool"].request.id


def test_a_task_that_outlives_its_request_works_for_the_service(audit: CapturedAudit) -> None:
    go_on, done = asyncio.Event(), asyncio.Event()
    running: list[Any] = []

    async def outliving() -> None:
        note("during")
        await go_on.wait()
        note("afterwards")
        done.set()

    async def starting(request: StarletteRequest) -> Response:
        running.append(asyncio.create_task(outliving()))
        await asyncio.sleep(0)
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/", starting)], middleware=[AUTHENTICATING])

    async def visit() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as calls:
            await calls.get("/", headers=bearer())
            go_on.set()
            await done.wait()

    asyncio.run(visit())
    during, afterwards = audit.records
    assert during.actor == ALICE
    assert afterwards.actor.type != "user"
    assert afterwards.origin is not None
    assert (afterwards.origin.actor, afterwards.origin.request) == ("alice", during.request.id)


def test_nothing_of_a_request_reaches_the_next(audit: CapturedAudit) -> None:
    app = Starlette(routes=[Route("/{n}", noting)], middleware=[AUTHENTICATING])

    async def visit() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as calls:
            await calls.get("/0", headers=bearer("user-0"))
            await calls.get("/x")
            await asyncio.gather(*(calls.get(f"/{n}", headers=bearer(f"user-{n}")) for n in range(1, 30)))

    asyncio.run(visit())
    note("outside")
    for record in audit.find(event_name="ship.note"):
        number = record.request.path.removeprefix("/")
        assert record.actor.id == ("anonymous" if number == "x" else f"user-{number}")
    assert audit.one(event_name="ship.outside").request.id == ""


def test_an_application_that_calls_itself_makes_a_request_within_a_request(audit: CapturedAudit) -> None:
    calls: list[httpx.AsyncClient] = []

    async def outer(request: StarletteRequest) -> Response:
        note("outer")
        await calls[0].get("/inner/7", headers=bearer("billing"))
        note("outer-again")
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/", outer), Route("/inner/{id}", noting)], middleware=[AUTHENTICATING])

    async def visit() -> None:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client_:
            calls.append(client_)
            await client_.get("/", headers=bearer())

    asyncio.run(visit())
    first, inner, again = audit.records
    assert first.actor == again.actor == ALICE
    assert inner.actor.id == "billing"
    assert first.request == again.request
    assert inner.request.id != first.request.id


def test_nested_applications_see_one_request(audit: CapturedAudit) -> None:
    sub = Starlette(routes=[Route("/", noting)])
    denied = FastAPI()

    @denied.get("/")
    def no() -> None:
        note()
        raise HTTPException(403)

    app = FastAPI(routes=[Mount("/sub", app=sub), Mount("/denied", app=denied)])
    client(app).get("/sub/")
    client(app).get("/denied/")
    assert len(audit.find(event_name="http.request.denied")) == 1
    assert len(audit.records) == 3


@pytest.mark.parametrize("kind", [Starlette, FastAPI])
def test_what_is_done_at_start_and_end_is_the_systems(audit: CapturedAudit, kind: Any) -> None:
    stop = asyncio.Event()

    async def looping() -> None:
        note("loop")

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        note("start")
        task = asyncio.create_task(looping())
        yield
        await task
        note("end")
        stop.set()

    app = kind(lifespan=lifespan, routes=[Route("/", noting)])
    with client(app) as calls:
        calls.get("/")
    actors = {record.event_name: record.actor for record in audit}
    assert actors["ship.start"] == actors["ship.loop"] == actors["ship.end"] == Actor("lifespan", "system")
    assert actors["ship.note"] == ANONYMOUS
    view = audit.one(event_name="ship.start").request.view
    assert (
        view == f"{__name__}.{test_what_is_done_at_start_and_end_is_the_systems.__name__}.<locals>.lifespan"
    )


# --- websockets ----------------------------------------------------------------------------------


def test_a_websocket_connection_is_one_request(audit: CapturedAudit) -> None:
    app = FastAPI(middleware=[AUTHENTICATING])

    @app.websocket("/ships/{id}/positions")
    async def positions(socket: WebSocket) -> None:
        await socket.accept()
        for _ in range(2):
            await socket.receive_text()
            note()
        await socket.close()

    with client(app).websocket_connect("/ships/7/positions", headers=bearer()) as socket:
        socket.send_text("a")
        socket.send_text("b")
        with pytest.raises(WebSocketDisconnect):
            socket.receive_text()
    first, second = audit.records
    assert first.actor == second.actor == ALICE
    assert first.request == second.request
    assert (first.request.method, first.request.route) == ("GET", "/ships/{id}/positions")


# --- denials -------------------------------------------------------------------------------------


async def _nothing(request: StarletteRequest) -> Response:
    return PlainTextResponse("")


@pytest.mark.parametrize(
    ("headers", "status", "actor"), [({}, 401, ANONYMOUS), (bearer("bob"), 403, Actor("bob", "user", "bob"))]
)
def test_a_refusal_is_recorded_with_who_asked(
    audit: CapturedAudit, headers: dict[str, str], status: int, actor: Actor
) -> None:
    app = FastAPI(middleware=[AUTHENTICATING])

    @app.delete("/ships/{id}")
    async def remove() -> None:
        raise HTTPException(status)

    client(app).delete("/ships/7", headers=headers)
    record = audit.one(event_name="http.request.denied")
    assert (record.action, record.outcome, record.error) == ("ACCESS", "failure", str(status))
    assert record.target == Target("http.route", "/ships/{id}")
    assert record.attributes == {"http.response.status_code": status}
    assert record.actor == actor


def test_a_refusal_by_a_middleware_is_recorded(audit: CapturedAudit) -> None:
    async def refusing(request: Any, call_next: Any) -> Any:
        return PlainTextResponse("no", 403)

    app = Starlette(
        routes=[Route("/ships", noting)], middleware=[Middleware(BaseHTTPMiddleware, dispatch=refusing)]
    )
    client(app).get("/ships")
    assert audit.one(event_name="http.request.denied").target == Target("http.route", "/ships")


def test_a_redirect_to_the_login_is_a_denial_and_others_are_none(audit: CapturedAudit) -> None:
    @requires("authenticated", redirect="login")
    async def private(request: StarletteRequest) -> Response:
        return PlainTextResponse("")

    async def elsewhere(request: StarletteRequest) -> Response:
        return RedirectResponse("/login?next=/somewhere/else")

    app = Starlette(
        routes=[
            Route("/private", private),
            Route("/elsewhere", elsewhere),
            Route("/login", noting, name="login"),
        ],
        middleware=[AUTHENTICATING],
    )
    calls = client(app, follow_redirects=False)
    calls.get("/private?page=2")
    calls.get("/elsewhere")
    assert audit.one(event_name="http.request.denied").error == "login_required"


def test_websockets_are_denied_before_and_after_they_are_accepted(audit: CapturedAudit) -> None:
    app = FastAPI()

    @app.websocket("/before")
    async def before(socket: WebSocket) -> None:
        await socket.close()

    @app.websocket("/after")
    async def after(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close(1008)

    @app.websocket("/fine")
    async def fine(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    for path in ("/before", "/after", "/fine", "/nowhere"):
        with pytest.raises(WebSocketDisconnect), client(app).websocket_connect(path) as socket:
            socket.receive_text()
    denied = audit.find(event_name="http.request.denied")
    assert [(record.target, record.error) for record in denied] == [
        (Target("http.route", "/before"), "403"),
        (Target("http.route", "/after"), "1008"),
    ]


def test_denials_are_an_option(instrumented: Instrumented) -> None:
    async def no(request: StarletteRequest) -> Response:
        return PlainTextResponse("", 403)

    with instrumented(auth_events=False) as audit:
        client(Starlette(routes=[Route("/", no)])).get("/")
        assert not audit.records


# --- logins --------------------------------------------------------------------------------------


def test_a_login_a_logout_and_a_failed_login_are_one_call_each(audit: CapturedAudit) -> None:
    class Account:
        def __init__(self) -> None:
            self.id, self.username = 7, "alice"

    async def page(request: StarletteRequest) -> Response:
        note("before")
        otel_audit.login_failed("alcie")
        otel_audit.login(Account())
        note("inside")
        otel_audit.logout()
        note("after")
        return PlainTextResponse("")

    client(Starlette(routes=[Route("/", page)])).get("/")
    alice = Actor("7", "user", "alice")
    failed = audit.one(event_name="user.login.failure")
    assert (failed.actor, failed.outcome, failed.target) == (
        ANONYMOUS,
        "failure",
        Target("user.name", "alcie"),
    )
    assert failed.error == "authentication_failed"
    login = audit.one(event_name="user.login.success")
    assert (login.action, login.actor) == ("LOGIN", alice)
    assert login.target is not None
    assert login.target.type.endswith(".Account")
    assert login.target.id == "7"
    logout = audit.one(event_name="user.logout")
    assert (logout.action, logout.actor) == ("LOGOUT", alice)
    actors = [audit.one(event_name=f"ship.{name}").actor for name in ("before", "inside", "after")]
    assert actors == [ANONYMOUS, alice, ANONYMOUS]
    assert len({record.request.id for record in audit}) == 1


def test_a_logout_of_nobody_is_none(audit: CapturedAudit) -> None:
    async def page(request: StarletteRequest) -> Response:
        assert otel_audit.logout() is None
        return PlainTextResponse("")

    client(Starlette(routes=[Route("/", page)])).get("/")
    assert not audit.records


def test_a_name_of_no_account_may_be_hidden(instrumented: Instrumented) -> None:
    with instrumented(redaction=RedactionConfig(unknown_user_names="mask")) as audit:
        otel_audit.login_failed("hunter2")
        otel_audit.login_failed("alice", known=True)
        audit.assert_no_secrets("hunter2")
        assert any(record.target == Target("user.name", "alice") for record in audit)


def test_an_actor_set_outside_a_request_is_told_once(
    audit: CapturedAudit, caplog: pytest.LogCaptureFixture
) -> None:
    from otel_audit import authentication

    authentication._said.clear()
    otel_audit.set_actor("alice")
    otel_audit.set_actor("alice")
    assert caplog.text.count("outside a request") == 1


# --- the instrumentor ----------------------------------------------------------------------------


def test_applications_made_before_are_audited_and_left_alone_afterwards(instrumented: Instrumented) -> None:
    app = Starlette(routes=[Route("/", noting)], middleware=[AUTHENTICATING])
    before = {name: vars(Starlette)[name] for name in ("__call__", "build_middleware_stack")}
    calls = client(app)
    calls.get("/", headers=bearer())  # its middleware is built now
    with instrumented() as audit:
        calls.get("/", headers=bearer())
        assert audit.one(event_name="ship.note").actor == ALICE
        assert vars(Starlette)["__call__"] is not before["__call__"]
    assert {name: vars(Starlette)[name] for name in before} == before
    assert calls.get("/").status_code == 200


def test_an_exception_of_the_application_is_its_own(audit: CapturedAudit) -> None:
    async def broken(request: StarletteRequest) -> Response:
        note()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        client(Starlette(routes=[Route("/", broken)])).get("/")
    note("outside")
    assert audit.one(event_name="ship.outside").request.id == ""


def test_switched_off_by_configuration_nothing_is_wrapped(instrumented: Instrumented) -> None:
    original = vars(Starlette)["__call__"]
    with instrumented(enabled=False):
        assert vars(Starlette)["__call__"] is original
