"""UPDATE: of one instance being saved, and of any rows.

A save knows what its instance was loaded with; that is believed by the rules of :mod:`.old_values`, and the
row is asked only in doubt. Everything else asks for old values with the statement itself (PostgreSQL) or by
a locking SELECT before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from msgspec import UNSET

from otel_audit.instrumentation.django.capture import Capture, Statement
from otel_audit.instrumentation.django.changes import BulkWrite, CapturedWrite, Rows, RowWrite
from otel_audit.instrumentation.django.deletes import keys_of
from otel_audit.instrumentation.django.fields import ATOMS, FieldPlan, ModelPlan, freeze, same
from otel_audit.instrumentation.django.old_values import STATE_KEY, Loaded
from otel_audit.instrumentation.django.statements import (
    Returned,
    joined_update,
    matching_query,
    select_by_keys,
    select_matching,
    take_write_lock,
    update_returning,
)
from otel_audit.record import OldValues


class Update(NamedTuple):
    """One call of an UPDATE compiler.

    ``run`` executes it as Django would. ``result`` makes what the caller expects of a row count and the rows
    of ``returning`` fields.
    """

    compiler: Any
    plan: ModelPlan
    run: Callable[[], Any]
    result: Callable[[int, list[Any]], Any]
    returning: Sequence[FieldPlan] = ()


class Assignment(NamedTuple):
    """What an UPDATE sets: values by field, frozen, and the fields set to expressions."""

    values: list[tuple[FieldPlan, Any]]
    expressions: list[FieldPlan]

    @property
    def fields(self) -> list[FieldPlan]:
        return [*(plan for plan, _ in self.values), *self.expressions]


def assignment(plan: ModelPlan, query: Any) -> Assignment:
    """Read ``query.values``: what is written, after ``pre_save`` and ``update_fields``."""
    values: list[tuple[FieldPlan, Any]] = []
    expressions: list[FieldPlan] = []
    for field, _, value in query.values:
        target = plan.by_attname[field.attname]
        if value.__class__ not in ATOMS:
            if hasattr(value, "resolve_expression"):
                expressions.append(target)
                continue
            if hasattr(value, "prepare_database_save"):
                value = value.prepare_database_save(field)
            value = freeze(value)
        values.append((target, value))
    return Assignment(values, expressions)


# --- one instance --------------------------------------------------------------------------------


def save(capture: Capture, update: Update, instance: Any, key: Any) -> Any:
    """Run the UPDATE of one instance being saved and note what it changed."""
    plan, compiler = update.plan, update.compiler
    connection = compiler.connection
    thread, alias = capture.thread, connection.alias
    state = instance._state
    if key.__class__ is not int and len(plan.keys) == 1:
        key = plan.keys[0].normal(freeze(key))
    assigned = assignment(plan, compiler.query)
    loaded: Loaded | None = state.__dict__.get(STATE_KEY) or None
    row: dict[str, Any] = {}
    believed = (
        loaded is not None
        and plan.old_values != "exact"
        and state.db == alias
        and capture.freshness.current(alias, plan, key, loaded, thread)
    )
    if believed and loaded is not None:
        row = loaded.by_name()
        if plan.key_of(row) != key:
            believed, row = False, {}
    changed, written = difference(assigned.values, row)
    doubtful = (
        not believed
        or bool(assigned.expressions)
        or not any(not plan.automatic and old is not UNSET for plan, old, _ in changed)
        or any(old is UNSET for _, old, _ in changed)
    )
    if doubtful and plan.old_values != "off" and (assigned.values or assigned.expressions):
        abilities = capture.abilities(connection, plan)
        if abilities.joined_update:
            result = _save_joined(capture, update, instance, key, assigned, row)
            if result is not NotImplemented:
                return result
        elif abilities.select and not (state.adding and not assigned.expressions):
            return _save_asking(capture, update, instance, key, assigned, row)

    statement = Statement(capture, compiler, plan, "update")
    write = RowWrite(
        plan, "update", statement.place, key, changed, written, "as_loaded" if believed else None
    )
    result = statement.run(update.run, lambda: write)
    # Only where nothing may be asked (`off`) does a save get here that seems to change nothing.
    nothing = believed and not assigned.expressions and all(field.automatic for field, _, _ in changed)
    try:
        if not result:
            statement.done()
            return result
        note = None if nothing else write
        _note_save(capture, statement, instance, key, written, row, assigned.expressions, note)
    except Exception as error:
        statement.recover(error, 1)
    return result


def difference(
    values: Sequence[tuple[FieldPlan, Any]], row: dict[str, Any]
) -> tuple[list[tuple[FieldPlan, Any, Any]], list[tuple[FieldPlan, Any]]]:
    """Compare values to write with a row: (changed as field, old, new; all as field, value)."""
    changed: list[tuple[FieldPlan, Any, Any]] = []
    written: list[tuple[FieldPlan, Any]] = []
    for plan, value in values:
        old = row.get(plan.attname, UNSET)
        if old is value or (old is not UNSET and same(freeze(old), value)):
            written.append((plan, old))
            continue
        new = plan.normal(value)
        if old is not UNSET and new is not value and same(freeze(old), new):
            written.append((plan, old))
            continue
        changed.append((plan, old if old is UNSET else freeze(old), new))
        written.append((plan, new))
    return changed, written


def _save_joined(
    capture: Capture, update: Update, instance: Any, key: Any, assigned: Assignment, row: dict[str, Any]
) -> Any:
    """Save by one rewritten UPDATE that returns the old values and those of expressions."""
    from django.core.exceptions import EmptyResultSet

    plan, compiler = update.plan, update.compiler
    try:
        sql, params = compiler.as_sql()
    except EmptyResultSet:
        return update.run()
    old = assigned.fields
    new = list(dict.fromkeys([*assigned.expressions, *update.returning]))
    rewritten = joined_update(compiler, plan, old, new, sql, params)
    if rewritten is None:
        return NotImplemented
    statement = Statement(capture, compiler, plan, "update")

    def intent() -> RowWrite:
        return RowWrite(plan, "update", statement.place, key, *difference(assigned.values, {}))

    returned = statement.run(
        lambda: update_returning(compiler, plan, capture.config, rewritten, old, new), intent
    )
    rows = _returning(update, new, returned, len(plan.keys) + len(old))
    try:
        if not returned.count or returned.rows is None:
            statement.done()
        else:
            width = len(plan.keys)
            first = returned.rows.rows()[0]
            before = dict(zip((field.attname for field in old), first[width : width + len(old)], strict=True))
            after = dict(zip(new, (freeze(value) for value in first[width + len(old) :]), strict=True))
            _note_asked(capture, statement, instance, key, assigned, row, before, after, "exact")
    except Exception as error:
        statement.recover(error, returned.count)
    return update.result(returned.count, rows)


def _returning(update: Update, new: Sequence[FieldPlan], returned: Returned, start: int) -> list[Any]:
    """Give the rows the caller asked for; their conversion may raise as it would without us."""
    if not update.returning or returned.rows is None:
        return []
    positions = [start + new.index(field) for field in update.returning]
    return [tuple(row[i] for i in positions) for row in returned.rows.rows()]


def _save_asking(
    capture: Capture, update: Update, instance: Any, key: Any, assigned: Assignment, row: dict[str, Any]
) -> Any:
    """Save with a SELECT of the row before, locked inside a transaction."""
    from django.db import transaction

    plan, compiler = update.plan, update.compiler
    connection = compiler.connection
    autocommit = not connection.in_atomic_block and connection.get_autocommit()
    if autocommit and plan.old_values == "exact":
        with transaction.atomic(using=connection.alias):
            return _save_asking(capture, update, instance, key, assigned, row)
    statement = Statement(capture, compiler, plan, "update")
    certain: OldValues = "as_loaded" if statement.autocommit else "exact"
    if connection.vendor == "sqlite" and not statement.autocommit and not statement.state.locked:
        _write_lock(statement)
    found = capture.tables.select_row(compiler, plan, key, assigned.fields, lock=not statement.autocommit)
    before = {} if found is None else {field.attname: value for field, value in found.items()}
    changed, written = difference(assigned.values, before)
    intent = RowWrite(plan, "update", statement.place, key, changed, written, certain)
    result = statement.run(update.run, lambda: intent)
    try:
        if not result:
            statement.done()
            return result
        after: dict[FieldPlan, Any] = {}
        if assigned.expressions:
            now = capture.tables.select_row(compiler, plan, key, assigned.expressions, lock=False)
            after = {field: freeze(value) for field, value in (now or {}).items()}
        _note_asked(capture, statement, instance, key, assigned, row, before, after, certain)
    except Exception as error:
        _reraise_database_error(error, statement)
        statement.recover(error, 1)
    return result


def _note_asked(
    capture: Capture,
    statement: Statement,
    instance: Any,
    key: Any,
    assigned: Assignment,
    row: dict[str, Any],
    before: dict[str, Any],
    after: dict[FieldPlan, Any],
    certain: OldValues,
) -> None:
    """Note a save whose old values came from the row.

    ``row`` is what the instance had loaded if that was believed. Otherwise columns nobody asked for may be as
    stale as those that were: then only what was written is known.
    """
    values = [
        *assigned.values,
        *((field, after[field]) for field in assigned.expressions if field in after),
    ]
    changed, written = difference(values, before)
    unknown = [field for field in assigned.expressions if field not in after]
    changed += [(field, freeze(before.get(field.attname, UNSET)), UNSET) for field in unknown]
    write = None
    if any(not field.automatic for field, _, _ in changed):
        write = RowWrite(
            statement.plan,
            "update",
            statement.place,
            key,
            changed,
            written,
            certain if before else None,
        )
    _note_save(capture, statement, instance, key, written, row, unknown, write)


def _note_save(
    capture: Capture,
    statement: Statement,
    instance: Any,
    key: Any,
    written: Sequence[tuple[FieldPlan, Any]],
    row: dict[str, Any],
    unknown: Sequence[FieldPlan],
    write: RowWrite | None,
) -> None:
    """Hold the write and make what was written what the instance has loaded."""
    plan, state = statement.plan, instance._state
    alias = statement.connection.alias
    mark = capture.transactions.mark(statement.connection)
    seq = capture.freshness.wrote(alias, plan, key, mark)
    values = {**row}
    parts = (key,) if len(plan.keys) == 1 else key
    for field, part in zip(plan.keys, parts, strict=True):
        values[field.attname] = part
    for field, value in written:
        values[field.attname] = value
    for field in unknown:
        values.pop(field.attname, None)
    previous = state.__dict__.get(STATE_KEY) or None
    state.__dict__[STATE_KEY] = Loaded(None, values, capture.thread.epoch, seq)
    if write is None:
        statement.done()
        return
    write.state, write.previous = state, previous
    statement.done(write)


def _write_lock(statement: Statement) -> None:
    take_write_lock(statement.connection, statement.plan.table)
    statement.state.locked = True


def _reraise_database_error(error: Exception, statement: Statement) -> None:
    """Let a database error of our own statement reach the application inside a transaction.

    The transaction is aborted by it, and an application that retries on deadlocks must see it.
    """
    from django.db import Error

    if isinstance(error, Error) and not statement.autocommit:
        raise error


# --- any rows ------------------------------------------------------------------------------------


def update_rows(capture: Capture, update: Update) -> Any:
    """Run an UPDATE without instance and note the rows it changed."""
    plan, compiler = update.plan, update.compiler
    connection = compiler.connection
    assigned = assignment(plan, compiler.query)
    abilities = capture.abilities(connection, plan)
    if plan.old_values == "off" or not abilities.select:
        return _update_counting(capture, update, assigned)
    if abilities.joined_update:
        result = _update_joined(capture, update, assigned)
        if result is not NotImplemented:
            return result
    return _update_selecting(capture, update, assigned)


def _update_joined(capture: Capture, update: Update, assigned: Assignment) -> Any:
    from django.core.exceptions import EmptyResultSet

    plan, compiler = update.plan, update.compiler
    try:
        sql, params = compiler.as_sql()
    except EmptyResultSet:
        return update.run()
    old = assigned.fields
    new = list(dict.fromkeys([*assigned.expressions, *update.returning]))
    rewritten = joined_update(compiler, plan, old, new, sql, params)
    if rewritten is None:
        return NotImplemented
    statement = Statement(capture, compiler, plan, "update")
    returned = statement.run(
        lambda: update_returning(compiler, plan, capture.config, rewritten, old, new),
        lambda: _intent(statement, assigned),
    )
    rows = _returning(update, new, returned, len(plan.keys) + len(old))
    try:
        _note_rows(capture, statement, assigned, returned, new)
    except Exception as error:
        statement.recover(error, returned.count)
    return update.result(returned.count, rows)


def _update_selecting(capture: Capture, update: Update, assigned: Assignment) -> Any:
    from django.db import transaction

    plan, compiler = update.plan, update.compiler
    connection = compiler.connection
    if not connection.in_atomic_block and connection.get_autocommit():
        with transaction.atomic(using=connection.alias):
            return _update_selecting(capture, update, assigned)
    statement = Statement(capture, compiler, plan, "update")
    if connection.vendor == "sqlite" and not statement.state.locked:
        _write_lock(statement)
    found = select_matching(
        matching_query(compiler.query, plan), plan, assigned.fields, compiler, capture.config
    )
    result = statement.run(update.run, lambda: _intent(statement, assigned))
    try:
        returned, known = _with_new_values(compiler, plan, assigned, found)
        count = result if result.__class__ is int else 0
        if returned.rows is None:
            returned = Returned(None, count, "count")
        _note_rows(capture, statement, assigned, returned, known, more=count - returned.count)
    except Exception as error:
        _reraise_database_error(error, statement)
        statement.recover(error, result)
    return result


def _with_new_values(
    compiler: Any, plan: ModelPlan, assigned: Assignment, found: Returned
) -> tuple[Returned, list[FieldPlan]]:
    """Add what expressions became, read by key: (rows, fields whose new values they hold)."""
    fields = [field for field in assigned.expressions if field not in plan.keys]
    if not fields or found.rows is None or found.completeness != "full" or not found.count:
        return found, []
    width = len(plan.keys)
    rows = found.rows.rows()
    keys = [row[0] if width == 1 else tuple(row[:width]) for row in rows]
    now = select_by_keys(compiler, plan, keys, fields)
    if any(key not in now for key in keys):  # the statement changed the keys themselves
        return found, []
    merged = [(*row, *now[key]) for row, key in zip(rows, keys, strict=True)]
    return Returned(Rows([*found.rows.plans, *fields], merged), found.count, "full"), fields


def _note_rows(
    capture: Capture,
    statement: Statement,
    assigned: Assignment,
    returned: Returned,
    new: Sequence[FieldPlan],
    more: int = 0,
) -> None:
    plan = statement.plan
    if not returned.count and more <= 0:
        statement.done()
        return
    mark = capture.transactions.mark(statement.connection)
    keys = None if more > 0 else keys_of(plan, returned.rows)
    capture.freshness.wrote_many(statement.connection.alias, plan, keys, mark)
    full = returned.completeness == "full" and returned.rows is not None
    writes: list[CapturedWrite] = []
    if returned.count:
        writes.append(
            BulkWrite(
                plan,
                "update",
                statement.place,
                returned.count,
                returned.rows,
                old=assigned.fields if full else (),
                new=new,
                constant=[(field, field.normal(value)) for field, value in assigned.values],
                completeness=returned.completeness,
                old_values="exact" if full else None,
            )
        )
    if more > 0:
        writes.append(_count_only(statement, assigned, more))
    statement.done(*writes)


def _update_counting(capture: Capture, update: Update, assigned: Assignment) -> Any:
    """Run the UPDATE as it is; only the number of rows is known."""
    statement = Statement(capture, update.compiler, update.plan, "update")
    result = statement.run(update.run, lambda: _intent(statement, assigned))
    count = len(result) if isinstance(result, list) else result
    try:
        mark = capture.transactions.mark(statement.connection)
        capture.freshness.wrote_many(statement.connection.alias, update.plan, None, mark)
        statement.done(*([_count_only(statement, assigned, count)] if count else []))
    except Exception as error:
        statement.recover(error, count)
    return result


def _count_only(statement: Statement, assigned: Assignment, count: int) -> CapturedWrite:
    return BulkWrite(
        statement.plan,
        "update",
        statement.place,
        count,
        new=assigned.expressions,
        constant=assigned.values,
    )


def _intent(statement: Statement, assigned: Assignment) -> CapturedWrite:
    """What is known before the statement runs: the table and the fields."""
    intent = BulkWrite(
        statement.plan, "update", statement.place, 0, new=assigned.expressions, constant=assigned.values
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

    def row_count(count: int, rows: list[Any]) -> Any:
        return _related(compiler, count if result_type == ROW_COUNT else 0, result_type)

    update = Update(compiler, plan, run, rows_or_empty if returning_fields else row_count, returning)
    saving = capture.thread.saving
    if saving is not None and saving[2] is plan.model and compiler.query.values:
        capture.thread.saving = None
        return save(capture, update, saving[0], saving[1])
    return update_rows(capture, update)


def _related(compiler: Any, count: int, result_type: Any) -> int:
    """Run the updates of parent tables that belong to an update of a child."""
    for query in compiler.query.get_related_updates():
        query.get_compiler(compiler.using).execute_sql(result_type)
    return count
