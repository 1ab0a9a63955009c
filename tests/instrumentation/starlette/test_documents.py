"""docs/fastapi.md: its settings are settings, its programs run, and do what the page says."""

import importlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import jwt
import pytest
import sqlalchemy
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request

import otel_audit
from otel_audit.audit_record import Actor, Target
from otel_audit.config.loader import load
from otel_audit.config.model import AuditConfig, ContextConfig
from otel_audit.testing import capture_audit
from tests.e2e.running import BIN, Process, answers
from tests.instrumentation.starlette.conftest import Instrumented
from tests.pipeline.spooling import spooled_records
from tests.services import free_port

PAGE = (Path(__file__).parents[3] / "docs" / "fastapi.md").read_text("utf-8")
SETTINGS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
PROGRAMS = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE, re.DOTALL))

Imported = Callable[..., ModuleType]


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Imported]:
    """Import a program of the page under the name that it has there."""
    monkeypatch.syspath_prepend(tmp_path)
    names: list[str] = []

    def importing(name: str, before: str = "") -> ModuleType:
        names.append(name)
        (tmp_path / f"{name}.py").write_text(before + PROGRAMS[name])
        return importlib.import_module(name)

    yield importing
    for name in names:
        sys.modules.pop(name, None)


def context_of(function: str, tmp_path: Path) -> ContextConfig:
    """The configuration of the page that names ``function``."""
    [text] = [each for each in SETTINGS if f'"{function}"' in each]
    (tmp_path / "otel-audit.toml").write_text(text)
    return load(tmp_path / "otel-audit.toml", environ={}).config.context


@pytest.mark.parametrize("text", SETTINGS)
def test_each_configuration_of_the_page_is_one(tmp_path: Path, text: str) -> None:
    file = tmp_path / "otel-audit.toml"
    file.write_text(text)
    loaded = load(file, environ={})
    assert loaded.origins
    assert not [note for note in loaded.notes if "personal_numbers" not in note]


def test_the_five_minutes_end_with_a_trail(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(PROGRAMS["main"])
    (tmp_path / "otel-audit.toml").write_text(SETTINGS[0])
    variables = dict(re.findall(r"^export (\w+)=(\S+)", PAGE, re.MULTILINE))
    [command] = re.findall(r"^(opentelemetry-instrument uvicorn \S+)", PAGE, re.MULTILINE)
    program, *arguments = command.split()
    port = free_port()
    service = Process(
        [str(BIN / program), *arguments, f"--port={port}"],
        variables
        | {"PATH": f"{BIN}:{os.environ['PATH']}"}
        | {f"OTEL_{kind}_EXPORTER": "none" for kind in ("TRACES", "METRICS")},
        tmp_path / "log",
        cwd=tmp_path,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        service.wait_until(lambda: answers(url), "the application answers")
        assert httpx.post(f"{url}/shipments").json() == 1
        assert httpx.post(f"{url}/shipments/1/ship").status_code == 200
    finally:
        service.stop()
    records = spooled_records(tmp_path / ".otel-audit" / "spool")
    created, shipped = [record for record in records if record.target == Target("main.Shipment", "1")]
    assert (created.action, created.request.route) == ("CREATE", "/shipments")
    assert (shipped.action, shipped.request.route) == ("UPDATE", "/shipments/{number}/ship")
    assert [(each.field, each.old, each.new) for each in shipped.changes] == [("state", "packed", "shipped")]
    assert shipped.actor.id == "anonymous"
    assert shipped.trace_id, "OpenTelemetry's instrumentation comes with the extra"
    lines = [line for line in (tmp_path / "log").read_text().splitlines() if "INFO:" not in line]
    assert not [line for line in lines if "main.Shipment" in line], "nothing is wrong with its class"


def test_the_dependency_that_reads_a_token(
    instrumented: Instrumented, imported: Imported, tmp_path: Path
) -> None:
    accounts = imported("accounts")
    app = FastAPI()

    @app.get("/", dependencies=[Depends(accounts.current_user)])
    def index() -> None:
        otel_audit.record("ship.note", "NOTE")

    good = jwt.encode({"sub": "7", "preferred_username": "alice"}, accounts.KEY)
    forged = jwt.encode({"sub": "7"}, accounts.KEY[::-1])
    with instrumented(context=context_of("accounts:current_user", tmp_path)) as audit:
        for token, status in ((good, 200), (forged, 401)):
            answer = TestClient(app).get("/", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == status
        assert audit.one(event_name="ship.note").actor == Actor("7", "user", "alice")
        assert audit.one(event_name="http.request.denied").actor == Actor("unknown", "unknown")
        audit.assert_no_secrets(good, forged)


def test_the_function_that_reads_a_session(
    instrumented: Instrumented, imported: Imported, tmp_path: Path
) -> None:
    imported("sessions")
    app = FastAPI(middleware=[Middleware(SessionMiddleware, secret_key="secret")])

    @app.get("/callback")
    def callback(request: Request) -> None:
        request.session["user"] = {"sub": "7", "name": "Alice"}

    @app.get("/")
    def index() -> None:
        otel_audit.record("ship.note", "NOTE")

    with instrumented(context=context_of("sessions:who", tmp_path)) as audit:
        calls = TestClient(app)
        for path in ("/", "/callback", "/"):
            assert calls.get(path).status_code == 200
        before, after = audit.find(event_name="ship.note")
    assert before.actor == Actor("anonymous", "unknown")
    assert after.actor == Actor("7", "user", "Alice")
    assert (before.source.session, after.source.session[:7]) == ("", "sha256:")


OAUTH = """
import httpx
from authlib.integrations.starlette_client import OAuth
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import Response

import otel_audit

app = FastAPI(middleware=[Middleware(SessionMiddleware, secret_key="secret")])
oauth = OAuth()

def register(provider):
    oauth.register(
        "company",
        client_id="ship",
        client_secret="secret of the client",
        server_metadata_url="http://company.example/.well-known/openid-configuration",
        client_kwargs={"scope": "openid profile", "transport": httpx.ASGITransport(provider)},
    )

"""


def provider_of_identities() -> tuple[FastAPI, dict[str, str]]:
    """Make an OpenID Connect provider whose only user is Alice, and what it was last asked for."""
    provider, asked = FastAPI(), dict[str, str]()
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))

    @provider.get("/.well-known/openid-configuration")
    def configuration() -> dict[str, str]:
        base = "http://company.example"
        paths = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        return {"issuer": base} | {name: f"{base}/{path}" for name, path in paths.items()}

    @provider.get("/keys")
    def keys() -> dict[str, Any]:
        return {"keys": [public | {"kid": "1", "use": "sig", "alg": "RS256"}]}

    @provider.post("/token")
    def token() -> dict[str, str]:
        now = int(time.time())
        claims = {"iss": "http://company.example", "aud": "ship", "nonce": asked["nonce"]}
        claims |= {"sub": "7", "name": "Alice"}
        signed = jwt.encode(
            claims | {"iat": now, "exp": now + 60}, key, algorithm="RS256", headers={"kid": "1"}
        )
        return {"access_token": "opaque-4711", "token_type": "Bearer", "id_token": signed}

    return provider, asked


def test_the_session_and_the_login_of_authlib(
    instrumented: Instrumented, imported: Imported, tmp_path: Path
) -> None:
    """By the whole exchange: to the provider, back with a code, which is changed for a signed token."""
    imported("sessions")
    oauth = imported("oauth", OAUTH)
    provider, asked = provider_of_identities()
    oauth.register(provider)
    app: FastAPI = oauth.app

    @app.get("/")
    def index() -> None:
        otel_audit.record("ship.note", "NOTE")

    with instrumented(context=context_of("sessions:who", tmp_path)) as audit, TestClient(app) as calls:
        assert calls.get("/").status_code == 200
        away = calls.get("/login", follow_redirects=False).headers["location"]
        asked.update(parse_qsl(urlsplit(away).query))
        back = {"code": "code-4711", "state": asked["state"]}
        assert calls.get("/callback", params=back).json() == {"name": "Alice"}
        assert calls.get("/").status_code == 200
        before, login, after = audit.records
        audit.assert_no_secrets("secret of the client", "opaque-4711", asked["nonce"])
    assert (before.actor.id, login.event_name) == ("anonymous", "user.login.success")
    assert login.actor == after.actor == Actor("7", "user", "Alice")


@pytest.mark.parametrize("name", ["asgi", "wsgi"])
def test_the_middleware_of_other_frameworks(imported: Imported, name: str) -> None:
    app: Any = imported(name).app
    with capture_audit(AuditConfig()) as audit:
        if name == "asgi":
            assert TestClient(app).get("/shipments").text == "none"
        else:
            app.get("/shipments")(lambda: str(otel_audit.record("ship.note", "NOTE") and "none"))
            assert app.test_client().get("/shipments").text == "none"
            assert audit.one(event_name="ship.note").request.route == "/shipments"


USERS = """
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import Depends
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin, schemas
from fastapi_users.authentication import AuthenticationBackend, BearerTransport, JWTStrategy
from fastapi_users.db import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase
from sqlalchemy import StaticPool
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase

import otel_audit

class Base(DeclarativeBase):
    pass

class User(SQLAlchemyBaseUserTableUUID, Base):
    pass

class UserCreate(schemas.BaseUserCreate):
    pass

engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)

async def get_database() -> AsyncIterator[SQLAlchemyUserDatabase]:
    async with AsyncSession(engine) as session:
        yield SQLAlchemyUserDatabase(session, User)

async def get_user_manager(database: Annotated[SQLAlchemyUserDatabase, Depends(get_database)]):
    yield UserManager(database)

def get_strategy() -> JWTStrategy:
    return JWTStrategy(secret="a secret of at least thirty-two characters", lifetime_seconds=60)

backend = AuthenticationBackend("jwt", BearerTransport("login"), get_strategy)

"""


@pytest.mark.skipif(
    sqlalchemy.__version__ >= "2.1", reason="fastapi-users has no release for SQLAlchemy 2.1 yet"
)
def test_the_dependency_and_the_logins_of_fastapi_users(
    instrumented: Instrumented, imported: Imported, tmp_path: Path
) -> None:
    users = imported("users", USERS)
    app = FastAPI()
    app.include_router(users.fastapi_users.get_auth_router(users.backend))

    @app.get("/")
    async def index(user: Annotated[Any, Depends(users.current_user)]) -> None:
        otel_audit.record("ship.note", "NOTE")

    async def prepare() -> None:
        async with users.engine.begin() as connection:
            await connection.run_sync(users.Base.metadata.create_all)
        async for database in users.get_database():
            manager = users.UserManager(database)
            await manager.create(users.UserCreate(email="alice@ship.example", password="correct horse"))

    with instrumented(context=context_of("users:current_user", tmp_path)) as audit, TestClient(app) as calls:
        assert calls.portal is not None
        calls.portal.call(prepare)
        form = {"username": "alice@ship.example", "password": "wrong horse"}
        assert calls.post("/login", data=form).status_code == 400
        token = calls.post("/login", data=form | {"password": "correct horse"}).json()["access_token"]
        assert calls.get("/", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        assert calls.get("/").status_code == 401
        failed, login, note, denied = audit.records
        calls.portal.call(users.engine.dispose)
        audit.assert_no_secrets("horse", token)
    assert (failed.event_name, failed.actor.id) == ("user.login.failure", "anonymous")
    assert (login.event_name, note.event_name) == ("user.login.success", "ship.note")
    assert login.actor == note.actor
    assert (note.actor.type, note.actor.name) == ("user", "alice@ship.example")
    assert login.target == Target("users.User", note.actor.id)
    assert denied.actor.id == "anonymous"
