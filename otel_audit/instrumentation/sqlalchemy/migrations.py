"""Alembic: each migration is a record, and what it writes is written by ``alembic upgrade``, not by nobody.

The record waits for the transaction that the migration runs in, as its data changes do: several migrations
that are one transaction succeed or fail together. Nothing of Alembic is imported before the application does.
"""

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from otel_audit.audit_context import Moment, moment
from otel_audit.audit_record import AuditRecord, Database, Outcome, Target
from otel_audit.capture.plan import TablePlan
from otel_audit.capture.table_policy import TableSettings
from otel_audit.capture.writes import CapturedWrite
from otel_audit.errors import AuditError
from otel_audit.instrumentation.command_scope import in_command
from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from otel_audit.instrumentation.sqlalchemy.connection import SQLAlchemyConnection
    from otel_audit.instrumentation.sqlalchemy.writes.state import Capture
    from otel_audit.pipeline.logger import AuditLogger

_LABEL: Final = "alembic.Migration"
_EVENT: Final = "alembic.migration.migrate"
_BASE: Final = "base"
"""What Alembic calls a database without any revision."""


class Migration:
    """One step of Alembic's, as records say it.

    Attributes:
        name: its revision; of a stamp those that the database is said to be at.
        direction: ``upgrade``, ``downgrade``, or ``stamp``, which runs nothing.
    """

    def __init__(self, step: Any) -> None:
        script = getattr(step, "revision", None)
        if script is None:
            self.name = ", ".join(step.to_revisions) or _BASE
            self.direction = "stamp"
            before = list(step.from_revisions)
        else:
            self.name = str(script.revision)
            self.direction = "upgrade" if step.is_upgrade else "downgrade"
            down = script.down_revision or ()
            before = [down] if isinstance(down, str) else list(down)
        self.attributes: dict[str, Any] = {
            "migration": self.name,
            "direction": self.direction,
            "down_revision": before,
        }
        if step.doc:
            self.attributes["message"] = str(step.doc)
        self.at: Moment | None = None
        self._began = time.perf_counter()

    def within(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function of a migration, to be run as a command is: it is the actor."""

        def run(kwargs: dict[str, Any]) -> Any:
            self.at = moment()
            return function(**kwargs)

        @functools.wraps(function)
        def migrate(**kwargs: Any) -> Any:
            name, view = f"alembic {self.direction}", f"{_LABEL}/{self.name}"
            return in_command(name, view, functools.partial(run, kwargs))

        return migrate

    def parts(self) -> dict[str, Any]:
        """Return what a record says of it; ``duration`` is in seconds."""
        seconds = round(time.perf_counter() - self._began, 3)
        attributes = dict(self.attributes)
        if self.direction != "stamp":
            attributes["duration"] = seconds
        return {"target": Target(_LABEL, self.name), "attributes": attributes, "completeness": "full"}


class MigrationWrite(CapturedWrite):
    """A migration that has run, waiting for what becomes of its transaction."""

    __slots__ = ("_parts",)

    def __init__(self, plan: TablePlan, connection: SQLAlchemyConnection, migration: Migration) -> None:
        super().__init__(plan, "update", connection, migration.at)
        self._parts = migration.parts()

    def _records(self, logger: AuditLogger, outcome: Outcome, transaction: str) -> list[AuditRecord]:
        return [
            logger.record(
                _EVENT,
                "MIGRATE",
                at=self.moment,
                outcome=outcome,
                error="" if outcome == "success" else self.error or self.connection.error,
                database=self._database(transaction),
                **self._parts,
            )
        ]


class _Running:
    """A run of Alembic's: the migration that is running, and whether its transaction will tell of it."""

    def __init__(self) -> None:
        self.migration: Migration | None = None
        self.noted = False

    def begin(self, step: Any) -> None:
        """Note that a step begins, and have it run as a piece of work of its own."""
        self.noted = False
        self.migration = None
        migration = Migration(step)
        step.migration_fn = migration.within(step.migration_fn)
        self.migration = migration


class Migrations:
    """Wraps what Alembic runs migrations by.

    Args:
        capture: whose connections they run on.
    """

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._failures = capture.failures
        self._running: weakref.WeakKeyDictionary[Any, _Running] = weakref.WeakKeyDictionary()

    def runs(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``MigrationContext.run_migrations``; with ``--sql`` it runs nothing."""

        @functools.wraps(original)
        def run_migrations(context: Any, /, *args: Any, **kwargs: Any) -> Any:
            plain = context._migrations_fn
            if context.as_sql or context.connection is None or plain is None:
                return original(context, *args, **kwargs)
            running = self._running[context] = _Running()
            context._migrations_fn = lambda heads, inner: self._steps(running, plain(heads, inner))
            try:
                return original(context, *args, **kwargs)
            except BaseException as error:
                self._failed(context, running, error)
                raise
            finally:
                context._migrations_fn = plain

        return run_migrations

    def updates(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``HeadMaintainer.update_to_step``: a migration has run, and its transaction is still open."""

        @functools.wraps(original)
        def update_to_step(maintainer: Any, /, step: Any) -> Any:
            result = original(maintainer, step)
            context = maintainer.context
            if not context.as_sql and context.connection is not None:
                self._ran(context, step)
            return result

        return update_to_step

    def _steps(self, running: _Running, steps: Iterable[Any]) -> Iterator[Any]:
        for step in steps:
            try:
                running.begin(step)
            except faults() as error:  # a step of another kind: it runs, and what it writes is recorded
                self._failures.report("migration", error, lost=1)
            yield step
            running.migration = None

    def _ran(self, context: Any, step: Any) -> None:
        running = self._running.get(context)
        try:
            migration = None if running is None else running.migration
            state = self._connection(context)
            state.add(MigrationWrite(_plan(context), state, migration or Migration(step)))
            if running is not None:
                running.noted = True
        except AuditError:
            raise
        except faults() as error:
            self._failures.report("migration", error, lost=1)

    def _failed(self, context: Any, running: _Running, error: BaseException) -> None:
        """Record that a migration raised, unless it has run and its transaction says what became of it."""
        logger, migration = self._capture.logger(), running.migration
        if migration is None or running.noted or logger is None or not self._capture.config.failures:
            return
        try:
            state = self._connection(context)
            database: Database = state.database(_plan(context))
        except faults() as fault:  # the connection is gone
            self._failures.note("migration", fault)
            database = Database()
        logger.log(
            _EVENT,
            "MIGRATE",
            at=migration.at,
            outcome="failure",
            error=type(error).__qualname__,
            database=database,
            **migration.parts(),
        )

    def _connection(self, context: Any) -> SQLAlchemyConnection:
        state = self._capture.transactions.of(context.connection)
        state.in_schema(context.version_table_schema)
        return state


def _plan(context: Any) -> TablePlan:
    return TablePlan(_LABEL, context.version_table, [], [], TableSettings(True, False, "off", {}))
