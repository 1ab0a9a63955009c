"""The rows that go or change with those of one statement: ``ON DELETE CASCADE``, ``ON UPDATE CASCADE``.

They are read and locked before it, within the limits of any bulk statement, and looked for once more
afterwards: what is recorded is what became of them, whatever the rules say. Where they cannot be known, a
record says that rows of the table may have been deleted or changed.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from otel_audit.capture.plan import Verb
from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan
from otel_audit.instrumentation.sqlalchemy.plan import MappedPlan
from otel_audit.instrumentation.sqlalchemy.writes.cascades.groups import UNKNOWN, Group, Key, Moves
from otel_audit.instrumentation.sqlalchemy.writes.cascades.rules import Graph, Rule, Rules
from otel_audit.instrumentation.sqlalchemy.writes.known import KnownRows, known_rows
from otel_audit.instrumentation.sqlalchemy.writes.shape import EXPRESSION
from otel_audit.instrumentation.sqlalchemy.writes.stored.conditions import Condition
from otel_audit.instrumentation.sqlalchemy.writes.stored.found import Found
from otel_audit.named_tuples import NamedTuple

if TYPE_CHECKING:
    from otel_audit.instrumentation.sqlalchemy.writes.running import Running

_KEYS: Final = 500
"""Rows whose children one SELECT finds."""


class _Parents(NamedTuple):
    """Rows that others refer to, and what becomes of them.

    Attributes:
        fields: what is known of each row, the parts of the key first.
        written: the columns that change; None: the rows go.
        new: what is known of the new values of each row.
    """

    plan: MappedPlan
    fields: Sequence[ColumnPlan]
    rows: Sequence[Key]
    written: Sequence[Any] | None
    new: Sequence[Mapping[ColumnPlan, Any]] = ()

    def values(self, columns: Sequence[Any]) -> dict[Key, Key] | None:
        """Return what the rows hold in columns, and what they will; None where that is not known."""
        fields = self.plan.fields_of(columns)
        if not fields or any(field not in self.fields for field in fields):
            return None
        places = [self.fields.index(field) for field in fields]
        written = set(self.written or ())
        found: dict[Key, Key] = {}
        for number, row in enumerate(self.rows):
            old = tuple([row[place] for place in places])
            new = self.new[number] if self.new else {}
            found[old] = tuple(
                [
                    new.get(field, UNKNOWN) if field.column in written else value
                    for field, value in zip(fields, old, strict=True)
                ]
            )
        return found


class Cascade:
    """What goes with the rows of one DELETE, or changes with those of an UPDATE, until it is noted.

    Args:
        running: the statement.
        rules: where they lead.
        graph: those of its database.
    """

    def __init__(self, running: Running, rules: Rules, graph: Graph) -> None:
        self._running = running
        self._rules = rules
        self._graph = graph
        self._groups: dict[tuple[MappedPlan, Verb], Group] = {}
        self._moves = Moves()
        self._seen: dict[tuple[MappedPlan, Verb, Any], set[Key]] = defaultdict(set)
        shape = running.shape
        self._itself = shape.verb == "delete" and (shape.plan.sql_table, "delete") in graph.reached(
            shape.plan.sql_table, "delete", None
        )

    @classmethod
    def of(cls, running: Running, rules: Rules) -> Cascade | None:
        """Return what goes or changes with the rows of a statement; None if nothing can."""
        shape, state = running.shape, running.state
        deletes = shape.verb == "delete"
        if deletes or not shape.plan.naming.isdisjoint(shape.moved):
            graph = rules.asked(running.connection, state)
        else:  # nothing refers to what it changes, as far as is known
            graph = rules.known(state)
        if not graph.of(shape.plan.sql_table, shape.verb, shape.moved):
            return None
        if state.system == "sqlite" and not running.reader().value("PRAGMA foreign_keys"):
            return None
        if deletes and not shape.plan.audited:
            if shape.key is not None:
                running.found = known_rows(running, shape.key, ())
            else:
                running.found = running.matching(())
        return cls(running, rules, graph)

    def prepare(self) -> None:
        """Find the rows, and announce what may become of them.

        Raises:
            AuditError: an intent cannot be kept and ``on_error`` is ``fail_closed``.
        """
        running = self._running
        shape = running.shape
        parents = self._deleted_rows() if shape.verb == "delete" else self._updated_rows()
        if parents is None:
            self._unknown(shape.plan, shape.verb, shape.moved)
        else:
            width = len(shape.plan.keys)
            itself = {tuple(row[:width]) for row in parents.rows}
            self._seen[shape.plan, "delete", None] = itself if shape.verb == "delete" else set()
            if not set(self._graph.sets(shape.plan.sql_table)).isdisjoint(shape.moved):
                for rule in self._following(parents):  # what it sets itself is told by it
                    if rule.table is shape.plan.sql_table:
                        self._seen[shape.plan, "update", rule.columns] = set(itself)
            waiting = deque([parents])
            while waiting:
                parents = waiting.popleft()
                for rule in self._following(parents):
                    waiting.extend(self._follow(parents, rule))
        for group in self._groups.values():
            if group.plan.audited and (group.rows is None or group.rows):
                group.begin(running)

    def _following(self, parents: _Parents) -> Sequence[Rule]:
        on: Verb = "delete" if parents.written is None else "update"
        return self._graph.of(parents.plan.sql_table, on, parents.written)

    def _deleted_rows(self) -> _Parents | None:
        """Return the rows that a DELETE names, locked, and the columns that are known of them."""
        running = self._running
        plan, found = running.shape.plan, running.found
        if isinstance(found, Found):
            fields = [*plan.keys, *(plan.others if found.completeness == "full" else ())]
            return _Parents(plan, fields, found.rows(), None)
        if not isinstance(found, KnownRows):
            return None
        state = running.state
        if found.there is None and not (state.dialect.one_writer or state.alone):
            # Whoever holds no lock cannot keep others from adding a row that refers to these.
            there = running.reader().by_keys(found.parts, ())
            if there is not None:
                found.there = [place for place, part in enumerate(found.parts) if part in there]
        places = range(len(found)) if found.there is None else found.there
        if found.old is None:
            return _Parents(plan, list(plan.keys), [found.parts[place] for place in places], None)
        fields = [*plan.keys, *plan.others]
        return _Parents(plan, fields, [(*found.parts[place], *found.row(place)) for place in places], None)

    def _updated_rows(self) -> _Parents | None:
        """Return the rows that an UPDATE names, locked, with the values that others refer to them by."""
        running, shape = self._running, self._running.shape
        plan = shape.plan
        rules = self._graph.of(plan.sql_table, "update", shape.moved)
        fields = [field for field in self._referred(plan, rules) if field not in plan.keys]
        if shape.key is None:
            found = running.matching(fields)
            if found is None or (found.completeness != "full" and fields):
                return None
            new = [self._assigned(running.parameters[0])] * found.count
            return self._moving(_Parents(plan, [*plan.keys, *fields], found.rows(), shape.moved, new))
        given = [tuple([each.get(name) for name in shape.key]) for each in running.parameters]
        if len(given) > running.section.max_bulk_rows:
            return None
        there = running.reader().by_keys(given, fields)
        if there is None:
            return None
        rows = [(*key, *values) for key, values in there.items()]
        assigned = {
            tuple([field.frozen(part) for field, part in zip(plan.keys, key, strict=True)]): each
            for key, each in zip(given, map(self._assigned, running.parameters), strict=True)
        }
        new = [assigned.get(key, {}) for key in there]
        return self._moving(_Parents(plan, [*plan.keys, *fields], rows, shape.moved, new))

    def _assigned(self, parameters: Mapping[str, Any]) -> dict[ColumnPlan, Any]:
        """Return the values that an UPDATE sets, as far as it is not the database that makes them."""
        return {
            field: field.frozen(parameters[name])
            for field, name in self._running.shape.sets
            if name != EXPRESSION and name in parameters
        }

    def _moving(self, parents: _Parents) -> _Parents:
        """Note which of the rows of an UPDATE have other keys afterwards."""
        plan, written = parents.plan, set(parents.written or ())
        keys = [field for field in plan.keys if field.column in written]
        for row, new in zip(parents.rows, parents.new, strict=True) if keys else ():
            moved = {field: new.get(field, UNKNOWN) for field in keys}
            self._moves.add(plan, tuple(row[: len(plan.keys)]), moved)
        return parents

    @staticmethod
    def _referred(plan: MappedPlan, rules: Sequence[Rule]) -> list[ColumnPlan]:
        columns = dict.fromkeys(column for rule in rules for column in rule.referred)
        return plan.fields_of([column for column in columns if column in plan.by_column])

    def _follow(self, parents: _Parents, rule: Rule) -> Iterator[_Parents]:
        """Find the rows that one rule leads to; yield them for what goes or changes with them."""
        child = self._rules.plan(rule.table)
        group = self._group(child, rule)
        if group.rows is None:
            return
        values = parents.values(rule.referred) if rule.columns else None
        found = None
        if values is not None:
            found = self._read(group, rule, [each for each in values if None not in each])
        if found is None or values is None:
            self._lost(child, rule)
            return
        deletes = rule.verb == "delete"
        seen = self._seen[child, rule.verb, None if deletes else rule.columns]  # other columns lead elsewhere
        width = len(child.keys)
        fresh = [row for row in found if row[:width] not in seen]
        seen.update(row[:width] for row in fresh)
        group.rows.update((row[:width], row) for row in fresh)
        if fresh:
            fields = [*child.keys, *group.fields]
            if deletes:
                yield _Parents(child, fields, fresh, None)
                return
            new = list(self._followed(child, rule, fields, fresh, values))
            for row, each in zip(fresh, new, strict=True):
                self._moves.add(child, row[:width], each)
            yield _Parents(child, fields, fresh, rule.columns, new)

    @staticmethod
    def _followed(
        child: MappedPlan,
        rule: Rule,
        fields: Sequence[ColumnPlan],
        rows: Sequence[Key],
        values: Mapping[Key, Key],
    ) -> Iterator[dict[ColumnPlan, Any]]:
        """Yield what a rule sets the columns of each row to."""
        columns = child.fields_of(rule.columns)
        places = [fields.index(field) for field in columns]
        unknown = (UNKNOWN,) * len(columns)
        for row in rows:
            old = tuple([row[place] for place in places])
            new = values.get(old, unknown) if rule.follows else unknown
            yield dict(zip(columns, new, strict=True))

    def _group(self, child: MappedPlan, rule: Rule) -> Group:
        group = self._groups.get((child, rule.verb))
        if group is None:
            updates = rule.verb == "update"
            told = child.fields_of(self._graph.sets(rule.table)) if updates else child.others
            more: list[ColumnPlan] = []
            if updates or not child.audited:
                further = self._graph.of(rule.table, rule.verb, self._graph.sets(rule.table))
                more = self._referred(child, further)
            group = self._groups[child, rule.verb] = Group(
                self._running,
                child,
                rule.verb,
                [field for field in dict.fromkeys(told) if field not in child.keys],
                [field for field in more if field not in child.keys],
                [field for field in child.keys if field in told] if updates else (),
            )
        return group

    def _read(
        self, group: Group, rule: Rule, values: Sequence[tuple[Any, ...]]
    ) -> list[tuple[Any, ...]] | None:
        """Return the rows that refer to these values; None where there are too many, or they have no key."""
        child = group.plan
        if not child.keys:
            return None if values else []
        section = self._running.section
        columns = child.fields_of(rule.columns)
        found: list[tuple[Any, ...]] = []
        reader = group.reader(self._running)
        for start in range(0, len(values), _KEYS):
            refer = reader.one_of([field.column for field in columns], values[start : start + _KEYS])
            some = reader.matching(Condition(child.sql_table, [refer]), group.fields, section)
            if some is None or (some.completeness != "full" and group.fields):
                return None
            found += some.rows()
            if len(found) > section.max_bulk_rows:
                return None
        return found

    def _lost(self, child: MappedPlan, rule: Rule) -> None:
        """Note that nobody knows which rows one rule leads to, nor those beyond."""
        self._not_known(child, rule.verb)
        self._unknown(child, rule.verb, rule.columns)

    def _unknown(self, plan: MappedPlan, verb: Verb, written: Sequence[Any]) -> None:
        """Note that nobody knows which rows the rules of a table lead to."""
        for table, what in self._graph.reached(plan.sql_table, verb, written):
            self._not_known(self._rules.plan(table), what)

    def _not_known(self, plan: MappedPlan, verb: Verb) -> None:
        group = self._groups.get((plan, verb))
        if group is None:
            group = self._groups[plan, verb] = Group(self._running, plan, verb, ())
        group.rows = None

    def deleted(self) -> None:
        """Count the rows of the statement itself, before it is noted.

        Where its rows refer to each other, some are gone before the database comes to count them.
        """
        running, found = self._running, self._running.found
        if not self._itself or not isinstance(found, Found) or running.count == found.count:
            return
        width = len(running.shape.plan.keys)
        left = running.reader().by_keys(list(zip(*found.columns[:width], strict=True)), (), lock=False)
        if left is not None and not left:
            running.count = found.count

    def done(self) -> None:
        """Note what became of the rows.

        Raises:
            AuditError: a record cannot be kept and ``on_error`` is ``fail_closed``.
        """
        for group in self._groups.values():
            if group.plan.audited and (group.rows is None or group.rows):
                group.statement.ran()
                nothing = self._running.count == 0
                group.statement.done(*(() if nothing else group.writes(self._running, self._moves)))

    def failed(self, error: BaseException, *, refused: bool) -> None:
        """Note that the statement raised: what was refused has done nothing to other tables either."""
        for group in self._groups.values():
            if group.plan.audited and (group.rows is None or group.rows):
                group.statement.failed(error, sent=not refused, refused=False)
