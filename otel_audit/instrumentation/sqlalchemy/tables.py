"""What a table is known by: the classes mapped to it, their names, its key, and what it relates."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.schema import Column, Table

from otel_audit.capture.opt_in import owner_of_attribute, said_by_class
from otel_audit.capture.policy import Subject
from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapper

_NO_PACKAGES: Final = frozenset({"src", "lib"})
"""Directories that some projects import their packages by."""


def mappers_of(table: Any) -> list[Mapper[Any]]:
    """Return the mappers whose rows a table has, that of the most general class first."""
    found = [mapper for mapper in all_mappers() if mapper.local_table is table or table in mapper.tables]
    own = [mapper for mapper in found if mapper.local_table is table]
    return sorted(own, key=_depth) + [mapper for mapper in found if mapper not in own]


def _depth(mapper: Mapper[Any]) -> int:
    return len(list(mapper.iterate_to_root()))


def all_mappers() -> Iterator[Mapper[Any]]:
    """Yield the mappers of all registries."""
    module: Any = sys.modules.get("sqlalchemy.orm.mapper")
    for registry in module._all_registries() if module is not None else ():
        for manager in list(registry._managers):
            if manager.is_mapped:  # others wait for their table to be reflected
                yield manager.mapper


def all_tables() -> Iterator[Table]:
    """Yield the tables of mapped classes, then those that stand beside them."""
    for mapper in all_mappers():
        if isinstance(mapper.local_table, Table):
            yield mapper.local_table
    module: Any = sys.modules.get("sqlalchemy.orm.mapper")
    for registry in module._all_registries() if module is not None else ():
        yield from registry.metadata.tables.values()


def subject(table: Table, mappers: list[Mapper[Any]]) -> Subject:
    """Return all that rules may know a table by: its class, what inherits from it, and its own name."""
    own = [mapper for mapper in mappers if mapper.local_table is table]
    names = tuple(dict.fromkeys((table.name, table.fullname)))
    if not own:
        return Subject(table.fullname, tables=names)
    cls = own[0].class_
    path = f"{cls.__module__}.{cls.__qualname__}"
    mapped = {mapper.class_ for mapper in all_mappers()}
    bases = [base for base in cls.__mro__ if base is not cls and base is not object and base not in mapped]
    classes = [mapper.class_ for mapper in own]
    said = next((found for found in map(_said, classes) if found is not None), None)
    return Subject(label_of(cls, mapped), path, (*classes, *bases), said, names)


def _said(cls: type[Any]) -> Any:
    owner = owner_of_attribute(cls)
    return None if owner is None else said_by_class(cls)


def label_of(cls: type[Any], mapped: Iterable[type[Any]]) -> str:
    """Return what objects of a class are called: package and class; its whole path where two share that."""
    package = package_of(cls)
    same = [
        each
        for each in mapped
        if each is not cls and each.__name__ == cls.__name__ and package_of(each) == package
    ]
    return f"{cls.__module__}.{cls.__qualname__}" if same else f"{package}.{cls.__name__}"


def package_of(cls: type[Any]) -> str:
    """Return the package of a class: the first name of its module, but for directories of sources."""
    parts = cls.__module__.split(".")
    return next((part for part in parts if part not in _NO_PACKAGES), parts[0])


def is_version_table(table: Table) -> bool:
    """Say whether Alembic keeps in a table at which revision the database is."""
    return [column.name for column in table.columns] == ["version_num"]


def owners_of(table: Any) -> Iterator[Subject]:
    """Return the classes whose relationships have their rows in a table."""
    for mapper in all_mappers():
        for prop in mapper._init_properties.values() if mapper.configured else ():
            if getattr(prop, "secondary", None) is not table or prop.viewonly:
                continue
            if isinstance(mapper.local_table, Table):
                yield subject(mapper.local_table, mappers_of(mapper.local_table))


def ends_of(table: Table) -> dict[str, str]:
    """Return the foreign keys of a table that relates others, and the labels of what they name."""
    ends: dict[str, str] = {}
    for column in table.columns:
        for key in column.foreign_keys:
            try:
                referred = key.column
            except faults():  # a table that is not there (yet)
                continue
            if list(referred.table.primary_key) == [referred] and isinstance(referred.table, Table):
                ends[column.key] = subject(referred.table, mappers_of(referred.table)).label
    return ends


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
