"""Captured writes, waiting for the outcome of their transaction, and the records made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET

from otel_audit.config.model import DjangoConfig
from otel_audit.context import Moment, moment
from otel_audit.instrumentation.django.columns import change, changed_only, column_type, halves, shown, split
from otel_audit.instrumentation.django.fields import TOLD, FieldPlan, ModelPlan, key_text, key_texts
from otel_audit.instrumentation.django.old_values import STATE_KEY, Loaded
from otel_audit.record import (
    AuditRecord,
    Bulk,
    Change,
    Column,
    Completeness,
    Database,
    OldValues,
    Outcome,
    Target,
    new_record_id,
)

if TYPE_CHECKING:
    from otel_audit.instrumentation.django.faults import Faults
    from otel_audit.instrumentation.django.transactions import ConnectionState
    from otel_audit.pipeline.logger import AuditLogger

Verb: TypeAlias = Literal["create", "update", "delete"]
_ACTIONS: Final[dict[Verb, str]] = {"create": "CREATE", "update": "UPDATE", "delete": "DELETE"}
_MAX_ROWS: Final = 1000


class Place(msgspec.Struct, frozen=True, eq=False):
    """Where a write went, and how its records are limited."""

    system: str
    namespace: str
    config: DjangoConfig
    faults: Faults

    def database(self, plan: ModelPlan, transaction: str) -> Database:
        return Database(self.system, self.namespace, plan.table, transaction)


class CapturedWrite:
    """One statement's effect on one table. ``error`` names the exception that took it back.

    ``origin`` is the connection's state, which knows what is rolling back.
    """

    __slots__ = ("error", "moment", "origin", "place", "plan", "verb")

    def __init__(self, plan: ModelPlan, verb: Verb, place: Place, at: Moment | None = None) -> None:
        self.plan = plan
        self.verb = verb
        self.place = place
        self.moment = at or moment()
        self.error = ""
        self.origin: ConnectionState | None = None

    def build(self, logger: AuditLogger, outcome: Outcome, transaction: str) -> Iterable[AuditRecord]:
        """Make the records; if that fails, one that says at least what was done to which table."""
        try:
            return self._records(logger, outcome, transaction)
        except Exception as error:
            self.place.faults.report("build", error)
        try:
            return CapturedWrite._records(self, logger, outcome, transaction)
        except Exception as error:
            self.place.faults.report("build", error, lost=1)
            return ()

    def undo(self) -> None:
        """Remember what took the write back: the record may be made much later."""
        if self.origin is not None and not self.error:
            self.error = self.origin.error

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

    def _record(self, logger: AuditLogger, outcome: Outcome, transaction: str, **values: Any) -> AuditRecord:
        error = ""
        if outcome != "success":
            error = self.error or (self.origin.error if self.origin is not None else "")
        return logger.record(
            f"{self.plan.event}.{self.verb}",
            _ACTIONS[self.verb],
            at=self.moment,
            outcome=outcome,
            error=error,
            database=self.place.database(self.plan, transaction),
            strategies=self.plan.strategies or None,
            key_strategies=self.plan.key_strategies,
            **values,
        )


class NoWrite(CapturedWrite):
    """A statement that wrote nothing."""

    __slots__ = ()

    def build(self, logger: AuditLogger, outcome: Outcome, transaction: str) -> Iterable[AuditRecord]:
        return ()


class RowWrite(CapturedWrite):
    """One row: ``changed`` lists (field, old, new) with frozen values, ``written`` all values of the image.

    ``state`` and ``previous`` put back what the instance had loaded before, should the write be undone.
    """

    __slots__ = ("changed", "key", "old_values", "previous", "state", "written")

    def __init__(
        self,
        plan: ModelPlan,
        verb: Verb,
        place: Place,
        key: Any,
        changed: Sequence[tuple[FieldPlan, Any, Any]],
        written: Iterable[tuple[FieldPlan, Any]] = (),
        old_values: OldValues | None = None,
        at: Moment | None = None,
    ) -> None:
        self.plan = plan
        self.verb = verb
        self.place = place
        self.moment = at or moment()
        self.error = ""
        self.origin = None
        self.key = key
        self.changed = changed
        self.written = written
        self.old_values: OldValues | None = old_values
        self.state: Any = None
        self.previous: Loaded | None = None

    def undo(self) -> None:
        super().undo()
        if self.state is not None:
            self.state.__dict__[STATE_KEY] = self.previous

    def _names(self) -> list[str]:
        return [plan.name for plan, _, _ in self.changed]

    def _records(self, logger: AuditLogger, outcome: Outcome, transaction: str) -> list[AuditRecord]:
        told = TOLD
        return [
            self._record(
                logger,
                outcome,
                transaction,
                target=Target(self.plan.label, key_text(self.key)),
                changes=[_change(plan.name, old, new) for plan, old, new in self.changed],
                image={
                    plan.name: told[type(value)][0](value) if type(value) in told else value
                    for plan, value in self.written
                    if value is not UNSET
                },
                old_values=self.old_values,
            )
        ]


def _change(name: str, old: Any, new: Any) -> Change:
    kind = ""
    if type(old) in TOLD:
        convert, kind = TOLD[type(old)]
        old = convert(old)
    if type(new) in TOLD:
        convert, kind = TOLD[type(new)]
        new = convert(new)
    return Change(name, old, new, kind)


class Rows:
    """What a statement returned: raw driver rows of ``plans``' columns, converted when first needed."""

    __slots__ = ("_convert", "_raw", "plans")

    def __init__(
        self,
        plans: Sequence[FieldPlan],
        raw: list[Any],
        convert: Callable[[list[Any]], Iterable[Any]] | None = None,
    ) -> None:
        self.plans = plans
        self._raw = raw
        self._convert = convert

    def __len__(self) -> int:
        return len(self._raw)

    def rows(self) -> list[Any]:
        """Give the rows with Python's values."""
        if self._convert is not None:
            self._raw, self._convert = list(self._convert(self._raw)), None
        return self._raw


class BulkWrite(CapturedWrite):
    """Any number of rows of one table.

    Each row of ``rows`` is the key's columns, then the old values of ``old``, then the new values of ``new``;
    ``constant`` are new values all rows share. ``count`` is the number of rows where ``rows`` is ``None`` or
    holds keys only (``ids``).
    """

    __slots__ = ("completeness", "constant", "count", "new", "old", "old_values", "rows")

    def __init__(
        self,
        plan: ModelPlan,
        verb: Verb,
        place: Place,
        count: int,
        rows: Rows | None = None,
        *,
        old: Sequence[FieldPlan] = (),
        new: Sequence[FieldPlan] = (),
        constant: Sequence[tuple[FieldPlan, Any]] = (),
        completeness: Completeness = "full",
        old_values: OldValues | None = None,
        at: Moment | None = None,
    ) -> None:
        super().__init__(plan, verb, place, at)
        self.count = count
        self.rows = rows
        self.old = old
        self.new = new
        self.constant = constant
        self.completeness: Completeness = completeness if rows is not None else "count"
        self.old_values: OldValues | None = old_values

    def _records(self, logger: AuditLogger, outcome: Outcome, transaction: str) -> list[AuditRecord]:
        if self.rows is None:
            return [self._part(logger, outcome, transaction, Bulk(self.count, id=new_record_id()))]
        rows = self.rows.rows()
        width = len(self.plan.keys)
        keys = [row[0] if width == 1 else tuple(row[:width]) for row in rows]
        if self.completeness == "ids":
            return self._parts(logger, outcome, transaction, key_texts(keys), [])
        columns = self._columns(rows, width)
        if self.verb == "update":
            keys, columns = changed_only(keys, columns)
        if not keys:
            return []
        if len(keys) == 1:
            return [self._single(logger, outcome, transaction, keys[0], columns)]
        told = [
            Column(
                plan.name,
                UNSET if old is None else shown(old),
                UNSET if new is None else shown(new),
                column_type(old, new),
            )
            for plan, old, new in columns
        ]
        return self._parts(logger, outcome, transaction, key_texts(keys), told)

    def _columns(
        self, rows: list[Any], width: int
    ) -> list[tuple[FieldPlan, list[Any] | None, list[Any] | None]]:
        old = {plan: [row[width + i] for row in rows] for i, plan in enumerate(self.old)}
        start = width + len(self.old)
        new: dict[FieldPlan, list[Any]] = {
            plan: [row[start + i] for row in rows] for i, plan in enumerate(self.new)
        }
        for plan, value in self.constant:
            new[plan] = [value] * len(rows)
        return [(plan, old.get(plan), new.get(plan)) for plan in dict.fromkeys([*old, *new])]

    def _single(
        self,
        logger: AuditLogger,
        outcome: Outcome,
        transaction: str,
        key: Any,
        columns: list[tuple[FieldPlan, list[Any] | None, list[Any] | None]],
    ) -> AuditRecord:
        return self._record(
            logger,
            outcome,
            transaction,
            target=Target(self.plan.label, key_text(key)),
            changes=[
                change(plan, UNSET if old is None else old[0], UNSET if new is None else new[0])
                for plan, old, new in columns
            ],
            completeness=self.completeness,
            old_values=self.old_values,
        )

    def _parts(
        self, logger: AuditLogger, outcome: Outcome, transaction: str, keys: list[str], columns: list[Column]
    ) -> list[AuditRecord]:
        slices: list[tuple[list[str], list[Column]]] = []
        for start in range(0, len(keys), _MAX_ROWS):
            split(keys, columns, start, min(start + _MAX_ROWS, len(keys)), slices)
        bulk = new_record_id()
        while True:
            records = [
                self._part(
                    logger,
                    outcome,
                    transaction,
                    Bulk(len(some), some, part_columns, bulk, number, len(slices)),
                )
                for number, (some, part_columns) in enumerate(slices, 1)
            ]
            # Rows that fit by themselves may not fit together with what the record says around them.
            whole = [
                not (_lost_values(record) and len(some) > 1)
                for record, (some, _) in zip(records, slices, strict=True)
            ]
            if all(whole):
                return records
            slices = [
                half
                for piece, fits in zip(slices, whole, strict=True)
                for half in ([piece] if fits else halves(*piece))
            ]

    def _names(self) -> list[str]:
        return [plan.name for plan in dict.fromkeys([*self.new, *(plan for plan, _ in self.constant)])]

    def _part(self, logger: AuditLogger, outcome: Outcome, transaction: str, bulk: Bulk) -> AuditRecord:
        return self._record(
            logger,
            outcome,
            transaction,
            target=Target(self.plan.label),
            bulk=bulk,
            fields=[] if bulk.columns else self._names(),
            completeness=self.completeness,
            old_values=self.old_values,
        )


def _lost_values(record: AuditRecord) -> bool:
    """Whether a part was made without its values because it was too large."""
    return record.truncated and record.bulk is not None and bool(record.bulk.keys) and not record.bulk.columns
