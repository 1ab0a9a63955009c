"""A soft time limit that comes while a task publishes another ends it, as it would without us."""

from __future__ import annotations

import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from linecache import getline
from types import FrameType
from typing import Any, Final, Self

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from billiard.pool import soft_timeout_sighandler
from celery import signals
from celery.app.trace import trace_task

from otel_audit.audit_context import current_context, restore_context
from otel_audit.config.model import CeleryConfig
from otel_audit.instrumentation import celery_tasks
from otel_audit.testing import CapturedAudit
from tests.capture.interrupting import OURS
from tests.instrumentation.celery.conftest import config, new_id
from tests.instrumentation.celery.shop import app, bill

RECEIVERS: Final = "otel_audit.instrumentation.celery_tasks"
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


class Limit(Exception):
    """Stands for what a signal handler of the pool raises."""


class LimitAt:
    """Raises at one of the lines of ours that run in one of our receivers, from 0; -1: counts them."""

    def __init__(self, receiver: str, line: int) -> None:
        self.receiver = receiver
        self.line = line
        self.lines = 0
        self.place = ""
        self.within: Any = None

    def __enter__(self) -> Self:
        sys.settrace(self._call)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, event: str, arg: object) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(OURS):
            return None
        if self.within is None and (code.co_name, frame.f_globals["__name__"]) == (self.receiver, RECEIVERS):
            self.within = frame
        return None if self.within is None else self._line

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        if self.within is None:
            return None
        # Nothing comes between the end of a block and its ``__exit__``, where a trace function is called too.
        if event == "line" and not getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith(
            "with "
        ):
            self.lines += 1
            if self.lines - 1 == self.line:
                self.place = f"{frame.f_code.co_filename.removeprefix(OURS)}:{frame.f_lineno}"
                sys.settrace(None)
                raise Limit
        elif event == "return" and frame is self.within:
            self.within = None
            sys.settrace(None)
        return self._line


@contextmanager
def watched() -> Iterator[None]:
    """Have tasks act by their names, as audit has it whether or not they are recorded."""
    before = celery_tasks._Running.watched
    celery_tasks.watch()
    try:
        yield
    finally:
        if not before:
            celery_tasks.unwatch()


def wrong_after(captured: CapturedAudit, recorded: bool, at: LimitAt) -> Iterator[str]:
    """Run a task, with a limit; say what is wrong afterwards."""
    task_id = new_id()
    captured.clear()
    with at, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Celery's, of an exception outside of the body
        request = {"id": task_id, "delivery_info": {}, "is_eager": False}
        trace_task(bill, task_id, (1,), {}, request, app=app)
    interrupted = bool(at.place)
    if current_context() is not None:
        yield "the scope of the task is left behind"
        restore_context(None)
    runs = captured.find(event_name="task.run")
    ended = interrupted and at.receiver == "_begin"
    right = [["failure"], ["unknown"]] if ended else [["success"]]
    if recorded and [record.outcome for record in runs] not in right:
        yield f"the run is recorded as {[(record.outcome, record.error) for record in runs]}"
    if bool(captured.find(event_name="shop.invoice.create")) is ended:
        yield f"the task has {'' if ended else 'not '}run"
    if {record.actor.id for record in captured.records} - {"shop.bill"}:
        yield f"actors: {[record.actor.id for record in captured.records]}"
    if captured.pipeline.spool.open_intents:
        yield "an intent is open"


@pytest.mark.parametrize("moments", [40, pytest.param(10_000, marks=pytest.mark.attack)])
@pytest.mark.parametrize("receiver", ["_begin", "_end"])
@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "not recorded"])
def test_a_limit_at_any_line_of_the_beginning_ends_the_task_and_at_its_end_does_no_harm(
    celery_audited: Callable[..., AbstractContextManager[CapturedAudit]],
    receiver: str,
    recorded: bool,
    moments: int,
) -> None:
    wrong: dict[str, list[str]] = {}
    with celery_audited(config(celery=CeleryConfig(enabled=recorded))) as captured, watched():
        assert not list(wrong_after(captured, recorded, LimitAt("nothing", -1)))
        counted = LimitAt(receiver, -1)
        assert not list(wrong_after(captured, recorded, counted))
        assert counted.lines > 5, counted.lines
        lines = range(counted.lines)
        tried, came = min(moments, len(lines)), 0
        for line in random.Random(receiver).sample(lines, tried):
            at = LimitAt(receiver, line)
            if found := list(wrong_after(captured, recorded, at)):
                wrong[f"{line} {at.place}"] = found
            came += bool(at.place)
    assert came > tried // 3, "some lines run once in a while"
    assert not wrong, f"{len(wrong)} of {counted.lines}:\n" + "\n".join(f"{k}: {v}" for k, v in wrong.items())
