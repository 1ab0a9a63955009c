"""Reading rows that the application's statement is about to write, locked, in its own transaction.

On a connection of SQLAlchemy's over the same connection of the driver's, which no listener sees: neither
ours, nor the application's, nor OpenTelemetry's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import Boolean, and_, func, literal_column, or_, select, text, tuple_
from sqlalchemy import Connection as SQLAlchemyCoreConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import LRUCache, immutabledict

from otel_audit.capture.databases import abilities as catalog
from otel_audit.capture.databases import dbapi
from otel_audit.capture.databases.abilities import Abilities
from otel_audit.instrumentation.sqlalchemy.writes.shape import unannotated
from otel_audit.instrumentation.sqlalchemy.writes.stored.conditions import Condition
from otel_audit.instrumentation.sqlalchemy.writes.stored.found import (
    Found,
    UniqueRow,
    frozen,
    read_columns,
)
from otel_audit.instrumentation.sqlalchemy.writes.stored.quiet import OURS
from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from otel_audit.capture.plan import Verb
    from otel_audit.config.model import CaptureSection
    from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan
    from otel_audit.instrumentation.sqlalchemy.connection import SQLAlchemyConnection
    from otel_audit.instrumentation.sqlalchemy.plan import MappedPlan

_R = TypeVar("_R")
_OPTIONS: Final = "_otel_audit_options"
"""Where those of our statements wait in a dialect: with a cache of our own, so that none of ours takes the
place of one of the application's."""
_CACHED: Final = 200
_KEYS: Final = 500
"""Keys in one SELECT."""


class _Silent(SQLAlchemyCoreConnection):
    """A connection that leaves the transaction of another one alone, whatever happens.

    SQLAlchemy rolls back after an error where it believes that no transaction was begun. Nothing is logged
    (``echo=True``), nobody is warned, and no listener hears of errors: the transaction goes on.
    """

    _exec_single_context = SQLAlchemyCoreConnection._exec_single_context
    """As it is before it is wrapped."""

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        token = OURS.set(True)
        try:
            return super().execute(*args, **kwargs)
        finally:
            OURS.reset(token)

    def in_transaction(self) -> bool:
        return True

    def _rollback_impl(self) -> None:
        return


def _options(connection: Any) -> Any:
    kept = connection.dialect.__dict__
    found = kept.get(_OPTIONS)
    if found is None:
        cache: Any = LRUCache(_CACHED)
        found = kept[_OPTIONS] = immutabledict({"skip_user_error_events": True, "compiled_cache": cache})
    return found


class Reader:
    """Reads on one connection for one statement.

    Args:
        connection: the application's.
        state: ours of it.
        plan: the table.
        verb: what is about to be done to it.
    """

    def __init__(
        self,
        connection: Any,
        state: SQLAlchemyConnection,
        plan: MappedPlan,
        verb: Verb,
        known: dict[Any, Any],
        options: Any = None,
    ) -> None:
        self._outer = connection
        self._state = state
        self._plan = plan
        self._verb = verb
        self._known = known
        self._connection = _Silent(
            connection.engine,
            connection=connection._dbapi_connection,
            _has_events=False,
            _allow_autobegin=False,
        )
        self._connection._echo = False
        self._connection._execution_options = connection.engine._execution_options.union(_options(connection))
        schemas = (options or {}).get("schema_translate_map")
        self._options: dict[str, Any] = {"schema_translate_map": schemas} if schemas else {}

    # --- what may be asked ------------------------------------------------------------------------

    def abilities(self) -> Abilities:
        """Return what the table lets us ask, by the database's catalog, which is asked once."""
        key = (self._state.name, self._state.namespace, self._plan.table)
        answer = self._known.get(key)
        if answer is None:
            try:
                answer = self._ask()
            except DBAPIError:
                raise
            except faults() as error:  # a driver that cannot ask like this: nothing is certain
                self._state.failures.note("ask the catalog", error)
                answer = catalog.Answer({}, lasting=True)
            if answer.lasting:
                self._known[key] = answer
        return answer.verbs.get(self._verb) or Abilities(select=True)

    def _ask(self) -> catalog.Answer:
        preparer = self._outer.dialect.identifier_preparer
        table = self._plan.fields[0].column.table
        columns = [field.column.name for field in self._plan.fields]
        keys = [field.column.name for field in self._plan.keys]
        asked = catalog.Table(table.name, preparer.format_table(table), columns, keys)
        version = tuple(
            part for part in self._outer.dialect.server_version_info or () if isinstance(part, int)
        )
        return catalog.ask(self._state.system, version, self.query, asked)

    def query(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        """Return what a statement with the marks of the driver returns."""
        mark = "?" if self._state.system == "sqlite" else "%s"
        pieces = sql.replace(":", "\\:").split(mark)
        named = "".join(
            piece + (f":p{number}" if number < len(pieces) - 1 else "") for number, piece in enumerate(pieces)
        )
        values = {f"p{number}": value for number, value in enumerate(parameters)}
        return list(self._connection.execute(text(named), values))

    def value(self, sql: str) -> Any:
        """Return the first value of what a statement returns that needs no parameters."""
        return self._connection.exec_driver_sql(sql).scalar()

    # --- rows --------------------------------------------------------------------------------------

    def attempt(self, ours: Callable[[], _R]) -> _R | None:
        """Run a statement of ours; ``None``, as if it had never been sent, where the database refuses it.

        An error that the application's own statement would have met as well, a deadlock or the end of a wait
        for a lock, reaches the application: its transaction may be doomed by it, and to wait once more would
        be to wait longer than without us, and for a write whose rows nobody has read.
        """
        state = self._state
        abilities = self.abilities()
        if not abilities.select:
            return None
        savepoint = state.dialect.errors_doom and not state.alone and not abilities.certain
        if savepoint:
            self._connection.exec_driver_sql("SAVEPOINT otel_audit")
        try:
            result = ours()
        except DBAPIError as error:
            if not dbapi.refuses(state.system, error.orig or error):
                raise
            self._known.pop((state.name, state.namespace, self._plan.table), None)
            if not savepoint and state.dialect.errors_doom:
                raise
            if savepoint:
                self._connection.exec_driver_sql("ROLLBACK TO SAVEPOINT otel_audit")
                self._connection.exec_driver_sql("RELEASE SAVEPOINT otel_audit")
            return None
        if savepoint:
            self._connection.exec_driver_sql("RELEASE SAVEPOINT otel_audit")
        return result

    def lock_writer(self) -> None:
        """Take SQLite's write lock before anything is read: a snapshot could not be upgraded afterwards."""
        state = self._state
        if not state.dialect.one_writer or state.locked or state.alone:
            return
        preparer = self._outer.dialect.identifier_preparer
        table = preparer.format_table(self._plan.fields[0].column.table)
        column = preparer.quote(self._plan.fields[0].column.name)
        self._connection.exec_driver_sql(dbapi.write_lock(self._verb, table, column))
        state.locked = True

    def by_keys(
        self, keys: Sequence[Sequence[Any]], fields: Sequence[ColumnPlan], *, lock: bool = True
    ) -> dict[tuple[Any, ...], list[Any]] | None:
        """Return the values that rows have now, frozen, by frozen key; ``None`` if they cannot be asked."""
        if not self._plan.keys:
            return None
        return self.attempt(lambda: self._by_keys(keys, fields, lock=lock))

    def _by_keys(
        self, keys: Sequence[Sequence[Any]], fields: Sequence[ColumnPlan], *, lock: bool
    ) -> dict[tuple[Any, ...], list[Any]]:
        plan = self._plan
        if lock:
            self.lock_writer()
        columns = [field.column for field in plan.keys]
        width = len(columns)
        found: dict[tuple[Any, ...], list[Any]] = {}
        # In one order for all, or two of them meet in a deadlock.
        for start in range(0, len(keys), _KEYS):
            some = keys[start : start + _KEYS]
            statement = select(*columns, *(field.column for field in fields))
            statement = statement.where(self.one_of(columns, some))
            if lock:
                statement = self._locking(statement, fields)
                if self._state.dialect.moves_rows and len(some) > 1:
                    statement = statement.order_by(*columns)
            columns_read = read_columns(self._connection.execute(statement, execution_options=self._options))
            for row in zip(*frozen([*plan.keys, *fields], columns_read), strict=True):
                found[row[:width]] = list(row[width:])
        return found

    def by_unique(
        self,
        values: dict[tuple[ColumnPlan, ...], list[tuple[Any, ...]]],
        *,
        lock: bool,
        tells_new: bool = False,
    ) -> dict[tuple[Any, ...], UniqueRow] | None:
        """Return the rows that have one of these values in unique columns, by key; ``None``: cannot be asked.

        Args:
            values: of each row, by its unique columns.
            lock: hold those rows until the transaction ends.
            tells_new: ask PostgreSQL which of them no other version preceded.
        """
        return self.attempt(lambda: self._by_unique(values, lock=lock, tells_new=tells_new))

    def _by_unique(
        self,
        values: dict[tuple[ColumnPlan, ...], list[tuple[Any, ...]]],
        *,
        lock: bool,
        tells_new: bool,
    ) -> dict[tuple[Any, ...], UniqueRow]:
        plan = self._plan
        self.lock_writer()
        columns = [field.column for field in plan.fields]
        new: list[Any] = [literal_column("xmax = 0", Boolean)] if tells_new else []
        keys = [plan.fields.index(field) for field in plan.keys]
        found: dict[tuple[Any, ...], UniqueRow] = {}
        for way, rows in values.items():
            for start in range(0, len(rows), _KEYS):
                some = rows[start : start + _KEYS]
                statement = select(*columns, *new).where(self.one_of([field.column for field in way], some))
                if lock:
                    statement = self._locking(statement, []).order_by(*(field.column for field in plan.keys))
                for row in self._connection.execute(statement, execution_options=self._options):
                    frozen = [field.frozen(value) for field, value in zip(plan.fields, row, strict=False)]
                    key = tuple([frozen[position] for position in keys])
                    found[key] = UniqueRow(frozen, bool(row[-1]) if new else None)
        return found

    def one_of(self, columns: Sequence[Any], rows: Sequence[Sequence[Any]]) -> Any:
        """Return the condition that a row has one of these combinations of values."""
        if len(columns) == 1 and len(rows) > 1:
            return columns[0].in_([row[0] for row in rows])
        if len(rows) > 1 and self._state.system in ("postgresql", "sqlite", "mysql", "mariadb"):
            return tuple_(*columns).in_([tuple(row) for row in rows])
        equal = [and_(*(column == value for column, value in zip(columns, row, strict=True))) for row in rows]
        return equal[0] if len(equal) == 1 else or_(*equal)

    def _locking(self, statement: Any, fields: Sequence[ColumnPlan], of: Any = None) -> Any:
        if self._state.alone or self._state.dialect.one_writer:
            return statement
        touches_key = any(field in self._plan.keys for field in fields)
        weak = self._state.system == "postgresql" and self._verb != "delete" and not touches_key
        return statement.with_for_update(key_share=weak, of=of)

    def matching(
        self,
        condition: Condition,
        fields: Sequence[ColumnPlan],
        config: CaptureSection,
        *,
        compared: bool = True,
    ) -> Found | None:
        """Return the rows that a condition finds, or as much of them as may be recorded; ``None``: count.

        Args:
            compared: their values are compared with others, not only recorded.
        """
        return self.attempt(lambda: self._matching(condition, fields, config, compared=compared))

    def _matching(
        self, condition: Condition, fields: Sequence[ColumnPlan], config: CaptureSection, *, compared: bool
    ) -> Found | None:
        self.lock_writer()
        keys = [condition.column(field) for field in self._plan.keys]
        if self._size(condition, fields) > config.max_bulk_bytes:
            return self._only_keys(condition, keys, config)
        made = condition.made
        columns = [*keys, *(condition.column(field) for field in fields), *made.values()]
        statement = self._where(condition, columns, fields).limit(config.max_bulk_rows + 1)
        forms: dict[int, str] = {}
        if not compared:
            dialect = self._outer.dialect
            for place, field in enumerate(fields, len(keys)):
                if field.column not in self._plan.naming and (form := field.number_format(dialect)):
                    forms[place] = form
        read = self._distinct(condition, statement, forms)
        if read and len(read[0]) > config.max_bulk_rows:
            return self._only_keys(condition, keys, config)
        return Found(frozen([*self._plan.keys, *fields, *made], read, forms), "full", list(made), forms)

    def _only_keys(self, condition: Condition, keys: list[Any], config: CaptureSection) -> Found | None:
        statement = self._where(condition, keys, []).limit(config.max_bulk_ids + 1)
        read = self._distinct(condition, statement)
        if read and len(read[0]) > config.max_bulk_ids:
            return None
        return Found(read, "ids")

    def _where(self, condition: Condition, columns: list[Any], fields: Sequence[ColumnPlan]) -> Any:
        table = condition.source
        statement = select(*columns).select_from(table)
        # Not by where(): the ORM would take the statement for one of its own.
        statement._where_criteria = tuple(condition.where)
        joins = any(other is not table for other in _tables(condition.where))
        of = table if joins and self._state.system == "postgresql" else None
        statement = self._locking(statement, fields, of)
        if self._state.dialect.moves_rows:
            statement = statement.order_by(*columns[: len(self._plan.keys)])
        return statement

    def _is_alone(self, condition: Condition) -> bool:
        """Say whether a condition is about one table, whose rows have a key of their own."""
        table, keys = self._plan.sql_table, self._plan.keys
        if len(table.primary_key) != len(keys) or not all(field.column.primary_key for field in keys):
            return False
        named = _tables([*condition.where, *condition.made.values()])
        return all(unannotated(each) is condition.source for each in named)

    def _size(self, condition: Condition, fields: Sequence[ColumnPlan]) -> int:
        lengths = [
            func.coalesce(func.sum(func.length(condition.column(field))), 0)
            for field in fields
            if field.large and _has_length(field)
        ]
        if not lengths:
            return 0
        statement = select(sum(lengths[1:], lengths[0])).select_from(condition.source)
        statement._where_criteria = tuple(condition.where)
        return int(self._connection.execute(statement, execution_options=self._options).scalar() or 0)

    def _distinct(
        self, condition: Condition, statement: Any, forms: dict[int, str] | None = None
    ) -> list[list[Any]]:
        """Return each row once, by column: a join finds it as often as it matches.

        Numbers that have one of ``forms`` may be left as the driver has them; of others, it is taken out.
        """
        result = self._connection.execute(statement, execution_options=self._options)
        if self._is_alone(condition):
            return read_columns(result, forms)
        if forms:
            forms.clear()
        width = len(self._plan.keys)
        found: dict[Any, Any] = {}
        kept = []
        for row in result.all():
            plain = tuple(row)
            try:
                if plain[:width] in found:
                    continue
                found[plain[:width]] = None
            except TypeError:  # a key that cannot be hashed
                pass
            kept.append(plain)
        return list(map(list, zip(*kept, strict=True)))


def _has_length(field: ColumnPlan) -> bool:
    from sqlalchemy import types

    return isinstance(field.column.type, types.String | types.LargeBinary)


def _tables(criteria: Iterable[Any]) -> Iterable[Any]:
    for each in criteria:
        yield from getattr(each, "_from_objects", ())
