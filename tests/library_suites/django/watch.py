"""Inside the run of Django's tests: capture everything, and note what capture says of itself.

Beside what is noted of every library: how many more queries a test saw.
"""

from __future__ import annotations

import runpy
import sys
import unittest
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from otel_audit.config.model import AuditConfig, DjangoConfig
from tests.library_suites.watch import SPOOL, Report, Watch, replace

CONFIG = AuditConfig(
    django=DjangoConfig(models=["*"], reads=["*"], auth_events=True),
    spool=SPOOL,
    record_tests=True,  # these tests are the application
)


class DjangoReport(Report):
    """What a run says beside the results of the tests.

    Attributes:
        queries: (executed, expected) of the assertions on the number of queries that saw more of them.
    """

    queries: dict[str, list[tuple[int, int]]] = {}


class DjangoWatch(Watch[DjangoReport]):
    """Knows which of Django's tests runs."""

    def __init__(self) -> None:
        super().__init__(DjangoReport())

    def start(self) -> None:
        self._tests()
        super().start()

    def _tests(self) -> None:
        start, stop = unittest.TestResult.startTest, unittest.TestResult.stopTest

        def started(result: unittest.TestResult, test: unittest.TestCase) -> None:
            self.test = _name(test)
            start(result, test)

        def stopped(result: unittest.TestResult, test: unittest.TestCase) -> None:
            stop(result, test)
            self.test = f"(after {_name(test)})"

        replace(unittest.TestResult, "startTest", started)
        replace(unittest.TestResult, "stopTest", stopped)

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

        replace(testcases._AssertNumQueriesContext, "__exit__", left)


def _name(test: unittest.TestCase | None) -> str:
    return test.id() if isinstance(test, unittest.TestCase) else "(no test)"  # Django tests its own runner


def main(arguments: list[str]) -> None:
    """Become Django's ``runtests.py``; ``captured`` with all models audited."""
    how, report, runtests, *rest = arguments
    sys.path.insert(0, str(Path(runtests).parent))
    sys.argv = [runtests, *rest]
    with ExitStack() as stack:
        if how == "captured":
            from otel_audit.instrumentation.django import DjangoAuditInstrumentor
            from otel_audit.testing import capture_audit

            watch = DjangoWatch()
            watch.start()
            watch.more_queries()
            stack.callback(watch.write, Path(report))
            stack.enter_context(capture_audit(CONFIG))
            DjangoAuditInstrumentor().instrument(config=CONFIG)
        runpy.run_path(runtests, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
