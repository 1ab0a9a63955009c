"""All that is wrapped in SQLAlchemy or listened to, in one table: what, by whom, and why.

Classes are wrapped and listened to, not engines or sessions: that reaches those made before and after, open
connections, and the synchronous ones under asyncio. Of the events of engines, only errors are listened to:
with one listener more, every statement of every engine would go the way of events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.pool import Pool
from sqlalchemy.schema import Table

from otel_audit.instrumentation.patching import Listener, Patch
from otel_audit.instrumentation.sqlalchemy.migrations import Migrations
from otel_audit.instrumentation.sqlalchemy.reads.wrappers import ReadCapture
from otel_audit.instrumentation.sqlalchemy.writes.raw.driver_cursors import DriverCursors
from otel_audit.instrumentation.sqlalchemy.writes.state import Capture
from otel_audit.instrumentation.sqlalchemy.writes.stored.quiet import quietly


def table(capture: Capture) -> list[Patch | Listener]:
    """List every patch and listener."""
    connection = "sqlalchemy.engine.base:Connection"
    fairy = "sqlalchemy.pool.base:_ConnectionFairy"
    transactions = capture.transactions
    reads = ReadCapture(capture, _reads)
    drivers = DriverCursors(capture.tables, transactions, capture.failures)
    migrations = Migrations(capture)
    return [
        _on(Engine, "handle_error", capture.handle_error, "what a statement has not done"),
        _on(Session, "after_begin", transactions.after_begin, "whose objects are written on a connection"),
        _on(Pool, "reset", transactions.reset, "transactions that end without a word"),
        _on(Pool, "checkin", transactions.checked_in, "a pool that commits"),
        _on(Pool, "invalidate", transactions.gone, "a connection that is lost rolls back"),
        _on(Pool, "close", transactions.gone, "a connection that is closed rolls back"),
        _on(Mapper, "after_configured", capture.forget, "tables have other classes than before"),
        _on(Mapper, "instrument_class", capture.forget, "and when a class is mapped to one"),
        _on(Table, "after_parent_attach", capture.tables.made, "text may name it before anything else does"),
        Patch(f"{connection}._exec_single_context", capture.execute, "what a statement writes"),
        Patch(f"{connection}._exec_insertmany_context", capture.execute_many, "the same of many new rows"),
        Patch(
            "sqlalchemy.engine.default:DefaultDialect._deliver_insertmanyvalues_batches",
            capture.batches,
            "how many rows each of them wrote",
        ),
        Patch(
            "sqlalchemy.sql.dml:Insert._execute_on_connection",
            capture.execute_insert,
            "keys of many new rows",
        ),
        Patch(f"{connection}._commit_impl", transactions.commit, "success is known here, and nowhere else"),
        Patch(
            f"{connection}._commit_twophase_impl", transactions.commit, "the same of a prepared transaction"
        ),
        Patch(
            f"{connection}._prepare_twophase_impl", transactions.prepare, "others may commit it from here on"
        ),
        Patch(f"{connection}._rollback_impl", transactions.rollback, "everything pending failed"),
        Patch(f"{connection}._rollback_twophase_impl", transactions.rollback, "the same, prepared or not"),
        Patch(f"{connection}._savepoint_impl", transactions.savepoint, "marks what a rollback to it undoes"),
        Patch(
            f"{connection}._rollback_to_savepoint_impl", transactions.rollback_to, "undoes what came after"
        ),
        Patch(f"{connection}._release_savepoint_impl", transactions.release, "forgets the mark"),
        Patch(
            "sqlalchemy.orm.session:Session._bulk_save_mappings",
            transactions.bulk_save,
            "no flush, though the session says so",
            optional=True,
        ),
        Patch("sqlalchemy.engine.base:Engine.raw_connection", drivers.raw_connection, "whose it is"),
        Patch(f"{fairy}.cursor", drivers.cursor, "statements past SQLAlchemy"),
        Patch(f"{fairy}.driver_connection", drivers.driver_connection, "statements that nobody can see"),
        Patch(f"{fairy}.commit", drivers.commit, "ends their transaction", added=True),
        Patch(f"{fairy}.rollback", drivers.rollback, "and so does this", added=True),
        Patch(
            "sqlalchemy.util.langhelpers:_warnings_warn",
            quietly,
            "warns of the application's statements, not of ours",
            optional=True,
        ),
        Listener("sqlalchemy:audit_models", capture.start, capture.stop, "what code says of models"),
        Patch(
            "alembic.runtime.migration:MigrationContext.run_migrations",
            migrations.runs,
            "what a migration writes is its own",
            late=True,
        ),
        Patch(
            "alembic.runtime.migration:HeadMaintainer.update_to_step",
            migrations.updates,
            "a migration has run",
            late=True,
        ),
        Listener("sqlalchemy:reads", reads.start, reads.stop, "nothing more before reads are to be recorded"),
        _on(Mapper, "instrument_class", reads.instrumented, "a class may say that its reads are"),
    ]


def _reads(reads: ReadCapture) -> list[Patch | Listener]:
    """List what the reads of sensitive tables are seen by."""
    return [
        Patch(
            "sqlalchemy.engine.base:Connection._exec_single_context",
            reads.execute,
            "what a statement displays",
        ),
        _on(Pool, "reset", reads.reset, "results that nobody has closed"),
        _on(Pool, "close", reads.gone, "the same, of a connection that is closed"),
        _on(Pool, "invalidate", reads.gone, "the same, of one that is lost"),
        _on(Mapper, "after_configured", reads.forget, "tables have other classes than before"),
        Patch(
            "sqlalchemy.orm.unitofwork:UOWTransaction.execute",
            reads.internal,
            "a flush loads what it needs, and shows it nobody",
        ),
        Patch("sqlalchemy.orm.session:Session.delete", reads.internal, "loads what is deleted with it"),
        Patch("sqlalchemy.orm.session:Session.delete_all", reads.internal, "the same of many", optional=True),
    ]


def _on(target: Any, name: str, listener: Callable[..., Any], why: str) -> Listener:
    """List a listener to an event of a class."""

    def forget() -> None:
        if event.contains(target, name, listener):  # tests of an application may have cleared all
            event.remove(target, name, listener)

    return Listener(
        f"{target.__module__}:{target.__name__}.{name}",
        lambda: event.listen(target, name, listener),
        forget,
        why,
    )
