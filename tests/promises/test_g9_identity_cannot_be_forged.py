"""G9: the actor comes from the application's own authentication, never from what a client sends.

Everything here is a request of somebody who lies. Through real servers the same lies are told in
``tests/e2e``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings
from django.test import AsyncClient, Client
from opentelemetry import baggage, propagate
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_audit.audit_record import Actor, AuditRecord
from otel_audit.config.model import ContextConfig
from otel_audit.testing import CapturedAudit

if TYPE_CHECKING:
    from tests.instrumentation.django.project import Instrumented

pytest_plugins = ["tests.instrumentation.django.project"]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
FORGED = "1b2f2c9e-forged"
LIES = {
    "baggage": f"audit.actor.id=1,audit.actor.type=system,user.name=root,otel_audit.request.id={FORGED}",
    "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
    "tracestate": "audit.actor.id=1",
    "X-Forwarded-For": "6.6.6.6, 7.7.7.7",
    "Forwarded": "for=6.6.6.6;by=7.7.7.7",
    "X-Real-IP": "6.6.6.6",
    "True-Client-IP": "6.6.6.6",
    "CF-Connecting-IP": "6.6.6.6",
    "X-Request-ID": FORGED,
    "Remote-User": "root",
    "Remote-Addr": "6.6.6.6",
    "X-User-ID": "1",
    "X-Audit-Actor-ID": "1",
    "From": "root@clinic.example",
}
PEER = "203.0.113.50"


@pytest.fixture(autouse=True)
def opentelemetry() -> Iterator[None]:
    """OpenTelemetry as it is by default: it believes every inbound ``baggage`` and ``traceparent``."""
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(
        CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
    )
    DjangoInstrumentor().instrument(tracer_provider=TracerProvider())
    yield
    DjangoInstrumentor().uninstrument()
    propagate.set_global_textmap(before)


def assert_unmoved(record: AuditRecord, actor: Actor) -> None:
    assert record.actor == actor
    assert (record.source.id, record.source.type) == (PEER, "ipv4")
    assert FORGED not in repr(record)
    assert "6.6.6.6" not in repr(record)
    assert "root" not in repr(record)


def test_the_lies_reach_the_application(audit: CapturedAudit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise nothing below would be an attack."""
    seen: list[Any] = []
    from tests.instrumentation.django.clinic import urls

    original = urls.record
    monkeypatch.setattr(urls, "record", lambda: (seen.append(baggage.get_baggage("user.name")), original()))
    Client().get("/note/", REMOTE_ADDR=PEER, headers=LIES)
    assert seen == ["root"]
    assert audit.one(event_name="clinic.note").trace_id == TRACE, "a trace is followed, an identity is not"


@pytest.mark.parametrize("path", ["/note/", "/known/", "/visited/", "/class/"])
def test_a_visitor_who_claims_to_be_somebody_is_anonymous(audit: CapturedAudit, path: str) -> None:
    from django.contrib.auth.models import User

    User.objects.create_superuser("root", "", "x")
    Client().get(path, REMOTE_ADDR=PEER, headers=LIES)
    assert_unmoved(audit.one(event_name="clinic.note"), Actor())


def test_a_user_who_claims_to_be_another_is_himself(audit: CapturedAudit, alice: Any) -> None:
    client = Client()
    client.force_login(alice)
    client.get("/known/", REMOTE_ADDR=PEER, headers=LIES)
    assert_unmoved(audit.one(event_name="clinic.note"), Actor(str(alice.pk), "user", "alice"))


def test_async_requests_are_no_weaker(audit: CapturedAudit, alice: Any) -> None:
    async def visit() -> None:
        client = AsyncClient()
        await client.aforce_login(alice)
        await client.get("/async/", headers=LIES)
        await AsyncClient().get("/async/", headers=LIES)

    asyncio.run(visit())
    known, stranger = audit.find(event_name="clinic.note")
    assert known.actor.id == str(alice.pk)
    assert stranger.actor == Actor()
    for record in (known, stranger):
        assert record.source.id == "127.0.0.1"
        assert FORGED not in repr(record)
        assert "root" not in repr(record)


def test_an_attempted_name_is_not_the_actor(audit: CapturedAudit, alice: Any) -> None:
    Client().post("/login/", {"username": "alice", "password": "guess"}, REMOTE_ADDR=PEER, headers=LIES)
    assert_unmoved(audit.one(event_name="user.login.failure"), Actor())


def test_a_token_of_nobody_is_nobodys(audit: CapturedAudit) -> None:
    Client().post("/api/", REMOTE_ADDR=PEER, headers=LIES | {"Authorization": "Token eve"})
    assert_unmoved(audit.one(event_name="http.request.denied"), Actor())


@pytest.mark.parametrize("path", ["/note/", "/known/", "/visited/"])
def test_an_invented_session_belongs_to_nobody(audit: CapturedAudit, path: str) -> None:
    client = Client()
    client.cookies[settings.SESSION_COOKIE_NAME] = "a" * 32
    client.get(path, REMOTE_ADDR=PEER)
    assert audit.one(event_name="clinic.note").actor.type == "unknown"


@pytest.mark.parametrize("path", ["/note/", "/known/", "/visited/"])
def test_a_session_that_was_logged_out_is_over(audit: CapturedAudit, alice: Any, path: str) -> None:
    client = Client()
    client.force_login(alice)
    stolen = client.cookies[settings.SESSION_COOKIE_NAME].value
    client.post("/logout/")
    thief = Client()
    thief.cookies[settings.SESSION_COOKIE_NAME] = stolen
    thief.get(path, REMOTE_ADDR=PEER)
    assert audit.one(event_name="clinic.note").actor.type == "unknown"


def test_a_session_the_application_rejects_names_nobody(audit: CapturedAudit, alice: Any) -> None:
    client = Client()
    client.force_login(alice)
    alice.set_password("changed")
    alice.save()
    client.get("/known/", REMOTE_ADDR=PEER)
    assert audit.one(event_name="clinic.note").actor == Actor()


def test_behind_a_proxy_only_what_the_proxy_wrote_counts(instrumented: Instrumented) -> None:
    """The client's own entries stand to the left of the one the proxy appended."""
    with instrumented(context=ContextConfig(trusted_proxies=1)) as audit:
        headers = LIES | {"X-Forwarded-For": f"6.6.6.6, 7.7.7.7, {PEER}", "X-Request-ID": "of-the-proxy"}
        Client().get("/note/", REMOTE_ADDR="10.0.0.1", headers=headers)
        record = audit.one(event_name="clinic.note")
    assert_unmoved(record, Actor())
    assert record.request.id == "of-the-proxy"


def test_a_request_that_went_around_the_proxies_is_its_peers(instrumented: Instrumented) -> None:
    with instrumented(context=ContextConfig(trusted_proxies=3)) as audit:
        Client().get("/note/", REMOTE_ADDR=PEER, headers=LIES | {"X-Request-ID": ""})
        record = audit.one(event_name="clinic.note")
    assert_unmoved(record, Actor())
