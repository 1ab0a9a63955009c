"""A signed context at the entry of a service: it names who began the work, if it verifies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.test import AsyncClient, Client
from hypothesis import given, strategies
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_audit.audit_context import ContextFields
from otel_audit.audit_record import Actor, Origin
from otel_audit.config.model import AuditConfig, ContextConfig
from otel_audit.pipeline import metrics
from otel_audit.propagation import refusals
from otel_audit.propagation.incoming import Acceptance, Accepted
from otel_audit.propagation.signed_context import NAME, Key, SignedContext, sign

if TYPE_CHECKING:
    from tests.instrumentation.django.project import Instrumented

pytest_plugins = ["tests.instrumentation.django.project"]

SECRET = "a secret of the shop and of fulfilment"
KEY = Key("k1", SECRET)
CONTEXT = ContextConfig(
    keys={"k1": SECRET, "k2": SECRET[::-1]}, audience=["fulfilment.internal", "*.local:8001"]
)


NOW = int(time.time())
"""When the headers below are made, and when :func:`acceptance` takes them to come."""


def signed(
    key: Key = KEY,
    *,
    audience: str = "fulfilment.internal:80",
    lifetime: int = 60,
    now: int = NOW,
    **claims: Any,
) -> str:
    claims = {"initiator": "7", "kind": "user", "tenant": "acme", "request": "r1"} | claims
    return f"{NAME}={sign(SignedContext(audience, now + lifetime, **claims), key)}"


def acceptance(**options: Any) -> Acceptance:
    found = Acceptance.of(AuditConfig(context=CONTEXT, **options))
    assert found is not None
    found._now = lambda: NOW
    return found


def just_signed(key: Key = KEY) -> str:
    """Return a header that is valid now."""
    return signed(key, now=int(time.time()))


@pytest.fixture(autouse=True)
def nothing_refused() -> Iterator[None]:
    refusals.clear()
    yield
    refusals.clear()


@pytest.mark.parametrize(
    "header",
    [
        signed(),
        signed(Key("k2", SECRET[::-1])),
        signed(audience="fulfilment.internal:9999"),
        signed(audience="any.local:8001"),
        f"theirs=kept, {signed()} ,other=1;p=2",
    ],
    ids=["alone", "the next key", "any port", "a subdomain", "among others"],
)
def test_a_context_signed_for_this_service_is_accepted(header: str) -> None:
    assert acceptance().accepted(header) == Accepted(Origin("7", "", "r1"), "user", "acme")
    assert not refusals


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (signed(Key("k1", "x" * 32)), "forged"),
        (signed(Key("k3", SECRET)), "unknown_key"),
        (signed(lifetime=-3600), "expired"),
        (signed(lifetime=3600), "not_yet_valid"),
        (signed(audience="billing.internal:80"), "audience"),
        (signed(audience="any.local:8002"), "audience"),
        (signed(audience="local:8001"), "audience"),
        (signed(audience="fulfilment.internal"), "audience"),
        (signed(audience=""), "audience"),
        (f"{signed()},{signed()}", "ambiguous"),
        (f"{signed()},{NAME}=", "ambiguous"),
        (f"{signed()};p=1", "malformed"),
        (f"x{signed()}", "malformed"),
        (signed().replace("=", "%3D"), "malformed"),
        (f"{NAME}={'x' * 513}", "oversized"),
        (f"{signed()},{'x' * 9000}", "oversized"),
        ("x" * 10_000_000, "oversized"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_any_other_is_ignored_and_counted_by_reason(header: str, reason: str) -> None:
    assert acceptance().accepted(header) is None
    assert refusals == {reason: 1}


@pytest.mark.parametrize(
    "header", ["", "theirs=kept", "audit.actor.id=1,otel_audit.request.id=r6", "x" * 8192]
)
def test_baggage_of_others_is_nothing_to_count(header: str) -> None:
    assert acceptance().accepted(header) is None
    assert not refusals


@given(strategies.binary() | strategies.binary().map(lambda data: NAME.encode() + b"=" + data))
def test_no_bytes_in_the_header_raise_or_are_accepted(data: bytes) -> None:
    assert acceptance().accepted(data.decode("latin-1")) is None


@given(strategies.integers(0), strategies.integers(0, 7))
def test_a_header_with_one_bit_changed_is_accepted_by_nobody(position: int, bit: int) -> None:
    header = bytearray(signed(), "ascii")
    header[position % len(header)] ^= 1 << bit
    assert acceptance().accepted(header.decode("latin-1")) is None


@pytest.mark.parametrize("header", [signed(Key("k1", "x" * 32)), "x" * 9000])
def test_what_is_refused_is_a_metric(header: str) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    metrics.register(lambda: None, provider.get_meter("otel_audit"))
    acceptance().accepted(header)
    acceptance().accepted(header)
    data = reader.get_metrics_data()
    assert data is not None
    points = {
        metric.name: [(point.attributes, point.value) for point in metric.data.data_points]  # type: ignore[union-attr]
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
    }
    reason = "forged" if len(header) < 9000 else "oversized"
    assert points["audit.context.refused"] == [({"error.type": reason}, 2)]


def test_the_log_says_why_and_shows_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    from otel_audit import otel_api

    otel_api._said.clear()
    header = signed(Key("k1", "x" * 32))
    for _ in range(2):
        acceptance().accepted(header)
    [line] = [record.getMessage() for record in caplog.records]
    assert "signature" in line
    assert header[-40:] not in caplog.text


@pytest.mark.parametrize(
    "context",
    [
        ContextConfig(),
        ContextConfig(keys={"k1": SECRET}),
        ContextConfig(audience=["fulfilment"]),
        ContextConfig(keys={"k1": "too short"}, audience=["fulfilment"]),
        ContextConfig(keys_file="/nonexistent", audience=["fulfilment"]),
    ],
)
def test_without_a_key_and_an_audience_nothing_is_accepted(context: ContextConfig) -> None:
    assert Acceptance.of(AuditConfig(context=context)) is None


@pytest.mark.parametrize(
    ("authenticated", "kind", "recorded"),
    [
        (Actor(), "user", Actor(on_behalf_of="7")),
        (Actor("shop", "service"), "user", Actor("shop", "service", on_behalf_of="7")),
        (Actor("9", "user", "shop-bot"), "user", Actor("9", "user", "shop-bot", "7")),
        (Actor("7", "user", "mara"), "user", Actor("7", "user", "mara")),
        (Actor("3", "user", "sven", "5", "eve"), "user", Actor("3", "user", "sven", "5", "eve")),
        (Actor("shop", "service"), "system", Actor("shop", "service")),
        (Actor("shop", "service"), "", Actor("shop", "service")),
    ],
)
def test_the_actor_is_who_was_authenticated_on_behalf_of_who_began(
    authenticated: Actor, kind: str, recorded: Actor
) -> None:
    fields = Accepted(Origin("7", "", "r1"), kind, "acme").over(ContextFields(actor=authenticated))
    assert fields.actor == recorded
    assert fields.origin == Origin("7", "", "r1")
    assert fields.tenant == "acme"


def test_a_tenant_that_the_service_itself_knows_is_the_tenant() -> None:
    accepted = acceptance(tenant_from="shop.tenants:current").accepted(signed())
    assert accepted is not None
    assert accepted.tenant == ""
    known = Accepted(None, "", "acme").over(ContextFields(tenant="own"))
    assert known.tenant == "own"


def test_records_of_a_django_request_name_who_began_it(instrumented: Instrumented, alice: Any) -> None:
    dana = type(alice).objects.create_user("dana", pk=4711)  # not by chance the 7 of who began it
    with instrumented(context=CONTEXT, config={"tenant": "nobody's"}) as audit:
        Client().get("/note/", headers={"baggage": f"a=b,{just_signed()}"})
        client = Client()
        client.force_login(dana)
        client.get("/known/", headers={"baggage": just_signed()})
        Client().get("/note/", headers={"baggage": just_signed(Key("k1", "x" * 32))})
        visitor, user, forged = audit.find(event_name="clinic.note")
    assert visitor.actor == Actor(on_behalf_of="7")
    assert user.actor == Actor("4711", "user", "dana", "7")
    for record in (visitor, user):
        assert record.origin == Origin("7", "", "r1")
        assert record.tenant == "acme"
        assert record.request.id not in ("", "r1"), "the request is this service's own"
    assert (forged.actor, forged.origin, forged.tenant) == (Actor(), None, "nobody's")
    assert "eyJ" not in repr(audit.records)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_records_of_an_async_request_name_who_began_it(
    instrumented: Instrumented, anyio_backend: str
) -> None:
    with instrumented(context=CONTEXT) as audit:
        await AsyncClient().get("/async/", headers={"baggage": just_signed()})
        [record] = audit.find(event_name="clinic.note")
    assert (record.actor.on_behalf_of, record.tenant) == ("7", "acme")


def test_what_the_application_says_itself_goes_before_what_a_peer_says(instrumented: Instrumented) -> None:
    """``context(actor=…)`` around a write names its actor; who began the work is still told."""
    import otel_audit

    with instrumented(context=CONTEXT) as audit:
        from tests.instrumentation.django.clinic import urls

        original = urls.record
        with pytest.MonkeyPatch.context() as patched:

            def record() -> None:
                with otel_audit.context(actor="12", tenant="theirs"):
                    original()

            patched.setattr(urls, "record", record)
            Client().get("/note/", headers={"baggage": just_signed()})
        made = audit.one(event_name="clinic.note")
    assert (made.actor.id, made.tenant, made.origin) == ("12", "theirs", Origin("7", "", "r1"))
