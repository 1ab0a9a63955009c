"""INSERT: the objects say what was written, the database which keys and defaults it gave.

One with conflicts is an upsert: :mod:`.upsert`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from django.db.models.base import ModelState
from msgspec import UNSET, UnsetType

from otel_audit.capture.bulk import BulkWrite, KnownColumns, limited
from otel_audit.capture.databases.abilities import Abilities
from otel_audit.capture.writes import CapturedWrite, RowWrite, WholeRow
from otel_audit.instrumentation.django.loaded import STATE_KEY, Loaded, put_back
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
from otel_audit.instrumentation.django.plan.stored import is_expression, plain
from otel_audit.instrumentation.django.writes.sql.rows import Converted
from otel_audit.instrumentation.django.writes.sql.sizes import Capped
from otel_audit.instrumentation.django.writes.state import Capture
from otel_audit.instrumentation.django.writes.statement import CompiledStatement, Guard, written_column
from otel_audit.interruptions import faults
from otel_audit.named_tuples import NamedTuple
from otel_audit.values import ATOMS, Opaque

PLAIN: Final = ATOMS | {dict, list, tuple, ModelState}
"""Classes of what an object holds that is no expression."""
_UNKNOWN: Final = frozenset({type(None), UnsetType, Opaque})
"""Classes of what stands for a key that is not known."""


class InsertStatement(CompiledStatement):
    """An INSERT that returns ``asked`` fields.

    ``noted`` is what the compiler prepared for the fields that decide what is stored.
    """

    __slots__ = ("asked", "noted", "objects", "query")

    def __init__(self, capture: Capture, compiler: Any, plan: ModelPlan, asked: Sequence[Any] | None) -> None:
        super().__init__(capture, compiler, plan, "create")
        self.query = compiler.query
        self.objects: Sequence[Any] = compiler.query.objs
        self.asked = list(asked or ())
        self.noted: dict[str, list[tuple[Any, Any]]] | None = None

    def intended(self) -> CapturedWrite:
        plan, objects = self.plan, self.objects
        if len(objects) == 1:
            values = values_of(plan, objects[0], {}, {})
            return RowWrite(
                plan, "create", self.connection, plan.key_of(values), WholeRow(plan.others, values)
            )
        rows = BulkWrite(plan, "create", self.connection, len(objects), new=plan.fields)
        rows.completeness = "statement"
        return rows

    def inserted(self, result: Any) -> _Inserted:
        """Return what it inserted, as its result tells."""
        objects, noted = self.objects, self.noted
        made = {} if noted is None else _made(self.plan, self.django, noted, objects)
        return _Inserted(objects, self.asked if result else [], result, made)

    def fewer(self, result: Any) -> int | None:
        """Return how many rows it made, where a trigger left some out; None: all of them."""
        return fewer(self.capture, self.django, len(self.objects), self.asked, result)

    def written(self, result: Any) -> list[CapturedWrite]:
        count = self.fewer(result)
        if count is not None:
            known = self.capture.tables.known(self.django.alias, self.plan, "create")
            return self.some(count, known or Abilities(counts=False))
        inserted = self.inserted(result)
        if len(self.objects) > 1:
            return [_limited(self.capture, _many(self, inserted)[0])]
        values = inserted.first(self.plan)
        return [_one(self, new_key(self.plan, values), values)]

    def some(self, count: int, abilities: Abilities) -> list[CapturedWrite]:
        """Return what it wrote, of which some rows are missing: nobody says which, or what became of them."""
        if not abilities.counts or not count:
            return self.uncounted(abilities, count)
        return [BulkWrite(self.plan, "create", self.connection, count, new=self.plan.fields)]

    def note_fewer(self, count: int) -> None:
        """Note that it made ``count`` rows only."""
        abilities = self.capture.abilities(self.django, self.plan, "create", written_column(self.query))
        self.connection.wrote_many(self.plan, None)
        self.done(*self.some(count, abilities))


def insert(
    capture: Capture,
    plan: ModelPlan,
    compiler: Any,
    run: Callable[..., Any],
    returning_fields: Any,
) -> Any:
    """Run an INSERT compiler's statement and note the rows it made (or changed).

    ``run`` takes the fields to return: the database is asked for the values of expressions as well. Default
    those the application wants.
    """
    with Guard(capture, compiler.connection) as guard:
        if compiler.query.on_conflict is not None:
            from otel_audit.instrumentation.django.writes.upsert import upsert

            return upsert(capture, plan, compiler, run, returning_fields)
        return _insert(capture, plan, compiler, run, returning_fields)
    return guard.run_plainly(CompiledStatement(capture, compiler, plan, "create"), run)


def _insert(
    capture: Capture,
    plan: ModelPlan,
    compiler: Any,
    run: Callable[..., Any],
    returning_fields: Any,
) -> Any:
    wanted = list(returning_fields or ())
    more = _to_ask(capture, plan, compiler, wanted)
    fields = [*wanted, *more]
    statement = InsertStatement(capture, compiler, plan, fields)
    statement.noted = _noting(plan, compiler) if plan.noted else None
    capture.thread.inserted = None
    if any(plan.by_attname[field.attname].large for field in more):
        result = statement.run(lambda: _run_capped(capture, statement, compiler, wanted, more, run))
    else:
        result = statement.run(lambda: run(fields or returning_fields))
    count: int | None = None
    try:
        count = statement.fewer(result)
        if count is not None:
            statement.note_fewer(count)
        elif len(statement.objects) == 1:
            _note_one(statement, statement.inserted(result))
        else:
            _note_many(statement, statement.inserted(result))
    except faults() as error:
        statement.recover(error, len(statement.objects) if count is None else count)
    if len(fields) == len(wanted):
        return result
    return [row and tuple(row[: len(wanted)]) for row in result] if wanted else []


def fewer(
    capture: Capture, connection: Any, count: int, asked: Sequence[Any] | None, result: Any
) -> int | None:
    """Return how many rows an INSERT of ``count`` made, where a trigger left some out; None: all of them.

    Where it returns ``asked`` fields, it says so itself, otherwise its row count does.
    """
    features = connection.features
    made: int | None = None
    returns = (
        features.can_return_columns_from_insert if count == 1 else features.can_return_rows_from_bulk_insert
    )
    if asked and returns:
        made = len([row for row in result if row is not None])
    elif count == 1 or features.has_bulk_insert:  # it was one statement
        made = capture.thread.inserted
    return made if made is not None and 0 <= made < count else None


def _to_ask(capture: Capture, plan: ModelPlan, compiler: Any, wanted: list[Any]) -> list[Any]:
    """Return the fields set to expressions that nobody asks for yet, where the INSERT can return them."""
    states = [instance.__dict__ for instance in compiler.query.objs]
    if PLAIN.issuperset(map(type, chain.from_iterable(map(dict.values, states)))):
        return []
    fields = []
    for field in plan.fields:
        name = field.attname
        values = [state.get(name) for state in states]
        if (
            not ATOMS.issuperset(map(type, values))
            and field.field not in wanted
            and any(type(value) not in ATOMS and hasattr(value, "resolve_expression") for value in values)
        ):
            fields.append(field.field)
    if not fields:
        return fields
    features = compiler.connection.features
    able = (
        features.can_return_columns_from_insert
        if len(states) == 1
        else features.can_return_rows_from_bulk_insert
    )
    if not able:
        return []
    abilities = capture.abilities(compiler.connection, plan, "create", fields[0].column)
    return fields if abilities.returning else []


def _run_capped(
    capture: Capture,
    statement: CompiledStatement,
    compiler: Any,
    wanted: list[Any],
    more: list[Any],
    run: Callable[[], Any],
) -> Any:
    """Run an INSERT that returns ``wanted`` fields and those ``more`` that are expressions.

    What they make may be larger than anything the application holds: beyond ``max_bulk_bytes`` it is not
    fetched, and the mark of the expression stands in its place.
    """
    plan, connection, objects = statement.plan, compiler.connection, compiler.query.objs
    asked = [plan.by_attname[field.attname] for field in wanted]
    made = [plan.by_attname[field.attname] for field in more]
    capped = Capped(compiler, made, max(capture.config.max_bulk_bytes // len(objects), 1))
    selected = [*(connection.ops.quote_name(field.column) for field in asked), *capped.sql]

    def ours() -> Sequence[Any]:
        """Return the rows; a single one that is missing is None, as Django returns it."""
        compiler.returning_fields = None
        raw: list[Any] = []
        with connection.cursor() as cursor:
            for sql, params in compiler.as_sql():
                cursor.execute(f"{sql} RETURNING {', '.join(selected)}", params)
                raw += cursor.fetchall()
        withheld = set(capped.withheld([row[len(asked) :] for row in raw]))
        width = len(asked) + len(made)
        rows = [tuple(row[:width]) for row in raw]
        rows = [tuple(row) for row in Converted(compiler, plan, [*asked, *made]).rows(rows)]
        if len(rows) < len(objects):  # a trigger has left some out
            return rows if rows or len(objects) > 1 else [None]
        if not withheld:
            return rows
        return [
            (*row[: len(asked)], *_marks(made, instance, row[len(asked) :], withheld))
            for row, instance in zip(rows, objects, strict=False)
        ]

    abilities = capture.abilities(connection, plan, "create", made[0].column)
    returned = statement.attempt(abilities, ours)
    if returned is not None:
        return returned
    everything = [None] * len(made)
    return [
        (*row, *_marks(made, instance, everything, made))
        for row, instance in zip(run() or [()] * len(objects), objects, strict=False)
    ]


def _marks(
    fields: Sequence[ModelFieldPlan], instance: Any, values: Sequence[Any], withheld: Container[Any]
) -> list[Any]:
    """Return values of a row, with the mark of its expression where one was not fetched."""
    state = instance.__dict__
    return [
        Opaque(state[field.attname])
        if value is None and field in withheld and is_expression(state.get(field.attname))
        else value
        for field, value in zip(fields, values, strict=True)
    ]


def _noting(plan: ModelPlan, compiler: Any) -> dict[str, list[tuple[Any, Any]]]:
    """Note what the compiler prepares for the fields that decide what is stored: (value, prepared)."""
    noted: dict[str, list[tuple[Any, Any]]] = {name: [] for name in plan.noted}
    original = compiler.prepare_value

    def prepare_value(field: Any, value: Any) -> Any:
        prepared = original(field, value)
        found = noted.get(field.attname)
        if found is not None:
            found.append((value, _plain(prepared)))
        return prepared

    compiler.prepare_value = prepare_value
    return noted


def _plain(prepared: Any) -> Any:
    """Unwrap what was prepared before the driver does: JSON is encoded once, and sent as it was."""
    try:
        return plain(prepared)
    except faults():  # the driver will say so
        return prepared


def _made(
    plan: ModelPlan, connection: Any, noted: dict[str, list[tuple[Any, Any]]], objects: Sequence[Any]
) -> dict[str, list[Any]]:
    """Turn what was noted into frozen values by attname, one per object, expressions as their mark."""
    made: dict[str, list[Any]] = {}
    for name, pairs in noted.items():
        if len(pairs) < len(objects):  # not written, the key a database gives
            continue
        field = plan.by_attname[name]
        made[name] = [
            _stored(field, value, prepared, connection, instance)
            for (value, prepared), instance in zip(pairs[-len(objects) :], objects, strict=True)
        ]
    return made


def _stored(field: ModelFieldPlan, value: Any, prepared: Any, connection: Any, instance: Any) -> Any:
    if is_expression(value):
        return Opaque(value)
    if not field.custom:
        return field.normal(field.frozen(value))
    stored = field.prepared(prepared, connection, value, instance)
    return Opaque(prepared) if stored is UNSET else stored


def values_of(
    plan: ModelPlan, instance: Any, returned: dict[str, Any], made: dict[str, Any]
) -> dict[str, Any]:
    """Return the values of an instance after its INSERT, by attname, frozen.

    What the database made and did not tell is the :class:`Opaque` of its expression; what is not known at
    all is left out.
    """
    state = instance.__dict__
    values: dict[str, Any] = {}
    for field in plan.fields:
        name = field.attname
        if name in returned:
            value = returned[name]
            values[name] = value if type(value) is field.canonical else field.normal(field.frozen(value))
            continue
        if name in made:
            values[name] = made[name]
            continue
        value = state.get(name, UNSET)
        kind = type(value)
        if kind is field.canonical or value is None:  # as most are, and nothing need be done to it
            values[name] = value
            continue
        if kind not in ATOMS:
            if value is UNSET:
                continue
            value = Opaque(value) if hasattr(value, "resolve_expression") else field.frozen(value)
        values[name] = value if type(value) is Opaque else field.normal(value)
    return values


def new_key(plan: ModelPlan, values: dict[str, Any]) -> Any:
    """Return the key of a new row.

    Raises:
        LookupError: the database gave it, and did not tell.
    """
    key = plan.key_of(values)
    if key is UNSET or type(key) is Opaque:
        raise LookupError(f"the primary key of a new {plan.label} is not known")
    return key


class _Inserted(NamedTuple):
    """What an INSERT wrote: the values of ``returned`` fields in ``result``, and those ``made`` here.

    ``made`` are frozen values by attname, one per object.
    """

    objects: Sequence[Any]
    returned: list[Any]
    result: Any
    made: dict[str, list[Any]]

    def first(self, plan: ModelPlan) -> dict[str, Any]:
        """Return the values of the first object by attname, frozen."""
        names = [field.attname for field in self.returned]
        row = dict(zip(names, self.result[0], strict=False)) if names else {}
        return values_of(plan, self.objects[0], row, {name: some[0] for name, some in self.made.items()})


def _one(statement: InsertStatement, key: Any, values: dict[str, Any]) -> RowWrite:
    plan = statement.plan
    return RowWrite(plan, "create", statement.connection, key, WholeRow(plan.others, values))


def _note_one(statement: InsertStatement, inserted: _Inserted) -> None:
    plan, thread = statement.plan, statement.capture.thread
    values = inserted.first(plan)
    key = new_key(plan, values)
    seq = statement.connection.wrote(plan, key)
    write = _one(statement, key, values)
    state = inserted.objects[0]._state
    previous = state.__dict__.get(STATE_KEY) or None
    write.on_undo = (put_back, state, previous)
    # The parts of an inherited model are inserted one table after the other, parents first.
    parent = (
        previous.by_name()
        if previous is not None and plan.model._meta.parents and previous.epoch is thread.epoch
        else {}
    )
    row = {**parent, **values}
    for name, value in values.items():
        if type(value) is Opaque:
            del row[name]
    state.__dict__[STATE_KEY] = Loaded(None, row, thread.epoch, seq)
    statement.done(write)


def _note_many(statement: InsertStatement, inserted: _Inserted) -> None:
    write, keys = _many(statement, inserted)
    statement.connection.wrote_many(statement.plan, keys)
    statement.done(_limited(statement.capture, write))


def _many(statement: InsertStatement, inserted: _Inserted) -> tuple[BulkWrite, list[Any] | None]:
    """Return what an INSERT of several rows wrote, and their keys, ``None`` where they are not known."""
    plan = statement.plan
    objects, returned, result, made = inserted
    names = [field.attname for field in returned]
    complete = len(result) == len(objects) if returned else False
    states = [instance.__dict__ for instance in objects]
    columns: dict[ModelFieldPlan, list[Any]] = {}
    for field in plan.fields:
        if complete and field.attname in names:
            position = names.index(field.attname)
            values = [row[position] for row in result]
            columns[field] = field.normal_all(values) if field.canonical is float else values
        elif field.attname in made:
            columns[field] = made[field.attname]
        else:
            values = _values_in(states, field.attname)
            known = field.known_values(values)
            columns[field] = [_frozen(field, value) for value in values] if known is None else known
    keys = [columns[field] for field in plan.keys]
    if not all(_UNKNOWN.isdisjoint(map(type, column)) for column in keys):
        # MySQL tells no keys of several rows.
        return BulkWrite(plan, "create", statement.connection, len(objects), new=plan.fields), None
    others = [field for field in plan.others if _known(columns[field])]
    rows = KnownColumns([*plan.keys, *others], [*keys, *(columns[field] for field in others)])
    write = BulkWrite(plan, "create", statement.connection, len(objects), rows, new=others)
    return write, plan.keys_of(list(zip(*keys, strict=True)))


def _values_in(states: list[dict[str, Any]], name: str) -> list[Any]:
    try:
        return list(map(itemgetter(name), states))
    except KeyError:  # deferred in some
        return [state.get(name, UNSET) for state in states]


def _frozen(field: ModelFieldPlan, value: Any) -> Any:
    if value is UNSET:
        return UNSET
    return Opaque(value) if hasattr(value, "resolve_expression") else field.normal(field.frozen(value))


def _known(values: Iterable[Any]) -> bool:
    """Say whether at least one of a column's values is known; they may have no usable equality."""
    return any(value is not UNSET for value in values)


def _limited(capture: Capture, write: BulkWrite) -> BulkWrite:
    return limited(write, capture.config)
