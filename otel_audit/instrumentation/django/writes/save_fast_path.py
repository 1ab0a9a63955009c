"""The common save: an instance loaded or written here, plain values, something changed.

The short way through what :mod:`.saves` does for every case; it notices early that a save is anything else
and leaves it alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import UNSET

from otel_audit.capture.writes import Image, RowWrite
from otel_audit.instrumentation.django.connection import DjangoConnection
from otel_audit.instrumentation.django.loaded import STATE_KEY, Loaded, Saving, put_back
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
from otel_audit.instrumentation.django.plan.stored import Prepared
from otel_audit.instrumentation.django.writes.known import done, run_known, wrote
from otel_audit.instrumentation.django.writes.state import Capture
from otel_audit.instrumentation.django.writes.statement import CompiledStatement
from otel_audit.instrumentation.django.writes.update_statement import prepare
from otel_audit.interruptions import faults
from otel_audit.named_tuples import NamedTuple
from otel_audit.values import ATOMS, is_written, same


class _Save(NamedTuple):
    """A save about to run: what it writes, and of the instance what it had loaded and will have."""

    plan: ModelPlan
    write: RowWrite
    connection: DjangoConnection
    statement: CompiledStatement | None
    state: Any
    row: dict[str, Any]
    loaded: Loaded

    def note(self, capture: Capture, compiler: Any, result: Any) -> None:
        """Note that it ran and returned ``result``."""
        if not result:
            _note_nothing(capture, compiler, self)
            return
        state = self.state
        state.__dict__[STATE_KEY] = Loaded(None, self.row, capture.thread.epoch, wrote(capture, self))
        self.write.on_undo = (put_back, state, self.loaded)
        done(self)


def save_quickly(
    capture: Capture, plan: ModelPlan, compiler: Any, saving: Saving, run: Callable[[], Any]
) -> Any:
    """Run the UPDATE of a common save and note it; ``NotImplemented`` if it is not one, and nothing ran."""
    try:
        save = _prepare(capture, plan, compiler, saving)
    except faults():  # whatever it is, the long way says so
        save = None
    if save is None:
        return NotImplemented
    capture.thread.saving = None
    return run_known(capture, compiler, save, run)


def _note_nothing(capture: Capture, compiler: Any, save: _Save) -> None:
    """Note a save whose row count is 0: its row is gone, or written by rules or triggers nobody counts."""
    plan = save.plan
    column = compiler.query.values[0][0].column
    statement = save.statement or CompiledStatement(capture, compiler, plan, "update")
    statement.done(*statement.uncounted(capture.abilities(compiler.connection, plan, "update", column)))


def _unusual(plan: ModelPlan, field: Any, value: Any) -> Any:
    """Freeze a value that is not plain, or not stored as it is; ``UNSET`` where the long way must."""
    if type(field) is Prepared:
        return field.frozen
    if hasattr(value, "resolve_expression") or hasattr(value, "prepare_database_save"):
        return UNSET
    return plan.by_attname[field.attname].frozen(value)


def _prepare(capture: Capture, plan: ModelPlan, compiler: Any, saving: Saving) -> _Save | None:
    """Compare what is written with what was loaded; ``None`` unless everything is plain and certain."""
    instance, key, _ = saving
    connection = compiler.connection
    blocks = connection.atomic_blocks
    state = instance._state
    loaded = state.__dict__.get(STATE_KEY)
    alias = connection.alias
    if (
        (blocks and blocks[-1]._from_testcase)
        or plan.generated
        or plan.snapshot
        or type(loaded) is not Loaded
        or state.db != alias
        or plan.old_values == "exact"
        or type(key) not in ATOMS
        or not capture.freshness.current(alias, plan.table, key, loaded, capture.thread)
    ):
        return None
    row = loaded.by_name()
    if row.get(plan.keys[0].attname, UNSET) != key or len(plan.keys) != 1:
        return None
    changed: list[tuple[ModelFieldPlan, Any, Any]] = []
    significant = False
    attnames: list[str] = []
    custom, mutable = plan.custom, plan.mutable
    if custom:
        prepare(plan, compiler, instance)
    for field, _, value in compiler.query.values:
        attname = field.attname
        attnames.append(attname)
        old = row[attname]
        if old is value and attname not in custom:
            continue
        if attname in mutable or type(value) not in ATOMS:
            if attname not in custom and is_written(old, value):
                continue
            value = _unusual(plan, field, value)
            if value is UNSET:
                return None
            if same(old, value):
                continue
        elif old == value:
            continue
        target = plan.by_attname[attname]
        new = target.normal(value)
        if new is not value and same(old, new):
            continue
        changed.append((target, old, new))
        significant = significant or not target.automatic
    if not significant:
        return None
    after = row.copy()
    for target, _, new in changed:
        after[target.attname] = new
    ours = capture.connection(connection)
    image = Image(plan.by_attname, attnames, after)
    write = RowWrite(plan, "update", ours, key, changed, image, "as_loaded")
    statement = (
        None if connection.in_atomic_block else CompiledStatement(capture, compiler, plan, "update", write)
    )
    return _Save(plan, write, ours, statement, state, after, loaded)
