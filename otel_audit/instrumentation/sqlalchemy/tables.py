"""Tables and mappers: all there are, what rows are named by, and what attributes columns are mapped to."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy.schema import Column, Table, UniqueConstraint

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapper

_V = TypeVar("_V")
OURS: Final = "otel_audit"
"""In ``Table.info``: it is not the application's, and stands for one that only the catalog knows."""
_TRIES: Final = 100
_NO_PACKAGES: Final = frozenset({"src", "lib"})
"""Directories that some projects import their packages by."""


def all_mappers() -> Iterator[Mapper[Any]]:
    """Yield the mappers of all registries."""
    module: Any = sys.modules.get("sqlalchemy.orm.mapper")
    for registry in module._all_registries() if module is not None else ():
        for manager in snapshot(registry._managers):
            if manager.is_mapped:  # others wait for their table to be reflected
                yield manager.mapper


def all_tables() -> Iterator[Table]:
    """Yield the tables of mapped classes, then those that stand beside them."""
    for mapper in all_mappers():
        if isinstance(mapper.local_table, Table):
            yield mapper.local_table
    module: Any = sys.modules.get("sqlalchemy.orm.mapper")
    for registry in module._all_registries() if module is not None else ():
        yield from filter(is_made, snapshot(registry.metadata.tables.values()))


def is_made(table: Table) -> bool:
    """Say whether a table is more than begun: another thread may be making it, which is told when it is."""
    return "fullname" in vars(table)


def snapshot(values: Iterable[_V]) -> list[_V]:
    """Return what a collection holds, to which other threads may add meanwhile."""
    for _ in range(_TRIES):
        try:
            return list(values)
        except RuntimeError:  # its size has changed
            continue
    return list(values)


def package_of(cls: type[Any]) -> str:
    """Return the package of a class: the first name of its module, but for directories of sources."""
    parts = cls.__module__.split(".")
    return next((part for part in parts if part not in _NO_PACKAGES), parts[0])


def is_version_table(table: Table) -> bool:
    """Say whether Alembic keeps in a table at which revision the database is."""
    return len(table.columns) == 1 and [column.name for column in table.columns] == ["version_num"]


def attributes_of(table: Table, mappers: Iterable[Mapper[Any]]) -> dict[Any, str]:
    """Return the attributes that columns of a table are mapped to."""
    found: dict[Any, str] = {}
    for mapper in mappers:
        for column in table.columns:
            prop = mapper._columntoproperty.get(column)
            if prop is not None and column not in found:
                found[column] = prop.key
    return found


def keys_of(table: Table, mappers: Sequence[Mapper[Any]]) -> list[Column[Any]]:
    """Return the columns that name a row of a table.

    The rows of most tables that relate two others have no key but what they relate.
    """
    return (
        list(table.primary_key)
        or [
            column
            for mapper in mappers[:1]
            for column in mapper.primary_key
            if isinstance(column, Column) and column.table is table
        ]
        or [column for column in table.columns if column.foreign_keys]
    )


def naming_columns(table: Table) -> frozenset[Any]:
    """Return the columns of keys and of all that is unique: foreign keys refer to no others."""
    unique = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
    indexes = [each for each in table.indexes if each.unique]
    return frozenset(
        [
            *table.primary_key,
            *(column for column in table.columns if column.unique),
            *(column for each in unique for column in each.columns),
            *(column for each in indexes for column in each.columns),
        ]
    )


def translated(schema: str | None, context: Any) -> str | None:
    """Return a schema as the execution options of a statement translate it."""
    names = context.execution_options.get("schema_translate_map")
    if names:
        found = names.get(schema, schema)
        return None if found is None else str(found)
    return schema
