"""What an UPDATE sets, how that differs from a row, and the UPDATE that returns old values by itself."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any

from msgspec import UNSET

from otel_audit.capture.databases.abilities import Abilities
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
from otel_audit.instrumentation.django.plan.stored import Prepared, is_expression
from otel_audit.instrumentation.django.writes.sql.returning import (
    RowsQuery,
    joined_update,
    update_returning,
)
from otel_audit.instrumentation.django.writes.sql.rows import Returned
from otel_audit.instrumentation.django.writes.statement import CompiledStatement, Plain
from otel_audit.named_tuples import NamedTuple
from otel_audit.values import ATOMS


class Update(NamedTuple):
    """One call of an UPDATE compiler.

    ``run`` executes it as Django would. Its caller expects the values of ``returning`` fields of each row;
    without any, what ``result_type`` asks for.
    """

    compiler: Any
    plan: ModelPlan
    run: Callable[[], Any]
    result_type: Any = None
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


class Rewritten(NamedTuple):
    """An UPDATE that returns of each row the key, the values of ``old`` before and of ``new`` after it."""

    statement: RowsQuery
    old: list[ModelFieldPlan]
    new: list[ModelFieldPlan]


def rewrite(update: Update, assigned: Assignment) -> Rewritten | None:
    """Make the UPDATE return what it does to its rows; None where its text is not what Django writes.

    Raises:
        EmptyResultSet: no row can match.
    """
    sql, params = update.compiler.as_sql()
    old = assigned.fields
    new = list(dict.fromkeys([*assigned.expressions, *update.returning]))
    joined = joined_update(update.compiler, update.plan, old, new, sql, params)
    return None if joined is None else Rewritten(joined, old, new)


def run_rewritten(
    statement: CompiledStatement,
    update: Update,
    rewritten: Rewritten,
    abilities: Abilities,
    *,
    measured: bool,
) -> Any:
    """Run it and return its rows; the application's, and return its result, where the database refuses ours.

    ``measured``: values larger than ``max_bulk_bytes`` are not fetched.
    """

    def ours() -> Returned:
        return update_returning(
            update.compiler,
            update.plan,
            statement.capture.config,
            rewritten.statement,
            rewritten.old,
            rewritten.new,
            measured=measured and not update.returning,
        )

    return statement.run(lambda: statement.attempt(abilities, ours) or Plain(update.run()))


def answer(update: Update, rewritten: Rewritten, returned: Any) -> Any:
    """Return what the caller of the compiler expects; converting it may raise as it would without us."""
    if type(returned) is Plain:
        return returned.result
    if not update.returning:
        return _related(update.compiler, returned.count, update.result_type)
    if returned.rows is None:
        return []
    start = len(update.plan.keys) + len(rewritten.old)
    positions = [start + rewritten.new.index(field) for field in update.returning]
    return [tuple(row[i] for i in positions) for row in returned.rows.rows()]


def _related(compiler: Any, count: int, result_type: Any) -> int:
    """Run the updates of parent tables that belong to an update of a child."""
    from django.db.models.sql.constants import ROW_COUNT

    for query in compiler.query.get_related_updates():
        query.get_compiler(compiler.using).execute_sql(result_type)
    return count if result_type == ROW_COUNT else 0
