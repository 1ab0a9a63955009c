"""What the database does by itself with rows that refer to others: by the metadata, and by its catalog.

The metadata may say nothing of foreign keys that the database has, or of what they do. So the catalog is
asked as well: once per database, before the first statement that may set off such a rule.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Column, MetaData
from sqlalchemy.schema import Table

from otel_audit.capture.databases.foreign_keys import ForeignKey, Named, foreign_keys
from otel_audit.capture.plan import Verb
from otel_audit.instrumentation.sqlalchemy.plan import MappedPlan, Plans
from otel_audit.instrumentation.sqlalchemy.tables import OURS
from otel_audit.instrumentation.sqlalchemy.writes.raw.text import Tables
from otel_audit.instrumentation.sqlalchemy.writes.shape import Shape, compile_state, written_table
from otel_audit.instrumentation.sqlalchemy.writes.stored.rows import Reader
from otel_audit.interruptions import faults
from otel_audit.named_tuples import NamedTuple

if TYPE_CHECKING:
    from otel_audit.instrumentation.sqlalchemy.connection import SQLAlchemyConnection
    from otel_audit.pipeline.failures import Failures

_ACTIONS: Final = ("CASCADE", "SET NULL", "SET DEFAULT")
_MAX_DATABASES: Final = 1000


class Rule(NamedTuple):
    """What the database does to the rows of ``table`` whose ``columns`` refer to a row that is written.

    Attributes:
        columns: empty if some of them are not known, as are those of ``parent`` that they refer to.
        on: what becomes of the row referred to.
        verb: what becomes of those that refer to it.
        follows: their columns get the new values of those they refer to.
    """

    table: Table
    columns: tuple[Any, ...]
    parent: Table
    referred: tuple[Any, ...]
    on: Verb
    verb: Verb
    follows: bool

    def concerns(self, on: Verb, written: Iterable[Any] | None) -> bool:
        """Say whether it follows; ``written``: the columns of an UPDATE, None if nobody knows them."""
        return self.on == on and (
            on == "delete" or written is None or not set(written).isdisjoint(self.referred)
        )


class Graph:
    """The rules of one database that lead to audited tables."""

    def __init__(self, rules: Iterable[Rule], is_audited: Callable[[Table], bool]) -> None:
        by_table: dict[Any, list[Rule]] = defaultdict(list)
        seen = set()
        for rule in rules:
            name = (
                rule.table,
                _names(rule.columns),
                rule.parent,
                _names(rule.referred),
                rule.on,
                rule.verb,
            )
            if name not in seen:  # the metadata may say what the catalog says
                seen.add(name)
                by_table[rule.parent].append(rule)
        audited = {rule.table: is_audited(rule.table) for rules in by_table.values() for rule in rules}
        leading = {id(rule) for rules in by_table.values() for rule in rules if audited[rule.table]}
        while True:  # what is deleted or changed leads to where its own rules lead
            more = {
                id(rule)
                for rules in by_table.values()
                for rule in rules
                if id(rule) not in leading
                and any(
                    id(next_) in leading and next_.concerns(rule.verb, rule.columns)
                    for next_ in by_table.get(rule.table, ())
                )
            }
            if not more:
                break
            leading |= more
        kept = {table: [rule for rule in rules if id(rule) in leading] for table, rules in by_table.items()}
        self._rules: dict[Any, list[Rule]] = {table: rules for table, rules in kept.items() if rules}
        self.tables = list(self._rules)
        sets: dict[Any, dict[Any, None]] = defaultdict(dict)
        for rules in self._rules.values():
            for rule in rules:
                if rule.verb == "update":
                    sets[rule.table].update(dict.fromkeys(rule.columns))
        self._sets = dict(sets)

    def of(self, table: Any, on: Verb, written: Iterable[Any] | None = ()) -> Sequence[Rule]:
        """Return the rules that follow from rows of a table being deleted, or columns of it changed."""
        rules = self._rules.get(table)
        return [rule for rule in rules if rule.concerns(on, written)] if rules else ()

    def sets(self, table: Any) -> Sequence[Any]:
        """Return the columns of a table that rules set."""
        return list(self._sets.get(table, ()))

    def reached(self, table: Any, on: Verb, written: Iterable[Any] | None) -> Iterator[tuple[Table, Verb]]:
        """Yield the tables whose rows may go or change with those of one, each once with each verb."""
        followed, told = set(), set()
        waiting = [*self.of(table, on, written)]
        while waiting:
            rule = waiting.pop(0)
            if id(rule) in followed:
                continue
            followed.add(id(rule))
            if (rule.table, rule.verb) not in told:
                told.add((rule.table, rule.verb))
                yield rule.table, rule.verb
            waiting += self.of(rule.table, rule.verb, rule.columns)


class Rules:
    """The rules that lead to audited tables, by database.

    Args:
        tables: all that are known.
        plans: say which of them are audited.
        catalog: what databases have been asked; emptied when one of their tables has changed.
        failures: takes our own.
        changed: is called when a catalog has said something new.
    """

    def __init__(
        self,
        tables: Tables,
        plans: Plans,
        catalog: dict[Any, Any],
        failures: Failures,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._tables = tables
        self._plans = plans
        self._catalog = catalog
        self._failures = failures
        self._changed = changed
        self._stamp: object = None
        self._graphs: dict[str, Graph] = {}
        self._told: dict[str, list[ForeignKey]] = {}
        self._between: dict[Named, Table] = {}
        self._unaudited: dict[Any, MappedPlan] = {}

    def known(self, state: SQLAlchemyConnection) -> Graph:
        """Return the rules of a database, as far as they are known without asking it."""
        return self._known(state.name, state.known_as)

    def _known(self, database: str, known_as: str) -> Graph:
        stamp = self._tables.stamp(), self._tables.namesakes.generation
        if self._stamp != stamp:
            self._graphs, self._unaudited = {}, {}
            self._stamp = stamp
        graph = self._graphs.get(database)
        if graph is None:
            keys = self._told.get(database, ())
            rules = [*self._declared(), *self._catalogued(keys, known_as)]
            graph = self._graphs[database] = Graph(rules, self._is_audited)
        return graph

    def asked(self, connection: Any, state: SQLAlchemyConnection) -> Graph:
        """Return the rules of a database, whose catalog is asked once."""
        place = ("foreign keys", state.name)
        if place not in self._catalog:
            self._catalog[place] = True  # whatever comes of it
            self._ask(connection, state)
        return self.known(state)

    def _ask(self, connection: Any, state: SQLAlchemyConnection) -> None:
        try:
            query = Reader(connection, state, None, "delete", {}).query  # type: ignore[arg-type]
            found = foreign_keys(state.system, query)
        except faults() as error:  # what the metadata says is left
            self._failures.note("ask the catalog", error)
            return
        if len(self._told) >= _MAX_DATABASES:  # each of a test's, or of a tenant's: they are asked again
            self._told.clear()
            self._graphs.clear()
            self._catalog.clear()
        if found != self._told.get(state.name, []):
            self._told[state.name] = found
            self._tables.changed()
            self._changed()

    def plan(self, table: Table) -> MappedPlan:
        """Return the plan of a table that a rule is about, audited or not."""
        plan = self._plans.of(table)
        if plan is None or OURS in table.info:
            plan = self._unaudited.get(table)
        if plan is None:
            plan = self._unaudited[table] = self._plans.unaudited(table)
        return plan

    def reached(
        self, plan: Any, verb: Verb, connection: Any, state: SQLAlchemyConnection, sets: Callable[[str], bool]
    ) -> Iterator[tuple[MappedPlan, Verb]]:
        """Yield the tables whose rows may go or change with those that text deletes or changes.

        ``sets``: whether an UPDATE sets a column of that name.
        """
        table = getattr(plan, "sql_table", None)  # nothing else is known of some tables
        if table is None or verb == "create":
            return
        graph = self.asked(connection, state) if verb == "delete" else self.known(state)
        written = [column for column in table.columns if sets(column.name)] if verb == "update" else None
        for child, what in graph.reached(table, verb, written):
            yield self.plan(child), what

    def unaudited(self) -> Iterator[MappedPlan]:
        """Yield the tables that are not audited and lead to one that is."""
        for database in ("", *self._told):
            for table in self._known(database, "").tables:
                if not self._is_audited(table):
                    yield self.plan(table)

    def _is_audited(self, table: Table) -> bool:
        return OURS not in table.info and self._plans.audits(table)

    # --- where they are known from ------------------------------------------------------------------

    def _declared(self) -> Iterator[Rule]:
        for table in self._tables.all():
            try:
                constraints = list(table.foreign_key_constraints)
            except faults():  # another thread gives it columns just now: it will be looked at again
                continue
            for constraint in constraints:
                actions = _actions(constraint.ondelete or "", constraint.onupdate or "")
                if not actions:
                    continue
                try:
                    referred = tuple([each.column for each in constraint.elements])
                except faults():  # refers to a table that is not there (yet)
                    continue
                columns, parent = tuple(constraint.columns), constraint.referred_table
                for on, verb, follows in actions:
                    yield Rule(table, columns, parent, referred, on, verb, follows)

    def _catalogued(self, keys: Sequence[ForeignKey], known_as: str) -> Iterator[Rule]:
        if not keys:
            return
        named: dict[tuple[str | None, str], list[Table]] = defaultdict(list)
        for table in self._tables.all():
            named[table.schema, str(table.name).lower()].append(table)
        of = self._tables.namesakes.of
        for key in keys:
            children = _named(named, key.table)
            for parent in _named(named, key.referred) or [self._unmapped(key.referred, keys)]:
                here = of(known_as, children, parent.metadata)
                child = here[0] if here else self._unmapped(key.table, keys)
                columns = _columns(child, key.columns)
                primary = tuple(column.name for column in parent.primary_key)
                referred = _columns(parent, key.referred_columns or primary)
                for on, verb, follows in _actions(key.on_delete, key.on_update):
                    yield Rule(child, columns, parent, referred, on, verb, follows)

    def _unmapped(self, name: Named, keys: Sequence[ForeignKey]) -> Table:
        """Return what stands for a table that only the catalog knows: what its foreign keys say of it."""
        made = self._between.get(name)
        if made is None:
            columns = dict.fromkeys(
                column
                for key in keys
                for column in (
                    *(key.columns if key.table == name else ()),
                    *(key.referred_columns if key.referred == name else ()),
                )
            )
            made = self._between[name] = Table(
                name.name,
                MetaData(),
                *[Column(column, primary_key=True) for column in columns],
                schema=None if name.bare else name.schema,
                info={OURS: True},
            )
        return made


def _named(named: dict[tuple[str | None, str], list[Table]], name: Named) -> list[Table]:
    schemas = (None, name.schema) if name.bare else (name.schema,)
    return [table for schema in schemas for table in named.get((schema, name.name.lower()), ())]


def _actions(on_delete: str, on_update: str) -> list[tuple[Verb, Verb, bool]]:
    found: list[tuple[Verb, Verb, bool]] = []
    if on_delete.upper().startswith(_ACTIONS):
        found.append(("delete", "delete" if on_delete.upper().startswith("CASCADE") else "update", False))
    if on_update.upper().startswith(_ACTIONS):
        found.append(("update", "update", on_update.upper().startswith("CASCADE")))
    return found


def _names(columns: Sequence[Any]) -> tuple[str, ...]:
    return tuple(column.name for column in columns)


def _columns(table: Table, names: Sequence[str]) -> tuple[Any, ...]:
    """Return the columns of these names, none if one of them is not known."""
    by_name = {str(column.name).lower(): column for column in table.columns}
    found = [by_name.get(name.lower()) for name in names]
    return () if any(column is None for column in found) else tuple(found)


def shape_beside(compiled: Any, rules: Rules, connection: Any, state: SQLAlchemyConnection) -> Shape | None:
    """Return what a DELETE or UPDATE writes whose table is not audited, where rules lead to one that is."""
    made = compile_state(compiled)
    table = None if made is None else written_table(made)
    if not isinstance(table, Table):
        return None
    graph = rules.asked(connection, state) if compiled.isdelete else rules.known(state)
    verb: Verb = "delete" if compiled.isdelete else "update"
    if not graph.of(table, verb, None):
        return None
    shape = Shape(rules.plan(table), verb, compiled, made)
    return shape if graph.of(table, verb, shape.moved) else None
