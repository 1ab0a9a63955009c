"""One captured write, waiting for the outcome of its transaction, and the record made of it."""

from __future__ import annotations

import datetime
import math
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from otel_audit.audit_context import Moment, moment
from otel_audit.audit_record import AuditRecord, Change, Database, OldValues, Outcome, Target
from otel_audit.capture.plan import FieldPlan, TablePlan, Verb
from otel_audit.interruptions import faults
from otel_audit.values import RECORDED, Encoded, is_long, key_text, shortened

if TYPE_CHECKING:
    from otel_audit.capture.transactions.connection import Connection
    from otel_audit.pipeline.logger import AuditLogger
    from otel_audit.pipeline.lone_records import LoneRecords
    from otel_audit.pipeline.record_heads import Made, RecordHeads

_ACTIONS: Final[dict[Verb, str]] = {
    "create": "CREATE",
    "update": "UPDATE",
    "delete": "DELETE",
    "upsert": "UPSERT",
}
PLAIN: Final = frozenset({type(None), bool, int, str})
"""Classes of values that a record carries as they are, and that Python compares as a database does."""
_AS_IT_IS: Final = PLAIN | {UnsetType}
_HARMLESS: Final = frozenset(
    {type(None), bool, float, UnsetType, datetime.datetime, datetime.date, datetime.time}
)
"""No rule finds anything in them, nor in their texts."""
_SHORT: Final = 8 * 1024
"""Bytes of JSON: whatever it holds, a record carries all of it."""


class CapturedWrite:
    """One statement's effect on one table. ``error`` names the exception that took it back.

    ``connection`` is where it was written, and knows what is rolling back; ``namespace`` is that of the
    connection when it was: a connection may go on to another schema before the record is made.
    """

    __slots__ = ("connection", "error", "moment", "namespace", "plan", "verb")

    def __init__(self, plan: TablePlan, verb: Verb, connection: Connection, at: Moment | None = None) -> None:
        self.plan = plan
        self.verb = verb
        self.connection = connection
        self.namespace = connection.namespace
        self.moment = at or moment()
        self.error = ""

    def build(self, logger: AuditLogger, outcome: Outcome, transaction: str) -> Iterable[AuditRecord]:
        """Make the records; if that fails, one that says at least what was done to which table and row."""
        try:
            return self._records(logger, outcome, transaction)
        except faults() as error:
            self.connection.failures.report("build", error)
        try:
            return [self._least(logger, outcome, transaction)]
        except faults() as error:
            self.connection.failures.report("build", error, lost=1)
            return ()

    def _least(self, logger: AuditLogger, outcome: Outcome, transaction: str) -> AuditRecord:
        """Make a record of what cannot fail again: neither values nor the context the write was made in."""
        own = self.moment
        self.moment = own.without_context()
        try:
            return self._record(
                logger,
                outcome,
                transaction,
                target=Target(self.plan.label),
                fields=self._names(),
                completeness="statement",
                truncated=True,
            )
        finally:
            self.moment = own  # what is made of it later says the same, as the outcome of an intent

    def shorten(self) -> None:
        """Let go of what no record carries of large values: this waits until its transaction ends."""

    def undo(self) -> None:
        """Remember what took the write back: the record may be made much later."""
        if not self.error:
            self.error = self.connection.error
        self.connection.taken_back(self.plan)

    def _records(self, logger: AuditLogger, outcome: Outcome, transaction: str) -> list[AuditRecord]:
        """A statement of which nothing is known but its table."""
        return [
            self._record(
                logger,
                outcome,
                transaction,
                target=Target(self.plan.label),
                fields=self._names(),
                completeness="statement",
            )
        ]

    def _names(self) -> list[str]:
        """The names of the fields the statement was to write."""
        return []

    def _database(self, transaction: str) -> Database:
        return self.connection.database(self.plan, transaction, self.namespace)

    def _record(self, logger: AuditLogger, outcome: Outcome, transaction: str, **values: Any) -> AuditRecord:
        values.setdefault("at", self.moment)
        error = ""
        if outcome != "success":
            error = self.error or self.connection.error
        return logger.record(
            f"{self.plan.event}.{self.verb}",
            _ACTIONS[self.verb],
            outcome=outcome,
            error=error,
            database=self._database(transaction),
            strategies=self.plan.strategies or None,
            key_strategies=self.plan.key_strategies,
            **values,
        )


class NoWrite(CapturedWrite):
    """A statement that wrote nothing."""

    __slots__ = ()

    def build(self, logger: AuditLogger, outcome: Outcome, transaction: str) -> Iterable[AuditRecord]:
        return ()


class Image:
    """The image of a row, put together only when the record is made.

    Args:
        columns: all of the table, by attname.
        names: those of the columns it shows.
        row: values by attname, frozen.
    """

    __slots__ = ("_columns", "_names", "_row")

    def __init__(
        self, columns: Mapping[str, FieldPlan], names: Sequence[str], row: Mapping[str, Any]
    ) -> None:
        self._columns = columns
        self._names = names
        self._row = row

    def __iter__(self) -> Iterator[tuple[FieldPlan, Any]]:
        columns, row = self._columns, self._row
        return iter([(columns[name], row[name]) for name in self._names])

    def of(self, plans: Iterable[FieldPlan]) -> list[tuple[FieldPlan, Any]]:
        """Return the values of some columns, shown or not."""
        row = self._row
        return [(plan, row[plan.attname]) for plan in plans if plan.attname in row]


class WholeRow:
    """What an INSERT or a DELETE changes: all values of a row but its key, put together only when asked for.

    Args:
        plans: its columns.
        row: values by attname, frozen; it must not be changed. What is missing is not known.
        gone: they are the old values of a row that was deleted, not the new ones of one that was made.
    """

    __slots__ = ("gone", "plans", "row")

    def __init__(self, plans: Iterable[FieldPlan], row: Mapping[str, Any], *, gone: bool = False) -> None:
        self.plans = plans
        self.row = row
        self.gone = gone

    def __iter__(self) -> Iterator[tuple[FieldPlan, Any, Any]]:
        return iter(self.of(self.plans))

    def of(self, plans: Iterable[FieldPlan]) -> list[tuple[FieldPlan, Any, Any]]:
        """Return what changes of some columns: (column, old, new)."""
        value_of = self.row.get
        if self.gone:
            return [(plan, value_of(plan.attname, UNSET), UNSET) for plan in plans]
        return [(plan, UNSET, value_of(plan.attname, UNSET)) for plan in plans]


class RowWrite(CapturedWrite):
    """One row: ``changed`` lists (field, old, new) with frozen values, ``written`` all values of the image.

    ``on_undo`` is called with its arguments should the write be undone: (function, *arguments).
    """

    __slots__ = ("changed", "key", "old_values", "on_undo", "written")

    def __init__(
        self,
        plan: TablePlan,
        verb: Verb,
        connection: Connection,
        key: Any,
        changed: Iterable[tuple[FieldPlan, Any, Any]],
        written: Iterable[tuple[FieldPlan, Any]] = (),
        old_values: OldValues | None = None,
        at: Moment | None = None,
    ) -> None:
        self.plan = plan
        self.verb = verb
        self.connection = connection
        self.namespace = connection.namespace
        self.moment = at or moment()
        self.error = ""
        self.key = key
        self.changed = changed
        self.written = written
        self.old_values: OldValues | None = old_values
        self.on_undo: tuple[Any, ...] | None = None

    def shorten(self) -> None:
        large = self.plan.large
        if not large:
            return
        changed = self.changed
        for plan, old, new in changed.of(large) if type(changed) is WholeRow else changed:
            if plan in large and (is_long(old) or is_long(new)):
                self.changed = [
                    (each, shortened(before), shortened(after)) if each in large else (each, before, after)
                    for each, before, after in changed
                ]
                break
        written = self.written
        for plan, value in written.of(large) if type(written) is Image else written:
            if plan in large and is_long(value):
                self._shorten_written(large)
                break

    def _shorten_written(self, large: Collection[FieldPlan]) -> None:
        self.written = [(plan, shortened(value) if plan in large else value) for plan, value in self.written]
        if self.on_undo is not None:
            self.on_undo = (_Undo(*self.on_undo),)

    def undo(self) -> None:
        super().undo()
        if self.on_undo is not None:
            call, *arguments = self.on_undo
            call(*arguments)

    def _names(self) -> list[str]:
        return [plan.name for plan, _, _ in self.changed]

    def _least(self, logger: AuditLogger, outcome: Outcome, transaction: str) -> AuditRecord:
        least = super()._least(logger, outcome, transaction)
        try:
            key = key_text(self.key)
        except faults():  # this may be what failed
            return least
        return replace(least, target=Target(self.plan.label, key), completeness="ids") if key else least

    def build_with(self, heads: RecordHeads, logger: AuditLogger, transaction: str) -> Iterable[Made]:
        """Make the record of a success as :meth:`build` does; what it shares with others is encoded once."""
        plan = self.plan
        if self.error or plan.ends or any(plan.key_strategies):
            return self.build(logger, "success", transaction)
        try:
            kind = (plan, self.verb, self.old_values, self.connection, self.namespace)
            head = heads.find(kind, self.moment)
            if head is not None:
                values = self._plain_values()
                # Each of its records has a key; that of an INSERT in autocommit has none until it has run.
                if values is not None and values[0]:
                    made = heads.record(head, self.moment, *values, plan.strategies)
                    if made is not None:
                        return [made]
            else:
                records = self._records(logger, "success", transaction, heads.moment(self.moment))
                heads.learn(kind, records[0])
                return records
        except faults():  # whatever it is, the general way says so
            pass
        return self.build(logger, "success", transaction)

    def build_alone(self, lone: LoneRecords, logger: AuditLogger, transaction: str) -> Iterable[Made]:
        """Make the record of a success as :meth:`build` does, in a quick way if nothing in it is unusual."""
        plan = self.plan
        if self.error or plan.ends or any(plan.key_strategies):
            return self.build(logger, "success", transaction)
        try:
            values = self._plain_values()
            if values is not None:
                key, changes, image, looked = values
                made = lone.record(
                    f"{plan.event}.{self.verb}",
                    _ACTIONS[self.verb],
                    Target(plan.label, key),
                    self._database(transaction),
                    self.old_values,
                    self.moment,
                    changes,
                    image,
                    looked,
                    plan.strategies,
                )
                if made is not None:
                    return [made]
        except faults():  # whatever it is, the general way says so
            pass
        return self.build(logger, "success", transaction)

    def _plain_values(self) -> tuple[str, list[Change], dict[str, Any], list[Any]] | None:
        """Return key, changes, image, and those values to look at for secrets; None if one is not plain."""
        looked: list[Any] = []
        image: dict[str, Any] = {}
        for plan, value in self.written:
            kind = type(value)
            if kind not in _AS_IT_IS:
                made = _as_recorded(value, kind)
                if made is None:
                    return None
                value = made[0]
            elif value is UNSET:
                continue
            if kind not in _HARMLESS:
                looked.append(value)
            image[plan.name] = value
        changed = self.changed
        changes = (
            _plain_row(changed, looked) if type(changed) is WholeRow else _plain_changes(changed, looked)
        )
        return None if changes is None else (key_text(self.key), changes, image, looked)

    def _records(
        self, logger: AuditLogger, outcome: Outcome, transaction: str, at: Moment | None = None
    ) -> list[AuditRecord]:
        related: dict[str, Any] = {"related": self._ends()} if self.plan.ends else {}
        return [
            self._record(
                logger,
                outcome,
                transaction,
                at=at or self.moment,
                target=Target(self.plan.label, key_text(self.key)),
                changes=[_change(plan.name, old, new) for plan, old, new in self.changed],
                image={
                    plan.name: RECORDED[type(value)][0](value) if type(value) in RECORDED else value
                    for plan, value in self.written
                    if value is not UNSET
                },
                old_values=self.old_values,
                **related,
            )
        ]

    def _ends(self) -> list[Target]:
        values = [(plan.name, value) for plan, *both in self.changed for value in both]
        return self.plan.related([*values, *((plan.name, value) for plan, value in self.written)])


class _Undo:
    """Takes back what an object remembers of a write, as long as that object lives."""

    __slots__ = ("__weakref__", "_call", "_owner", "_rest")

    def __init__(self, call: Callable[..., None], owner: Any, *rest: Any) -> None:
        self._call = call
        self._rest = rest
        mine = weakref.ref(self)

        def gone(_: object) -> None:
            undo = mine()
            if undo is not None:
                undo._rest = ()

        self._owner = weakref.ref(owner, gone)

    def __call__(self) -> None:
        owner = self._owner()
        if owner is not None:
            self._call(owner, *self._rest)


def _as_recorded(value: Any, kind: type, type_: str = "") -> tuple[Any, str] | None:
    """Return what a record carries of a frozen value that is not plain, and what its type is called there.

    None where :data:`RECORDED` does not say it. ``type_`` is that of a value that has none of its own.
    """
    if kind is float:
        return (value, type_) if math.isfinite(value) else None
    if kind not in RECORDED or (kind is Encoded and len(value) > _SHORT):
        return None
    convert, type_ = RECORDED[kind]
    return convert(value), type_


def _change(name: str, old: Any, new: Any) -> Change:
    kind = ""
    if type(old) in RECORDED:
        convert, kind = RECORDED[type(old)]
        old = convert(old)
    if type(new) in RECORDED:
        convert, kind = RECORDED[type(new)]
        new = convert(new)
    return Change(name, old, new, kind)


def _plain_row(changed: WholeRow, looked: list[Any]) -> list[Change] | None:
    """Do :func:`_plain_changes` for what an INSERT or a DELETE changes."""
    gone, value_of = changed.gone, changed.row.get
    changes: list[Change] = []
    for plan in changed.plans:
        value, type_ = value_of(plan.attname, UNSET), ""
        kind = type(value)
        if kind not in _AS_IT_IS:
            made = _as_recorded(value, kind)
            if made is None:
                return None
            value, type_ = made
        changes.append(
            Change(plan.name, value, UNSET, type_) if gone else Change(plan.name, UNSET, value, type_)
        )
        if kind not in _HARMLESS:
            looked.append(value)
    return changes


def _plain_changes(changed: Iterable[tuple[FieldPlan, Any, Any]], looked: list[Any]) -> list[Change] | None:
    """Return changes of plain values; None if one is not plain. Adds what is to be looked at for secrets."""
    changes: list[Change] = []
    for plan, old, new in changed:
        before, after, type_ = type(old), type(new), ""
        if before not in _AS_IT_IS:
            made = _as_recorded(old, before)
            if made is None:
                return None
            old, type_ = made
        if after not in _AS_IT_IS:
            made = _as_recorded(new, after, type_)
            if made is None:
                return None
            new, type_ = made
        changes.append(Change(plan.name, old, new, type_))
        if before not in _HARMLESS:
            looked.append(old)
        if after not in _HARMLESS:
            looked.append(new)
    return changes
