"""Reads: counts the objects a query returns as its rows come in, and makes and keeps the records of it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

from otel_audit.audit_context import moment
from otel_audit.audit_record import AuditRecord, Bulk, Completeness, Database, Target
from otel_audit.interruptions import faults
from otel_audit.named_tuples import NamedTuple
from otel_audit.pipeline.failures import Failures
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.pipeline.record_heads import Made
from otel_audit.values import MAX_PARTS, key_text, key_texts

_NO_STRATEGIES: Final[dict[str, str]] = {}

ReadKey: TypeAlias = Callable[[Any], str]
"""Returns the key of the object in a row as text, ``""`` if there is none."""


class KeyColumn:
    """Reads the key where it is one value of a row: of all rows in one go, which is most of a list's cost.

    Args:
        position: where it stands in a row.
        kind: the class of a value that needs no conversion.
        frozen: converts any other.
    """

    __slots__ = ("_frozen", "_kind", "_of")

    def __init__(
        self, position: int, kind: type | None = int, frozen: Callable[[Any], Any] = lambda value: value
    ) -> None:
        self._of = operator.itemgetter(position)
        self._kind = kind
        self._frozen = frozen

    def __call__(self, row: Sequence[Any]) -> str:
        value = self._of(row)
        return key_text(value if type(value) is self._kind else self._frozen(value))

    def of_all(self, rows: Sequence[Sequence[Any]]) -> list[str]:
        """Return the keys of many rows."""
        values = list(map(self._of, rows))
        if {*map(type, values)} == {self._kind}:
            return key_texts(values)
        return list(map(self, rows))


class Reading(NamedTuple):
    """One sensitive table in a query, as records name it, and the names of its fields that are displayed.

    ``every_row``: each row is an object of this table; a join may match none, or the same one again.
    """

    label: str
    event: str
    table: str
    fields: tuple[str, ...] = ()
    every_row: bool = False
    key_strategies: tuple[str, ...] = ()


class Tally:
    """Counts the objects of one reading as rows come in, and lists the first of them."""

    def __init__(self, reading: Reading, readers: list[ReadKey], max_keys: int) -> None:
        self.reading = reading
        self.keys: dict[str, None] = {}
        self.complete = bool(readers)
        self._more = 0
        self._max_keys = max_keys
        self._readers = readers

    @property
    def count(self) -> int:
        """Objects if all are listed, otherwise the rows that showed one."""
        return len(self.keys) + self._more

    def add(self, chunk: Sequence[Any]) -> None:
        """Count the rows of ``chunk``."""
        if not self._readers:
            self._more += len(chunk)
            return
        keys, most = self.keys, self._max_keys
        if len(self._readers) == 1 and len(keys) + len(chunk) <= most and self._add_all(chunk):
            return
        for at, row in enumerate(chunk):
            if len(keys) >= most and self.reading.every_row:
                self._more += len(chunk) - at
                self.complete = False
                return
            for read in self._readers:
                key = read(row)
                if not key or key in keys:  # an outer join that matched nothing, an object seen before
                    continue
                if len(keys) < most:
                    keys[key] = None
                else:
                    self._more += 1
                    self.complete = False

    def _add_all(self, chunk: Sequence[Any]) -> bool:
        """Add the keys of all rows at once, if they can be read like this."""
        (read,) = self._readers
        if not isinstance(read, KeyColumn):
            return False
        try:
            found = dict.fromkeys(read.of_all(chunk))
        except faults():  # the rows are counted up to the one whose key cannot be read
            return False
        found.pop("", None)
        self.keys.update(found)
        return True

    def lose_keys(self) -> None:
        """Go on with counting rows."""
        self.complete = False
        self._readers = []


class ReadRecords:
    """The records of one query on ``database``, made at the moment it was run."""

    def __init__(self, logger: AuditLogger, failures: Failures, database: Database) -> None:
        self._logger = logger
        self._failures = failures
        self._database = database
        self._at = moment()
        self._intent: int | None = None
        self._begun = self._kept = False

    def count(self, tallies: Iterable[Tally], chunk: Sequence[Any]) -> None:
        """Count rows; a fault of ours costs the keys, not the rows."""
        for tally in tallies:
            try:
                tally.add(chunk)
            except faults() as error:
                tally.lose_keys()
                self._failures.report("read", error, what=tally.reading.label)

    def begin(self, tallies: Iterable[Tally]) -> None:
        """Put on disk that rows are about to be read, until :meth:`end`."""
        try:
            begun = [self._record(tally.reading, completeness="statement") for tally in tallies]
        except faults() as error:
            self._failures.report("read", error)
        else:
            self._intent = self._logger.intend(begun)
        self._begun = True

    def end(self, tallies: Iterable[Tally]) -> None:
        """Keep what was counted since :meth:`begin`; does nothing the second time, and without it."""
        if (self._begun or self._intent is not None) and not self._kept:
            self.keep(tallies)
            self._kept = True

    def keep(self, tallies: Iterable[Tally]) -> None:
        """Keep what was counted, in place of what was intended if anything was."""
        records: list[Made] = []
        for tally in tallies:
            try:
                records.append(self._objects(tally))
            except faults() as error:
                self._failures.report("read", error, what=tally.reading.label)
                records += self._least(tally.reading, Bulk(tally.count))
        if self._intent is None:
            self._logger.emit(*records, at=self._at)
            return
        self._logger.settle(self._intent, "success", records)
        for record in records:
            self._logger.span_event(record, self._at)

    def keep_answer(self, readings: Iterable[Reading], kind: str, row: Any) -> None:
        """Keep what a count, an exists or an aggregate said: ``row`` is its answer."""
        completeness: Completeness = "statement" if kind == "aggregate" else "count"
        records: list[AuditRecord] = []
        for reading in readings:
            bulk = None
            try:
                if kind == "count":
                    bulk = Bulk(int(row[0]) if row else 0)
                elif kind == "exists":
                    bulk = Bulk(1 if row else 0)
                attributes = {"query": kind}
                records.append(
                    self._record(reading, bulk=bulk, completeness=completeness, attributes=attributes)
                )
            except faults() as error:
                self._failures.report("read", error, what=reading.label)
                records += self._least(reading, bulk)
        self._logger.emit(*records, at=self._at)

    def _least(self, reading: Reading, bulk: Bulk | None) -> list[AuditRecord]:
        """Make a record of what cannot fail again: neither keys nor the context the rows were read in."""
        own = self._at
        self._at = own.without_context()
        try:
            return [
                self._record(
                    reading, bulk=bulk, completeness="count" if bulk else "statement", truncated=True
                )
            ]
        except faults() as error:
            self._failures.report("read", error, what=reading.label, lost=1)
            return []
        finally:
            self._at = own

    def _objects(self, tally: Tally) -> Made:
        keys = list(tally.keys)
        if tally.complete and len(keys) == 1:
            return self._quickly(tally.reading, keys[0]) or self._record(tally.reading, key=keys[0])
        bulk = Bulk(tally.count, keys)
        if not tally.complete:
            return self._record(tally.reading, bulk=bulk, completeness="count")
        return self._quickly(tally.reading, "", bulk) or self._record(tally.reading, bulk=bulk)

    def _quickly(self, reading: Reading, key: str, bulk: Bulk | None = None) -> Made | None:
        """Make the record of what was read in the quick way; None if anything in it is unusual."""
        lone = self._logger.lone_records()
        if lone is None or any(reading.key_strategies) or len(reading.fields) > MAX_PARTS:
            return None
        try:
            return lone.record(
                f"{reading.event}.read",
                "READ",
                Target(reading.label, key),
                self._table(reading),
                None,
                self._at,
                [],
                {},
                [],
                _NO_STRATEGIES,
                reading.fields,
                bulk,
            )
        except faults():  # whatever it is, the general way says so
            return None

    def _table(self, reading: Reading) -> Database:
        where = self._database
        return Database(where.system, where.namespace, reading.table, "", "", where.address, where.port)

    def _record(self, reading: Reading, *, key: str = "", **values: Any) -> AuditRecord:
        return self._logger.record(
            f"{reading.event}.read",
            "READ",
            at=self._at,
            target=Target(reading.label, key),
            fields=reading.fields,
            database=self._table(reading),
            key_strategies=reading.key_strategies,
            **values,
        )
