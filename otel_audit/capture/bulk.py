"""Many rows written by one statement, column by column, and the records made of them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from otel_audit.audit_context import Moment
from otel_audit.audit_record import (
    AuditRecord,
    Bulk,
    Change,
    Column,
    Completeness,
    OldValues,
    Outcome,
    Target,
    new_record_id,
)
from otel_audit.capture.plan import FieldPlan, TablePlan, Verb
from otel_audit.capture.writes import PLAIN, CapturedWrite
from otel_audit.config.model import CaptureSection
from otel_audit.interruptions import faults
from otel_audit.large_values import Cut
from otel_audit.values import (
    ATOMS,
    FROZEN,
    Portable,
    key_text,
    key_texts,
    portable,
    record_value,
    record_values,
    shortened,
)

if TYPE_CHECKING:
    from otel_audit.capture.transactions.connection import Connection
    from otel_audit.pipeline.logger import AuditLogger

_MAX_ROWS: Final = 1000
_MAX_BYTES: Final = 1024 * 1024
_NOTHING: Final = frozenset({type(None)})


class Converters(Protocol):
    """Turns a driver's values into Python's."""

    def rows(self, rows: list[Any]) -> Iterable[Any]:
        """Convert whole rows."""

    def column(self, position: int, values: list[Any]) -> list[Any]:
        """Convert the values of one column of many rows."""


class ReturnedRows:
    """What a statement returned: raw driver rows of ``plans``' columns, converted when first needed."""

    __slots__ = ("_converters", "_keys", "_raw", "plans")

    def __init__(
        self, plans: Sequence[FieldPlan], raw: list[Any], converters: Converters | None = None
    ) -> None:
        self.plans = plans
        self._raw = raw
        self._converters = converters
        self._keys: list[Any] | None = None

    def __len__(self) -> int:
        return len(self._raw)

    def raw_columns(self) -> Iterable[Sequence[Any]]:
        """Return the columns as they are now, converted or not."""
        # Not by zip(): an iterator for each row would have the garbage collector look at all of them.
        width = len(self._raw[0]) if self._raw else 0
        return (list(map(operator.itemgetter(position), self._raw)) for position in range(width))

    def rows(self) -> list[Any]:
        """Return the rows with Python's values."""
        if self._converters is not None:
            self._raw, self._converters = list(self._converters.rows(self._raw)), None
        return self._raw

    def column(self, position: int) -> list[Any]:
        """Return one value of each row, with Python's values."""
        values = list(map(operator.itemgetter(position), self._raw))
        return values if self._converters is None else self._converters.column(position, values)

    def keys(self, plan: TablePlan) -> list[Any]:
        """Return the keys, which are the first columns."""
        if self._keys is None:
            columns = [self.column(position) for position in range(len(plan.keys))]
            self._keys = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        return self._keys


class KnownColumns(ReturnedRows):
    """Rows that are known by column, with Python's values; their lists are not changed any more."""

    __slots__ = ("_columns",)

    def __init__(self, plans: Sequence[FieldPlan], columns: Sequence[list[Any]]) -> None:
        super().__init__(plans, [])
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns[0]) if self._columns else 0

    def raw_columns(self) -> Iterable[Sequence[Any]]:
        return self._columns

    def rows(self) -> list[Any]:
        return list(zip(*self._columns, strict=True))

    def column(self, position: int) -> list[Any]:
        return self._columns[position]


class BulkWrite(CapturedWrite):
    """Any number of rows of one table.

    Each row of ``rows`` is the key's columns, then the old values of ``old``, then the new values of ``new``;
    ``constant`` are new values all rows share. ``count`` is the number of rows where ``rows`` is ``None`` or
    holds keys only (``ids``).
    """

    __slots__ = ("completeness", "constant", "count", "new", "old", "old_values", "rows")

    def __init__(
        self,
        plan: TablePlan,
        verb: Verb,
        connection: Connection,
        count: int,
        rows: ReturnedRows | None = None,
        *,
        old: Sequence[FieldPlan] = (),
        new: Sequence[FieldPlan] = (),
        constant: Sequence[tuple[FieldPlan, Any]] = (),
        completeness: Completeness = "full",
        old_values: OldValues | None = None,
        at: Moment | None = None,
    ) -> None:
        super().__init__(plan, verb, connection, at)
        self.count = count
        self.rows = rows
        self.old = old
        self.new = new
        self.constant = constant
        self.completeness: Completeness = completeness if rows is not None else "count"
        self.old_values: OldValues | None = old_values

    def _records(self, logger: AuditLogger, outcome: Outcome, transaction: str) -> list[AuditRecord]:
        if self.verb == "update" and self._only_ignored():
            return []
        if self.rows is None:
            return [self._part(logger, outcome, transaction, Bulk(self.count, id=new_record_id()))]
        keys = self.rows.keys(self.plan)
        if self.completeness == "ids":
            return self._parts(logger, outcome, transaction, key_texts(keys), [])
        columns = self._columns(self.rows)
        if self.verb == "update":
            keys, columns = _changed_only(keys, columns, whole=self.plan.snapshot)
        if not keys:
            return []
        if len(keys) == 1:
            return [self._single(logger, outcome, transaction, keys[0], columns)]
        recorded, certain = [], True
        for plan, old, new in columns:
            before, certain_before = _recorded(plan, old)
            after, certain_after = _recorded(plan, new)
            recorded.append(Column(plan.name, before, after, _column_type(plan, old, new)))
            certain = certain and certain_before and certain_after
        return self._parts(logger, outcome, transaction, key_texts(keys), recorded, portable=certain)

    def shorten(self) -> None:
        """Let go of what no record carries of large values of one row; those of many are within a budget."""
        large = self.plan.large
        if self.rows is None or self.completeness != "full" or len(self.rows) != 1 or not large:
            return
        (row,) = self.rows.rows()
        width = len(self.plan.keys)
        cells = [
            shortened(plan.frozen(value)) if plan in large else value
            for plan, value in zip((*self.old, *self.new), row[width:], strict=False)
        ]
        self.rows = ReturnedRows(self.rows.plans, [(*row[:width], *cells)])
        self.constant = [
            (plan, shortened(value) if plan in large else value) for plan, value in self.constant
        ]

    def _columns(self, rows: ReturnedRows) -> list[tuple[FieldPlan, list[Any] | None, list[Any] | None]]:
        start = len(self.plan.keys)
        old = {plan: rows.column(start + i) for i, plan in enumerate(self.old)}
        start += len(self.old)
        new = {plan: rows.column(start + i) for i, plan in enumerate(self.new)}
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
        whole = self.plan.snapshot and self.verb == "update"
        return self._record(
            logger,
            outcome,
            transaction,
            target=Target(self.plan.label, key_text(key)),
            changes=[
                _change(plan, UNSET if old is None else old[0], UNSET if new is None else new[0])
                for plan, old, new in columns
                if not (whole and old is None and plan in self.old)
            ],
            image={
                plan.name: record_value(plan.frozen(new[0]))[0] for plan, _, new in columns if whole and new
            },
            completeness=self.completeness,
            old_values=self.old_values,
            **self._ends((plan.name, side) for plan, *both in columns for side in both),
        )

    def _parts(
        self,
        logger: AuditLogger,
        outcome: Outcome,
        transaction: str,
        keys: list[str],
        columns: list[Column],
        *,
        portable: bool = True,
    ) -> list[AuditRecord]:
        slices: list[tuple[list[str], list[Column]]] = []
        for start in range(0, len(keys), _MAX_ROWS):
            _split(keys, columns, start, min(start + _MAX_ROWS, len(keys)), slices)
        bulk = new_record_id()
        while True:
            records = [
                self._part(
                    logger,
                    outcome,
                    transaction,
                    Bulk(len(some), some, part_columns, bulk, number, len(slices)),
                    portable=portable,
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
                for half in ([piece] if fits else _halves(*piece))
            ]

    def _names(self) -> list[str]:
        return [plan.name for plan in dict.fromkeys([*self.new, *(plan for plan, _ in self.constant)])]

    def _only_ignored(self) -> bool:
        """Say whether no field that counts was written; False where it is not known which were."""
        written = [*self.old, *self.new, *(plan for plan, _ in self.constant)]
        return bool(written) and all(plan.ignored for plan in written)

    def _least(self, logger: AuditLogger, outcome: Outcome, transaction: str) -> AuditRecord:
        least = super()._least(logger, outcome, transaction)
        return replace(least, bulk=Bulk(self.count, id=new_record_id()), completeness="count")

    def _part(
        self,
        logger: AuditLogger,
        outcome: Outcome,
        transaction: str,
        bulk: Bulk,
        *,
        portable: bool = True,
    ) -> AuditRecord:
        return self._record(
            logger,
            outcome,
            transaction,
            target=Target(self.plan.label),
            bulk=bulk,
            portable=portable,
            fields=[] if bulk.columns else self._names(),
            completeness=self.completeness,
            old_values=self.old_values,
            **self._ends((each.field, side) for each in bulk.columns for side in (each.old, each.new)),
        )

    def _ends(self, columns: Iterable[tuple[str, Any]]) -> dict[str, list[Target]]:
        """Return ``related`` for the rows of a relation: what stands at its ends."""
        plan = self.plan
        if not plan.ends:
            return {}
        return {
            "related": plan.related((name, value) for name, side in columns for value in _values_of(side))
        }


def _values_of(side: Any) -> Iterable[Any]:
    return side if isinstance(side, list) else ()


def limited(write: BulkWrite, config: CaptureSection) -> BulkWrite:
    """Keep no more of many rows than may be recorded.

    Above ``max_bulk_rows`` or ``max_bulk_bytes`` that is their keys, above ``max_bulk_ids`` a count.
    """
    rows, max_ids = write.rows, config.max_bulk_ids
    if rows is None or write.completeness != "full":
        return write
    if len(rows) <= config.max_bulk_rows and not _larger(write, rows, config.max_bulk_bytes):
        return write
    width = len(write.plan.keys)
    if len(rows) <= max_ids:
        keys = [rows.column(position) for position in range(width)]
        write.rows = ReturnedRows(write.plan.keys, list(zip(*keys, strict=True)))
        write.completeness, write.old_values = "ids", None
    else:
        write.rows, write.completeness, write.old_values = None, "count", None
    return write


_SIZED: Final = (str, bytes, memoryview, Cut)


def _larger(write: BulkWrite, rows: ReturnedRows, limit: int) -> bool:
    """Say whether the values of many rows are larger than ``limit``; those of one row are their own."""
    count = len(rows)
    if count < 2:
        return False
    size = count * sum(len(value) for _, value in write.constant if isinstance(value, _SIZED))
    if size > limit:
        return True
    for column in rows.raw_columns():
        kinds = set(map(type, column))
        if kinds == {str}:
            size += sum(map(len, column))
        elif any(issubclass(kind, _SIZED) for kind in kinds):
            size += sum([len(value) for value in column if isinstance(value, _SIZED)])
    return size > limit


def _lost_values(record: AuditRecord) -> bool:
    """Whether a part was made without its values because it was too large."""
    return record.truncated and record.bulk is not None and bool(record.bulk.keys) and not record.bulk.columns


# --- columns: pure functions from the values of rows to what a record carries ---------------------


def _recorded(plan: FieldPlan, values: list[Any] | None) -> tuple[list[Portable] | UnsetType, bool]:
    """Return a column's values as the record carries them, and whether they are certainly portable."""
    if values is None:
        return UNSET, True
    if not plan.plain and not FROZEN.issuperset(map(type, values)):
        values = list(map(plan.frozen, values))
    return record_values(values)


def _change(plan: FieldPlan, old: Any, new: Any) -> Change:
    """Make the change of one row of a bulk statement, of which there was only one."""
    kind = ""
    if old is not UNSET:
        old, kind = record_value(plan.frozen(old))
    if new is not UNSET:
        new, new_kind = record_value(plan.frozen(new))
        kind = new_kind or kind
    return Change(plan.name, old, new, kind)


def _column_type(plan: FieldPlan, *columns: list[Any] | None) -> str:
    for column in columns:
        for value in column or ():
            if value is not None:
                return record_value(plan.frozen(value))[1]
    return ""


def _changed_only(
    keys: list[Any], columns: list[tuple[FieldPlan, list[Any] | None, list[Any] | None]], *, whole: bool
) -> tuple[list[Any], list[tuple[FieldPlan, list[Any] | None, list[Any] | None]]]:
    """Leave out rows and columns in which nothing differs; a value not known counts as different.

    A row in which only fields differ that do not count is left out as well. With ``whole``, columns in which
    nothing differs stay, without their old values.
    """
    differs: list[list[bool]] = []
    for plan, old, new in columns:
        if old is None or new is None:
            differs.append([True] * len(keys))
            continue
        differs.append(differing(plan, old, new))
    counting = [column for (plan, _, _), column in zip(columns, differs, strict=True) if not plan.ignored]
    if any(map(all, counting)):  # most often one column differs in all rows
        kept = list(range(len(keys)))
    else:
        kept = [index for index, row in enumerate(zip(*counting, strict=True)) if True in row]
    if len(kept) == len(keys) and all(map(any, differs)):
        return keys, columns
    shown = []
    for (plan, old, new), column in zip(columns, differs, strict=True):
        changed = any(column[index] for index in kept)
        if changed or whole:
            before = [old[index] for index in kept] if changed and old else None
            shown.append((plan, before, new and [new[index] for index in kept]))
    return [keys[index] for index in kept], shown


def differing(plan: FieldPlan, old: list[Any], new: list[Any]) -> list[bool]:
    """Say for each row whether the database holds something else now, as :meth:`FieldPlan.equal` does."""
    kinds = {*map(type, old), *map(type, new)} - _NOTHING
    # Of one class: of several, Python calls values equal that a database does not, true and 1.
    if len(kinds) <= 1:
        if PLAIN.issuperset(kinds):
            return list(map(operator.ne, old, new))
        if ATOMS.issuperset(kinds):
            differ = _atoms_differing(plan, old, new)
            if differ is not None:
                return differ
    return [
        not plan.equal(plan.frozen(before), plan.frozen(after))
        for before, after in zip(old, new, strict=True)
    ]


def _atoms_differing(plan: FieldPlan, old: list[Any], new: list[Any]) -> list[bool] | None:
    """Compare atoms of one class; ``None`` where each has to be looked at."""
    try:
        before, after = plan.frozen_all(old), plan.frozen_all(new)
        differ = list(map(operator.ne, before, after))
        normal = plan.normal_all(after) if True in differ else after
        kinds = {*map(type, before), *map(type, after), *map(type, normal)} - _NOTHING
        if len(kinds) > 1 or not ATOMS.issuperset(kinds) or any(map(operator.ne, after, after)):
            return None  # of several classes, or not a number
        if normal is after:
            return differ
        return list(map(operator.and_, differ, map(operator.ne, before, normal)))
    except faults():  # a signalling NaN
        return None


def _split(
    keys: list[str],
    columns: list[Column],
    start: int,
    stop: int,
    slices: list[tuple[list[str], list[Column]]],
) -> None:
    """Cut rows ``start`` to ``stop`` into pieces of at most 1 MiB, by halves."""
    some, part = _rows(keys, columns, start, stop)
    if stop - start > 1 and len(msgspec.json.encode((some, part), enc_hook=portable)) > _MAX_BYTES:
        middle = (start + stop) // 2
        _split(keys, columns, start, middle, slices)
        _split(keys, columns, middle, stop, slices)
    else:
        slices.append((some, part))


def _halves(keys: list[str], columns: list[Column]) -> list[tuple[list[str], list[Column]]]:
    """Cut rows in two."""
    middle = len(keys) // 2
    return [_rows(keys, columns, 0, middle), _rows(keys, columns, middle, len(keys))]


def _rows(keys: list[str], columns: list[Column], start: int, stop: int) -> tuple[list[str], list[Column]]:
    part = [
        Column(
            column.field,
            column.old[start:stop] if column.old is not UNSET else UNSET,
            column.new[start:stop] if column.new is not UNSET else UNSET,
            column.type,
        )
        for column in columns
    ]
    return keys[start:stop], part
