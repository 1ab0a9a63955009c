"""Our own SQL: what is asked of the database for old values, and how each database is asked.

PostgreSQL gives old and new values in one rewritten UPDATE; SQLite and MariaDB need a SELECT that holds the
rows (or SQLite's write lock) before it. DELETE and INSERT return their rows on all three. A plain SELECT
before would be wrong under load, and on SQLite would make the UPDATE fail with "database is locked".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from otel_audit.capture.bulk import ReturnedRows
from otel_audit.config.model import CaptureSection
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
from otel_audit.interruptions import faults
from otel_audit.record import Completeness

_CHUNK: Final = 2000
_KEYS_PER_QUERY: Final = 400


class Abilities(NamedTuple):
    """What one table lets us ask: rows back from DELETE and INSERT, UPDATE with a locked join, SELECT."""

    returning: bool
    joined_update: bool
    select: bool


class Tables:
    """The abilities of every table, asked once, through the driver, by statements that cannot fail."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Abilities] = {}
        self._key_selects: dict[tuple[Any, ...], str] = {}

    def known(self, alias: str, table: str) -> Abilities | None:
        """Give the abilities of ``table`` if it was asked for them."""
        return self._known.get((alias, table))

    def ask(self, connection: Any, table: str) -> Abilities:
        """Ask ``table`` for its abilities; the connection is open."""
        try:
            known = self._known[connection.alias, table] = _ask(connection, table)
        except faults():  # an aborted transaction, a foreign driver: ask again next time
            return Abilities(False, False, False)
        return known

    def forbid(self, connection: Any, table: str) -> None:
        """Remember that the application's role may not read ``table``."""
        self._known[connection.alias, table] = Abilities(False, False, False)

    def select_row(
        self, compiler: Any, plan: ModelPlan, key: Any, columns: Sequence[ModelFieldPlan], *, lock: bool
    ) -> dict[ModelFieldPlan, Any] | None:
        """Read columns of one row by its key, ``None`` if it is not there; ``lock`` holds it."""
        connection = compiler.connection
        cached = (connection.alias, plan.table, tuple(column.column for column in columns), lock)
        sql = self._key_selects.get(cached)
        if sql is None:
            sql = self._key_selects[cached] = _key_select(compiler, plan, columns, lock=lock)
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
        values = converted(compiler, columns)([row])
        return dict(zip(columns, next(iter(values)), strict=True))


def _ask(connection: Any, table: str) -> Abilities:
    driver, vendor = connection.connection, connection.vendor
    if vendor == "postgresql":
        with driver.cursor() as cursor:
            cursor.execute(
                "SELECT c.relkind::text, has_table_privilege(c.oid, 'SELECT') FROM pg_catalog.pg_class c"
                " WHERE c.oid = to_regclass(%s)",
                [connection.ops.quote_name(table)],
            )
            kind, may_read = cursor.fetchone() or ("", False)
        plain = bool(may_read) and kind in ("r", "p")
        return Abilities(plain, plain, bool(may_read))
    if vendor == "sqlite":
        found = driver.execute(
            "SELECT sql FROM sqlite_master WHERE name = ? AND type = 'table'", [table]
        ).fetchone()
        plain = found is not None and not str(found[0]).upper().startswith("CREATE VIRTUAL")
        return Abilities(
            plain and connection.features.can_return_rows_from_bulk_insert, joined_update=False, select=True
        )
    if vendor == "mysql" and connection.mysql_is_mariadb:
        return Abilities(connection.mysql_version >= (10, 5), joined_update=False, select=True)
    return Abilities(returning=False, joined_update=False, select=True)


def _key_select(compiler: Any, plan: ModelPlan, columns: Sequence[ModelFieldPlan], *, lock: bool) -> str:
    connection = compiler.connection
    quote = connection.ops.quote_name
    selected = ", ".join(
        column.field.select_format(compiler, quote(column.column), ())[0] for column in columns
    )
    where = " AND ".join(f"{quote(column.column)} = %s" for column in plan.keys)
    suffix = ""
    if lock and connection.features.has_select_for_update:
        no_key = connection.features.has_select_for_no_key_update
        suffix = " " + connection.ops.for_update_sql(no_key=no_key)
    return f"SELECT {selected} FROM {quote(plan.table)} WHERE {where}{suffix}"


def converted(compiler: Any, plans: Sequence[ModelFieldPlan]) -> Callable[[list[Any]], Iterable[Any]]:
    """Give a function from driver rows of these columns to rows of Python's values."""
    table = plans[0].field.model._meta.db_table
    converters = compiler.get_converters([plan.field.get_col(table) for plan in plans])
    if not converters:
        return lambda rows: rows
    return lambda rows: compiler.apply_converters(rows, converters)


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


def columns_of(cursor: Any, plan: ModelPlan) -> tuple[list[ModelFieldPlan], list[int]]:
    """Match the columns a cursor returns to the model's, keys first: (plans, positions).

    The table may have columns the model does not know, or not yet all it knows.
    """
    positions = {column[0]: position for position, column in enumerate(cursor.description)}
    plans = [*plan.keys, *(field for field in plan.fields if field not in plan.keys)]
    found = [field for field in plans if field.column in positions]
    return found, [positions[field.column] for field in found]


def delete_returning(
    compiler: Any, plan: ModelPlan, config: CaptureSection, sql: str, params: Any
) -> Returned:
    """Run a compiled single-table DELETE and return the rows it deleted."""
    connection = compiler.connection
    with connection.cursor() as cursor:
        cursor.execute(f"{sql} RETURNING *", params)
        if cursor.description is None:
            return Returned(None, max(cursor.rowcount, 0), "count")
        plans, positions = columns_of(cursor, plan)
        rows, count, completeness = fetch(_Picked(cursor, positions), config, len(plan.keys))
    if rows is None or plans[: len(plan.keys)] != plan.keys:
        return Returned(None, count, "count")
    if completeness == "ids":
        plans = plans[: len(plan.keys)]
    return Returned(ReturnedRows(plans, rows, converted(compiler, plans)), count, completeness)


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
    return JoinedUpdate(
        f"{sql[: len(sql) - len(tail)]} FROM (SELECT {', '.join(inner)} FROM {table}{condition} {lock})"
        f" __otel_audit WHERE {join} RETURNING {', '.join(returned)}",
        tuple(params),
    )


def update_returning(
    compiler: Any,
    plan: ModelPlan,
    config: CaptureSection,
    statement: JoinedUpdate,
    old: Sequence[ModelFieldPlan],
    new: Sequence[ModelFieldPlan],
) -> Returned:
    """Run a rewritten UPDATE and return key, old and new values of its rows."""
    with compiler.connection.cursor() as cursor:
        cursor.execute(statement.sql, statement.params)
        rows, count, completeness = fetch(cursor, config, len(plan.keys))
    if rows is None:
        return Returned(None, count, "count")
    plans = list(plan.keys) if completeness == "ids" else [*plan.keys, *old, *new]
    return Returned(ReturnedRows(plans, rows, converted(compiler, plans)), count, completeness)


def take_write_lock(connection: Any, table: str, *, visibly: bool = True) -> None:
    """Take SQLite's write lock before reading: a read snapshot could not be upgraded afterwards.

    Statements of ours are seen by whoever watches queries, unless they come once a process (``visibly``).
    """
    if connection.settings_dict.get("OPTIONS", {}).get("transaction_mode") in ("IMMEDIATE", "EXCLUSIVE"):
        return
    sql = f"DELETE FROM {connection.ops.quote_name(table)} WHERE 0"
    if visibly:
        with connection.cursor() as cursor:
            cursor.execute(sql)
        return
    with connection.wrap_database_errors:
        connection.connection.execute(sql).close()


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
    steps: tuple[tuple[list[ModelFieldPlan], int, Completeness], ...] = (
        ([*plan.keys, *columns], config.max_bulk_rows, "full"),
        (list(plan.keys), config.max_bulk_ids, "ids"),
    )
    for plans, limit, completeness in steps:
        limited = query.clone()
        limited.set_limits(high=limit + 1)
        rows = _select(limited, plans, connection)
        if len(rows) <= limit:
            return Returned(ReturnedRows(plans, rows, converted(compiler, plans)), len(rows), completeness)
    return Returned(None, 0, "count")


def _select(query: Any, plans: Sequence[ModelFieldPlan], connection: Any) -> list[Any]:
    from django.core.exceptions import EmptyResultSet

    alias = query.get_initial_alias()
    query.select = tuple(plan.field.get_col(alias) for plan in plans)
    query.select_for_update = connection.features.has_select_for_update and not connection.get_autocommit()
    query.select_for_no_key_update = connection.features.has_select_for_no_key_update
    # Not by execute_sql: nobody reads these rows but the trail.
    try:
        sql, params = query.get_compiler(connection=connection).as_sql()
    except EmptyResultSet:
        return []
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return [tuple(row[: len(plans)]) for row in cursor.fetchall()]


def select_rows(
    compiler: Any, plan: ModelPlan, condition: Any, columns: Sequence[ModelFieldPlan]
) -> list[tuple[Any, ...]]:
    """Read key columns and ``columns`` of the rows matching a ``Q``, locked where the database locks rows."""
    from django.db.models.sql.query import Query

    query = Query(plan.model)
    query.default_cols = False
    query.add_q(condition)
    plans = [*plan.keys, *columns]
    raw = _select(query, plans, compiler.connection)
    return [tuple(row) for row in converted(compiler, plans)(raw)] if raw else []


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
