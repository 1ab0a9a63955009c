"""The save of one instance, in all its cases.

What the instance was loaded with is believed by the rules of :mod:`.old_values`; in doubt the row is asked,
by the UPDATE itself where the database can, by a SELECT before it elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from msgspec import UNSET

from otel_audit.audit_record import OldValues
from otel_audit.capture.databases.abilities import Abilities
from otel_audit.capture.writes import CapturedWrite, RowWrite
from otel_audit.instrumentation.django.loaded import STATE_KEY, Loaded, put_back
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
from otel_audit.instrumentation.django.writes.sql.rows import Returned
from otel_audit.instrumentation.django.writes.state import (
    Capture,
    CompiledStatement,
    in_transaction,
    reraise_database_error,
)
from otel_audit.instrumentation.django.writes.update_statement import (
    Assignment,
    Update,
    assignment,
    difference,
    run_joined,
)
from otel_audit.interruptions import faults
from otel_audit.values import same


def save(capture: Capture, update: Update, instance: Any, key: Any) -> Any:
    """Run the UPDATE of one instance being saved and note what it changed."""
    plan, compiler = update.plan, update.compiler
    connection = compiler.connection
    thread, alias = capture.thread, connection.alias
    state = instance._state
    if type(key) is not int:
        key = plan.normal_key(key)
    assigned = assignment(plan, compiler, instance)
    loaded: Loaded | None = state.__dict__.get(STATE_KEY) or None
    row: dict[str, Any] = {}
    believed = (
        loaded is not None
        and plan.old_values != "exact"
        and state.db == alias
        and capture.freshness.current(alias, plan.table, key, loaded, thread)
    )
    if believed and loaded is not None:
        row = loaded.by_name()
        if not same(plan.key_of(row), key):
            believed, row = False, {}
    if plan.snapshot and plan.old_values != "off":
        assigned = assigned.with_rest(plan, known=row)
    changed, written = difference(assigned.values, row)
    _complete(plan, written, row)
    doubtful = (
        not believed
        or bool(assigned.expressions)
        or not any(not plan.automatic and old is not UNSET for plan, old, _ in changed)
        or any(old is UNSET for _, old, _ in changed)
    )
    if doubtful and plan.old_values != "off" and (assigned.values or assigned.expressions):
        abilities = capture.abilities(connection, plan, "update", assigned.fields[0].column)
        if abilities.joined_update:
            result = _save_joined(capture, update, instance, key, assigned, abilities, row)
            if result is not NotImplemented:
                return result
        elif abilities.select:
            ask = functools.partial(_save_asking, capture, update, instance, key, assigned, abilities, row)
            return in_transaction(capture, connection, ask) if plan.old_values == "exact" else ask()

    statement = CompiledStatement(capture, compiler, plan, "update")
    write = RowWrite(
        plan, "update", statement.connection, key, changed, written, "as_loaded" if believed else None
    )
    result = statement.run(update.run, lambda: write)
    # Only where nothing may be asked (`off`) does a save get here that seems to change nothing.
    nothing = (
        believed and not assigned.expressions and all(field.automatic for field, _, _ in changed)
    ) or all(field.ignored for field in assigned.fields if field not in assigned.rest)
    try:
        if not result:
            statement.done(*uncounted(capture, statement, assigned))
            return result
        note = None if nothing else write
        _note_save(capture, statement, instance, key, written, row, assigned.expressions, note)
    except faults() as error:
        statement.recover(error, 1)
    return result


def uncounted(capture: Capture, statement: CompiledStatement, assigned: Assignment) -> list[CapturedWrite]:
    """Say that a save may have written its row where the row count of 0 does not mean that it has not."""
    if not assigned.fields:
        return []
    column = assigned.fields[0].column
    return statement.uncounted(capture.abilities(statement.django, statement.plan, "update", column))


def _save_joined(
    capture: Capture,
    update: Update,
    instance: Any,
    key: Any,
    assigned: Assignment,
    abilities: Abilities,
    row: dict[str, Any],
) -> Any:
    """Save by one rewritten UPDATE that returns the old values and those of expressions."""
    plan = update.plan

    def intent(statement: CompiledStatement) -> RowWrite:
        return RowWrite(plan, "update", statement.connection, key, *difference(assigned.values, {}))

    def note(statement: CompiledStatement, returned: Returned, new: Sequence[ModelFieldPlan]) -> None:
        if not returned.count:
            statement.done()
            return
        if returned.rows is None or returned.completeness != "full":
            _note_asked(capture, statement, instance, key, assigned, row, {}, {}, "exact")
            return
        old, width = assigned.fields, len(plan.keys)
        first = returned.rows.rows()[0]
        before = dict(zip((field.attname for field in old), first[width : width + len(old)], strict=True))
        after = {
            field: field.frozen(value) for field, value in zip(new, first[width + len(old) :], strict=True)
        }
        _note_asked(capture, statement, instance, key, assigned, row, before, after, "exact")

    # What expressions make may be larger than anything the application holds.
    measured = any(field.large for field in assigned.made)
    return run_joined(capture, update, assigned, abilities, intent, note, measured=measured)


def _save_asking(
    capture: Capture,
    update: Update,
    instance: Any,
    key: Any,
    assigned: Assignment,
    abilities: Abilities,
    row: dict[str, Any],
) -> Any:
    """Save with a SELECT of the row before, locked inside a transaction."""
    plan, compiler = update.plan, update.compiler
    statement = CompiledStatement(capture, compiler, plan, "update")
    certain: OldValues = "as_loaded" if statement.autocommit else "exact"
    statement.take_write_lock(assigned.fields[0].column)

    def ours() -> tuple[dict[ModelFieldPlan, Any] | None]:
        lock = not statement.autocommit
        return (capture.tables.select_row(compiler, plan, key, assigned.fields, lock=lock),)

    (found,) = statement.attempt(abilities, ours) or (None,)
    before = {} if found is None else {field.attname: value for field, value in found.items()}
    changed, written = difference(assigned.values, before)
    intent = RowWrite(plan, "update", statement.connection, key, changed, written, certain)
    result = statement.run(update.run, lambda: intent)
    try:
        if not result:
            statement.done(*uncounted(capture, statement, assigned))
            return result
        after: dict[ModelFieldPlan, Any] = {}
        if assigned.expressions:
            now = None
            if found is not None:
                most = max(capture.config.max_bulk_bytes, 1)
                now = capture.tables.select_row(compiler, plan, key, assigned.expressions, most=most)
            after = {field: field.frozen(value) for field, value in (now or {}).items()}
        _note_asked(capture, statement, instance, key, assigned, row, before, after, certain)
    except faults() as error:
        reraise_database_error(error, statement)
        statement.recover(error, 1)
    return result


def _note_asked(
    capture: Capture,
    statement: CompiledStatement,
    instance: Any,
    key: Any,
    assigned: Assignment,
    row: dict[str, Any],
    before: dict[str, Any],
    after: dict[ModelFieldPlan, Any],
    certain: OldValues,
) -> None:
    """Note a save whose old values came from the row.

    ``row`` is what the instance had loaded if that was believed. Otherwise columns nobody asked for may be as
    stale as those that were: then only what was written is known. Where preparing is not repeatable it says
    more than the row: that has another text for the same value.
    """
    before = before | {
        field.attname: row[field.attname]
        for field in assigned.fields
        if field.unrepeatable and field.attname in row and field.attname in before
    }
    values = [
        *assigned.values,
        *((field, after[field]) for field in assigned.expressions if field in after),
    ]
    changed, written = difference(values, before)
    unknown = [field for field in assigned.made if field not in after]
    changed += [
        (field, field.frozen(before[field.attname]) if field.attname in before else UNSET, UNSET)
        for field in unknown
    ]
    _complete(statement.plan, written, row)
    write = None
    if any(not field.automatic for field, _, _ in changed):
        write = RowWrite(
            statement.plan,
            "update",
            statement.connection,
            key,
            changed,
            written,
            certain if before else None,
        )
    _note_save(capture, statement, instance, key, written, row, unknown, write)


def _complete(plan: ModelPlan, written: list[tuple[ModelFieldPlan, Any]], row: dict[str, Any]) -> None:
    """Add what is known of the rest of the row, where the model's updates are to have all of it."""
    if plan.snapshot:
        names = {field.attname for field, _ in written} | {field.attname for field in plan.keys}
        written += [
            (field, row[field.attname])
            for field in plan.fields
            if field.attname in row and field.attname not in names
        ]


def _note_save(
    capture: Capture,
    statement: CompiledStatement,
    instance: Any,
    key: Any,
    written: Sequence[tuple[ModelFieldPlan, Any]],
    row: dict[str, Any],
    unknown: Sequence[ModelFieldPlan],
    write: RowWrite | None,
) -> None:
    """Hold the write and make what was written what the instance has loaded."""
    plan, state = statement.plan, instance._state
    seq = statement.connection.wrote(plan, key)
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
    write.on_undo = (put_back, state, previous)
    statement.done(write)
