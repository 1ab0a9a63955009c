"""The common ``create()``: one object, nothing the database computes, inside a transaction.

The short way through what :mod:`.insert` does for every case. In autocommit the values are written ahead
without the key the database will give, and once more with it: that is left to the long way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import UNSET

from otel_audit.capture.writes import RowWrite, WholeRow
from otel_audit.errors import AuditError
from otel_audit.instrumentation.django.connection import DjangoConnection
from otel_audit.instrumentation.django.loaded import STATE_KEY, Loaded, put_back
from otel_audit.instrumentation.django.plan import ModelPlan
from otel_audit.instrumentation.django.writes.insert import (
    PLAIN,
    InsertStatement,
    fewer,
    new_key,
    values_of,
)
from otel_audit.instrumentation.django.writes.state import Capture
from otel_audit.interruptions import faults, interrupts
from otel_audit.values import Opaque


def insert_quickly(
    capture: Capture, plan: ModelPlan, compiler: Any, returning_fields: Any, run: Callable[[], Any]
) -> Any:
    """Run the INSERT of one common object and note it; ``NotImplemented`` if it is none, and nothing ran."""
    try:
        ours = _prepare(capture, plan, compiler)
    except faults():  # whatever it is, the long way says so
        ours = None
    if ours is None:
        return NotImplemented
    thread = capture.thread
    thread.runs += 1
    executed = thread.executed
    result: Any = UNSET
    write: RowWrite | None = None
    [instance] = compiler.query.objs
    if not returning_fields:
        thread.inserted = None
    try:
        result = run()
        if result in ([], [None]) and fewer(capture, compiler.connection, 1, returning_fields, result) == 0:
            InsertStatement(capture, compiler, plan, returning_fields).note_fewer(0)
            thread.statement = None
            ours.locked = True
            return result
        write, values = _known(plan, ours, instance, returning_fields, result)
        _remember(capture, write, ours, instance, values)
        ours.locked = True
        ours.add(write)
    except BaseException as error:
        if isinstance(error, AuditError):
            raise
        statement = InsertStatement(capture, compiler, plan, returning_fields)
        if result is UNSET:
            statement.raised(error, executed)
            raise
        if interrupts(error):
            statement.result = result
            _finish(ours, statement, write)
            raise
        statement.recover(error, 1)
    thread.statement = None
    return result


def _prepare(capture: Capture, plan: ModelPlan, compiler: Any) -> DjangoConnection | None:
    """Return our connection; None unless everything is plain."""
    connection, query = compiler.connection, compiler.query
    blocks = connection.atomic_blocks
    if (
        not blocks
        or blocks[-1]._from_testcase
        or query.on_conflict is not None
        or len(query.objs) != 1
        or plan.noted
        or plan.generated
        or len(plan.row) != len(plan.fields)  # the parts of an inherited model are joined
        or not PLAIN.issuperset(map(type, query.objs[0].__dict__.values()))
    ):
        return None
    return capture.connection(connection)


def _known(
    plan: ModelPlan, ours: DjangoConnection, instance: Any, asked: Any, result: Any
) -> tuple[RowWrite, dict[str, Any]]:
    """Return what was written, and the values by attname."""
    returned: dict[str, Any] = {}
    if asked and result:
        returned = {field.attname: value for field, value in zip(asked, result[0], strict=False)}
    values = values_of(plan, instance, returned, {})
    return RowWrite(plan, "create", ours, new_key(plan, values), WholeRow(plan.others, values)), values


def _remember(
    capture: Capture, write: RowWrite, ours: DjangoConnection, instance: Any, values: dict[str, Any]
) -> None:
    """Make what was written what the instance has loaded."""
    if Opaque in map(type, values.values()):
        values = {name: value for name, value in values.items() if type(value) is not Opaque}
    seq = capture.freshness.wrote(ours.name, write.plan.table, write.key, ours.mark)
    state = instance._state
    write.on_undo = (put_back, state, state.__dict__.get(STATE_KEY) or None)
    state.__dict__[STATE_KEY] = Loaded(None, values, capture.thread.epoch, seq)


def _finish(ours: DjangoConnection, statement: InsertStatement, write: RowWrite | None) -> None:
    """Note an INSERT that ran, where the application's own exception has interrupted us."""
    if write is None:
        statement.finish(1)
        return
    ours.wrote_many(write.plan, None)
    ours.add_once(write)
