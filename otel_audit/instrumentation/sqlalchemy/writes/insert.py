"""INSERT: values from the parameters, keys from them or from what the database has returned."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

from msgspec import UNSET

from otel_audit.capture.bulk import KnownColumns
from otel_audit.capture.writes import CapturedWrite, RowWrite
from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan
from otel_audit.instrumentation.sqlalchemy.plan import MappedPlan
from otel_audit.instrumentation.sqlalchemy.writes import upsert
from otel_audit.instrumentation.sqlalchemy.writes.returned import returned_columns, returned_rows
from otel_audit.instrumentation.sqlalchemy.writes.running import (
    Running,
    in_order,
    returned_defaults,
)
from otel_audit.instrumentation.sqlalchemy.writes.shape import EXPRESSION
from otel_audit.interruptions import faults

_COUNTED: Final = object()
"""Stands for the values of many rows of which only their number is recorded: nothing tells their keys."""


def prepare(running: Running) -> None:
    """Find out what an INSERT writes."""
    if running.shape.upsert:
        running.found = None if running.shape.replaces else upsert.prepare(running)
    elif not running.shape.selects:
        running.found = _COUNTED if _is_counted(running) else _values(running)


def intent(running: Running) -> CapturedWrite:
    """Return what is known of an INSERT before it has run."""
    columns, plan = running.found, running.shape.plan
    if type(columns) is not dict or len(running.rows()) != 1:
        return running.named()
    key = _key_of(plan, {field: values[0] for field, values in columns.items()})
    changed = [(field, UNSET, values[0]) for field, values in columns.items() if field in plan.others]
    return RowWrite(plan, "create", running.state, key, changed)


def _is_counted(running: Running) -> bool:
    """Say whether nothing will tell the keys of many rows: of those only their number is recorded."""
    plan, rows = running.shape.plan, running.rows()
    if len(rows) < 2 or running.context.compiled.effective_returning:
        return False
    names = {field: name for field, name in running.shape.sets if name != EXPRESSION}
    return any(field not in names or rows[0].get(names[field]) is None for field in plan.keys)


def note(running: Running) -> Sequence[CapturedWrite]:
    """Return what an INSERT has written."""
    plan = running.shape.plan
    if isinstance(running.found, upsert.Conflicts):
        return upsert.note(running, running.found)
    if running.found is None:
        return upsert.unclear(running) if running.shape.upsert else running.counted(running.count)
    count = len(running.rows())
    if running.found is _COUNTED:
        return running.counted(count)
    columns: dict[ColumnPlan, list[Any]] = running.found
    columns.update(returned_defaults(running, count))
    keys = _keys(running, columns, count)
    if keys is None:
        columns, keys = _told_by_returning(running, columns, count)
    if keys is None:
        return running.counted(count)
    others = [field for field in plan.others if field in columns]
    if count == 1:
        key = keys[0]
        changed = [(field, UNSET, columns[field][0]) for field in others]
        return [RowWrite(plan, "create", running.state, key, changed)]
    told = [*plan.keys, *others]
    return [running.bulk(count, rows=KnownColumns(told, [columns[field] for field in told]), new=others)]


def _values(running: Running) -> dict[ColumnPlan, list[Any]]:
    """Return the values that the parameters hold, by column; and None where nothing makes another one."""
    shape, parameters = running.shape, running.rows()
    columns: dict[ColumnPlan, list[Any]] = {}
    for field, name in shape.sets:
        if name != EXPRESSION:
            try:
                values = list(map(itemgetter(name), parameters))
            except KeyError:  # not in each of the rows
                continue
            columns[field] = field.frozen_all(values)
    for field in shape.plan.fields:
        if field not in shape.fields and field not in shape.plan.keys and not _made_by_database(field.column):
            columns[field] = [None] * len(parameters)
    return columns


def _made_by_database(column: Any) -> bool:
    return (
        column.server_default is not None
        or column.identity is not None
        or column.computed is not None
        or column.default is not None
    )


def _keys(running: Running, columns: dict[ColumnPlan, list[Any]], count: int) -> list[Any] | None:
    """Return the keys of all new rows; None where one is not known."""
    plan = running.shape.plan
    if not plan.keys:
        return None
    made = None
    missing = [field for field in plan.keys if not _complete(columns.get(field))]
    if missing:
        made = _primary_keys(running, count)
        if made is None:
            return None
        for position, field in enumerate(plan.keys):
            columns[field] = field.frozen_all([key[position] for key in made])
        if not all(_complete(columns[field]) for field in plan.keys):
            return None
    if len(plan.keys) == 1:
        return columns[plan.keys[0]]
    return list(zip(*(columns[field] for field in plan.keys), strict=True))


def _told_by_returning(
    running: Running, columns: dict[ColumnPlan, list[Any]], count: int
) -> tuple[dict[ColumnPlan, list[Any]], list[Any] | None]:
    """Return values and keys as the application's own RETURNING tells them; None: it does not.

    Of several rows all values are taken from there: nothing says which row is whose.
    """
    rows = returned_rows(running)
    if rows is None or len(rows) != count:
        return columns, None
    told = returned_columns(running, rows)
    if any(field not in told for field in running.shape.plan.keys):
        return columns, None
    if count == 1 or in_order(running, count):
        told = {**columns, **told}
    return told, _keys(running, told, count)


def _primary_keys(running: Running, count: int) -> Sequence[Any] | None:
    """Return the primary keys that SQLAlchemy knows of the new rows."""
    context = running.context
    if getattr(running.shape.statement, "_returning", ()) and count > 1:
        return None
    try:
        made = context.inserted_primary_key_rows
    except faults():
        return None
    if made is None or len(made) != count or (count > 1 and not in_order(running, count)):
        return None
    return list(made)


def _complete(values: list[Any] | None) -> bool:
    return values is not None and None not in values


def _key_of(plan: MappedPlan, values: dict[ColumnPlan, Any]) -> Any:
    key = tuple([values.get(field, UNSET) for field in plan.keys])
    if not key or any(part is UNSET or part is None for part in key):
        return UNSET
    return key[0] if len(key) == 1 else key
