"""Rows that an UPDATE or DELETE names by their keys, and what they held before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from otel_audit.audit_record import OldValues
from otel_audit.instrumentation.sqlalchemy.writes.stored.loaded import old_columns

if TYPE_CHECKING:
    from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan
    from otel_audit.instrumentation.sqlalchemy.writes.running import Running


class KnownRows:
    """Rows named by their keys.

    Attributes:
        keys: the parts of their keys, frozen, a list of each column.
        old: their old values, a list of each field; None where nobody knows them.
        there: the rows that were found locked in the table, None if nobody looked.
        flushed: a session's flush writes them, so that its objects know of it.
    """

    __slots__ = ("_parts", "flushed", "keys", "old", "old_values", "there")

    def __init__(self, keys: list[list[Any]], *, flushed: bool) -> None:
        self.keys = keys
        self.old: list[list[Any]] | None = None
        self.old_values: OldValues | None = None
        self.there: list[int] | None = None
        self.flushed = flushed
        self._parts: list[tuple[Any, ...]] | None = None

    def __len__(self) -> int:
        return len(self.keys[0])

    @property
    def parts(self) -> list[tuple[Any, ...]]:
        """The parts of each key, frozen."""
        if self._parts is None:
            self._parts = list(zip(*self.keys, strict=True))
        return self._parts

    def key(self, place: int) -> Any:
        """Return the key of one row: the value, or a tuple of a composite key."""
        parts = [column[place] for column in self.keys]
        return parts[0] if len(parts) == 1 else tuple(parts)

    def row(self, place: int) -> list[Any]:
        """Return the old values of one row."""
        return [column[place] for column in self.old or ()]

    def at(self, places: list[int], columns: Iterable[list[Any]]) -> list[list[Any]]:
        """Return what columns of all rows hold at some places."""
        if len(places) == len(self):
            return list(columns)
        return [[column[place] for place in places] for column in columns]

    def written(self, running: Running) -> list[int] | None:
        """Return which of the rows were written; None where that is not known."""
        if self.there is not None:
            if running.count is None or running.count == len(self.there):
                return self.there
            return None
        if running.count == len(self):
            return list(range(len(self)))
        return None


def counts_rows(running: Running, found: int) -> bool:
    """Say whether the rows found before are those that were written, as far as their number tells."""
    return running.count is None or running.count == found


def known_rows(running: Running, names: Sequence[str], fields: Sequence[ColumnPlan]) -> KnownRows:
    """Find out what rows named by key hold before they are written."""
    plan, state = running.shape.plan, running.state
    columns = list(map(running.given, names))
    given = list(zip(*columns, strict=True))
    frozen = [field.frozen_all(column) for field, column in zip(plan.keys, columns, strict=True)]
    session = state.flushing_session()
    known = KnownRows(frozen, flushed=session is not None)
    counted = len(given) == 1 or _counts_many(running)
    if counted and (plan.old_values == "off" or not fields):
        return known
    if (
        counted
        and session is not None
        and plan.old_values == "as_loaded"
        and plan.table not in state.doubtful
    ):
        old = old_columns(plan, session, running.connection.engine, given, fields)
        if old is not None:
            known.old, known.old_values = old, "as_loaded"
            return known
    _ask(running, known, given, fields if plan.old_values != "off" else ())
    return known


def _ask(
    running: Running, known: KnownRows, given: Sequence[tuple[Any, ...]], fields: Sequence[ColumnPlan]
) -> None:
    """Read the rows, locked."""
    if len(given) > running.section.max_bulk_rows:
        return
    found = running.reader().by_keys(given, fields)
    if found is None:
        return
    known.there = [place for place, part in enumerate(known.parts) if part in found]
    if running.shape.plan.old_values != "off":
        unknown: list[Any] = [None] * len(fields)
        rows = [found.get(part, unknown) for part in known.parts]
        known.old = list(map(list, zip(*rows, strict=True)))
        known.old_values = "as_loaded" if running.state.alone else "exact"


def _counts_many(running: Running) -> bool:
    """Say whether the driver counts the rows of many sets of parameters (asyncpg does not)."""
    dialect = running.connection.dialect
    return bool(dialect.supports_sane_multi_rowcount) or dialect.driver != "asyncpg"
