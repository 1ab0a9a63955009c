"""explain request: view and route are found as the running service finds them, of each framework."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from otel_audit.config.model import AuditConfig, RequestsConfig
from otel_audit.instrumentation.starlette import StarletteAuditInstrumentor
from otel_audit.testing import capture_audit
from tests.cli.conftest import Command, Done

SERVICE = """
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Route

import otel_audit


app = FastAPI()
desk = APIRouter(prefix="/desk")

@app.get("/cards/{number:int}")
def card(number: int) -> int:
    return number

@app.post("/cards/{number:int}")
@otel_audit.audit_request(slug="pay", level="request")
def pay(number: int) -> int:
    return number

@app.get("/cards/new")
def unreachable() -> str:
    return "new"

@desk.get("/list/{name}")
def listed(name: str) -> str:
    return name

class Page(HTTPEndpoint):
    async def get(self, request):
        return PlainTextResponse("page")

async def login(request):
    return PlainTextResponse("in")

async def partner(request):
    return PlainTextResponse("partner")

app.include_router(desk, prefix="/v1")
inner = Starlette(routes=[Route("/page", Page), Route("/login/{then:path}", login, methods=["POST"])])
app.mount("/pages", inner)
app.router.routes.append(Host("partner.example", Starlette(routes=[Route("/who", partner)])))
app.add_middleware(GZipMiddleware)
wrapped = GZipMiddleware(app)

def make() -> FastAPI:
    return app

broken = object()
"""
CONFIG = """
[requests]
enabled = true

[[policy]]
view = "service.*"
level = "request"
"""
PATHS = [
    ("GET", "/cards/7"),
    ("POST", "/cards/7"),
    ("DELETE", "/cards/7"),
    ("GET", "/cards/new"),
    ("GET", "/v1/desk/list/a%20b"),
    ("GET", "/pages/page"),
    ("GET", "/pages/nothing"),
    ("POST", "/pages/login/next/page"),
    ("GET", "/openapi.json"),
]


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "service.py").write_text(SERVICE)
    (tmp_path / "otel-audit.toml").write_text(CONFIG)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("service", None)


def asked(command: Command, *arguments: str) -> Done:
    done = command("explain", "request", *arguments, width=200)
    assert done.status == 0, done.err
    return done


def test_view_and_route_are_those_of_the_record_of_the_request(command: Command, service: Path) -> None:
    app: Any = importlib.import_module("service").app
    with capture_audit(AuditConfig(requests=RequestsConfig(enabled=True))) as captured:
        instrumentor = StarletteAuditInstrumentor()
        instrumentor.instrument(config=captured.pipeline.config)
        try:
            client = TestClient(app)
            for method, path in PATHS:
                client.request(method, path)
        finally:
            instrumentor.uninstrument()
    records = captured.find(event_name="http.server.request")
    assert len(records) == len(PATHS)
    for (method, path), record in zip(PATHS, records, strict=True):
        done = asked(command, method, path, "--app", "service:app")
        assert f"(view {record.request.view}, route {record.request.route})" in done.out, path
        assert "not known" not in done.err


def test_the_application_is_found_in_the_files_here(command: Command, service: Path) -> None:
    done = asked(command, "GET", "/v1/desk/list/x")
    assert "view service.listed, route /v1/desk/list/{name}" in done.out
    assert "policy 1" in done.out
    assert "view and route are those of service:app; --app names another application" in done.err


def test_the_application_is_the_one_uvicorn_is_told(
    command: Command, service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UVICORN_APP", "service:inner")
    assert "view service.Page, route /page" in asked(command, "GET", "/page").out


@pytest.mark.parametrize("name", ["service:wrapped", "service:make", "service"])
def test_middlewares_and_factories_lead_to_the_application(
    command: Command, service: Path, name: str
) -> None:
    assert "view service.card, route /cards/{number}" in asked(command, "GET", "/cards/7", "--app", name).out


def test_its_module_is_looked_for_where_uvicorn_is_told(command: Command, service: Path) -> None:
    (service / "src").mkdir()
    (service / "src" / "moved.py").write_text("from service import app")
    done = asked(command, "GET", "/cards/7", "--app", "moved:app", "--app-dir", "src")
    assert "view service.card" in done.out


def test_a_route_of_a_host_is_found_with_it(command: Command, service: Path) -> None:
    assert "service.partner" in asked(command, "GET", "https://partner.example/who").out
    assert "it answers 404" in asked(command, "GET", "/who").err


def test_what_the_view_says_itself_is_a_note(command: Command, service: Path) -> None:
    done = asked(command, "POST", "/cards/7")
    assert "the view itself says audit_request(slug='pay', level='request')" in done.err


def test_an_application_of_flask_is_asked_as_well(command: Command, service: Path) -> None:
    (service / "shop_wsgi.py").write_text(
        "from flask import Flask\nimport otel_audit\napp = Flask(__name__)\n"
        "@app.get('/cards/<int:pk>')\n@otel_audit.audit_exempt\ndef card(pk):\n    return str(pk)\n"
        "app.wsgi_app = otel_audit.WSGIAuditMiddleware(app.wsgi_app)\n"
    )
    done = asked(command, "GET", "/cards/7", "--app", "shop_wsgi:app")
    assert "view shop_wsgi.card, route /cards/<int:pk>" in done.out
    assert "the view itself says audit_exempt" in done.err
    assert "it answers 404" in asked(command, "GET", "/none", "--app", "shop_wsgi:app").err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("service:nothing", "service has no 'nothing'"),
        ("nowhere:app", "No module named 'nowhere'"),
        ("service:broken", "is no application of Starlette, FastAPI or Flask"),
    ],
)
def test_what_is_no_application_is_a_note(command: Command, service: Path, name: str, message: str) -> None:
    assert message in asked(command, "GET", "/cards/7", "--app", name).err


def test_no_view_is_called_and_nothing_is_recorded(command: Command, service: Path) -> None:
    (service / "loud.py").write_text(
        "from pathlib import Path\nfrom fastapi import FastAPI\napp = FastAPI()\n"
        "@app.middleware('http')\nasync def middleware(request, call):\n    Path('called').touch()\n"
        "@app.get('/')\ndef index():\n    Path('called').touch()\n"
    )
    assert "view loud.index" in asked(command, "GET", "/", "--app", "loud:app").out
    assert not (service / "called").exists()
    assert not (service / ".otel-audit").exists()
