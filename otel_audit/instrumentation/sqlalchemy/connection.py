"""SQLAlchemy's connections: one of ours for each of the driver's, and what tells it what happens there.

Ours stands in the ``info`` of the pool's record: it lives as long as the driver's connection, whoever has it
checked out, and so does what is pending there. What ends a transaction is wrapped, not listened to:
SQLAlchemy tells of COMMIT before it is sent, and of the names of savepoints not at all.
"""

from __future__ import annotations

import re
import sys
import weakref
from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DBAPIError

from otel_audit.capture.databases import dbapi
from otel_audit.capture.freshness import OneConnection
from otel_audit.capture.transactions.connection import NO_ADDRESS, Connection, How
from otel_audit.forks import process_id
from otel_audit.interruptions import faults
from otel_audit.named_tuples import NamedTuple

if TYPE_CHECKING:
    from otel_audit.capture.plan import TablePlan
    from otel_audit.capture.transactions.state import CaptureState

_KEY: Final = "otel_audit"
_PSYCOPG2_BEGUN: Final = 2
"""``psycopg2.extensions.STATUS_BEGIN``."""
_MAKES_CONNECTIONS: Final = "sqlalchemy.engine.create"
_IN_MEMORY: Final = re.compile(":memory:|mode=memory")
_NUMBERS: Final = count(1)
"""Of engines whose database has no name: an ``id()`` would be that of another one some day."""
_SYSTEMS: Final = {"mssql": "microsoft.sql_server", "oracle": "oracle.db"}
"""``db.system.name`` where it is not the name of the dialect."""


class _Place(NamedTuple):
    """Where an engine connects to.

    Attributes:
        known_as: what it has in common with other engines of the same database; empty if nobody can say.
    """

    name: str
    known_as: str
    system: str
    database: str
    address: tuple[str, int]


class SQLAlchemyConnection(Connection):
    """A connection of a driver's, as SQLAlchemy's pool keeps it.

    Attributes:
        alone: the statement that is about to run commits by itself.
        committing: COMMIT is being sent; what is written now was not announced.
        doomed: an error has left PostgreSQL nothing but to roll back, and the driver cannot be asked.
        ended: text of the application's has ended a transaction, of which the driver may not know.
        known_as: tells its database from others; empty if nobody can say.
        doubtful: tables whose rows the open transaction has written past the objects of its sessions.
        sessions: those that use it, weakly.
    """

    __slots__ = (
        "_bulk_saving",
        "_dialect",
        "_driver",
        "alone",
        "committing",
        "doomed",
        "doubtful",
        "ended",
        "known_as",
        "sessions",
    )

    def __init__(
        self,
        state: CaptureState,
        place: _Place,
        dialect: Any,
        driver: Any,
        bulk_saving: weakref.WeakSet[Any],
    ) -> None:
        super().__init__(
            state,
            OneConnection(),
            name=place.name,
            system=place.system,
            namespace=place.database,
            address=place.address,
        )
        self.known_as = place.known_as
        self._dialect = dialect
        self._driver = driver
        self.alone = False
        self.committing = False
        self.doomed = False
        self.doubtful: set[str] = set()
        self.ended = False
        self.sessions: list[weakref.ref[Any]] = []
        self._bulk_saving = bulk_saving

    def commits_at_once(self) -> tuple[bool, bool]:
        return self.alone, self.alone

    def driver(self) -> Any:
        """Return the driver's own connection, behind what SQLAlchemy wraps an asynchronous one in."""
        return getattr(self._driver, "driver_connection", None) or self._driver

    def adapted(self) -> Any:
        """Return the driver's connection as SQLAlchemy has it."""
        return self._driver

    def abandon(self) -> None:
        try:
            self._dialect.do_rollback(self._driver)
        except faults() as error:  # the connection is gone: so is the transaction
            self.failures.note("roll back", error)
        self.rolled_back("otel_audit.errors.SpoolError")

    def is_aborted(self) -> bool:
        return self.doomed or super().is_aborted()

    def is_answer(self, error: BaseException) -> bool:
        if isinstance(error, DBAPIError):
            return not error.connection_invalidated
        return self.refused(error)

    def refused(self, error: BaseException, *, of_driver: bool = True) -> bool:
        """Say so of an error of the driver's, where the application uses that past SQLAlchemy."""
        kinds = getattr(self._dialect.loaded_dbapi, "Error", ())
        return isinstance(error, kinds) and dbapi.connected(self.system, self.driver())

    def wrote(self, plan: TablePlan, key: Any) -> int:
        """Do nothing: which objects may be trusted is said by :attr:`doubtful`, not by what was written."""
        return 0

    def wrote_many(self, plan: TablePlan, keys: Sequence[Any] | None) -> None:
        """Do nothing, as :meth:`wrote`."""

    def in_schema(self, schema: str | None) -> None:
        """Say in which schema the next statement writes; ``None``: the connection's own."""
        self.namespace = self.namespace_of(schema)

    def rollback_to(self, sid: str) -> None:
        self.doomed = False
        super().rollback_to(sid)

    def taken_back(self, plan: TablePlan) -> None:
        """Trust the objects of a table no longer.

        Where a savepoint is rolled back while an inner one is open, SQLAlchemy leaves them with what was
        written behind the inner one.
        """
        self.doubtful.add(plan.table)

    def _end(self, how: How, committed: int = 0) -> None:
        self.doomed = False
        try:
            super()._end(how, committed)
        finally:
            self.doubtful.clear()

    def statement_failed(self) -> None:
        """Note that a statement of the open transaction raised."""
        # psycopg can be asked; asyncpg cannot, and COMMIT would then answer ROLLBACK without an error.
        if self.system == "postgresql" and not self.alone and self.is_open() is None:
            self.doomed = True

    def flushing_session(self) -> Any:
        """Return the session whose flush runs on this connection, None if there is none.

        What ``bulk_save_objects`` and its kind write, the objects of the session do not hear of.
        """
        for reference in self.sessions:
            session = reference()
            if session is not None and session._flushing and session not in self._bulk_saving:
                return session
        return None

    def joined_by(self, session: Any) -> None:
        """Note that a session works with this connection."""
        kept = [each for each in self.sessions if each() is not None and each() is not session]
        self.sessions = [*kept, weakref.ref(session)]


class Transactions:
    """Ours of each connection, and what is wrapped or listened to of SQLAlchemy's transactions."""

    def __init__(self, state: CaptureState) -> None:
        self._state = state
        self._places: weakref.WeakKeyDictionary[Any, _Place] = weakref.WeakKeyDictionary()
        self._bulk_saving: weakref.WeakSet[Any] = weakref.WeakSet()
        self._untried: set[str] = set()

    # --- used by capture ---------------------------------------------------------------------------

    def of(self, connection: Any) -> SQLAlchemyConnection:
        """Return ours of a connection, new in a forked child: the parent settles what it began."""
        fairy = connection._dbapi_connection
        info = fairy.info
        found: SQLAlchemyConnection | None = info.get(_KEY)
        if found is None or found.pid != process_id() or found.failures is not self._state.failures:
            found = SQLAlchemyConnection(
                self._state,
                self._place(connection),
                connection.dialect,
                fairy.dbapi_connection,
                self._bulk_saving,
            )
            info[_KEY] = found
        return found

    def _place(self, connection: Any) -> _Place:
        engine = connection.engine
        place = self._places.get(engine)
        if place is None:
            place = self._places[engine] = _place(engine)
            if not dbapi.is_tried(place.system):
                self._say_untried(engine.dialect.name)
        return place

    def _say_untried(self, dialect: str) -> None:
        if dialect in self._untried:
            return
        self._untried.add(dialect)
        try:
            from otel_audit.instrumentation.sqlalchemy.mistakes import say_that_it_is_untried

            say_that_it_is_untried(dialect, self._state.config)
        except faults() as error:
            self._state.failures.note("look at the dialect", error)

    def database_of(self, connection: Any) -> str:
        """Return what tells the database of a connection from others; empty if nobody can say."""
        return self._place(connection).known_as

    def peek(self, connection: Any) -> SQLAlchemyConnection | None:
        """Return ours of a connection if there is one and the connection is still there."""
        try:
            fairy = connection._dbapi_connection
            return self._mine(None if fairy is None else fairy.info)
        except faults():  # a first connection of an engine, while it is initialized, has no place for ours
            return None

    def of_info(self, info: Any) -> SQLAlchemyConnection | None:
        """Return ours out of what the pool keeps beside a connection of the driver's."""
        return self._mine(info)

    def _mine(self, info: Any) -> SQLAlchemyConnection | None:
        found: SQLAlchemyConnection | None = None if info is None else info.get(_KEY)
        return found if found is not None and found.failures is self._state.failures else None

    # --- wrappers ----------------------------------------------------------------------------------

    def commit(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``Connection._commit_impl`` and ``_commit_twophase_impl``: success is known behind them."""

        def commit(connection: Any, *args: Any) -> Any:
            state = self.peek(connection)
            if state is None:
                return original(connection, *args)
            state.committing = True
            try:
                return state.commit(lambda: original(connection, *args))
            finally:
                state.committing = False

        return commit

    def prepare(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``Connection._prepare_twophase_impl``: from there on others may commit the transaction."""

        def prepare(connection: Any, *args: Any) -> Any:
            state = self.peek(connection)
            if state is not None and state.pending:
                state.before_commit()
            return original(connection, *args)

        return prepare

    def rollback(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``Connection._rollback_impl`` and ``_rollback_twophase_impl``; where they fail, it is gone."""

        def rollback(connection: Any, *args: Any) -> Any:
            state = self.peek(connection)
            error = sys.exception()
            try:
                return original(connection, *args)
            finally:
                if state is not None:
                    state.rolled_back("" if error is None else type(error).__qualname__)

        return rollback

    def savepoint(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``Connection._savepoint_impl``, which returns the name."""

        def savepoint(connection: Any, name: Any = None) -> Any:
            begins = self._begins_by_savepoint(connection)
            name = original(connection, name)
            state = self.of(connection) if begins else self.peek(connection)
            if state is not None:
                state.savepoint(name, begins=begins)
            return name

        return savepoint

    def rollback_to(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``Connection._rollback_to_savepoint_impl``."""

        def rollback_to(connection: Any, name: Any) -> Any:
            state = self.peek(connection)
            if state is None:
                return original(connection, name)
            error = sys.exception()
            state.error = "" if error is None else type(error).__qualname__
            try:
                return state.then(lambda: original(connection, name), lambda: state.rollback_to(name))
            finally:
                state.error = ""

        return rollback_to

    def release(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``Connection._release_savepoint_impl``."""

        def release(connection: Any, name: Any) -> Any:
            state = self.peek(connection)
            if state is None:
                return original(connection, name)
            if state.commits_by_release(name):
                return state.commit(lambda: original(connection, name))
            return state.then(lambda: original(connection, name), lambda: state.release(name))

        return release

    def _begins_by_savepoint(self, connection: Any) -> bool:
        """Say whether it begins the transaction: SQLite's driver has not, before something is written.

        https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#serializable-isolation-savepoints-transactional-ddl
        """
        try:
            return connection.dialect.name == "sqlite" and self.of(connection).begins_by_savepoint()
        except faults() as error:
            self._state.failures.note("savepoint", error)
            return False

    def bulk_save(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``Session._bulk_save_mappings``: it is no flush, though the session says so."""

        def bulk_save(session: Any, *args: Any, **kwargs: Any) -> Any:
            self._bulk_saving.add(session)
            try:
                return original(session, *args, **kwargs)
            finally:
                self._bulk_saving.discard(session)

        return bulk_save

    # --- listeners ---------------------------------------------------------------------------------

    def after_begin(self, session: Any, transaction: Any, connection: Any) -> None:
        """Listen to ``Session.after_begin``: whose objects are written through the connection."""
        try:
            self.of(connection).joined_by(session)
        except faults():  # a stand-in of a test's, with no place for ours: its writes will say so
            return

    def reset(self, driver: Any, record: Any, reset_state: Any) -> None:
        """Listen to ``Pool.reset``: a connection comes back, perhaps without anybody having ended anything.

        Where the pool believes that the transaction is over and the driver knows better, as after a COMMIT
        that SQLite refused, what is pending stays so: the next user of the connection ends it.
        """
        try:
            state = self._mine(getattr(record, "info", None))
            if state is None or state.pid != process_id():
                return
            state.sessions = []
            if not state.pending or reset_state.transaction_was_reset:
                return
            how = getattr(record, "_ConnectionRecord__pool")._reset_on_return.name  # noqa: B009 - a private name
            if how == "reset_rollback" or reset_state.terminate_only:
                state.rolled_back()
            elif how == "reset_commit":
                state.before_commit()
        except faults() as error:
            self._state.failures.note("reset", error)

    def checked_in(self, driver: Any, record: Any) -> None:
        """Listen to ``Pool.checkin``: what the pool itself has committed."""
        try:
            state = self._mine(getattr(record, "info", None))
            if state is None or not state.pending or driver is None:
                return
            if getattr(record, "_ConnectionRecord__pool")._reset_on_return.name == "reset_commit":  # noqa: B009
                state.committed()
        except faults() as error:
            self._state.failures.note("checkin", error)

    def gone(self, driver: Any, record: Any, *error: Any) -> None:
        """Listen to ``Pool.close`` and ``Pool.invalidate``: the database rolls back what was open."""
        try:
            state = self._mine(getattr(record, "info", None))
            if state is not None and state.pending and not state.committing:
                state.rolled_back(type(error[0]).__qualname__ if error and error[0] is not None else "")
        except faults() as fault:
            self._state.failures.note("close", fault)


def commits_by_itself(connection: Any, state: SQLAlchemyConnection) -> bool:
    """Say whether a statement commits by itself, by SQLAlchemy's isolation level or the driver's autocommit.

    SQLite's driver is asked in any case: an application may send its own BEGIN, as SQLAlchemy's documentation
    says, whatever the isolation level is called.
    """
    alone: bool = connection._is_autocommit_isolation()
    if not alone:
        try:
            driver = connection._dbapi_connection.dbapi_connection
            alone = connection.dialect.detect_autocommit_setting(driver)
        except (AttributeError, NotImplementedError):  # a driver without
            pass
    if state.ended and not state.raw and _begins_no_more(state):
        return True
    return alone and not state.raw and not (state.dialect.one_writer and bool(state.is_open()))


def _begins_no_more(state: SQLAlchemyConnection) -> bool:
    """Say whether a driver believes in a transaction that the server has ended: it sends no BEGIN, then."""
    adapted = state.adapted()
    try:
        # SQLAlchemy's own, around asyncpg; 2.1 has no flag beside the transaction.
        if getattr(adapted, "_transaction", None) is not None:
            return not adapted.driver_connection.is_in_transaction()
        return state.driver().status == _PSYCOPG2_BEGUN and state.is_open() is False
    except faults():  # another driver: it asks the server, or has none
        return False


def _place(engine: Any) -> _Place:
    url, dialect = engine.url, engine.dialect
    system = "mariadb" if getattr(dialect, "is_mariadb", False) else dialect.name
    host = url.host or ""
    address = NO_ADDRESS if not host or host.startswith("/") else (host, url.port or 0)
    name = url.render_as_string(hide_password=True)
    database = url.database or ""
    known_as = ""
    if (database or host) and not _IN_MEMORY.search(database):
        socket = url.query.get("unix_socket") or url.query.get("host") or ""
        known_as = f"{dialect.name} {host} {socket} {url.port or url.query.get('port', '')} {database}"
    else:  # made by `creator=`, or in memory: nobody knows but the engine
        name = f"{name}#{next(_NUMBERS):x}"
        if getattr(getattr(engine.pool, "_creator", None), "__module__", "") == _MAKES_CONNECTIONS:
            known_as = name  # else the application's function may connect several engines to one database
    return _Place(name, known_as, _SYSTEMS.get(system, system), database, address)
