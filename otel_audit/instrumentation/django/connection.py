"""Django's connections: one of ours for each, and the wrappers that tell it what happened.

Django's public methods are wrapped, because backends override the private ones.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec import UNSET

from otel_audit.capture.databases import dbapi
from otel_audit.capture.freshness import Epoch
from otel_audit.capture.transactions.connection import Connection
from otel_audit.forks import process_id
from otel_audit.instrumentation.django import schemas
from otel_audit.instrumentation.django.servers import server_address
from otel_audit.interruptions import faults, interrupts

if TYPE_CHECKING:
    from otel_audit.capture.transactions.state import CaptureState
    from otel_audit.instrumentation.django.loaded import ThreadState

_STATE: Final = "_otel_audit"
_F = TypeVar("_F", bound=Callable[..., Any])


class DjangoConnection(Connection):
    """A connection of Django's, which knows of atomic blocks and of tests that never commit.

    ``interrupted``: the application's own exception came before COMMIT was sent; names it. ``leaving``: the
    outermost atomic block is being left. ``undone``: the savepoint that was rolled back to last.
    """

    __slots__ = ("_path", "django", "follows", "interrupted", "leaving", "undone")

    def __init__(self, django: Any, state: CaptureState, thread: ThreadState) -> None:
        super().__init__(
            state,
            thread,
            name=django.alias,
            namespace=str(django.settings_dict.get("NAME") or ""),
        )
        self.django = django
        self.interrupted = ""
        self.leaving = False
        self.undone = ""
        self._path = schemas.SearchPath(schemas.configured(django.settings_dict))
        self.follows = False

    def identify(self) -> None:
        """Find out which system it is, which asks MySQL's server once."""
        system = self.django.vendor
        if system == "mysql" and self.django.mysql_is_mariadb:
            system = "mariadb"
        self.system = system
        self.dialect = dbapi.dialect(system)
        if not self.dialect.one_writer:  # SQLite is a file
            self.address = server_address(self.django.settings_dict)
        if system == "postgresql":
            self.follow()
            self.follows = self.follows or schemas.of_tenant(self.django) is not None

    def follow(self) -> None:
        """Find out which schema the next statement writes to; ``follows`` says that it may be another."""
        schema = schemas.of_tenant(self.django) or self._path.now(self.mark)
        self.namespace = self.namespace_of(schema)

    def sets(self, sql: str, params: Any) -> None:
        """Note what a ``SET`` or ``RESET`` that ran has done to the search path."""
        self._path.set(sql, params, None if self.commits_at_once()[0] else self.mark)
        self.follows = True

    def savepoint(self, sid: str, *, begins: bool = False) -> None:
        self._path.savepoint(sid, self.mark)
        super().savepoint(sid, begins=begins)

    def rollback_to(self, sid: str) -> None:
        self._path.rollback_to(sid, self.mark)
        super().rollback_to(sid)
        self.undone = sid

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
        self.leaving = False
        self.error = ""
        if self.pending and not self.django.needs_rollback and only_testcase_blocks(self.django):
            self.settle()

    def is_answer(self, error: BaseException) -> bool:
        """Say whether an exception of COMMIT is the database's answer."""
        from django.db import Error, IntegrityError

        return isinstance(error, IntegrityError) or (
            isinstance(error, Error) and dbapi.answered(self.system, self.driver())
        )

    def refused(self, error: BaseException, *, of_driver: bool = True) -> bool:
        """Say whether what a statement raised means that nothing was written: refused, or never sent."""
        from django.db import Error, InterfaceError, OperationalError

        driver = self.django.Database
        if isinstance(
            error, OperationalError | InterfaceError | driver.OperationalError | driver.InterfaceError
        ):
            return dbapi.connected(self.system, self.driver())
        if isinstance(error, Error | driver.Error):
            return True
        return _unsendable(error) and (of_driver or _came_from_driver(error))


class Transactions:
    """The wrappers around Django's transaction handling."""

    def __init__(self, state: CaptureState, thread: ThreadState) -> None:
        self._shared = state
        self.thread = thread

    # --- used by capture -----------------------------------------------------------------------

    def state(self, connection: Any) -> DjangoConnection:
        """Return ours of a connection, new in a forked child: the parent settles what it began.

        New as well where it was left by an instrumentor that was taken back.
        """
        found: DjangoConnection | None = connection.__dict__.get(_STATE)
        if found is None or found.pid != process_id() or found.reader is not self.thread:
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
            sent = False

            def send() -> Any:
                nonlocal sent
                sent = True
                return original(connection, *args, **kwargs)

            try:
                return self._commit(send, connection)
            except BaseException as error:
                # atomic() does not expect it, and would turn autocommit on in the open transaction.
                if interrupts(error) and not connection.in_atomic_block:
                    state = self.state(connection)
                    if not sent or state.is_open():
                        state.interrupted = type(error).__qualname__
                raise

        return commit  # type: ignore[return-value]

    def rollback(self, original: _F) -> _F:
        """Wrap ``BaseDatabaseWrapper.rollback``."""

        @functools.wraps(original)
        def rollback(connection: Any, /, *args: Any, **kwargs: Any) -> Any:
            try:
                return self._roll_back(original, connection, *args, **kwargs)
            except BaseException as error:
                # atomic() does not expect it, and would turn autocommit on in the open transaction.
                if interrupts(error) and not connection.in_atomic_block:
                    self._roll_back_once_more(original, connection)
                raise

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
            sid = self.thread.during("internal", original, connection, *args, **kwargs)
            if sid:
                self.state(connection).savepoint(sid)
            return sid

        return savepoint  # type: ignore[return-value]

    def savepoint_rollback(self, original: _F) -> _F:
        """Wrap ``BaseDatabaseWrapper.savepoint_rollback``."""

        @functools.wraps(original)
        def savepoint_rollback(connection: Any, /, sid: Any, *args: Any, **kwargs: Any) -> Any:
            def send() -> Any:
                return self.thread.during("internal", original, connection, sid, *args, **kwargs)

            try:
                state = self.state(connection)
                return state.then(send, lambda: state.rollback_to(sid))
            except BaseException as error:
                if interrupts(error):  # a COMMIT around it must not keep what came after the savepoint
                    self._roll_back_to(send, connection, sid)
                raise

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

            return state.then(lambda: self.thread.during("internal", original, connection, sid), released)

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

    def _commit(self, send: Callable[[], Any], connection: Any) -> Any:
        state: DjangoConnection | None = connection.__dict__.get(_STATE)
        if state is None or connection.in_atomic_block:
            return send()
        state.interrupted = ""
        pending = state.pending
        if pending and dbapi.transaction_aborted(state.system, connection.connection):
            # PostgreSQL answers COMMIT of an aborted transaction with ROLLBACK, and no error.
            return state.then(send, state.rolled_back)
        if pending and dbapi.transaction_open(state.system, connection.connection) is False:
            # Ended by a statement nobody saw; whether by COMMIT or ROLLBACK cannot be told.
            state.unknown()
            return send()
        result: Any = UNSET
        try:
            if pending:
                state.before_commit()
            result = send()
            state.committed()
            return result
        except BaseException as error:
            if pending:
                state.commit_raised(error, returned=result is not UNSET)
            raise

    def _roll_back(self, original: Any, connection: Any, /, *args: Any, **kwargs: Any) -> Any:
        state: DjangoConnection | None = connection.__dict__.get(_STATE)
        if state is not None:
            ended = state.unknown if state.pending and state.ended_unseen() else state.rolled_back
            return state.then(lambda: original(connection, *args, **kwargs), ended)
        result = original(connection, *args, **kwargs)
        self._rolled_back(connection)
        return result

    def _roll_back_once_more(self, original: Any, connection: Any) -> None:
        state: DjangoConnection | None = connection.__dict__.get(_STATE)
        if state is None or (not state.pending and state.is_open() is False):
            return
        try:
            original(connection)
        except faults():
            connection.close()
        self._rolled_back(connection)

    def _roll_back_to(self, send: Callable[[], Any], connection: Any, sid: str) -> None:
        """Roll back to a savepoint that is still there, whether that was done before or not."""
        try:
            send()
        except faults() as error:
            connection.needs_rollback = True  # as atomic() does, which does not see this error
            connection.rollback_exc = error
        self.state(connection).rollback_to(sid)

    def _end_by_autocommit(self, original: Any, connection: Any, /, *args: Any, **kwargs: Any) -> Any:
        state: DjangoConnection | None = connection.__dict__.get(_STATE)
        if state is None or connection.in_atomic_block:
            return self.thread.during("internal", original, connection, True, *args, **kwargs)
        # atomic() has neither committed nor rolled back, and the application sees that it raised.
        raised = sys.exception() if state.leaving else None
        if state.interrupted or (raised is not None and state.is_open()):
            error_name, state.interrupted = state.interrupted or type(raised).__qualname__, ""
            state.abandon(error_name)
        if not state.pending:
            return self.thread.during("internal", original, connection, True, *args, **kwargs)
        try:
            state.before_commit()
            result = self.thread.during("internal", original, connection, True, *args, **kwargs)
            state.committed()
            return result
        except BaseException as error:
            state.commit_raised(error, returned=connection.autocommit)
            raise

    def _begin_by_autocommit(self, original: Any, connection: Any, /, *args: Any, **kwargs: Any) -> Any:
        before = connection.autocommit
        try:
            return self.thread.during("internal", original, connection, False, *args, **kwargs)
        except BaseException as error:
            interrupted = interrupts(error) and not connection.in_atomic_block
            if interrupted and before and not connection.autocommit:
                self.thread.during("internal", original, connection, True)
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
                undoes = exc_type is not None or connection.needs_rollback
                sid = connection.savepoint_ids[-1] if undoes and connection.savepoint_ids else None
                if state is not None:
                    state.leaving, state.undone = ends, ""
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
                        leave_no_transaction(connection)
                    elif sid is not None and state is not None and state.undone != sid:
                        self._roll_back_to(
                            functools.partial(connection.savepoint_rollback, sid), connection, sid
                        )
                if state is not None:
                    state.left_atomic()
                raise

        return leave  # type: ignore[return-value]

    # --- details -------------------------------------------------------------------------------

    def _rolled_back(self, connection: Any) -> None:
        state: DjangoConnection | None = connection.__dict__.get(_STATE)
        self.thread.epoch = Epoch()
        if state is not None:
            state.rolled_back()


def leave_no_transaction(connection: Any) -> None:
    """End what an interruption of ``atomic()`` has left open, before the next statements get into it."""
    try:
        connection.in_atomic_block = connection.needs_rollback = False
        connection.atomic_blocks.clear()
        connection.savepoint_ids.clear()
        connection.rollback()
        connection.set_autocommit(True)
    except faults():
        connection.close()


def only_testcase_blocks(connection: Any) -> bool:
    """Say whether all atomic blocks around are those of a ``TestCase``, which never commits."""
    blocks = connection.atomic_blocks
    return bool(blocks) and blocks[-1]._from_testcase and all(block._from_testcase for block in blocks)


def _unsendable(error: BaseException) -> bool:
    """Say whether it may be of a parameter the driver cannot send: too large a number, text it cannot encode.

    Drivers raise Python's own errors for these, before anything is sent.
    """
    return isinstance(error, TypeError | ValueError | ArithmeticError | LookupError) and not interrupts(error)


def _came_from_driver(error: BaseException) -> bool:
    """Say whether it was raised in a call of the driver, not by what a statement returned for example."""
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code in _driver_calls():
            return True
        frame = frame.tb_next
    return False


@functools.cache
def _driver_calls() -> frozenset[Any]:
    """Return the functions in which Django calls the driver's ``execute`` and ``executemany``."""
    from django.db.backends.utils import CursorWrapper

    found = (inspect.unwrap(vars(CursorWrapper)[name]) for name in ("_execute", "_executemany"))
    return frozenset(function.__code__ for function in found)
