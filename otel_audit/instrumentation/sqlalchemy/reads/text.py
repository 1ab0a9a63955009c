"""What SQL as text displays of sensitive tables: ``text()`` without declared columns, ``exec_driver_sql()``.

Its text names the tables, and the cursor the columns. Which objects its rows are from nobody can tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from otel_audit.capture.reads import Reading
from otel_audit.capture.sql.read_text import ReadTexts
from otel_audit.instrumentation.sqlalchemy.namesakes import by_name, in_schema
from otel_audit.instrumentation.sqlalchemy.reads.plan import Displayed
from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from sqlalchemy.schema import Table

    from otel_audit.instrumentation.sqlalchemy.plan import MappedPlan
    from otel_audit.instrumentation.sqlalchemy.writes.state import Capture


class TextReads:
    """Looks for sensitive tables in statements as text.

    Args:
        capture: what it shares with the capture of writes.
    """

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._stamp: object = None
        self._tables: dict[str, list[Table]] = {}
        self._texts = ReadTexts(frozenset())

    def displayed(self, context: Any, result: Any) -> Displayed | None:
        """Return what the rows of a statement display of sensitive tables, None if nothing. Never raises."""
        sql = context.statement
        if type(sql) is not str or result.cursor is None:
            return None
        try:
            self._look()
            named = self._texts.tables(sql, context.dialect.name)
            if not named:
                return None
            read: dict[MappedPlan, str] = {}
            for name, schema in named:
                plan = self._plan(name, schema, context.dialect)
                if plan is not None:
                    read.setdefault(plan, schema)
            if not read:
                return None
            columns = {str(column[0]).lower() for column in context.cursor.description or ()}
            return Displayed(
                "rows",
                tuple([(_reading(plan, columns), []) for plan in read]),
                next(iter(read.values())) or None,
            )
        except faults() as error:
            self._capture.failures.note("read", error, lost=1)
            return None

    def _plan(self, name: str, schema: str, dialect: Any) -> MappedPlan | None:
        """Return the plan of the sensitive table that a statement calls so; None if it is another one."""
        return next(self._sensitive(in_schema(self._tables[name], schema, dialect)), None)

    def _sensitive(self, tables: Iterable[Table]) -> Iterator[MappedPlan]:
        plans = map(self._capture.plans.of, tables)
        return (plan for plan in plans if plan is not None and plan.reads)

    def _look(self) -> None:
        stamp = self._capture.tables.stamp()
        if self._stamp == stamp:
            return
        named = by_name(self._capture.tables.all())
        self._tables = {name: tables for name, tables in named.items() if any(self._sensitive(tables))}
        self._texts, self._stamp = ReadTexts(self._tables.keys()), stamp


def _reading(plan: MappedPlan, columns: set[str]) -> Reading:
    fields = tuple([field.name for field in plan.fields if str(field.column.name).lower() in columns])
    return Reading(plan.label, plan.event, plan.table, fields, False, plan.key_strategies)
