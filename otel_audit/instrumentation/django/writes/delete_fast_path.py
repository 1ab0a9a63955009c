"""The common ``delete()``: of one instance loaded or written here, whose values may be trusted.

They are what the record says was deleted, by the rules by which a save trusts them; in doubt the DELETE
returns its row, as :mod:`.delete` makes it do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from otel_audit.capture.writes import RowWrite, WholeRow
from otel_audit.instrumentation.django.connection import DjangoConnection
from otel_audit.instrumentation.django.loaded import STATE_KEY, Loaded
from otel_audit.instrumentation.django.plan import ModelPlan
from otel_audit.instrumentation.django.writes.delete import DeleteStatement, leads_on
from otel_audit.instrumentation.django.writes.known import done, run_known, wrote
from otel_audit.instrumentation.django.writes.sql.selects import names_one_row
from otel_audit.instrumentation.django.writes.state import Capture
from otel_audit.interruptions import faults
from otel_audit.named_tuples import NamedTuple
from otel_audit.values import ATOMS


class _Delete(NamedTuple):
    """A DELETE about to run."""

    plan: ModelPlan
    write: RowWrite
    connection: DjangoConnection
    statement: DeleteStatement | None

    def note(self, capture: Capture, compiler: Any, result: Any) -> None:
        """Note that it ran and returned ``result``."""
        plan = self.plan
        if result != 1:  # the row is gone already, or rules or triggers do something else in its place
            statement = self.statement or DeleteStatement(capture, compiler, plan, "delete")
            statement.note(result, capture.abilities(compiler.connection, plan, "delete"))
            return
        wrote(capture, self)
        done(self)


def delete_quickly(
    capture: Capture, plan: ModelPlan, compiler: Any, instance: Any, run: Callable[[], Any]
) -> Any:
    """Run the DELETE of a common ``delete()`` and note it; ``NotImplemented`` if it is none, and nothing ran.

    ``run`` returns the number of rows it deleted.
    """
    try:
        delete = _prepare(capture, plan, compiler, instance)
    except faults():  # whatever it is, the long way says so
        delete = None
    return NotImplemented if delete is None else run_known(capture, compiler, delete, run)


def _prepare(capture: Capture, plan: ModelPlan, compiler: Any, instance: Any) -> _Delete | None:
    """Take what was loaded for what is deleted; ``None`` unless everything is plain and certain."""
    connection = compiler.connection
    blocks = connection.atomic_blocks
    state = instance._state
    loaded = state.__dict__.get(STATE_KEY)
    if (
        (blocks and blocks[-1]._from_testcase)
        or plan.custom
        or plan.old_values != "as_loaded"
        or len(plan.keys) != 1
        or type(loaded) is not Loaded
        or state.db != connection.alias
        or not isinstance(instance, plan.model)
        or not names_one_row(compiler.query)
        or leads_on(capture, plan, connection.vendor)
    ):
        return None
    row = loaded.by_name()
    named = plan.keys[0].attname
    key = row.get(named)
    if type(key) not in ATOMS or key is None or _named_key(compiler.query) != key:
        return None
    if not capture.freshness.current(connection.alias, plan.table, key, loaded, capture.thread):
        return None
    # The columns of a parent's table are those of its own plan.
    if not row.keys() >= plan.by_attname.keys():  # one was not loaded
        return None
    ours = capture.connection(connection)
    write = RowWrite(plan, "delete", ours, key, WholeRow(plan.others, row, gone=True), (), "as_loaded")
    statement = (
        None
        if connection.in_atomic_block
        else DeleteStatement(capture, compiler, plan, "delete", known=write)
    )
    return _Delete(plan, write, ours, statement)


def _named_key(query: Any) -> Any:
    """Return the key that the condition of :func:`names_one_row` names."""
    condition = query.where.children[0]
    return condition.rhs if condition.lookup_name == "exact" else next(iter(condition.rhs))
