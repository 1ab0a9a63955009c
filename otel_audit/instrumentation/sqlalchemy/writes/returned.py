"""Rows that the application's own RETURNING brings: looked at, and left for the application to fetch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import Row
from sqlalchemy.engine.cursor import CursorFetchStrategy, FullyBufferedCursorFetchStrategy

from otel_audit.instrumentation.sqlalchemy.writes.running import Running
from otel_audit.instrumentation.sqlalchemy.writes.shape import unannotated

if TYPE_CHECKING:
    from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan


def returned_rows(running: Running) -> Sequence[Any] | None:
    """Return the rows of RETURNING, None if the statement has none or streams them.

    They are buffered, as SQLAlchemy itself does with those of many INSERTs.
    """
    context, result = running.context, running.result
    if not running.context.compiled.effective_returning or result is None:
        return None
    if context._insertmanyvalues_rows is not None:
        rows: Sequence[Any] = context._insertmanyvalues_rows
        return rows
    if context.returned_default_rows is not None:
        return list(context.returned_default_rows)
    strategy = result.cursor_strategy
    if type(strategy) is not CursorFetchStrategy or result.cursor is None:
        return None
    buffered = FullyBufferedCursorFetchStrategy(
        result.cursor, alternate_description=strategy.alternate_cursor_description
    )
    result.cursor_strategy = buffered
    return list(buffered._rowbuffer)


def returned_columns(running: Running, rows: Sequence[Any]) -> dict[ColumnPlan, list[Any]]:
    """Return the values of those columns of the table that are among what was returned, frozen."""
    compiled, dialect = running.context.compiled, running.context.dialect
    description = running.context.cursor.description or ()
    found: dict[ColumnPlan, list[Any]] = {}
    raw = not rows or not isinstance(
        rows[0], Row
    )  # rows of SQLAlchemy's hold what its types have made already
    for place, entry in enumerate(compiled._result_columns):
        field = next(
            (
                running.shape.plan.by_column[column]
                for column in map(unannotated, entry.objects)
                if column in running.shape.plan.by_column
            ),
            None,
        )
        if field is None or field in found or (rows and place >= len(rows[0])):
            continue
        kind = description[place][1] if place < len(description) else None
        process = field.column.type._cached_result_processor(dialect, kind) if raw else None
        values = [row[place] for row in rows]
        found[field] = field.frozen_all(values if process is None else list(map(process, values)))
    return found
