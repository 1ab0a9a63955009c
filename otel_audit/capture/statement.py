"""One captured statement, from before it runs until its effect is noted.

A captured statement goes three steps: prepare (ours), run (the application's statement, never guarded),
record (ours). A fault of ours in the first or last step costs detail, never the statement. An instrumentor
calls :meth:`Statement.begin`, runs the statement or lets its library run it, and calls
:meth:`Statement.failed` or :meth:`Statement.done`; the two may come from different events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET

from otel_audit.capture.bulk import BulkWrite
from otel_audit.capture.plan import TablePlan, Verb
from otel_audit.capture.transactions.connection import Connection
from otel_audit.capture.writes import CapturedWrite, NoWrite, RowWrite
from otel_audit.errors import AuditError
from otel_audit.interruptions import faults, interrupts


class Statement:
    """A statement on one connection that writes to one table.

    Attributes:
        autocommit: it commits by itself; its intent is on disk before it runs.
        immediate: it is settled right afterwards: it commits by itself, or no COMMIT will ever come.
        result: what it returned, ``UNSET`` until it has run.
    """

    __slots__ = (
        "_finished",
        "_handle",
        "_intent",
        "_mark",
        "_writes",
        "autocommit",
        "connection",
        "immediate",
        "plan",
        "result",
        "verb",
    )

    def __init__(self, connection: Connection, plan: TablePlan, verb: Verb) -> None:
        self.connection = connection
        self.plan: Any = plan
        self.verb: Verb = verb
        self.autocommit, self.immediate = connection.commits_at_once()
        self._intent: CapturedWrite | None = None
        self._handle: Any = None
        self._mark = connection.mark
        self._writes: tuple[CapturedWrite, ...] | None = None
        self._finished = False
        self.result: Any = UNSET

    def written(self, result: Any) -> Sequence[CapturedWrite] | None:
        """Return what it wrote, as ``result`` tells without asking the database; None: that it does not tell.

        An instrumentor that knows says so in a class of its own; it is asked where an exception of the
        application's comes before the statement is noted.
        """
        return None

    def begin(self, intent: CapturedWrite | None = None) -> None:
        """Announce the statement; in autocommit the intent of it is on disk when this returns.

        ``intent`` is what is known of the statement before it runs; default its table.

        Raises:
            AuditError: the intent cannot be kept and ``on_error`` is ``fail_closed``: it must not run.
        """
        if not self.autocommit:
            return
        try:
            self._intent = intent or CapturedWrite(self.plan, self.verb, self.connection)
            self._handle = self.connection.buffer.intend_now(self._intent)
        except AuditError:
            raise
        except faults() as error:
            self.connection.failures.report("intend", error)

    def ran(self) -> None:
        """Note that it ran: inside a transaction SQLite's write lock is held from here on."""
        if self.connection.dialect.one_writer and not self.autocommit:
            self.connection.locked = True

    def done(self, *writes: CapturedWrite) -> None:
        """Note what the statement did; nothing if it matched no row."""
        self._writes = writes
        if self.autocommit:
            self._settle(writes)
        else:
            for write in writes:
                self.connection.add(write)
            if self.immediate and writes:
                self.connection.settle()
        self._finished = True

    def finish(self, count: int | None, known: CapturedWrite | None = None) -> None:
        """Note what ran, where an exception of the application's has interrupted us before it was noted.

        Does nothing if it has not run, was noted, or its transaction is over. To be called inside that
        transaction, before the exception reaches the application.

        Args:
            count: rows it wrote; None: not known.
            known: what it wrote if it wrote anything; default what was to be noted, what :meth:`written`
                makes of its result, or the count.
        """
        connection = self.connection
        if self._finished or self.result is UNSET:
            return
        if not self.autocommit and connection.mark is not self._mark:
            return
        self._finished = True
        try:
            if self._writes is None:
                self._writes = () if count == 0 else (known,) if known is not None else self._known(count)
            connection.wrote_many(self.plan, None)
            if self.autocommit:
                self._settle(self._writes)
                return
            for write in self._writes:
                connection.add_once(write)
            if self.immediate and connection.pending:
                connection.settle()
        except faults() as fault:  # not even fail_closed may hide what interrupts
            connection.failures.note(f"{self.verb}, interrupted", fault, lost=1)

    def _known(self, count: int | None) -> tuple[CapturedWrite, ...]:
        written = None
        try:
            written = self.written(self.result)
        except faults() as fault:  # its values are what is lost
            self.connection.failures.note(f"{self.verb}, interrupted", fault)
        return (self._counted(count),) if written is None else tuple(written)

    def _counted(self, count: int | None) -> CapturedWrite:
        intent = self._intent
        if self.verb == "update" and count == 1 and isinstance(intent, RowWrite):
            return intent
        if count is None:
            return CapturedWrite(self.plan, self.verb, self.connection)
        return BulkWrite(self.plan, self.verb, self.connection, count)

    def recover(self, error: BaseException, count: Any = None) -> None:
        """Note the statement with its row count only: ``error`` is a fault of ours after it ran."""
        failures = self.connection.failures
        failures.report(self.verb, error)
        write: CapturedWrite = NoWrite(self.plan, self.verb, self.connection)
        if type(count) is not int or count:
            write = self._counted(count if type(count) is int else None)
        try:
            self.connection.wrote_many(self.plan, None)
            self.done(write)
        except AuditError:
            raise
        except faults() as fault:
            failures.report(f"{self.verb}, again", fault, lost=1)

    def _settle(self, writes: tuple[CapturedWrite, ...]) -> None:
        handle = self._handle
        first, *others = writes or (NoWrite(self.plan, self.verb, self.connection),)
        try:
            # What is on disk already as it turned out need not be made and written once more.
            settled = None if first is self._intent and handle is not None and not others else first
            self.connection.buffer.settle_now(handle, settled, "success", *others)
        except AuditError:
            raise
        except faults() as error:
            self.connection.failures.report("settle", error, lost=len(writes))

    def failed(
        self, error: BaseException, *, sent: bool, refused: bool, intent: CapturedWrite | None = None
    ) -> None:
        """Note that the statement raised: nothing was written, unless its answer was lost. Never raises.

        Args:
            error: what it raised, which is propagating.
            sent: it was sent to the database.
            refused: the error is the database's answer.
            intent: what is known of the statement; default what :meth:`begin` was told, or its table.
        """
        connection = self.connection
        try:
            write = self._intent or intent or CapturedWrite(self.plan, self.verb, connection)
            write.error = type(error).__qualname__
            if self.autocommit:
                self._failed_in_autocommit(write, sent=sent, refused=refused)
            elif refused and sent:
                buffer = connection.buffer
                logger = buffer.logger
                if logger is not None and buffer.keep_failed:
                    logger.emit(*write.build(logger, "failure", buffer.transaction), at=write.moment)
            elif sent:
                # Something after the statement raised; what was written shares the fate of the transaction.
                connection.add(write)
                if interrupts(error):  # before or after the statement: nobody knows
                    connection.buffer.doubt(write)
            if sent and not refused:
                connection.wrote_many(self.plan, None)
        except faults() as fault:
            connection.failures.note("failed statement", fault)

    def _failed_in_autocommit(self, write: CapturedWrite, *, sent: bool, refused: bool) -> None:
        handle, self._handle = self._handle, None
        buffer = self.connection.buffer
        if refused:
            buffer.settle_now(handle, write, "failure")
        elif sent:
            buffer.settle_now(handle, write, "unknown")
        else:  # it could not even be compiled
            buffer.settle_now(handle, NoWrite(self.plan, self.verb, self.connection), "failure")
