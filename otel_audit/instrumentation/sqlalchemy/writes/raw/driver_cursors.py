"""Cursors of the driver that an application takes from SQLAlchemy: ``connection.connection.cursor()``.

SQLAlchemy takes its own cursors the same way; those are let through as they are. The others are wrapped, and
so are COMMIT and ROLLBACK of what ``engine.raw_connection()`` returns.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import wrapt
from sqlalchemy.engine import default

from otel_audit.capture.databases import dbapi
from otel_audit.capture.plan import TablePlan
from otel_audit.capture.sql.raw_sql import RawRun, RawStatement
from otel_audit.capture.sql.sql_text import SqlText
from otel_audit.capture.transactions.transaction_sql import Effect, effect_of, is_ordinary
from otel_audit.instrumentation.sqlalchemy.connection import SQLAlchemyConnection, commits_by_itself
from otel_audit.instrumentation.sqlalchemy.writes.raw.text import beyond
from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from otel_audit.instrumentation.sqlalchemy.connection import Transactions
    from otel_audit.instrumentation.sqlalchemy.writes.raw.text import Tables
    from otel_audit.pipeline.failures import Failures

_EXECUTES: Final = vars(default)
"""The module that nearly all cursors are made in."""
_ENGINE: Final = "_otel_audit_engine"
"""Where the engine stands in what the pool hands out: its cursors do not know it."""

_RUN: Final = frozenset({"executescript", "copy_expert", "copy_from"})
"""What cursors of some drivers can do beside ``execute``: known by SQL, and done when it returns."""
_NOT_THE_APPLICATION: Final = ("sqlalchemy.", "otel_audit.")
_UNSEEN: Final = frozenset({"copy", "stream"})
"""What goes on when it returns."""


class NotCaptured(Exception):
    """A statement names an audited table, and nobody can see what it writes."""


class DriverCursors:
    """The wrappers of what the pool hands out.

    Args:
        tables: those that are audited.
        transactions: has ours of each connection.
        failures: takes our own, and counts what is not captured.
    """

    def __init__(self, tables: Tables, transactions: Transactions, failures: Failures) -> None:
        self._tables = tables
        self._transactions = transactions
        self._failures = failures

    # --- wrappers ----------------------------------------------------------------------------------

    def raw_connection(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``Engine.raw_connection``: remember the engine."""

        def raw_connection(engine: Any, *args: Any, **kwargs: Any) -> Any:
            fairy = original(engine, *args, **kwargs)
            kept = getattr(fairy, "__dict__", None)
            if kept is not None:  # else of a pool of the application's
                kept[_ENGINE] = engine
            return fairy

        return raw_connection

    def cursor(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``_ConnectionFairy.cursor``."""
        frame = sys._getframe

        def cursor(fairy: Any, *args: Any, **kwargs: Any) -> Any:
            made = original(fairy, *args, **kwargs) if args or kwargs else original(fairy)
            caller = frame(1).f_globals
            if caller is _EXECUTES or caller.get("__name__", "")[:11] == "sqlalchemy.":
                return made
            engine = fairy.__dict__.get(_ENGINE)
            return made if engine is None else _Cursor(made, self, fairy, engine)

        return cursor

    def driver_connection(self, original: property) -> property:
        """Wrap ``_ConnectionFairy.driver_connection``: nobody can see what is written by what it returns."""
        read: Any = original.fget
        frame = sys._getframe

        def driver_connection(fairy: Any) -> Any:
            taken = read(fairy)
            if taken is not None:
                caller = frame(1)
                if not caller.f_globals.get("__name__", "").startswith(_NOT_THE_APPLICATION):
                    self._taken(f"{caller.f_code.co_filename}:{caller.f_lineno}")
            return taken

        return property(driver_connection, doc=original.__doc__)

    def _taken(self, place: str) -> None:
        """Count that the application writes, or reads, where it is not seen."""
        try:
            self._failures.note(
                "driver connection",
                NotCaptured(f"{place} takes the driver's own connection"),
                instead="what it writes there is not recorded; by connection.connection.cursor() it is",
                level=logging.WARNING,  # to listen, or to register a type, it may write nothing
            )
        except faults():  # a pool of the application's
            return

    def commit(self, original: None) -> Callable[..., Any]:
        """Add ``_ConnectionFairy.commit``, which is the driver's otherwise."""

        def commit(fairy: Any) -> Any:
            state = self._transactions.of_info(fairy.info)
            if state is None or state.committing:
                return fairy.dbapi_connection.commit()
            state.committing = True
            try:
                return state.commit(fairy.dbapi_connection.commit)
            finally:
                state.committing = False

        return commit

    def rollback(self, original: None) -> Callable[..., Any]:
        """Add ``_ConnectionFairy.rollback``, which is the driver's otherwise."""

        def rollback(fairy: Any) -> Any:
            state = self._transactions.of_info(fairy.info)
            error = sys.exception()
            try:
                return fairy.dbapi_connection.rollback()
            finally:
                if state is not None and not state.committing:
                    state.rolled_back("" if error is None else type(error).__qualname__)

        return rollback

    # --- one statement -----------------------------------------------------------------------------

    def run(self, fairy: Any, engine: Any, cursor: Any, execute: Callable[[], Any], sql: Any) -> Any:
        """Run a statement on a cursor of the application's, with its records around it.

        Raises:
            AuditError: a record cannot be kept and ``on_error`` is ``fail_closed``.
        """
        try:
            prepared = self._prepare(fairy, engine, sql)
        except faults() as error:
            self._failures.report("raw SQL", error, lost=1)
            prepared = None
        if prepared is None:
            return execute()
        state, text, effect = prepared
        if text is None:
            return _act(state, execute, effect)

        with RawRun(state) as running:
            running.begin(self._statement(state, fairy, engine, text, effect))
            running.result = _act(state, execute, effect)
            late = state.system == "sqlite" and "RETURNING" in text.text.upper()
            running.done(None if late else cursor.rowcount)
        return running.result if running.sent else _act(state, execute, effect)

    def _statement(
        self, state: SQLAlchemyConnection, fairy: Any, engine: Any, text: SqlText, effect: Effect | None
    ) -> RawStatement:
        def aim(plan: TablePlan, schema: str | None) -> None:
            state.in_schema(getattr(plan, "schema", None) if schema is None else schema)
            state.doubtful.add(plan.table)

        connection = _connection(fairy, engine)
        state.alone = commits_by_itself(connection, state)
        return RawStatement(
            state,
            self._tables.here(state.known_as, engine.dialect),
            text,
            alone=_alone(effect),
            aim=aim,
            beyond=beyond(self._tables, connection, state, text),
        )

    def _prepare(
        self, fairy: Any, engine: Any, sql: Any
    ) -> tuple[SQLAlchemyConnection, SqlText | None, Effect | None] | None:
        sql = _text(sql, fairy)
        text = self._tables.known().read(sql, engine.dialect.name)
        effect = None
        if not is_ordinary(sql):
            effect = effect_of(sql, dbapi.dialect(engine.dialect.name).implicit_commits)
        if text is None and effect is None:
            return None
        state = self._transactions.of(_connection(fairy, engine))
        return state, text, state.meant(effect)

    def not_captured(self, fairy: Any, engine: Any, call: str, sql: Any) -> None:
        """Count what a method of the driver's may write to an audited table."""
        try:
            text = self._tables.known().read(_text(sql, fairy), engine.dialect.name)
        except faults() as fault:
            self._failures.note("raw SQL", fault)
            return
        for verb, table, _ in () if text is None else text.writes:
            said = f"{verb} of {table} by {call}() of the driver's cursor"
            self._failures.note("driver cursor", NotCaptured(said), lost=1)


def _connection(fairy: Any, engine: Any) -> Any:
    """Return what stands for SQLAlchemy's connection, which may not exist."""
    return SimpleNamespace(
        _dbapi_connection=fairy,
        engine=engine,
        dialect=engine.dialect,
        _is_autocommit_isolation=lambda: False,
    )


def _text(sql: Any, fairy: Any) -> str:
    """Return what a statement says: psycopg takes bytes and compositions as well."""
    if isinstance(sql, str):
        return str.__str__(sql)
    if isinstance(sql, bytes):
        return sql.decode(errors="replace")
    return str(sql.as_string(fairy.driver_connection))


def _alone(effect: Effect | None) -> bool | None:
    return None if effect is None else effect.kind != "begin"


def _act(state: SQLAlchemyConnection, execute: Callable[[], Any], effect: Effect | None) -> Any:
    """Run a statement that may end or mark a transaction."""
    if effect is None:
        return execute()
    state.ended = state.ended or effect.kind in ("commit", "rollback")
    if effect.kind == "commit":
        return state.commit(execute, chained=effect.chained)
    return state.then(execute, lambda: state.apply(effect))


class _Cursor(wrapt.ObjectProxy):  # type: ignore[type-arg]
    """A cursor of the driver's, whose statements are looked at."""

    def __init__(self, cursor: Any, capture: DriverCursors, fairy: Any, engine: Any) -> None:
        super().__init__(cursor)
        self._self_capture = capture
        self._self_place = (fairy, engine)

    def _self_run(self, name: str, sql: Any, args: Any, kwargs: Any) -> Any:
        cursor = self.__wrapped__
        call = getattr(cursor, name)
        result = self._self_capture.run(*self._self_place, cursor, lambda: call(sql, *args, **kwargs), sql)
        return self if result is cursor else result

    def execute(self, sql: Any, *args: Any, **kwargs: Any) -> Any:
        return self._self_run("execute", sql, args, kwargs)

    def executemany(self, sql: Any, *args: Any, **kwargs: Any) -> Any:
        return self._self_run("executemany", sql, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.__wrapped__, name)
        if name in _RUN:
            return partial(self._self_other, name)
        if name in _UNSEEN:
            return partial(self._self_unseen, name, found)
        return found

    def _self_other(self, name: str, sql: Any, *args: Any, **kwargs: Any) -> Any:
        if name != "copy_from":
            return self._self_run(name, sql, args, kwargs)
        call = self.__wrapped__.copy_from  # a file, the name of a table
        copy = f"COPY {args[0] if args else kwargs.get('table', '')} FROM STDIN"
        return self._self_capture.run(
            *self._self_place, self.__wrapped__, lambda: call(sql, *args, **kwargs), copy
        )

    def _self_unseen(self, name: str, call: Callable[..., Any], sql: Any, *args: Any, **kwargs: Any) -> Any:
        result = call(sql, *args, **kwargs)
        self._self_capture.not_captured(*self._self_place, name, sql)
        return result

    def __enter__(self) -> Any:
        entered = self.__wrapped__.__enter__()
        return self if entered is self.__wrapped__ else entered

    def __iter__(self) -> Any:
        return iter(self.__wrapped__)
