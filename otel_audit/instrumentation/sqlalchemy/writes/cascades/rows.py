"""The rows that go or change with those of one statement: ``ON DELETE CASCADE``, ``ON UPDATE CASCADE``.

They are read and locked before it, within the limits of any bulk statement, and looked for once more
afterwards: what is recorded is what became of them, whatever the rules say. Where they cannot be known, a
record says that rows of the table may have been deleted or changed.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_audit.capture.bulk import BulkWrite, ReturnedRows, limited
from otel_audit.capture.plan import Verb
from otel_audit.capture.statement import Statement
from otel_audit.capture.writes import CapturedWrite
from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan
from otel_audit.instrumentation.sqlalchemy.plan import MappedPlan
from otel_audit.instrumentation.sqlalchemy.tables import translated
from otel_audit.instrumentation.sqlalchemy.writes.cascades.rules import Graph, Rule, Rules
from otel_audit.instrumentation.sqlalchemy.writes.known import KnownRows, known_rows
from otel_audit.instrumentation.sqlalchemy.writes.stored.rows import Condition, Found, Reader

if TYPE_CHECKING:
    from otel_audit.audit_record import OldValues
    from otel_audit.instrumentation.sqlalchemy.writes.running import Running

_KEYS: Final = 500
"""Rows whose children one SELECT finds."""


class _Group:
    """The rows of one table that go, or change, with those of the statement.

    Attributes:
        fields: those whose values are recorded, then those that lead on to other tables.
        told: how many are recorded.
        rows: the key, then old values of ``fields``, by key; None where they are not known.
    """

    def __init__(
        self,
        running: Running,
        plan: MappedPlan,
        verb: Verb,
        told: Sequence[ColumnPlan],
        more: Sequence[ColumnPlan] = (),
    ) -> None:
        self.plan = plan
        self.verb: Verb = verb
        self.fields = [*told, *(field for field in dict.fromkeys(more) if field not in told)]
        self.told = len(told)
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
        fields = self.fields[: self.told]
        updates = self.verb == "update"
        now = self.reader(running).by_keys(list(self.rows), fields if updates else (), lock=False)
        if now is None:
            self.rows = None
            return self.writes(running)
        rows = list(self._changed(now, fields) if updates else self._gone(now))
        if not rows:
            return []
        state.doubtful.add(self.plan.table)
        certain: OldValues = "as_loaded" if state.alone else "exact"
        write = BulkWrite(
            self.plan,
            self.verb,
            state,
            len(rows),
            ReturnedRows([*self.plan.keys, *fields, *(fields if updates else ())], rows),
            old=fields,
            new=fields if updates else (),
            old_values=certain if fields else None,
        )
        return [limited(write, running.section)]

    def _gone(self, now: Mapping[tuple[Any, ...], Any]) -> Iterator[tuple[Any, ...]]:
        width = len(self.plan.keys) + self.told
        for key, row in (self.rows or {}).items():
            if key not in now:
                yield row[:width]

    def _changed(
        self, now: Mapping[tuple[Any, ...], list[Any]], fields: Sequence[ColumnPlan]
    ) -> Iterator[tuple[Any, ...]]:
        start = len(self.plan.keys)
        for key, row in (self.rows or {}).items():
            old, new = row[start : start + self.told], now.get(key)
            if new is not None and not all(
                field.equal(before, after) for field, before, after in zip(fields, old, new, strict=True)
            ):
                yield (*key, *old, *new)


class _Parents(NamedTuple):
    """Rows that others refer to, and what becomes of them.

    Attributes:
        fields: what is known of each row, the parts of the key first.
        written: the columns that change; None: the rows go.
    """

    plan: MappedPlan
    fields: Sequence[ColumnPlan]
    rows: Sequence[tuple[Any, ...]]
    written: Sequence[Any] | None


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
        self._groups: dict[tuple[MappedPlan, Verb], _Group] = {}
        self._seen: dict[tuple[MappedPlan, Verb], set[tuple[Any, ...]]] = defaultdict(set)
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
            self._seen[shape.plan, shape.verb] = {tuple(row[:width]) for row in parents.rows}
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
            return _Parents(plan, [*plan.keys, *fields], found.rows(), shape.moved)
        given = [tuple([each.get(name) for name in shape.key]) for each in running.parameters]
        if len(given) > running.section.max_bulk_rows:
            return None
        there = running.reader().by_keys(given, fields)
        if there is None:
            return None
        rows = [(*key, *values) for key, values in there.items()]
        return _Parents(plan, [*plan.keys, *fields], rows, shape.moved)

    @staticmethod
    def _referred(plan: MappedPlan, rules: Sequence[Rule]) -> list[ColumnPlan]:
        columns = dict.fromkeys(column for rule in rules for column in rule.referred)
        return plan.fields_of([column for column in columns if column in plan.by_column])

    def _follow(self, parents: _Parents, rule: Rule) -> Iterator[_Parents]:
        """Find the rows that one rule leads to; yield them for what goes or changes with them."""
        plan, fields = parents.plan, parents.fields
        child = self._rules.plan(rule.table)
        group = self._group(child, rule)
        if group.rows is None:
            return
        places = [fields.index(field) if field in fields else -1 for field in plan.fields_of(rule.referred)]
        if not (rule.columns and places) or -1 in places:
            self._lost(child, rule)
            return
        values = [tuple([row[place] for place in places]) for row in parents.rows]
        found = self._read(group, rule, [each for each in values if None not in each])
        if found is None or (found and self._moves_keys(child, rule)):
            self._lost(child, rule)
            return
        seen, width = self._seen[child, rule.verb], len(child.keys)
        fresh = [row for row in found if row[:width] not in seen]
        seen.update(row[:width] for row in fresh)
        group.rows.update((row[:width], row) for row in fresh)
        if fresh:
            written = None if rule.verb == "delete" else rule.columns
            yield _Parents(child, [*child.keys, *group.fields], fresh, written)

    @staticmethod
    def _moves_keys(child: MappedPlan, rule: Rule) -> bool:
        """Say whether rows cannot be found again afterwards by the keys they have now."""
        return rule.verb == "update" and any(field in child.keys for field in child.fields_of(rule.columns))

    def _group(self, child: MappedPlan, rule: Rule) -> _Group:
        group = self._groups.get((child, rule.verb))
        if group is None:
            updates = rule.verb == "update"
            told = child.fields_of(self._graph.sets(rule.table)) if updates else child.others
            more: list[ColumnPlan] = []
            if updates or not child.audited:
                further = self._graph.of(rule.table, rule.verb, self._graph.sets(rule.table))
                more = self._referred(child, further)
            group = self._groups[child, rule.verb] = _Group(
                self._running,
                child,
                rule.verb,
                [field for field in dict.fromkeys(told) if field not in child.keys],
                [field for field in more if field not in child.keys],
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
            group = self._groups[plan, verb] = _Group(self._running, plan, verb, ())
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
