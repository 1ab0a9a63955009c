"""What migrations do to audited rows: one record per table and migration, of how many rows and by which.

Inside ``migrate`` nothing else is captured. What a migration writes, by the ORM, ``RunSQL`` or a cursor, is
seen at the cursor, and counted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from otel_audit.audit_record import AuditRecord, Bulk, Outcome, Target, new_record_id
from otel_audit.capture.plan import TablePlan, Verb
from otel_audit.capture.sql.raw_sql import Planned
from otel_audit.capture.sql.sql_text import SqlText
from otel_audit.capture.transactions.connection import Connection
from otel_audit.capture.writes import CapturedWrite, NoWrite
from otel_audit.instrumentation.django.loaded import ThreadState
from otel_audit.interruptions import faults, interrupts
from otel_audit.pipeline.logger import AuditLogger

_F = TypeVar("_F", bound=Callable[..., Any])


class Migrating:
    """A migration at work.

    Args:
        migration: Django's.
        direction: ``forwards`` or ``backwards``.
        alias: the connection on which all of it is one transaction, ``""`` if there is none.
    """

    def __init__(self, migration: Any, direction: str, alias: str) -> None:
        self.alias = alias
        self.name = f"{migration.app_label}.{migration.name}"
        self.direction = direction
        self.operations = [type(operation).__name__ for operation in migration.operations]
        self.inserted: int | None = None
        """Rows of the INSERT of the ORM that is running, if it inserts them all."""
        self._parts: dict[tuple[str, str], list[_Part]] = {}
        self._alone: dict[tuple[str, str], _Alone] = {}

    def inserting(self, query: Any, insert: Callable[[], Any]) -> Any:
        """Run an INSERT of the ORM; SQLite does not count what it returns rows of."""
        self.inserted = None if query.on_conflict else len(query.objs)
        try:
            return insert()
        finally:
            self.inserted = None

    def alone(self, connection: Connection, plan: TablePlan) -> _Alone:
        """Return what is told of a table when the migration has ended, with the intent of it on disk."""
        key = (connection.name, plan.table)
        found = self._alone.get(key)
        if found is None:
            found = _Alone(self, plan, connection, self._parts.setdefault(key, []))
            self._alone[key] = found
            try:
                found.handle = connection.buffer.intend_now(found)
            except BaseException:
                del self._alone[key]
                raise
        return found

    def part(self, connection: Connection, plan: TablePlan) -> _Part:
        """Return where to count what is written to a table now, in the open transaction."""
        buffer = connection.buffer
        parts = self._parts.setdefault((connection.name, plan.table), [])
        if not parts or not buffer.is_last(parts[-1], parts[-1].position):
            parts.append(_Part(self, plan, connection, parts, len(buffer)))
            connection.add(parts[-1])
        return parts[-1]

    def told(self, connection: Connection) -> None:
        """Begin anew: what was counted in the transaction of a connection is on record."""
        if connection.name == self.alias:
            for (name, _), parts in self._parts.items():
                if name == connection.name:
                    parts.clear()

    def end(self, outcome: Outcome) -> None:
        """Settle what was committed on the way; once more where that is interrupted."""
        try:
            self._settle(outcome)
        except BaseException as error:
            if interrupts(error):
                self._settle(outcome)
            raise

    def _settle(self, outcome: Outcome) -> None:
        for write in self._alone.values():
            try:
                nothing = NoWrite(write.plan, write.verb, write.connection)
                wrote = any(write._counts())
                write.connection.buffer.settle_now(write.handle, write if wrote else nothing, outcome)
            except faults() as error:
                write.connection.failures.report("migration", error, lost=1)


class _Counted(CapturedWrite):
    """What a migration did to one table: rows by verb, None where the database did not say."""

    __slots__ = ("migrating", "rows")

    def __init__(self, migrating: Migrating, plan: TablePlan, connection: Connection) -> None:
        super().__init__(plan, "update", connection)
        self.migrating = migrating
        self.rows: dict[Verb, int | None] = {}

    def count(self, verb: Verb, rows: int | None) -> None:
        before = self.rows.get(verb, 0)
        self.rows[verb] = None if rows is None or before is None else before + rows

    def _counts(self) -> Iterable[dict[Verb, int | None]]:
        return (self.rows,)

    def _records(self, logger: AuditLogger, outcome: Outcome, transaction: str) -> list[AuditRecord]:
        rows: dict[str, int | None] = {}
        for some in self._counts():
            for verb, count in some.items():
                before = rows.get(verb, 0)
                rows[verb] = None if count is None or before is None else before + count
        known = [count for count in rows.values() if count is not None]
        migrating = self.migrating
        return [
            logger.record(
                f"{self.plan.event}.migrate",
                "MIGRATE",
                at=self.moment,
                outcome=outcome,
                error="" if outcome == "success" else self.error or self.connection.error,
                target=Target(self.plan.label),
                database=self._database(transaction),
                bulk=Bulk(sum(known), id=new_record_id()) if rows and len(known) == len(rows) else None,
                completeness="statement",
                attributes={
                    "migration": migrating.name,
                    "direction": migrating.direction,
                    "operations": migrating.operations,
                    "rows": rows,
                },
            )
        ]


class _Alone(_Counted):
    """By statements that commit by themselves, and by transactions of which the migration has several."""

    __slots__ = ("handle", "parts")

    def __init__(
        self, migrating: Migrating, plan: TablePlan, connection: Connection, parts: list[_Part]
    ) -> None:
        super().__init__(migrating, plan, connection)
        self.parts = parts
        self.handle: Any = None

    def _counts(self) -> Iterable[dict[Verb, int | None]]:
        return [self.rows, *(part.rows for part in self.parts)]


class _Part(_Counted):
    """Between two savepoints of a transaction; the first of those that stay tells of all."""

    __slots__ = ("parts", "position")

    def __init__(
        self,
        migrating: Migrating,
        plan: TablePlan,
        connection: Connection,
        parts: list[_Part],
        position: int,
    ) -> None:
        super().__init__(migrating, plan, connection)
        self.parts = parts
        self.position = position

    def undo(self) -> None:
        super().undo()
        if self in self.parts:
            self.parts.remove(self)

    def build(self, logger: AuditLogger, outcome: Outcome, transaction: str) -> Iterable[AuditRecord]:
        if self in self.parts and (self.parts[0] is not self or self.connection.name != self.migrating.alias):
            return ()  # told by the first, or when the migration ends
        return super().build(logger, outcome, transaction)

    def _counts(self) -> Iterable[dict[Verb, int | None]]:
        return [part.rows for part in self.parts] if self in self.parts else [self.rows]


class MigrationStatement:
    """One statement of a migration."""

    def __init__(self, migrating: Migrating, connection: Connection, tables: Planned, text: SqlText) -> None:
        self._migrating = migrating
        self._connection = connection
        self._text = text
        self._writes = [(verb, tables.plan(table, schema)) for verb, table, schema in text.writes]
        self._alone, self._settled = connection.commits_at_once()
        self._noted = False

    def begin(self) -> None:
        """Announce it; in autocommit an intent is on disk when this returns.

        Raises:
            AuditError: it cannot be kept and ``on_error`` is ``fail_closed``: it must not run.
        """
        if self._alone or self._connection.name != self._migrating.alias:
            for _, plan in self._writes:
                self._migrating.alone(self._connection, plan)

    def failed(self, error: BaseException, *, refused: bool, sent: bool = True) -> None:
        """Note that it raised: what may have been written is not counted, but told of."""
        if sent and not refused:
            self._count_anyhow()

    def _count_anyhow(self) -> None:
        try:
            self._count(None)
        except faults() as fault:
            self._connection.failures.note("migration", fault)

    def done(self, count: Any) -> None:
        """Note that it ran; ``count`` is the driver's row count."""
        rows: int | None = None
        if self._text.counts:
            rows = count if type(count) is int and count >= 0 else self._migrating.inserted
        self._count(rows)
        self._noted = True

    def finish(self) -> None:
        """Note that it ran, where :meth:`done` was interrupted: of how many rows is not known then."""
        if not self._noted:
            self._noted = True
            self._count_anyhow()

    def _count(self, rows: int | None) -> None:
        migrating, connection = self._migrating, self._connection
        for verb, plan in self._writes:
            connection.wrote_many(plan, None)
            if rows == 0:
                continue
            if self._alone:
                migrating.alone(connection, plan).count(verb, rows)
            else:
                migrating.part(connection, plan).count(verb, rows)
        if self._settled and not self._alone:
            connection.settle()
            migrating.told(connection)


def migrating(thread: ThreadState, direction: str) -> Callable[[_F], _F]:
    """Make a wrapper of what applies or unapplies a migration, inside ``migrate``."""

    def wrap(original: _F) -> _F:
        @functools.wraps(original)
        def migrate(executor: Any, /, state: Any, migration: Any, *args: Any, **kwargs: Any) -> Any:
            from django.db import InterfaceError, OperationalError

            if not thread.suppressed:
                return original(executor, state, migration, *args, **kwargs)
            outer = thread.migrating
            connection = executor.connection
            whole = migration.atomic and connection.features.can_rollback_ddl
            current = Migrating(migration, direction, connection.alias if whole else "")
            outcome: Outcome = "unknown"
            try:
                thread.migrating = current
                result = original(executor, state, migration, *args, **kwargs)
                outcome = "success"
                return result
            except faults() as error:
                # Whether the last COMMIT of several was carried out nobody knows where its answer was lost.
                outcome = "unknown" if isinstance(error, OperationalError | InterfaceError) else "success"
                raise
            finally:
                thread.migrating = outer
                current.end(outcome)

        return migrate  # type: ignore[return-value]

    return wrap
