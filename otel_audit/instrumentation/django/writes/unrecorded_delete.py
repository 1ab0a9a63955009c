"""DELETE of a model that is not audited, whose rows take audited ones with them (``DB_CASCADE``).

The deleted rows are read for what refers to them, and are on no record.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from otel_audit.capture.writes import CapturedWrite
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
from otel_audit.instrumentation.django.writes.database_cascades import (
    DatabaseCascade,
    left_to_the_database,
    reached,
    rules_of,
)
from otel_audit.instrumentation.django.writes.sql.rows import Returned
from otel_audit.instrumentation.django.writes.sql.selects import (
    matching_query,
    reads_its_rows,
    select_matching,
)
from otel_audit.instrumentation.django.writes.state import Capture
from otel_audit.instrumentation.django.writes.statement import Guard, RowsStatement, in_own_transaction


class UnrecordedDelete(RowsStatement):
    """What is on record of it: the writes to the audited tables that the database's rules lead to.

    Its plan and verb are those of one of them, so that an intent or a failure names what may be concerned.
    """

    __slots__ = ("cascade", "deleted")

    def __init__(self, capture: Capture, compiler: Any, deleted: ModelPlan) -> None:
        plan, verb = reached(capture, deleted, compiler.connection.vendor)[0]
        super().__init__(capture, compiler, plan, verb)
        self.deleted = deleted
        self.cascade: DatabaseCascade | None = None

    def writes(self, returned: Returned, more: int) -> list[CapturedWrite]:
        if self.cascade is not None:
            return self.cascade.writes()
        return left_to_the_database(self.capture, self.deleted, self.connection, self.django.vendor)

    def _counted(self, count: int | None) -> CapturedWrite:
        # The count is that of the deleted rows.
        return CapturedWrite(self.plan, self.verb, self.connection)


def delete_unrecorded(capture: Capture, plan: ModelPlan, compiler: Any, run: Callable[[], Any]) -> Any:
    """Run the DELETE of a model that is not audited, and note the audited rows that go or change with it."""
    from django.core.exceptions import EmptyResultSet

    with Guard(capture, compiler.connection) as guard:
        try:
            compiler.as_sql()
        except EmptyResultSet:
            return run()
        result = in_own_transaction(capture, compiler.connection, _read_first, capture, plan, compiler, run)
        if result is not NotImplemented:
            return result
        statement = UnrecordedDelete(capture, compiler, plan)
        result = statement.run(run)
        statement.note_or_recover(result, capture.abilities(compiler.connection, plan, "delete"))
        return result
    return guard.run_plainly(UnrecordedDelete(capture, compiler, plan), run)


def _read_first(capture: Capture, plan: ModelPlan, compiler: Any, run: Callable[[], Any]) -> Any:
    statement = UnrecordedDelete(capture, compiler, plan)
    statement.take_write_lock()
    abilities = capture.abilities(compiler.connection, plan, "delete")
    if abilities.select and (not abilities.needs_condition or reads_its_rows(compiler, plan)):
        matching = matching_query(compiler.query, plan)
        columns = _referred(capture, plan, compiler.connection.vendor)
        ask = functools.partial(select_matching, matching, plan, columns, compiler, capture.config)
        found = statement.attempt(abilities, ask)
        if found is not None:
            statement.cascade = DatabaseCascade.of(statement, compiler, plan, found)
    result = statement.run(run)
    statement.note_or_recover(result, abilities)
    return result


def _referred(capture: Capture, plan: ModelPlan, vendor: str) -> list[ModelFieldPlan]:
    """Return the columns beside the key that the rules of other tables refer to."""
    targets = {
        getattr(getattr(rule.field, "target_field", None), "attname", None)
        for rule in rules_of(capture, plan, vendor)
    }
    return [field for field in plan.others if field.attname in targets]
