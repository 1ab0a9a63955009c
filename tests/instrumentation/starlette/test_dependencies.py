"""``context.actor_from`` names a dependency of FastAPI's: what it returns is who makes the request."""

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import jwt
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, WebSocket
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, OAuth2PasswordBearer
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Mount

import otel_audit
from otel_audit.audit_record import Actor
from otel_audit.config.model import ContextConfig
from tests.instrumentation.starlette.conftest import Instrumented

KEY = "a key of at least thirty-two characters"
ALICE = Actor("7", "user", "alice")
ANONYMOUS = Actor("anonymous", "unknown")
UNKNOWN = Actor("unknown", "unknown")

bearer = OAuth2PasswordBearer(tokenUrl="token")


def read(token: str) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(token, KEY, algorithms=["HS256"])
    except jwt.InvalidTokenError:
        raise HTTPException(401) from None
    return claims


def synchronous(token: Annotated[str, Depends(bearer)]) -> dict[str, Any]:
    return read(token)


def by_default(token: str = Depends(bearer)) -> dict[str, Any]:
    return read(token)


async def asynchronous(token: Annotated[str, Depends(bearer)]) -> dict[str, Any]:
    return read(token)


async def yielding(token: Annotated[str, Depends(bearer)]) -> AsyncIterator[dict[str, Any]]:
    yield read(token)


def yielding_synchronously(token: Annotated[str, Depends(bearer)]) -> Iterator[dict[str, Any]]:
    yield read(token)


class Bearer(HTTPBearer):
    """A class whose instance is the dependency, as in many tutorials."""

    async def __call__(self, request: HTTPConnection) -> Any:
        found = await super().__call__(request)
        assert isinstance(found, HTTPAuthorizationCredentials)
        return read(found.credentials)


instance = Bearer()


class Account:
    """A class that is the dependency itself."""

    def __init__(self, token: Annotated[str, Depends(bearer)]) -> None:
        claims = read(token)
        self.id, self.username = claims["sub"], claims["preferred_username"]


KINDS = (
    "synchronous",
    "by_default",
    "asynchronous",
    "yielding",
    "yielding_synchronously",
    "instance",
    "Account",
)


def configured(name: str) -> ContextConfig:
    return ContextConfig(actor_from=f"{__name__}:{name}")


def token(**claims: Any) -> dict[str, str]:
    claims = {"sub": "7", "preferred_username": "alice"} | claims
    return {"Authorization": f"Bearer {jwt.encode(claims, KEY)}"}


@pytest.mark.parametrize("name", KINDS)
def test_what_a_dependency_returns_is_who_acts(instrumented: Instrumented, name: str) -> None:
    app = FastAPI()

    @app.get("/", dependencies=[Depends(globals()[name])])
    def index() -> None:
        otel_audit.record("ship.note", "NOTE")

    with instrumented(context=configured(name)) as audit:
        assert TestClient(app).get("/", headers=token()).status_code == 200
        assert audit.one(event_name="ship.note").actor == ALICE


def test_a_later_dependency_that_refuses_refuses_a_known_user(instrumented: Instrumented) -> None:
    def only_admins(user: Annotated[dict[str, Any], Depends(synchronous)]) -> None:
        raise HTTPException(403)

    app = FastAPI()

    @app.get("/", dependencies=[Depends(only_admins)])
    def index() -> None:
        raise AssertionError

    with instrumented(context=configured("synchronous")) as audit:
        assert TestClient(app).get("/", headers=token()).status_code == 403
        assert TestClient(app).get("/", headers={"Authorization": "Bearer forged"}).status_code == 401
        assert TestClient(app).get("/").status_code == 401
        denied = audit.find(event_name="http.request.denied")
    assert [(record.error, record.actor) for record in denied] == [
        ("403", ALICE),
        ("401", UNKNOWN),
        ("401", ANONYMOUS),
    ]


def test_endpoints_without_the_dependency_and_websockets_with_it(instrumented: Instrumented) -> None:
    app = FastAPI()

    @app.get("/open")
    def index() -> None:
        otel_audit.record("ship.open", "NOTE")

    @app.websocket("/positions")
    async def positions(socket: WebSocket, user: Annotated[dict[str, Any], Depends(by_header)]) -> None:
        await socket.accept()
        otel_audit.record("ship.position", "NOTE")
        await socket.close()

    with instrumented(context=configured("by_header")) as audit:
        TestClient(app).get("/open", headers=token())
        with TestClient(app).websocket_connect("/positions", headers=token()):
            pass
        assert audit.one(event_name="ship.open").actor == UNKNOWN, "nobody looked at the token"
        assert audit.one(event_name="ship.position").actor == ALICE


async def by_header(socket: WebSocket) -> dict[str, Any]:
    return read(socket.headers["authorization"].removeprefix("Bearer "))


def test_an_override_of_the_application_says_who_acts(instrumented: Instrumented) -> None:
    """As tests of applications do: FastAPI's ``dependency_overrides``."""
    app = FastAPI()
    app.dependency_overrides[synchronous] = lambda: {"sub": "8"}

    @app.get("/", dependencies=[Depends(synchronous)])
    def index() -> None:
        otel_audit.record("ship.note", "NOTE")

    with instrumented(context=configured("synchronous")) as audit:
        assert TestClient(app).get("/").status_code == 200
        assert audit.one(event_name="ship.note").actor == Actor("8", "user")


answer: list[Any] = []


async def answering() -> Any:
    return answer[0]


class Confused:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("confused")


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, ""),
        (True, "returned 'bool'"),
        (object(), "returned 'object'"),
        ({"password": "hunter2"}, "returned 'dict'"),
        (Confused, "failed RuntimeError('confused')"),
    ],
)
def test_a_dependency_that_returns_no_user_costs_nothing_but_the_actor(
    instrumented: Instrumented, caplog: pytest.LogCaptureFixture, returned: Any, said: str
) -> None:
    app = FastAPI()

    @app.get("/", dependencies=[Depends(answering)])
    def index() -> None:
        otel_audit.record("ship.note", "NOTE")

    answer[:] = [Confused() if returned is Confused else returned]
    with instrumented(context=configured("answering")) as audit, caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert TestClient(app).get("/").status_code == 200
        assert [record.actor for record in audit.find(event_name="ship.note")] == [ANONYMOUS] * 3
    messages = [message for message in caplog.messages if "actor_from" in message]
    assert len(messages) == (1 if said else 0)
    assert all(said in message and "hunter2" not in message for message in messages)


def test_fastapi_is_wrapped_only_while_a_function_is_named(instrumented: Instrumented) -> None:
    import fastapi.routing

    original = vars(fastapi.routing)["solve_dependencies"]
    with instrumented():
        assert vars(fastapi.routing)["solve_dependencies"] is original
    with instrumented(context=configured("synchronous")):
        assert vars(fastapi.routing)["solve_dependencies"] is not original
    assert vars(fastapi.routing)["solve_dependencies"] is original


def served(
    app: Any, instrumented: Instrumented, caplog: pytest.LogCaptureFixture, path: str = "/"
) -> list[str]:
    """Return what the log says of ``actor_from`` after three requests."""
    with instrumented(context=configured("asynchronous")), caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert TestClient(app).get(path, headers=token()).status_code == 200
    return [message for message in caplog.messages if "actor_from" in message]


def test_a_dependency_that_no_route_has_is_said_once_with_what_to_write(
    instrumented: Instrumented, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()

    @app.get("/", dependencies=[Depends(answering)])
    def index() -> None:
        otel_audit.record("ship.note", "NOTE")

    answer[:] = [None]
    [message] = served(app, instrumented, caplog)
    assert f"no route of this application depends on {__name__}:asynchronous" in message
    assert "FastAPI(dependencies=[Depends(asynchronous)])" in message
    assert f"({__file__}:{asynchronous.__code__.co_firstlineno})" in message


def having(place: str) -> Any:
    """Return an application one route of which has the dependency, and one, asked for, has it not."""
    app, router, part = FastAPI(), APIRouter(), FastAPI()

    def plain() -> None:
        """Has no dependency."""

    async def needs(user: Annotated[Any, Depends(asynchronous)]) -> None:
        """Has one."""

    app.get("/")(plain)
    if place == "an endpoint":
        app.get("/other")(needs)
    elif place == "below another dependency":
        app.get("/other", dependencies=[Depends(needs)])(plain)
    elif place == "a router":
        router.get("/other")(needs)
        app.include_router(router, prefix="/router")
    elif place == "an included router's own":
        router.get("/other")(plain)
        app.include_router(router, prefix="/router", dependencies=[Depends(asynchronous)])
    elif place == "a mounted application":
        part.get("/other")(needs)
        app.mount("/part", part)
    elif place == "a websocket":
        app.websocket("/other")(needs)
    else:
        return Starlette(routes=[Mount("/part", having("an endpoint"))])
    return app


@pytest.mark.parametrize(
    "place",
    [
        "an endpoint",
        "below another dependency",
        "a router",
        "an included router's own",
        "a mounted application",
        "a websocket",
        "mounted in Starlette",
    ],
)
def test_nothing_is_said_where_some_route_has_it(
    instrumented: Instrumented, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    path = "/part/" if place == "mounted in Starlette" else "/"
    assert served(having(place), instrumented, caplog, path) == []
