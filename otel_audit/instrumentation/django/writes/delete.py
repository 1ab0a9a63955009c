"""DELETE: the statement returns the rows it deletes; where it cannot, they are read and locked before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import deletion

from otel_audit.capture.bulk import BulkWrite, ReturnedRows
from otel_audit.capture.plan import MAX_NAMED_KEYS, Verb
from otel_audit.capture.writes import CapturedWrite
from otel_audit.instrumentation.django.plan import ModelPlan
from otel_audit.instrumentation.django.writes.sql import (
    Returned,
    delete_returning,
    matching_query,
    select_matching,
)
from otel_audit.instrumentation.django.writes.state import Capture, CompiledStatement, in_transaction
from otel_audit.interruptions import faults

_FORBIDDEN = (1142, 1143)
"""MariaDB: the role may not SELECT from the table, or one of its columns."""


def delete(capture: Capture, plan: ModelPlan, compiler: Any, run: Callable[[], Any], result_type: Any) -> Any:
    """Run a DELETE compiler's statement and note the rows it deleted."""
    from django.core.exceptions import EmptyResultSet
    from django.db.models.sql.constants import NO_RESULTS, ROW_COUNT

    try:
        sql, params = compiler.as_sql()
    except EmptyResultSet:
        return run()
    connection = compiler.connection
    statement = CompiledStatement(capture, compiler, plan, "delete")
    abilities = capture.abilities(connection, plan)
    returns = (
        abilities.returning and sql.startswith("DELETE FROM ") and result_type in (ROW_COUNT, NO_RESULTS)
    )
    if plan.old_values == "off" or not abilities.select:
        count = statement.run(run)
        _note(capture, statement, Returned(None, count if type(count) is int else 0, "count"))
        return count
    if not returns:
        return in_transaction(capture, connection, lambda: _select_first(capture, plan, compiler, run))
    if statement.autocommit:
        # Keys and values are on disk before the commit: should this process die, `unknown` names the rows.
        return in_transaction(capture, connection, lambda: delete(capture, plan, compiler, run, result_type))
    try:
        returned = statement.run(lambda: delete_returning(compiler, plan, capture.config, sql, params))
    except faults() as error:
        if not _forbidden(connection, error):
            raise
        capture.tables.forbid(connection, plan.table)
        return delete(capture, plan, compiler, run, result_type)
    try:
        _note(capture, statement, returned)
    except faults() as error:
        statement.recover(error, returned.count)
    return returned.count if result_type == ROW_COUNT else None


def _select_first(capture: Capture, plan: ModelPlan, compiler: Any, run: Callable[[], Any]) -> Any:
    statement = CompiledStatement(capture, compiler, plan, "delete")
    statement.take_write_lock()
    others = [field for field in plan.fields if field not in plan.keys]
    matching = matching_query(compiler.query, plan)
    found = select_matching(matching, plan, others, compiler, capture.config)
    result = statement.run(run)
    try:
        count = result if type(result) is int else getattr(result, "rowcount", found.count)
        if found.rows is None:
            found = Returned(None, count, "count")
        _note(capture, statement, found, more=count - found.count)
    except faults() as error:
        statement.recover(error, result)
    return result


def _note(capture: Capture, statement: CompiledStatement, returned: Returned, more: int = 0) -> None:
    plan = statement.plan
    if not returned.count:
        statement.done()
        return
    rows = returned.rows
    statement.connection.wrote_many(plan, keys_of(plan, rows))
    old = rows.plans[len(plan.keys) :] if rows is not None else []
    write = BulkWrite(
        plan,
        "delete",
        statement.connection,
        returned.count,
        rows,
        old=old,
        completeness=returned.completeness,
        old_values="exact" if old else None,
    )
    extra: list[CapturedWrite] = [BulkWrite(plan, "delete", statement.connection, more)] if more > 0 else []
    statement.done(write, *extra, *left_to_the_database(capture, statement))


def left_to_the_database(capture: Capture, statement: CompiledStatement) -> list[CapturedWrite]:
    """Say which audited tables the database itself may have changed rows of (Django 6.1's ``DB_CASCADE``).

    No statement of the ORM tells which rows, or whether there were any.
    """
    on_delete: Any = getattr(deletion, "DatabaseOnDelete", None)
    if on_delete is None:
        return []
    found: dict[tuple[str, Verb], CapturedWrite] = {}
    waiting = [statement.plan]
    while waiting:
        plan = waiting.pop()
        for relation in plan.model._meta.related_objects:
            how: Any = relation.on_delete
            if not isinstance(how, on_delete):
                continue
            child = capture.plan(relation.related_model, statement.django.vendor)
            verb: Verb = "delete" if how.operation == "CASCADE" else "update"
            if (child.label, verb) in found or not child.audited:
                continue
            found[child.label, verb] = CapturedWrite(child, verb, statement.connection)
            statement.connection.wrote_many(child, None)
            if verb == "delete":
                waiting.append(child)
    return list(found.values())


def keys_of(plan: ModelPlan, rows: ReturnedRows | None) -> list[Any] | None:
    """Return the keys of rows to remember as lately written; ``None`` if they are not known or too many."""
    return None if rows is None or len(rows) > MAX_NAMED_KEYS else plan.keys_of(rows.rows())


def _forbidden(connection: Any, error: Exception) -> bool:
    return connection.vendor == "mysql" and bool(error.args) and error.args[0] in _FORBIDDEN
