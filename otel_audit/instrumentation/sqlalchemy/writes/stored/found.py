"""Rows that were read before a statement writes them, by column."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

from otel_audit.capture.bulk import KnownColumns
from otel_audit.instrumentation.sqlalchemy.writes.stored.numbers import ShownColumns, can_wait
from otel_audit.named_tuples import NamedTuple

if TYPE_CHECKING:
    from otel_audit.audit_record import Completeness
    from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan
    from otel_audit.instrumentation.sqlalchemy.plan import MappedPlan


class Found(NamedTuple):
    """Rows that a statement is about to write, by column: key, old values, then what expressions give.

    There are no columns where there are no rows. ``forms`` say how numbers are still to be written, by place.
    """

    columns: list[list[Any]]
    completeness: Completeness
    made: list[ColumnPlan] = []  # noqa: RUF012 - never changed
    forms: dict[int, str] = {}  # noqa: RUF012 - never changed

    @property
    def count(self) -> int:  # type: ignore[override]
        """The number of rows."""
        return len(self.columns[0]) if self.columns else 0

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the rows."""
        return list(zip(*self.columns, strict=True))


class UniqueRow(NamedTuple):
    """A row by its unique values: those of all fields, and whether it is new, where that can be told."""

    values: list[Any]
    new: bool | None


def read_columns(result: Any, forms: dict[int, str] | None = None) -> list[list[Any]]:
    """Return all rows of a result by column; none where there are no rows.

    They are read as the driver has them, and each column by its type in one go: making rows of SQLAlchemy's
    costs more than all that is done with them.
    """
    described = result._metadata
    forms = {} if forms is None else forms
    if described._tuplefilter is not None:  # what is shown of a row is not what the driver has
        forms.clear()
        return list(map(list, zip(*result.all(), strict=True)))
    columns = list(map(list, zip(*result._fetchall_impl(), strict=True)))
    for place, process in enumerate(described._effective_processors or ()):
        if process is None or not columns:
            forms.pop(place, None)
        elif place not in forms or not can_wait(columns[place]):
            forms.pop(place, None)
            columns[place] = list(map(process, columns[place]))
    return columns


def frozen(
    fields: Sequence[ColumnPlan], columns: Sequence[list[Any]], waiting: Container[int] = ()
) -> list[list[Any]]:
    """Return columns with their values frozen: most need no conversion."""
    return [
        values if place in waiting else field.frozen_all(values)
        for place, (field, values) in enumerate(zip(fields, columns, strict=False))
    ]


def returned(plan: MappedPlan, found: Found, fields: Sequence[ColumnPlan]) -> KnownColumns:
    """Return what was found as the rows of a bulk record."""
    plans = [*plan.keys, *fields, *found.made]
    if found.forms:
        return ShownColumns(plans, found.columns, found.forms)
    return KnownColumns(plans, found.columns)
