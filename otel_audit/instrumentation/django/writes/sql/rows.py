"""Rows as a driver returns them: how many are kept, which columns they have, and what they are in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings

from otel_audit.audit_record import Completeness
from otel_audit.capture.bulk import KnownColumns, ReturnedRows
from otel_audit.capture.databases.dbapi import dialect
from otel_audit.config.model import CaptureSection
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
from otel_audit.instrumentation.django.plan.stored import read_at_once
from otel_audit.interruptions import faults
from otel_audit.named_tuples import NamedTuple

if TYPE_CHECKING:
    from otel_audit.instrumentation.django.writes.sql.moments import Moments

_CHUNK: Final = 2000
_MAX_FOUND: Final = 64


class Converted:
    """Django's converters of columns, for rows as Django applies them and for one column of many rows."""

    __slots__ = ("_compiler", "_converters")

    def __init__(self, compiler: Any, plan: ModelPlan, plans: Sequence[ModelFieldPlan]) -> None:
        self._compiler = compiler
        self._converters = _converters(compiler, plan, plans)

    def rows(self, rows: list[Any]) -> Iterable[Any]:
        """Convert driver rows of these columns to rows of Python's values."""
        return self._compiler.apply_converters(rows, self._converters) if self._converters else rows

    def column(self, position: int, values: list[Any]) -> list[Any]:
        """Convert the values of one column."""
        converters, expression = self._converters.get(position, ((), None))
        connection = self._compiler.connection
        for convert in converters:
            if convert is _as_float and _NUMBERS.issuperset(map(type, values)):
                quick: list[Any] | None = list(map(float, values))
            else:
                quick = read_at_once(convert, values, expression, connection)
            if quick is None:
                quick = list(map(convert, values, repeat(expression), repeat(connection)))
            values = quick
        return values


class _Found:
    """What was found out of the columns of one table on one of Django's connections.

    Converters are methods of the connection's parts: others of its kind may convert into another time zone.
    They know the model as well, so that a plan keeps them, for each thread, which has its own connections:
    they go with the model, and with the thread.
    """

    __slots__ = ("columns", "connection", "converters")

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.converters: dict[tuple[Any, ...], Any] = {}
        self.columns: dict[tuple[Any, ...], tuple[list[ModelFieldPlan], list[int]]] = {}

    @staticmethod
    def on(connection: Any, plan: ModelPlan) -> _Found:
        here = plan.found.__dict__
        found: _Found | None = here.get(connection.alias)
        if found is None or found.connection is not connection or len(found.converters) > _MAX_FOUND:
            found = here[connection.alias] = _Found(connection)
        return found


def _converters(compiler: Any, plan: ModelPlan, plans: Sequence[ModelFieldPlan]) -> Any:
    """Return Django's converters of columns by position; looking for them costs more than most DELETEs."""
    known = _Found.on(compiler.connection, plan).converters
    key = (settings.USE_TZ, *plans)
    found = known.get(key)
    if found is None:
        table = plans[0].field.model._meta.db_table
        found = compiler.get_converters([column.field.get_col(table) for column in plans])
        if compiler.connection.vendor == "sqlite":
            # What RETURNING gives of a REAL column without a fraction is an integer.
            for position, column in enumerate(plans):
                if column.canonical is float:
                    convert, expression = found.get(position, ([], None))
                    found[position] = [*convert, _as_float], expression
        if not any(column.chooses_converters for column in plans):
            known[key] = found
    return found


_NUMBERS: Final = frozenset({int, float})


def _as_float(value: Any, expression: Any, connection: Any) -> Any:
    return float(value) if type(value) is int else value


def fetch(
    connection: Any, cursor: Any, config: CaptureSection, keys: Sequence[int]
) -> tuple[Fetched | None, int, Completeness]:
    """Read all rows of a cursor, keeping all columns, those at the positions of ``keys``, or the number only.

    Returns (columns, count, completeness).
    """
    moments = _moments(connection, cursor)
    rows: list[Any] = []
    count = 0
    completeness: Completeness = "full"
    while chunk := cursor.fetchmany(_CHUNK):
        count += len(chunk)
        if completeness == "full" and count > config.max_bulk_rows:
            completeness = "ids"
            rows = _picked(rows, keys)
        if completeness == "ids" and count > config.max_bulk_ids:
            completeness = "count"
            rows = []
        if completeness == "full":
            rows.extend(chunk)
        elif completeness == "ids":
            rows.extend(_picked(chunk, keys))
    if completeness == "count":
        return None, count, completeness
    if completeness == "ids":
        moments = {place: moments[position] for place, position in enumerate(keys) if position in moments}
    width = len(rows[0]) if rows else 0
    return Fetched([list(map(itemgetter(i), rows)) for i in range(width)], moments), count, completeness


def _picked(rows: list[Any], positions: Sequence[int]) -> list[Any]:
    return [tuple([row[position] for position in positions]) for row in rows]


def _moments(connection: Any, cursor: Any) -> Mapping[int, Moments]:
    if connection.vendor != "postgresql":
        return {}
    from otel_audit.instrumentation.django.writes.sql.moments import left_as_texts

    try:
        return left_as_texts(connection, cursor)
    except faults():  # a foreign driver
        return {}


class Fetched(NamedTuple):
    """The columns of fetched rows, none where there was no row; ``moments`` are texts still, by position."""

    columns: list[list[Any]]
    moments: Mapping[int, Moments]

    def at(self, positions: Iterable[int]) -> Fetched:
        """Return some of the columns, in this order."""
        if not self.columns:
            return self
        moments = self.moments
        found = list(positions)
        return Fetched(
            [self.columns[position] for position in found],
            {place: moments[position] for place, position in enumerate(found) if position in moments},
        )


class FetchedRows(KnownColumns):
    """Rows that a statement returned, by column: what of them is needed is made Python's values."""

    __slots__ = ("_moments",)

    def __init__(self, plans: Sequence[ModelFieldPlan], fetched: Fetched, converters: Converted) -> None:
        super().__init__(plans, fetched.columns or [[] for _ in plans])
        self._converters = converters
        self._moments = fetched.moments

    def raw_columns(self) -> Iterable[Sequence[Any]]:
        """Return the columns as they are now; not moments, whose size nobody counts."""
        return [column for position, column in enumerate(self._columns) if position not in self._moments]

    def rows(self) -> list[Any]:
        if self._converters is not None:
            columns = [
                self._moments[position].load(column) if position in self._moments else column
                for position, column in enumerate(self._columns)
            ]
            rows = list(self._converters.rows(list(zip(*columns, strict=True))))
            self._columns = list(map(list, zip(*rows, strict=True))) or columns
            self._converters, self._moments = None, {}
        return super().rows()

    def column(self, position: int) -> list[Any]:
        values = self._columns[position]
        if position in self._moments:
            values = self._moments[position].read(values)
        return values if self._converters is None else self._converters.column(position, values)


class Returned:
    """What a statement of ours gave back."""

    __slots__ = ("completeness", "count", "rows")

    def __init__(self, rows: ReturnedRows | None, count: int, completeness: Completeness) -> None:
        self.rows = rows
        self.count = count
        self.completeness = completeness


def columns_of(connection: Any, cursor: Any, plan: ModelPlan) -> tuple[list[ModelFieldPlan], list[int]]:
    """Match the columns a cursor returns to the model's, keys first: (plans, positions).

    The table may have columns the model does not know, or not yet all it knows. Some databases compare names
    without their case.
    """
    known = _Found.on(connection, plan).columns
    names = tuple([column[0] for column in cursor.description])
    found = known.get(names)
    if found is None:
        found = known[names] = _matched(plan, names, exact_names=dialect(connection.vendor).exact_names)
    return found


def _matched(
    plan: ModelPlan, columns: Sequence[str], *, exact_names: bool
) -> tuple[list[ModelFieldPlan], list[int]]:
    name: Callable[[str], str] = str if exact_names else str.lower
    positions = {name(column): position for position, column in enumerate(columns)}
    plans = [*plan.keys, *plan.others]
    found = [field for field in plans if name(field.column) in positions]
    return found, [positions[name(field.column)] for field in found]
