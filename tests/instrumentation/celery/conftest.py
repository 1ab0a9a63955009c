"""Celery audited in this process: a worker in a thread, over a broker in memory."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from typing import Any

import pytest
from celery.contrib.testing.worker import start_worker
from celery.result import AsyncResult
from celery.signals import setup_logging
from celery.worker.state import active_requests, reserved_requests

from otel_audit.audit_context import ContextFields, enter_scope, leave_scope
from otel_audit.audit_record import Actor, Request
from otel_audit.config.model import AuditConfig, CeleryConfig, ContextConfig
from otel_audit.instrumentation.celery import CeleryAuditInstrumentor
from otel_audit.propagation import refusals
from otel_audit.testing import CapturedAudit
from tests.audited import audited
from tests.instrumentation.celery.shop import app
from tests.services import wait_until

SECRET = "a secret of the shop and its workers"
KEYS = ContextConfig(keys={"k1": SECRET}, queues=["celery", "orders"])


class Visit:
    """A request of somebody's."""

    def __init__(self, who: str = "ana") -> None:
        self.who = who

    def fields(self) -> ContextFields:
        return ContextFields(Actor(self.who, "user"), request=Request(id=f"r-{self.who}"), tenant="acme")


@contextmanager
def visit(who: str = "ana") -> Iterator[None]:
    """Do what is in the block as somebody's request."""
    token = enter_scope(Visit(who))
    try:
        yield
    finally:
        leave_scope(token)


def config(**parts: Any) -> AuditConfig:
    return AuditConfig(**({"celery": CeleryConfig(enabled=True), "context": KEYS} | parts))


_running = ExitStack()


@pytest.fixture(scope="package", autouse=True)
def worker_of_the_package() -> Iterator[None]:
    """End the worker that the first test started that needed one: to stop it takes seconds."""
    with _running:
        yield
    setup_logging.disconnect(_leave_logging_alone)
    worker.cache_clear()


def _leave_logging_alone(**_: Any) -> None:
    """Set up nothing: Celery would set the level of the root logger, for all tests to come."""


@cache
def worker() -> None:
    """Have a worker run in a thread."""
    app.amqp.queues.select(["celery", "orders"])
    setup_logging.connect(_leave_logging_alone, weak=False)
    _running.enter_context(start_worker(app, pool="solo", perform_ping_check=False, loglevel="CRITICAL"))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Leave no task to the next test."""
    refusals.clear()
    yield
    refusals.clear()
    with app.connection_for_write() as connection:
        for queue in ("celery", "orders"):
            connection.default_channel.queue_purge(queue)
    wait_until(lambda: not active_requests and not reserved_requests, 30, "the worker is idle")


@pytest.fixture
def celery_audited() -> Callable[..., AbstractContextManager[CapturedAudit]]:
    """Audit Celery for a ``with`` block, by a configuration of the test's own."""

    def begin(configuration: AuditConfig | None = None) -> AbstractContextManager[CapturedAudit]:
        return audited(CeleryAuditInstrumentor(), configuration or config())

    return begin


@pytest.fixture
def captured(
    celery_audited: Callable[..., AbstractContextManager[CapturedAudit]],
) -> Iterator[CapturedAudit]:
    with celery_audited() as captured:
        yield captured


def done(captured: CapturedAudit, result: AsyncResult, times: int = 1) -> None:
    """Wait until a worker has done a task and recorded it: its result is there a moment before."""

    def recorded() -> bool:
        found = [each for each in captured.records if each.attributes.get("task.id") == result.id]
        return sum(each.event_name == "task.run" for each in found) >= times

    worker()
    wait_until(recorded, 30, "the task is done")


def new_id() -> str:
    """Return an id that no other test gives a task."""
    return uuid.uuid4().hex
