"""What a table is known by: the classes mapped to it, and those whose relationships have their rows in it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.schema import Table

from otel_audit.capture.opt_in import owner_of_attribute, said_by_class
from otel_audit.capture.table_policy import Subject
from otel_audit.instrumentation.sqlalchemy.tables import all_mappers, package_of
from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from sqlalchemy.orm import Mapper

_NO_NAME: Final = '""'
"""Of a table whose name is empty, which SQLite lets one make: as SQL has it."""


class Mappings:
    """All classes that are mapped at one moment, found at one look; it keeps none of them alive."""

    def __init__(self) -> None:
        self._mappers: weakref.WeakKeyDictionary[Any, list[Any]] = weakref.WeakKeyDictionary()
        self._owners: weakref.WeakKeyDictionary[Any, list[Any]] = weakref.WeakKeyDictionary()
        self._classes: weakref.WeakSet[type[Any]] = weakref.WeakSet()
        self._names: dict[tuple[str, str], set[str]] = {}
        for mapper in all_mappers():
            if "tables" not in vars(mapper):  # it could not be made, or is just being made
                continue
            cls = mapper.class_
            self._classes.add(cls)
            # A class that is made once more, by a reload or a test, is no other one.
            self._names.setdefault((package_of(cls), cls.__name__), set()).add(_path(cls))
            for table in dict.fromkeys((mapper.local_table, *mapper.tables)):
                if isinstance(table, Table):
                    self._mappers.setdefault(table, []).append(weakref.ref(mapper))
            for prop in mapper._init_properties.values() if mapper.configured else ():
                secondary = getattr(prop, "secondary", None)
                if isinstance(secondary, Table) and not prop.viewonly:
                    self._owners.setdefault(secondary, []).append(weakref.ref(mapper))

    def mappers_of(self, table: Any) -> list[Mapper[Any]]:
        """Return the mappers whose rows a table has, that of the most general class first."""
        found = list(_alive(self._mappers.get(table, ())))
        own = [mapper for mapper in found if mapper.local_table is table]
        return sorted(own, key=_depth) + [mapper for mapper in found if mapper not in own]

    def owners_of(self, table: Any) -> Iterator[Subject]:
        """Return the classes whose relationships have their rows in a table."""
        for mapper in _alive(self._owners.get(table, ())):
            if isinstance(mapper.local_table, Table):
                yield self.subject(mapper.local_table)

    def ends_of(self, table: Table) -> dict[str, str]:
        """Return the foreign keys of a table that relates others, and the labels of what they name."""
        ends: dict[str, str] = {}
        for column in table.columns:
            for key in column.foreign_keys:
                try:
                    referred = key.column
                except faults():  # a table that is not there (yet)
                    continue
                if list(referred.table.primary_key) == [referred] and isinstance(referred.table, Table):
                    ends[column.key] = self.subject(referred.table).label
        return ends

    def subject(self, table: Table) -> Subject:
        """Return all that rules may know a table by: its class, what inherits from it, and its own name."""
        own = [mapper for mapper in self.mappers_of(table) if mapper.local_table is table]
        names = tuple(dict.fromkeys((table.name, table.fullname)))
        if not own:
            return Subject(table.fullname or _NO_NAME, tables=names)
        cls = own[0].class_
        bases = [base for base in cls.__mro__[1:] if base is not object and base not in self._classes]
        classes = [mapper.class_ for mapper in own]
        said = next((found for found in map(_said, classes) if found is not None), None)
        return Subject(self._label(cls), _path(cls), (*classes, *bases), said, names)

    def _label(self, cls: type[Any]) -> str:
        """Return what objects of a class are called: package and class; its path where two share that."""
        package = package_of(cls)
        return _path(cls) if len(self._names.get((package, cls.__name__), ())) > 1 else usual_label(cls)


def usual_label(cls: type[Any]) -> str:
    """Return package and name of a class."""
    return f"{package_of(cls)}.{cls.__name__}"


def _alive(references: Any) -> Iterator[Mapper[Any]]:
    for reference in references:
        mapper = reference()
        if mapper is not None:
            yield mapper


def _depth(mapper: Mapper[Any]) -> int:
    return len(list(mapper.iterate_to_root()))


def _path(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _said(cls: type[Any]) -> Any:
    owner = owner_of_attribute(cls)
    return None if owner is None else said_by_class(cls)
