"""What an UPDATE sets, and how that differs from a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from msgspec import UNSET

from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
from otel_audit.instrumentation.django.writes.sql import Returned
from otel_audit.values import ATOMS, freeze, same


class Update(NamedTuple):
    """One call of an UPDATE compiler.

    ``run`` executes it as Django would. ``result`` makes what the caller expects of a row count and the rows
    of ``returning`` fields.
    """

    compiler: Any
    plan: ModelPlan
    run: Callable[[], Any]
    result: Callable[[int, list[Any]], Any]
    returning: Sequence[ModelFieldPlan] = ()


class Assignment(NamedTuple):
    """What an UPDATE sets: values by field, frozen, and the fields set to expressions."""

    values: list[tuple[ModelFieldPlan, Any]]
    expressions: list[ModelFieldPlan]

    @property
    def fields(self) -> list[ModelFieldPlan]:
        return [*(plan for plan, _ in self.values), *self.expressions]


def assignment(plan: ModelPlan, query: Any) -> Assignment:
    """Read ``query.values``: what is written, after ``pre_save`` and ``update_fields``."""
    values: list[tuple[ModelFieldPlan, Any]] = []
    expressions: list[ModelFieldPlan] = []
    for field, _, value in query.values:
        target = plan.by_attname[field.attname]
        if type(value) not in ATOMS:
            if hasattr(value, "resolve_expression"):
                expressions.append(target)
                continue
            if hasattr(value, "prepare_database_save"):
                value = value.prepare_database_save(field)
            value = freeze(value)
        values.append((target, value))
    return Assignment(values, expressions)


def difference(
    values: Sequence[tuple[ModelFieldPlan, Any]], row: dict[str, Any]
) -> tuple[list[tuple[ModelFieldPlan, Any, Any]], list[tuple[ModelFieldPlan, Any]]]:
    """Compare values to write with a row: (changed as field, old, new; all as field, value)."""
    changed: list[tuple[ModelFieldPlan, Any, Any]] = []
    written: list[tuple[ModelFieldPlan, Any]] = []
    for plan, value in values:
        old = row.get(plan.attname, UNSET)
        if old is value or (old is not UNSET and same(freeze(old), value)):
            written.append((plan, old))
            continue
        new = plan.normal(value)
        if old is not UNSET and new is not value and same(freeze(old), new):
            written.append((plan, old))
            continue
        changed.append((plan, old if old is UNSET else freeze(old), new))
        written.append((plan, new))
    return changed, written


def returning_rows(
    update: Update, new: Sequence[ModelFieldPlan], returned: Returned, start: int
) -> list[Any]:
    """Give the rows the caller asked for; their conversion may raise as it would without us."""
    if not update.returning or returned.rows is None:
        return []
    positions = [start + new.index(field) for field in update.returning]
    return [tuple(row[i] for i in positions) for row in returned.rows.rows()]
