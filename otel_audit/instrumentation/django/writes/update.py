"""UPDATE without an instance: old values come with the statement, or from a locking SELECT before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from otel_audit.capture.bulk import BulkWrite, ReturnedRows, limited
from otel_audit.capture.databases.abilities import Abilities
from otel_audit.capture.writes import CapturedWrite
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
from otel_audit.instrumentation.django.writes.delete import keys_of
from otel_audit.instrumentation.django.writes.save import save
from otel_audit.instrumentation.django.writes.sql.rows import Returned
from otel_audit.instrumentation.django.writes.sql.selects import (
    matching_query,
    names_one_row,
    reads_its_rows,
    select_by_keys,
    select_matching,
    size_by_keys,
)
from otel_audit.instrumentation.django.writes.state import (
    Capture,
    CompiledStatement,
    in_own_transaction,
    reraise_database_error,
    row_count,
)
from otel_audit.instrumentation.django.writes.update_statement import (
    Assignment,
    Update,
    assignment,
    run_joined,
)
from otel_audit.interruptions import faults


def update_rows(capture: Capture, update: Update) -> Any:
    """Run an UPDATE without instance and note the rows it changed."""
    plan, compiler = update.plan, update.compiler
    connection = compiler.connection
    assigned = assignment(plan, compiler)
    column = compiler.query.values[0][0].column
    abilities = capture.abilities(connection, plan, "update", column)
    if (
        plan.old_values == "off"
        or not (abilities.joined_update or abilities.select)
        or (abilities.needs_condition and not reads_its_rows(compiler, plan))
    ):
        return _update_counting(capture, update, assigned, abilities)
    if not connection.in_atomic_block and connection.get_autocommit():
        # Keys and values are on disk before the commit: should this process die, `unknown` names the rows.
        return in_own_transaction(
            capture,
            connection,
            lambda: update_rows(capture, update),
            lambda: _update_counting(
                capture, update, assigned, capture.abilities(connection, plan, "update", column)
            ),
        )
    if plan.snapshot:
        assigned = assigned.with_rest(plan)
    if abilities.joined_update:
        result = run_joined(
            capture,
            update,
            assigned,
            abilities,
            lambda statement: _intent(statement, assigned),
            lambda statement, returned, new: _note_rows(capture, statement, assigned, returned, new),
            measured=any(field.large for field in assigned.made)
            or (any(field.large for field in assigned.fields) and not names_one_row(compiler.query)),
        )
        if result is not NotImplemented:
            return result
    if not abilities.select:
        return _update_counting(capture, update, assigned, abilities)
    return in_own_transaction(
        capture,
        connection,
        lambda: _update_selecting(capture, update, assigned, abilities),
        lambda: _update_counting(
            capture, update, assigned, capture.abilities(connection, plan, "update", column)
        ),
    )


def _update_selecting(capture: Capture, update: Update, assigned: Assignment, abilities: Abilities) -> Any:
    plan, compiler = update.plan, update.compiler
    statement = CompiledStatement(capture, compiler, plan, "update")
    statement.take_write_lock(compiler.query.values[0][0].column)
    matching = matching_query(compiler.query, plan)
    found = statement.attempt(
        abilities, lambda: select_matching(matching, plan, assigned.fields, compiler, capture.config)
    )
    result = statement.run(update.run, lambda: _intent(statement, assigned))
    try:
        count = row_count("update", result)
        if found is None or found.rows is None or count is None or count < found.count:
            # Fewer than were there: a trigger or a policy left some alone, and nobody says which.
            _note_count(statement, assigned, abilities, count)
            return result
        most = capture.config.max_bulk_bytes
        returned, known = _with_new_values(compiler, plan, assigned, found, most)
        _note_rows(capture, statement, assigned, returned, known, more=count - returned.count)
    except faults() as error:
        reraise_database_error(error, statement)
        statement.recover(error, result)
    return result


def _with_new_values(
    compiler: Any, plan: ModelPlan, assigned: Assignment, found: Returned, most: int
) -> tuple[Returned, list[ModelFieldPlan]]:
    """Add what expressions became, read by key: (rows, fields whose new values they hold).

    Only the keys are left where that is more than ``most`` bytes.
    """
    fields = [field for field in assigned.expressions if field not in plan.keys]
    if not fields or found.rows is None or found.completeness != "full" or not found.count:
        return found, []
    rows = found.rows.rows()
    keys = plan.keys_in(rows)
    if size_by_keys(compiler, plan, keys, fields, most) > most:
        width = len(plan.keys)
        return Returned(ReturnedRows(plan.keys, [row[:width] for row in rows]), found.count, "ids"), []
    now = select_by_keys(compiler, plan, keys, fields)
    if any(key not in now for key in keys):  # the statement changed the keys themselves
        return found, []
    merged = [(*row, *now[key]) for row, key in zip(rows, keys, strict=True)]
    return Returned(ReturnedRows([*found.rows.plans, *fields], merged), found.count, "full"), fields


def _note_rows(
    capture: Capture,
    statement: CompiledStatement,
    assigned: Assignment,
    returned: Returned,
    new: Sequence[ModelFieldPlan],
    more: int = 0,
) -> None:
    plan = statement.plan
    if not returned.count and more <= 0:
        statement.done()
        return
    keys = None if more > 0 else keys_of(plan, returned.rows)
    statement.connection.wrote_many(plan, keys)
    full = returned.completeness == "full" and returned.rows is not None
    writes: list[CapturedWrite] = []
    if not full:
        new = [field for field in new if field not in assigned.rest]
    if returned.count:
        updated = BulkWrite(
            plan,
            "update",
            statement.connection,
            returned.count,
            returned.rows,
            old=assigned.fields if full else (),
            new=new,
            constant=[(field, field.normal(value)) for field, value in assigned.values],
            completeness=returned.completeness,
            old_values="exact" if full else None,
        )
        writes.append(limited(updated, capture.config))
    if more > 0:
        writes.append(_count_only(statement, assigned, more))
    statement.done(*writes)


def _update_counting(capture: Capture, update: Update, assigned: Assignment, abilities: Abilities) -> Any:
    """Run the UPDATE as it is; only the number of rows is known."""
    statement = CompiledStatement(capture, update.compiler, update.plan, "update")
    result = statement.run(update.run, lambda: _intent(statement, assigned))
    try:
        _note_count(statement, assigned, abilities, row_count("update", result))
    except faults() as error:
        statement.recover(error, len(result) if isinstance(result, list) else result)
    return result


def _note_count(
    statement: CompiledStatement, assigned: Assignment, abilities: Abilities, count: int | None
) -> None:
    """Note an UPDATE of which only the number of rows is known, if that."""
    statement.connection.wrote_many(statement.plan, None)
    if count:
        statement.done(_count_only(statement, assigned, count))
    else:
        statement.done(*statement.uncounted(abilities, count))


def _count_only(statement: CompiledStatement, assigned: Assignment, count: int) -> CapturedWrite:
    return BulkWrite(
        statement.plan,
        "update",
        statement.connection,
        count,
        new=assigned.made,
        constant=assigned.values,
    )


def _intent(statement: CompiledStatement, assigned: Assignment) -> CapturedWrite:
    """What is known before the statement runs: the table and the fields."""
    intent = BulkWrite(
        statement.plan, "update", statement.connection, 0, new=assigned.made, constant=assigned.values
    )
    intent.completeness = "statement"
    return intent


def execute(
    capture: Capture,
    plan: ModelPlan,
    compiler: Any,
    run: Callable[[], Any],
    result_type: Any = None,
    returning_fields: Sequence[Any] = (),
) -> Any:
    """Run an UPDATE compiler's call, as the save of an instance if one announced itself."""
    from django.db.models.sql.constants import ROW_COUNT

    returning = [plan.by_attname[field.attname] for field in returning_fields]

    def rows_or_empty(count: int, rows: list[Any]) -> Any:
        return rows if returning else [()] * count

    def related_count(count: int, rows: list[Any]) -> Any:
        return _related(compiler, count if result_type == ROW_COUNT else 0, result_type)

    update = Update(compiler, plan, run, rows_or_empty if returning_fields else related_count, returning)
    saving = capture.thread.saving
    if saving is not None and saving.model is plan.model and compiler.query.values:
        capture.thread.saving = None
        return save(capture, update, saving.instance, saving.key)
    return update_rows(capture, update)


def _related(compiler: Any, count: int, result_type: Any) -> int:
    """Run the updates of parent tables that belong to an update of a child."""
    for query in compiler.query.get_related_updates():
        query.get_compiler(compiler.using).execute_sql(result_type)
    return count
