"""What an UPDATE sets, how that differs from a row, and the UPDATE that returns old values by itself."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any, NamedTuple

from msgspec import UNSET

from otel_audit.capture.databases.abilities import Abilities
from otel_audit.capture.writes import CapturedWrite
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
from otel_audit.instrumentation.django.stored import Prepared, is_expression
from otel_audit.instrumentation.django.writes.sql.returning import joined_update, update_returning
from otel_audit.instrumentation.django.writes.sql.rows import Returned
from otel_audit.instrumentation.django.writes.state import Capture, CompiledStatement, Plain, row_count
from otel_audit.interruptions import faults
from otel_audit.values import ATOMS


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
    """What an UPDATE sets: values by field, frozen, and the fields set to expressions.

    ``rest`` are those among the expressions that it does not set: they are asked for a snapshot.
    """

    values: list[tuple[ModelFieldPlan, Any]]
    expressions: list[ModelFieldPlan]
    rest: Sequence[ModelFieldPlan] = ()

    def with_rest(self, plan: ModelPlan, known: Container[str] = ()) -> Assignment:
        """Add the other fields, but for those ``known`` by attname: the database tells them as well."""
        written = self.fields
        rest = [
            field
            for field in plan.fields
            if field not in plan.keys and field not in written and field.attname not in known
        ]
        return Assignment(self.values, [*self.expressions, *rest], rest) if rest else self

    @property
    def made(self) -> list[ModelFieldPlan]:
        """The fields that it sets to expressions."""
        return [field for field in self.expressions if field not in self.rest]

    @property
    def fields(self) -> list[ModelFieldPlan]:
        return [*(plan for plan, _ in self.values), *self.expressions]


def assignment(plan: ModelPlan, compiler: Any, instance: Any = None) -> Assignment:
    """Read ``query.values``: what is written, after ``pre_save`` and ``update_fields``.

    Columns the database generates count as expressions: it alone knows what became of them.
    """
    values: list[tuple[ModelFieldPlan, Any]] = []
    expressions: list[ModelFieldPlan] = []
    if plan.custom:
        prepare(plan, compiler, instance)
    for field, _, value in compiler.query.values:
        target = plan.by_attname[field.attname]
        if type(field) is Prepared:
            value = field.frozen
            if value is UNSET:
                expressions.append(target)
                continue
        elif type(value) not in ATOMS:
            if hasattr(value, "resolve_expression"):
                expressions.append(target)
                continue
            if hasattr(value, "prepare_database_save"):
                value = value.prepare_database_save(field)
            value = target.frozen(value)
        values.append((target, value))
    return Assignment(values, [*expressions, *plan.generated])


def prepare(plan: ModelPlan, compiler: Any, instance: Any = None) -> None:
    """Let the fields that decide what is stored prepare their values; the query then takes these."""
    values = compiler.query.values
    for position, (field, model, value) in enumerate(values):
        if field.attname in plan.custom and type(field) is not Prepared and not is_expression(value):
            prepared = plan.by_attname[field.attname].prepare(value, compiler.connection, instance)
            values[position] = (prepared, model, value)


def difference(
    values: Sequence[tuple[ModelFieldPlan, Any]], row: dict[str, Any]
) -> tuple[list[tuple[ModelFieldPlan, Any, Any]], list[tuple[ModelFieldPlan, Any]]]:
    """Compare values to write with a row: (changed as field, old, new; all as field, value)."""
    changed: list[tuple[ModelFieldPlan, Any, Any]] = []
    written: list[tuple[ModelFieldPlan, Any]] = []
    for plan, value in values:
        old = row.get(plan.attname, UNSET)
        if old is value:
            written.append((plan, old))
            continue
        if old is not UNSET:
            old = plan.frozen(old)
            if plan.equal(old, value):
                written.append((plan, old))
                continue
        new = plan.normal(value)
        changed.append((plan, old, new))
        written.append((plan, new))
    return changed, written


def returning_rows(
    update: Update, new: Sequence[ModelFieldPlan], returned: Returned, start: int
) -> list[Any]:
    """Return the rows the caller asked for; their conversion may raise as it would without us."""
    if not update.returning or returned.rows is None:
        return []
    positions = [start + new.index(field) for field in update.returning]
    return [tuple(row[i] for i in positions) for row in returned.rows.rows()]


def run_joined(
    capture: Capture,
    update: Update,
    assigned: Assignment,
    abilities: Abilities,
    intent: Callable[[CompiledStatement], CapturedWrite],
    note: Callable[[CompiledStatement, Returned, Sequence[ModelFieldPlan]], None],
    *,
    measured: bool = False,
) -> Any:
    """Run the UPDATE as one rewritten statement; ``NotImplemented``, with nothing run, if it cannot be.

    Args:
        capture: what captures.
        update: the UPDATE as Django made it.
        assigned: what it assigns.
        abilities: what the table lets us ask.
        intent: gives what is about to be written, for autocommit.
        note: notes what came back: keys, old values of the assigned fields, then values of the named ones;
            no rows where the database refused ours and the plain statement ran.
        measured: values larger than ``max_bulk_bytes`` are not fetched.
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

    def ours() -> Returned:
        return update_returning(
            compiler, plan, capture.config, rewritten, old, new, measured=measured and not update.returning
        )

    returned = statement.run(
        lambda: statement.attempt(abilities, ours) or Plain(update.run()), lambda: intent(statement)
    )
    if type(returned) is Plain:
        result = returned.result
        try:
            count = row_count("update", result)
            if count:
                note(statement, Returned(None, count, "count"), ())
            else:
                column = compiler.query.values[0][0].column
                abilities = capture.abilities(compiler.connection, plan, "update", column)
                statement.done(*statement.uncounted(abilities, count))
        except faults() as error:
            statement.recover(error, len(result) if isinstance(result, list) else result)
        return result
    rows = returning_rows(update, new, returned, len(plan.keys) + len(old))
    try:
        note(statement, returned, new)
    except faults() as error:
        statement.recover(error, returned.count)
    return update.result(returned.count, rows)
