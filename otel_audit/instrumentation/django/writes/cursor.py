"""SQL of the application's own, seen at the cursor: what it writes, and the transactions it ends by text.

Beside ``execute`` a driver's cursor has methods of its own, which Django hands through.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otel_audit.capture.databases import dbapi
from otel_audit.capture.sql.raw_sql import Announced, RawRun, RawStatement
from otel_audit.capture.transactions.transaction_sql import ORDINARY, Effect, effect_of, is_ordinary
from otel_audit.errors import AuditError
from otel_audit.instrumentation.django import schemas
from otel_audit.instrumentation.django.writes.migrations import MigrationStatement
from otel_audit.interruptions import faults, interrupts

if TYPE_CHECKING:
    from otel_audit.capture.sql.sql_text import SqlText
    from otel_audit.capture.transactions.state import CaptureState
    from otel_audit.instrumentation.django.connection import DjangoConnection, Transactions
    from otel_audit.instrumentation.django.writes.raw_tables import ModelTables

_F = TypeVar("_F", bound=Callable[..., Any])
_SCHEMA_CHANGES: Final = ("CREATE", "ALTER", "DROP", "REVOKE")
_READS: Final = frozenset({"SE", "se", "Se"})
"""How SELECT and SET begin; what they call cannot be known, so only a second statement could write."""
_WRITES: Final = frozenset({"UP", "DE"})
"""How compilers begin what writes, INSERT aside."""
_MISSING: Final = object()


class CursorCapture:
    """The wrappers around what cursors execute."""

    def __init__(self, state: CaptureState, transactions: Transactions, tables: ModelTables) -> None:
        self._shared = state
        self._transactions = transactions
        self._thread = transactions.thread
        self._tables = tables

    def execute(self, original: _F) -> _F:
        """Wrap ``CursorWrapper._execute`` and ``_executemany``: statements of the application's own."""
        thread = self._thread

        # Every statement of Django comes through here, so those of compilers are let through at once, with
        # the arguments as Django gives them: packing them would cost as much as the rest.
        @functools.wraps(original)
        def execute(
            cursor: Any,
            _sql: Any = _MISSING,
            _params: Any = _MISSING,
            _many: Any = _MISSING,
            _context: Any = _MISSING,
            /,
            *args: Any,
            **kwargs: Any,
        ) -> Any:
            here = thread.__dict__  # one look at what is this thread's instead of one for each of these
            here["executed"] += 1
            if _context is not _MISSING and type(_sql) is str and not args and not kwargs:
                if _sql[:7] == "SELECT ":
                    plain = _sql[7:9] not in schemas.CALLS and ";" not in _sql
                elif here["compiling"]:
                    verb = _sql[:2]
                    if verb == "IN":
                        result = original(cursor, _sql, _params, _many, _context)
                        try:
                            here["inserted"] = cursor.cursor.rowcount
                        except faults():  # a driver's cursor in somebody's wrapper
                            here["inserted"] = None
                        return result
                    plain = verb in _WRITES
                else:
                    plain = False
                if plain:
                    return original(cursor, _sql, _params, _many, _context)
            given = [value for value in (_sql, _params, _many, _context) if value is not _MISSING]
            return self._other(original, here, cursor, *given, *args, **kwargs)

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
        with RawRun(self._transactions.connection(cursor.db)) as running:
            running.begin(statement)
            running.result = call(sql, *args, **kwargs)
            running.done(cursor.cursor.rowcount)
        return running.result if running.sent else call(sql, *args, **kwargs)

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
        state = self._transactions.connection(cursor.db)
        if state.is_open():
            return state.commit(lambda: self.call(cursor, call, sql))
        return self.call(cursor, call, sql)

    # --- details -------------------------------------------------------------------------------

    def _other(
        self,
        original: Callable[..., Any],
        here: dict[str, Any],
        cursor: Any,
        /,
        sql: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Run what may be a statement of the application's own."""
        send = functools.partial(original, **kwargs) if kwargs else original
        if type(sql) is str and sql[:4] in schemas.SETS:
            return self._set(send, sql, cursor, sql, *args)
        internal = here["internal"]
        if internal or here["compiling"] or (here["suppressed"] and here["migrating"] is None):
            if internal or type(sql) is not str or sql[:2] in ORDINARY or is_ordinary(sql):
                return send(cursor, sql, *args)
            return self._statement(send, cursor, sql, sql, args)
        if type(sql) is str and sql[:2] in _READS and ";" not in sql:
            if sql[7:9] in schemas.CALLS:
                return self._set(send, sql, cursor, sql, *args)
            return send(cursor, sql, *args)
        text = self._text(sql, cursor)
        if schemas.may_set(text):
            send = functools.partial(self._set, send, text)
        written = self._written(cursor, text)
        if written is not None:
            return self._write(send, cursor, sql, text, args, written)
        if text[:2] in ORDINARY or is_ordinary(text):
            return send(cursor, sql, *args)
        return self._statement(send, cursor, sql, text, args)

    def _set(self, original: Callable[..., Any], text: str, cursor: Any, sql: Any, *args: Any) -> Any:
        """Run a statement that may choose another schema; ``text`` is what it says."""
        result = original(cursor, sql, *args)
        try:
            if cursor.db.vendor == "postgresql":
                self._transactions.state(cursor.db).sets(text, args[0] if args else None)
        except faults() as error:
            self._shared.failures.note("SET search_path", error)
        return result

    def _announce(self, cursor: Any, sql: Any) -> Announced | None:
        """Return what is known of a statement, None if it is not to be recorded."""
        thread = self._thread
        if thread.internal or thread.compiling or (thread.suppressed and thread.migrating is None):
            return None
        try:
            written = self._written(cursor, self._text(sql, cursor))
            return (
                None
                if written is None
                else self._statement_of(self._transactions.connection(cursor.db), written)
            )
        except faults() as error:
            self._shared.failures.report("raw SQL", error, lost=1)
            return None

    def _statement_of(
        self, state: DjangoConnection, written: SqlText, alone: bool | None = None
    ) -> Announced:
        migrating, tables = self._thread.migrating, self._tables.here(state.name)
        if migrating is not None:
            return MigrationStatement(migrating, state, tables, written)
        return RawStatement(state, tables, written, alone=alone)

    @contextmanager
    def _copying(self, cursor: Any, statement: Announced, copying: Any) -> Iterator[Any]:
        """Copy, with the records of it around; an exception of the application's takes it back."""
        state = self._transactions.connection(cursor.db)
        sent = left = copied = False
        try:
            try:
                statement.begin()
            except AuditError:
                raise
            except faults() as error:
                self._shared.failures.report("COPY", error)
            sent = True
            with copying as copy:
                yield copy
                left = True
            copied = True
            statement.done(cursor.cursor.rowcount)
        except BaseException as error:
            if not copied:
                # What raises inside the block takes it back; interrupted at its end, nobody knows.
                lost = left and interrupts(error)
                refused = not lost and dbapi.connected(state.system, state.driver())
                statement.failed(error, refused=refused, sent=sent)
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
        state = self._transactions.connection(cursor.db)
        if text[:2] in ORDINARY or is_ordinary(text):
            effect = None
        else:
            effect = state.meant(effect_of(text, state.dialect.implicit_commits))
        begins = effect is not None and effect.kind == "begin"
        # TRUNCATE of MySQL commits by itself; what has begun a transaction may have ended it, too.
        alone = None if effect is None else not begins
        with RawRun(state) as running:
            running.begin(self._statement_of(state, written, alone))
            running.result = self._act(original, cursor, sql, args, effect)
            running.done(_row_count(cursor, written, state.system))
        result = running.result
        if not running.sent:
            result = self._act(original, cursor, sql, args, effect)
        if begins and state.is_open() is False:
            if "ROLLBACK" in text.upper():
                state.unknown()
            else:
                state.settle()
        return result

    def _statement(self, original: Callable[..., Any], cursor: Any, sql: Any, text: str, args: Any) -> Any:
        """Run a statement that may end or mark a transaction, and act on it."""
        effect = effect_of(text, dbapi.dialect(cursor.db.vendor).implicit_commits)
        if effect is not None:
            effect = self._transactions.connection(cursor.db).meant(effect)
        if text.split(None, 1)[:1] and text.split(None, 1)[0].upper() in _SCHEMA_CHANGES:
            original = self._then_forget(original)
        return self._act(original, cursor, sql, args, effect)

    def _act(
        self, original: Callable[..., Any], cursor: Any, sql: Any, args: Any, effect: Effect | None
    ) -> Any:
        if effect is None:
            return original(cursor, sql, *args)
        if effect.kind == "commit":
            return self._transactions.state(cursor.db).commit(
                lambda: original(cursor, sql, *args), chained=effect.chained
            )
        state = self._transactions.state(cursor.db)
        return state.then(lambda: original(cursor, sql, *args), lambda: state.apply(effect))

    def _then_forget(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Make a function that changes the schema and then lets go of what was known of it."""

        def changed(*args: Any) -> Any:
            try:
                return original(*args)
            finally:
                self._shared.schema_changed()

        return changed


def _row_count(cursor: Any, written: SqlText, system: str) -> Any:
    # SQLite knows it only when what RETURNING gives has been fetched.
    if system == "sqlite" and "RETURNING" in written.text.upper():
        return None
    return cursor.cursor.rowcount


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
