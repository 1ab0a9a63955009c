"""The rows of one table that go or change with those of a statement, until what became of them is noted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from otel_audit.capture.bulk import BulkWrite, ReturnedRows, limited
from otel_audit.capture.plan import Verb
from otel_audit.capture.statement import Statement
from otel_audit.capture.writes import CapturedWrite
from otel_audit.instrumentation.sqlalchemy.columns import ColumnPlan
from otel_audit.instrumentation.sqlalchemy.plan import MappedPlan
from otel_audit.instrumentation.sqlalchemy.tables import translated

if TYPE_CHECKING:
    from otel_audit.audit_record import OldValues
    from otel_audit.instrumentation.sqlalchemy.writes.running import Running
    from otel_audit.instrumentation.sqlalchemy.writes.stored.rows import Reader

Key = tuple[Any, ...]
UNKNOWN: Final[Any] = object()


class Moves:
    """The parts of keys that a statement, and what follows from it, changes: by table, key and field.

    Where a value is not known, or two rules do not agree about it, it is :data:`UNKNOWN`.
    """

    def __init__(self) -> None:
        self._moves: dict[MappedPlan, dict[Key, dict[ColumnPlan, Any]]] = defaultdict(dict)

    def add(self, plan: MappedPlan, key: Key, values: Mapping[ColumnPlan, Any]) -> None:
        """Note the new values of a row; those that are no part of its key count for nothing."""
        parts = {field: value for field, value in values.items() if field in plan.keys}
        if not parts:
            return
        known = self._moves[plan].setdefault(key, {})
        for field, value in parts.items():
            known[field] = value if known.get(field, value) == value else UNKNOWN

    def concern(self, plan: MappedPlan, keys: Iterable[Key]) -> bool:
        """Say whether any of these rows has another key afterwards."""
        moves = self._moves.get(plan)
        return moves is not None and not moves.keys().isdisjoint(keys)

    def now(self, plan: MappedPlan, key: Key) -> Key:
        """Return the key that a row has afterwards."""
        values = self._moves.get(plan, {}).get(key)
        if not values:
            return key
        return tuple([values.get(field, part) for field, part in zip(plan.keys, key, strict=True)])


class Group:
    """The rows of one table that go, or change, with those of the statement.

    Attributes:
        fields: those whose values are recorded, then those that lead on to other tables.
        told: how many are recorded.
        moving: the parts of the key that rules set.
        rows: the key, then old values of ``fields``, by key; None where they are not known.
    """

    def __init__(
        self,
        running: Running,
        plan: MappedPlan,
        verb: Verb,
        told: Sequence[ColumnPlan],
        more: Sequence[ColumnPlan] = (),
        moving: Sequence[ColumnPlan] = (),
    ) -> None:
        self.plan = plan
        self.verb: Verb = verb
        self.fields = [*told, *(field for field in dict.fromkeys(more) if field not in told)]
        self.told = len(told)
        self.moving = list(moving)
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

    def writes(self, running: Running, moves: Moves) -> list[CapturedWrite]:
        """Return what became of the rows."""
        state = running.state
        self._aim(running)
        if self.rows is None:
            state.doubtful.add(self.plan.table)
            return [CapturedWrite(self.plan, self.verb, state)]
        if not self.rows:
            return []
        updates = self.verb == "update"
        moves_keys = updates and moves.concern(self.plan, self.rows)
        rows = self._moved(running, moves) if moves_keys else self._same(running)
        if rows is None:
            self.rows = None
            return self.writes(running, moves)
        if not rows:
            return []
        fields = [*(self.moving if moves_keys else ()), *self.fields[: self.told]]
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

    def _same(self, running: Running) -> list[Key] | None:
        """Return the rows that are gone or changed, whose keys stay; None where they cannot be asked."""
        fields, updates = self.fields[: self.told], self.verb == "update"
        now = self.reader(running).by_keys(list(self.rows or ()), fields if updates else (), lock=False)
        if now is None:
            return None
        return list(self._changed(now, fields) if updates else self._gone(now))

    def _moved(self, running: Running, moves: Moves) -> list[Key] | None:
        """Return the rows that have changed, by the keys they had; None if one of them cannot be found."""
        plan, before = self.plan, self.rows or {}
        keys = {key: moves.now(plan, key) for key in before}
        if any(UNKNOWN in key for key in keys.values()):
            return None
        fields = self.fields[: self.told]
        taken = set(keys.values())
        now = self.reader(running).by_keys(list(dict.fromkeys([*taken, *keys])), fields, lock=False)
        if now is None:
            return None
        places = [plan.keys.index(field) for field in self.moving]
        start, rows = len(plan.keys), []
        for key, row in before.items():
            left = key in now and key not in taken  # the database has not followed
            there = key if left else keys[key]
            if there not in now:
                return None
            old = [*[key[place] for place in places], *row[start : start + self.told]]
            new = [*[there[place] for place in places], *now[there]]
            if not all(
                field.equal(was, is_)
                for field, was, is_ in zip([*self.moving, *fields], old, new, strict=True)
            ):
                rows.append((*key, *old, *new))
        return rows

    def _gone(self, now: Mapping[Key, Any]) -> Iterator[Key]:
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
