"""`audit_exempt` and `audit_request` on views of Flask, Litestar and Starlette, and on applications."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from flask import Blueprint, Flask
from flask.views import MethodView
from flask.views import View as FlaskView
from litestar import Controller, Litestar, get
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

import otel_audit
from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import AuditConfig, RequestsConfig
from otel_audit.config.sections.policy import PolicyRule
from otel_audit.testing import CapturedAudit, capture_audit

EVENT = "http.server.request"
HERE = __name__


@pytest.fixture
def audit() -> Iterator[CapturedAudit]:
    with capture_audit(AuditConfig(requests=RequestsConfig(enabled=True))) as captured:
        yield captured


def slugs(captured: CapturedAudit) -> list[str]:
    return [record.slug for record in captured.find(event_name=EVENT)]


def request_of(captured: CapturedAudit) -> AuditRecord:
    return captured.one(event_name=EVENT)


# --- Flask ---------------------------------------------------------------------------------------


def flask(*rules: tuple[str, Callable[..., Any]]) -> httpx.Client:
    app = Flask(HERE)
    for path, view in rules:
        app.add_url_rule(path, view_func=view, methods=getattr(view, "methods", ("GET", "POST")))
    app.wsgi_app = otel_audit.WSGIAuditMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    return httpx.Client(transport=httpx.WSGITransport(app=app), base_url="http://shop.example")


@otel_audit.audit_exempt
def pixel() -> str:
    otel_audit.record("shop.note", "NOTE")
    return "."


@otel_audit.audit_request(slug="pay", level="request", related="shop.Card/{pk}")
def pay(pk: int) -> dict[str, str]:
    from flask import request

    return {"note": request.get_json()["note"]}


def test_a_view_of_flask_may_be_exempt(audit: CapturedAudit) -> None:
    assert flask(("/pixel", pixel)).get("/pixel").text == "."
    assert audit.find(event_name=EVENT) == []
    assert audit.one(event_name="shop.note").request.view == f"{HERE}.pixel", "what happens in it is recorded"


def test_a_view_of_flask_says_what_its_record_is_to_be(audit: CapturedAudit) -> None:
    answer = flask(("/pay/<int:pk>", pay)).post("/pay/7", json={"note": "x", "password": "hunter2hunter2"})
    assert answer.json() == {"note": "x"}
    record = request_of(audit)
    assert (record.slug, [str(each) for each in record.related]) == ("pay", ["shop.Card/7"])
    assert record.request.view == f"{HERE}.pay"
    assert record.attributes["request.body"] == {"note": "x", "password": "[redacted]"}
    assert "response.body" not in record.attributes
    audit.assert_no_secrets("hunter2hunter2")


class Cards(MethodView):
    def get(self) -> str:
        return "got"

    @otel_audit.audit_exempt
    def post(self) -> str:
        return "posted"


@otel_audit.audit_request(slug="class")
class Orders(FlaskView):
    methods = ("GET",)

    def dispatch_request(self) -> str:
        return "orders"


class Ships(FlaskView):
    methods = ("GET",)

    @otel_audit.audit_request(slug="dispatched")
    def dispatch_request(self) -> str:
        return "ships"


class Carts(FlaskView):
    methods = ("GET",)
    decorators = (otel_audit.audit_request(slug="decorated"),)  # type: ignore[assignment]

    def dispatch_request(self) -> str:
        return "carts"


def test_views_of_flask_that_are_classes_may_be_marked(audit: CapturedAudit) -> None:
    client = flask(
        ("/cards", Cards.as_view("cards")),
        ("/orders", Orders.as_view("orders")),
        ("/ships", Ships.as_view("ships")),
        ("/carts", Carts.as_view("carts")),
    )
    for path in ("/cards", "/orders", "/ships", "/carts"):
        assert client.get(path).status_code == 200
    assert client.post("/cards").text == "posted"
    assert slugs(audit) == ["", "class", "dispatched", "decorated"]
    views = [record.request.view for record in audit.find(event_name=EVENT)]
    assert views == [f"{HERE}.{name}" for name in ("Cards", "Orders", "Ships", "Carts")]


def test_a_view_of_a_blueprint_may_be_marked_above_its_route(audit: CapturedAudit) -> None:
    desk = Blueprint("desk", HERE, url_prefix="/desk")

    @otel_audit.audit_request(slug="listed")
    @desk.get("/list")
    def listed() -> str:
        return "listed"

    app = Flask(HERE)
    app.register_blueprint(desk)
    app.wsgi_app = otel_audit.WSGIAuditMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    transport = httpx.WSGITransport(app=app)
    httpx.Client(transport=transport, base_url="http://shop.example").get("/desk/list")
    assert slugs(audit) == ["listed"]


def test_a_stream_of_flask_keeps_the_marks_of_its_view(audit: CapturedAudit) -> None:
    @otel_audit.audit_request(slug="export")
    def export() -> Any:
        return iter(["a", "b"])

    assert flask(("/export", export)).get("/export").text == "ab"
    assert slugs(audit) == ["export"]


def test_a_rule_names_a_view_of_flask_as_it_names_any_other() -> None:
    def login() -> str:
        return "in"

    rules = [
        PolicyRule(view=f"{HERE}.pixel", level="metadata", slug="named"),
        PolicyRule(view=f"{HERE}.*", level="request_response"),
    ]
    config = AuditConfig(requests=RequestsConfig(enabled=True), policy=rules)
    with capture_audit(config) as captured:
        client = flask(("/pixel", pixel), ("/in", login))
        client.get("/pixel")
        client.post("/in", json={"note": "x"})
    named, login_record = captured.find(event_name=EVENT)
    assert named.slug == "named", "a rule that names a view is stronger than its decorator"
    assert "request.body" not in login_record.attributes, "a login is never recorded above metadata"


# --- Litestar ------------------------------------------------------------------------------------


def litestar(*handlers: Any) -> TestClient:
    return TestClient(otel_audit.ASGIAuditMiddleware(Litestar(list(handlers))))


class Desk(Controller):
    path = "/desk"

    @get("/seen")
    async def seen(self) -> str:
        return "seen"

    @get("/unseen")
    @otel_audit.audit_exempt
    async def unseen(self) -> str:
        return "unseen"


def test_handlers_of_litestar_may_be_marked_above_and_below_their_route(audit: CapturedAudit) -> None:
    @get("/below")
    @otel_audit.audit_exempt
    async def below() -> str:
        return "below"

    @otel_audit.audit_request(slug="above")
    @get("/above")
    async def above() -> str:
        return "above"

    client = litestar(below, above)
    assert (client.get("/below").text, client.get("/above").text) == ("below", "above")
    assert slugs(audit) == ["above"]


def test_a_controller_of_litestar_may_be_marked(audit: CapturedAudit) -> None:
    client = litestar(otel_audit.audit_request(slug="desk")(Desk))
    assert (client.get("/desk/seen").text, client.get("/desk/unseen").text) == ("seen", "unseen")
    assert slugs(audit) == ["desk"]


# --- Starlette's endpoints, and whole applications -----------------------------------------------


@otel_audit.audit_request(slug="function")
async def shown(request: Request, name: str = "") -> Response:
    return PlainTextResponse(name)


@otel_audit.audit_request(slug="holder")
class Holder:
    async def page(self, request: Request) -> Response:
        return PlainTextResponse("page")

    @otel_audit.audit_exempt
    async def silent(self, request: Request) -> Response:
        return PlainTextResponse("silent")


async def plain(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("plain")(scope, receive, send)


def test_endpoints_of_all_kinds_may_be_marked(audit: CapturedAudit) -> None:
    holder = Holder()
    mounted = otel_audit.audit_request(slug="mounted")(functools.partial(plain))
    app = Starlette(
        routes=[
            Route("/function", shown),
            Route("/partial", functools.partial(shown, name="x")),
            Route("/page", holder.page),
            Route("/silent", holder.silent),
            Mount("/mounted", mounted),
        ]
    )
    client = TestClient(otel_audit.ASGIAuditMiddleware(app))
    for path in ("/function", "/partial", "/page", "/silent", "/mounted/x"):
        assert client.get(path).status_code == 200
    assert slugs(audit) == ["function", "function", "holder", "mounted"]


def test_an_asgi_application_may_be_marked_as_a_whole(audit: CapturedAudit) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("plain")(scope, receive, send)

    marked = otel_audit.audit_request(slug="whole")(application)
    TestClient(otel_audit.ASGIAuditMiddleware(marked)).get("/")
    assert slugs(audit) == ["whole"]
    otel_audit.audit_exempt(application)
    TestClient(otel_audit.ASGIAuditMiddleware(application)).get("/")
    assert slugs(audit) == ["whole"]


def test_a_wsgi_application_may_be_marked_as_a_whole(audit: CapturedAudit) -> None:
    @otel_audit.audit_exempt
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"plain"]

    transport = httpx.WSGITransport(app=otel_audit.WSGIAuditMiddleware(application))
    assert httpx.Client(transport=transport, base_url="http://shop.example").get("/").text == "plain"
    assert slugs(audit) == []
