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


def as_without_keys(result: Any, dialect: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Have the result of an INSERT say what it says where no keys were asked for: no rows, and how many."""
    from sqlalchemy.engine.cursor import _NO_CURSOR_DML, _NO_RESULT_METADATA

    result._metadata = _NO_RESULT_METADATA
    result.cursor_strategy = _NO_CURSOR_DML
    if not dialect.use_insertmanyvalues_wo_returning:  # else the last batch is counted in both cases
        result.context._rowcount = len(rows) if _says_how_many(dialect, result.context) else -1


def _says_how_many(dialect: Any, context: Any) -> bool:
    """Say whether a driver knows, once its cursor is closed, how many rows ``executemany()`` has written."""
    if dialect.driver.startswith("psycopg"):
        return bool(context.execution_options.get("preserve_rowcount"))
    return bool(dialect.driver != "asyncpg")


def _sends_together(dialect: Any) -> bool:
    return dialect.driver in _TOGETHER or bool(getattr(dialect, "is_mariadb", False))
