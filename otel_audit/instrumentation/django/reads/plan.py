"""What a query reads of sensitive models: decided from the query, before any row is looked at.

Selected columns, ``select_related`` joins, annotations, aggregates and scalar subqueries are followed to the
model whose columns they show. Columns that only filter or order show nothing and are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from django.db.models import Exists, Subquery
from django.db.models.expressions import Col, ColPairs, Value
from django.db.models.sql import AggregateQuery, Query

from otel_audit.capture.reads import KeyColumn, Reading, ReadKey
from otel_audit.named_tuples import NamedTuple
from otel_audit.values import key_text

IsSensitive = Callable[[Any], bool]
"""Says whether reads of a concrete model are recorded."""

_OTHER_QUERY: Final = object()


class KeyColumns(NamedTuple):
    """Where the primary key of an object stands in a row: one position and expression a key column."""

    positions: tuple[int, ...]
    columns: tuple[Any, ...]


class ModelReading(NamedTuple):
    """One sensitive model in a query, and the names of its fields that are shown.

    ``keys`` is empty where the rows do not say which objects they are from. ``every_row``: each row is an
    object of this model; a join may match none, or the same one again.
    """

    model: Any
    fields: tuple[str, ...]
    keys: tuple[KeyColumns, ...] = ()
    every_row: bool = False

    def named(self, key_strategies: tuple[str, ...]) -> Reading:
        """Return it as records name it; ``key_strategies`` are those of the model's key."""
        meta = self.model._meta
        return Reading(
            meta.label, meta.label_lower, meta.db_table, self.fields, self.every_row, key_strategies
        )


def row_readings(
    compiler: Any, is_sensitive: IsSensitive, appended: Sequence[Any] = ()
) -> list[ModelReading]:
    """List what the rows of a compiled query show of sensitive models, one entry a model.

    Args:
        compiler: an SQLCompiler that has made its SQL.
        is_sensitive: the policy.
        appended: key columns that stand in each row behind those the query selects.
    """
    query: Query = compiler.query
    whole = None if appended else _whole_row(compiler, query, is_sensitive)
    if whole is not None:
        return [whole]
    groups = _Groups(query, is_sensitive)
    position = 0
    for expression, *_ in compiler.select:
        if isinstance(expression, ColPairs):  # a composite key is several columns of the row
            for column in expression.get_cols():
                groups.show(column, position)
                position += 1
            continue
        if isinstance(expression, Col):
            groups.show(expression, position)
        else:
            groups.show_within(expression)
        position += 1
    for column in appended:
        groups.find(column, position)
        position += 1
    found = groups.readings()
    if query.combinator:
        return _combined(query, found, is_sensitive)
    return found


def _whole_row(compiler: Any, query: Query, is_sensitive: IsSensitive) -> ModelReading | None:
    """Return the reading of most queries, all columns of one table and nothing else; None of any other."""
    if (
        not query.default_cols
        or query.annotations
        or query.select_related
        or query.deferred_loading[0]
        or query.extra
        or query.combinator
    ):
        return None
    model = _concrete(query.model)
    meta, select = model._meta, compiler.select
    fields, keys = meta.concrete_fields, meta.pk_fields
    if meta.parents or len(keys) != 1 or len(select) != len(fields) or not is_sensitive(model):
        return None
    for position, field in enumerate(fields):
        if field is keys[0]:
            column = select[position][0]
            if type(column) is Col and column.target is field and column.alias == query.base_table:
                names = tuple([each.name for each in fields])
                return ModelReading(model, names, (KeyColumns((position,), (column,)),), every_row=True)
    return None


def aggregate_readings(query: Query, kind: str, is_sensitive: IsSensitive) -> list[ModelReading]:
    """List what a count, exists or aggregate says about sensitive models."""
    counted: Query = query.inner_query if isinstance(query, AggregateQuery) else query
    groups = _Groups(counted, is_sensitive)
    if kind == "aggregate":
        for expression in query.annotation_select.values():
            groups.show_within(expression)
    found = [ModelReading(reading.model, reading.fields) for reading in groups.readings()]
    base = _concrete(counted.model)
    if is_sensitive(base) and all(reading.model is not base for reading in found):
        found.append(ModelReading(base, ()))
    if counted.combinator:
        return _combined(counted, found, is_sensitive)
    return found


def kind_of(query: Query) -> str:
    """Name what a query that has one row asks: ``count``, ``exists`` or ``aggregate``."""
    shown = query.annotation_select
    if list(shown) == ["__count"]:
        return "count"
    if list(shown) == ["a"] and isinstance(shown["a"], Value):
        return "exists"
    return "aggregate"


def missing_keys(query: Query, is_sensitive: IsSensitive) -> list[Col]:
    """List the key columns that ``values()`` left out, where selecting them too cannot change the result."""
    if query.default_cols or query.distinct or query.combinator or query.group_by is not None:
        return []
    groups = _Groups(query, is_sensitive)
    for expression in (*query.select, *query.annotation_select.values()):
        if getattr(expression, "contains_aggregate", False):
            return []
        for column in expression.get_cols() if isinstance(expression, ColPairs) else [expression]:
            if isinstance(column, Col):
                groups.show(column, 0)
            else:
                groups.show_within(column)
    return groups.missing()


def shown_columns(expression: Any) -> Iterator[tuple[Col, bool]]:
    """Find the columns whose values an expression shows, and whether they belong to a subquery."""
    stack = [(expression, False)]
    while stack:
        found, inner = stack.pop()
        if isinstance(found, Col):
            yield found, inner
        elif isinstance(found, Exists):
            continue
        elif isinstance(found, Subquery):
            stack.append((found.query, True))
        elif isinstance(found, Query):
            shown = (*found.select, *found.annotation_select.values())
            stack.extend((column, True) for column in reversed(shown))
        elif isinstance(found, ColPairs):
            stack.extend((column, inner) for column in found.get_cols())
        elif hasattr(found, "get_source_expressions"):
            parts = found.get_source_expressions()
            stack.extend((part, inner) for part in reversed(parts) if part is not None)


def shows_a_query(expression: Any) -> bool:
    """Say whether an expression shows columns of a query within: the tables around it do not tell which."""
    waiting = [expression]
    while waiting:
        found = waiting.pop()
        if isinstance(found, Exists):
            continue
        if isinstance(found, Subquery | Query):
            return True
        if not hasattr(found, "get_source_expressions"):
            continue
        waiting += [part for part in found.get_source_expressions() if part is not None]
    return False


class _Group:
    """The columns of one model under one alias: names shown, and where key columns stand."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.shown: dict[str, None] = {}
        self.columns: dict[Any, tuple[int, Col]] = {}
        self.table: tuple[str, Any] | None = None
        """One of its tables: alias and model."""

    def key(self) -> KeyColumns | None:
        """Find the primary key; a child's is also that of any parent."""
        for model in (self.model, *self.model._meta.get_parent_list()):
            found = [self.columns.get(field) for field in model._meta.pk_fields]
            if found and all(column is not None for column in found):
                positions, columns = zip(*(column for column in found if column is not None), strict=True)
                return KeyColumns(positions, columns)
        return None


class _Groups:
    """Sorts the columns of a query by the model and alias they belong to; only sensitive models are kept."""

    def __init__(self, query: Query, is_sensitive: IsSensitive) -> None:
        self._query = query
        self._is_sensitive = is_sensitive
        self._base = _concrete(query.model)
        self._base_group = (None, self._base)
        self._groups: dict[tuple[Any, Any], _Group] = {}
        self._owners: dict[tuple[Any, Any], tuple[Any, Any] | None] = {}

    def show(self, column: Col, position: int) -> None:
        """Add a column of the row."""
        group = self._group(column, column.alias)
        if group is not None:
            group.shown.setdefault(column.target.name)
            group.columns.setdefault(column.target, (position, column))
            group.table = group.table or (column.alias, column.target.model)

    def find(self, column: Col, position: int) -> None:
        """Add a column of the row that the application will not see."""
        group = self._group(column, column.alias)
        if group is not None:
            group.columns.setdefault(column.target, (position, column))

    def show_within(self, expression: Any) -> None:
        """Add all columns an expression is made of."""
        for column, inner in shown_columns(expression):
            group = self._group(column, _OTHER_QUERY if inner else column.alias)
            if group is not None:
                group.shown.setdefault(column.target.name)
                if not inner:
                    group.table = group.table or (column.alias, column.target.model)

    def missing(self) -> list[Col]:
        """List the key columns of the groups that have none, each under the alias of its group."""
        columns: list[Col] = []
        for group in self._groups.values():
            if group.key() is None and group.table is not None:
                alias, model = group.table
                columns += [field.get_col(alias) for field in model._meta.pk_fields]
        return columns

    def readings(self) -> list[ModelReading]:
        """Return one reading a model: several aliases of it come together."""
        by_model: dict[Any, list[_Group]] = {}
        for group in self._groups.values():
            by_model.setdefault(group.model, []).append(group)
        found = []
        for model, groups in by_model.items():
            fields = tuple(dict.fromkeys(name for group in groups for name in group.shown))
            keys = [group.key() for group in groups]
            known = tuple(key for key in keys if key is not None)
            every_row = len(groups) == 1 and self._base_group in self._groups and model is self._base
            found.append(ModelReading(model, fields, known if len(known) == len(keys) else (), every_row))
        return found

    def _group(self, column: Col, alias: Any) -> _Group | None:
        model = _concrete(column.target.model)
        place = (alias, model)
        try:
            owner = self._owners[place]
        except KeyError:
            owner = self._owners[place] = self._owner(alias, model)
        if owner is None:
            return None
        group = self._groups.get(owner)
        if group is None:
            group = self._groups[owner] = _Group(owner[1])
        return group

    def _owner(self, alias: Any, model: Any) -> tuple[Any, Any] | None:
        # A child's columns lie in several tables; its record names the child, the most that is known.
        if alias is not _OTHER_QUERY:
            child = self._child_at(alias)
            for candidate in (child, model):
                if candidate is not None and self._is_sensitive(candidate):
                    root = self._root(alias) if candidate is child else alias
                    if candidate is self._base and root == self._query.base_table:
                        return self._base_group
                    return root, candidate
            return None
        return (alias, model) if self._is_sensitive(model) else None

    def _child_at(self, alias: str) -> Any:
        """Return the model a query or a join asked for, of whose tables ``alias`` is one."""
        root = self._root(alias)
        if root == self._query.base_table:
            return self._base
        join = self._query.alias_map.get(root)
        field = getattr(join, "join_field", None)
        related = getattr(field, "related_model", None)
        return None if related is None else _concrete(related)

    def _root(self, alias: str) -> str:
        """Follow the joins from a child's table to its parents' back to the child's."""
        aliases = self._query.alias_map
        while alias in aliases:
            join = aliases[alias]
            parent = getattr(join, "parent_alias", None)
            remote = getattr(getattr(join, "join_field", None), "remote_field", None)
            if parent is None or not getattr(remote, "parent_link", False):
                break
            alias = parent
        return alias


def _combined(query: Query, found: Iterable[ModelReading], is_sensitive: IsSensitive) -> list[ModelReading]:
    """Add the models of the other parts of a union; rows of several models do not say whose key they have."""
    models = {_concrete(part.model) for part in _parts(query)}
    readings = [reading._replace(every_row=False) for reading in found]
    if len(models) == 1:
        return readings
    readings = [reading._replace(keys=()) for reading in readings]
    known = {reading.model for reading in readings}
    readings += [ModelReading(model, ()) for model in models - known if is_sensitive(model)]
    return readings


def _parts(query: Query) -> Iterator[Query]:
    for part in query.combined_queries:
        if part.combinator:
            yield from _parts(part)
        else:
            yield part


def _concrete(model: Any) -> Any:
    return model._meta.concrete_model


def key_readers(compiler: Any, keys: Iterable[KeyColumns]) -> list[ReadKey]:
    """Make a function for each key that takes it out of a row, as the application knows it."""
    return [_key_reader(compiler, key) for key in keys]


def _key_reader(compiler: Any, key: KeyColumns) -> ReadKey:
    """Make a function that gives the key of a row as text, ``""`` for an outer join without a match."""
    converters = [compiler.get_converters([column]).get(0) for column in key.columns]
    connection = compiler.connection
    if len(key.positions) == 1 and converters[0] is None:
        return KeyColumn(key.positions[0])

    def read(row: Sequence[Any]) -> str:
        values = []
        for position, found in zip(key.positions, converters, strict=True):
            value = row[position]
            if value is None:
                return ""
            for convert in found[0] if found else ():
                value = convert(value, found[1], connection)
            values.append(value)
        return key_text(values[0] if len(values) == 1 else tuple(values))

    return read
