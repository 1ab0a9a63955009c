"""The columns of a bulk record: pure functions from rows' values to what the record carries."""

from __future__ import annotations

import operator
from typing import Any, Final

import msgspec
from msgspec import UNSET

from otel_audit.instrumentation.django.plan import FieldPlan
from otel_audit.record import Change, Column
from otel_audit.values import Portable, freeze, record_value, same

_MAX_BYTES: Final = 1024 * 1024
_PLAIN: Final = frozenset({type(None), bool, int, str})


def shown(values: list[Any]) -> list[Portable]:
    """Give a column's values as the record carries them."""
    # Looked at by class once: most columns need nothing done to their values.
    if _PLAIN.issuperset(map(type, values)):
        return values
    return [record_value(freeze(value))[0] for value in values]


def change(plan: FieldPlan, old: Any, new: Any) -> Change:
    """Make the change of one row of a bulk statement, of which there was only one."""
    kind = ""
    if old is not UNSET:
        old, kind = record_value(freeze(old))
    if new is not UNSET:
        new, new_kind = record_value(freeze(new))
        kind = new_kind or kind
    return Change(plan.name, old, new, kind)


def column_type(*columns: list[Any] | None) -> str:
    for column in columns:
        for value in column or ():
            if value is not None:
                return record_value(freeze(value))[1]
    return ""


def changed_only(
    keys: list[Any], columns: list[tuple[FieldPlan, list[Any] | None, list[Any] | None]]
) -> tuple[list[Any], list[tuple[FieldPlan, list[Any] | None, list[Any] | None]]]:
    """Leave out rows and columns in which nothing differs; a value not known counts as different."""
    differs: list[list[bool]] = []
    for plan, old, new in columns:
        if old is None or new is None:
            differs.append([True] * len(keys))
            continue
        differs.append(_differing(plan, old, new))
    kept = [index for index in range(len(keys)) if any(column[index] for column in differs)]
    if len(kept) == len(keys) and all(any(column) for column in differs):
        return keys, columns
    return [keys[index] for index in kept], [
        (plan, old and [old[index] for index in kept], new and [new[index] for index in kept])
        for (plan, old, new), column in zip(columns, differs, strict=True)
        if any(column)
    ]


def _differing(plan: FieldPlan, old: list[Any], new: list[Any]) -> list[bool]:
    if _PLAIN.issuperset(map(type, old)) and {type(None), *map(type, old)}.issuperset(map(type, new)):
        return list(map(operator.ne, old, new))
    return [not _equal(plan, before, after) for before, after in zip(old, new, strict=True)]


def _equal(plan: FieldPlan, old: Any, new: Any) -> bool:
    old, new = freeze(old), freeze(new)
    return same(old, new) or same(old, plan.normal(new))


def split(
    keys: list[str],
    columns: list[Column],
    start: int,
    stop: int,
    slices: list[tuple[list[str], list[Column]]],
) -> None:
    """Cut rows ``start`` to ``stop`` into pieces of at most 1 MiB, by halves."""
    some, part = _rows(keys, columns, start, stop)
    if stop - start > 1 and len(msgspec.json.encode((some, part))) > _MAX_BYTES:
        middle = (start + stop) // 2
        split(keys, columns, start, middle, slices)
        split(keys, columns, middle, stop, slices)
    else:
        slices.append((some, part))


def halves(keys: list[str], columns: list[Column]) -> list[tuple[list[str], list[Column]]]:
    """Cut rows in two."""
    middle = len(keys) // 2
    return [_rows(keys, columns, 0, middle), _rows(keys, columns, middle, len(keys))]


def _rows(keys: list[str], columns: list[Column], start: int, stop: int) -> tuple[list[str], list[Column]]:
    part = [
        Column(
            column.field,
            column.old[start:stop] if column.old is not UNSET else UNSET,
            column.new[start:stop] if column.new is not UNSET else UNSET,
            column.type,
        )
        for column in columns
    ]
    return keys[start:stop], part
