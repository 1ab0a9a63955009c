"""Transactions: which captured writes were committed, taken back, or met an unknown end.

One :class:`ConnectionState` a connection holds the buffer; the wrappers of Django's connection methods tell
it what happened. Django's public methods are wrapped, because backends override the private ones.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otel_audit.errors import AuditError
from otel_audit.instrumentation.django.driver import answered, transaction_aborted, transaction_open
from otel_audit.instrumentation.django.old_values import COMMITTED, Epoch, Freshness, Mark, ThreadState
from otel_audit.pipeline.transaction import Pending, TransactionBuffer

if TYPE_CHECKING:
    from otel_audit.instrumentation.django.faults import Faults

_STATE: Final = "_otel_audit"
_F = TypeVar("_F", bound=Callable[..., Any])

# The first two letters decide for nearly every statement that there is nothing to look at.
_CANDIDATES: Final = frozenset(
    a + b
    for first, second in ("co", "ro", "sa", "be", "re", "en", "ab", "st", "cr", "al", "dr", "tr", "lo")
    for a in (first, first.upper())
    for b in (second, second.upper())
)
_ORDINARY: Final = frozenset({"SE", "IN", "UP", "DE"})
"""How the statements of the ORM begin."""
_MYSQL_COMMITS: Final = frozenset({"CREATE", "ALTER", "DROP", "TRUNCATE", "RENAME", "LOCK"})


class ConnectionState:
    """What capture knows of one connection.

    ``pending`` counts the writes of the open transaction, ``raw`` says that it was begun by a statement of
    the application, ``error`` names what is rolling it back, ``locked`` that SQLite's write lock is held;
    ``place`` is where its writes go.
    """

    __slots__ = ("buffer", "error", "locked", "mark", "pending", "pid", "place", "raw")

    def __init__(self, buffer: TransactionBuffer, owner: object) -> None:
        self.buffer = buffer
        self.mark = Mark(owner)
        self.pending = 0
        self.raw = False
        self.locked = False
        self.error = ""
        self.place: Any = None
        self.pid = os.getpid()


class Transactions:
    """The wrappers around Django's transaction handling."""

    def __init__(
        self,
        buffer: Callable[[], TransactionBuffer],
        thread: ThreadState,
        freshness: Freshness,
        faults: Faults,
    ) -> None:
        self._buffer = buffer
        self._thread = thread
        self._freshness = freshness
        self._faults = faults

    # --- used by capture -----------------------------------------------------------------------

    def state(self, connection: Any) -> ConnectionState:
        """Give the state of ``connection``, new in a forked child: the parent settles what it began."""
        found: ConnectionState | None = connection.__dict__.get(_STATE)
        if found is None or found.pid != os.getpid():
            found = ConnectionState(self._buffer(), self._thread.identity)
            connection.__dict__[_STATE] = found
        return found

    def immediate(self, connection: Any, state: ConnectionState) -> bool:
        """Say whether a statement commits by itself now."""
        if connection.in_atomic_block:
            return _only_testcase_blocks(connection)
        if connection.connection is None:  # asking opens it, and may find it is not in autocommit
            connection.ensure_connection()
        return bool(connection.autocommit) and not state.raw

    def mark(self, connection: Any) -> Mark:
        """Give the mark under which a write of ``connection`` is noted as recent."""
        state = self.state(connection)
        return COMMITTED if self.immediate(connection, state) else state.mark

    def add(self, state: ConnectionState, pending: Pending) -> None:
        """Hold a write until its transaction ends."""
        state.pending += 1
        state.buffer.add(pending)

    # --- outcomes ------------------------------------------------------------------------------

    def _begin_commit(self, connection: Any, state: ConnectionState) -> None:
        """Write the intents. Only under ``fail_closed`` does this raise, after rolling back."""
        try:
            state.buffer.before_commit()
        except AuditError:
            self._abandon(connection)
            raise
        except Exception as error:
            self._faults.report("before_commit", error)

    def _abandon(self, connection: Any) -> None:
        # Leaving atomic() would otherwise turn autocommit on again, which commits on SQLite.
        try:
            connection._rollback()
            connection.needs_rollback = False
            connection.run_on_commit = []
        except Exception:
            connection.close()
        self._ended(connection, "rolled_back", "otel_audit.errors.SpoolError")

    def _ended(self, connection: Any, how: str, error: str = "") -> None:
        """Settle the transaction: ``how`` is ``committed``, ``rolled_back`` or ``unknown``."""
        if how != "committed":
            self._thread.epoch = Epoch()
        state: ConnectionState | None = connection.__dict__.get(_STATE)
        if state is None or state.pid != os.getpid():
            return
        state.mark.committed = self._freshness.tick() if how == "committed" else 0
        state.mark = Mark(self._thread.identity)
        state.raw = state.locked = False
        if error:
            state.error = error
        pending, state.pending = state.pending, 0
        try:
            # An empty buffer may still hold savepoint marks.
            getattr(state.buffer, how)()
        except AuditError:
            raise
        except Exception as fault:
            self._faults.report(how, fault, lost=pending)
        finally:
            state.error = ""

    def _commit_failed(self, connection: Any, state: ConnectionState, error: BaseException) -> None:
        """Decide what a COMMIT that raised has done."""
        from django.db import Error, IntegrityError

        name = type(error).__qualname__
        if transaction_open(connection):
            return  # SQLite keeps it: it may be committed again or rolled back
        if isinstance(error, IntegrityError) or (isinstance(error, Error) and answered(connection)):
            self._ended(connection, "rolled_back", name)
        else:
            self._ended(connection, "unknown", name)

    # --- wrappers ------------------------------------------------------------------------------

    def commit(self, original: _F) -> _F:
        """Wrap ``BaseDatabaseWrapper.commit``."""

        @functools.wraps(original)
        def commit(connection: Any, /, *args: Any, **kwargs: Any) -> Any:
            state: ConnectionState | None = connection.__dict__.get(_STATE)
            if state is None or connection.in_atomic_block:
                return original(connection, *args, **kwargs)
            if not state.pending:
                result = original(connection, *args, **kwargs)
                self._ended(connection, "committed")
                return result
            if transaction_aborted(connection):
                # PostgreSQL answers COMMIT of an aborted transaction with ROLLBACK, and no error.
                result = original(connection, *args, **kwargs)
                self._ended(connection, "rolled_back")
                return result
            if transaction_open(connection) is False:
                # Ended by a statement nobody saw; whether by COMMIT or ROLLBACK cannot be told.
                self._ended(connection, "unknown")
                return original(connection, *args, **kwargs)
            self._begin_commit(connection, state)
            try:
                result = original(connection, *args, **kwargs)
            except BaseException as error:
                self._commit_failed(connection, state, error)
                raise
            self._ended(connection, "committed")
            return result

        return commit  # type: ignore[return-value]

    def rollback(self, original: _F) -> _F:
        """Wrap ``BaseDatabaseWrapper.rollback``."""

        @functools.wraps(original)
        def rollback(connection: Any, /, *args: Any, **kwargs: Any) -> Any:
            result = original(connection, *args, **kwargs)
            self._ended(connection, "rolled_back")
            return result

        return rollback  # type: ignore[return-value]

    def close(self, original: _F) -> _F:
        """Wrap ``BaseDatabaseWrapper.close``: the database rolls back what was open."""

        @functools.wraps(original)
        def close(connection: Any, /, *args: Any, **kwargs: Any) -> Any:
            connected = connection.connection is not None and not connection.closed_in_transaction
            try:
                return original(connection, *args, **kwargs)
            finally:
                if connected and (connection.connection is None or connection.closed_in_transaction):
                    self._ended(connection, "rolled_back")

        return close  # type: ignore[return-value]

    def savepoint(self, original: _F) -> _F:
        """Wrap ``BaseDatabaseWrapper.savepoint``."""

        @functools.wraps(original)
        def savepoint(connection: Any, /, *args: Any, **kwargs: Any) -> Any:
            sid = self._internally(original, connection, *args, **kwargs)
            if sid:
                self._told("savepoint", connection, sid)
            return sid

        return savepoint  # type: ignore[return-value]

    def savepoint_rollback(self, original: _F) -> _F:
        """Wrap ``BaseDatabaseWrapper.savepoint_rollback``."""

        @functools.wraps(original)
        def savepoint_rollback(connection: Any, /, sid: Any, *args: Any, **kwargs: Any) -> Any:
            result = self._internally(original, connection, sid, *args, **kwargs)
            self._rolled_back_to(connection, sid)
            return result

        return savepoint_rollback  # type: ignore[return-value]

    def savepoint_commit(self, original: _F) -> _F:
        """Wrap ``BaseDatabaseWrapper.savepoint_commit``."""

        @functools.wraps(original)
        def savepoint_commit(connection: Any, /, sid: Any, *args: Any, **kwargs: Any) -> Any:
            result = self._internally(original, connection, sid, *args, **kwargs)
            self._told("release", connection, sid)
            state = connection.__dict__.get(_STATE)
            if state is not None and state.pending:
                if connection.vendor == "sqlite" and transaction_open(connection) is False:
                    # With autocommit off and no BEGIN yet, the savepoint was the transaction.
                    self._begin_commit(connection, state)
                    self._ended(connection, "committed")
                elif _only_testcase_blocks(connection):
                    self.settle_testcase(connection)
            return result

        return savepoint_commit  # type: ignore[return-value]

    def set_autocommit(self, original: _F) -> _F:
        """Wrap ``BaseDatabaseWrapper.set_autocommit``: turning it on may commit."""

        @functools.wraps(original)
        def set_autocommit(connection: Any, /, autocommit: bool, *args: Any, **kwargs: Any) -> Any:
            state: ConnectionState | None = connection.__dict__.get(_STATE)
            commits = autocommit and state is not None and state.pending and not connection.in_atomic_block
            if commits:
                assert state is not None
                self._begin_commit(connection, state)
            self._thread.internal += 1
            try:
                result = original(connection, autocommit, *args, **kwargs)
            except BaseException as error:
                if commits and not transaction_open(connection):
                    assert state is not None
                    self._commit_failed(connection, state, error)
                raise
            finally:
                self._thread.internal -= 1
            if commits:
                self._ended(connection, "committed")
            return result

        return set_autocommit  # type: ignore[return-value]

    def leave_atomic(self, original: _F) -> _F:
        """Wrap ``Atomic.__exit__``."""

        @functools.wraps(original)
        def leave(
            block: Any, /, exc_type: Any, exc_value: Any, traceback: Any, *args: Any, **kwargs: Any
        ) -> Any:
            from django.db.transaction import get_connection

            connection = get_connection(block.using)
            state: ConnectionState | None = connection.__dict__.get(_STATE)
            if state is None:
                return original(block, exc_type, exc_value, traceback, *args, **kwargs)
            if exc_type is not None:
                state.error = exc_type.__qualname__
            elif connection.needs_rollback and connection.rollback_exc is not None:
                state.error = type(connection.rollback_exc).__qualname__
            try:
                return original(block, exc_type, exc_value, traceback, *args, **kwargs)
            finally:
                state.error = ""
                if state.pending and not connection.needs_rollback and _only_testcase_blocks(connection):
                    self.settle_testcase(connection)

        return leave  # type: ignore[return-value]

    def execute(self, original: _F) -> _F:
        """Wrap ``CursorWrapper._execute``: transactions ended by statements of the application."""

        @functools.wraps(original)
        def execute(cursor: Any, /, sql: Any, *args: Any, **kwargs: Any) -> Any:
            thread = self._thread
            thread.executed += 1
            run = functools.partial(original, **kwargs) if kwargs else original
            if thread.internal or type(sql) is not str:
                return run(cursor, sql, *args)
            start = sql[:2]
            if start in _ORDINARY:
                return run(cursor, sql, *args)
            if start not in _CANDIDATES:
                if start[:1].isalpha():
                    return run(cursor, sql, *args)
                sql_words = sql.lstrip()
                if sql_words[:2] not in _CANDIDATES:
                    return run(cursor, sql, *args)
            return self._statement(run, cursor, sql, args)

        return execute  # type: ignore[return-value]

    # --- details -------------------------------------------------------------------------------

    def _statement(self, original: Callable[..., Any], cursor: Any, sql: str, args: Any) -> Any:
        """Run a statement that may end or mark a transaction, and act on it."""
        connection = cursor.db
        first, *rest = sql.upper().replace(";", " ").split(None, 4)
        if first in ("COMMIT", "END") or (first in _MYSQL_COMMITS and connection.vendor == "mysql"):
            if "PREPARED" in rest or rest[:1] == ["TEMPORARY"]:
                return original(cursor, sql, *args)
            return self._commit_by_text(lambda: original(cursor, sql, *args), connection, _chained(rest))
        result = original(cursor, sql, *args)
        name = sql.replace(";", " ").split()[-1]
        if first in ("ROLLBACK", "ABORT") and "TO" in rest:
            self._rolled_back_to(connection, name)
        elif first in ("ROLLBACK", "ABORT") and "PREPARED" not in rest:
            self._ended(connection, "rolled_back")
            self.state(connection).raw = _chained(rest)
        elif first == "SAVEPOINT" and rest:
            self._told("savepoint", connection, name)
        elif first == "RELEASE":
            self._told("release", connection, name)
        elif first == "BEGIN" or (first == "START" and rest[:1] == ["TRANSACTION"]):
            self.state(connection).raw = True
        return result

    def _commit_by_text(self, commit: Callable[[], Any], connection: Any, chained: bool) -> Any:
        if transaction_aborted(connection):
            result = commit()
            self._ended(connection, "rolled_back")
            return result
        state = self.state(connection)
        if state.pending:
            self._begin_commit(connection, state)
        try:
            result = commit()
        except BaseException as error:
            self._commit_failed(connection, state, error)
            raise
        self._ended(connection, "committed")
        state.raw = chained
        return result

    def _internally(self, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        self._thread.internal += 1
        try:
            return original(*args, **kwargs)
        finally:
            self._thread.internal -= 1

    def _told(self, what: str, connection: Any, sid: str) -> None:
        try:
            getattr(self.state(connection).buffer, what)(sid)
        except AuditError:
            raise
        except Exception as error:
            self._faults.report(what, error)

    def _rolled_back_to(self, connection: Any, sid: str) -> None:
        self._thread.epoch = Epoch()
        self._told("rollback_to", connection, sid)

    def settle_testcase(self, connection: Any) -> None:
        """End the transaction of a ``TestCase`` as if it had committed, which it never does."""
        state = self.state(connection)
        self._begin_commit(connection, state)
        self._ended(connection, "committed")


def _chained(words: list[str]) -> bool:
    """Say whether ``COMMIT AND CHAIN`` or the like begins the next transaction."""
    return "CHAIN" in words and "NO" not in words


def _only_testcase_blocks(connection: Any) -> bool:
    blocks = connection.atomic_blocks
    return bool(blocks) and blocks[-1]._from_testcase and all(block._from_testcase for block in blocks)
