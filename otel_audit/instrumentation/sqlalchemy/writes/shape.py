"""What a compiled INSERT, UPDATE or DELETE writes, whatever its parameters: looked at once.

The ORM's statements are looked at as it has made Core's of them: with the conditions it adds, and the one
table it writes where a class has several.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.schema import Column
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList

from otel_audit.capture.plan import Verb

if TYPE_CHECKING:
    from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan
    from otel_audit.instrumentation.sqlalchemy.plan import MappedPlan, Plans

EXPRESSION: Final = ""
"""Stands for the name of a parameter where the database makes the value."""


class Shape:
    """One compiled statement on an audited table.

    Attributes:
        sets: the columns it writes, and the parameter that holds the value of each, or :data:`EXPRESSION`.
        expressions: those of an UPDATE that are set to expressions, by column.
        moved: the columns that it may give another value, without those that an UPDATE names its row by.
        key: the parameters that hold the key, where the condition of an UPDATE or DELETE names one row by it.
        where: that condition otherwise.
        statement: the statement of Core's that the condition stands in.
        bind_names: names of parameters in the values of an execution, by parameter.
        source: the table, or what it is called in the condition.
        several: one set of parameters holds several rows (``values([...])``).
        replaces: what is there is deleted first.
        selects: an INSERT of what a SELECT returns.
        upsert: an INSERT that may do something else where the row is there.
        conflict: the clause that says what.
        ignores: that is nothing.
        conditional: it depends on more than that the row is there.
        selectable: the rows of a condition are those a SELECT with the same condition finds.
    """

    __slots__ = (
        "bind_names",
        "conditional",
        "conflict",
        "expressions",
        "fields",
        "ignores",
        "key",
        "moved",
        "plan",
        "replaces",
        "selectable",
        "selects",
        "sets",
        "several",
        "source",
        "statement",
        "upsert",
        "verb",
        "where",
    )

    def __init__(self, plan: MappedPlan, verb: Verb, compiled: Any, state: Any) -> None:
        self.plan = plan
        self.verb: Verb = verb
        self.statement: Any = state.statement
        self.source = _source(state)
        self.bind_names: Any = compiled.bind_names
        written, expressions, elsewhere = _written(plan, verb, compiled, state)
        self.sets: list[tuple[ColumnPlan, str]] = written
        self.fields = [field for field, _ in written]
        self.expressions: dict[ColumnPlan, Any] = expressions
        criteria = tuple(getattr(state.statement, "_where_criteria", ()))
        self.where: tuple[Any, ...] = criteria
        self.key = _key(plan, criteria, self.bind_names) if plan.keys and not elsewhere else None
        named = set(self.key or ())
        self.moved = [field.column for field, name in written if name not in named]
        self.several = bool(getattr(state, "_has_multi_parameters", False))
        self.selects = getattr(state.statement, "select", None) is not None
        prefixes = [str(prefix).upper() for prefix, _ in getattr(state.statement, "_prefixes", ())]
        self.conflict = getattr(state.statement, "_post_values_clause", None)
        kind = getattr(self.conflict, "__visit_name__", "")
        ignoring = any("IGNORE" in prefix for prefix in prefixes)
        self.ignores = ignoring or kind == "on_conflict_do_nothing"
        self.conditional = getattr(self.conflict, "update_whereclause", None) is not None
        self.replaces = any("REPLACE" in prefix for prefix in prefixes)
        self.upsert = verb == "create" and (
            self.conflict is not None
            or any("IGNORE" in prefix or prefix.startswith("OR ") for prefix in prefixes)
        )
        self.selectable = (
            bool(plan.keys)
            and not elsewhere
            and not prefixes
            and not getattr(state.statement, "_independent_ctes", ())
            and not any(
                name.endswith(("_limit", "_order_by"))
                for name in getattr(state.statement, "dialect_kwargs", ())
            )
            and getattr(state.statement, "_post_criteria_clause", None) is None
        )


def shape_of(compiled: Any, plans: Plans) -> Shape | None:
    """Return what a compiled statement writes; None where its table is not audited."""
    state = compile_state(compiled)
    if state is None:
        return None
    plan = plans.of(written_table(state))
    if plan is None or not plan.audited:
        return None
    verb: Verb = "create" if compiled.isinsert else "update" if compiled.isupdate else "delete"
    return Shape(plan, verb, compiled, state)


def compiled_table(compiled: Any) -> Any:
    """Return the table that a compiled statement writes, None if it does not say."""
    state = compile_state(compiled)
    return None if state is None else written_table(state)


def compile_state(compiled: Any) -> Any:
    """Return what a statement was compiled with, None if it writes nothing."""
    return getattr(compiled, "dml_compile_state", None) or getattr(compiled, "compile_state", None)


def written_table(state: Any) -> Any:
    """Return the table that is really written, behind annotations and aliases."""
    return bare(_source(state))


def emitted_table(statement: Any) -> Any:
    """Return the table that an INSERT writes which is not compiled yet.

    The ORM has one statement for all tables of a class, and says beside it which of them comes now.
    """
    emitted = statement._annotations.get("_emit_insert_table")
    return bare(statement.table if emitted is None else emitted)


def unannotated(element: Any) -> Any:
    """Return the column or table that the ORM has annotated a copy of; anything else as it is."""
    return getattr(element, "__dict__", {}).get("_Annotated__element", element)


def bare(table: Any) -> Any:
    """Return what stands behind annotations and aliases."""
    for _ in range(16):
        table = unannotated(table)
        inner = getattr(table, "element", None)
        if inner is None:
            break
        table = inner
    return table


def _source(state: Any) -> Any:
    """Return what is written by the name it has in the statement: a table or an alias of one."""
    table = getattr(state, "dml_table", None)
    if table is None:
        table = state.statement.table
    return unannotated(table)


def _written(
    plan: MappedPlan, verb: Verb, compiled: Any, state: Any
) -> tuple[list[tuple[ColumnPlan, str]], dict[ColumnPlan, Any], bool]:
    """Return columns with parameters, columns with expressions, and whether other tables are written, too."""
    if verb == "delete":
        return [], {}, False
    sources: dict[ColumnPlan, str] = {}
    expressions: dict[ColumnPlan, Any] = {}
    elsewhere = False
    for key, value in (getattr(state, "_dict_parameters", None) or {}).items():
        field = _field(plan, key)
        if field is None:
            elsewhere = True
        elif isinstance(value, BindParameter):
            sources[field] = field.column.key if value.unique else value.key
        elif hasattr(value, "_compiler_dispatch") or hasattr(value, "__clause_element__"):
            sources[field] = EXPRESSION
            expressions[field] = value
        else:
            sources[field] = field.column.key
    for key in compiled.column_keys or ():
        field = plan.by_key.get(key)
        if field is not None:
            sources.setdefault(field, key)
    for column in compiled.insert_prefetch if verb == "create" else compiled.update_prefetch:
        field = plan.by_column.get(column) if isinstance(column, Column) else None
        if field is not None:
            sources.setdefault(field, column.key)
    if verb == "update":
        for field in plan.fields:
            if field.column.onupdate is not None:
                sources.setdefault(field, EXPRESSION)
    return list(sources.items()), expressions, elsewhere


def _field(plan: MappedPlan, key: Any) -> ColumnPlan | None:
    if isinstance(key, str):
        return plan.by_key.get(key)
    column = unannotated(key)
    if not isinstance(column, Column):  # of an alias
        return plan.by_key.get(getattr(column, "key", ""))
    return plan.by_column.get(column)


def _key(plan: MappedPlan, criteria: tuple[Any, ...], bind_names: Any) -> tuple[str, ...] | None:
    """Return the parameters of the key where all conditions are equalities and some name the whole key."""
    found: dict[ColumnPlan, str] = {}
    for each in _conjuncts(criteria):
        if not isinstance(each, BinaryExpression) or each.operator is not operators.eq:
            return None
        left, right = each.left, each.right
        if isinstance(left, BindParameter):
            left, right = right, left
        if not isinstance(right, BindParameter) or right.expanding or not isinstance(left, Column):
            return None
        field = plan.by_column.get(unannotated(left))
        if field is None:
            return None  # another table's, or an alias's
        name = bind_names.get(right)
        if name is None:
            return None
        found.setdefault(field, name)
    if any(field not in found for field in plan.keys):
        return None
    return tuple([found[field] for field in plan.keys])


def _conjuncts(criteria: tuple[Any, ...]) -> Iterator[Any]:
    for each in criteria:
        if isinstance(each, BooleanClauseList) and each.operator is operators.and_:
            yield from _conjuncts(tuple(each.clauses))
        else:
            yield each
