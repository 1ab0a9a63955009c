"""Keep the tables small: rows of a former version rewritten, past partitions merged into one part each.

A question opens each part, so many small ones cost more than one large one. While rows arrive, the engine
merges only parts of about the same size, which is cheap; the rest it leaves for days, counted from its start.
So we look what is there, and let it merge what is worth it and within its limit.
"""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Iterable
from typing import Final

from otel_audit.named_tuples import NamedTuple
from otel_audit.server.engine.engine import Connection, Engine, EngineError, quoted
from otel_audit.store.layout import Layout
from otel_audit.store.rewriting import Former, rewrite

_logger: Final = logging.getLogger(__name__)
_FIRST: Final = 60.0
_EVERY: Final = 600.0
"""Seconds from the start to the first look, and from one to the next."""
_QUIET: Final = range(1, 5)
"""The hours of the day, local time, in which there is time to merge."""
_OVERDUE: Final = datetime.timedelta(days=2)
"""Since the last change of a past partition: then any hour will do, as many machines are off at night."""
_NICE: Final = 10
_MONTH: Final = len("YYYYMM")


class Partition(NamedTuple):
    """A partition of a table with several parts: its id (``YYYYMM`` or ``YYYYMMDD``), bytes, last change."""

    table: str
    id: str
    bytes: int
    largest: int
    """Bytes of its largest part."""
    changed: datetime.datetime

    @property
    def rest(self) -> int:
        """Bytes beside the largest part."""
        return self.bytes - self.largest


def due(partitions: Iterable[Partition], now: datetime.datetime, most: int) -> list[Partition]:
    """Say which partitions to merge now, the largest rest first.

    A past partition, unless next to nothing came in late; and in quiet hours that of this month if at least
    half as much came in as there is in its largest part, so that no row is rewritten many times.

    Args:
        partitions: what there is.
        now: the time here, with its zone.
        most: bytes of the largest partition to merge.
    """
    quiet = now.hour in _QUIET
    today = now.astimezone(datetime.UTC).strftime("%Y%m%d")
    found = []
    for each in partitions:
        if each.bytes > most or not each.id.isdigit():
            continue
        if each.id < today[: len(each.id)]:
            wanted = each.rest * 16 >= each.largest and (quiet or now - each.changed >= _OVERDUE)
        else:
            wanted = each.rest * 2 >= each.largest and quiet and len(each.id) == _MONTH
        if wanted:
            found.append(each)
    return sorted(found, key=lambda each: each.rest, reverse=True)


class Upkeep:
    """A thread that rewrites and merges what is due, one partition at a time, until :meth:`close`."""

    def __init__(self, engine: Engine, database: str) -> None:
        self._engine = engine
        self._database = database
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Stop; a merge that runs is given up, and begins anew another time, as does a rewriting."""
        self._stop.set()
        if not self._thread.is_alive():
            return
        with self._engine.connection() as connection:
            connection.query("SYSTEM STOP MERGES")
        self._thread.join()

    def _run(self) -> None:
        wait = _FIRST
        rewritten = False  # then all is written in the form of this version: there is nothing to look for
        while not self._stop.wait(wait):
            try:
                rewritten = rewritten or self.rewrite()
            except Exception:  # its rows are as good as they were
                _logger.warning("rows of a former version were not rewritten", exc_info=True)
            try:
                self.merge(datetime.datetime.now().astimezone())
            except Exception:  # the store works without
                _logger.warning("past partitions were not merged", exc_info=True)
            wait = _EVERY

    def rewrite(self) -> bool:
        """Rewrite rows of former versions, a partition at a time; return whether none is left."""

        def begun(each: Former) -> None:
            _logger.info("rewriting partition %s of %s: %d rows", each.partition, each.table, each.rows)

        with self._engine.connection() as connection:
            return rewrite(connection.rows, Layout(self._database), begun=begun, stopped=self._stop.wait)

    def merge(self, now: datetime.datetime) -> list[Partition]:
        """Merge what is due at ``now``; return what was merged."""
        merged: list[Partition] = []
        with self._engine.connection() as connection:
            connection.query(f"SET os_threads_nice_value_query = {_NICE}")
            for each in due(self._partitions(connection), now, self._engine.largest_merge):
                if self._stop.is_set():
                    break
                name = f"{quoted(self._database)}.{quoted(each.table)}"
                try:
                    connection.query(f"OPTIMIZE TABLE {name} PARTITION ID '{each.id}' FINAL")
                except EngineError as error:
                    if not self._stop.is_set():
                        _logger.warning("partition %s of %s was not merged: %s", each.id, each.table, error)
                    continue
                merged.append(each)
        return merged

    def _partitions(self, connection: Connection) -> list[Partition]:
        rows = connection.rows(
            "SELECT table, partition_id, sum(bytes_on_disk), max(bytes_on_disk), "
            "toUnixTimestamp(max(modification_time)) FROM system.parts "
            f"WHERE active AND database = '{self._database}' GROUP BY table, partition_id HAVING count() > 1"
        )
        return [
            Partition(
                str(table),
                str(name),
                int(size),
                int(largest),
                datetime.datetime.fromtimestamp(int(changed), datetime.UTC),
            )
            for table, name, size, largest, changed in rows
        ]
