"""The common save: an instance loaded or written here, plain values, something changed.

The short way through what :mod:`.saves` does for every case; it notices early that a save is anything else
and leaves it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from msgspec import UNSET

from otel_audit.capture.freshness import COMMITTED
from otel_audit.capture.writes import RowWrite
from otel_audit.errors import AuditError
from otel_audit.instrumentation.django.connection import DjangoConnection
from otel_audit.instrumentation.django.loaded import STATE_KEY, Loaded, Saving, put_back
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
from otel_audit.instrumentation.django.stored import Prepared
from otel_audit.instrumentation.django.writes.state import Capture, CompiledStatement
from otel_audit.instrumentation.django.writes.update_statement import prepare
from otel_audit.interruptions import faults, interrupts
from otel_audit.values import ATOMS, same


class _Image:
    """All values a save wrote, put together only when the record is made."""

    __slots__ = ("_attnames", "_plan", "_row")

    def __init__(self, plan: ModelPlan, attnames: Sequence[str], row: dict[str, Any]) -> None:
        self._plan = plan
        self._attnames = attnames
        self._row = row

    def __iter__(self) -> Iterator[tuple[ModelFieldPlan, Any]]:
        by_attname, row = self._plan.by_attname, self._row
        return iter([(by_attname[attname], row[attname]) for attname in self._attnames])


class _Save(NamedTuple):
    """A save about to run; ``statement`` is None inside a transaction, where nothing is written ahead yet."""

    write: RowWrite
    row: dict[str, Any]
    loaded: Loaded
    connection: DjangoConnection
    statement: CompiledStatement | None


def save_quickly(
    capture: Capture, plan: ModelPlan, compiler: Any, saving: Saving, run: Callable[[], Any]
) -> Any:
    """Run the UPDATE of a common save and note it; ``NotImplemented`` if it is not one, and nothing ran."""
    try:
        prepared = _prepare(capture, plan, compiler, saving)
    except faults():  # whatever it is, the long way says so
        prepared = None
    if prepared is None:
        return NotImplemented
    write, row, loaded, connection, statement = prepared
    thread = capture.thread
    thread.saving = None
    result: Any = UNSET
    try:
        if statement is None:
            result = _run_in_transaction(capture, compiler, plan, write, run)
        else:
            result = statement.run(run, lambda: write)
        if result:
            mark = COMMITTED if statement is not None and statement.immediate else connection.mark
            seq = capture.freshness.wrote(connection.name, plan.table, write.key, mark)
            state = saving.instance._state
            write.on_undo = (put_back, state, loaded)
            state.__dict__[STATE_KEY] = Loaded(None, row, thread.epoch, seq)
            if statement is not None:
                statement.done(write)
            else:
                connection.locked = True
                connection.add(write)
        else:
            _note_nothing(capture, compiler, plan, statement)
    except BaseException as error:
        if statement is not None and statement.result is not UNSET:
            result = statement.result
        if result is UNSET or isinstance(error, AuditError):
            raise
        if interrupts(error):
            _finish(prepared, result)
            raise
        (statement or CompiledStatement(capture, compiler, plan, "update")).recover(error, result)
    thread.statement = None
    return result


def _note_nothing(
    capture: Capture, compiler: Any, plan: ModelPlan, statement: CompiledStatement | None
) -> None:
    """Note a save whose row count is 0: its row is gone, or written by rules or triggers nobody counts."""
    column = compiler.query.values[0][0].column
    statement = statement or CompiledStatement(capture, compiler, plan, "update")
    statement.done(*statement.uncounted(capture.abilities(compiler.connection, plan, "update", column)))


def _finish(save: _Save, result: Any) -> None:
    """Note a save that ran, where the application's own exception has interrupted us."""
    connection = save.connection
    if save.statement is not None:
        save.statement.finish(1 if result else 0, save.write)
    elif result:
        connection.wrote_many(save.write.plan, None)
        if not connection.buffer.holds(save.write):
            connection.add(save.write)


def _run_in_transaction(
    capture: Capture, compiler: Any, plan: ModelPlan, write: RowWrite, run: Callable[[], Any]
) -> Any:
    """Run the UPDATE; the intent of it is written with the others of its transaction."""
    thread = capture.thread
    thread.runs += 1
    executed = thread.executed
    try:
        return run()
    except BaseException as error:
        CompiledStatement(capture, compiler, plan, "update").raised(error, executed, lambda: write)
        raise


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
    ours = capture.transactions.state(connection)
    if not ours.system:
        ours.identify()
    image = _Image(plan, attnames, after)
    write = RowWrite(plan, "update", ours, key, changed, image, "as_loaded")
    statement = None if connection.in_atomic_block else CompiledStatement(capture, compiler, plan, "update")
    return _Save(write, after, loaded, ours, statement)
