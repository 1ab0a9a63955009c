"""An UPDATE that tells old values by itself, where the database can: for saves and for many rows alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from otel_audit.capture.writes import CapturedWrite
from otel_audit.instrumentation.django.plan import ModelFieldPlan
from otel_audit.instrumentation.django.writes.sql import Returned, joined_update, update_returning
from otel_audit.instrumentation.django.writes.state import Capture, CompiledStatement
from otel_audit.instrumentation.django.writes.update_statement import Assignment, Update, returning_rows


def run_joined(
    capture: Capture,
    update: Update,
    assigned: Assignment,
    intent: Callable[[CompiledStatement], CapturedWrite],
    note: Callable[[CompiledStatement, Returned, Sequence[ModelFieldPlan]], None],
) -> Any:
    """Run the UPDATE as one rewritten statement; ``NotImplemented``, with nothing run, if it cannot be.

    Args:
        capture: what captures.
        update: the UPDATE as Django made it.
        assigned: what it assigns.
        intent: gives what is about to be written, for autocommit.
        note: notes what came back: keys, old values of the assigned fields, then values of the named ones.
    """
    from django.core.exceptions import EmptyResultSet

    plan, compiler = update.plan, update.compiler
    try:
        sql, params = compiler.as_sql()
    except EmptyResultSet:
        return update.run()
    old = assigned.fields
    new = list(dict.fromkeys([*assigned.expressions, *update.returning]))
    rewritten = joined_update(compiler, plan, old, new, sql, params)
    if rewritten is None:
        return NotImplemented
    statement = CompiledStatement(capture, compiler, plan, "update")
    returned = statement.run(
        lambda: update_returning(compiler, plan, capture.config, rewritten, old, new),
        lambda: intent(statement),
    )
    rows = returning_rows(update, new, returned, len(plan.keys) + len(old))
    try:
        note(statement, returned, new)
    except Exception as error:
        statement.recover(error, returned.count)
    return update.result(returned.count, rows)
