"""INSERT: values from the parameters, keys from them or from what the database has returned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import UNSET

from otel_audit.capture.bulk import ReturnedRows, limited
from otel_audit.capture.writes import CapturedWrite, RowWrite
from otel_audit.instrumentation.sqlalchemy.plan import ColumnPlan, MappedPlan
from otel_audit.instrumentation.sqlalchemy.writes.running import (
    Running,
    frozen_column,
    in_order,
    returned_defaults,
)
from otel_audit.instrumentation.sqlalchemy.writes.shape import EXPRESSION
from otel_audit.interruptions import faults


def prepare(running: Running) -> CapturedWrite | None:
    """Return what is known of an INSERT before it runs."""
    if not _tells_rows(running):
        running.intent = running.named()
        return running.intent
    columns = _values(running)
    if len(running.parameters) == 1:
        key = _key_of(running.shape.plan, {field: values[0] for field, values in columns.items()})
        running.intent = RowWrite(
            running.shape.plan,
            "create",
            running.state,
            key,
            [
                (field, UNSET, values[0])
                for field, values in columns.items()
                if field in running.shape.plan.others
            ],
        )
    else:
        running.intent = running.named()
    running.found = columns
    return running.intent


def _tells_rows(running: Running) -> bool:
    shape = running.shape
    return not (shape.several or shape.selects or shape.upsert)


def note(running: Running) -> Sequence[CapturedWrite]:
    """Return what an INSERT has written."""
    plan = running.shape.plan
    if running.found is None:
        return _unnamed(running)
    count = len(running.parameters)
    columns: dict[ColumnPlan, list[Any]] = running.found
    columns.update(returned_defaults(running, count))
    keys = _keys(running, columns, count)
    if keys is None:
        return running.counted(count)
    others = [field for field in plan.others if field in columns]
    if count == 1:
        key = keys[0]
        running.state.wrote(plan, key)
        changed = [(field, UNSET, columns[field][0]) for field in others]
        return [RowWrite(plan, "create", running.state, key, changed)]
    running.state.wrote_many(plan, keys if len(keys) <= 1000 else None)
    parts = [[key] for key in keys] if len(plan.keys) == 1 else [list(key) for key in keys]
    rows = (
        [
            (*part, *values)
            for part, values in zip(
                parts, zip(*(columns[field] for field in others), strict=True), strict=True
            )
        ]
        if others
        else [tuple(part) for part in parts]
    )
    write = running.bulk(count, rows=ReturnedRows(plan.keys, rows), new=others)
    return [limited(write, running.section)]


def _unnamed(running: Running) -> Sequence[CapturedWrite]:
    """Return what is known where neither keys nor rows are: how many, or only that."""
    return running.counted(running.count)


def _values(running: Running) -> dict[ColumnPlan, list[Any]]:
    """Return the values that the parameters hold, by column; and None where nothing makes another one."""
    shape, parameters = running.shape, running.parameters
    columns: dict[ColumnPlan, list[Any]] = {}
    written = set()
    for field, name in shape.sets:
        written.add(field)
        if name != EXPRESSION:
            columns[field] = frozen_column(field, [each.get(name) for each in parameters])
    for field in shape.plan.fields:
        if field not in written and field not in shape.plan.keys and not _made_by_database(field.column):
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
            columns[field] = frozen_column(field, [key[position] for key in made])
        if not all(_complete(columns[field]) for field in plan.keys):
            return None
    if len(plan.keys) == 1:
        return columns[plan.keys[0]]
    return list(zip(*(columns[field] for field in plan.keys), strict=True))


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


def _complete(values: Iterable[Any] | None) -> bool:
    return values is not None and all(value is not None for value in values)


def _key_of(plan: MappedPlan, values: dict[ColumnPlan, Any]) -> Any:
    key = tuple([values.get(field, UNSET) for field in plan.keys])
    if not key or any(part is UNSET or part is None for part in key):
        return UNSET
    return key[0] if len(key) == 1 else key
