"""UPDATE: old values from the objects of a flush, from the rows themselves where those do not know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET

from otel_audit.audit_record import OldValues
from otel_audit.capture.bulk import KnownColumns
from otel_audit.capture.writes import CapturedWrite, RowWrite
from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan
from otel_audit.instrumentation.sqlalchemy.writes.known import KnownRows, counts_rows, known_rows
from otel_audit.instrumentation.sqlalchemy.writes.running import (
    Running,
    returned_defaults,
)
from otel_audit.instrumentation.sqlalchemy.writes.shape import EXPRESSION
from otel_audit.instrumentation.sqlalchemy.writes.stored.found import Found, returned
from otel_audit.named_tuples import NamedTuple


class _Prepared(NamedTuple):
    """Rows named by key: those known before, what becomes of each, and the fields with old values."""

    known: KnownRows
    new: dict[ColumnPlan, list[Any]]
    old: list[ColumnPlan]


def prepare(running: Running) -> None:
    """Find out what the rows of an UPDATE hold."""
    shape, plan = running.shape, running.shape.plan
    old = list(plan.fields) if plan.snapshot else list(shape.fields)
    if shape.key is not None:
        known = known_rows(running, shape.key, old)
        new = {
            field: field.frozen_all(running.given(name)) for field, name in shape.sets if name != EXPRESSION
        }
        running.found = _Prepared(known, new, old)
    elif plan.old_values != "off":
        running.found = running.matching(old)


def intent(running: Running) -> CapturedWrite:
    """Return what is known of an UPDATE before it has run."""
    write = None
    if isinstance(running.found, _Prepared) and len(running.parameters) == 1:
        write = _row(running, running.found, 0)
    return write or running.named()


def note(running: Running) -> Sequence[CapturedWrite]:
    """Return what an UPDATE has written."""
    found: Any = running.found
    if isinstance(found, _Prepared):
        return _note_known(running, found)
    running.state.doubtful.add(running.shape.plan.table)
    if isinstance(found, Found) and counts_rows(running, found.count):
        return _note_found(running, found)
    return running.counted(running.count)


def _note_known(running: Running, prepared: _Prepared) -> Sequence[CapturedWrite]:
    plan, known = running.shape.plan, prepared.known
    if running.count == 0:
        return []
    places = known.written(running)
    if places is None:
        return running.counted(running.count)
    if not known.flushed:
        running.state.doubtful.add(plan.table)
    prepared.new.update(_made(running, prepared, places))
    if len(places) == 1:
        write = _row(running, prepared, places[0])
        return [] if write is None else [write]
    old = [] if known.old is None else prepared.old
    new = list(prepared.new)
    columns = known.at(places, [*known.keys, *(known.old or ()), *prepared.new.values()])
    return [
        running.bulk(
            len(places),
            rows=KnownColumns([*plan.keys, *old, *new], columns),
            old=old,
            new=new,
            old_values=known.old_values,
        )
    ]


def _made(running: Running, prepared: _Prepared, places: list[int]) -> dict[ColumnPlan, list[Any]]:
    """Return what the database has made of expressions, by field: as it was returned, or read by key."""
    plan = running.shape.plan
    fields = [field for field, name in running.shape.sets if name == EXPRESSION]
    if not fields:
        return {}
    told = returned_defaults(running, len(prepared.known))
    unknown = [field for field in fields if field not in told]
    if all(field.automatic for field in unknown) or plan.old_values == "off":
        return told  # when a row was last written is not worth a query
    if any(field in plan.keys for field in running.shape.fields):
        return told
    keys = [prepared.known.parts[place] for place in places]
    if len(keys) > running.section.max_bulk_rows:
        return told
    now = running.reader().by_keys(keys, unknown, lock=False)
    if now is None or any(key not in now for key in keys):
        return told
    for position, field in enumerate(unknown):
        told[field] = [now[part][position] if part in now else None for part in prepared.known.parts]
    return told


def _row(running: Running, prepared: _Prepared, place: int) -> RowWrite | None:
    """Return the change of one row, None if nothing that counts has changed."""
    plan, known = running.shape.plan, prepared.known
    before = {} if known.old is None else dict(zip(prepared.old, known.row(place), strict=True))
    changed: list[tuple[Any, Any, Any]] = []
    counts = False
    for field in running.shape.fields:
        old = before.get(field, UNSET)
        new = prepared.new[field][place] if field in prepared.new else UNSET
        if old is not UNSET and new is not UNSET and field.equal(old, new):
            continue
        changed.append((field, old, new))
        counts = counts or not field.automatic
    if not counts:
        return None
    written = [(field, values[place]) for field, values in prepared.new.items()]
    if plan.snapshot:
        shown = {**before, **{field: values[place] for field, values in prepared.new.items()}}
        unknown = [field for field in running.shape.fields if field not in prepared.new]
        written = [(field, value) for field, value in shown.items() if field not in unknown]
    certain: OldValues | None = known.old_values if known.old is not None else None
    return RowWrite(plan, "update", running.state, known.key(place), changed, written, certain)


def _note_found(running: Running, found: Found) -> Sequence[CapturedWrite]:
    shape, plan = running.shape, running.shape.plan
    if not found.count:
        return []
    if found.completeness != "full":
        return [
            running.bulk(
                found.count,
                rows=KnownColumns(plan.keys, found.columns),
                new=shape.fields,
                completeness=found.completeness,
            )
        ]
    old = list(plan.fields) if plan.snapshot else list(shape.fields)
    found = _with_made(running, found)
    parameters = running.parameters[0]
    constant = [
        (field, field.frozen(parameters.get(name))) for field, name in shape.sets if name != EXPRESSION
    ]
    return [
        running.bulk(
            found.count,
            rows=returned(plan, found, old),
            old=old,
            new=found.made,
            constant=constant,
            old_values="as_loaded" if running.state.alone else "exact",
        )
    ]


def _with_made(running: Running, found: Found) -> Found:
    """Add what expressions became that could not be evaluated beforehand, read by key."""
    plan = running.shape.plan
    fields = [
        field
        for field, name in running.shape.sets
        if name == EXPRESSION and field not in found.made and not field.automatic
    ]
    if not fields or any(field in plan.keys for field in running.shape.fields):
        return found
    width = len(plan.keys)
    keys = list(zip(*found.columns[:width], strict=True))
    now = running.reader().by_keys(keys, fields, lock=False)
    if now is None or any(key not in now for key in keys):
        return found
    made = map(list, zip(*[now[key] for key in keys], strict=True))
    return Found([*found.columns, *made], found.completeness, [*found.made, *fields])
