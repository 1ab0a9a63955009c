"""Inside the run of Django's tests: capture everything, and note what capture says of itself.

Nothing that Django's tests cannot see may stay unseen here: each line we log at WARNING or above (without the
limit of one per minute), each record that is less than whole, and how many more queries a test saw.
"""

from __future__ import annotations

import logging
import runpy
import sys
import traceback
import unittest
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import AuditConfig, DjangoConfig, SpoolConfig
from otel_audit.pipeline.health import Throttle
from otel_audit.pipeline.logger import AuditLogger

CONFIG = AuditConfig(
    django=DjangoConfig(models=["*"], reads=["*"], auth_events=True),
    spool=SpoolConfig(max_bytes=64 * 1024**3),
    record_tests=True,  # these tests are the application
)


class Kind(msgspec.Struct):
    """How often something was, and where first."""

    count: int = 0
    tests: list[str] = []
    detail: str = ""


class Report(msgspec.Struct):
    """What a run says beside the results of the tests.

    Attributes:
        lines: what we logged, by message.
        records: how many records there are of each completeness.
        lessened: records that are less than whole, by what they are about.
        queries: (executed, expected) of the assertions on the number of queries that saw more of them.
    """

    lines: dict[str, Kind] = {}
    records: dict[str, int] = {}
    lessened: dict[str, Kind] = {}
    queries: dict[str, list[tuple[int, int]]] = {}


class Watch:
    """Notes what happens, and in which test."""

    def __init__(self) -> None:
        self.report = Report()
        self.records: Counter[str] = Counter()
        self.test = "(before the first test)"

    def start(self) -> None:
        """Wrap what is watched, for the rest of the process."""
        self._tests()
        self._lines()
        self._made()

    def _tests(self) -> None:
        start, stop = unittest.TestResult.startTest, unittest.TestResult.stopTest

        def started(result: unittest.TestResult, test: unittest.TestCase) -> None:
            self.test = _name(test)
            start(result, test)

        def stopped(result: unittest.TestResult, test: unittest.TestCase) -> None:
            stop(result, test)
            self.test = f"(after {_name(test)})"

        _replace(unittest.TestResult, "startTest", started)
        _replace(unittest.TestResult, "stopTest", stopped)

    def _lines(self) -> None:
        log = Throttle.__call__

        def called(
            throttle: Throttle, level: int, key: str, message: str, *args: object, exc_info: bool = False
        ) -> None:
            if level >= logging.WARNING:
                self._note(self.report.lines, _kind(message, args), _trace(args) or message % args)
            log(throttle, level, key, message, *args, exc_info=exc_info)

        _replace(Throttle, "__call__", called)

    def _made(self) -> None:
        record = AuditLogger.record

        def recorded(logger: AuditLogger, *args: Any, **parts: Any) -> AuditRecord:
            made = record(logger, *args, **parts)
            self.records[made.completeness] += 1
            if made.truncated or _says_less(made):
                truncated = ", truncated" if made.truncated else ""
                name = self.test.removeprefix("(after ").split(".")[0]
                self._note(
                    self.report.lessened,
                    f"{made.completeness}{truncated}: {made.action} of {name}",
                    msgspec.json.encode(made).decode()[:1500],
                )
            return made

        _replace(AuditLogger, "record", recorded)

    def _note(self, kinds: dict[str, Kind], kind: str, detail: str) -> None:
        found = kinds.setdefault(kind, Kind(tests=[], detail=detail))
        found.count += 1
        if self.test not in found.tests and len(found.tests) < 10:
            found.tests.append(self.test)

    def more_queries(self) -> None:
        """Note assertions on the number of queries that see more, and go on: what comes after them counts."""
        from django.test import testcases

        leave = testcases._AssertNumQueriesContext.__exit__

        def left(context: Any, kind: Any, error: Any, trace: Any) -> None:
            try:
                leave(context, kind, error, trace)
            except AssertionError:
                executed = len(context)
                if kind is not None or executed <= context.num:
                    raise
                self.report.queries.setdefault(self.test, []).append((executed, context.num))

        _replace(testcases._AssertNumQueriesContext, "__exit__", left)

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        self.report.records = dict(self.records)
        path.write_bytes(msgspec.json.encode(self.report))


def _name(test: unittest.TestCase | None) -> str:
    return test.id() if isinstance(test, unittest.TestCase) else "(no test)"  # Django tests its own runner


def _replace(owner: type, name: str, function: Callable[..., Any]) -> None:
    """Replace a method for the rest of the process."""
    mock.patch.object(owner, name, function).start()


def _says_less(record: AuditRecord) -> bool:
    """Whether a write is recorded less completely than one of the ORM that the database took should be."""
    raw = bool(record.database.query)
    return (
        record.completeness != "full" and record.outcome != "failure" and record.action != "READ" and not raw
    )


def _kind(message: str, args: tuple[object, ...]) -> str:
    """A line without what differs each time: exceptions by their class."""
    short = [type(arg).__qualname__ if isinstance(arg, BaseException) else str(arg)[:100] for arg in args]
    return message % tuple(short) if len(short) == message.replace("%%", "").count("%") else message


def _trace(args: tuple[object, ...]) -> str:
    error = next((arg for arg in args if isinstance(arg, BaseException)), None)
    return "" if error is None else "".join(traceback.format_exception(error))[-4000:]


def main(arguments: list[str]) -> None:
    """Become Django's ``runtests.py``; ``captured`` with all models audited."""
    how, report, runtests, *rest = arguments
    sys.path.insert(0, str(Path(runtests).parent))
    sys.argv = [runtests, *rest]
    with ExitStack() as stack:
        if how == "captured":
            from otel_audit.instrumentation.django import DjangoAuditInstrumentor
            from otel_audit.testing import capture_audit

            watch = Watch()
            watch.start()
            watch.more_queries()
            stack.callback(watch.write, Path(report))
            stack.enter_context(capture_audit(CONFIG))
            DjangoAuditInstrumentor().instrument(config=CONFIG)
        runpy.run_path(runtests, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
