"""The save of one instance, in all its cases.

What the instance was loaded with is believed by the rules of :mod:`.old_values`; in doubt the row is asked,
by the UPDATE itself where the database can, by a SELECT before it elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET

from otel_audit.audit_record import OldValues
from otel_audit.capture.databases.abilities import Abilities
from otel_audit.capture.writes import CapturedWrite, RowWrite
from otel_audit.instrumentation.django.loaded import STATE_KEY, Loaded, put_back
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
from otel_audit.instrumentation.django.writes.sql.rows import Returned
from otel_audit.instrumentation.django.writes.state import Capture
from otel_audit.instrumentation.django.writes.statement import (
    CompiledStatement,
    Plain,
    in_transaction,
    reraise_database_error,
    row_count,
)
from otel_audit.instrumentation.django.writes.update_statement import (
    Assignment,
    Update,
    answer,
    assignment,
    difference,
    rewrite,
    run_rewritten,
)
from otel_audit.interruptions import faults
from otel_audit.named_tuples import NamedTuple
from otel_audit.values import same


class _Save(NamedTuple):
    """The UPDATE of an instance, saved under ``key``; ``row`` is what it had loaded, if that is believed."""

    update: Update
    instance: Any
    key: Any
    assigned: Assignment
    row: dict[str, Any]


class SaveStatement(CompiledStatement):
    """A save whose old values come from the row: returned by the UPDATE, or read before it.

    ``before`` are these by attname, ``certain`` says what they are where there are any.
    """

    __slots__ = ("before", "certain", "new", "save")

    def __init__(
        self, capture: Capture, save: _Save, certain: OldValues, new: Sequence[ModelFieldPlan] = ()
    ) -> None:
        """Make a statement; ``new`` are the fields whose new values it returns."""
        super().__init__(capture, save.update.compiler, save.update.plan, "update")
        self.save = save
        self.certain: OldValues = certain
        self.before: dict[str, Any] = {}
        self.new = new

    def intended(self) -> CapturedWrite:
        changed, written = difference(self.save.assigned.values, self.before)
        certain = self.certain if self.before else None
        return RowWrite(self.plan, "update", self.connection, self.save.key, changed, written, certain)

    def written(self, result: Any) -> list[CapturedWrite]:
        write = self.changes(*self.values(result))[0]
        return [] if write is None else [write]

    def values(self, result: Any) -> tuple[dict[str, Any], dict[ModelFieldPlan, Any]]:
        """Return what is known of the row: the values before by attname, and those after it."""
        if type(result) is not Returned:
            return self.before, {}
        if result.rows is None or result.completeness != "full":
            return {}, {}
        old, width = self.save.assigned.fields, len(self.plan.keys)
        first = result.rows.rows()[0]
        before = dict(zip((field.attname for field in old), first[width : width + len(old)], strict=True))
        after = zip(self.new, first[width + len(old) :], strict=True)
        return before, {field: field.frozen(value) for field, value in after}

    def changes(self, before: dict[str, Any], after: dict[ModelFieldPlan, Any]) -> _Changes:
        """Compare what was written with the row as it was.

        Columns nobody asked for may be as stale as those that were, unless what was loaded is believed: then
        only what was written is known. Where preparing is not repeatable, what was loaded says more than the
        row: that has another text for the same value.
        """
        assigned, row = self.save.assigned, self.save.row
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
        _complete(self.plan, written, row)
        write = None
        if any(not field.automatic for field, _, _ in changed):
            certain = self.certain if before else None
            write = RowWrite(self.plan, "update", self.connection, self.save.key, changed, written, certain)
        return _Changes(write, written, unknown)

    def note(self, before: dict[str, Any], after: dict[ModelFieldPlan, Any]) -> None:
        """Note what it wrote, by what is known of the row before and after it."""
        write, written, unknown = self.changes(before, after)
        _note_save(self, self.save, written, unknown, write)


class _Changes(NamedTuple):
    """What a save did: None if nothing, the values it wrote, and the fields whose values nobody knows."""

    write: RowWrite | None
    written: list[tuple[ModelFieldPlan, Any]]
    unknown: list[ModelFieldPlan]


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
    ours = _Save(update, instance, key, assigned, row)
    if doubtful and plan.old_values != "off" and (assigned.values or assigned.expressions):
        abilities = capture.abilities(connection, plan, "update", assigned.fields[0].column)
        if abilities.joined_update:
            result = _save_returning(capture, ours, abilities)
            if result is not NotImplemented:
                return result
        elif abilities.select:
            if plan.old_values == "exact":
                return in_transaction(capture, connection, _save_asking, capture, ours, abilities)
            return _save_asking(capture, ours, abilities)

    write = RowWrite(
        plan,
        "update",
        capture.connection(connection),
        key,
        changed,
        written,
        "as_loaded" if believed else None,
    )
    statement = CompiledStatement(capture, compiler, plan, "update", write)
    result = statement.run(update.run)
    # Only where nothing may be asked (`off`) does a save get here that seems to change nothing.
    nothing = (
        believed and not assigned.expressions and all(field.automatic for field, _, _ in changed)
    ) or all(field.ignored for field in assigned.fields if field not in assigned.rest)
    try:
        if not result:
            statement.done(*uncounted(statement, assigned))
            return result
        _note_save(statement, ours, written, assigned.expressions, None if nothing else write)
    except faults() as error:
        statement.recover(error, 1)
    return result


def uncounted(statement: CompiledStatement, assigned: Assignment) -> list[CapturedWrite]:
    """Say that a save may have written its row where the row count of 0 does not mean that it has not."""
    if not assigned.fields:
        return []
    plan, column = statement.plan, assigned.fields[0].column
    return statement.uncounted(statement.capture.abilities(statement.django, plan, "update", column))


def _save_returning(capture: Capture, save: _Save, abilities: Abilities) -> Any:
    """Save by one rewritten UPDATE that returns the old values and those of expressions."""
    rewritten = rewrite(save.update, save.assigned)
    if rewritten is None:
        return NotImplemented
    statement = SaveStatement(capture, save, "exact", rewritten.new)
    # What expressions make may be larger than anything the application holds.
    measured = any(field.large for field in save.assigned.made)
    returned = run_rewritten(statement, save.update, rewritten, abilities, measured=measured)
    count = row_count("update", returned)
    try:
        if count:
            statement.note(*statement.values(returned))
        elif type(returned) is Plain:  # the database refused ours: the table is no longer what it was
            statement.done(*uncounted(statement, save.assigned))
        else:
            statement.done()
    except faults() as error:
        statement.recover(error, count)
    return answer(save.update, rewritten, returned)


def _save_asking(capture: Capture, save: _Save, abilities: Abilities) -> Any:
    """Save with a SELECT of the row before, locked inside a transaction."""
    update, assigned = save.update, save.assigned
    plan, compiler = update.plan, update.compiler
    statement = SaveStatement(capture, save, "exact")
    if statement.autocommit:
        statement.certain = "as_loaded"
    statement.take_write_lock(assigned.fields[0].column)

    def ours() -> tuple[dict[ModelFieldPlan, Any] | None]:
        lock = not statement.autocommit
        return (capture.tables.select_row(compiler, plan, save.key, assigned.fields, lock=lock),)

    (found,) = statement.attempt(abilities, ours) or (None,)
    if found is not None:
        statement.before = {field.attname: value for field, value in found.items()}
    result = statement.run(update.run)
    try:
        if not result:
            statement.done(*uncounted(statement, assigned))
            return result
        after: dict[ModelFieldPlan, Any] = {}
        if assigned.expressions:
            now = None
            if found is not None:
                most = max(capture.config.max_bulk_bytes, 1)
                now = capture.tables.select_row(compiler, plan, save.key, assigned.expressions, most=most)
            after = {field: field.frozen(value) for field, value in (now or {}).items()}
        statement.note(statement.before, after)
    except faults() as error:
        reraise_database_error(error, statement)
        statement.recover(error, 1)
    return result


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
    statement: CompiledStatement,
    save: _Save,
    written: Sequence[tuple[ModelFieldPlan, Any]],
    unknown: Sequence[ModelFieldPlan],
    write: RowWrite | None,
) -> None:
    """Hold the write and make what was written what the instance has loaded."""
    plan, state, key = statement.plan, save.instance._state, save.key
    seq = statement.connection.wrote(plan, key)
    values = {**save.row}
    parts = (key,) if len(plan.keys) == 1 else key
    for field, part in zip(plan.keys, parts, strict=True):
        values[field.attname] = part
    for field, value in written:
        values[field.attname] = value
    for field in unknown:
        values.pop(field.attname, None)
    previous = state.__dict__.get(STATE_KEY) or None
    state.__dict__[STATE_KEY] = Loaded(None, values, statement.capture.thread.epoch, seq)
    if write is None:
        statement.done()
        return
    write.on_undo = (put_back, state, previous)
    statement.done(write)
