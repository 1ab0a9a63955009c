"""Upserts: an INSERT that leaves alone, or changes, the rows that are in its way.

Django asks for nothing back with ``ignore_conflicts``, and nobody knows which rows were new; with
``update_conflicts`` some of them are updates. The statement returns its rows to us, and the rows in the way
are read before. Both are measured by the database, so that nothing beyond ``max_bulk_bytes`` leaves it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import UNSET

from otel_audit.capture.bulk import BulkWrite, ReturnedRows, limited
from otel_audit.capture.databases.abilities import Abilities
from otel_audit.capture.plan import Verb
from otel_audit.capture.writes import CapturedWrite
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
from otel_audit.instrumentation.django.writes.sql.rows import Converted, columns_of
from otel_audit.instrumentation.django.writes.sql.selects import select_by_keys, select_rows, size_of_rows
from otel_audit.instrumentation.django.writes.sql.sizes import Capped
from otel_audit.instrumentation.django.writes.state import Capture
from otel_audit.instrumentation.django.writes.statement import (
    CompiledStatement,
    Plain,
    in_own_transaction,
    written_column,
)
from otel_audit.interruptions import faults
from otel_audit.named_tuples import NamedTuple

_OBJECTS_PER_QUERY = 200
_INSERTED = "__otel_audit_inserted"


class _Before(NamedTuple):
    """The rows in the way: key to the values of the other fields, none if not ``whole``."""

    rows: dict[Any, tuple[Any, ...]]
    whole: bool = True


class _Returned(NamedTuple):
    """What an upsert returned: of each row the values of ``plans``, and whether it is known to be new.

    ``asked`` are the values the application asked for. Of rows that are not ``whole`` there are the keys.
    """

    plans: list[ModelFieldPlan]
    rows: list[Any]
    inserted: list[bool]
    asked: list[Any]
    whole: bool = True


class UpsertStatement(CompiledStatement):
    """An INSERT with conflicts; ``before`` are the rows in its way, None where its rows are not asked for."""

    __slots__ = ("before", "updates")

    def __init__(self, capture: Capture, compiler: Any, plan: ModelPlan, *, updates: bool) -> None:
        super().__init__(capture, compiler, plan, "create")
        self.updates = updates
        self.before: _Before | None = None

    def written(self, result: Any) -> list[CapturedWrite]:
        return self.upserted(result)[1]

    def upserted(self, returned: Any) -> tuple[list[Any] | None, list[CapturedWrite]]:
        """Return the keys of what it wrote, None where they are not known, and the writes."""
        plan, before = self.plan, self.before
        if before is None or type(returned) is not _Returned:
            # How many were new, changed or left alone cannot be told.
            return None, [CapturedWrite(plan, "create", self.connection)]
        width = len(plan.keys)
        if returned.rows and returned.plans[:width] != list(plan.keys):
            raise LookupError(f"rows of {plan.label} were returned without their primary key")
        last: dict[Any, tuple[Any, bool]] = {}
        for key, row, new in zip(plan.keys_in(returned.rows), returned.rows, returned.inserted, strict=True):
            last[key] = (row, new)
        others = list(returned.plans[width:])
        both = before.whole and returned.whole
        created, changed, unseen = [], [], []
        for key, (row, new) in last.items():
            if key in before.rows:
                changed.append((*row[:width], *before.rows[key], *row[width:]) if both else row[:width])
            elif self.updates and not new:
                unseen.append(row)  # somebody else's row, made after we looked
            else:
                created.append(row)
        writes = [
            _write(self, "create", created, new=others, whole=returned.whole),
            _write(self, "update", changed, old=others, new=others, whole=both),
            _write(self, "update", unseen, new=others, whole=returned.whole),
        ]
        return list(last), [limited(write, self.capture.config) for write in writes if write is not None]


def upsert(
    capture: Capture,
    plan: ModelPlan,
    compiler: Any,
    run: Callable[[], Any],
    returning_fields: Any,
    *,
    ask: bool = True,
) -> Any:
    """Run an INSERT with conflicts and note the rows it made and changed, as far as we may ``ask``."""
    from django.db.models.constants import OnConflict

    connection, query = compiler.connection, compiler.query
    ignores = query.on_conflict == OnConflict.IGNORE
    abilities = capture.abilities(connection, plan, "create", written_column(query))
    asks = ask and plan.old_values != "off" and abilities.returning
    large = any(field.large for field in plan.fields)
    if asks and (large or not ignores) and not connection.in_atomic_block and connection.get_autocommit():
        # What is read before, or after, must be as the statement finds or leaves it.
        given = (capture, plan, compiler, run, returning_fields)
        result = in_own_transaction(capture, connection, upsert, *given)
        return upsert(*given, ask=False) if result is NotImplemented else result
    statement = UpsertStatement(capture, compiler, plan, updates=not ignores)
    if asks:
        statement.before = _Before({})
    if asks and not ignores:
        rows_in_the_way = functools.partial(_rows_in_the_way, capture, statement, compiler)
        statement.before = statement.attempt(abilities, rows_in_the_way)
    asked = [plan.by_attname[field.attname] for field in returning_fields or ()]

    def ours() -> Any:
        # By `*` where the table may not have all columns; where an error would doom, only the catalog knows.
        budgets = [0]
        if large:
            doubtful = statement.connection.dialect.errors_doom and not abilities.certain
            budgets = [0] if doubtful else [max(capture.config.max_bulk_bytes, 1), 0]
        for most in budgets:
            returning = functools.partial(_returning, compiler, plan, abilities, asked, most)
            returned = statement.attempt(abilities, returning)
            if returned is not None:
                return returned
        return Plain(run())

    returned: Any = Plain(statement.run(run)) if statement.before is None else statement.run(ours)
    try:
        keys, writes = statement.upserted(returned)
        if type(returned) is _Returned and not abilities.counts and len(returned.rows) < len(query.objs):
            keys, writes = None, statement.uncounted(abilities)  # a trigger may have sent some elsewhere
        statement.connection.wrote_many(plan, keys)
        statement.done(*writes)
    except faults() as error:
        statement.recover(error)
    return returned.result if type(returned) is Plain else returned.asked


def _returning(
    compiler: Any, plan: ModelPlan, abilities: Abilities, asked: Sequence[ModelFieldPlan], most: int
) -> _Returned:
    """Run the INSERT and fetch every row it wrote.

    Large values only where all of them together have no more than ``most`` bytes; 0 does not measure them.
    """
    connection = compiler.connection
    tells = abilities.tells_new_rows
    plans = [*plan.keys, *plan.others]
    share = max(most // len(compiler.query.objs), 1)
    capped = Capped(compiler, plans, share) if most else None
    # What the application asked for by name comes by name: `*` leaves invisible columns out.
    selected = [
        *(["*"] if capped is None else capped.sql),
        *(connection.ops.quote_name(field.column) for field in asked),
        *([f"(xmax = 0) AS {_INSERTED}"] if tells else []),
    ]
    compiler.returning_fields = None
    raw: list[Any] = []
    positions = list(range(len(plans)))
    after = 0
    with connection.cursor() as cursor:
        for sql, params in compiler.as_sql():
            cursor.execute(f"{sql} RETURNING {', '.join(selected)}", params)
            if capped is None:
                plans, positions = columns_of(connection, cursor, plan)
            after = len(cursor.description) - tells
            raw += cursor.fetchall()
    rows = _converted(compiler, plan, plans, [tuple([row[i] for i in positions]) for row in raw])
    wanted = _converted(compiler, plan, asked, [tuple(row[after - len(asked) : after]) for row in raw])
    whole = True
    if capped is not None and capped.withheld(raw):
        within = capped.size(raw) <= most and connection.in_atomic_block
        whole = within and _filled(compiler, plan, capped, rows)
        if not whole:
            plans, rows = list(plan.keys), [row[: len(plan.keys)] for row in rows]
    return _Returned(plans, rows, [not tells or bool(row[-1]) for row in raw], wanted if asked else [], whole)


def _converted(
    compiler: Any, plan: ModelPlan, plans: Sequence[ModelFieldPlan], raw: list[Any]
) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in Converted(compiler, plan, plans).rows(raw)] if raw and plans else raw


def _filled(compiler: Any, plan: ModelPlan, capped: Capped, rows: list[Any]) -> bool:
    """Read, by key, the large values of rows that were returned without them; False if a row is gone."""
    keys = plan.keys_in(rows)
    found = select_by_keys(compiler, plan, keys, [capped.plans[position] for position in capped.large])
    if any(key not in found for key in keys):
        return False
    for number, key in enumerate(keys):
        row = list(rows[number])
        for position, value in zip(capped.large, found[key], strict=True):
            row[position] = value
        rows[number] = tuple(row)
    return True


def _write(
    statement: CompiledStatement,
    verb: Verb,
    rows: list[Any],
    *,
    old: Sequence[ModelFieldPlan] = (),
    new: Sequence[ModelFieldPlan],
    whole: bool,
) -> BulkWrite | None:
    if not rows:
        return None
    plan = statement.plan
    if not whole:
        keys = ReturnedRows(plan.keys, rows)
        return BulkWrite(plan, verb, statement.connection, len(rows), keys, completeness="ids")
    return BulkWrite(
        plan,
        verb,
        statement.connection,
        len(rows),
        ReturnedRows(plan.keys, rows),
        old=old,
        new=new,
        old_values="exact" if old else None,
    )


def _rows_in_the_way(capture: Capture, statement: CompiledStatement, compiler: Any) -> _Before:
    """Read, locked, the rows an upsert will change; their keys only where they are too many or too large."""
    plan, config = statement.plan, capture.config
    statement.take_write_lock(written_column(compiler.query))
    width = len(plan.keys)
    found: dict[Any, tuple[Any, ...]] = {}
    size, whole = 0, True
    objects = compiler.query.objs
    for fields in _unique_sets(plan, compiler.query):
        for start in range(0, len(objects), _OBJECTS_PER_QUERY):
            condition = _matching(fields, objects[start : start + _OBJECTS_PER_QUERY])
            if condition is None:
                continue
            if whole:
                size += size_of_rows(compiler, plan, condition, plan.others, config.max_bulk_bytes)
                if size > config.max_bulk_bytes or len(found) > config.max_bulk_rows:
                    whole, found = False, dict.fromkeys(found, ())
            rows = select_rows(compiler, plan, condition, plan.others if whole else ())
            found.update(zip(plan.keys_in(rows), (tuple(row[width:]) for row in rows), strict=True))
    return _Before(found, whole)


def _unique_sets(plan: ModelPlan, query: Any) -> list[list[Any]]:
    """Return the sets of fields whose values may conflict."""
    from django.db.models import UniqueConstraint

    meta: Any = plan.model._meta
    if query.unique_fields:
        return [[meta.get_field(field) if isinstance(field, str) else field for field in query.unique_fields]]
    sets = [list(meta.pk_fields)]
    sets += [[field] for field in meta.local_concrete_fields if field.unique and not field.primary_key]
    sets += [[meta.get_field(name) for name in names] for names in meta.unique_together]
    sets += [
        [meta.get_field(name) for name in constraint.fields]
        for constraint in meta.constraints
        if isinstance(constraint, UniqueConstraint) and constraint.fields
    ]
    return sets


def _matching(fields: Sequence[Any], objects: Sequence[Any]) -> Any:
    from django.db.models import Q

    def usable(value: Any) -> bool:
        return value is not None and value is not UNSET and not hasattr(value, "resolve_expression")

    rows = [[instance.__dict__.get(field.attname, UNSET) for field in fields] for instance in objects]
    rows = [row for row in rows if all(usable(value) for value in row)]
    if not rows:
        return None
    if len(fields) == 1:
        return Q(**{f"{fields[0].attname}__in": [row[0] for row in rows]})
    condition = Q()
    for row in rows:
        condition |= Q(**dict(zip((field.attname for field in fields), row, strict=True)))
    return condition
