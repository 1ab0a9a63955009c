"""How large values are, asked of the database: what is beyond a budget never leaves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from otel_audit.capture.databases.dbapi import dialect
from otel_audit.instrumentation.django.plan import ModelFieldPlan

_TEXT_TYPES: Final = ("text", "varchar", "char", "citext")
_BINARY_TYPES: Final = ("bytea",)


def size_template(connection: Any, plan: ModelFieldPlan, most: int) -> str:
    """Return SQL for the bytes of a column, which stands there as ``%(expressions)s``; NULL has none.

    PostgreSQL knows the size of a stored text without reading it. Of JSON, arrays, hstore and ranges it knows
    the size as they are stored, most often compressed: the text they are sent as, which must be made to be
    measured, is made only where that size is no more than ``most``.
    """
    if connection.vendor != "postgresql":
        return f"{dialect(connection.vendor).length}(%(expressions)s)"
    kind = plan.field.db_type(connection) or ""
    if kind.endswith("]") or not kind.startswith((*_TEXT_TYPES, *_BINARY_TYPES)):
        return (
            f"CASE WHEN pg_column_size(%(expressions)s) > {most} THEN pg_column_size(%(expressions)s)"
            " ELSE octet_length(%(expressions)s::text) END"
        )
    return "octet_length(%(expressions)s)"


def size_sql(connection: Any, plan: ModelFieldPlan, column: str, most: int) -> str:
    """Return SQL for the bytes of ``column``, 0 for NULL; ``most`` as for :func:`size_template`."""
    size = size_template(connection, plan, most) % {"expressions": column}
    return f"coalesce({size}, 0)"


def stored_size_sql(column: str) -> str:
    """Return SQL for the bytes that PostgreSQL stores of ``column``: known without reading it."""
    return f"coalesce(pg_column_size({column}), 0)"


class Capped:
    """Columns of which no value larger than ``most`` bytes is fetched; what it would have been is counted.

    For each column in turn ``sql`` has the column, or NULL where it is larger; for each large one, its size
    comes after all of them.
    """

    def __init__(self, compiler: Any, plans: Sequence[ModelFieldPlan], most: int) -> None:
        connection = compiler.connection
        quote = connection.ops.quote_name
        self.plans = list(plans)
        self.large = [position for position, plan in enumerate(self.plans) if plan.large]
        self._most = most
        sizes = {
            position: size_sql(connection, self.plans[position], quote(self.plans[position].column), most)
            for position in self.large
        }
        self.sql = [
            f"CASE WHEN {sizes[position]} <= {most} THEN {column} END" if position in sizes else column
            for position, plan in enumerate(self.plans)
            for column in (plan.field.select_format(compiler, quote(plan.column), ())[0],)
        ]
        self.sql += sizes.values()

    def withheld(self, rows: Sequence[Sequence[Any]]) -> list[ModelFieldPlan]:
        """Return the columns of which a value was too large in one of the rows."""
        width = len(self.plans)
        return [
            self.plans[position]
            for place, position in enumerate(self.large)
            if any(row[width + place] > self._most for row in rows)
        ]

    def size(self, rows: Sequence[Sequence[Any]]) -> int:
        """Return the bytes of all large values of the rows, fetched or not."""
        width = len(self.plans)
        return sum(sum(row[width : width + len(self.large)]) for row in rows)
