"""One statement of SQLAlchemy's while it runs: what was found out before, for what is noted afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from otel_audit.capture.bulk import BulkWrite, limited
from otel_audit.capture.statement import Statement
from otel_audit.capture.writes import CapturedWrite
from otel_audit.instrumentation.sqlalchemy.writes.stored.conditions import Condition, Values, repeatable
from otel_audit.instrumentation.sqlalchemy.writes.stored.found import Found
from otel_audit.instrumentation.sqlalchemy.writes.stored.rows import Reader
from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from otel_audit.capture.plan import Verb
    from otel_audit.config.model import SQLAlchemyConfig
    from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan
    from otel_audit.instrumentation.sqlalchemy.connection import SQLAlchemyConnection
    from otel_audit.instrumentation.sqlalchemy.plan import MappedPlan
    from otel_audit.instrumentation.sqlalchemy.writes.shape import Shape


class Running:
    """A statement on an audited table, from before its cursor runs until its result is there.

    Attributes:
        parameters: all its sets of parameters, with the defaults that Python makes, before any type has
            converted them.
        count: rows it wrote; None: the driver does not say.
        result: SQLAlchemy's, once there is one.
        found: what was found out of its rows before it ran.
    """

    __slots__ = (
        "_catalog",
        "_rows",
        "connection",
        "context",
        "count",
        "found",
        "parameters",
        "result",
        "section",
        "shape",
        "state",
        "statement",
    )

    def __init__(
        self,
        section: SQLAlchemyConfig,
        catalog: dict[Any, Any],
        connection: Any,
        state: SQLAlchemyConnection,
        context: Any,
        shape: Shape,
    ) -> None:
        self.section = section
        self._catalog = catalog
        self.connection = connection
        self.state = state
        self.context = context
        self.shape = shape
        self.parameters: Sequence[dict[str, Any]] = context.compiled_parameters
        self._rows: Sequence[dict[str, Any]] | None = None
        self.count: int | None = None
        self.found: Any = None
        self.result: Any = None
        self.statement = Statement(state, shape.plan, shape.verb)

    @property
    def is_counted(self) -> bool:
        """Whether the driver tells how many rows were written; SQLite counts them as they are fetched."""
        return not (self.state.dialect.one_writer and self.context.compiled.effective_returning)

    def ran(self, cursor: Any) -> None:
        """Count the rows of one call of the driver's; an INSERT of many rows may take several."""
        if not self.is_counted:
            return
        count = getattr(cursor, "rowcount", None)  # one that the application has wrapped may have none
        if type(count) is not int or count < 0:
            self.count = None
        else:
            self.count = (self.count or 0) + count

    def reader(self, plan: MappedPlan | None = None, verb: Verb | None = None) -> Reader:
        """Return what reads rows on the same connection, unseen; default those of its own table."""
        return Reader(
            self.connection,
            self.state,
            plan or self.shape.plan,
            verb or self.shape.verb,
            self._catalog,
            self.context.execution_options,
        )

    def rows(self) -> Sequence[dict[str, Any]]:
        """Return the parameters of each row, where one set of them holds several as well."""
        if self._rows is None:
            self._rows = self._several() if self.shape.several else self.parameters
        return self._rows

    def given(self, name: str) -> list[Any]:
        """Return the value of a parameter in each set of them; ``None`` where a set has none of it."""
        try:
            return list(map(itemgetter(name), self.parameters))
        except KeyError:
            return [each.get(name) for each in self.parameters]

    def _several(self) -> list[dict[str, Any]]:
        (values,) = self.parameters
        count = sum(len(each) for each in self.shape.statement._multi_values)
        names = [name for _, name in self.shape.sets if name]
        rows = []
        for number in range(count):
            row = {name: values[f"{name}_m{number}"] for name in names if f"{name}_m{number}" in values}
            if number == 0:
                row = {name: values[name] for name in names if name in values} | row
            rows.append(row)
        return rows

    def matching(self, fields: Sequence[ColumnPlan], *, compared: bool = True) -> Found | None:
        """Return the rows that its condition finds before it runs; None where nobody can know them."""
        if not self.shape.selectable or len(self.parameters) != 1:
            return None
        condition = self._condition()
        if condition is None:
            return None
        return self.reader().matching(condition, fields, self.section, compared=compared)

    def _condition(self) -> Condition | None:
        """Return its condition with the values of this execution."""
        shape, values = self.shape, Values(self.context, self.shape.bind_names)
        try:
            where = [values.in_clause(each) for each in shape.where]
        except LookupError:  # one whose values are not known must find no other rows
            return None
        made = {
            field: values.in_clause(expression)
            for field, expression in shape.expressions.items()
            if field not in shape.plan.keys and repeatable(expression)
        }
        return Condition(shape.source, where, made)

    def bulk(self, count: int, *, verb: Verb | None = None, **known: Any) -> BulkWrite:
        """Return what is known of many rows, as much of it as may be recorded."""
        write = BulkWrite(self.shape.plan, verb or self.shape.verb, self.state, count, **known)
        return limited(write, self.section)

    def named(self) -> BulkWrite:
        """Return what is known before it runs: the table and the fields."""
        write = self.bulk(0, new=self.shape.fields)
        write.completeness = "statement"
        return write

    def counted(self, count: int | None) -> list[CapturedWrite]:
        """Say of how many rows something was written, or that it is not known."""
        if count == 0:
            return []
        if count is None:
            return [self.named()]
        return [self.bulk(count, new=self.shape.fields)]


def returned_defaults(running: Running, count: int) -> dict[ColumnPlan, list[Any]]:
    """Return what the database has made and told, by column."""
    rows = running.context.returned_default_rows
    if not rows or len(rows) != count or not in_order(running, count):
        return {}
    try:
        places = rows[0]._key_to_index
    except faults():  # rows of another kind
        return {}
    found: dict[ColumnPlan, list[Any]] = {}
    for field in running.shape.plan.fields:
        place = places.get(field.column)
        if place is not None:
            found[field] = field.frozen_all([row[place] for row in rows])
    return found


def in_order(running: Running, count: int) -> bool:
    """Say whether returned rows come in the order of the parameters."""
    return count == 1 or bool(getattr(running.shape.statement, "_sort_by_parameter_order", False))
