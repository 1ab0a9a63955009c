"""Our own SQL: what is asked of the database for old values, and how each database is asked.

PostgreSQL gives old and new values in one rewritten UPDATE; SQLite and MariaDB need a SELECT that holds the
rows (or SQLite's write lock) before it. DELETE and INSERT return their rows on all three. A plain SELECT
before would be wrong under load, and on SQLite would make the UPDATE fail with "database is locked".
"""

from __future__ import annotations

import math
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from django.conf import settings

from otel_audit.audit_record import Completeness
from otel_audit.capture import abilities
from otel_audit.capture.abilities import Abilities, Answer
from otel_audit.capture.bulk import ReturnedRows
from otel_audit.capture.dbapi import dialect, refuses
from otel_audit.capture.plan import Verb
from otel_audit.config.model import CaptureSection
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
from otel_audit.instrumentation.django.stored import read_at_once
from otel_audit.instrumentation.django.writes.sizes import Capped, size_sql, size_template, stored_size_sql
from otel_audit.interruptions import faults

_CHUNK: Final = 2000
_KEYS_PER_QUERY: Final = 400
_MAX_SELECTS: Final = 4096
_MAX_FOUND: Final = 64
_ASK_AGAIN: Final = 60.0
"""Seconds until a table that is not an ordinary one is asked again what it is."""


class Tables:
    """The abilities of every table, asked once, through the driver, by statements that cannot fail."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[ModelPlan, dict[str, tuple[Answer, float]]] = (
            weakref.WeakKeyDictionary()
        )
        self._key_selects: dict[tuple[Any, ...], str] = {}

    def known(self, alias: str, plan: ModelPlan, verb: Verb) -> Abilities | None:
        """Return what the table of ``plan`` lets us ask around ``verb``, if it was asked for it."""
        answers = self._known.get(plan)
        kept = None if answers is None else answers.get(alias)
        if kept is None:
            return None
        answer, until = kept
        return answer.verbs[verb] if until == math.inf or time.monotonic() < until else None

    def ask(self, connection: Any, plan: ModelPlan, verb: Verb) -> Abilities:
        """Ask the table of ``plan``; the connection is open. What may change at any moment is not kept."""
        try:
            answer = _ask(connection, plan)
        except faults():  # an aborted transaction, a foreign driver: ask again next time
            return Abilities()
        if answer.lasting:
            # Another process may change the table; of an ordinary one, a refusal tells.
            until = math.inf if answer.plain else time.monotonic() + _ASK_AGAIN
            self._known.setdefault(plan, {})[connection.alias] = answer, until
        return answer.verbs[verb]

    def forget(self, plan: ModelPlan | None = None) -> None:
        """Forget what is known of the table of ``plan``, or of all: it has changed, or may have."""
        if plan is None:
            self._known.clear()
        else:
            self._known.pop(plan, None)

    def select_row(
        self,
        compiler: Any,
        plan: ModelPlan,
        key: Any,
        columns: Sequence[ModelFieldPlan],
        *,
        lock: bool = False,
        most: int = 0,
    ) -> dict[ModelFieldPlan, Any] | None:
        """Read columns of one row by its key, ``None`` if it is not there.

        ``lock`` holds the row. Values of more than ``most`` bytes, unless it is 0, are left out.
        """
        connection = compiler.connection
        cached = (connection.alias, plan.table, tuple(column.column for column in columns), lock, most)
        sql = self._key_selects.get(cached)
        if sql is None:
            if len(self._key_selects) >= _MAX_SELECTS:
                self._key_selects.clear()
            sql = self._key_selects[cached] = _key_select(compiler, plan, columns, lock=lock, most=most)
        parts = (key,) if len(plan.keys) == 1 else key
        params = [
            column.field.get_db_prep_value(part, connection, prepared=False)
            for column, part in zip(plan.keys, parts, strict=True)
        ]
        with connection.cursor() as cursor:
            cursor.execute(sql, params)
            row = cursor.fetchone()
        if row is None:
            return None
        width = len(columns)
        values = dict(
            zip(columns, next(iter(Converted(compiler, plan, columns).rows([row[:width]]))), strict=True)
        )
        large = [column for column in columns if column.large]
        for column, size in zip(large, row[width:], strict=False):
            if size > most:
                del values[column]
        return values


def _ask(connection: Any, plan: ModelPlan) -> Answer:
    driver, system = connection.connection, connection.vendor
    version: tuple[int, ...] = ()
    if system == "sqlite":
        version = sqlite3.sqlite_version_info
    elif system == "mysql" and connection.mysql_is_mariadb:
        system, version = "mariadb", connection.mysql_version

    def query(sql: str, params: Sequence[Any]) -> list[Any]:
        cursor = driver.cursor()
        try:
            cursor.execute(sql, params)
            return list(cursor.fetchall())
        finally:
            cursor.close()

    table = abilities.Table(
        plan.table,
        connection.ops.quote_name(plan.table),
        [field.column for field in plan.fields],
        [field.column for field in plan.keys],
    )
    return abilities.ask(system, version, query, table)


def _key_select(
    compiler: Any, plan: ModelPlan, columns: Sequence[ModelFieldPlan], *, lock: bool, most: int
) -> str:
    connection = compiler.connection
    quote = connection.ops.quote_name
    if most:
        selected = ", ".join(Capped(compiler, columns, most).sql)
    else:
        selected = ", ".join(
            column.field.select_format(compiler, quote(column.column), ())[0] for column in columns
        )
    where = " AND ".join(f"{quote(column.column)} = %s" for column in plan.keys)
    suffix = ""
    if lock and connection.features.has_select_for_update:
        no_key = connection.features.has_select_for_no_key_update
        suffix = " " + connection.ops.for_update_sql(no_key=no_key)
    return f"SELECT {selected} FROM {quote(plan.table)} WHERE {where}{suffix}"


class Converted:
    """Django's converters of columns, for rows as Django applies them and for one column of many rows."""

    __slots__ = ("_compiler", "_converters")

    def __init__(self, compiler: Any, plan: ModelPlan, plans: Sequence[ModelFieldPlan]) -> None:
        self._compiler = compiler
        self._converters = _converters(compiler, plan, plans)

    def rows(self, rows: list[Any]) -> Iterable[Any]:
        """Convert driver rows of these columns to rows of Python's values."""
        return self._compiler.apply_converters(rows, self._converters) if self._converters else rows

    def column(self, position: int, values: list[Any]) -> list[Any]:
        """Convert the values of one column."""
        converters, expression = self._converters.get(position, ((), None))
        connection = self._compiler.connection
        for convert in converters:
            quick = read_at_once(convert, values, connection)
            values = [convert(value, expression, connection) for value in values] if quick is None else quick
        return values


class _Found:
    """What was found out of the columns of one table on one of Django's connections.

    Converters are methods of the connection's parts: others of its kind may convert into another time zone.
    They know the model as well, so that a plan keeps them, for each thread, which has its own connections:
    they go with the model, and with the thread.
    """

    __slots__ = ("columns", "connection", "converters")

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.converters: dict[tuple[Any, ...], Any] = {}
        self.columns: dict[tuple[Any, ...], tuple[list[ModelFieldPlan], list[int]]] = {}

    @staticmethod
    def on(connection: Any, plan: ModelPlan) -> _Found:
        here = plan.found.__dict__
        found: _Found | None = here.get(connection.alias)
        if found is None or found.connection is not connection or len(found.converters) > _MAX_FOUND:
            found = here[connection.alias] = _Found(connection)
        return found


def _converters(compiler: Any, plan: ModelPlan, plans: Sequence[ModelFieldPlan]) -> Any:
    """Return Django's converters of columns by position; looking for them costs more than most DELETEs."""
    known = _Found.on(compiler.connection, plan).converters
    key = (settings.USE_TZ, *plans)
    found = known.get(key)
    if found is None:
        table = plans[0].field.model._meta.db_table
        found = compiler.get_converters([column.field.get_col(table) for column in plans])
        if not any(column.chooses_converters for column in plans):
            known[key] = found
    return found


def fetch(cursor: Any, config: CaptureSection, width: int) -> tuple[list[Any] | None, int, Completeness]:
    """Read all rows, keeping whole rows, keys (``width`` first columns) or only their number.

    Returns (rows, count, completeness).
    """
    rows: list[Any] = []
    count = 0
    completeness: Completeness = "full"
    while chunk := cursor.fetchmany(_CHUNK):
        count += len(chunk)
        if completeness == "full" and count > config.max_bulk_rows:
            completeness = "ids"
            rows = [tuple(row[:width]) for row in rows]
        if completeness == "ids" and count > config.max_bulk_ids:
            completeness = "count"
            rows = []
        if completeness == "full":
            rows.extend(chunk)
        elif completeness == "ids":
            rows.extend(tuple(row[:width]) for row in chunk)
    return (None if completeness == "count" else rows), count, completeness


@dataclass(frozen=True, slots=True)
class Returned:
    """What a statement of ours gave back."""

    rows: ReturnedRows | None
    count: int
    completeness: Completeness


def columns_of(connection: Any, cursor: Any, plan: ModelPlan) -> tuple[list[ModelFieldPlan], list[int]]:
    """Match the columns a cursor returns to the model's, keys first: (plans, positions).

    The table may have columns the model does not know, or not yet all it knows. Some databases compare names
    without their case.
    """
    known = _Found.on(connection, plan).columns
    names = tuple([column[0] for column in cursor.description])
    found = known.get(names)
    if found is None:
        found = known[names] = _matched(plan, names, exact_names=dialect(connection.vendor).exact_names)
    return found


def _matched(
    plan: ModelPlan, columns: Sequence[str], *, exact_names: bool
) -> tuple[list[ModelFieldPlan], list[int]]:
    name: Callable[[str], str] = str if exact_names else str.lower
    positions = {name(column): position for position, column in enumerate(columns)}
    plans = [*plan.keys, *(field for field in plan.fields if field not in plan.keys)]
    found = [field for field in plans if name(field.column) in positions]
    return found, [positions[name(field.column)] for field in found]


def _delete_measured(
    compiler: Any, plan: ModelPlan, config: CaptureSection, sql: str, params: Any
) -> Returned:
    plans = [*plan.keys, *(field for field in plan.fields if field not in plan.keys)]
    quote = compiler.connection.ops.quote_name
    returned = f"{sql} RETURNING {', '.join(quote(field.column) for field in plans)}"
    return _within_budget(compiler, plan, config, JoinedUpdate(returned, tuple(params)), plans)


def _within_budget(
    compiler: Any,
    plan: ModelPlan,
    config: CaptureSection,
    statement: JoinedUpdate,
    plans: Sequence[ModelFieldPlan],
) -> Returned:
    """Run a statement that returns ``plans``' columns, keys first.

    Large values leave the server only where all of them together are within ``max_bulk_bytes``.
    """
    names = [f"c{i}" for i in range(len(plans))]
    large = {name: field for name, field in zip(names, plans, strict=True) if field.large}
    most = config.max_bulk_bytes
    stored = " + ".join(stored_size_sql(field, name) for name, field in large.items())
    sizes = " + ".join(size_sql(compiler.connection, field, name, most) for name, field in large.items())
    shown = ", ".join(f"CASE WHEN within THEN {name} END" if name in large else name for name in names)
    rows_sql = "FROM __otel_audit_rows"
    sql = (
        f"WITH __otel_audit_rows ({', '.join(names)}) AS ({statement.sql}), __otel_audit_size AS"
        f" (SELECT CASE WHEN (SELECT coalesce(sum({stored}), 0) {rows_sql}) > {most} THEN false"
        f" ELSE (SELECT coalesce(sum({sizes}), 0) {rows_sql}) <= {most} END AS within)"
        f" SELECT {shown}, within {rows_sql}, __otel_audit_size"
    )
    with compiler.connection.cursor() as cursor:
        cursor.execute(sql, statement.params)
        rows, count, completeness = fetch(cursor, config, len(plan.keys))
    if rows is None:
        return Returned(None, count, "count")
    width = len(plans)
    if completeness == "full" and rows and not rows[0][width]:
        completeness = "ids"
    if completeness == "ids":
        width = len(plan.keys)
    kept = list(plans[:width])
    return Returned(
        ReturnedRows(kept, [row[:width] for row in rows], Converted(compiler, plan, kept)),
        count,
        completeness,
    )


def _delete_by_keys(
    compiler: Any, plan: ModelPlan, config: CaptureSection, sql: str, params: Any
) -> Returned:
    """Run a DELETE of which only the keys are wanted."""
    quote = compiler.connection.ops.quote_name
    with compiler.connection.cursor() as cursor:
        cursor.execute(f"{sql} RETURNING {', '.join(quote(field.column) for field in plan.keys)}", params)
        rows, count, completeness = fetch(cursor, config, len(plan.keys))
    if rows is None:
        return Returned(None, count, "count")
    return Returned(
        ReturnedRows(plan.keys, rows, Converted(compiler, plan, plan.keys)),
        count,
        "ids" if rows else completeness,
    )


def names_one_row(query: Any) -> bool:
    """Say whether the condition of a statement is one key: its row is no more than the application knows."""
    where = query.where
    if len(where.children) != 1 or where.negated:
        return False
    condition = where.children[0]
    target = getattr(getattr(condition, "lhs", None), "target", None)
    if target is None or not target.primary_key:
        return False
    kind = condition.lookup_name
    return kind == "exact" or (
        kind == "in" and isinstance(condition.rhs, list | tuple | set | frozenset) and len(condition.rhs) == 1
    )


def are_too_large(
    query: Any, columns: Sequence[ModelFieldPlan], compiler: Any, config: CaptureSection
) -> bool:
    """Measure, in the database, the values of a :func:`matching_query` against ``max_bulk_bytes``."""
    large = [field for field in columns if field.large]
    if not large or names_one_row(query):
        return False
    limited = query.clone()
    limited.set_limits(high=config.max_bulk_rows + 1)
    return _size(limited, large, compiler.connection, config.max_bulk_bytes) > config.max_bulk_bytes


def _size(query: Any, columns: Sequence[ModelFieldPlan], connection: Any, most: int) -> int:
    """Return the bytes of columns of the rows of a query, locked as they are when they are read."""
    from django.db.models import Func, IntegerField

    alias = query.get_initial_alias()
    sizes: tuple[Any, ...] = tuple(
        Func(
            field.field.get_col(alias),
            template=size_template(connection, field, most),
            output_field=IntegerField(),
        )
        for field in columns
    )
    return sum(size or 0 for row in _select(query, sizes, connection) for size in row)


def delete_returning(
    compiler: Any,
    plan: ModelPlan,
    config: CaptureSection,
    sql: str,
    params: Any,
    *,
    measured: bool = False,
    by_keys: bool = False,
) -> Returned:
    """Run a compiled single-table DELETE and return the rows it deleted.

    ``measured``: whole rows only where they are within ``max_bulk_bytes``. ``by_keys``: no more than keys.
    """
    if by_keys:
        return _delete_by_keys(compiler, plan, config, sql, params)
    connection = compiler.connection
    if measured:
        return _delete_measured(compiler, plan, config, sql, params)
    with connection.cursor() as cursor:
        cursor.execute(f"{sql} RETURNING *", params)
        if cursor.description is None:
            return Returned(None, max(cursor.rowcount, 0), "count")
        plans, positions = columns_of(connection, cursor, plan)
        rows, count, completeness = fetch(_Picked(cursor, positions), config, len(plan.keys))
    if rows is None or plans[: len(plan.keys)] != plan.keys:
        return Returned(None, count, "count")
    if completeness == "ids":
        plans = plans[: len(plan.keys)]
    return Returned(ReturnedRows(plans, rows, Converted(compiler, plan, plans)), count, completeness)


class _Picked:
    """A cursor that gives the wanted columns in the wanted order."""

    def __init__(self, cursor: Any, positions: list[int]) -> None:
        self._cursor = cursor
        self._positions = positions

    def fetchmany(self, size: int) -> list[Any]:
        positions = self._positions
        return [tuple([row[i] for i in positions]) for row in self._cursor.fetchmany(size)]


class JoinedUpdate(NamedTuple):
    """One UPDATE that locks its rows, changes them and returns key, old and new values."""

    sql: str
    params: tuple[Any, ...]


def joined_update(
    compiler: Any,
    plan: ModelPlan,
    old: Sequence[ModelFieldPlan],
    new: Sequence[ModelFieldPlan],
    sql: str,
    params: Sequence[Any],
) -> JoinedUpdate | None:
    """Rewrite a compiled UPDATE for PostgreSQL; ``None`` where its text is not what Django writes."""
    from django.core.exceptions import FullResultSet

    quote = compiler.connection.ops.quote_name
    table = quote(plan.table)
    try:
        where, where_params = compiler.compile(compiler.query.where)
    except FullResultSet:
        tail, condition, where_params = "", "", []
    else:
        tail = condition = f" WHERE {where}"
    if not sql.endswith(tail) or not sql.startswith(f"UPDATE {table} SET "):
        return None
    count = len(params) - len(where_params)
    if list(params[count:]) != list(where_params):
        return None
    inner = [f"{table}.{quote(column.column)} AS __otel_audit_k{i}" for i, column in enumerate(plan.keys)]
    inner += [f"{table}.{quote(column.column)} AS __otel_audit_o{i}" for i, column in enumerate(old)]
    touches_key = any(column.field.unique or column.field.primary_key for column in old)
    lock = "FOR UPDATE" if touches_key else "FOR NO KEY UPDATE"
    join = " AND ".join(
        f"{table}.{quote(column.column)} = __otel_audit.__otel_audit_k{i}"
        for i, column in enumerate(plan.keys)
    )
    returned = ["__otel_audit.*", *(f"{table}.{quote(column.column)}" for column in new)]
    # In one order: two statements that lock rows as they lie can wait for each other.
    order = ", ".join(f"{table}.{quote(column.column)}" for column in plan.keys)
    return JoinedUpdate(
        f"{sql[: len(sql) - len(tail)]} FROM (SELECT {', '.join(inner)} FROM {table}{condition}"
        f" ORDER BY {order} {lock}) __otel_audit WHERE {join} RETURNING {', '.join(returned)}",
        tuple(params),
    )


def update_returning(
    compiler: Any,
    plan: ModelPlan,
    config: CaptureSection,
    statement: JoinedUpdate,
    old: Sequence[ModelFieldPlan],
    new: Sequence[ModelFieldPlan],
    *,
    measured: bool = False,
) -> Returned:
    """Run a rewritten UPDATE and return key, old and new values of its rows.

    ``measured``: values only where all of them are within ``max_bulk_bytes``.
    """
    if measured:
        return _within_budget(compiler, plan, config, statement, [*plan.keys, *old, *new])
    with compiler.connection.cursor() as cursor:
        cursor.execute(statement.sql, statement.params)
        rows, count, completeness = fetch(cursor, config, len(plan.keys))
    if rows is None:
        return Returned(None, count, "count")
    plans = list(plan.keys) if completeness == "ids" else [*plan.keys, *old, *new]
    return Returned(ReturnedRows(plans, rows, Converted(compiler, plan, plans)), count, completeness)


def reads_its_rows(compiler: Any, plan: ModelPlan) -> bool:
    """Say whether a statement has a condition on columns of its own table."""
    from django.core.exceptions import EmptyResultSet, FullResultSet

    try:
        where, _ = compiler.compile(compiler.query.where)
    except FullResultSet:
        return False
    except EmptyResultSet:
        return True
    return f"{compiler.connection.ops.quote_name(plan.table)}." in where


def take_write_lock(connection: Any, table: str, verb: Verb, column: str, *, visibly: bool = True) -> bool:
    """Take SQLite's write lock before reading: a read snapshot could not be upgraded afterwards.

    By a statement of the same verb on the same column, so that it is refused only where the application's
    would be: a view may have an INSTEAD OF trigger for one verb only, a foreign key may not fit for one.
    Statements of ours are seen by whoever watches queries, unless they come once a process (``visibly``).

    Returns:
        Whether it is held. SQLite may refuse ours and run the application's all the same: an UPDATE with
        RETURNING of a view without a trigger for it.
    """
    from django.db import Error

    if connection.settings_dict.get("OPTIONS", {}).get("transaction_mode") in ("IMMEDIATE", "EXCLUSIVE"):
        return True
    table, column = connection.ops.quote_name(table), connection.ops.quote_name(column)
    sql = {
        "create": f"INSERT INTO {table} ({column}) SELECT NULL WHERE 0",
        "update": f"UPDATE {table} SET {column} = {column} WHERE 0",
        "delete": f"DELETE FROM {table} WHERE 0",
    }[verb]
    try:
        if visibly:
            with connection.cursor() as cursor:
                cursor.execute(sql)
        else:
            with connection.wrap_database_errors:
                connection.connection.execute(sql).close()
    except Error as error:
        if not refuses(connection.vendor, error):
            raise
        return False
    return True


def matching_query(query: Any, plan: ModelPlan) -> Any:
    """Make a locking SELECT of key columns for the rows an UPDATE or DELETE is about to touch.

    Call it before the statement is compiled: that replaces the conditions of a joined update. The caller
    sets ``select``.
    """
    from django.db.models import Q
    from django.db.models.sql.query import Query

    inner = query.chain(klass=Query)
    inner.get_initial_alias()
    inner.select_related = False
    inner.clear_ordering(force=True)
    inner.extra = {}
    inner.select = ()
    inner.default_cols = False
    simple = inner.count_active_tables() == 1 and not (
        inner.distinct or inner.group_by or inner.is_sliced or inner.combinator
    )
    if not simple:
        inner.add_fields([column.field.name for column in plan.keys])
        outer = Query(plan.model)
        outer.default_cols = False
        outer.add_q(Q(pk__in=inner))
        inner = outer
    else:
        inner.set_annotation_mask(())
    return inner


def select_matching(
    query: Any, plan: ModelPlan, columns: Sequence[ModelFieldPlan], compiler: Any, config: CaptureSection
) -> Returned:
    """Run a :func:`matching_query`: key columns and ``columns`` of its rows, locked where the database locks.

    Reads no more rows than may be recorded; where there are more, reads keys only, or nothing (``count`` 0).
    """
    connection = compiler.connection
    measured = are_too_large(query, columns, compiler, config)
    steps: tuple[tuple[list[ModelFieldPlan], int, Completeness], ...] = (
        ([*plan.keys, *columns], config.max_bulk_rows, "full"),
        (list(plan.keys), config.max_bulk_ids, "ids"),
    )
    for plans, limit, completeness in steps[1:] if measured else steps:
        limited = query.clone()
        limited.set_limits(high=limit + 1)
        rows = _select_fields(limited, plans, connection)
        if len(rows) <= limit:
            return Returned(
                ReturnedRows(plans, rows, Converted(compiler, plan, plans)), len(rows), completeness
            )
    return Returned(None, 0, "count")


def _select_fields(query: Any, plans: Sequence[ModelFieldPlan], connection: Any) -> list[Any]:
    alias = query.get_initial_alias()
    return _select(query, tuple(plan.field.get_col(alias) for plan in plans), connection)


def _select(query: Any, columns: tuple[Any, ...], connection: Any) -> list[Any]:
    """Run a query of these expressions, locked where the database locks rows."""
    from django.core.exceptions import EmptyResultSet

    query.get_initial_alias()
    query.select = columns
    query.select_for_update = connection.features.has_select_for_update and not connection.get_autocommit()
    query.select_for_no_key_update = connection.features.has_select_for_no_key_update
    if query.select_for_update and dialect(connection.vendor).moves_rows:
        query.clear_ordering(force=True)
        query.add_ordering("pk")
    # Not by execute_sql: nobody reads these rows but the trail.
    try:
        sql, params = query.get_compiler(connection=connection).as_sql()
    except EmptyResultSet:
        return []
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return [tuple(row[: len(columns)]) for row in cursor.fetchall()]


def select_rows(
    compiler: Any, plan: ModelPlan, condition: Any, columns: Sequence[ModelFieldPlan]
) -> list[tuple[Any, ...]]:
    """Read key columns and ``columns`` of the rows matching a ``Q``, locked where the database locks rows."""
    query = _query(plan, condition)
    plans = [*plan.keys, *columns]
    raw = _select_fields(query, plans, compiler.connection)
    return [tuple(row) for row in Converted(compiler, plan, plans).rows(raw)] if raw else []


def size_of_rows(
    compiler: Any, plan: ModelPlan, condition: Any, columns: Sequence[ModelFieldPlan], most: int
) -> int:
    """Measure, in the database, ``columns`` of the rows matching a ``Q``; an estimate above ``most``."""
    large = [field for field in columns if field.large]
    return _size(_query(plan, condition), large, compiler.connection, most) if large else 0


def _query(plan: ModelPlan, condition: Any) -> Any:
    from django.db.models.sql.query import Query

    query = Query(plan.model)
    query.default_cols = False
    query.add_q(condition)
    return query


def size_by_keys(
    compiler: Any, plan: ModelPlan, keys: Sequence[Any], columns: Sequence[ModelFieldPlan], most: int
) -> int:
    """Measure, in the database, columns of many rows by key, until they are more than ``most`` bytes."""
    from django.db.models import Q

    size = 0
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        some = Q(pk__in=list(keys[start : start + _KEYS_PER_QUERY]))
        size += size_of_rows(compiler, plan, some, columns, most)
        if size > most:
            break
    return size


def select_by_keys(
    compiler: Any, plan: ModelPlan, keys: Sequence[Any], columns: Sequence[ModelFieldPlan]
) -> dict[Any, tuple[Any, ...]]:
    """Read columns of many rows by key: key (as Python's value) to values."""
    from django.db.models import Q

    width = len(plan.keys)
    found: dict[Any, tuple[Any, ...]] = {}
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        some = Q(pk__in=list(keys[start : start + _KEYS_PER_QUERY]))
        rows = select_rows(compiler, plan, some, columns)
        found.update(zip(plan.keys_in(rows), (row[width:] for row in rows), strict=True))
    return found
