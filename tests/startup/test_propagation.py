"""Identity on spans and in baggage: it is never taken from what comes in, and does not go out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, detach
from opentelemetry.propagate import get_global_textmap, set_global_textmap
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_audit.audit_context import (
    AuditContext,
    ContextFields,
    context,
    enter_scope,
    leave_scope,
    moment,
)
from otel_audit.audit_record import Actor, Request
from otel_audit.propagation import ActorSpanProcessor, AuditPropagator, annotate, install, uninstall

FORGED = "audit.actor.id=mallory,otel_audit.request.id=r666,AUDIT.actor.type=user,theirs=kept"


class Session:
    def __init__(self, actor: Actor | None = None) -> None:
        self.actor = Actor("7", "user") if actor is None else actor

    def fields(self) -> ContextFields:
        return ContextFields(actor=self.actor, request=Request(id="r1"))


@pytest.fixture
def session() -> Iterator[None]:
    token = enter_scope(Session())
    yield
    leave_scope(token)


def propagator() -> AuditPropagator:
    return AuditPropagator(CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()]))


def injected(wrapped: AuditPropagator, over: Context | None = None) -> dict[str, str]:
    carrier: dict[str, str] = {}
    wrapped.inject(carrier, over)
    return dict(pair.split("=") for pair in carrier.get("baggage", "").split(",") if pair)


@pytest.mark.usefixtures("session")
def test_the_baggage_of_the_application_travels_alone() -> None:
    assert injected(propagator()) == {}
    assert injected(propagator(), baggage.set_baggage("theirs", "kept")) == {"theirs": "kept"}
    token = attach(baggage.set_baggage("theirs", "kept"))
    try:
        assert injected(propagator()) == {"theirs": "kept"}
    finally:
        detach(token)


def test_forged_baggage_is_removed_and_the_rest_kept() -> None:
    extracted = propagator().extract({"baggage": FORGED}, context=Context())
    assert baggage.get_all(extracted) == {"theirs": "kept"}


def test_the_actor_is_never_taken_from_baggage() -> None:
    # Even where a forged entry got into the context by another way than our propagator.
    token = attach(baggage.set_baggage("audit.actor.id", "mallory"))
    try:
        assert moment().fields().actor.id != "mallory"
        assert injected(propagator()) == {}, "and it is not passed on"
    finally:
        detach(token)


def test_no_propagators_at_all_extract_and_inject_nothing() -> None:
    silent = AuditPropagator(CompositePropagator([]))
    assert not silent.extract({"baggage": FORGED})
    assert injected(silent) == {}


def test_installing_wraps_once_and_uninstalling_puts_the_old_one_back() -> None:
    before = get_global_textmap()
    first = install()
    second = install()
    assert second.inner is before
    assert second.fields == before.fields
    uninstall(first)
    assert get_global_textmap() is second, "another one was set meanwhile"
    uninstall(second)
    assert get_global_textmap() is before
    set_global_textmap(before)


def attributes(**kwargs: Any) -> dict[str, Any]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(ActorSpanProcessor())
    with provider.get_tracer("tests").start_as_current_span("x", **kwargs) as span:
        return dict(span.attributes)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("session")
def test_spans_say_who_acts_as_soon_as_it_is_known() -> None:
    assert attributes() == {"audit.actor.id": "7", "otel_audit.request.id": "r1"}
    with context(actor="8"):
        assert attributes()["audit.actor.id"] == "8"


def test_spans_outside_a_request_and_of_nobody_name_no_actor() -> None:
    assert attributes() == {}
    token = enter_scope(Session(Actor()))
    try:
        assert attributes() == {"otel_audit.request.id": "r1"}
    finally:
        leave_scope(token)


def test_a_span_that_began_before_the_actor_was_known_is_annotated_later() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    with provider.get_tracer("tests").start_as_current_span("request") as span:
        annotate(span, AuditContext(Session()))
        assert dict(span.attributes) == {"audit.actor.id": "7", "otel_audit.request.id": "r1"}  # type: ignore[attr-defined]
    annotate(span, AuditContext(Session()))  # has ended: nothing to put it on, and no warning


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"max_span_attributes": 0},
        {"max_span_attributes": 1},
        {"max_span_attributes": 3},
        {"max_span_attribute_length": 1},
    ],
    ids=str,
)
def test_the_actor_obeys_the_limits_of_spans(limits: dict[str, Any]) -> None:
    """What is dropped or cut of any attribute is of ours as well."""
    provider = TracerProvider(span_limits=SpanLimits(**limits), shutdown_on_exit=False)
    ours, public = (
        provider.get_tracer("tests").start_span("x", attributes={"a": "1", "b": "2"}) for _ in range(2)
    )
    annotate(ours, AuditContext(Session()))
    public.set_attributes({"audit.actor.id": "7", "otel_audit.request.id": "r1"})
    assert isinstance(ours, ReadableSpan)
    assert isinstance(public, ReadableSpan)
    assert dict(ours.attributes or {}) == dict(public.attributes or {})
    assert ours.dropped_attributes == public.dropped_attributes


def test_a_scope_that_fails_harms_neither_spans_nor_calls(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def fields(self) -> ContextFields:
            raise RuntimeError("a bug of ours")

    token = enter_scope(Broken())
    try:
        assert attributes() == {}
        assert injected(propagator()) == {}
    finally:
        leave_scope(token)
    assert "a bug of ours" in caplog.text
