"""What a compiled statement displays of sensitive tables: decided once, before any row is looked at.

Columns are followed through labels, aliases, subqueries and CTEs to the table they are from. Columns that
only filter, join or order display nothing and are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from sqlalchemy.schema import Column, Table
from sqlalchemy.sql.elements import BindParameter, Label, Null, Over, TextClause
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import (
    Alias,
    CompoundSelect,
    Exists,
    FromClause,
    Join,
    ScalarSelect,
    Select,
    SelectBase,
    TableClause,
)

from otel_audit.capture.reads import KeyColumn, Reading, ReadKey
from otel_audit.interruptions import faults
from otel_audit.named_tuples import NamedTuple
from otel_audit.values import key_text

if TYPE_CHECKING:
    from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan
    from otel_audit.instrumentation.sqlalchemy.plan import MappedPlan, Plans

Kind: TypeAlias = Literal["rows", "count", "exists", "aggregate"]

_AGGREGATES: Final = frozenset(
    {
        "aggregate_strings",
        "any_value",
        "array_agg",
        "avg",
        "bit_and",
        "bit_or",
        "bool_and",
        "bool_or",
        "count",
        "every",
        "group_concat",
        "json_agg",
        "json_arrayagg",
        "json_group_array",
        "json_group_object",
        "json_object_agg",
        "jsonb_agg",
        "jsonb_object_agg",
        "listagg",
        "max",
        "median",
        "min",
        "mode",
        "percentile_cont",
        "percentile_disc",
        "stddev",
        "stddev_pop",
        "stddev_samp",
        "string_agg",
        "sum",
        "total",
        "var_pop",
        "var_samp",
        "variance",
    }
)
_CATALOGS: Final = frozenset({"pg_catalog", "information_schema", "sys"})
"""Schemas of the database's own tables, which SQLAlchemy selects from to reflect others."""
_DEEPEST: Final = 64
"""Subqueries within one another that a column is followed through."""


class Displayed(NamedTuple):
    """What a statement displays: one reading for each table, and how to take the keys of each from a row.

    ``kind`` is ``rows``, or what is asked of many rows and answered by one.
    """

    kind: Kind
    readings: tuple[tuple[Reading, list[ReadKey]], ...]
    schema: str | None


def displayed_by(compiled: Any, plans: Plans, description: Sequence[Any]) -> Displayed | None:
    """Return what the rows of a compiled statement display of sensitive tables, None if nothing.

    Args:
        compiled: an SQLCompiler that is not one of an INSERT, UPDATE or DELETE.
        plans: of tables.
        description: of its cursor.
    """
    entries = getattr(compiled, "_result_columns", None)
    if not entries:
        return None
    statement = compiled.statement
    core = getattr(getattr(compiled, "compile_state", None), "statement", None)
    if not isinstance(core, Select):
        core = statement if isinstance(statement, Select) else None
    groups = _Groups(plans, _children(statement))
    expressions = [_unwrapped(entry.objects[0]) for entry in entries]
    kind = _kind(core, expressions)
    positions = _positions(compiled, entries, description)
    parts = _parts(statement)
    for place, expression in enumerate(expressions):
        if positions is not None and positions[place] is None:
            continue
        if kind == "rows":
            groups.show(expression, None if positions is None else positions[place])
        elif kind == "aggregate":
            groups.show_within(expression)
    if kind != "rows" or any(isinstance(each, TextClause) or _is_literal(each) for each in expressions):
        for table in _sources(core, expressions):
            groups.name(table)
    if parts:
        groups.combine(parts)
    every_row = _every_row(core)
    found = groups.shown(every_row, within_relationship=_loads_relationship(compiled))
    if not found:
        return None
    return Displayed(
        kind,
        tuple((_reading(shown), _key_readers(shown, compiled.dialect, description)) for shown in found),
        found[0].plan.schema,
    )


class KeyColumns(NamedTuple):
    """Where the primary key of a row of a table stands in a row of the result: its columns, in order."""

    positions: tuple[int, ...]
    columns: tuple[Any, ...]


class Shown(NamedTuple):
    """One sensitive table in a statement, and the names of its fields that are displayed.

    ``keys`` is empty where the rows do not say which objects they are from. ``every_row``: each row of the
    result is a row of this table.
    """

    plan: MappedPlan
    fields: tuple[str, ...]
    keys: tuple[KeyColumns, ...]
    every_row: bool


def _reading(shown: Shown) -> Reading:
    plan = shown.plan
    return Reading(plan.label, plan.event, plan.table, shown.fields, shown.every_row, plan.key_strategies)


# --- columns, and where they are from --------------------------------------------------------------


class _Source(NamedTuple):
    """A column of a table, and by which aliases and subqueries a statement has it."""

    path: tuple[int, ...]
    column: Any
    table: Any


def _unwrapped(element: Any) -> Any:
    """Return what a label, or the compiler's own stand-in for one, is put on."""
    for _ in range(_DEEPEST):
        if isinstance(element, Label) or (
            not isinstance(element, FromClause) and type(element).__name__ == "_CompileLabel"
        ):
            element = element.element
        else:
            break
    return element


def _bare(element: Any) -> Any:
    return getattr(element, "__dict__", {}).get("_Annotated__element", element)


def _source(element: Any) -> _Source | None:
    """Return the column of a table that an element is, as it is, wherever the statement has it from."""
    column = _bare(_unwrapped(element))
    path: list[int] = []
    for _ in range(_DEEPEST):
        if isinstance(column, Column) and isinstance(_bare(column.table), Table):
            return _Source(tuple(path), column, _bare(column.table))
        inner = getattr(column, "_proxies", ())
        if not inner or getattr(column, "table", None) is None:
            return None
        if len(inner) > 1:  # of a union: it may be the same column of the same table in all parts
            bases = {_bare(each) for each in column.base_columns}
            if len(bases) != 1:
                return None
            path.append(id(column.table))
            column = bases.pop()
            continue
        path.append(id(_bare(column.table)))
        column = _bare(_unwrapped(inner[0]))
    return None


def _columns_within(expression: Any) -> Iterator[_Source]:
    """Yield the table columns that an expression is made of."""
    stack: list[tuple[Any, tuple[int, ...]]] = [(expression, ())]
    seen: set[tuple[int, tuple[int, ...]]] = set()
    while stack:
        element, path = stack.pop()
        element = _bare(_unwrapped(element))
        if (id(element), path) in seen or len(path) > _DEEPEST or isinstance(element, Exists):
            continue
        seen.add((id(element), path))
        inner: Sequence[Any] = ()
        if isinstance(element, Column) and isinstance(_bare(element.table), Table):
            yield _Source(path, element, _bare(element.table))
            continue
        if isinstance(element, ScalarSelect | SelectBase):
            inner, path = _selected(element), (*path, id(element))
        elif getattr(element, "_proxies", ()) and getattr(element, "table", None) is not None:
            inner, path = element._proxies, (*path, id(_bare(element.table)))
            if len(inner) > 1:
                inner = list(element.base_columns)
        elif isinstance(element, FunctionElement) or not isinstance(element, FromClause):
            inner = list(getattr(element, "get_children", tuple)())
        stack.extend((each, path) for each in reversed(inner))


def _selected(query: Any) -> list[Any]:
    """Return the columns that a query within another one selects."""
    while not isinstance(query, SelectBase) and hasattr(query, "element"):
        query = query.element
    return list(getattr(query, "selected_columns", ()))


class _Group:
    """The columns of one table under one alias: names displayed, and where they stand in a row."""

    def __init__(self, plan: MappedPlan, mapper: Any) -> None:
        self.plan = plan
        self.mapper = mapper
        self.shown: dict[str, None] = {}
        self.columns: dict[Any, int] = {}
        self.only_keys = True

    def key(self) -> KeyColumns | None:
        """Find the primary key; a child's is also that of any of its parents."""
        own = tuple([field.column for field in self.plan.keys])
        for columns in (own, *self._parents()):
            positions = [self.columns.get(column) for column in columns]
            if positions and None not in positions:
                return KeyColumns(tuple(positions), columns)  # type: ignore[arg-type]
        return None

    def _parents(self) -> Iterator[tuple[Any, ...]]:
        mapper = self.mapper
        for each in mapper.iterate_to_root() if mapper is not None else ():
            if isinstance(each.local_table, Table) and len(each.local_table.primary_key) == len(
                self.plan.keys
            ):
                yield tuple(each.local_table.primary_key)


class _Groups:
    """Sorts the columns of a statement by the table and the alias they are from; keeps the sensitive ones.

    Args:
        plans: of tables.
        children: of each table of a parent's, the mapper of the child whose objects the statement is about.
    """

    def __init__(self, plans: Plans, children: dict[Any, Any]) -> None:
        self._plans = plans
        self._children = children
        self._groups: dict[tuple[Any, ...], _Group] = {}
        self._ambiguous = False
        self._others = False

    def show(self, expression: Any, position: int | None) -> None:
        """Add a column of the result, which stands at ``position`` of each row; None: nobody knows."""
        source = _source(expression)
        if source is None:
            self.show_within(expression)
            return
        group = self._group(source.path, source.table)
        if group is not None:
            self._name(group, source.column)
            if position is not None:
                group.columns.setdefault(source.column, position)

    def show_within(self, expression: Any) -> None:
        """Add all columns that an expression is made of."""
        for source in _columns_within(expression):
            group = self._group(source.path, source.table)
            if group is not None:
                self._name(group, source.column)

    def name(self, table: Any) -> None:
        """Add a table of which it is not known what is displayed, or nothing is but how many rows it has."""
        if not any(group.plan is self._plan(table)[0] for group in self._groups.values()):
            self._group((), table)

    def combine(self, parts: Sequence[Sequence[Any]]) -> None:
        """Add what all parts of a union select; rows of several tables do not say whose key they have."""
        places: list[set[Any]] = []
        for columns in parts:
            sources = [_source(column) for column in columns]
            places.append({None if source is None else source.table for source in sources} - {None})
            for column, source in zip(columns, sources, strict=True):
                if source is None:
                    self.show_within(column)
                else:
                    group = self._group(source.path, source.table)
                    if group is not None:
                        self._name(group, source.column)
        selected = {tuple([_column_of(column) for column in columns]) for columns in parts}
        self._ambiguous = len(selected) > 1 and any(place != places[0] or len(place) > 1 for place in places)

    def shown(self, every_row: Any, *, within_relationship: bool) -> list[Shown]:
        """Return one entry for each table: several aliases of it come together."""
        by_plan: dict[Any, list[_Group]] = {}
        only = len(self._groups) == 1 and not self._others
        for group in self._groups.values():
            # What a relationship is loaded by are the keys of objects that are there already.
            if within_relationship and not only and group.only_keys and group.shown:
                continue
            by_plan.setdefault(group.plan, []).append(group)
        found = []
        for plan, groups in by_plan.items():
            fields = tuple(dict.fromkeys(name for group in groups for name in group.shown))
            keys = [group.key() for group in groups]
            known = () if self._ambiguous else tuple([key for key in keys if key is not None])
            whole = only and every_row is plan.fields[0].column.table
            found.append(Shown(plan, fields, known if len(known) == len(keys) else (), whole))
        return found

    def _name(self, group: _Group, column: Any) -> None:
        field = group.plan.by_column.get(column)
        if field is None:  # of a parent's table
            plan = self._plans.of(_bare(column.table))
            field = None if plan is None else plan.by_column.get(column)
        if field is not None:
            name = field.name
        else:
            prop = None if group.mapper is None else group.mapper._columntoproperty.get(column)
            name = column.key if prop is None else prop.key
        group.shown.setdefault(name)
        group.only_keys = group.only_keys and (column.primary_key or field in group.plan.keys)

    def _plan(self, table: Any) -> tuple[MappedPlan | None, Any]:
        if table.schema is not None and table.schema.lower() in _CATALOGS:
            return None, None
        child = self._children.get(table)
        if child is not None:
            plan = self._plans.of(child.local_table)
            if plan is not None and plan.reads:
                return plan, child
        plan = self._plans.of(table)
        return (plan if plan is not None and plan.reads else None), child

    def _group(self, path: tuple[Any, ...], table: Any) -> _Group | None:
        plan, child = self._plan(table)
        if plan is None:
            self._others = True
            return None
        place = (path, plan)
        group = self._groups.get(place)
        if group is None:
            group = self._groups[place] = _Group(plan, child)
        return group


def _column_of(element: Any) -> Any:
    source = _source(element)
    return None if source is None else source.column


def _children(statement: Any) -> dict[Any, Any]:
    """Return the mapper of the child whose objects a statement is about, by each table of its parents."""
    mappers = []
    for column in getattr(statement, "_raw_columns", ()):
        mapper = getattr(column, "_annotations", {}).get("parentmapper")
        if mapper is not None and mapper not in mappers:
            mappers.append(mapper)
    own = {mapper.local_table for mapper in mappers}
    return {
        table: mapper
        for mapper in mappers
        if mapper.inherits is not None and isinstance(mapper.local_table, Table)
        for table in mapper.tables
        if table is mapper.local_table or table not in own
    }


def _parts(statement: Any) -> list[list[Any]]:
    """Return the columns of each part of a union; nothing of any other statement."""
    statement = _bare(statement)
    if not isinstance(statement, CompoundSelect):
        statement = _bare(getattr(statement, "element", None))
        if not isinstance(statement, CompoundSelect):
            return []
    return [columns for part in statement.selects for columns in (_parts(part) or [_selected(part)])]


def _positions(compiled: Any, entries: Sequence[Any], description: Sequence[Any]) -> list[int | None] | None:
    """Return where each column stands in a row, None for those a text does not return; None: nobody knows."""
    if compiled._ordered_columns and len(entries) == len(description):
        return list(range(len(entries)))
    if not compiled._ordered_columns and len({entry.keyname for entry in entries}) == len(entries):
        names = {str(each[0]).lower(): place for place, each in enumerate(description)}
        if all(isinstance(entry.keyname, str) for entry in entries):
            return [names.get(entry.keyname.lower()) for entry in entries]
    return None


# --- what a statement asks -------------------------------------------------------------------------


def _kind(core: Any, expressions: Sequence[Any]) -> Kind:
    """Say what a statement asks: for rows, or for one answer about many."""
    if core is None or core._group_by_clauses:
        return "rows"
    bare = [_bare(each) for each in expressions]
    if len(bare) == 1 and isinstance(bare[0], Exists):
        return "exists"
    if all(isinstance(each, BindParameter | Null) or _is_constant(each) for each in bare):
        return "exists"
    if len(bare) == 1 and _is_plain_count(bare[0]):
        return "count"
    if all(_aggregates(each) for each in bare):
        return "aggregate"
    return "rows"


def _is_constant(element: Any) -> bool:
    """Say whether an element is a text that displays nothing: ``1``, ``true``."""
    text = str(getattr(element, "text", None) or (element.name if _is_literal(element) else ""))
    return text.strip().lower() in ("1", "true", "'x'", "null") or element.__visit_name__ in ("true", "false")


def _is_literal(element: Any) -> bool:
    return bool(getattr(element, "is_literal", False))


def _is_plain_count(element: Any) -> bool:
    """Say whether an element is the number of rows: of all, or of those that have a key."""
    if not isinstance(element, FunctionElement) or getattr(element, "name", "") != "count":
        return False
    for each in element.clauses:
        source = _source(each)
        if not (_is_literal(each) or isinstance(each, BindParameter)) and (
            source is None or not source.column.primary_key
        ):
            return False
    return True


def _aggregates(expression: Any) -> bool:
    """Say whether an expression makes one value of many rows."""
    stack = [expression]
    while stack:
        element = _unwrapped(stack.pop())
        if isinstance(element, FunctionElement):
            if getattr(element, "name", "").lower() in _AGGREGATES:
                return True
        elif isinstance(element, Over | ScalarSelect | SelectBase | Exists | FromClause):
            continue
        stack.extend(getattr(element, "get_children", tuple)())
    return False


def _froms(query: Any) -> list[Any]:
    try:
        return list(query.get_final_froms())
    except faults():  # a statement that cannot be compiled once more
        return list(getattr(query, "columns_clause_froms", ()))


def _sources(core: Any, expressions: Sequence[Any]) -> Iterator[Any]:
    """Yield the tables whose rows a statement is about: those its joins begin with."""
    stack = [core] if core is not None else []
    stack.extend(each.element for each in expressions if isinstance(each, Exists))
    seen = set()
    while stack:
        source = _bare(stack.pop())
        if source is None or id(source) in seen:
            continue
        seen.add(id(source))
        if isinstance(source, Table):
            yield source
        elif isinstance(source, Select):
            stack.extend(_froms(source))
        elif isinstance(source, CompoundSelect):
            stack.extend(source.selects)
        elif isinstance(source, Join):
            stack.append(source.left)
        elif not isinstance(source, TableClause):
            stack.append(getattr(source, "element", None))


def _every_row(core: Any) -> Any:
    """Return the only table that a statement selects from, if each row of it makes one of the result."""
    if core is None or core._group_by_clauses or core._distinct:
        return None
    froms = _froms(core)
    if len(froms) != 1:
        return None
    only = _bare(froms[0])
    if type(only) is Alias:
        only = _bare(only.element)
    return only if isinstance(only, Table) else None


def _loads_relationship(compiled: Any) -> bool:
    """Say whether the ORM selects the objects of a relationship of others."""
    options = getattr(getattr(compiled, "compile_state", None), "compile_options", None)
    return bool(getattr(options, "_current_path", None))


# --- keys ------------------------------------------------------------------------------------------


def _key_readers(shown: Shown, dialect: Any, description: Sequence[Any]) -> list[ReadKey]:
    return [_key_reader(shown.plan, key, dialect, description) for key in shown.keys]


def _key_reader(plan: MappedPlan, key: KeyColumns, dialect: Any, description: Sequence[Any]) -> ReadKey:
    """Make a function that returns the key in a row of the driver's as text, ``""`` if there is none."""
    parts: list[tuple[int, Callable[[Any], Any] | None, ColumnPlan]] = []
    for position, column, field in zip(key.positions, key.columns, plan.keys, strict=True):
        process = column.type._cached_result_processor(dialect, description[position][1])
        parts.append((position, process, field))
    if len(parts) == 1 and parts[0][1] is None:
        only, _, single = parts[0]
        return KeyColumn(only, single.canonical, single.frozen)

    def read(row: Sequence[Any]) -> str:
        values = []
        for position, process, field in parts:
            value = row[position]
            if value is None:
                return ""
            values.append(field.frozen(value if process is None else process(value)))
        return key_text(values[0] if len(values) == 1 else tuple(values))

    return read
