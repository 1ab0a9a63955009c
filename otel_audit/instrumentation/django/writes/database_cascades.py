"""Rows that the database deletes or changes with those of a DELETE (Django 6.1: ``DB_CASCADE`` and its kin).

No statement of the ORM names them. They are read and locked before the DELETE, within the limits of any bulk
statement, and looked for once more afterwards: what is recorded is what became of them. Where they cannot be
known, a record says that rows of the model may have been deleted or changed.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

from django.db.models import deletion

from otel_audit.capture.bulk import BulkWrite, ReturnedRows, limited
from otel_audit.capture.cascades import reachable
from otel_audit.capture.plan import Verb
from otel_audit.capture.transactions.connection import Connection
from otel_audit.capture.writes import CapturedWrite
from otel_audit.instrumentation.django.plan import ModelFieldPlan, ModelPlan
from otel_audit.instrumentation.django.writes.sql.rows import Returned
from otel_audit.instrumentation.django.writes.sql.selects import select_by_keys, select_related_to
from otel_audit.instrumentation.django.writes.state import Capture
from otel_audit.instrumentation.django.writes.statement import CompiledStatement, reraise_database_error
from otel_audit.interruptions import faults
from otel_audit.named_tuples import NamedTuple

_BY_DATABASE: Final[Any] = getattr(deletion, "DatabaseOnDelete", None)


class Rule(NamedTuple):
    """What the database does to rows whose ``field`` refers to one that is deleted."""

    child: ModelPlan
    field: Any
    verb: Verb


def rules_of(capture: Capture, plan: ModelPlan, vendor: str) -> list[Rule]:
    """Return what the database does by itself when rows of a model are deleted."""
    if _BY_DATABASE is None:
        return []
    found = []
    meta: Any = plan.model._meta
    for field in meta._relation_tree:  # also of relations that have no name on this side
        how: Any = getattr(field.remote_field, "on_delete", None)
        if isinstance(how, _BY_DATABASE):
            child = capture.plan(field.model, vendor)
            found.append(Rule(child, field, "delete" if how.operation == "CASCADE" else "update"))
    return found


def reached(capture: Capture, plan: ModelPlan, vendor: str) -> list[tuple[ModelPlan, Verb]]:
    """Return the audited models whose rows the database may delete or change with those of a model."""

    def beyond(plan: ModelPlan) -> Iterator[tuple[ModelPlan, Verb]]:
        for rule in rules_of(capture, plan, vendor):
            yield rule.child, rule.verb

    return [(child, verb) for child, verb in reachable(plan, beyond) if child.audited]


def left_to_the_database(
    capture: Capture, plan: ModelPlan, connection: Connection, vendor: str
) -> list[CapturedWrite]:
    """Say which audited tables the database may have changed rows of, where nobody has looked for these."""
    found: list[CapturedWrite] = []
    for child, verb in reached(capture, plan, vendor):
        found.append(CapturedWrite(child, verb, connection))
        connection.wrote_many(child, None)
    return found


class _Group:
    """The rows of one model that go or change.

    Attributes:
        fields: their columns that are recorded.
        rows: the key, then ``fields``, in Python's values, by key; None where they are not known.
    """

    def __init__(self, plan: ModelPlan, fields: Sequence[ModelFieldPlan]) -> None:
        self.plan = plan
        self.fields = list(fields)
        self.rows: dict[Any, tuple[Any, ...]] | None = {}


class DatabaseCascade:
    """What goes or changes with the rows of one DELETE, from before it runs until it is noted.

    Args:
        statement: the DELETE, in a transaction.
        compiler: Django's of it.
        plan: of the model it deletes rows of.
        parents: these rows, read and locked.
    """

    def __init__(
        self, statement: CompiledStatement, compiler: Any, plan: ModelPlan, parents: Returned
    ) -> None:
        self._statement = statement
        self._capture = statement.capture
        self._compiler = compiler
        self._vendor: str = compiler.connection.vendor
        self._groups: dict[tuple[ModelPlan, Verb], _Group] = {}
        self._seen: dict[tuple[ModelPlan, Verb], set[Any]] = defaultdict(set)
        if parents.rows is None:
            self._unknown(plan)
            return
        fields = [field for field in parents.rows.plans if isinstance(field, ModelFieldPlan)]
        rows = [tuple(row) for row in parents.rows.rows()]
        self._seen[plan, "delete"] = set(plan.keys_in(rows))
        waiting = deque([(plan, fields, rows)])
        while waiting:
            plan, fields, rows = waiting.popleft()
            for rule in rules_of(self._capture, plan, self._vendor):
                waiting.extend(self._follow(plan, fields, rows, rule))

    @classmethod
    def of(
        cls, statement: CompiledStatement, compiler: Any, plan: ModelPlan, parents: Returned
    ) -> DatabaseCascade | None:
        """Find the rows; None, and all that may go with the DELETE is said, where that fails."""
        try:
            return cls(statement, compiler, plan, parents)
        except faults() as error:
            reraise_database_error(error, statement)
            statement.capture.failures.note("cascade", error, what=plan.label)
            return None

    def _follow(
        self, plan: ModelPlan, fields: Sequence[ModelFieldPlan], rows: Sequence[tuple[Any, ...]], rule: Rule
    ) -> Iterator[tuple[ModelPlan, list[ModelFieldPlan], list[tuple[Any, ...]]]]:
        """Find the rows that one rule leads to; yield those that go, for what goes with them."""
        child = rule.child
        group = self._group(rule)
        if group.rows is None:
            return
        referred = getattr(rule.field, "target_field", None)
        places = [
            place for place, field in enumerate(fields) if referred and field.attname == referred.attname
        ]
        found = None
        if places:
            values = [row[places[0]] for row in rows if row[places[0]] is not None]
            found = self._read(child, rule.field, values, group.fields)
        if found is None:
            self._not_known(child, rule.verb)
            if rule.verb == "delete":
                self._unknown(child)
            return
        seen = self._seen[child, rule.verb]
        fresh = [(key, row) for key, row in zip(child.keys_in(found), found, strict=True) if key not in seen]
        seen.update(key for key, _ in fresh)
        group.rows.update(fresh)
        if rule.verb == "delete" and fresh:
            yield child, [*child.keys, *group.fields], [row for _, row in fresh]

    def _group(self, rule: Rule) -> _Group:
        child = rule.child
        group = self._groups.get((child, rule.verb))
        if group is None:
            fields = child.others
            if rule.verb == "update":
                fields = [
                    child.by_attname[each.field.attname]
                    for each in self._rules_to(child)
                    if each.field.attname in child.by_attname
                ]
            group = self._groups[child, rule.verb] = _Group(child, list(dict.fromkeys(fields)))
        return group

    def _rules_to(self, child: ModelPlan) -> Iterator[Rule]:
        """Yield the rules that set columns of a model."""
        for field in child.model._meta.local_concrete_fields:
            how: Any = getattr(field.remote_field, "on_delete", None)
            if isinstance(how, _BY_DATABASE) and how.operation != "CASCADE":
                yield Rule(child, field, "update")

    def _read(
        self, child: ModelPlan, field: Any, values: Sequence[Any], columns: Sequence[ModelFieldPlan]
    ) -> list[tuple[Any, ...]] | None:
        """Return the rows that refer to these values; None if they are too many, or cannot be read."""
        capture, statement = self._capture, self._statement
        abilities = capture.abilities(self._compiler.connection, child, "delete")
        if not abilities.select:
            return None
        return statement.attempt(
            abilities,
            lambda: select_related_to(self._compiler, child, field, values, columns, capture.config),
        )

    def _unknown(self, plan: ModelPlan) -> None:
        """Note that nobody knows which rows the rules of a model lead to."""

        def beyond(plan: ModelPlan) -> Iterator[tuple[ModelPlan, Verb]]:
            for rule in rules_of(self._capture, plan, self._vendor):
                yield rule.child, rule.verb

        for child, verb in reachable(plan, beyond):
            self._not_known(child, verb)

    def _not_known(self, child: ModelPlan, verb: Verb) -> None:
        group = self._groups.setdefault((child, verb), _Group(child, ()))
        group.rows = None

    def writes(self) -> list[CapturedWrite]:
        """Return what became of the rows, once the DELETE has run."""
        found: list[CapturedWrite] = []
        for (child, verb), group in self._groups.items():
            if not child.audited or group.rows == {}:
                continue
            write = None
            try:
                write = self._write(group, verb)
            except faults() as error:  # what is left is that there may be rows
                reraise_database_error(error, self._statement)
                self._capture.failures.note("cascade", error, what=child.label)
                write = CapturedWrite(child, verb, self._statement.connection)
            if write is not None:
                found.append(write)
        return found

    def _write(self, group: _Group, verb: Verb) -> CapturedWrite | None:
        plan, connection = group.plan, self._statement.connection
        connection.wrote_many(plan, None if group.rows is None else list(group.rows))
        if group.rows is None:
            return CapturedWrite(plan, verb, connection)
        updates = verb == "update"
        fields = group.fields
        now = select_by_keys(self._compiler, plan, list(group.rows), fields if updates else ())
        width = len(plan.keys)
        if updates:
            rows = [
                (*row, *now[key])
                for key, row in group.rows.items()
                if key in now and tuple(row[width:]) != tuple(now[key])
            ]
        else:
            rows = [row for key, row in group.rows.items() if key not in now]
        if not rows:
            return None
        write = BulkWrite(
            plan,
            verb,
            connection,
            len(rows),
            ReturnedRows([*plan.keys, *fields, *(fields if updates else ())], rows),
            old=fields,
            new=fields if updates else (),
            old_values="exact" if fields else None,
        )
        return limited(write, self._capture.config)
