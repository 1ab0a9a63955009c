"""The conditions of a statement that is about to write, with the values of this execution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.visitors import replacement_traverse

from otel_audit.named_tuples import NamedTuple

if TYPE_CHECKING:
    from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan


class Condition(NamedTuple):
    """What rows meet that a statement is about to write.

    Attributes:
        source: the table, or what it is called in the clauses.
        where: clauses, all of which they meet.
        made: expressions that columns are set to, to be evaluated beforehand.
    """

    source: Any
    where: list[Any]
    made: dict[ColumnPlan, Any] = {}  # noqa: RUF012 - never changed

    def column(self, field: ColumnPlan) -> Any:
        """Return a column as the clauses call it."""
        return field.column if self.source is field.column.table else self.source.c[field.column.key]


class Values:
    """The values of one execution of a compiled statement: a cached one holds those of its first execution.

    Args:
        context: of the execution.
        names: names of parameters, by parameter, as compiled.
    """

    def __init__(self, context: Any, names: Any) -> None:
        self._context = context
        self._names = names
        self._by_key: dict[str, str] | None = None

    def in_clause(self, clause: Any) -> Any:
        """Return a clause with these values.

        Raises:
            LookupError: a value is not known.
        """
        ours: set[int] = set()
        kept = []  # a number of one that is gone may be another's

        def replace(element: Any, **_: Any) -> Any:
            if not isinstance(element, BindParameter):
                return None
            made = BindParameter(
                None,
                self._value(element),
                type_=element.type,
                unique=True,
                expanding=element.expanding,
                literal_execute=element.literal_execute,
            )
            ours.add(id(made))
            kept.append(made)
            return made

        made = replacement_traverse(clause, {}, replace)
        for element in visitors.iterate(made):
            if isinstance(element, BindParameter) and id(element) not in ours:
                raise LookupError(element.key)
        return made

    def _value(self, element: BindParameter[Any]) -> Any:
        name = self._name(element)
        parameters: dict[str, Any] = self._context.compiled_parameters[0]
        if name in parameters:
            return parameters[name]
        expanded = self._context._expanded_parameters.get(name)
        if expanded is None:
            raise LookupError(name)
        values = [parameters[each] for each in expanded]
        width = len(getattr(element.type, "types", ()))
        if width > 1 and values:
            return list(zip(*[iter(values)] * width, strict=True))
        return values

    def _name(self, element: BindParameter[Any]) -> str:
        found: str | None = self._names.get(element)
        if found is None:  # the ORM has copied it
            if self._by_key is None:
                self._by_key = {each.key: name for each, name in self._names.items()}
            found = self._by_key[element.key]
        return found


def repeatable(expression: Any) -> bool:
    """Say whether an expression gives the same whenever it is evaluated: columns, constants and operators."""
    names = {
        "column",
        "bindparam",
        "binary",
        "unary",
        "grouping",
        "null",
        "true",
        "false",
        "clauselist",
        "expression_clauselist",
        "case",
        "cast",
        "type_coerce",
        "table",
    }
    return all(element.__visit_name__ in names for element in visitors.iterate(expression))
