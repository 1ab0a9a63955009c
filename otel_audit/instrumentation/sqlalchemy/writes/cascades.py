"""Rows that the database deletes or changes by itself, with those that a DELETE names: ``ON DELETE CASCADE``.

The rules are those of the tables' metadata, declared or reflected. The rows they lead to are read and locked
before the DELETE, within the limits of any bulk statement, and looked for once more afterwards: what is
recorded is what became of them, whatever the database really has. Where they cannot be known, a record says
that rows of the table may have been deleted or changed.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy.schema import Table

from otel_audit.capture.bulk import BulkWrite, ReturnedRows, limited
from otel_audit.capture.cascades import reachable
from otel_audit.capture.plan import Verb
from otel_audit.capture.statement import Statement
from otel_audit.capture.writes import CapturedWrite
from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan
from otel_audit.instrumentation.sqlalchemy.plan import MappedPlan, Plans
from otel_audit.instrumentation.sqlalchemy.tables import translated
from otel_audit.instrumentation.sqlalchemy.writes.known import KnownRows, known_rows
from otel_audit.instrumentation.sqlalchemy.writes.raw.text import Tables
from otel_audit.instrumentation.sqlalchemy.writes.shape import Shape, written_table
from otel_audit.instrumentation.sqlalchemy.writes.stored.rows import Condition, Found, Reader
from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from otel_audit.audit_record import OldValues
    from otel_audit.instrumentation.sqlalchemy.writes.running import Running

_KEYS: Final = 500
"""Rows whose children one SELECT finds."""


class Rule(NamedTuple):
    """What the database does to the rows of ``table`` whose ``columns`` refer to a row that is deleted."""

    table: Table
    columns: tuple[Any, ...]
    referred: tuple[Any, ...]
    verb: Verb


class Rules:
    """The rules that lead to audited tables.

    Args:
        tables: all that are known.
        plans: say which of them are audited.
    """

    def __init__(self, tables: Tables, plans: Plans) -> None:
        self._tables = tables
        self._plans = plans
        self._stamp: object = None
        self._rules: dict[Any, list[Rule]] = {}
        self._unaudited: dict[Any, MappedPlan] = {}

    def of(self, table: Any) -> Sequence[Rule]:
        """Return the rules for rows deleted from a table."""
        stamp = self._tables.stamp()
        if self._stamp != stamp:
            self._rules, self._unaudited = self._look(), {}
            self._stamp = stamp
        return self._rules.get(table, ())

    def plan(self, table: Table) -> MappedPlan:
        """Return the plan of a table that a rule is about, audited or not."""
        plan = self._plans.of(table)
        if plan is None:
            plan = self._unaudited.get(table)
        if plan is None:
            plan = self._unaudited[table] = self._plans.unaudited(table)
        return plan

    def beyond(self, plan: MappedPlan) -> Iterator[tuple[MappedPlan, Verb]]:
        """Yield the tables that the rules for one lead to."""
        for rule in self.of(getattr(plan, "sql_table", None)):  # nothing else is known of some tables
            yield self.plan(rule.table), rule.verb

    def unaudited(self) -> Iterator[MappedPlan]:
        """Yield the tables that are not audited and lead to one that is."""
        self.of(None)
        for table in list(self._rules):
            if not self._is_audited(table):
                yield self.plan(table)

    def _look(self) -> dict[Any, list[Rule]]:
        found: dict[Any, list[Rule]] = defaultdict(list)
        for table in self._tables.all():
            for constraint in table.foreign_key_constraints:
                rule = _rule(table, constraint)
                if rule is not None:
                    found[constraint.referred_table].append(rule)
        audited = {rule.table: self._is_audited(rule.table) for rules in found.values() for rule in rules}
        leads = {table for table, known in audited.items() if known}
        while True:  # a table whose rows go leads to where its own rules lead
            more = {
                table
                for table, rules in found.items()
                if table not in leads and any(_goes_on(rule, leads, audited) for rule in rules)
            }
            if not more:
                break
            leads |= more
        kept = {
            table: [rule for rule in rules if _goes_on(rule, leads, audited)]
            for table, rules in found.items()
        }
        return {table: rules for table, rules in kept.items() if rules}

    def _is_audited(self, table: Table) -> bool:
        return self._plans.audits(table)


def _goes_on(rule: Rule, leads: set[Table], audited: dict[Table, bool]) -> bool:
    return audited[rule.table] or (rule.verb == "delete" and rule.table in leads)


def _set_columns(table: Table) -> list[Any]:
    """Return the columns of a table that rules of the database set."""
    return [
        column
        for constraint in table.foreign_key_constraints
        if (constraint.ondelete or "").upper().startswith("SET")
        for column in constraint.columns
    ]


def _rule(table: Table, constraint: Any) -> Rule | None:
    action = (constraint.ondelete or "").upper()
    if not action.startswith(("CASCADE", "SET")):
        return None
    try:
        referred = tuple([each.column for each in constraint.elements])
    except faults():  # refers to a table that is not there (yet)
        return None
    verb: Verb = "delete" if action.startswith("CASCADE") else "update"
    return Rule(table, tuple(constraint.columns), referred, verb)


class _Group:
    """The rows of one table that go, or change, with those of the statement.

    Attributes:
        rows: the key, then old values of ``fields``, by key; None where they are not known.
    """

    def __init__(self, running: Running, plan: MappedPlan, verb: Verb, fields: Sequence[ColumnPlan]) -> None:
        self.plan = plan
        self.verb: Verb = verb
        self.fields = list(fields)
        self.rows: dict[tuple[Any, ...], tuple[Any, ...]] | None = {}
        self._aim(running)
        self.statement = Statement(running.state, plan, verb)

    def _aim(self, running: Running) -> None:
        running.state.in_schema(translated(self.plan.schema, running.context))

    def begin(self, running: Running) -> None:
        """Announce what may become of them."""
        self._aim(running)
        self.statement.begin()

    def reader(self, running: Running) -> Reader:
        return running.reader(self.plan, self.verb)

    def writes(self, running: Running) -> list[CapturedWrite]:
        """Return what became of the rows."""
        state = running.state
        self._aim(running)
        if self.rows is None:
            state.doubtful.add(self.plan.table)
            return [CapturedWrite(self.plan, self.verb, state)]
        if not self.rows:
            return []
        updates = self.verb == "update"
        now = self.reader(running).by_keys(list(self.rows), self.fields if updates else (), lock=False)
        if now is None:
            self.rows = None
            return self.writes(running)
        rows = (
            [(*row, *now[key]) for key, row in self.rows.items() if key in now]
            if updates
            else [row for key, row in self.rows.items() if key not in now]
        )
        if not rows:
            return []
        state.doubtful.add(self.plan.table)
        certain: OldValues = "as_loaded" if state.alone else "exact"
        write = BulkWrite(
            self.plan,
            self.verb,
            state,
            len(rows),
            ReturnedRows([*self.plan.keys, *self.fields, *(self.fields if updates else ())], rows),
            old=self.fields,
            new=self.fields if updates else (),
            old_values=certain if self.fields else None,
        )
        return [limited(write, running.section)]


class Cascade:
    """What goes with the rows of one DELETE, from before it runs until it is noted.

    Args:
        running: the DELETE.
        rules: where they lead.
    """

    def __init__(self, running: Running, rules: Rules) -> None:
        self._running = running
        self._rules = rules
        self._groups: dict[tuple[MappedPlan, Verb], _Group] = {}
        self._seen: dict[tuple[MappedPlan, Verb], set[tuple[Any, ...]]] = defaultdict(set)
        self._itself = any(
            plan is running.shape.plan and verb == "delete"
            for plan, verb in reachable(running.shape.plan, rules.beyond)
        )

    @classmethod
    def of(cls, running: Running, rules: Rules) -> Cascade | None:
        """Return what goes with the rows of a DELETE; None if nothing can."""
        shape = running.shape
        if not rules.of(shape.plan.sql_table):
            return None
        if running.state.system == "sqlite" and not running.reader().value("PRAGMA foreign_keys"):
            return None
        if not shape.plan.audited:
            if shape.key is not None:
                running.found = known_rows(running, shape.key, ())
            else:
                running.found = running.matching(())
        return cls(running, rules)

    def prepare(self) -> None:
        """Find the rows, and announce what may become of them.

        Raises:
            AuditError: an intent cannot be kept and ``on_error`` is ``fail_closed``.
        """
        running = self._running
        plan = running.shape.plan
        parents = self._parents()
        if parents is None:
            self._unknown(plan)
        else:
            fields, rows = parents
            self._seen[plan, "delete"] = {tuple(row[: len(plan.keys)]) for row in rows}
            waiting = deque([(plan, fields, rows)])
            while waiting:
                plan, fields, rows = waiting.popleft()
                for rule in self._rules.of(plan.sql_table):
                    waiting.extend(self._follow(plan, fields, rows, rule))
        for group in self._groups.values():
            if group.plan.audited and (group.rows is None or group.rows):
                group.begin(running)

    def _parents(self) -> tuple[list[ColumnPlan], list[tuple[Any, ...]]] | None:
        """Return the rows that the statement names, locked, and the columns that are known of them."""
        running = self._running
        plan, found = running.shape.plan, running.found
        if isinstance(found, Found):
            fields = [*plan.keys, *(plan.others if found.completeness == "full" else ())]
            return fields, found.rows()
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
            return list(plan.keys), [found.parts[place] for place in places]
        fields = [*plan.keys, *plan.others]
        return fields, [(*found.parts[place], *found.row(place)) for place in places]

    def _follow(
        self, plan: MappedPlan, fields: Sequence[ColumnPlan], rows: Sequence[tuple[Any, ...]], rule: Rule
    ) -> Iterator[tuple[MappedPlan, list[ColumnPlan], list[tuple[Any, ...]]]]:
        """Find the rows that one rule leads to; yield those that go, for what goes with them."""
        child = self._rules.plan(rule.table)
        group = self._group(child, rule)
        if group.rows is None:
            return
        places = [fields.index(field) if field in fields else -1 for field in plan.fields_of(rule.referred)]
        if -1 in places or len(places) != len(rule.referred):
            self._unknown(plan, rule)
            return
        values = [tuple([row[place] for place in places]) for row in rows]
        found = self._read(group, rule, [each for each in values if None not in each])
        if found is None:
            self._unknown(plan, rule)
            return
        seen, width = self._seen[child, rule.verb], len(child.keys)
        fresh = [row for row in found if row[:width] not in seen]
        seen.update(row[:width] for row in fresh)
        group.rows.update((row[:width], row) for row in fresh)
        if rule.verb == "delete" and fresh:
            yield child, [*child.keys, *group.fields], fresh

    def _group(self, child: MappedPlan, rule: Rule) -> _Group:
        group = self._groups.get((child, rule.verb))
        if group is None:
            fields: Iterable[ColumnPlan] = child.others
            if rule.verb == "update":
                fields = [
                    field for field in child.fields_of(_set_columns(rule.table)) if field not in child.keys
                ]
            elif not child.audited:
                needed = [column for other in self._rules.of(rule.table) for column in other.referred]
                fields = [field for field in child.fields_of(needed) if field not in child.keys]
            group = self._groups[child, rule.verb] = _Group(
                self._running, child, rule.verb, list(dict.fromkeys(fields))
            )
        return group

    def _read(
        self, group: _Group, rule: Rule, values: Sequence[tuple[Any, ...]]
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

    def _unknown(self, plan: MappedPlan, rule: Rule | None = None) -> None:
        """Note that nobody knows which rows the rules of a table lead to, or one of them and those beyond."""
        for child, verb in (
            reachable(plan, self._rules.beyond)
            if rule is None
            else [
                (self._rules.plan(rule.table), rule.verb),
                *(
                    reachable(self._rules.plan(rule.table), self._rules.beyond)
                    if rule.verb == "delete"
                    else ()
                ),
            ]
        ):
            group = self._groups.get((child, verb))
            if group is None:
                group = self._groups[child, verb] = _Group(self._running, child, verb, ())
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
                group.statement.done(*(() if nothing else group.writes(self._running)))

    def failed(self, error: BaseException, *, refused: bool) -> None:
        """Note that the statement raised: what was refused has done nothing to other tables either."""
        for group in self._groups.values():
            if group.plan.audited and (group.rows is None or group.rows):
                group.statement.failed(error, sent=not refused, refused=False)


def shape_beside(compiled: Any, rules: Rules) -> Shape | None:
    """Return what a compiled DELETE writes whose table is not audited, where rules lead to one that is."""
    state = getattr(compiled, "dml_compile_state", None) or getattr(compiled, "compile_state", None)
    table = None if state is None else written_table(state)
    if not isinstance(table, Table) or not rules.of(table):
        return None
    return Shape(rules.plan(table), "delete", compiled, state)
