"""What a signal handler raises inside our work is the application's; what its values raise is a fault."""

from __future__ import annotations

import ctypes
import functools
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import otel_audit
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.pipeline.provider import AuditPipeline
from otel_audit.values import freeze, key_text, portable, portable_type, same
from tests.pipeline.conftest import pipeline, pipelines, spool_directory  # noqa: F401


class SoftTimeLimit(Exception):
    """Stands for Celery's."""


def handler(signum: int, frame: object) -> None:
    raise SoftTimeLimit


def handler_of_any_arguments(*_: object) -> None:
    raise SoftTimeLimit


def handler_that_calls(signum: int, frame: object) -> None:
    handler_of_any_arguments()


def handler_that_resets_itself(signum: int, frame: object) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    raise SoftTimeLimit


def handler_with_more(more: str, signum: int, frame: object) -> None:
    raise SoftTimeLimit(more)


def handler_that_times_out(signum: int, frame: object) -> None:
    raise TimeoutError  # an OSError


class Penalty:
    """As RQ's death penalty."""

    def expire(self, signum: int, frame: object) -> None:
        raise SoftTimeLimit

    def __call__(self, signum: int, frame: object) -> None:
        raise SoftTimeLimit


@functools.wraps(handler)
def wrapped(*args: Any, **kwargs: Any) -> None:
    handler(*args, **kwargs)


HANDLERS: dict[str, Callable[..., Any]] = {
    "function": handler,
    "of any arguments": handler_of_any_arguments,
    "calls another": handler_that_calls,
    "resets itself": handler_that_resets_itself,
    "partial": functools.partial(handler_with_more, "late"),
    "method": Penalty().expire,
    "callable": Penalty(),
    "wrapped": wrapped,
    "lambda": lambda signum, frame: handler_of_any_arguments(),
    "TimeoutError": handler_that_times_out,
}


@pytest.fixture(params=HANDLERS)
def limit(request: pytest.FixtureRequest) -> Iterator[type[Exception]]:
    """A handler of SIGALRM; gives what it raises."""
    before = signal.signal(signal.SIGALRM, HANDLERS[request.param])
    try:
        yield TimeoutError if request.param == "TimeoutError" else SoftTimeLimit
    finally:
        signal.signal(signal.SIGALRM, before)


class Interrupted:
    """A value at whose conversion a signal comes in."""

    def __str__(self) -> str:
        signal.raise_signal(signal.SIGALRM)
        return "text"

    def __eq__(self, other: object) -> bool:
        signal.raise_signal(signal.SIGALRM)
        return True

    __hash__ = object.__hash__


class Failing:
    """A value that raises by itself, and the same exception."""

    def __str__(self) -> str:
        raise SoftTimeLimit

    def __eq__(self, other: object) -> bool:
        raise SoftTimeLimit

    __hash__ = object.__hash__


@pytest.mark.parametrize("work", [freeze, portable, key_text, lambda value: same(value, Interrupted())])
def test_what_a_signal_handler_raises_in_the_conversion_of_a_value_passes(
    limit: type[Exception], work: Callable[[Any], Any]
) -> None:
    with pytest.raises(limit):
        work({"a": [Interrupted()]} if work is portable else Interrupted())


@pytest.mark.parametrize("work", [freeze, portable, portable_type, key_text, lambda value: same(value, 1)])
def test_what_a_value_itself_raises_costs_only_the_value(work: Callable[[Any], Any]) -> None:
    work(Failing())


def test_a_signal_while_a_record_is_made_passes_and_the_next_record_is_kept(
    pipeline: AuditPipeline,  # noqa: F811
    limit: type[Exception],
) -> None:
    with pytest.raises(limit):
        pipeline.logger.log("shop.order.refund", "REFUND", attributes={"note": Interrupted()})
    logger: AuditLogger = pipeline.logger
    assert logger.health.emitted == 0
    if signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
        assert logger.log("shop.order.refund", "REFUND", attributes={"note": Failing()}) is not None


def _set_in(thread_id: int, exception: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(exception))


def test_what_another_thread_raises_in_our_work_passes() -> None:
    """As RQ's timer does it where there are no signals."""
    value = {"rows": [{"name": "x" * 10, "ids": {1, 2, 3}} for _ in range(50)]}
    for _ in range(30):
        timer = threading.Timer(0.002, _set_in, [threading.get_ident(), SoftTimeLimit])
        with pytest.raises(SoftTimeLimit):
            timer.start()
            for _ in range(5_000):
                portable(value)
        timer.join()


OTHER_THREADS_OR_THE_START = {
    "capture/databases/abilities.py",
    "distro.py",
    "forks.py",
    "instrumentation/django/checks.py",
    "instrumentation/django/reads/wrappers.py",
    "interruptions.py",
    "pipeline/failures.py",
    "pipeline/metrics.py",
    "pipeline/process_end.py",
    "pipeline/sender.py",
    "pipeline/spool/status.py",
    "pipeline/delivery/otlp_http.py",
    "redaction/spans/exporters.py",
    "startup.py",
}
"""Where no time limit of the application's is running, what is caught passes, or a hook may not raise."""


def test_what_runs_in_the_applications_thread_catches_only_faults() -> None:
    package = Path(otel_audit.__file__).parent
    found = {
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if re.search(r"except Exception|suppress\(Exception", file.read_text("utf-8"))
    }
    asked = {name for name in found if name.partition("/")[0] not in {"cli", "server", "store", "config"}}
    assert asked - OTHER_THREADS_OR_THE_START == set()
