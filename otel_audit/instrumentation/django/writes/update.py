"""UPDATE without an instance: old values come with the statement, or from a locking SELECT before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from otel_audit.capture.bulk import BulkWrite, ReturnedRows, limited
from otel_audit.capture.databases.abilities import Abilities
from otel_audit.capture.writes import CapturedWrite
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
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
from otel_audit.instrumentation.django.writes.state import Capture
from otel_audit.instrumentation.django.writes.statement import (
    CompiledStatement,
    Guard,
    RowsStatement,
    in_own_transaction,
    reraise_database_error,
    row_count,
)
from otel_audit.instrumentation.django.writes.update_statement import (
    Assignment,
    Update,
    answer,
    assignment,
    rewrite,
    run_rewritten,
)
from otel_audit.interruptions import faults


class UpdateStatement(RowsStatement):
    """An UPDATE without instance; ``new`` are the fields of which its rows hold the new values as well."""

    __slots__ = ("assigned", "new")

    def __init__(self, capture: Capture, update: Update, assigned: Assignment) -> None:
        compiler = update.compiler
        column = compiler.query.values[0][0].column
        super().__init__(capture, compiler, update.plan, "update", column=column)
        self.assigned = assigned
        self.new: Sequence[ModelFieldPlan] = ()

    def intended(self) -> CapturedWrite:
        intent = self._counting(0)
        intent.completeness = "statement"
        return intent

    def writes(self, returned: Returned, more: int) -> list[CapturedWrite]:
        assigned, rows = self.assigned, returned.rows
        writes: list[CapturedWrite] = []
        if returned.count and rows is None:
            writes.append(self._counting(returned.count))
        elif returned.count:
            full = returned.completeness == "full"
            updated = BulkWrite(
                self.plan,
                "update",
                self.connection,
                returned.count,
                rows,
                old=assigned.fields if full else (),
                new=[field for field in self.new if full or field not in assigned.rest],
                constant=[(field, field.normal(value)) for field, value in assigned.values],
                completeness=returned.completeness,
                old_values="exact" if full else None,
            )
            writes.append(limited(updated, self.capture.config))
        if more:
            writes.append(self._counting(more))
        return writes

    def note(self, result: Any, abilities: Abilities) -> None:
        if type(result) is not Returned and self.rows(result)[0].rows is None:
            self.connection.wrote_many(self.plan, None)  # whatever the row count says
        super().note(result, abilities)

    def _counting(self, count: int) -> BulkWrite:
        """Return an UPDATE of which the fields and the number of rows are known."""
        assigned = self.assigned
        return BulkWrite(
            self.plan, "update", self.connection, count, new=assigned.made, constant=assigned.values
        )


def update_rows(capture: Capture, update: Update) -> Any:
    """Run an UPDATE without instance and note the rows it changed."""
    plan, compiler = update.plan, update.compiler
    connection = compiler.connection
    assigned = assignment(plan, compiler)
    abilities = capture.abilities(connection, plan, "update", compiler.query.values[0][0].column)
    if (
        plan.old_values == "off"
        or not (abilities.joined_update or abilities.select)
        or (abilities.needs_condition and not reads_its_rows(compiler, plan))
    ):
        return _update_counting(capture, update, assigned)
    result: Any = NotImplemented
    if not connection.in_atomic_block and connection.get_autocommit():
        # Keys and values are on disk before the commit: should this process die, `unknown` names the rows.
        result = in_own_transaction(capture, connection, update_rows, capture, update)
        return _update_counting(capture, update, assigned) if result is NotImplemented else result
    if plan.snapshot:
        assigned = assigned.with_rest(plan)
    if abilities.joined_update:
        result = _update_returning(capture, update, assigned, abilities)
    if result is NotImplemented and abilities.select:
        result = _update_selecting(capture, update, assigned, abilities)
    return _update_counting(capture, update, assigned) if result is NotImplemented else result


def _update_returning(capture: Capture, update: Update, assigned: Assignment, abilities: Abilities) -> Any:
    """Run the UPDATE as one that returns its rows; ``NotImplemented``, with nothing run, if it cannot."""
    rewritten = rewrite(update, assigned)
    if rewritten is None:
        return NotImplemented
    statement = UpdateStatement(capture, update, assigned)
    statement.new = rewritten.new
    measured = any(field.large for field in assigned.made) or (
        any(field.large for field in assigned.fields) and not names_one_row(update.compiler.query)
    )
    returned = run_rewritten(statement, update, rewritten, abilities, measured=measured)
    statement.note_or_recover(returned, abilities)
    return answer(update, rewritten, returned)


def _update_selecting(capture: Capture, update: Update, assigned: Assignment, abilities: Abilities) -> Any:
    """Run the UPDATE after its rows have been read, and locked, in a transaction."""
    plan, compiler = update.plan, update.compiler
    statement = UpdateStatement(capture, update, assigned)
    statement.take_write_lock(statement.column)
    matching = matching_query(compiler.query, plan)
    statement.found = statement.attempt(
        abilities, lambda: select_matching(matching, plan, assigned.fields, compiler, capture.config)
    )
    result = statement.run(update.run)
    try:
        found, _ = statement.rows(result)
        most = capture.config.max_bulk_bytes
        statement.found, statement.new = _with_new_values(compiler, plan, assigned, found, most)
        statement.note(result, abilities)
    except faults() as error:
        reraise_database_error(error, statement)
        statement.recover(error, row_count("update", result))
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


def _update_counting(capture: Capture, update: Update, assigned: Assignment) -> Any:
    """Run the UPDATE as it is; only the number of rows is known."""
    statement = UpdateStatement(capture, update, assigned)
    abilities = capture.abilities(statement.django, update.plan, "update", statement.column)
    result = statement.run(update.run)
    statement.note_or_recover(result, abilities)
    return result


def execute(
    capture: Capture,
    plan: ModelPlan,
    compiler: Any,
    run: Callable[[], Any],
    result_type: Any = None,
    returning_fields: Sequence[Any] = (),
) -> Any:
    """Run an UPDATE compiler's call, as the save of an instance if one announced itself."""
    with Guard(capture, compiler.connection) as guard:
        return _execute(capture, plan, compiler, run, result_type, returning_fields)
    return guard.run_plainly(CompiledStatement(capture, compiler, plan, "update"), run)


def _execute(
    capture: Capture,
    plan: ModelPlan,
    compiler: Any,
    run: Callable[[], Any],
    result_type: Any,
    returning_fields: Sequence[Any],
) -> Any:
    from django.core.exceptions import EmptyResultSet

    returning = [plan.by_attname[field.attname] for field in returning_fields]
    update = Update(compiler, plan, run, result_type, returning)
    saving = capture.thread.saving
    try:
        if saving is not None and saving.model is plan.model and compiler.query.values:
            capture.thread.saving = None
            return save(capture, update, saving.instance, saving.key)
        return update_rows(capture, update)
    except EmptyResultSet:  # it need not even be sent
        return run()
