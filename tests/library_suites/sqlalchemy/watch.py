"""Inside the run of SQLAlchemy's tests, as a plugin of pytest: capture everything, and note what there is.

``SUITE_REPORT`` names the file the report goes to; ``SUITE_HOW`` is ``captured`` or ``plain``.
"""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from otel_audit.config.model import AuditConfig, SQLAlchemyConfig
from tests.library_suites.watch import SPOOL, Report, Watch

CONFIG: Final = AuditConfig(
    sqlalchemy=SQLAlchemyConfig(models=["*"]),
    spool=SPOOL,
    record_tests=True,  # these tests are the application
)
_DATABASE: Final = re.compile(r"_(?:sqlite|postgresql)\+[\w+.]*?(?=::|$)")


class SQLAlchemyReport(Report):
    """What a run of SQLAlchemy's tests says.

    Attributes:
        passed: the tests that passed.
        failed: what each of those that did not says.
        unlistened: tests after which SQLAlchemy called our listeners no more.
    """

    passed: list[str] = []
    failed: dict[str, str] = {}
    unlistened: list[str] = []


class SQLAlchemyWatch(Watch[SQLAlchemyReport]):
    """The plugin: its hooks tell which test runs."""

    def __init__(self, *, captured: bool, path: Path) -> None:
        super().__init__(SQLAlchemyReport())
        self.captured, self.path = captured, path
        self._stack = ExitStack()
        self._listeners = 0

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        """Begin once SQLAlchemy's own plugin has: nobody may import it earlier."""
        if self.captured:
            from otel_audit.testing import capture_audit

            self.start()
            self._stack.enter_context(capture_audit(CONFIG))
            self._instrument()
            self._listeners = _listeners()
            if not self._listeners:
                raise RuntimeError("the instrumentor listens to nothing")

    def _instrument(self) -> None:
        from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor

        SQLAlchemyAuditInstrumentor().uninstrument()
        SQLAlchemyAuditInstrumentor().instrument(config=CONFIG)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.test = named(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = named(report.nodeid)
        if report.failed:
            text = f"{report.when}: {report.longreprtext}"
            self.report.failed[test] = self.report.failed.get(test, "") + text
        elif report.when == "call" and report.passed:
            self.report.passed.append(test)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        test = named(nodeid)
        self.test = f"(after {test})"
        if self.captured and _listeners() < self._listeners:
            self.report.unlistened.append(test)
            self._instrument()

    def pytest_sessionfinish(self) -> None:
        if self.captured:
            from otel_audit.instrumentation.sqlalchemy import SQLAlchemyAuditInstrumentor

            SQLAlchemyAuditInstrumentor().uninstrument()
        self._stack.close()
        self.write(self.path)


def _listeners() -> int:
    """Count what listens to all dialects and pools."""
    from sqlalchemy.engine import Dialect
    from sqlalchemy.pool import Pool

    dialects: Any = Dialect.dispatch
    pools: Any = Pool.dispatch
    return sum(
        len(event._clslevel.get(target, ()))
        for target, event in ((Dialect, dialects.handle_error), (Pool, pools.reset))
    )


def named(nodeid: str) -> str:
    """Return a test's id without the database, which SQLAlchemy adds to the names of classes."""
    return _DATABASE.sub("", nodeid)


def read(path: Path) -> SQLAlchemyReport:
    """Read what a run has written."""
    return msgspec.json.decode(path.read_bytes(), type=SQLAlchemyReport)


def pytest_configure(config: pytest.Config) -> None:
    """Join the run."""
    captured = os.environ["SUITE_HOW"] == "captured"
    config.pluginmanager.register(SQLAlchemyWatch(captured=captured, path=Path(os.environ["SUITE_REPORT"])))
