"""The writing side of the spool: one process, one incarnation, one ``os.write`` for each batch.

When :meth:`SpoolWriter.append` returns, the bytes are with the operating system (``fsync = never``) or on the
disk (``always``). When they cannot be, it waits ``block_timeout`` for room and raises SpoolError; nothing
half-written stays behind, and the next write tries anew.

A spool may be removed, renamed or mounted over while it is written to, and the open file tells nobody. So
its name is looked at before each new segment, every ``_LOOK_EVERY`` bytes and in each of the sender's rounds.
If it is gone, a new incarnation begins with what the sink has not acknowledged of the open segment.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from otel_audit import forks
from otel_audit.audit_record import Outcome
from otel_audit.config.model import SpoolConfig
from otel_audit.errors import SpoolError
from otel_audit.interruptions import interrupts
from otel_audit.pipeline.health import Health
from otel_audit.pipeline.spool import directory as layout
from otel_audit.pipeline.spool import frames, tips
from otel_audit.pipeline.spool.cursor import CursorFile, CursorState, Position

_SMALLEST_ALLOWANCE: Final = 16 * 1024
_HEADER_ROOM: Final = 1024
"""A batch may need a new segment, which begins with a header."""
_RETRY_PAUSE: Final = 0.02
_LOOK_EVERY: Final = 64 * 1024
_TAKEN_AWAY: Final = "it was removed, renamed or mounted over while this process wrote to it"
_WAIT_AT_MOST_EVERY: Final = 1.0
"""A spool that stays full blocks the application once a second at most, not at every record."""

_sync = getattr(os, "fdatasync", os.fsync)


def _nobody_waits() -> None:
    """Stand in for whoever wants to know of writes."""


class SpoolWriter:
    """Appends batches to the segments of this process's incarnation; any thread may call.

    Args:
        config: sizes and policies.
        directory: the spool directory.
        identify: gives what a segment's header says about this process; called at the first write.
        health: counters to keep.
        forked: called in a forked child, after it has begun an incarnation of its own.
        tell_loss: makes the encoded record that says how many records were lost, and why.
    """

    def __init__(
        self,
        config: SpoolConfig,
        directory: Path,
        identify: Callable[[], frames.Identity],
        health: Health,
        forked: Callable[[], None] = lambda: None,
        tell_loss: Callable[[int, str], bytes] | None = None,
    ) -> None:
        self.directory = directory
        self.health = health
        self._identify = identify
        self.written: Callable[[], None] = _nobody_waits
        """Called after each write, outside the lock."""
        self._forked = forked
        self._tell_loss = tell_loss
        self._segment_bytes = max(4096, min(config.segment_bytes, config.max_bytes // 8))
        self._max_bytes = config.max_bytes
        self._block_timeout = config.block_timeout
        self._fsync = config.fsync == "always"
        self._descriptor = -1
        self._handle = 0
        self._begin()
        _writers.add(self)

    def _begin(self) -> None:
        """Begin a new incarnation, here or in a forked child; its files are made at the first write."""
        if self._descriptor >= 0:
            with suppress(OSError):  # who made itself a daemon has closed every file
                os.close(self._descriptor)
        self._created = time.time_ns()
        # Reentrant, because a signal handler or a finalizer may emit while this thread holds it.
        self._mutex = threading.RLock()
        self._sync_mutex = threading.Lock()
        self._descriptor = -1
        self._number = 0
        self._offset = 0
        self._before = 0
        self._written_total = 0
        self._synced_total = 0
        self._unsynced_total = 0
        self._room = 0
        self._measured = 0
        self._no_wait_before = 0.0
        # Handles go on: a child that is asked to settle its parent's must not take it for one of its own.
        self._open: dict[int, int] = {}
        self._deferred: list[bytes] = []
        self._deferred_records = 0
        self._identity: frames.Identity | None = None
        self._tip_files: list[Path] = []
        self._closed = False
        self._segment: layout.FileIdentity = (0, 0)
        self.lock: layout.Lock | None = None
        self.left: list[layout.Lock] = []
        """Incarnations left behind by :meth:`look_after`: the sender ships what is still there."""
        self.acknowledged = Position()
        """How far the sink has acknowledged this incarnation; the sender keeps it up to date."""
        self.committed: tuple[int, int] = (0, 0)
        """Segment number and offset up to which whole batches stand; readers stop here."""

    def begin_in_child(self) -> None:
        """Forget what a fork inherited: the parent goes on with it."""
        self._begin()
        self.health.reset()
        self._forked()

    # --- what the logger calls ---------------------------------------------------------------

    def append(self, payloads: Sequence[bytes]) -> None:
        """Write encoded records that are settled already, in one batch.

        Raises:
            SpoolError: they were not written.
        """
        forks.check()
        self._write(b"".join([frames.frame(frames.RECORD, payload) for payload in payloads]))
        self.health.emitted += len(payloads)

    def intend(self, payloads: Sequence[bytes]) -> int:
        """Write encoded records whose outcome is not known yet; gives the handle to :meth:`settle` them with.

        Raises:
            SpoolError: they were not written.
        """
        forks.check()
        handle = 0
        try:
            with self._mutex:
                handle = self._handle = self._handle + 1
                self._open[handle] = len(payloads)
            chunks = frames.intent(frames.INTENT, handle, payloads)
            self._write(chunks[0] if len(chunks) == 1 else b"".join(chunks))
            return handle
        except SpoolError:
            self._open.pop(handle, None)
            raise
        except BaseException:  # it may be written, and nobody will settle it
            with suppress(SpoolError):
                self.settle(handle, "failure", [])
            raise

    def settle(self, handle: int, outcome: Outcome, payloads: Sequence[bytes] | None = None) -> None:
        """Write the marker of an intent; ``payloads``: ship these instead of what was intended.

        A marker that cannot be written is kept and written before anything else once there is room. An intent
        is settled once: to call this again after an interruption is safe.

        Raises:
            SpoolError: it could not be written yet.
        """
        forks.check()
        count = self._open.get(handle)
        if count is None:  # of the parent, before a fork; the parent settles it
            return
        data = frames.marker(handle, outcome, replaced=payloads is not None)
        if payloads is not None:
            count = len(payloads)
            data = b"".join([*frames.intent(frames.REPLACEMENT, handle, payloads), data])
        try:
            self._write(data, settles=handle)
        except SpoolError:
            with self._mutex:
                self._deferred.append(data)
                self._deferred_records += count
                self._open.pop(handle, None)
            raise
        finally:
            if handle not in self._open:
                self.health.emitted += count

    def write_deferred(self) -> None:
        """Write markers that had to wait; quiet if there is still no room."""
        forks.check()
        if self._deferred and not self._closed:
            with suppress(SpoolError):
                self._write(b"", wait=False)

    @property
    def open_intents(self) -> int:
        """Intents without a marker: transactions being committed just now."""
        return len(self._open) + len(self._deferred)

    @property
    def stopped(self) -> bool:
        """Whether nothing more can be written and every intent has its marker."""
        return self._closed and not self.open_intents

    def rotate(self) -> None:
        """Begin a new segment at the next write, so that this one can go once it is acknowledged."""
        forks.check()
        with self._mutex:
            if self._offset:
                self._close_segment()

    def leave(self, patience: float = -1) -> layout.Lock | None:
        """End the stream here, so that it can be shipped and removed; the next write begins another.

        Return the held lock of what was written, the caller's to release; None if there is nothing, an intent
        is open, or somebody has been writing for ``patience`` seconds (below 0: waits).
        """
        forks.check()
        if not self._mutex.acquire(timeout=patience):
            return None
        try:
            if self._closed or self.lock is None or self.open_intents:
                return None
            with suppress(SpoolError, OSError):  # told to nobody: the one who tells may be waiting for this
                self._write_once(frames.end(time.time_ns()))
            with suppress(OSError):
                self._close_segment()
            lock, self.lock = self.lock, None
            self._identity = None
            self._created = time.time_ns()
            self._number = self._offset = self._before = 0
            self.committed = (0, 0)
            self.acknowledged = Position()
            return lock
        finally:
            self._mutex.release()

    def close(self) -> None:
        """Write the end of the stream, if every intent is settled, and refuse later writes.

        The lock stays until :meth:`release`: the sender may still be shipping.
        """
        forks.check()
        with self._mutex:
            if self._closed:
                return
            self.look_after()
            if self._number and not self.open_intents:
                with suppress(SpoolError):  # an end is good to have; without one the stream counts as open
                    self._write(frames.end(time.time_ns()), wait=False)
            self._closed = True
            self._close_segment()

    def release(self) -> None:
        """Release the lock: what is left may be adopted."""
        self.close()
        if self.lock is not None:
            self.lock.release()
            self.lock = None
        while self.left:
            self.left.pop().release()

    # --- files that were taken away ----------------------------------------------------------

    def look_after(self) -> None:
        """Begin a new incarnation if the files of this one are no longer where they were.

        Not while somebody writes: that is looked after by itself, and may have been interrupted by a signal
        whose handler waits for the sender.
        """
        forks.check()
        if not self._mutex.acquire(blocking=False):
            return
        try:
            if self._closed or self._is_in_place():
                return
            self._leave()
        finally:
            self._mutex.release()
        self.write_deferred()

    def _is_in_place(self) -> bool:
        lock = self.lock
        if lock is None:
            return True
        if self._descriptor >= 0 and not self._segment_is_in_place(lock):
            return False
        return lock.in_place

    def _segment_is_in_place(self, lock: layout.Lock) -> bool:
        return layout.is_at(layout.segment_path(lock.path, self._number), self._segment)

    def _leave(self) -> None:
        """Leave the incarnation; what is worth keeping of its open segment comes first in the next one.

        What waited in its closed segments is lost if the directory is gone: that is logged, counted and
        recorded in the trail.
        """
        lock, health = self.lock, self.health
        assert lock is not None
        rescued, kept = self._rescue(lock)
        self._deferred_records += kept
        lost = 0 if self._is_left_to_others(lock) else max(0, health.depth - self._deferred_records)
        health.own_delivered = health.emitted - self._deferred_records
        reason = f"spool directory {self.directory}: {_TAKEN_AWAY}"
        health.log(
            logging.ERROR,
            "taken away",
            "%s: a new stream starts; records of the previous one taken along: %d, lost: %d",
            reason,
            kept,
            lost,
        )
        if lost:
            health.dropped += lost
            if self._tell_loss is not None:
                rescued += frames.frame(frames.RECORD, self._tell_loss(lost, reason))
                health.emitted += 1
                self._deferred_records += 1
        if rescued:
            self._deferred.insert(0, rescued)
        with suppress(OSError):  # a flush: these bytes are written anew
            self._close_segment()
        self._before = 0
        self.left.append(lock)
        self.lock = None

    def _is_left_to_others(self, lock: layout.Lock) -> bool:
        """Say whether what stands in the stream is there to be adopted."""
        with suppress(OSError):
            return lock.in_place or bool(layout.list_segments(lock.path))
        return True

    def _rescue(self, lock: layout.Lock) -> tuple[bytes, int]:
        """Read from the open segment, which needs no name for that, what the sink has not acknowledged.

        Gives whole frames, and the number of settled records in them; nothing if the segment is still where
        it was and only its lock is gone.
        """
        if self._descriptor < 0 or self._segment_is_in_place(lock):
            return b"", 0
        done = self.acknowledged
        begin = done.low_offset if done.low_segment == self._number else 0
        try:
            return frames.copy_settling(self._descriptor, begin, self._offset)
        except OSError as error:
            self.health.log(logging.ERROR, "rescue", "audit records cannot be read back: %s", error)
            return b"", 0

    # --- writing -----------------------------------------------------------------------------

    def _write(self, data: bytes, *, wait: bool = True, settles: int = 0) -> None:
        try:
            with self._mutex:
                total = self._write_once(data, settles)
        except OSError as error:
            if interrupts(error):  # a handler of SIGALRM may well raise TimeoutError
                raise
            total = self._write_patiently(data, error, wait=wait, settles=settles)
        if self.health.spool_error:
            self.health.spool_recovered()
        if self._fsync:
            self._flush(total)
        self.written()

    def _write_once(self, data: bytes, settles: int = 0) -> int:
        """Write a batch now, the lock held; gives the bytes written by this process so far.

        ``settles``: the intent whose marker it is, open until that is written; no stream ends in between.
        """
        if self._closed:
            raise SpoolError("the audit pipeline is stopped; nothing more can be recorded")
        if (
            len(data) + _HEADER_ROOM > self._room
            or self._deferred
            or self._descriptor < 0
            or self._offset + len(data) > self._segment_bytes
        ):
            data = self._get_ready(data)
        size = len(data)
        offset, total = self._offset, self._written_total + size
        try:
            if self._descriptor < 0 or (offset and offset + size > self._segment_bytes):
                self._open_segment(data)
            else:
                self._write_bytes(self._descriptor, data, offset)
                self._offset, self.committed = offset + size, (self._number, offset + size)
            self._written_total, self._room = total, self._room - size
            if self._deferred:
                self._forget_deferred()
            self._open.pop(settles, None)
        except BaseException as error:
            # Interrupted: what stands in the file is counted, or nobody would read what comes after it.
            if interrupts(error) and self._stands(offset, size):
                self._written_total = total
                self._forget_deferred()
                self._open.pop(settles, None)
            raise
        return total

    def _get_ready(self, data: bytes) -> bytes:
        """See to what must be seen to before a batch is written: files taken away, room in the directory.

        Return the batch, with the markers that waited before it.
        """
        if not self._is_in_place():
            self._leave()
        if self._deferred:
            data = b"".join((*self._deferred, data))
        size = len(data)
        if size + _HEADER_ROOM > self._room:
            self._find_room(size + _HEADER_ROOM)
        return data

    def _forget_deferred(self) -> None:
        self._deferred.clear()
        self._deferred_records = 0

    def _stands(self, offset: int, size: int) -> bool:
        """Say whether a batch interrupted at ``offset`` was written; counted then, else taken away."""
        if self._descriptor < 0:
            return False
        if self._offset != offset:
            return True
        end = os.fstat(self._descriptor).st_size
        if end == offset + size:
            self._offset, self.committed = end, (self._number, end)
            return True
        if end > offset:
            os.ftruncate(self._descriptor, offset)
        return False

    def _write_bytes(self, descriptor: int, data: bytes, offset: int) -> None:
        """Write all of ``data`` at the end of the file or nothing."""
        written = os.write(descriptor, data)
        if written == len(data):
            return
        view = memoryview(data)
        try:
            while written < len(data):
                written += os.write(descriptor, view[written:])
        except OSError:
            try:
                os.ftruncate(descriptor, offset)
            except OSError:
                # What stands there is a torn frame; readers skip it and say so. Go on in another file.
                self._close_segment()
            raise

    def _open_segment(self, data: bytes) -> None:
        self._close_segment()
        if self.lock is None:
            self._begin_incarnation()
        assert self.lock is not None
        assert self._identity is not None
        number = self._number + 1
        identity = msgspec.structs.replace(self._identity, segment=number, before=self._before)
        header = frames.frame(frames.HEADER, frames.encode_identity(identity))
        descriptor = layout.open_segment(self.lock.path, number)
        try:
            self._write_bytes(descriptor, header + data, 0)
            if self._fsync:
                layout.sync_directory(self.lock.path)
            end = len(header) + len(data)
            self._segment = layout.identity_of(descriptor)
            self._descriptor, self._number, self._offset, self.committed = (
                descriptor,
                number,
                end,
                (number, end),
            )
        except BaseException:
            if self._descriptor != descriptor:
                os.close(descriptor)
                layout.segment_path(self.lock.path, number).unlink(missing_ok=True)
            raise
        self._room -= len(header)
        if self._tip_files:  # named by the header now
            tips.forget(self._tip_files)
            self._tip_files = []

    def _begin_incarnation(self) -> None:
        identity = self._identify()
        previous, self._tip_files = tips.find(self.directory, str(identity.resource.get("service.name", "")))
        lock = layout.create_incarnation(self.directory)
        try:
            # Its place on the disk is taken now: a full disk must not keep acknowledged segments from going.
            cursor = CursorFile(lock.path)
            first = self._number + 1
            cursor.save(CursorState(Position(first, 0, 0, first, 0)))
            cursor.close()
        except OSError:
            lock.remove()
            raise
        self._identity = msgspec.structs.replace(
            identity,
            incarnation=lock.path.name,
            created=self._created,
            pid=os.getpid(),
            previous=previous,
        )
        self.lock = lock
        if self._fsync:
            layout.sync_directory(self.directory)

    def _close_segment(self) -> None:
        descriptor = self._descriptor
        if descriptor >= 0:
            self._descriptor, self._before, self._offset, self.committed = (
                -1,
                self._offset,
                0,
                (self._number + 1, 0),
            )
            try:
                if self._fsync:
                    self._sync_closing(descriptor)
            finally:
                os.close(descriptor)

    def _sync_closing(self, descriptor: int) -> None:
        try:
            _sync(descriptor)
            self._synced_total = self._written_total
        except OSError:
            # Nobody can flush these bytes any more: those who wait for them must not be told all is well.
            self._unsynced_total = self._written_total
            raise

    def _find_room(self, size: int) -> None:
        """Allow some more bytes before the files are looked at again; measure the directory now and then."""
        self._measured += max(0, self._room)
        self._room = 0
        if size > self._measured:
            free = self._max_bytes - layout.spooled_bytes(self.directory)
            if size > free:
                self._measured = 0
                raise OSError(
                    f"its segments hold {self._max_bytes - free} of at most {self._max_bytes} bytes "
                    "(spool.max_bytes); the sink must acknowledge some records first"
                )
            self._measured = min(free, max(size, _SMALLEST_ALLOWANCE, min(self._segment_bytes, free // 8)))
        self._room = min(self._measured, max(size, _LOOK_EVERY))
        self._measured -= self._room

    def _write_patiently(self, data: bytes, error: OSError, *, wait: bool, settles: int) -> int:
        """Wait for room, the lock released, and try again until ``block_timeout`` is over."""
        now = time.monotonic()
        deadline = now + self._block_timeout if wait and now >= self._no_wait_before else now
        while time.monotonic() < deadline:
            self.rotate_if_full(error)
            self.written()  # wakes the sender, which makes room
            time.sleep(_RETRY_PAUSE)
            try:
                with self._mutex:
                    return self._write_once(data, settles)
            except OSError as again:
                if interrupts(again):
                    raise
                error = again
        self._no_wait_before = time.monotonic() + _WAIT_AT_MOST_EVERY
        reason = f"spool directory {self.directory}: {error.strerror or error}"
        self.health.spool_failed(reason)
        raise SpoolError(reason) from error

    def rotate_if_full(self, error: OSError) -> None:
        """At the size limit the current segment must be closed, or it could never be deleted."""
        if error.errno is None:
            self.rotate()

    def _flush(self, total: int) -> None:
        """Flush to the disk; threads that wrote meanwhile are served by one flush."""
        with self._sync_mutex:
            if self._synced_total >= total > self._unsynced_total:
                return
            if total <= self._unsynced_total:
                raise SpoolError(f"spool directory {self.directory}: flushing to disk failed")
            with self._mutex:
                descriptor, reached = self._descriptor, self._written_total
                # Closed segments are flushed when they are closed; only the open one is left.
                duplicate = os.dup(descriptor) if descriptor >= 0 else -1
            if duplicate < 0:
                return
            try:
                _sync(duplicate)
            except OSError as error:
                reason = f"spool directory {self.directory}: flushing failed: {error.strerror}"
                self.health.spool_failed(reason)
                raise SpoolError(reason) from error
            finally:
                os.close(duplicate)
            self._synced_total = max(self._synced_total, reached)


_writers: weakref.WeakSet[SpoolWriter] = weakref.WeakSet()


def _begin_in_child() -> None:
    for writer in list(_writers):
        writer.begin_in_child()


forks.after_in_child(_begin_in_child)
