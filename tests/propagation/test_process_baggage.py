"""``context.baggage = "process"``: readers in the process see who acts, and no propagator sends it out."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.test import AsyncClient, Client
from opentelemetry import baggage, propagate
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.processor.baggage import ALLOW_ALL_BAGGAGE_KEYS, BaggageSpanProcessor
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.jaeger import JaegerPropagator
from opentelemetry.propagators.textmap import TextMapPropagator, default_setter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import otel_audit
from otel_audit import propagation
from otel_audit.config.model import AuditConfig, ContextConfig, SinkConfig, SpoolConfig
from otel_audit.instrumentation.http_clients import HttpClientsAuditInstrumentor
from otel_audit.propagation.process_baggage import ProcessBaggage
from otel_audit.propagation.signed_context import NAME
from otel_audit.testing import capture_audit
from tests.propagation.servers import listening
from tests.propagation.test_leaving import CLIENTS

if TYPE_CHECKING:
    from tests.instrumentation.django.project import Instrumented

pytest_plugins = ["tests.instrumentation.django.project"]

IDS = {"audit.actor.id": "7", "theirs": "kept"}
PROCESS = ContextConfig(baggage="process")


class Own(TextMapPropagator):
    """An application's own: it reads the current baggage, whatever context it is given."""

    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
        carrier["x-own"] = json.dumps(dict(baggage.get_all()))

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Context:
        return context or Context()

    @property
    def fields(self) -> set[str]:
        return {"x-own"}


class Plain:
    """No subclass of anything, with the reading in a function of its own."""

    fields: frozenset[str] = frozenset()

    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
        self._write(carrier, context)

    def _write(self, carrier: Any, context: Any) -> None:
        for name, value in [(name, baggage.get_baggage(name, context)) for name in baggage.get_all(context)]:
            carrier[f"x-{name}"] = str(value)

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Context:
        return context or Context()


def decorated(function: Callable[..., None]) -> Callable[..., None]:
    def wrapper(*args: Any, **kwargs: Any) -> None:
        return function(*args, **kwargs)

    return wrapper


class Decorated(Own):
    inject = decorated(Own.inject)


PROPAGATORS: list[Any] = [
    W3CBaggagePropagator(),
    CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()]),
    JaegerPropagator(),
    Own(),
    Plain(),
    Decorated(),
]
each_propagator = pytest.mark.parametrize("propagator", PROPAGATORS, ids=lambda each: type(each).__name__)


@pytest.fixture(autouse=True)
def global_propagator() -> Iterator[None]:
    before = propagate.get_global_textmap()
    yield
    propagate.set_global_textmap(before)


@pytest.fixture
def mara() -> Iterator[None]:
    """A request of mara, in which the application has baggage of its own and a span."""
    provider = TracerProvider(shutdown_on_exit=False)
    outer = attach(baggage.set_baggage("theirs", "kept"))
    with provider.get_tracer("tests").start_as_current_span("request"), otel_audit.context(actor="7"):
        token = propagation.enter("", visible=True)
        yield
        propagation.leave(token)
    detach(outer)


def leaves(carrier: dict[str, str]) -> None:
    """Assert that the application's own left, and nothing of ours."""
    assert "kept" in str(carrier)
    assert "audit" not in str(carrier).lower()


@pytest.mark.usefixtures("mara")
def test_whoever_reads_the_baggage_sees_who_acts() -> None:
    found = baggage.get_all()
    assert dict(found) == {**found} == dict(found.items()) == IDS
    assert (set(found), set(found.keys()), set(found.values())) == (set(IDS), set(IDS), {"7", "kept"})
    assert (len(found), found["audit.actor.id"], found.get("nobody")) == (2, "7", None)
    assert "audit.actor.id" in found
    assert baggage.get_baggage("audit.actor.id") == "7"
    assert found == IDS
    assert {**found, "more": "m"} == IDS | {"more": "m"}
    assert "'audit.actor.id': '7'" in repr(found)


@pytest.mark.usefixtures("mara")
def test_what_others_set_and_remove_in_it_stays_theirs() -> None:
    context = baggage.set_baggage("more", "m", baggage.remove_baggage("theirs"))
    assert baggage.get_all(context) == {"more": "m", "audit.actor.id": "7"}
    assert not baggage.get_all(baggage.clear(context))
    assert baggage.get_all() == IDS, "a context is changed by making another"
    ours = baggage.set_baggage("audit.actor.id", "8")
    token = attach(ours)
    with otel_audit.context(actor="9"):
        assert baggage.get_baggage("audit.actor.id") == "9", "as it is when it is read"
    detach(token)


@pytest.mark.usefixtures("mara")
def test_a_span_processor_of_others_puts_it_on_spans() -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BaggageSpanProcessor(ALLOW_ALL_BAGGAGE_KEYS))
    provider.add_span_processor(SimpleSpanProcessor(memory))
    provider.get_tracer("tests").start_span("x").end()
    [span] = memory.get_finished_spans()
    assert dict(span.attributes or {}) == IDS


@pytest.mark.usefixtures("mara")
def test_logging_of_others_sees_it(caplog: pytest.LogCaptureFixture) -> None:
    def say(record: logging.LogRecord) -> bool:
        record.msg += f" by {baggage.get_baggage('audit.actor.id')}"
        return True

    logger = logging.getLogger("tests.shop")
    logger.addFilter(say)
    logger.warning("paid")
    logger.removeFilter(say)
    assert caplog.messages == ["paid by 7"]


@pytest.mark.usefixtures("mara")
@each_propagator
@pytest.mark.parametrize("order", ["before us", "after us"])
def test_no_propagator_of_the_application_sends_it_out(propagator: Any, order: str) -> None:
    if order == "before us":
        propagate.set_global_textmap(propagator)
        installed = propagation.install()
    else:
        installed = propagation.install()
        propagate.set_global_textmap(propagator)
    try:
        for context in (None, get_current()):
            carrier: dict[str, str] = {}
            propagate.inject(carrier, context)
            leaves(carrier)
            carrier = {}
            propagator.inject(carrier, context, default_setter)
            leaves(carrier)
    finally:
        propagation.uninstall(installed)


@pytest.mark.usefixtures("mara")
@each_propagator
def test_neither_in_another_thread_that_was_given_the_context(propagator: Any) -> None:
    """As an instrumentation of threads hands it on; there our own context may be known or not."""
    context = get_current()

    def send() -> dict[str, str]:
        token = attach(context)
        carrier: dict[str, str] = {}
        propagator.inject(carrier, None, default_setter)
        detach(token)
        return carrier

    async def in_thread() -> dict[str, str]:
        return await asyncio.to_thread(send)

    leaves(asyncio.run(in_thread()))


@pytest.mark.usefixtures("mara")
def test_a_copy_for_another_process_has_the_baggage_of_others_only() -> None:
    [found] = [value for value in get_current().values() if isinstance(value, ProcessBaggage)]
    assert pickle.loads(pickle.dumps(found)) == {"theirs": "kept"}
    assert type(copy.deepcopy(found)) is dict


@pytest.mark.usefixtures("mara")
@pytest.mark.parametrize("client", CLIENTS, ids=lambda each: each.__name__)
def test_what_the_application_copies_into_a_header_by_hand_is_taken_out_at_the_wire(client: Any) -> None:
    with capture_audit(AuditConfig(context=PROCESS)), listening() as third:
        HttpClientsAuditInstrumentor().uninstrument()
        HttpClientsAuditInstrumentor().instrument()
        try:
            by_hand = ",".join(f"{name}={value}" for name, value in baggage.get_all().items())
            assert "audit" in by_hand
            client(third.url, {"baggage": by_hand})
        finally:
            HttpClientsAuditInstrumentor().uninstrument()
    assert third.baggage == ["theirs=kept"]


def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    from tests.instrumentation.django.clinic import urls

    found: list[dict[str, object]] = []
    original = urls.record
    monkeypatch.setattr(urls, "record", lambda: (found.append(dict(baggage.get_all())), original()))
    return found


def test_a_django_view_sees_it_while_its_request_goes_on(
    instrumented: Instrumented, alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = seen(monkeypatch)
    with instrumented(context=PROCESS) as audit:
        client = Client()
        client.force_login(alice)
        client.get("/known/")
        asyncio.run(AsyncClient().get("/async/"))
        first, second = audit.find(event_name="clinic.note")
    assert found[0] == {"audit.actor.id": str(alice.pk), "otel_audit.request.id": first.request.id}
    assert found[1] == {"otel_audit.request.id": second.request.id}, "nobody is known"
    assert not baggage.get_all(), "the request is over"


def test_by_default_a_view_sees_nothing_of_ours(
    instrumented: Instrumented, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = seen(monkeypatch)
    with instrumented():
        Client().get("/note/")
    assert found == [{}]


@pytest.mark.parametrize("context", [ContextConfig(), PROCESS], ids=["off", "process"])
def test_a_context_that_a_peer_sent_does_not_go_on_to_others(
    instrumented: Instrumented, monkeypatch: pytest.MonkeyPatch, context: ContextConfig
) -> None:
    """An application's own propagator extracts it like any baggage, and would inject it into every call."""
    from opentelemetry.instrumentation.django import DjangoInstrumentor

    from tests.instrumentation.django.clinic import urls

    carried: list[dict[str, str]] = []
    original = urls.record

    def record() -> None:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        carried.append(carrier)
        original()

    monkeypatch.setattr(urls, "record", record)
    propagate.set_global_textmap(CompositePropagator([W3CBaggagePropagator()]))
    DjangoInstrumentor().instrument(tracer_provider=TracerProvider(shutdown_on_exit=False))
    try:
        with instrumented(context=context):
            for name in (NAME, "otel%5Faudit.context", "Audit.Actor.id"):
                Client().get("/note/", headers={"baggage": f"theirs=kept,{name}=eyJ.a.b"})
    finally:
        DjangoInstrumentor().uninstrument()
    assert carried == [{"baggage": "theirs=kept"}] * 3


def test_setup_wraps_the_clients_where_baggage_is_visible(tmp_path: Any) -> None:
    config = AuditConfig(
        context=PROCESS,
        spool=SpoolConfig(directory=str(tmp_path)),
        sink=SinkConfig(endpoint="http://127.0.0.1:1/v1/audit", shutdown_timeout=0),
    )
    otel_audit.setup(config)
    try:
        assert HttpClientsAuditInstrumentor().is_instrumented_by_opentelemetry
    finally:
        otel_audit.shutdown()
    assert not HttpClientsAuditInstrumentor().is_instrumented_by_opentelemetry
