"""Time limits as task queues set them, in loops of saves: none is swallowed, and each change is on record."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from billiard.pool import soft_timeout_sighandler
from django.db import connection
from rq.timeouts import JobTimeoutException, TimerDeathPenalty, UnixSignalDeathPenalty

from otel_audit.testing import CapturedAudit
from tests.capture.interrupting import fresh_connection, half_open, next_statement
from tests.instrumentation.django.warehouse.databases import (  # noqa: F401
    auditing,
    sqlite,
    sqlite_warehouse,
)
from tests.instrumentation.django.warehouse.models import Supplier

MOST_SAVES: Final = 5_000
"""Saves after which a limit of milliseconds has been swallowed."""


@contextmanager
def celery(seconds: float) -> Iterator[None]:
    """Celery's pool: the parent sends SIGUSR1, and billiard's handler raises."""
    before = signal.signal(signal.SIGUSR1, soft_timeout_sighandler)
    timer = threading.Timer(seconds, os.kill, [os.getpid(), signal.SIGUSR1])
    try:
        timer.start()
        yield
    finally:
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGUSR1, before)


@contextmanager
def rq(seconds: float) -> Iterator[None]:
    """RQ on Unix: SIGALRM. Its own alarm counts whole seconds."""
    penalty: Any = UnixSignalDeathPenalty
    with penalty(60, JobTimeoutException):
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield


@contextmanager
def rq_without_signals(seconds: float) -> Iterator[None]:
    """RQ elsewhere: a timer of another thread."""

    class TimedOut(JobTimeoutException):  # RQ changes the class it is given
        pass

    penalty: Any = TimerDeathPenalty
    with penalty(seconds, TimedOut):
        yield


LIMITS: Final[dict[str, tuple[Callable[[float], AbstractContextManager[None]], type[Exception]]]] = {
    "celery": (celery, SoftTimeLimitExceeded),
    "rq": (rq, JobTimeoutException),
    "rq without signals": (rq_without_signals, JobTimeoutException),
}


def save(supplier: Supplier) -> None:
    supplier.save()


def update(supplier: Supplier) -> None:
    Supplier.objects.filter(pk=supplier.pk).update(name=supplier.name)


def job(
    audit: CapturedAudit,
    limit: Callable[[float], AbstractContextManager[None]],
    error: type[Exception],
    work: Any,
) -> Iterator[str]:
    """Save until the time is over; say what is wrong afterwards."""
    supplier = Supplier.objects.create(name="start")
    audit.clear()
    saved = 0
    limited = False
    try:
        with limit(random.uniform(0.001, 0.05)):
            for number in range(MOST_SAVES):
                supplier.name = str(number)
                work(supplier)
                saved = number + 1
    except error:
        limited = True
    if not limited:
        yield "the limit was swallowed"
    yield from half_open(audit)
    kept = {
        record.changes[0].new: record.outcome
        for record in audit.records
        if record.changes and record.outcome in ("success", "unknown")
    }
    missing = [str(number) for number in range(saved) if str(number) not in kept]
    if missing:
        yield f"{missing} were saved without a record"
    held = Supplier.objects.get(pk=supplier.pk).name
    if held != "start" and held not in kept and not audit.find(outcome="unknown"):
        yield f"{held} was committed without a record"
    told = [name for name, outcome in kept.items() if outcome == "success"]
    if told and int(str(told[-1])) > (-1 if held == "start" else int(held)):
        yield f"{told[-1]} is a success, and {held} is stored"
    yield from next_statement(audit)


def work_in_rounds(limit: str, work: Callable[[Supplier], None], rounds: int) -> None:
    wrong: list[str] = []
    with auditing() as audit:
        for _ in range(rounds):
            with fresh_connection():
                found = list(job(audit, *LIMITS[limit], work))
            wrong += found
            assert not connection.in_atomic_block
    assert not wrong, f"in {rounds} rounds: {wrong}"


@pytest.mark.parametrize("work", [save, update])
@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_ends_a_loop_of_saves(
    sqlite: str,  # noqa: F811
    limit: str,
    work: Callable[[Supplier], None],
) -> None:
    work_in_rounds(limit, work, rounds=15)


@pytest.mark.attack
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("work", [save, update])
@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_ends_each_of_many_loops_of_saves(
    sqlite: str,  # noqa: F811
    limit: str,
    work: Callable[[Supplier], None],
) -> None:
    work_in_rounds(limit, work, rounds=1_000)
