"""Messages and gRPC calls: who sent them is known where it was signed for this queue or host."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import otel_audit
from otel_audit.audit_context import ContextFields, current_fields, enter_scope, leave_scope
from otel_audit.audit_record import Actor, Origin, Request
from otel_audit.config.model import AuditConfig, ContextConfig
from otel_audit.pipeline import metrics
from otel_audit.pipeline.refused_contexts import RefusedContexts
from otel_audit.propagation import refusals
from otel_audit.propagation.messages import HEADER, MessageContexts
from otel_audit.propagation.signed_context import Key, SignedContext, sign
from otel_audit.testing import CapturedAudit, capture_audit
from tests.services import free_port

SECRET = "a secret of the shop and of fulfilment"
CONTEXT = ContextConfig(
    keys={"k1": SECRET},
    queues=["orders", "billing.*"],
    propagate_to=["localhost"],
    audience=["localhost"],
    queue_lifetime=3600,
)
KEY = Key("k1", SECRET)


class Visit:
    """A request of Ana's."""

    def fields(self) -> ContextFields:
        return ContextFields(Actor("ana", "user"), request=Request(id="r1"), tenant="acme")


@pytest.fixture(autouse=True)
def captured() -> Iterator[CapturedAudit]:
    refusals.clear()
    with capture_audit(AuditConfig(context=CONTEXT)) as captured:
        yield captured
    refusals.clear()


@pytest.fixture
def ana() -> Iterator[None]:
    token = enter_scope(Visit())
    yield
    leave_scope(token)


def kafka(headers: tuple[tuple[str, str], ...]) -> list[tuple[str, bytes]]:
    """What kafka-python and aiokafka want to be given, and give."""
    return [(name, value.encode()) for name, value in headers]


def received(headers: Any) -> ContextFields:
    """Resolve the context of a consumer that is given these headers, outside any work of its own."""
    token = otel_audit.audit_context.without_context()
    try:
        with otel_audit.accept_context(headers):
            return current_fields()
    finally:
        leave_scope(token)


@pytest.mark.parametrize(
    "carried",
    [kafka, list, dict, tuple, lambda headers: [("other", b"\xff"), *kafka(headers)]],
    ids=["kafka", "pairs", "mapping", "tuple", "among others"],
)
def test_a_consumer_knows_who_published(ana: None, carried: Callable[[Any], Any]) -> None:
    fields = received(carried(otel_audit.sign_context(queue="orders")))
    assert fields.actor.type == "service", "who consumes is who acts"
    assert (fields.actor.on_behalf_of, fields.tenant) == ("ana", "acme")
    assert fields.origin == Origin("ana", "", "r1")
    assert not refusals


def test_records_made_of_a_message_name_its_sender(ana: None, captured: CapturedAudit) -> None:
    headers = kafka(otel_audit.sign_context(queue="billing.eu"))
    token = otel_audit.audit_context.without_context()
    try:
        with otel_audit.accept_context(headers):
            otel_audit.record("shop.invoice.print", "EXPORT")
        otel_audit.record("shop.report.print", "EXPORT")
    finally:
        leave_scope(token)
    record = captured.one(event_name="shop.invoice.print")
    assert (record.actor.on_behalf_of, record.origin) == ("ana", Origin("ana", "", "r1"))
    assert captured.one(event_name="shop.report.print").origin is None


@pytest.mark.parametrize("queue", ["order", "orders2", "billing", "", "celery"])
def test_only_queues_that_are_named_are_told(ana: None, queue: str) -> None:
    assert otel_audit.sign_context(queue=queue) == ()


@pytest.mark.parametrize("host", ["elsewhere:50051", "", "queue/orders", "localhost:x", "http://localhost"])
def test_only_hosts_that_are_named_are_told(ana: None, host: str) -> None:
    assert otel_audit.sign_context(host=host) == ()


def test_outside_any_work_there_is_nothing_to_tell() -> None:
    assert otel_audit.sign_context(queue="orders") == ()


def test_without_keys_nothing_is_sent_and_nothing_accepted(ana: None) -> None:
    headers = otel_audit.sign_context(queue="orders")
    with capture_audit(AuditConfig(context=ContextConfig(queues=["orders"]))):
        assert otel_audit.sign_context(queue="orders") == ()
        assert received(headers).origin is None
    assert not refusals


def test_without_audit_nothing_happens() -> None:
    code = (
        "import otel_audit\n"
        "with otel_audit.context(actor='ana'): assert otel_audit.sign_context(queue='orders') == ()\n"
        "with otel_audit.accept_context([('otel-audit-context', 'x')]): pass\n"
        "with otel_audit.accept_context(None): pass\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def forged(**changes: Any) -> str:
    claims: dict[str, Any] = {"audience": "queue/orders", "expiry": int(time.time()) + 60}
    return sign(SignedContext(**(claims | {"initiator": "root", "kind": "user"} | changes)), KEY)


def with_key(secret: str) -> str:
    context = SignedContext("queue/orders", int(time.time()) + 60, "root", "user")
    return sign(context, Key("k1", secret))


REFUSED: dict[str, Callable[[], str]] = {
    "forged": lambda: with_key("x" * 32),
    "forged ": lambda: forged()[:-4] + "AAAA",
    "expired": lambda: forged(expiry=int(time.time()) - 3600),
    "not_yet_valid": lambda: forged(expiry=int(time.time()) + 7200),
    "audience": lambda: forged(audience="queue/payroll"),
    "audience ": lambda: forged(audience="elsewhere:80"),
    "replayed": lambda: forged(task="5c1b"),
    "replayed ": lambda: forged(retry=1),
    "oversized": lambda: "x" * 10_000_000,
    "malformed": lambda: "root",
    "malformed ": lambda: "é" * 20,
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_believed_has_no_effect_and_is_counted(reason: str) -> None:
    fields = received([(HEADER, REFUSED[reason]().encode())])
    assert (fields.origin, fields.actor.on_behalf_of, fields.tenant) == (None, "", "")
    assert refusals == {reason.strip(): 1}


def test_two_headers_are_none(ana: None) -> None:
    headers = otel_audit.sign_context(queue="orders")
    assert received(headers * 2).origin is None
    assert refusals == {"ambiguous": 1}


@pytest.mark.parametrize(
    "headers", [None, [], {}, 5, [1], [("a",)], [(None, None)], [(HEADER, None)], "text"]
)
def test_headers_may_be_anything(headers: Any) -> None:
    assert received(headers).origin is None


def test_what_is_signed_for_a_task_is_for_that_task_and_that_try() -> None:
    contexts = MessageContexts.of(AuditConfig(context=CONTEXT))
    assert contexts is not None
    with otel_audit.context(actor="ana"):
        value = contexts.for_queue("orders", task="5c1b", retry=2)
    assert contexts.accepted(value, task="5c1b", retry=2) is not None
    assert contexts.accepted(value, task="5c1b", retry=2) is not None, "a redelivery"
    for task, retry in (("5c1b", 3), ("5c1c", 2), ("", 0)):
        assert contexts.accepted(value, task=task, retry=retry) is None
    assert refusals == {"replayed": 3}


def test_the_validity_of_a_message_counts_from_when_it_may_be_worked_on() -> None:
    contexts = MessageContexts.of(AuditConfig(context=CONTEXT))
    assert contexts is not None
    now = time.time()
    contexts._now = lambda: now
    with otel_audit.context(actor="ana"):
        value = contexts.for_queue("orders", starts=now + 86_400)
    for later, known in ((86_400, True), (86_400 + 3600, True), (86_400 + 3700, False), (0, False)):
        contexts._now = lambda at=now + later: at  # type: ignore[misc]
        assert (contexts.accepted(value) is not None) is known, later
    assert refusals == {"expired": 1, "not_yet_valid": 1}


def test_a_context_for_http_is_none_for_a_queue_and_the_other_way_round(ana: None) -> None:
    from otel_audit.propagation.incoming import Acceptance
    from otel_audit.propagation.signed_context import NAME

    ((_, value),) = otel_audit.sign_context(queue="orders")
    acceptance = Acceptance.of(AuditConfig(context=CONTEXT))
    assert acceptance is not None
    assert acceptance.accepted(f"{NAME}={value}") is None
    assert acceptance.accepted(f"{NAME}={forged()}") is None
    assert refusals == {"not_yet_valid": 1, "audience": 1}


def test_ids_that_are_too_long_cost_the_header_and_nothing_else() -> None:
    with otel_audit.context(actor="a" * 600):
        assert otel_audit.sign_context(queue="orders") == ()
    with otel_audit.context(actor="a\ud800"):
        ((_, value),) = otel_audit.sign_context(queue="orders")
    assert received([(HEADER, value)]).origin is not None


class Greeter(grpc.GenericRpcHandler):
    """A gRPC service that says for whom it was called."""

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        def greet(request: bytes, context: grpc.ServicerContext) -> bytes:
            with otel_audit.accept_context(context.invocation_metadata()):
                fields = current_fields()
            return f"{fields.actor.type} for {fields.actor.on_behalf_of}".encode()

        return grpc.unary_unary_rpc_method_handler(greet)


def test_a_grpc_service_knows_who_called(ana: None) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[Greeter()])
    port = server.add_insecure_port(f"127.0.0.1:{free_port()}")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            greet = channel.unary_unary("/shop.Greeter/Greet")
            headers = otel_audit.sign_context(host=f"localhost:{port}")
            assert greet(b"", metadata=headers, timeout=30) == b"service for ana"
            assert greet(b"", metadata=(("other", "1"),), timeout=30) == b"service for "
            stolen = otel_audit.sign_context(queue="payroll") or ((HEADER, with_key("x" * 32)),)
            assert greet(b"", metadata=stolen, timeout=30) == b"service for "
    finally:
        server.stop(None)
    assert refusals == {"forged": 1}


def test_a_refused_context_is_on_record_once_a_minute(captured: CapturedAudit) -> None:
    for _ in range(50):
        received([(HEADER, "root")])
    received([(HEADER, with_key("x" * 32))])
    record = captured.one(event_name="context.refused")
    assert (record.action, record.outcome, record.error) == ("REFUSE", "failure", "malformed")
    assert record.attributes == {"refused": {"malformed": 1}}
    assert refusals == {"malformed": 50, "forged": 1}


def test_the_next_record_has_the_numbers_of_what_was_held_back() -> None:
    clock = [0.0]
    records: list[dict[str, Any]] = []
    refused = RefusedContexts(lambda *_, **parts: records.append(parts), now=lambda: clock[0])
    for clock[0], reason in [(0.0, "forged"), (1.0, "forged"), (59.0, "expired"), (60.0, "forged")]:
        refused(reason)
    assert [record["attributes"] for record in records] == [
        {"refused": {"forged": 1}},
        {"refused": {"forged": 2, "expired": 1}},
    ]


def test_a_refused_context_counts_as_a_metric() -> None:
    reader = InMemoryMetricReader()
    metrics.register(lambda: None, MeterProvider([reader]).get_meter("test"))
    received([(HEADER, "root")])
    data = reader.get_metrics_data()
    assert data is not None
    points = [
        (dict(point.attributes or {}), getattr(point, "value", None))
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "audit.context.refused"
        for point in metric.data.data_points
    ]
    assert points == [({"error.type": "malformed"}, 1)]


def test_no_forged_header_is_accepted() -> None:
    """Whatever is changed in a good header: 0 accepted."""
    with otel_audit.context(actor="ana"):
        ((_, good),) = otel_audit.sign_context(queue="orders")
    for position in range(len(good)):
        for other in ("A", "b", "9", ".", ""):
            if good[position] != other:
                bad = good[:position] + other + good[position + 1 :]
                assert received([(HEADER, bad)]).origin is None, (position, other)
    assert received([(HEADER, good)]).origin is not None
