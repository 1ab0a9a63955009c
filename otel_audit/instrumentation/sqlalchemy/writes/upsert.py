"""INSERT that does something else where a row is in its way: ``ON CONFLICT``, ``IGNORE`` and the like.

The rows in the way are read before it, locked where that hinders nobody, and once more afterwards. Which of
them are new the database says: by ``xmax`` on PostgreSQL, by having one writer only on SQLite, by its row
count on MariaDB. Where that leaves a doubt, the record says that so many rows were inserted or updated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Index, PrimaryKeyConstraint, UniqueConstraint

from otel_audit.audit_record import OldValues
from otel_audit.capture.bulk import ReturnedRows
from otel_audit.capture.plan import Verb
from otel_audit.capture.writes import CapturedWrite
from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan
from otel_audit.instrumentation.sqlalchemy.plan import MappedPlan
from otel_audit.instrumentation.sqlalchemy.writes.running import Running
from otel_audit.instrumentation.sqlalchemy.writes.shape import EXPRESSION, Shape, unannotated
from otel_audit.instrumentation.sqlalchemy.writes.stored.found import UniqueRow
from otel_audit.named_tuples import NamedTuple


class Conflicts(NamedTuple):
    """What an upsert may meet: values of unique columns, and the rows that had them before, by key."""

    values: dict[tuple[ColumnPlan, ...], list[tuple[Any, ...]]]
    before: dict[tuple[Any, ...], UniqueRow]


def prepare(running: Running) -> Conflicts | None:
    """Read the rows that are in the way; ``None`` where nobody can know them."""
    shape, plan = running.shape, running.shape.plan
    if plan.old_values == "off" or not plan.keys or shape.selects or len(running.rows()) > 1000:
        return None
    ways = list(_ways(shape))
    values = _values(running, ways)
    if values is None:
        return None
    before = running.reader().by_unique(
        values, lock=running.state.system == "postgresql" and not shape.ignores
    )
    return None if before is None else Conflicts(values, before)


def note(running: Running, conflicts: Conflicts) -> Sequence[CapturedWrite]:
    """Return what an upsert has made and changed."""
    plan, before = running.shape.plan, conflicts.before
    reader = running.reader()
    after = reader.by_unique(conflicts.values, lock=False, tells_new=reader.abilities().tells_new_rows)
    if after is None:
        return unclear(running)
    fresh = [key for key in after if key not in before]
    there = [] if running.shape.ignores else [key for key in after if key in before]
    verdict = _new_ones(running, before, after, fresh, there)
    if verdict is None:
        return unclear(running)
    changed = [*there, *(key for key in fresh if key not in verdict)]
    writes: list[CapturedWrite] = []
    created = [key for key in fresh if key in verdict]
    if created:
        rows = [(*key, *_others(plan, after[key])) for key in created]
        writes.append(_bulk(running, "create", rows, new=plan.others))
    known = [key for key in changed if key in before]
    if known:
        rows = [(*key, *_others(plan, before[key]), *_others(plan, after[key])) for key in known]
        certain: OldValues = "exact" if running.state.system in ("postgresql", "sqlite") else "as_loaded"
        writes.append(_bulk(running, "update", rows, old=plan.others, new=plan.others, old_values=certain))
    unknown = [key for key in changed if key not in before]
    if unknown:
        rows = [(*key, *_others(plan, after[key])) for key in unknown]
        writes.append(_bulk(running, "update", rows, new=plan.others))
    return writes


def _new_ones(
    running: Running,
    before: dict[tuple[Any, ...], UniqueRow],
    after: dict[tuple[Any, ...], UniqueRow],
    fresh: list[tuple[Any, ...]],
    there: list[tuple[Any, ...]],
) -> set[tuple[Any, ...]] | None:
    """Return which of the rows that were not there before are new; ``None``: that is not known.

    The others were made by another transaction meanwhile, and changed by ours.
    """
    shape, state, count = running.shape, running.state, running.count
    if not fresh and (count is None or shape.ignores or count <= len(there)):
        return set()
    if state.dialect.one_writer:
        return set(fresh)
    if shape.ignores:
        return set(fresh) if count == len(fresh) else None
    if state.system in ("mysql", "mariadb"):
        changed = sum(before[key].values != after[key].values for key in there)
        # Rows that are found count once, those that change twice.
        return set(fresh) if count == len(fresh) + len(there) + changed else None
    if any(after[key].new is None for key in fresh) or (
        shape.conditional and not all(after[key].new for key in fresh)
    ):
        return None
    return {key for key in fresh if after[key].new}


def _others(plan: MappedPlan, row: UniqueRow) -> list[Any]:
    values = dict(zip(plan.fields, row.values, strict=True))
    return [values[field] for field in plan.others]


def _bulk(running: Running, verb: Verb, rows: list[tuple[Any, ...]], **known: Any) -> CapturedWrite:
    return running.bulk(len(rows), verb=verb, rows=ReturnedRows(running.shape.plan.keys, rows), **known)


def unclear(running: Running) -> Sequence[CapturedWrite]:
    """Say of how many rows it is not known whether they were inserted or updated."""
    plan, count = running.shape.plan, running.count
    running.state.doubtful.add(plan.table)
    if count == 0:
        return []
    verb: Verb = "create" if running.shape.ignores else "upsert"
    write = running.bulk(count or 0, verb=verb, new=running.shape.fields)
    if count is None:
        write.completeness = "statement"
    return [write]


# --- which rows may be in the way -------------------------------------------------------------------


def _ways(shape: Shape) -> Iterable[tuple[ColumnPlan, ...]]:
    """Return the columns that must not be there twice, those the statement names or all of the table."""
    plan, clause = shape.plan, shape.conflict
    named = getattr(clause, "inferred_target_elements", None)
    if named:
        fields = tuple([_field(plan, each) for each in named])
        if None not in fields:
            yield fields  # type: ignore[misc]
        return
    table = plan.fields[0].column.table
    constraint = getattr(clause, "constraint_target", None)
    for each in (*table.constraints, *table.indexes):
        if constraint is not None and each.name != constraint:
            continue
        if isinstance(each, UniqueConstraint | PrimaryKeyConstraint) or (
            isinstance(each, Index) and each.unique
        ):
            columns = tuple(plan.by_column.get(column) for column in each.columns)
            if columns and None not in columns:
                yield columns  # type: ignore[misc]


def _field(plan: MappedPlan, element: Any) -> ColumnPlan | None:
    if isinstance(element, str):
        return next((field for field in plan.fields if field.column.name == element), None)
    return plan.by_column.get(unannotated(element))


def _values(
    running: Running, ways: list[tuple[ColumnPlan, ...]]
) -> dict[tuple[ColumnPlan, ...], list[tuple[Any, ...]]] | None:
    """Return what each row has in its unique columns; ``None`` where it has a value in none of them."""
    names = {field: name for field, name in running.shape.sets if name != EXPRESSION}
    found: dict[tuple[ColumnPlan, ...], list[tuple[Any, ...]]] = {}
    for row in running.rows():
        known = False
        for way in ways:
            if all(field in names and row.get(names[field]) is not None for field in way):
                found.setdefault(way, []).append(tuple([row[names[field]] for field in way]))
                known = True
        if not known:
            return None
    return found or None
