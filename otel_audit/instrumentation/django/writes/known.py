"""Running a statement that writes one row, all of which is known before it runs.

What the fast paths share: no SQL of ours, no rows to fetch. In autocommit what is known is the intent on
disk, and a mark behind it says that it came true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from msgspec import UNSET

from otel_audit.capture.freshness import COMMITTED
from otel_audit.capture.writes import CapturedWrite, RowWrite
from otel_audit.errors import AuditError
from otel_audit.instrumentation.django.connection import DjangoConnection
from otel_audit.instrumentation.django.plan import ModelPlan
from otel_audit.instrumentation.django.writes.state import Capture
from otel_audit.instrumentation.django.writes.statement import CompiledStatement
from otel_audit.interruptions import interrupts


class Known(Protocol):
    """A write about to run.

    ``statement`` is None inside a transaction, where nothing is written ahead yet.
    """

    @property
    def plan(self) -> ModelPlan: ...

    @property
    def write(self) -> RowWrite: ...

    @property
    def connection(self) -> DjangoConnection: ...

    @property
    def statement(self) -> CompiledStatement | None: ...

    def note(self, capture: Capture, compiler: Any, result: Any) -> None:
        """Note that it ran and returned ``result``."""


def run_known(capture: Capture, compiler: Any, known: Known, run: Callable[[], Any]) -> Any:
    """Run the application's statement and note it."""
    statement = known.statement
    result: Any = UNSET
    try:
        if statement is None:
            result = _run_in_transaction(capture, compiler, known, run)
        else:
            result = statement.run(run)
        known.note(capture, compiler, result)
    except BaseException as error:
        if statement is not None and statement.result is not UNSET:
            result = statement.result
        if result is UNSET or isinstance(error, AuditError):
            raise
        if interrupts(error):
            _finish(known, result)
            raise
        write = known.write
        (statement or CompiledStatement(capture, compiler, known.plan, write.verb)).recover(error, result)
    capture.thread.statement = None
    return result


def wrote(capture: Capture, known: Known) -> int:
    """Remember that the row was written; return the count of the write."""
    connection, statement, write = known.connection, known.statement, known.write
    mark = COMMITTED if statement is not None and statement.immediate else connection.mark
    return capture.freshness.wrote(connection.name, write.plan.table, write.key, mark)


def done(known: Known, *others: CapturedWrite) -> None:
    """Note that it came about as it was known before, and what else it did."""
    if known.statement is not None:
        known.statement.done(known.write, *others)
        return
    known.connection.locked = True
    for write in (known.write, *others):
        known.connection.add(write)


def _finish(known: Known, result: Any) -> None:
    """Note a statement that ran, where the application's own exception has interrupted us."""
    connection, write = known.connection, known.write
    if known.statement is not None:
        known.statement.finish(1 if result else 0, write)
    elif result:
        connection.wrote_many(write.plan, None)
        connection.add_once(write)


def _run_in_transaction(capture: Capture, compiler: Any, known: Known, run: Callable[[], Any]) -> Any:
    """Run the statement; the intent of it is written with the others of its transaction."""
    here = capture.thread.__dict__
    here["runs"] += 1
    executed = here["executed"]
    try:
        return run()
    except BaseException as error:
        write = known.write
        CompiledStatement(capture, compiler, known.plan, write.verb, write).raised(error, executed)
        raise
