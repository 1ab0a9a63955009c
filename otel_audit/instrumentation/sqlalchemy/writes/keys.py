"""Keys that the database makes for many new rows, asked for where the application does not (``keys``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from otel_audit.config.model import SQLAlchemyConfig
    from otel_audit.instrumentation.sqlalchemy.plan import MappedPlan

_FEW: Final = 100
"""Rows whose keys cost too little to do without."""
_TOGETHER: Final = frozenset({"psycopg2"})
"""Drivers to which SQLAlchemy sends many rows in one statement in any case."""


def with_keys(
    section: SQLAlchemyConfig, plan: MappedPlan, dialect: Any, statement: Any, rows: Sequence[dict[str, Any]]
) -> Any:
    """Return an INSERT of many rows that returns the keys the database makes, or as it is.

    Args:
        section: says by ``keys`` whether it may.
        plan: of its table.
        dialect: of its engine.
        statement: the INSERT.
        rows: its parameters.
    """
    if section.keys == "never" or len(rows) < 2:
        return statement
    if section.keys == "auto" and len(rows) > _FEW and not _sends_together(dialect):
        return statement
    if not dialect.insert_executemany_returning_sort_by_parameter_order:
        return statement
    if (
        statement._returning
        or statement._return_defaults
        or statement._post_values_clause is not None
        or statement.select is not None
        or statement._multi_values
        or statement._prefixes
    ):
        return statement
    made = [field for field in plan.keys if field.column.key not in rows[0] and field.name not in rows[0]]
    if not made or any(field.column.default is not None for field in made):
        return statement
    columns = [field.column for field in plan.keys]
    return statement.return_defaults(*columns, sort_by_parameter_order=True)


def _sends_together(dialect: Any) -> bool:
    return dialect.driver in _TOGETHER or bool(getattr(dialect, "is_mariadb", False))
