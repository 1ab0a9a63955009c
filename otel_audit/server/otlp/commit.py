"""Group commit: rows of many requests in one insert.

Each request is told when its rows are durable and visible. While one group is being written the next one
gathers, so the groups grow with the load. A group of few records goes to the journal
(:mod:`otel_audit.server.otlp.journal`). Where it cannot, senders that wait for an answer before they send
more would come in two groups that take turns: so such a group waits a moment for those who were there last
time.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from otel_audit.errors import StoreError
from otel_audit.server.otlp.inserts import insert_rows, together
from otel_audit.server.otlp.journal import FEW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_audit.server.engine.engine import Connection, Engine
    from otel_audit.server.otlp.journal import Journal
    from otel_audit.server.otlp.rows import Rows

_logger: Final = logging.getLogger(__name__)
_GROUP_ROWS: Final = 16_384
_GROUP_BYTES: Final = 32 * 1024 * 1024
_FEW_ROWS: Final = 4096
_LINGER: Final = 0.008
"""Seconds a group of few rows waits for the senders of the last one; a fraction of what an insert takes."""
_SPARE_ROWS: Final = 2_048
"""From this many waiting rows on a second insert beside the running one pays: an insert costs tens of
milliseconds however few rows it has, and the engine writes one in one thread."""


class Busy(StoreError):
    """Too much is waiting to be written; the sender should come back in a moment."""


class Backlog:
    """Bytes of requests that are arriving or were taken in and are not answered yet, bounded."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """How many bytes are held now."""
        return self._held

    @contextmanager
    def hold(self, size: int = 0) -> Iterator[Held]:
        """Count the bytes of a request while it arrives and is worked on: ``size``, and what it grows by.

        Raises:
            Busy: there is no room. One request alone always has room.
        """
        held = Held(self)
        try:
            held.grow(size)
            yield held
        finally:
            held.release()

    def _change(self, own: int, size: int) -> None:
        with self._lock:
            if size > 0 and self._held > own and self._held + size > self.limit:
                raise Busy(f"{self._held} bytes are waiting to be written, and the limit is {self.limit}")
            self._held += size


class Held:
    """What one request holds of a backlog; for one thread at a time."""

    __slots__ = ("_backlog", "size")

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog
        self.size = 0

    def grow(self, size: int) -> None:
        """Hold more bytes.

        Raises:
            Busy: there is no room for them beside other requests.
        """
        self._backlog._change(self.size, size)
        self.size += size

    def release(self) -> None:
        """Hold nothing any more."""
        self._backlog._change(self.size, -self.size)
        self.size = 0


class Awaited:
    """Lets coroutines of the running loop wait for other threads; many that finish wake the loop once.

    ``asyncio.wrap_future`` wakes it for each. The thread that writes would hand the interpreter over with
    each request of its group, and begin the next group that much later.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._finished: deque[tuple[asyncio.Future[None], Future[None]]] = deque()
        self._woken = False

    async def done(self, written: Future[None]) -> None:
        """Return when a future is done; raise what it has raised."""
        waiter = self.loop.create_future()
        written.add_done_callback(lambda each: self._finish(waiter, each))
        await waiter

    def _finish(self, waiter: asyncio.Future[None], written: Future[None]) -> None:
        self._finished.append((waiter, written))
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self.loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._woken = False  # before it looks: what comes later wakes it again
        while self._finished:
            waiter, written = self._finished.popleft()
            if waiter.done():  # cancelled: the sender went away
                continue
            if (error := written.exception()) is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)


class Committer:
    """Two threads that write rows, each group to one table; the second one only when many wait.

    A group of few rows goes to the ``journal``, if there is one.
    """

    def __init__(self, engine: Engine, database: str, name: str, journal: Journal | None = None) -> None:
        self._engine = engine
        self._database = database
        self._journal = journal
        self._waiting: deque[tuple[Rows, Future[None]]] = deque()
        self._rows = 0
        self._wake = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, args=(least,), name=f"commit-{name}-{least}", daemon=True)
            for least in (1, _SPARE_ROWS)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether rows are still being written."""
        return all(thread.is_alive() for thread in self._threads)

    def submit(self, rows: Rows) -> Future[None]:
        """Queue rows; the future ends when they are durable and visible, or with a ``StoreError``."""
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # a sender that goes away must not stop the writing of a group
        if not rows.size:
            future.set_result(None)
            return future
        with self._wake:
            if self._closed:
                raise Busy("the server is stopping")
            self._waiting.append((rows, future))
            self._rows += rows.size
            self._wake.notify_all()
        return future

    def close(self) -> None:
        """Write all that was accepted, then stop."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self, least: int) -> None:
        with self._engine.connection() as connection:
            connection.prepare_inserts()
            senders = 0
            while (group := self._next(least, senders)) is not None:
                self._write(connection, group)
                # Those just answered and those who came meanwhile: so many may send at once.
                senders = len(group) + len(self._waiting)

    def _next(self, least: int, senders: int) -> list[tuple[Rows, Future[None]]] | None:
        """Wait for the next group; None when the server is stopping and nothing is left."""
        with self._wake:
            while True:
                while self._rows < least and not self._closed:
                    self._wake.wait()
                self._linger(senders)
                if self._waiting or self._closed:
                    break  # otherwise the other thread has taken all in the meantime
            if not self._waiting:
                return None
            group: list[tuple[Rows, Future[None]]] = []
            others: list[tuple[Rows, Future[None]]] = []
            count = size = 0
            while self._waiting and (not group or (count < _GROUP_ROWS and size < _GROUP_BYTES)):
                rows, future = self._waiting.popleft()
                if group and together(rows) != together(group[0][0]):
                    others.append((rows, future))
                    continue
                group.append((rows, future))
                count += rows.size
                size += len(rows.block)
            self._waiting.extendleft(reversed(others))
            self._rows -= count
            return group

    def _linger(self, senders: int) -> None:
        if self._journal is not None and self._rows <= FEW:
            return  # to put it on the disk takes less than to wait for others
        until = time.monotonic() + _LINGER
        while len(self._waiting) < senders and self._rows < _FEW_ROWS and not self._closed:
            left = until - time.monotonic()
            if left <= 0 or not self._wake.wait(left):
                return

    def _write(self, connection: Connection, group: list[tuple[Rows, Future[None]]]) -> None:
        try:
            if self._journal is None or not self._journal.take([rows for rows, _ in group]):
                insert_rows(connection, self._database, [rows for rows, _ in group])
                if self._journal is not None:
                    self._journal.passed()
        except Exception as error:  # noqa: BLE001 - whatever it is, the senders must hear of it
            if len(group) > 1:  # one request must not fail for another's rows
                _logger.warning(
                    "a group of %d requests was not written (%s); writing each of them separately",
                    len(group),
                    error,
                )
                for one in group:
                    self._write(connection, [one])
                return
            _logger.error("a request of %d rows was not written: %s", group[0][0].size, error)
            group[0][1].set_exception(
                error if isinstance(error, StoreError) else StoreError(f"rows were not written: {error}")
            )
            return
        for _, future in group:
            future.set_result(None)
