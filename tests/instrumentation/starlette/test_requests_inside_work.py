"""A request made inside other work of the same process says in which: `request.parent`."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from flask import Flask

import otel_audit
from otel_audit.audit_context import SystemScope, enter_scope, leave_scope
from otel_audit.audit_record import Actor, AuditRecord
from otel_audit.config.model import AuditConfig, RequestsConfig
from otel_audit.testing import CapturedAudit, capture_audit
from tests.instrumentation.starlette.conftest import Instrumented

EVENT = "http.server.request"


@pytest.fixture
def audit(instrumented: Instrumented) -> Iterator[CapturedAudit]:
    with instrumented(config={"requests": RequestsConfig(enabled=True)}) as captured:
        yield captured


def cards() -> FastAPI:
    app = FastAPI()

    @app.get("/cards")
    def listed() -> str:
        otel_audit.record("shop.note", "NOTE")
        return "cards"

    @app.get("/outer")
    def outer() -> str:
        return str(TestClient(app).get("/cards").json())

    return app


def request_to(captured: CapturedAudit, path: str = "/cards") -> AuditRecord:
    return captured.one(event_name=EVENT, target=f"http.route/{path}")


def test_one_made_in_a_job_has_the_job_as_parent(audit: CapturedAudit) -> None:
    with otel_audit.job("billing.nightly"):
        TestClient(cards()).get("/cards")
    job, request = audit.one(event_name="job.run"), request_to(audit)
    assert request.request.parent == job.request.id != ""
    assert request.request.id not in ("", job.request.id)
    inside = audit.one(event_name="shop.note")
    assert (inside.request.id, inside.request.parent) == (request.request.id, job.request.id)
    assert request.actor.id == "anonymous", "who asks is who authenticates, not whose process it is"


def test_one_made_by_a_thread_of_the_job_has_it_too(audit: CapturedAudit) -> None:
    with otel_audit.job("billing.nightly"):
        thread = threading.Thread(target=lambda: TestClient(cards()).get("/cards"))
        thread.start()
        thread.join()
    assert request_to(audit).request.parent == audit.one(event_name="job.run").request.id


def test_one_made_by_a_request_has_that_as_parent(audit: CapturedAudit) -> None:
    assert TestClient(cards()).get("/outer").json() == "cards"
    outer, inner = request_to(audit, "/outer"), request_to(audit)
    assert inner.request.parent == outer.request.id
    assert (outer.request.parent, inner.request.id != outer.request.id) == ("", True)


def test_one_made_by_nobody_else_has_none(audit: CapturedAudit) -> None:
    TestClient(cards()).get("/cards")
    with otel_audit.context(reason="ticket 4711"):
        TestClient(cards()).get("/cards")
    assert [each.request.parent for each in audit.find(event_name=EVENT)] == ["", ""]


def test_one_made_after_its_job_has_none(audit: CapturedAudit) -> None:
    go = threading.Event()

    def later() -> None:
        go.wait(10)
        TestClient(cards()).get("/cards")

    with otel_audit.job("billing.nightly"):
        thread = threading.Thread(target=later)
        thread.start()
    go.set()
    thread.join()
    assert request_to(audit).request.parent == ""


def test_the_start_of_an_application_is_no_parent(audit: CapturedAudit) -> None:
    inner = cards()

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(inner), base_url="http://cards") as client:
            await client.get("/cards")
        yield

    with TestClient(FastAPI(lifespan=lifespan)):
        pass
    assert request_to(audit).request.parent == ""


def test_a_command_that_only_starts_a_server_is_no_parent(audit: CapturedAudit) -> None:
    token = enter_scope(SystemScope(Actor("manage.py runserver", "system"), "", is_parent=False))
    try:
        TestClient(cards()).get("/cards")
    finally:
        leave_scope(token)
    assert request_to(audit).request.parent == ""


def test_one_to_a_wsgi_application_has_it_too() -> None:
    app = Flask(__name__)
    app.add_url_rule("/cards", view_func=lambda: "cards")
    app.wsgi_app = otel_audit.WSGIAuditMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    with (
        capture_audit(AuditConfig(requests=RequestsConfig(enabled=True))) as captured,
        otel_audit.job("billing.nightly"),
    ):
        app.test_client().get("/cards", buffered=True)
    assert request_to(captured).request.parent == captured.one(event_name="job.run").request.id
