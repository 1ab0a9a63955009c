"""Writes by SQL of the application's own: one record per statement and table, of what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, Self

from msgspec import UNSET

from otel_audit.audit_context import Moment
from otel_audit.audit_record import AuditRecord, Bulk, Database, Outcome, Target, new_record_id
from otel_audit.capture.plan import TablePlan, Verb
from otel_audit.capture.sql.sql_text import SqlText, SqlTexts, folded
from otel_audit.capture.statement import Statement
from otel_audit.capture.transactions.connection import Connection
from otel_audit.capture.writes import CapturedWrite
from otel_audit.errors import AuditError
from otel_audit.interruptions import interrupts
from otel_audit.pipeline.logger import AuditLogger


class RawTables:
    """The audited tables, by the names that statements call them."""

    def __init__(self) -> None:
        self._plans: dict[str, Any] = {}
        self._texts = SqlTexts(self._plans.keys())

    def add(self, plan: TablePlan, *, instead: bool = True) -> None:
        """Look for a table from now on; not ``instead`` of one that is known by the same name."""
        if instead or not self.has(folded(plan.table)):
            self._put(plan.table, plan)

    def _put(self, table: str, plan: Any) -> None:
        self._plans[folded(table)] = plan
        self._texts.forget()

    def remove(self, label: str) -> None:
        """Look no longer for the table of what records call ``label``."""
        for name in [name for name, plan in self._plans.copy().items() if plan.label == label]:
            self._plans.pop(name, None)
            self._texts.forget()

    def plan(self, name: str, schema: str = "") -> TablePlan:
        """Return the plan of a table, by what :meth:`read` calls it and its schema."""
        plan: TablePlan = self._plans[name]
        return plan

    def has(self, name: str) -> bool:
        """Say whether a table is one of them, by its folded name."""
        return name in self._plans

    def read(self, sql: str, system: str) -> SqlText | None:
        """Say what a statement writes to audited tables; None if nothing."""
        return self._texts.read(sql, system) if self._plans else None


class RawWrite(CapturedWrite):
    """What a statement of the application's own did to one table.

    ``count`` is rows, None if not known; ``schema`` is what its text says, ``""`` if it says none.
    """

    __slots__ = ("count", "schema", "text")

    def __init__(
        self,
        plan: TablePlan,
        verb: Verb,
        connection: Connection,
        text: SqlText,
        count: int | None = None,
        at: Moment | None = None,
        schema: str = "",
    ) -> None:
        super().__init__(plan, verb, connection, at)
        self.text = text
        self.count = count
        self.schema = schema
        if schema:
            self.namespace = connection.namespace_of(schema)

    def _database(self, transaction: str) -> Database:
        where = super()._database(transaction)
        return Database(
            where.system,
            where.namespace,
            where.table,
            transaction,
            self.text.text,
            where.address,
            where.port,
        )

    def _records(self, logger: AuditLogger, outcome: Outcome, transaction: str) -> list[AuditRecord]:
        return [
            self._record(
                logger,
                outcome,
                transaction,
                target=Target(self.plan.label),
                bulk=None if self.count is None else Bulk(self.count, id=new_record_id()),
                completeness="statement",
                truncated=self.text.cut,
            )
        ]


class Planned(Protocol):
    """The audited tables as one database has them."""

    def plan(self, name: str, schema: str = "") -> TablePlan:
        """Return the plan of a table, by what a statement calls it and its schema."""


class Announced(Protocol):
    """A statement of the application's own, from before it runs until its effect is noted."""

    def begin(self) -> None:
        """Announce it; raises AuditError where it must not run."""

    def failed(self, error: BaseException, *, refused: bool, sent: bool = True) -> None:
        """Note that it raised. Never raises."""

    def done(self, count: Any) -> None:
        """Note that it ran."""

    def finish(self) -> None:
        """Note that it ran, where an exception of the application's has interrupted :meth:`done`."""


class RawStatement:
    """One statement of the application's own, which writes to one table or several.

    Args:
        connection: runs it.
        tables: the audited ones.
        text: what it says.
        alone: whether it commits by itself, where its text decides that; default the connection does.
        aim: is told of each table before anything is noted of it, and what schema the text names, ``""`` if
            none; ``None`` if it does not name the table.
        beyond: the tables whose rows the database may delete or change with those it writes.
    """

    def __init__(
        self,
        connection: Connection,
        tables: Planned,
        text: SqlText,
        *,
        alone: bool | None = None,
        aim: Callable[[TablePlan, str | None], None] | None = None,
        beyond: Iterable[tuple[TablePlan, Verb]] = (),
    ) -> None:
        self._connection = connection
        self._text = text
        self._aim = aim
        self._alone = alone
        self._statements: list[tuple[Statement, CapturedWrite]] = []
        plans = []
        for verb, table, schema in text.writes:
            plan = tables.plan(table, schema)
            plans.append((plan, verb))
            self._add(plan, verb, schema)
        for plan, verb in beyond:
            if (plan, verb) not in plans:
                self._add(plan, verb, None)

    def _add(self, plan: TablePlan, verb: Verb, schema: str | None) -> None:
        """Note that it writes to a table, in the schema that its text says; ``None``: that names no table."""
        if not plan.audited:  # what it leads to may be
            return
        if self._aim is not None:
            self._aim(plan, schema)
        statement = Statement(self._connection, plan, verb)
        if self._alone is not None:
            statement.autocommit = statement.immediate = self._alone
        if schema is None:
            self._statements.append((statement, CapturedWrite(plan, verb, self._connection)))
        else:
            write = RawWrite(plan, verb, self._connection, self._text, schema=schema)
            self._statements.append((statement, write))

    def begin(self) -> None:
        """Announce it; in autocommit the intents are on disk when this returns.

        Raises:
            AuditError: they cannot be kept and ``on_error`` is ``fail_closed``: it must not run.
        """
        for statement, write in self._statements:
            statement.begin(write)

    def failed(self, error: BaseException, *, refused: bool, sent: bool = True) -> None:
        """Note that it raised; ``refused``: the error is the answer of the database, or of its driver."""
        for statement, write in self._statements:
            if type(write) is not RawWrite and refused:  # nothing has come of it
                statement.failed(error, sent=False, refused=False)
                continue
            statement.failed(error, sent=sent, refused=refused, intent=write)

    def done(self, count: Any) -> None:
        """Note that it ran; ``count`` is the driver's row count, below zero or no number if it has none."""
        rows = count if self._text.counts and type(count) is int and count >= 0 else None
        for statement, write in self._statements:
            schema = write.schema if type(write) is RawWrite else None
            if self._aim is not None:
                self._aim(write.plan, schema)
            statement.ran()
            self._connection.wrote_many(write.plan, None)
            if rows == 0:
                statement.done()
                continue
            if schema is None:
                statement.done(write)
                continue
            made = RawWrite(write.plan, write.verb, self._connection, self._text, rows, write.moment, schema)
            statement.done(made)

    def finish(self) -> None:
        """Note that it ran, where :meth:`done` was interrupted: what that had noted is not noted again."""
        for statement, write in self._statements:
            statement.result = None
            statement.finish(None, write)


class RawRun:
    """A ``with`` block around a statement of the application's own, which runs inside it.

    The block calls :meth:`begin`, runs the statement, sets :attr:`result` and calls :meth:`done`. A fault of
    ours ends here: behind the block, the statement is to be run by itself unless it was :attr:`sent`. What
    the statement raised, and what the application has caused, comes out of the block as it is.

    Attributes:
        sent: the statement may run, or has.
        result: what it returned, ``UNSET`` until it has run.
    """

    __slots__ = ("_connection", "_statement", "result", "sent")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._statement: Announced | None = None
        self.sent = False
        self.result: Any = UNSET

    def __enter__(self) -> Self:
        return self  # with nothing to take back: between this and the block an interruption may come

    def begin(self, statement: Announced) -> None:
        """Announce the statement.

        Raises:
            AuditError: a record cannot be kept and ``on_error`` is ``fail_closed``: it must not run.
        """
        self._statement = statement
        statement.begin()
        self.sent = True

    def done(self, count: Any) -> None:
        """Note that it ran; ``count`` is the driver's row count."""
        assert self._statement is not None
        self._statement.done(count)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if error is None:
            return False
        ours, interrupted = self._statement, interrupts(error)
        if ours is not None and self.sent and self.result is UNSET:
            ours.failed(error, refused=self._connection.refused(error))
            return False
        if interrupted and ours is not None:
            if self.sent:
                ours.finish()
            else:
                ours.failed(error, refused=False, sent=False)
        if interrupted or isinstance(error, AuditError):
            return False
        self._connection.failures.report("raw SQL", error, lost=1)
        return True
