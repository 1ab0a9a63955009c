"""DELETE: the statement returns the rows it deletes; where it cannot, they are read and locked before."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from django.db.models import deletion

from otel_audit.capture.bulk import BulkWrite, limited
from otel_audit.capture.databases.abilities import Abilities
from otel_audit.capture.writes import CapturedWrite
from otel_audit.instrumentation.django.plan import ModelPlan
from otel_audit.instrumentation.django.writes.sql.returning import delete_returning
from otel_audit.instrumentation.django.writes.sql.rows import Returned
from otel_audit.instrumentation.django.writes.sql.selects import (
    are_too_large,
    matching_query,
    names_one_row,
    reads_its_rows,
    select_matching,
)
from otel_audit.instrumentation.django.writes.state import Capture
from otel_audit.instrumentation.django.writes.statement import (
    Guard,
    Plain,
    RowsStatement,
    in_own_transaction,
)

if TYPE_CHECKING:
    from otel_audit.instrumentation.django.writes.database_cascades import DatabaseCascade

_BY_DATABASE: Final = hasattr(deletion, "DatabaseOnDelete")  # since Django 6.1


def leads_on(capture: Capture, plan: ModelPlan, vendor: str) -> bool:
    """Say whether the database may delete or change audited rows with those deleted of a model."""
    if not _BY_DATABASE:
        return False
    from otel_audit.instrumentation.django.writes.database_cascades import reached

    return bool(reached(capture, plan, vendor))


class DeleteStatement(RowsStatement):
    """A DELETE; ``cascade`` is what goes with its rows, where that was found out before."""

    __slots__ = ("cascade",)
    cascade: DatabaseCascade | None

    def writes(self, returned: Returned, more: int) -> list[CapturedWrite]:
        plan, rows = self.plan, returned.rows
        old = rows.plans[len(plan.keys) :] if rows is not None else []
        writes: list[CapturedWrite] = []
        if returned.count:
            deleted = BulkWrite(
                plan,
                "delete",
                self.connection,
                returned.count,
                rows,
                old=old,
                completeness=returned.completeness,
                old_values="exact" if old else None,
            )
            writes.append(limited(deleted, self.capture.config))
        if more > 0:
            writes.append(BulkWrite(plan, "delete", self.connection, more))
        cascade: DatabaseCascade | None = getattr(self, "cascade", None)
        if cascade is not None:
            return writes + cascade.writes()
        if _BY_DATABASE:
            from otel_audit.instrumentation.django.writes.database_cascades import left_to_the_database

            writes += left_to_the_database(self.capture, plan, self.connection, self.django.vendor)
        return writes


def delete(capture: Capture, plan: ModelPlan, compiler: Any, run: Callable[[], Any], result_type: Any) -> Any:
    """Run a DELETE compiler's statement and note the rows it deleted."""
    with Guard(capture, compiler.connection) as guard:
        return _delete(capture, plan, compiler, run, result_type)
    return guard.run_plainly(DeleteStatement(capture, compiler, plan, "delete"), run)


def _delete(
    capture: Capture, plan: ModelPlan, compiler: Any, run: Callable[[], Any], result_type: Any
) -> Any:
    from django.core.exceptions import EmptyResultSet
    from django.db.models.sql.constants import NO_RESULTS, ROW_COUNT

    try:
        sql, params = compiler.as_sql()
    except EmptyResultSet:
        return run()
    connection = compiler.connection
    statement = DeleteStatement(capture, compiler, plan, "delete")
    abilities = capture.abilities(connection, plan, "delete")
    # What goes with the rows refers to them only as long as they are there.
    before = leads_on(capture, plan, connection.vendor)
    returns = (
        not before
        and abilities.returning
        and sql.startswith("DELETE FROM ")
        and result_type in (ROW_COUNT, NO_RESULTS)
    )
    result: Any = NotImplemented
    if (
        plan.old_values == "off"
        or not (returns or abilities.select)
        or (abilities.needs_condition and not reads_its_rows(compiler, plan))
    ):
        return _delete_counting(capture, plan, compiler, run)
    if not returns:
        result = in_own_transaction(capture, connection, _select_first, capture, plan, compiler, run)
    elif statement.autocommit:
        # Keys and values are on disk before the commit: should this process die, `unknown` names the rows.
        result = in_own_transaction(capture, connection, _delete, capture, plan, compiler, run, result_type)
    else:
        return _delete_returning(statement, compiler, abilities, (sql, params), run, result_type)
    return _delete_counting(capture, plan, compiler, run) if result is NotImplemented else result


def _delete_returning(
    statement: DeleteStatement,
    compiler: Any,
    abilities: Abilities,
    compiled: tuple[str, Any],
    run: Callable[[], Any],
    result_type: Any,
) -> Any:
    """Run the DELETE so that it returns its rows; as it is where the database refuses that."""
    from django.db.models.sql.constants import ROW_COUNT

    plan, config = statement.plan, statement.capture.config
    large = any(field.large for field in plan.fields) and not names_one_row(compiler.query)
    measures_itself = statement.connection.dialect.folds and abilities.certain
    by_keys = False
    if large and not measures_itself and abilities.select:
        statement.take_write_lock()
        matching = matching_query(compiler.query, plan)
        too_large = functools.partial(are_too_large, matching, plan.others, compiler, config)
        by_keys = statement.attempt(abilities, too_large) or False

    def ours() -> Returned:
        return delete_returning(
            compiler, plan, config, *compiled, measured=large and measures_itself, by_keys=by_keys
        )

    returned = statement.run(lambda: statement.attempt(abilities, ours) or Plain(run()))
    statement.note_or_recover(returned, abilities)
    if type(returned) is Plain:
        return returned.result
    return returned.count if result_type == ROW_COUNT else None


def _delete_counting(capture: Capture, plan: ModelPlan, compiler: Any, run: Callable[[], Any]) -> Any:
    """Run the DELETE as it is; only the number of rows is known."""
    statement = DeleteStatement(capture, compiler, plan, "delete")
    abilities = capture.abilities(compiler.connection, plan, "delete")
    result = statement.run(run)
    statement.note_or_recover(result, abilities)
    return result


def _select_first(capture: Capture, plan: ModelPlan, compiler: Any, run: Callable[[], Any]) -> Any:
    statement = DeleteStatement(capture, compiler, plan, "delete")
    statement.take_write_lock()
    abilities = capture.abilities(compiler.connection, plan, "delete")
    matching = matching_query(compiler.query, plan)
    found = None
    # A column the table has not got (yet) is in the way of a SELECT only: then the keys alone are read.
    for columns in (plan.others, []):
        found = statement.attempt(
            abilities, functools.partial(select_matching, matching, plan, columns, compiler, capture.config)
        )
        if found is not None:
            break
    if found is not None and found.rows is not None and not columns and plan.others:
        found = Returned(found.rows, found.count, "ids")
    statement.found = found
    if found is not None and leads_on(capture, plan, compiler.connection.vendor):
        from otel_audit.instrumentation.django.writes.database_cascades import DatabaseCascade

        statement.cascade = DatabaseCascade.of(statement, compiler, plan, found)
    result = statement.run(run)
    statement.note_or_recover(result, abilities)
    return result
