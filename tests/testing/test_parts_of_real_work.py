"""What the instrumentors record of real work has its parts where ``capture_audit()`` says they are."""

from __future__ import annotations

import http.server
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import celery
import msgspec
import pytest
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import Client, override_settings
from django.urls import path

import otel_audit
from otel_audit.config.model import AuditConfig
from otel_audit.policy import Policy
from otel_audit.policy.dry_run import dry_run
from otel_audit.startup import instrument_all
from otel_audit.testing import CapturedAudit, capture_audit
from tests.instrumentation.django import project

assert project.__name__  # importing it sets Django up

CONFIG = msgspec.convert(
    {
        "requests": {"enabled": True},
        "outgoing": {"enabled": True},
        "commands": {"enabled": True},
        "celery": {"enabled": True},
        "policy": [
            {
                "path": "/orders*",
                "kind": ["request", "outgoing"],
                "level": "request_response",
                "slug": "order",
            },
            {"kind": ["command", "task"], "level": "request_response"},
        ],
    },
    AuditConfig,
)


def order(request: HttpRequest, number: int) -> HttpResponse:
    assert request.body
    otel_audit.relate(otel_audit.Target("shop.Order", str(number)))
    return JsonResponse({"number": number}, status=201)


urlpatterns = [path("orders/<int:number>/", order)]


@contextmanager
def instrumented() -> Iterator[CapturedAudit]:
    """Capture with everything switched on, and undo it."""
    with capture_audit(CONFIG) as captured:
        instrumentors = instrument_all()
        try:
            yield captured
        finally:
            for instrumentor in reversed(instrumentors):
                instrumentor.uninstrument()


class Fulfilment(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(202)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"accepted": true}')

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def fulfilment() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fulfilment) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@override_settings(ROOT_URLCONF=__name__)
def test_a_request_of_django() -> None:
    with instrumented() as captured:
        Client().post("/orders/7/?page=2", {"a": 1}, content_type="application/json")
    [request] = captured.requests
    assert (request.method, request.path, request.query, request.status) == (
        "POST",
        "/orders/7/",
        "page=2",
        201,
    )
    assert (request.route, request.view) == ("orders/<int:number>/", f"{__name__}.order")
    assert (request.request_body, request.response_body) == ({"a": 1}, {"number": 7})
    assert request.request_headers["content-type"] == "application/json"
    assert request.response_headers["content-type"] == "application/json"
    assert (request.slug, request.related, request.outcome) == ("order", ["shop.Order/7"], "success")
    assert (request.scheme, request.address, request.exception) == ("http", "127.0.0.1", "")
    assert request.duration is not None
    assert request.duration > 0


def test_a_call_of_another_service(fulfilment: int) -> None:
    with instrumented() as captured:
        asked = urllib.request.Request(
            f"http://127.0.0.1:{fulfilment}/orders/7?page=2",
            b'{"a": 1}',
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(asked) as response:
            response.read()
    [call] = captured.outgoing
    assert (call.method, call.path, call.query, call.status) == ("POST", "/orders/7", "page=2", 202)
    assert (call.host, call.scheme, call.slug) == (f"127.0.0.1:{fulfilment}", "http", "order")
    assert (call.request_body, call.response_body) == ({"a": 1}, {"accepted": True})
    assert (call.request_size, call.response_size) == (8, 18)


def test_a_command() -> None:
    with instrumented() as captured:
        call_command("createcachetable", "orders", "--dry-run")
    [command] = captured.commands
    assert (command.name, command.outcome) == ("createcachetable", "success")
    assert set(command.arguments) >= {"orders", "--dry-run"}
    assert "orders" in command.output
    assert command.duration is not None


def test_a_task() -> None:
    application = celery.Celery("parts", broker="memory://", backend="cache+memory://")
    application.conf.task_default_queue = "parts"  # the broker is the process's, and others have workers

    @application.task(name="parts.add")  # type: ignore[untyped-decorator]
    def add(one: int, other: int) -> int:
        return one + other

    with instrumented() as captured:
        add.delay(1, other=2)
        add.apply((3, 4))
    assert dry_run(Policy.of(CONFIG), captured.records).total(rising=True) == 0
    [published] = captured.tasks_published
    assert (published.name, published.queue, published.state) == ("parts.add", "parts", "PENDING")
    assert published.arguments == {"args": [1], "kwargs": {"other": 2}}
    [run] = captured.tasks_run
    assert (run.name, run.state, run.result, run.retries) == ("parts.add", "SUCCESS", 7, 0)
    assert run.id


@override_settings(ROOT_URLCONF=__name__)
def test_a_dry_run_of_the_policy_that_was_there_changes_nothing(fulfilment: int) -> None:
    with instrumented() as captured:
        Client().post("/orders/7/", {"a": 1}, content_type="application/json")
        Client().get("/nowhere/")
        asked = urllib.request.Request(
            f"http://127.0.0.1:{fulfilment}/orders/7", b"{}", {"content-type": "application/json"}
        )
        with urllib.request.urlopen(asked) as response:
            response.read()
        call_command("createcachetable", "orders", "--dry-run")
    found = dry_run(Policy.of(CONFIG), captured.records)
    assert {(each.difference.kind, each.difference.rule) for each in found.counted} == {
        ("request", 1),
        ("request", None),
        ("outgoing", 1),
        ("command", 2),
    }
    assert (found.dropped, found.total(rising=True)) == (0, 0)
    lowered = [each for each in found.counted if each.difference.after < each.difference.before]
    assert lowered == []
