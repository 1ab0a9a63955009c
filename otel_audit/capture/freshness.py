"""What was written lately, and whether values an application has loaded may still be trusted as old values.

They go stale: another object or a bulk statement writes the row, a rollback takes back what was taken for
written. :class:`Freshness` knows what was written in this process and refuses such values; what other
processes wrote it cannot know, hence ``as_loaded``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, Final, Protocol

_MAX_RECENT: Final = 4096
_NEVER: Final = float("inf")


class Epoch:
    """A span of time of one reader without a rollback."""

    __slots__ = ()


class Reader(Protocol):
    """Whoever reads and writes rows through one connection, and sees its own uncommitted writes.

    ``epoch`` is replaced at every rollback: what was loaded before it is not trusted afterwards.
    """

    epoch: Epoch
    identity: object


class OneConnection:
    """The reader of a library whose connections are not bound to threads: the connection itself."""

    __slots__ = ("epoch", "identity")

    def __init__(self) -> None:
        self.epoch = Epoch()
        self.identity: object = self


class Seen(Protocol):
    """Values of a row, as they were at a count of writes within an epoch of their reader."""

    @property
    def epoch(self) -> Epoch: ...

    @property
    def seq(self) -> int: ...


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

    def _table(self, database: str, table_name: str) -> _Recent:
        key = (database, table_name)
        table = self._tables.get(key)
        return self._tables.setdefault(key, _Recent()) if table is None else table

    def tick(self) -> int:
        """Count one write or commit."""
        # Two threads may store out of order; then `now` is too low and a later load is doubted, never
        # believed wrongly.
        self.now = seq = self._count()
        return seq

    def wrote(self, database: str, table_name: str, key: Any, mark: Mark) -> int:
        """Note that the row was written; give the count of the write."""
        seq = self.tick()
        table = self._table(database, table_name)
        if len(table.keys) >= _MAX_RECENT:
            table.keys = {}
            table.floor = (seq, mark)
        try:
            table.keys[key] = (seq, mark)
        except TypeError:  # a key that cannot be hashed
            table.floor = (seq, mark)
        return seq

    def wrote_many(self, database: str, table_name: str, keys: Sequence[Any] | None, mark: Mark) -> None:
        """Note that these rows, or rows not known, were written."""
        if keys is None or len(keys) > _MAX_RECENT // 4:
            self._table(database, table_name).floor = (self.tick(), mark)
            return
        seq = self.tick()
        table = self._table(database, table_name)
        if len(table.keys) + len(keys) > _MAX_RECENT:
            table.keys = {}
            table.floor = (seq, mark)
        try:
            table.keys.update(dict.fromkeys(keys, (seq, mark)))
        except TypeError:  # keys that cannot be hashed
            table.floor = (seq, mark)

    def current(self, database: str, table_name: str, key: Any, seen: Seen, reader: Reader) -> bool:
        """Say whether ``seen`` is younger than every write known to its row."""
        if seen.epoch is not reader.epoch:
            return False
        table = self._tables.get((database, table_name))
        if table is None:
            return True
        seq = seen.seq
        try:
            last = table.keys.get(key)
        except TypeError:
            return False
        return _after(seq, last, reader.identity) and _after(seq, table.floor, reader.identity)


def _after(seq: int, write: tuple[int, Mark] | None, identity: object) -> bool:
    # A reader sees its own writes at once, those of others when they are committed.
    if write is None:
        return True
    written, mark = write
    return seq >= written and (mark.owner is identity or mark.committed <= seq)
