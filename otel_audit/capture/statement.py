"""One captured statement, from before it runs until its effect is noted.

A captured statement goes three steps: prepare (ours), run (the application's statement, never guarded),
record (ours). A fault of ours in the first or last step costs detail, never the statement. An instrumentor
calls :meth:`Statement.begin`, runs the statement or lets its library run it, and calls
:meth:`Statement.failed` or :meth:`Statement.done`; the two may come from different events.
"""

from __future__ import annotations

from typing import Any

from otel_audit.capture.bulk import BulkWrite
from otel_audit.capture.connection import Connection
from otel_audit.capture.plan import TablePlan, Verb
from otel_audit.capture.writes import CapturedWrite, NoWrite
from otel_audit.errors import AuditError
from otel_audit.interruptions import faults


class Statement:
    """A statement on one connection that writes to one table.

    Attributes:
        autocommit: it commits by itself; its intent is on disk before it runs.
        immediate: it is settled right afterwards: it commits by itself, or no COMMIT will ever come.
    """

    __slots__ = ("_handle", "_intent", "autocommit", "connection", "immediate", "plan", "verb")

    def __init__(self, connection: Connection, plan: TablePlan, verb: Verb) -> None:
        self.connection = connection
        self.plan: Any = plan
        self.verb: Verb = verb
        self.autocommit, self.immediate = connection.commits_at_once()
        self._intent: CapturedWrite | None = None
        self._handle: Any = None

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
        if self.autocommit:
            self._settle(writes)
            return
        for write in writes:
            self.connection.add(write)
        if self.immediate and writes:
            self.connection.settle()

    def recover(self, error: BaseException, count: Any = None) -> None:
        """Note the statement with its row count only: ``error`` is a fault of ours after it ran."""
        failures = self.connection.failures
        failures.report(self.verb, error)
        write = CapturedWrite(self.plan, self.verb, self.connection)
        if type(count) is int:
            write = (
                BulkWrite(self.plan, self.verb, self.connection, count)
                if count
                else NoWrite(self.plan, self.verb, self.connection)
            )
        try:
            self.connection.wrote_many(self.plan, None)
            self.done(write)
        except AuditError:
            raise
        except faults() as fault:
            failures.report(f"{self.verb}, again", fault, lost=1)

    def _settle(self, writes: tuple[CapturedWrite, ...]) -> None:
        handle, self._handle = self._handle, None
        first, *others = writes or (NoWrite(self.plan, self.verb, self.connection),)
        buffer = self.connection.buffer
        try:
            # What is on disk already as it turned out need not be made and written once more.
            settled = None if first is self._intent and handle is not None else first
            buffer.settle_now(handle, settled, "success")
            for write in others:
                buffer.settle_now(None, write, "success")
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
                if logger is not None and buffer.failures:
                    logger.emit(*write.build(logger, "failure", buffer.transaction), at=write.moment)
            elif sent:
                # Something after the statement raised; what was written shares the fate of the transaction.
                connection.add(write)
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
