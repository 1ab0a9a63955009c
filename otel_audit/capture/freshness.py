"""What an instance was loaded with, and when that may still be believed to be what the row holds.

``Model.from_db`` hands out the row; keeping it by reference makes it the old value of a later save. It goes
stale: another instance or a bulk update writes the row, a rollback takes back what the instance took for
written, the instance gets another key. :class:`Freshness` knows what was written in this process and refuses
such values; what other processes wrote it cannot know, hence ``as_loaded``.
"""

from __future__ import annotations

import threading
from itertools import count
from typing import Any, Final

import msgspec

from otel_audit.instrumentation.django.plan import ModelPlan

STATE_KEY: Final = "_otel_audit"
"""Where a :class:`Loaded` stands in ``instance._state``."""

_MAX_RECENT: Final = 4096
_NEVER: Final = float("inf")


class Epoch:
    """A span of time of one thread without a rollback."""

    __slots__ = ()


class ThreadState(threading.local):
    """What one thread is doing.

    ``saving`` is the instance whose UPDATE comes next (instance, key,
    model), ``loaded`` collects what
    ``refresh_from_db`` loads, ``internal`` counts blocks of Django's own transaction handling, ``suppressed``
    blocks in which nothing is captured, ``executed`` statements sent,
    ``runs`` captured ones.
    """

    def __init__(self) -> None:
        self.epoch = Epoch()
        self.identity = object()
        self.saving: tuple[Any, Any, Any] | None = None
        self.loaded: list[Loaded] | None = None
        self.executed = 0
        self.runs = 0
        self.internal = 0
        self.suppressed = 0


class Loaded(msgspec.Struct, gc=False, eq=False):
    """The values an instance was loaded or written with.

    ``values`` is the row in the order of ``names`` until :meth:`by_name` makes it a dict. A pickle of an
    instance carries ``False`` in its place, so that it can be read without this package.
    """

    names: Any
    values: Any
    epoch: Epoch
    seq: int

    def by_name(self) -> dict[str, Any]:
        """Give the values by attname; the dict must not be changed."""
        values: Any = self.values
        if self.names is not None:
            values = self.values = dict(zip(self.names, values, strict=True))
            self.names = None
        return values  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[Any, ...]:
        return bool, ()

    def __copy__(self) -> Loaded:
        return self

    def __deepcopy__(self, memo: Any) -> Loaded:
        return self


class Mark:
    """One transaction, as others see it: when it was committed, in the count of writes."""

    __slots__ = ("committed", "owner")

    def __init__(self, owner: object, committed: float = _NEVER) -> None:
        self.owner = owner
        self.committed = committed


COMMITTED: Final = Mark(None, 0)
"""The mark of statements that commit by themselves."""


class _Recent:
    """What was written lately to one table: key to (count of writes, transaction)."""

    __slots__ = ("floor", "keys")

    def __init__(self) -> None:
        self.keys: dict[Any, tuple[int, Mark]] = {}
        self.floor: tuple[int, Mark] | None = None


class Freshness:
    """The count of writes of this process and the rows they went to, per database and table; bounded."""

    def __init__(self) -> None:
        self._count = count(1).__next__
        self.now = 0
        self._tables: dict[tuple[str, str], _Recent] = {}

    def _table(self, alias: str, plan: ModelPlan) -> _Recent:
        key = (alias, plan.table)
        table = self._tables.get(key)
        return self._tables.setdefault(key, _Recent()) if table is None else table

    def tick(self) -> int:
        """Count one write or commit."""
        # Two threads may store out of order; then `now` is too low and a later load is doubted, never
        # believed wrongly.
        self.now = seq = self._count()
        return seq

    def wrote(self, alias: str, plan: ModelPlan, key: Any, mark: Mark) -> int:
        """Note that the row was written; give the count of the write."""
        seq = self.tick()
        table = self._table(alias, plan)
        if len(table.keys) >= _MAX_RECENT:
            table.keys = {}
            table.floor = (seq, mark)
        try:
            table.keys[key] = (seq, mark)
        except TypeError:  # a key that cannot be hashed
            table.floor = (seq, mark)
        return seq

    def wrote_many(self, alias: str, plan: ModelPlan, keys: list[Any] | None, mark: Mark) -> None:
        """Note that these rows, or rows not known, were written."""
        if keys is None or len(keys) > _MAX_RECENT // 4:
            self._table(alias, plan).floor = (self.tick(), mark)
            return
        seq = self.tick()
        table = self._table(alias, plan)
        if len(table.keys) + len(keys) > _MAX_RECENT:
            table.keys = {}
            table.floor = (seq, mark)
        try:
            table.keys.update(dict.fromkeys(keys, (seq, mark)))
        except TypeError:  # keys that cannot be hashed
            table.floor = (seq, mark)

    def current(self, alias: str, plan: ModelPlan, key: Any, loaded: Loaded, thread: ThreadState) -> bool:
        """Say whether ``loaded`` is younger than every write known to its row."""
        if loaded.epoch is not thread.epoch:
            return False
        table = self._tables.get((alias, plan.table))
        if table is None:
            return True
        seq = loaded.seq
        try:
            last = table.keys.get(key)
        except TypeError:
            return False
        return _after(seq, last, thread.identity) and _after(seq, table.floor, thread.identity)


def _after(seq: int, write: tuple[int, Mark] | None, identity: object) -> bool:
    # A thread sees its own writes at once, those of others when they are committed.
    if write is None:
        return True
    written, mark = write
    return seq >= written and (mark.owner is identity or mark.committed <= seq)
