"""A soft time limit that comes while a task publishes another ends it, as it would without us."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from billiard.pool import soft_timeout_sighandler
from celery import signals

from otel_audit.testing import CapturedAudit
from tests.instrumentation.celery.conftest import config
from tests.instrumentation.celery.shop import app, bill

_limit: dict[str, str] = {}


def tenant(request: object) -> str:
    """The application's function, asked within our receivers: there the parent's signal comes, once."""
    frame: Any = sys._getframe(1)
    named = set()
    while frame is not None:
        named.add(frame.f_code.co_name)
        frame = frame.f_back
    if _limit.get("in") in named and "send" in named:
        _limit.clear()
        os.kill(os.getpid(), signal.SIGUSR1)
    return "acme"


@pytest.fixture
def limited() -> Iterator[dict[str, str]]:
    before = signal.signal(signal.SIGUSR1, soft_timeout_sighandler)
    try:
        yield _limit
    finally:
        _limit.clear()
        signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def captured(
    celery_audited: Callable[..., AbstractContextManager[CapturedAudit]],
) -> Iterator[CapturedAudit]:
    with celery_audited(config(tenant_from=f"{__name__}:tenant")) as captured:
        yield captured


def test_one_that_comes_while_a_task_is_published_ends_the_publisher(
    captured: CapturedAudit, limited: dict[str, str]
) -> None:
    limited["in"] = "before_publish"
    with pytest.raises(SoftTimeLimitExceeded):
        bill.delay(7)
    assert not limited, "the signal came"
    bill.delay(8)
    assert captured.find(event_name="task.publish", outcome="success"), "the next one is on record"


def test_what_receivers_of_the_application_raise_stays_with_celery(captured: CapturedAudit) -> None:
    def receiver(**_: Any) -> None:
        raise SoftTimeLimitExceeded

    signals.before_task_publish.connect(receiver, weak=False)
    try:
        assert bill.delay(7).id
    finally:
        signals.before_task_publish.disconnect(receiver)


def test_signals_are_sent_by_celery_alone_again_afterwards(
    celery_audited: Callable[..., AbstractContextManager[CapturedAudit]],
) -> None:
    before = signals.Signal.send
    with celery_audited():
        assert signals.Signal.send is not before
        assert app.conf is not None
    assert signals.Signal.send is before
