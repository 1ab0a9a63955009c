"""DELETE and UPDATE that return what they did to their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from otel_audit.config.model import CaptureSection
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
from otel_audit.instrumentation.django.writes.sql.rows import (
    Converted,
    Fetched,
    FetchedRows,
    Returned,
    columns_of,
    fetch,
)
from otel_audit.instrumentation.django.writes.sql.sizes import size_sql, stored_size_sql
from otel_audit.named_tuples import NamedTuple


class RowsQuery(NamedTuple):
    """A statement that writes rows and returns them; ``before`` are the parts of its WITH, if it has one."""

    sql: str
    params: tuple[Any, ...]
    before: Sequence[str] = ()


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
        width = len(plan.keys)
        fetched, count, completeness = fetch(connection, cursor, config, positions[:width])
    if fetched is None or plans[:width] != plan.keys:
        return Returned(None, count, "count")
    if completeness == "ids":
        plans = plans[:width]
    else:
        fetched = fetched.at(positions)
    return Returned(FetchedRows(plans, fetched, Converted(compiler, plan, plans)), count, completeness)


def _delete_measured(
    compiler: Any, plan: ModelPlan, config: CaptureSection, sql: str, params: Any
) -> Returned:
    plans = [*plan.keys, *plan.others]
    quote = compiler.connection.ops.quote_name
    returned = f"{sql} RETURNING {', '.join(quote(field.column) for field in plans)}"
    return _within_budget(compiler, plan, config, RowsQuery(returned, tuple(params)), plans)


def _delete_by_keys(
    compiler: Any, plan: ModelPlan, config: CaptureSection, sql: str, params: Any
) -> Returned:
    """Run a DELETE of which only the keys are wanted."""
    connection = compiler.connection
    quote = connection.ops.quote_name
    with connection.cursor() as cursor:
        cursor.execute(f"{sql} RETURNING {', '.join(quote(field.column) for field in plan.keys)}", params)
        fetched, count, completeness = fetch(connection, cursor, config, range(len(plan.keys)))
    if fetched is None:
        return Returned(None, count, "count")
    return Returned(
        FetchedRows(plan.keys, fetched, Converted(compiler, plan, plan.keys)),
        count,
        "ids" if fetched.columns else completeness,
    )


def _within_budget(
    compiler: Any,
    plan: ModelPlan,
    config: CaptureSection,
    statement: RowsQuery,
    plans: Sequence[ModelFieldPlan],
) -> Returned:
    """Run a statement that returns ``plans``' columns, keys first.

    Large values leave the server only where all of them together are within ``max_bulk_bytes``.
    """
    names = [f"c{i}" for i in range(len(plans))]
    large = {name: field for name, field in zip(names, plans, strict=True) if field.large}
    most = config.max_bulk_bytes
    stored = " + ".join(map(stored_size_sql, large))
    sizes = " + ".join(size_sql(compiler.connection, field, name, most) for name, field in large.items())
    shown = ", ".join(f"CASE WHEN within THEN {name} END" if name in large else name for name in names)
    rows_sql = "FROM __otel_audit_rows"
    first = "".join(f"{part}, " for part in statement.before)
    sql = (
        f"WITH {first}__otel_audit_rows ({', '.join(names)}) AS ({statement.sql}), __otel_audit_size AS"
        f" (SELECT CASE WHEN (SELECT coalesce(sum({stored}), 0) {rows_sql}) > {most} THEN false"
        f" ELSE (SELECT coalesce(sum({sizes}), 0) {rows_sql}) <= {most} END AS within)"
        f" SELECT {shown}, within {rows_sql}, __otel_audit_size"
    )
    connection, width = compiler.connection, len(plan.keys)
    with connection.cursor() as cursor:
        cursor.execute(sql, statement.params)
        fetched, count, completeness = fetch(connection, cursor, config, range(width))
    if fetched is None or _found_anew(fetched):
        return Returned(None, count, "count")
    if completeness == "full" and fetched.columns and not fetched.columns[len(plans)][0]:
        completeness = "ids"
    kept = list(plans if completeness == "full" else plan.keys)
    return Returned(
        FetchedRows(kept, fetched.at(range(len(kept))), Converted(compiler, plan, kept)), count, completeness
    )


def joined_update(
    compiler: Any,
    plan: ModelPlan,
    old: Sequence[ModelFieldPlan],
    new: Sequence[ModelFieldPlan],
    sql: str,
    params: Sequence[Any],
) -> RowsQuery | None:
    """Join a compiled UPDATE on PostgreSQL to its rows as they were: one statement returns both.

    ``None`` where its text is not what Django writes, or it changes keys.

    The rows are found twice, by the application's condition both times, and joined by a FULL JOIN, which is
    never made by comparing each with each. A join to the table itself is, where the planner takes the table
    for empty: after it was analysed while it was.
    """
    from django.core.exceptions import FullResultSet

    if any(column in plan.keys for column in old):
        return None
    quote = compiler.connection.ops.quote_name
    table = quote(plan.table)
    try:
        where, where_params = compiler.compile(compiler.query.where)
    except FullResultSet:
        tail, condition, where_params = "", "", []
    else:
        tail, condition = f" WHERE {where}", f" WHERE ({where})"
    if not sql.endswith(tail) or not sql.startswith(f"UPDATE {table} SET "):
        return None
    if list(params[len(params) - len(where_params) :]) != list(where_params):
        return None

    def named(name: str, columns: Sequence[ModelFieldPlan]) -> list[str]:
        return [f"{table}.{quote(column.column)} AS {name}{i}" for i, column in enumerate(columns)]

    lock = "FOR UPDATE" if any(column.field.unique for column in old) else "FOR NO KEY UPDATE"
    # In one order: two statements that lock rows as they lie can wait for each other.
    order = ", ".join(f"{table}.{quote(column.column)}" for column in plan.keys)
    keys = [*named("k", plan.keys), *named("j", plan.keys)]
    was = f"SELECT {', '.join([*keys, *named('o', old)])} FROM {table}{condition} ORDER BY {order} {lock}"
    locked = f"{' AND' if condition else ' WHERE'} (SELECT count(*) FROM __otel_audit_was) >= 0"
    now = f"{sql[: len(sql) - len(tail)]}{condition}{locked} RETURNING {', '.join([*keys, *named('n', new)])}"
    both = [f"__otel_audit_was.k{i}" for i in range(len(plan.keys))]
    both += [f"__otel_audit_was.o{i}" for i in range(len(old))]
    both += [f"__otel_audit_now.n{i}" for i in range(len(new))]
    # By each key twice: of columns it has no statistics of, the planner takes a two hundredth to be the same,
    # and would compile a join of ten thousand rows, which takes longer than the statement.
    join = " AND ".join(
        f"__otel_audit_was.{name}{i} = __otel_audit_now.{name}{i}"
        for i in range(len(plan.keys))
        for name in "kj"
    )
    return RowsQuery(
        # A row that a trigger has left alone is none; said so that the planner still sees a FULL JOIN.
        f"SELECT {', '.join(both)} FROM __otel_audit_was FULL JOIN __otel_audit_now ON {join}"
        " WHERE CASE WHEN __otel_audit_now.k0 IS NULL THEN false ELSE true END",
        (*where_params, *params),
        (f"__otel_audit_was AS ({was})", f"__otel_audit_now AS ({now})"),
    )


def update_returning(
    compiler: Any,
    plan: ModelPlan,
    config: CaptureSection,
    statement: RowsQuery,
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
    connection = compiler.connection
    with connection.cursor() as cursor:
        cursor.execute(f"WITH {', '.join(statement.before)} {statement.sql}", statement.params)
        fetched, count, completeness = fetch(connection, cursor, config, range(len(plan.keys)))
    if fetched is None or _found_anew(fetched):
        return Returned(None, count, "count")
    plans = list(plan.keys) if completeness == "ids" else [*plan.keys, *old, *new]
    return Returned(FetchedRows(plans, fetched, Converted(compiler, plan, plans)), count, completeness)


def _found_anew(fetched: Fetched) -> bool:
    """Say whether a condition that gives another answer each time has found rows that were not read."""
    return bool(fetched.columns) and None in fetched.columns[0]
