"""DELETE and UPDATE that return what they did to their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from otel_audit.config.model import CaptureSection
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
from otel_audit.instrumentation.django.writes.sql.rows import (
    Converted,
    FetchedRows,
    Returned,
    columns_of,
    fetch,
)
from otel_audit.instrumentation.django.writes.sql.sizes import size_sql, stored_size_sql
from otel_audit.named_tuples import NamedTuple


class JoinedUpdate(NamedTuple):
    """One UPDATE that locks its rows, changes them and returns key, old and new values."""

    sql: str
    params: tuple[Any, ...]


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
    return _within_budget(compiler, plan, config, JoinedUpdate(returned, tuple(params)), plans)


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
    statement: JoinedUpdate,
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
    sql = (
        f"WITH __otel_audit_rows ({', '.join(names)}) AS ({statement.sql}), __otel_audit_size AS"
        f" (SELECT CASE WHEN (SELECT coalesce(sum({stored}), 0) {rows_sql}) > {most} THEN false"
        f" ELSE (SELECT coalesce(sum({sizes}), 0) {rows_sql}) <= {most} END AS within)"
        f" SELECT {shown}, within {rows_sql}, __otel_audit_size"
    )
    connection, width = compiler.connection, len(plan.keys)
    with connection.cursor() as cursor:
        cursor.execute(sql, statement.params)
        fetched, count, completeness = fetch(connection, cursor, config, range(width))
    if fetched is None:
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
    connection = compiler.connection
    with connection.cursor() as cursor:
        cursor.execute(statement.sql, statement.params)
        fetched, count, completeness = fetch(connection, cursor, config, range(len(plan.keys)))
    if fetched is None:
        return Returned(None, count, "count")
    plans = list(plan.keys) if completeness == "ids" else [*plan.keys, *old, *new]
    return Returned(FetchedRows(plans, fetched, Converted(compiler, plan, plans)), count, completeness)
