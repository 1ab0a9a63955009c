"""Django's connections: one of ours for each, and the wrappers that tell it what happened.

Django's public methods are wrapped, because backends override the private ones.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec import UNSET

from otel_audit.capture import dbapi
from otel_audit.capture.connection import Connection
from otel_audit.capture.freshness import Epoch
from otel_audit.capture.raw_sql import Announced, RawStatement, run
from otel_audit.capture.transaction_sql import ORDINARY, Effect, effect_of, is_ordinary
from otel_audit.errors import AuditError
from otel_audit.instrumentation.django import schemas
from otel_audit.instrumentation.django.writes.migrations import MigrationStatement
from otel_audit.interruptions import faults, interrupts

if TYPE_CHECKING:
    from otel_audit.capture.raw_sql import RawTables
    from otel_audit.capture.sql_text import SqlText
    from otel_audit.capture.state import CaptureState
    from otel_audit.instrumentation.django.loaded import ThreadState

_STATE: Final = "_otel_audit"
_SCHEMA_CHANGES: Final = ("CREATE", "ALTER", "DROP", "REVOKE")
_F = TypeVar("_F", bound=Callable[..., Any])
_READS: Final = frozenset({"SE", "se", "Se"})
"""How SELECT and SET begin; what they call cannot be known, so only a second statement could write."""


class DjangoConnection(Connection):
    """A connection of Django's, which knows of atomic blocks and of tests that never commit.

    ``interrupted``: the application's own exception came before COMMIT was sent; names it.
    """

    __slots__ = ("_database", "_path", "django", "follows", "interrupted")

    def __init__(self, django: Any, state: CaptureState, thread: ThreadState) -> None:
        super().__init__(
            state,
            thread,
            name=django.alias,
            namespace=str(django.settings_dict.get("NAME") or ""),
        )
        self.django = django
        self.interrupted = ""
        self._database = self.namespace
        self._path = schemas.SearchPath(schemas.configured(django.settings_dict))
        self.follows = False

    def identify(self) -> None:
        """Find out which system it is, which asks MySQL's server once."""
        system = self.django.vendor
        if system == "mysql" and self.django.mysql_is_mariadb:
            system = "mariadb"
        self.system = system
        self.dialect = dbapi.dialect(system)
        if system == "postgresql":
            self.follow()
            self.follows = schemas.of_tenant(self.django) is not None

    def follow(self) -> None:
        """Find out which schema the next statement writes to; ``follows`` says that it may be another."""
        schema = schemas.of_tenant(self.django) or self._path.now(self.mark)
        self.namespace = f"{self._database}|{schema}" if schema else self._database

    def sets(self, sql: str, params: Any) -> None:
        """Note what a ``SET`` or ``RESET`` that ran has done to the search path."""
        self._path.set(sql, params, None if self.commits_at_once()[0] else self.mark)
        self.follows = True

    def commits_at_once(self) -> tuple[bool, bool]:
        """In autocommit; also where only a ``TestCase`` stands around, as if it had committed."""
        django = self.django
        if django.in_atomic_block:
            return False, only_testcase_blocks(django)
        if django.connection is None:  # asking opens it, and may find it is not in autocommit
            django.ensure_connection()
        alone = bool(django.autocommit) and not self.raw
        return alone, alone

    def driver(self) -> Any:
        """Return the DB-API connection."""
        return self.django.connection

    def abandon(self, error: str = "otel_audit.errors.SpoolError") -> None:
        """Roll back: leaving atomic() would otherwise turn autocommit on again, which commits on SQLite."""
        django = self.django
        try:
            django._rollback()
            django.needs_rollback = False
            django.run_on_commit = []
        except faults():
            django.close()
        self.rolled_back(error)

    def ended_unseen(self) -> bool:
        """Say whether a statement nobody saw has ended the transaction, or the driver has begun none.

        SQLite ends it by itself as well, but only by rolling back.
        """
        return not self.dialect.one_writer and self.is_open() is False

    def left_atomic(self) -> None:
        """Note that an atomic block was left, by its own exception or not."""
        self.error = ""
        if self.pending and not self.django.needs_rollback and only_testcase_blocks(self.django):
            self.settle()

    def is_answer(self, error: BaseException) -> bool:
        """Say whether an exception of COMMIT is the database's answer."""
        from django.db import Error, IntegrityError

        return isinstance(error, IntegrityError) or (
            isinstance(error, Error) and dbapi.answered(self.system, self.driver())
        )


class Transactions:
    """The wrappers around Django's transaction handling."""

    def __init__(self, state: CaptureState, thread: ThreadState, tables: RawTables) -> None:
        self._shared = state
        self.thread = thread
        self._tables = tables

    # --- used by capture -----------------------------------------------------------------------

    def state(self, connection: Any) -> DjangoConnection:
        """Return ours of a connection, new in a forked child: the parent settles what it began.

        New as well where it was left by an instrumentor that was taken back.
        """
        found: DjangoConnection | None = connection.__dict__.get(_STATE)
        if found is None or found.pid != os.getpid() or found.reader is not self.thread:
            found = DjangoConnection(connection, self._shared, self.thread)
            connection.__dict__[_STATE] = found
        if found.follows:
            found.follow()
        return found

    def connection(self, connection: Any) -> DjangoConnection:
        """Return ours of one of Django's connections, which knows the system it is."""
        found = self.state(connection)
        if not found.system:
            found.identify()
        return found

    # --- wrappers ------------------------------------------------------------------------------

    def commit(self, original: _F) -> _F:
        """Wrap ``BaseDatabaseWrapper.commit``."""

        @functools.wraps(original)
        def commit(connection: Any, /, *args: Any, **kwargs: Any) -> Any:
            state: DjangoConnection | None = connection.__dict__.get(_STATE)
            if state is None or connection.in_atomic_block:
                return original(connection, *args, **kwargs)
            pending = state.pending
            if pending and dbapi.transaction_aborted(state.system, connection.connection):
                # PostgreSQL answers COMMIT of an aborted transaction with ROLLBACK, and no error.
                return state.then(lambda: original(connection, *args, **kwargs), state.rolled_back)
            if pending and dbapi.transaction_open(state.system, connection.connection) is False:
                # Ended by a statement nobody saw; whether by COMMIT or ROLLBACK cannot be told.
                state.unknown()
                return original(connection, *args, **kwargs)
            result: Any = UNSET
            try:
                if pending:
                    state.interrupted = ""
                    state.before_commit()
                result = original(connection, *args, **kwargs)
                state.committed()
                return result
            except BaseException as error:
                if pending:
                    state.commit_raised(error, returned=result is not UNSET)
                    if state.pending and interrupts(error):
                        state.interrupted = type(error).__qualname__
                raise

        return commit  # type: ignore[return-value]

    def rollback(self, original: _F) -> _F:
        """Wrap ``BaseDatabaseWrapper.rollback``."""

        @functools.wraps(original)
        def rollback(connection: Any, /, *args: Any, **kwargs: Any) -> Any:
            state: DjangoConnection | None = connection.__dict__.get(_STATE)
            if state is not None:
                ended = state.rolled_back
                if state.pending and state.ended_unseen():
                    ended = state.unknown
                return state.then(lambda: original(connection, *args, **kwargs), ended)
            result = original(connection, *args, **kwargs)
            self._rolled_back(connection)
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
                    self._rolled_back(connection)

        return close  # type: ignore[return-value]

    def savepoint(self, original: _F) -> _F:
        """Wrap ``BaseDatabaseWrapper.savepoint``."""

        @functools.wraps(original)
        def savepoint(connection: Any, /, *args: Any, **kwargs: Any) -> Any:
            sid = self._internally(original, connection, *args, **kwargs)
            if sid:
                self.state(connection).savepoint(sid)
            return sid

        return savepoint  # type: ignore[return-value]

    def savepoint_rollback(self, original: _F) -> _F:
        """Wrap ``BaseDatabaseWrapper.savepoint_rollback``."""

        @functools.wraps(original)
        def savepoint_rollback(connection: Any, /, sid: Any, *args: Any, **kwargs: Any) -> Any:
            state = self.state(connection)
            return state.then(
                lambda: self._internally(original, connection, sid, *args, **kwargs),
                lambda: state.rollback_to(sid),
            )

        return savepoint_rollback  # type: ignore[return-value]

    def savepoint_commit(self, original: _F) -> _F:
        """Wrap ``BaseDatabaseWrapper.savepoint_commit``."""

        @functools.wraps(original)
        def savepoint_commit(connection: Any, /, sid: Any, *args: Any, **kwargs: Any) -> Any:
            state = self.state(connection)

            def released() -> None:
                state.release(sid)
                # With autocommit off and no BEGIN yet, SQLite's savepoint was the transaction.
                if state.pending and (
                    (state.dialect.one_writer and state.is_open() is False)
                    or only_testcase_blocks(connection)
                ):
                    state.settle()

            return state.then(lambda: self._internally(original, connection, sid), released)

        return savepoint_commit  # type: ignore[return-value]

    def set_autocommit(self, original: _F) -> _F:
        """Wrap ``BaseDatabaseWrapper.set_autocommit``: turning it on may commit."""

        @functools.wraps(original)
        def set_autocommit(connection: Any, /, autocommit: bool, *args: Any, **kwargs: Any) -> Any:
            try:
                if autocommit:
                    return self._end_by_autocommit(original, connection, *args, **kwargs)
                return self._begin_by_autocommit(original, connection, *args, **kwargs)
            except BaseException as error:
                # atomic() does not expect it: it would leave the connection without autocommit.
                if autocommit and interrupts(error) and not connection.autocommit:
                    self._end_by_autocommit(original, connection)
                raise

        return set_autocommit  # type: ignore[return-value]

    def _end_by_autocommit(self, original: Any, connection: Any, /, *args: Any, **kwargs: Any) -> Any:
        state: DjangoConnection | None = connection.__dict__.get(_STATE)
        if state is None or not state.pending or connection.in_atomic_block:
            return self._internally(original, connection, True, *args, **kwargs)
        if state.interrupted:  # atomic() has not committed, and the application sees that it raised
            error_name, state.interrupted = state.interrupted, ""
            state.abandon(error_name)
            return self._internally(original, connection, True, *args, **kwargs)
        try:
            state.before_commit()
            result = self._internally(original, connection, True, *args, **kwargs)
            state.committed()
            return result
        except BaseException as error:
            state.commit_raised(error, returned=connection.autocommit)
            raise

    def _begin_by_autocommit(self, original: Any, connection: Any, /, *args: Any, **kwargs: Any) -> Any:
        before = connection.autocommit
        try:
            return self._internally(original, connection, False, *args, **kwargs)
        except BaseException as error:
            interrupted = interrupts(error) and not connection.in_atomic_block
            if interrupted and before and not connection.autocommit:
                self._internally(original, connection, True)
            raise

    def leave_atomic(self, original: _F) -> _F:
        """Wrap ``Atomic.__exit__``."""
        from django.db.transaction import get_connection

        @functools.wraps(original)
        def leave(
            block: Any, /, exc_type: Any, exc_value: Any, traceback: Any, *args: Any, **kwargs: Any
        ) -> Any:
            state: DjangoConnection | None
            try:
                connection = get_connection(block.using)
                state = connection.__dict__.get(_STATE)
                ends = connection.commit_on_exit and len(connection.atomic_blocks) == 1
                if state is not None and exc_type is not None:
                    state.error = exc_type.__qualname__
                elif state is not None and connection.needs_rollback and connection.rollback_exc is not None:
                    state.error = type(connection.rollback_exc).__qualname__
                result = original(block, exc_type, exc_value, traceback, *args, **kwargs)
                if state is not None:
                    state.left_atomic()
                return result
            except BaseException as error:
                connection = get_connection(block.using)
                state = connection.__dict__.get(_STATE)
                if interrupts(error):
                    if block in connection.atomic_blocks[-1:]:  # it was not left yet
                        original(block, type(error), error, error.__traceback__, *args, **kwargs)
                    elif ends and not connection.in_atomic_block and not connection.autocommit:
                        _leave_no_transaction(connection)
                if state is not None:
                    state.left_atomic()
                raise

        return leave  # type: ignore[return-value]

    def execute(self, original: _F) -> _F:
        """Wrap ``CursorWrapper._execute`` and ``_executemany``: statements of the application's own."""

        @functools.wraps(original)
        def execute(cursor: Any, /, sql: Any, *args: Any, **kwargs: Any) -> Any:
            thread = self.thread
            thread.executed += 1
            send = functools.partial(original, **kwargs) if kwargs else original
            if type(sql) is str and sql[:4] in schemas.SETS:
                return self._set(send, cursor, sql, args)
            passes = thread.internal or thread.compiling
            if passes or (thread.suppressed and thread.migrating is None):
                if thread.internal or type(sql) is not str or sql[:2] in ORDINARY or is_ordinary(sql):
                    return send(cursor, sql, *args)
                return self._statement(send, cursor, sql, sql, args)
            if type(sql) is str and sql[:2] in _READS and ";" not in sql:
                return send(cursor, sql, *args)
            text = self._text(sql, cursor)
            written = self._written(cursor, text)
            if written is not None:
                return self._write(send, cursor, sql, text, args, written)
            if text[:2] in ORDINARY or is_ordinary(text):
                return send(cursor, sql, *args)
            return self._statement(send, cursor, sql, text, args)

        return execute  # type: ignore[return-value]

    def drivers_own(self) -> dict[str, Callable[[None], Any]]:
        """Return wrappers of what cursors of drivers can do beside ``execute``, by name."""
        calls: dict[str, Callable[..., Any]] = {
            "copy": self.copy,
            "copy_expert": self.call,
            "copy_from": self.call_copy_from,
            "executescript": self.executescript,
        }
        return {name: functools.partial(_own, name, call) for name, call in calls.items()}

    def copy(self, cursor: Any, copy: Callable[..., Any], sql: Any, *args: Any, **kwargs: Any) -> Any:
        """Run ``copy()`` of a psycopg cursor, which gives a context manager."""
        statement = self._announce(cursor, sql)
        copying = copy(sql, *args, **kwargs)
        return copying if statement is None else self._copying(cursor, statement, copying)

    def debug_copy(self, original: _F) -> _F:
        """Wrap ``copy()`` and ``copy_expert()`` of the cursor Django has for debugging PostgreSQL."""
        own = self.copy if original.__name__ == "copy" else self.call

        @functools.wraps(original)
        def copy(cursor: Any, /, sql: Any, *args: Any, **kwargs: Any) -> Any:
            return own(cursor, functools.partial(original, cursor), sql, *args, **kwargs)

        return copy  # type: ignore[return-value]

    def call(self, cursor: Any, call: Callable[..., Any], sql: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a method of the driver's cursor whose first argument is SQL: ``copy_expert()`` of psycopg2."""
        statement = self._announce(cursor, sql)
        if statement is None:
            return call(sql, *args, **kwargs)
        state = self.connection(cursor.db)
        return run(
            state,
            lambda: statement,
            lambda: call(sql, *args, **kwargs),
            lambda: cursor.cursor.rowcount,
            lambda error: _refused(error, state),
        )

    def call_copy_from(
        self, cursor: Any, call: Callable[..., Any], file: Any, table: str, *args: Any, **kwargs: Any
    ) -> Any:
        """Run ``copy_from()`` of a psycopg2 cursor."""
        return self.call(
            cursor,
            lambda sql, *more, **options: call(file, table, *more, **options),
            f"COPY {table} FROM STDIN",
            *args,
            **kwargs,
        )

    def executescript(self, cursor: Any, call: Callable[..., Any], sql: Any) -> Any:
        """Run ``executescript()`` of SQLite's cursor: it commits the open transaction first."""
        state = self.connection(cursor.db)
        if state.is_open():
            return state.commit(lambda: self.call(cursor, call, sql))
        return self.call(cursor, call, sql)

    # --- details -------------------------------------------------------------------------------

    def _set(self, original: Callable[..., Any], cursor: Any, sql: str, args: Any) -> Any:
        """Run a statement that may choose another schema."""
        result = original(cursor, sql, *args)
        try:
            if cursor.db.vendor == "postgresql":
                self.state(cursor.db).sets(sql, args[0] if args else None)
        except faults() as error:
            self._shared.failures.note("SET search_path", error)
        return result

    def _announce(self, cursor: Any, sql: Any) -> Announced | None:
        """Return what is known of a statement, None if it is not to be recorded."""
        thread = self.thread
        if thread.internal or thread.compiling or (thread.suppressed and thread.migrating is None):
            return None
        try:
            written = self._written(cursor, self._text(sql, cursor))
            return None if written is None else self._statement_of(self.connection(cursor.db), written)
        except faults() as error:
            self._shared.failures.report("raw SQL", error, lost=1)
            return None

    def _statement_of(
        self, state: DjangoConnection, written: SqlText, alone: bool | None = None
    ) -> Announced:
        migrating = self.thread.migrating
        if migrating is not None:
            return MigrationStatement(migrating, state, self._tables, written)
        return RawStatement(state, self._tables, written, alone=alone)

    @contextmanager
    def _copying(self, cursor: Any, statement: Announced, copying: Any) -> Iterator[Any]:
        """Copy, with the records of it around; an exception of the application's takes it back."""
        state = self.connection(cursor.db)
        copied = False
        try:
            statement.begin()
        except AuditError:
            raise
        except BaseException as error:
            if interrupts(error):
                statement.failed(error, refused=False, sent=False)
                raise
            self._shared.failures.report("COPY", error)
        try:
            with copying as copy:
                yield copy
            copied = True
            statement.done(cursor.cursor.rowcount)
        except BaseException as error:
            if not copied:
                statement.failed(error, refused=dbapi.connected(state.system, state.driver()))
                raise
            interrupted = interrupts(error)
            if interrupted:
                statement.finish()
            if interrupted or isinstance(error, AuditError):
                raise
            self._shared.failures.report("COPY", error, lost=1)

    def _text(self, sql: Any, cursor: Any) -> str:
        """Return what a statement says, ``""`` if nobody can tell: psycopg takes bytes and compositions."""
        if type(sql) is str:
            return sql
        try:
            if isinstance(sql, str):
                return str.__str__(sql)
            if isinstance(sql, bytes):
                return sql.decode(errors="replace")
            return str(sql.as_string(cursor.cursor))
        except faults():
            return ""

    def _written(self, cursor: Any, text: str) -> SqlText | None:
        try:
            return self._tables.read(text, cursor.db.vendor)
        except faults() as error:
            self._shared.failures.report("raw SQL", error, lost=1)
            return None

    def _write(
        self, original: Callable[..., Any], cursor: Any, sql: Any, text: str, args: Any, written: SqlText
    ) -> Any:
        """Run a statement that writes to audited tables."""
        state = self.connection(cursor.db)
        if text[:2] in ORDINARY or is_ordinary(text):
            effect = None
        else:
            effect = effect_of(text, state.dialect.implicit_commits)
        begins = effect is not None and effect.kind == "begin"
        result = run(
            state,
            # TRUNCATE of MySQL commits by itself; what has begun a transaction may have ended it, too.
            lambda: self._statement_of(state, written, None if effect is None else not begins),
            lambda: self._act(original, cursor, sql, args, effect),
            lambda: _row_count(cursor, written, state.system),
            lambda error: _refused(error, state),
        )
        if begins and state.is_open() is False:
            if "ROLLBACK" in text.upper():
                state.unknown()
            else:
                state.settle()
        return result

    def _statement(self, original: Callable[..., Any], cursor: Any, sql: Any, text: str, args: Any) -> Any:
        """Run a statement that may end or mark a transaction, and act on it."""
        effect = effect_of(text, dbapi.dialect(cursor.db.vendor).implicit_commits)
        if text.split(None, 1)[:1] and text.split(None, 1)[0].upper() in _SCHEMA_CHANGES:
            original = self._then_forget(original)
        return self._act(original, cursor, sql, args, effect)

    def _act(
        self, original: Callable[..., Any], cursor: Any, sql: Any, args: Any, effect: Effect | None
    ) -> Any:
        if effect is None:
            return original(cursor, sql, *args)
        if effect.kind == "commit":
            return self.state(cursor.db).commit(lambda: original(cursor, sql, *args), chained=effect.chained)
        state = self.state(cursor.db)
        return state.then(lambda: original(cursor, sql, *args), lambda: state.apply(effect))

    def _then_forget(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Make a function that changes the schema and then lets go of what was known of it."""

        def changed(*args: Any) -> Any:
            try:
                return original(*args)
            finally:
                self._shared.schema_changed()

        return changed

    def _internally(self, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        thread = self.thread
        outer = thread.internal
        try:
            try:
                thread.internal = outer + 1
                return original(*args, **kwargs)
            finally:
                thread.internal = outer
        finally:  # once more: an interruption may come between any two lines
            thread.internal = outer

    def _rolled_back(self, connection: Any) -> None:
        state: DjangoConnection | None = connection.__dict__.get(_STATE)
        self.thread.epoch = Epoch()
        if state is not None:
            state.rolled_back()


def _leave_no_transaction(connection: Any) -> None:
    """End what an interrupted COMMIT has left open, before the next statements get into it."""
    try:
        connection.rollback()
        connection.set_autocommit(True)
    except faults():
        connection.close()


def only_testcase_blocks(connection: Any) -> bool:
    """Say whether all atomic blocks around are those of a ``TestCase``, which never commits."""
    blocks = connection.atomic_blocks
    return bool(blocks) and blocks[-1]._from_testcase and all(block._from_testcase for block in blocks)


def _row_count(cursor: Any, written: SqlText, system: str) -> Any:
    # SQLite knows it only when what RETURNING gives has been fetched.
    if system == "sqlite" and "RETURNING" in written.text.upper():
        return None
    return cursor.cursor.rowcount


def _refused(error: BaseException, state: DjangoConnection) -> bool:
    """Whether a statement of the application's own has written nothing: refused, or never sent."""
    from django.db import Error, InterfaceError, OperationalError

    driver = state.django.Database
    if isinstance(error, OperationalError | InterfaceError | driver.OperationalError | driver.InterfaceError):
        return dbapi.connected(state.system, state.driver())
    # What is no error of the database comes of parameters the driver cannot send.
    if isinstance(error, Error | driver.Error):
        return True
    return isinstance(error, TypeError | ValueError | ArithmeticError | LookupError) and not interrupts(error)


class _DriversOwn:
    """A method of the driver's cursor, found on Django's; a cursor whose driver has none has none either."""

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        self._name = name
        self._call = call

    def __get__(self, cursor: Any, owner: Any = None) -> Any:
        if cursor is None:
            raise AttributeError(self._name)
        return functools.partial(self._call, cursor, getattr(cursor.cursor, self._name))


def _own(name: str, call: Callable[..., Any], original: None) -> _DriversOwn:
    return _DriversOwn(name, call)
