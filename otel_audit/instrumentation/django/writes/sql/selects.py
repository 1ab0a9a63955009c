"""Rows read and measured beside a statement: those it will touch, before it, and those it wrote, by key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from otel_audit.audit_record import Completeness
from otel_audit.capture.bulk import ReturnedRows
from otel_audit.capture.databases.dbapi import dialect, refuses, write_lock
from otel_audit.capture.plan import Verb
from otel_audit.config.model import CaptureSection
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
from otel_audit.instrumentation.django.writes.sql.rows import Converted, Returned
from otel_audit.instrumentation.django.writes.sql.sizes import size_template

_KEYS_PER_QUERY: Final = 400


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

    Statements of ours are seen by whoever watches queries, unless they come once a process (``visibly``).

    Returns:
        Whether it is held. SQLite may refuse ours and run the application's all the same: an UPDATE with
        RETURNING of a view without a trigger for it.
    """
    from django.db import Error

    if connection.settings_dict.get("OPTIONS", {}).get("transaction_mode") in ("IMMEDIATE", "EXCLUSIVE"):
        return True
    sql = write_lock(verb, connection.ops.quote_name(table), connection.ops.quote_name(column))
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


def select_rows(
    compiler: Any, plan: ModelPlan, condition: Any, columns: Sequence[ModelFieldPlan]
) -> list[tuple[Any, ...]]:
    """Read key columns and ``columns`` of the rows matching a ``Q``, locked where the database locks rows."""
    query = _query(plan, condition)
    plans = [*plan.keys, *columns]
    raw = _select_fields(query, plans, compiler.connection)
    return [tuple(row) for row in Converted(compiler, plan, plans).rows(raw)] if raw else []


def select_by_keys(
    compiler: Any, plan: ModelPlan, keys: Sequence[Any], columns: Sequence[ModelFieldPlan]
) -> dict[Any, tuple[Any, ...]]:
    """Read columns of many rows by key: key (as Python's value) to values."""
    width = len(plan.keys)
    found: dict[Any, tuple[Any, ...]] = {}
    for some in _some_at_a_time(keys):
        rows = select_rows(compiler, plan, some, columns)
        found.update(zip(plan.keys_in(rows), (row[width:] for row in rows), strict=True))
    return found


def select_related_to(
    compiler: Any,
    plan: ModelPlan,
    field: Any,
    values: Sequence[Any],
    columns: Sequence[ModelFieldPlan],
    config: CaptureSection,
) -> list[tuple[Any, ...]] | None:
    """Read key columns and ``columns`` of the rows whose ``field`` refers to one of ``values``, locked.

    None where they are more, or larger, than may be recorded.
    """
    from django.db.models import Q

    found: list[tuple[Any, ...]] = []
    for start in range(0, len(values), _KEYS_PER_QUERY):
        some = Q(**{f"{field.name}__in": list(values[start : start + _KEYS_PER_QUERY])})
        returned = select_matching(_query(plan, some), plan, columns, compiler, config)
        if returned.rows is None or (returned.completeness != "full" and columns):
            return None
        found += [tuple(row) for row in returned.rows.rows()]
        if len(found) > config.max_bulk_rows:
            return None
    return found


def size_of_rows(
    compiler: Any, plan: ModelPlan, condition: Any, columns: Sequence[ModelFieldPlan], most: int
) -> int:
    """Measure, in the database, ``columns`` of the rows matching a ``Q``; an estimate above ``most``."""
    large = [field for field in columns if field.large]
    return _size(_query(plan, condition), large, compiler.connection, most) if large else 0


def size_by_keys(
    compiler: Any, plan: ModelPlan, keys: Sequence[Any], columns: Sequence[ModelFieldPlan], most: int
) -> int:
    """Measure, in the database, columns of many rows by key, until they are more than ``most`` bytes."""
    size = 0
    for some in _some_at_a_time(keys):
        size += size_of_rows(compiler, plan, some, columns, most)
        if size > most:
            break
    return size


def _some_at_a_time(keys: Sequence[Any]) -> Iterator[Any]:
    """Yield conditions that together name all keys."""
    from django.db.models import Q

    for start in range(0, len(keys), _KEYS_PER_QUERY):
        yield Q(pk__in=list(keys[start : start + _KEYS_PER_QUERY]))


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
    if not connection.features.has_select_for_update:  # there is nothing to lock: no need of the rows
        return _sum(query, sizes, connection)
    return sum(size or 0 for row in _select(query, sizes, connection) for size in row)


def _sum(query: Any, columns: tuple[Any, ...], connection: Any) -> int:
    """Run a query for the sum of all its values."""
    from django.core.exceptions import EmptyResultSet

    query.select = columns
    try:
        sql, params = query.get_compiler(connection=connection).as_sql(with_col_aliases=True)
    except EmptyResultSet:
        return 0
    sums = " + ".join(f"coalesce(sum(col{number}), 0)" for number in range(1, len(columns) + 1))
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {sums} FROM ({sql}) __otel_audit_sizes", params)
        return int(cursor.fetchone()[0])


def _query(plan: ModelPlan, condition: Any) -> Any:
    from django.db.models.sql.query import Query

    query = Query(plan.model)
    query.default_cols = False
    query.add_q(condition)
    return query


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
        rows = list(cursor.fetchall())
    if rows and (len(rows[0]) > len(columns) or type(rows[0]) is not tuple):
        rows = [tuple(row[: len(columns)]) for row in rows]
    return rows
