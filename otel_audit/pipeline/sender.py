"""The sender: a thread that ships this process's spool, and the spools of processes that died.

The thread is started by the first record a process writes, so a pre-fork server's parent has none. It never
raises and never gives up; what it cannot deliver stays on disk. It imports HTTP and protobuf itself, so that
neither the start of a process nor its first record has to. ``os.fork`` waits for that; a child forked in C
meanwhile cannot import them any more, and leaves what it records to other processes.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal

from otel_audit import forks
from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import SinkConfig
from otel_audit.errors import ConfigurationError, SpoolError
from otel_audit.interruptions import faults
from otel_audit.pipeline import uwsgi
from otel_audit.pipeline.endpoint import parse_endpoint
from otel_audit.pipeline.health import Health
from otel_audit.pipeline.spool import directory as layout
from otel_audit.pipeline.spool.frames import encode_record
from otel_audit.pipeline.spool.writer import SpoolWriter

if TYPE_CHECKING:
    from otel_audit.pipeline.delivery.rounds import Delivery

_AFTER_ERROR: Final = 5.0
_JOIN: Final = 0.5
_LOOK: Final = 0.5
_LONGEST_IMPORT: Final = 10.0
_PATIENCE: Final = 0.5
"""How long ending a stream waits for a write that is going on."""
_POLL: Final = 0.01

_log = logging.getLogger("otel_audit")


class _ImportGuard:
    """Keeps forks and our imports apart: a child forked meanwhile would wait for ever for their locks."""

    is_broken = False
    """This process was forked in the middle of an import of another thread, which will never end here."""

    def __init__(self) -> None:
        self._importer = self._depth = 0
        self._begin_in_child()
        os.register_at_fork(before=self._hold, after_in_parent=self._let_go)
        forks.after_in_child(self._begin_in_child)

    def _begin_in_child(self) -> None:
        if self._importer not in (0, threading.get_ident()):  # the forking thread keeps its identity
            self.is_broken = True
        self._importer = self._depth = 0
        # Reentrant, because a finalizer may record something in the middle of an import.
        self._mutex = threading.RLock()
        self._held = False

    def _hold(self) -> None:
        self._held = self._mutex.acquire(timeout=_LONGEST_IMPORT)
        if self._held and not self.is_broken:
            # So that not each child has to; whoever sends will hear what is wrong.
            with suppress(Exception), self:
                import otel_audit.pipeline.delivery.rounds  # noqa: F401

    def _let_go(self) -> None:
        if self._held:
            self._held = False
            self._mutex.release()

    def __enter__(self) -> None:
        self._mutex.acquire()
        self._importer = threading.get_ident()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._importer = 0
        self._mutex.release()


_importing: Final = _ImportGuard()


def get_ready() -> None:
    """Import what sending needs: some 70 million instructions and 3 MB, once per process."""
    with _importing:
        import otel_audit.pipeline.delivery.rounds  # noqa: F401


def _must_not_send() -> bool:
    """Say whether this process must have no sender.

    A thread that holds the interpreter while uWSGI forks would leave the child waiting for it indefinitely,
    and so would an import that the fork has cut off.
    """
    return _importing.is_broken or uwsgi.will_fork()


class _Wake:
    """An event that a signal handler may set, whatever it interrupted: ``threading.Event`` takes a lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Let the one who waits, or who waits next, go on."""
        with suppress(RuntimeError):  # it is set already
            self._lock.release()

    def wait(self, timeout: float) -> bool:
        """Wait until it is set and take it back; False if ``timeout`` seconds brought nothing."""
        return self._lock.acquire(timeout=timeout)


class Sender:
    """Ships this process's spool and adopted ones, in a thread of its own.

    Args:
        config: where to and how.
        spool: the writer of this process.
        health: counters to keep.
        started: called when the thread starts, at the first record of a process.

    Raises:
        ConfigurationError: the endpoint is no http(s) address, or the CA file cannot be read.
    """

    def __init__(
        self,
        config: SinkConfig,
        spool: SpoolWriter,
        health: Health,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        parse_endpoint(config)
        self._started = started
        self._config = config
        self._spool = spool
        self._health = health
        self._delivery: Delivery | None = None
        self._begin()

    def _begin(self) -> None:
        self._mutex = threading.RLock()
        self._thread: threading.Thread | None = None
        self._wake = _Wake()
        self._moved = threading.Condition()
        self._awake = False
        self._flushing = 0
        self._stopping = False
        self._has_given_away = False
        self._rest: Literal["", "asked", "left"] = ""
        self._rest_adopts = False

    def begin_in_child(self) -> None:
        """Forget what a fork inherited: thread, connection and adopted streams stay the parent's."""
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            delivery.close()
        self._begin()

    def wake(self) -> None:
        """Say that something was written. Cheap while the sender knows already."""
        if not self._awake:
            self._awake = True
            if _must_not_send():
                self._leave_to_others()
                return
            self._ensure_thread()
            self._wake.set()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the sink has all that this process has settled so far; True if it has.

        Does not wait out a pause between two attempts: the first one is made at once.
        """
        forks.check()
        return self._wait_for(self._spool.committed, timeout, patient=True)

    @property
    def is_running(self) -> bool:
        """Whether the thread runs: this process has recorded something."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def rest(self, timeout: float, *, adopt: bool = False) -> bool:
        """End the stream and wait until the sink has all of it; True if it has.

        The next record begins another stream. Takes no lock, so that a signal handler may call it; where that
        interrupted a write, the stream goes without its end.

        Args:
            timeout: seconds to wait; no longer than somebody answers.
            adopt: wait for the streams of dead processes as well.
        """
        deadline = time.monotonic() + timeout
        unreached = self._unreached
        self._rest_adopts = adopt
        self._rest = "asked"
        if self._delivery is not None:
            self._delivery.hurry()
        self._wake.set()
        while self._is_resting():
            if time.monotonic() >= deadline or not self.is_running or self._unreached > unreached:
                return False
            time.sleep(_POLL)
        return True

    def _is_resting(self) -> bool:
        return self._rest != ""

    def stop(self, timeout: float, *, adopt: bool = False) -> None:
        """Flush for up to ``timeout`` seconds, no longer than somebody answers, and end the thread.

        Args:
            timeout: seconds.
            adopt: ship what dead processes left as well, if there is anything.
        """
        forks.check()
        deadline = time.monotonic() + timeout
        flushed = self._wait_for(self._spool.committed, timeout, patient=False)
        if adopt and flushed and layout.has_dead_streams(self._spool.directory):
            self._ensure_thread()
            self.rest(deadline - time.monotonic(), adopt=True)
        self._stopping = True
        self._wake.set()
        thread, delivery = self._thread, self._delivery
        if thread is not None:
            thread.join(_JOIN)
            if thread.is_alive() and delivery is not None:
                # A request is still on its way. Its answer must not touch what others may adopt now.
                delivery.abandon()

    def _wait_for(self, target: tuple[int, int], timeout: float | None, *, patient: bool) -> bool:
        if target == (0, 0):  # nothing was written, or others ship it
            return not self._has_given_away
        deadline = None if timeout is None else time.monotonic() + timeout
        unreached = self._unreached
        self._flushing += 1
        try:
            self._ensure_thread()
            if self._delivery is not None:
                self._delivery.hurry()
            self._wake.set()
            with self._moved:
                while not self._has_acknowledged(target):
                    rest = _LOOK if deadline is None else deadline - time.monotonic()
                    if rest <= 0 or not self.is_running:
                        return False
                    if not patient and self._unreached > unreached:
                        return False  # nobody is there: the next process will find the rest
                    self._moved.wait(min(rest, _LOOK))
            return True
        finally:
            self._flushing -= 1

    def _has_acknowledged(self, target: tuple[int, int]) -> bool:
        delivery = self._delivery
        return delivery is not None and delivery.has_acknowledged(target)

    @property
    def _unreached(self) -> int:
        delivery = self._delivery
        return 0 if delivery is None else delivery.unreached

    def _leave_to_others(self) -> None:
        """Let other processes ship what this one wrote, such as the workers that it will fork."""
        lock = self._spool.leave()
        if lock is not None:
            lock.release()
            self._has_given_away = True
        self._awake = False

    def _ensure_thread(self) -> None:
        with self._mutex:
            if self._stopping or self.is_running or _must_not_send():
                return
            thread = threading.Thread(target=self._run, name="otel-audit-sender", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the interpreter is going down: the next process ships it
                _log.debug("audit sender not started: %s", error)
                return
            self._thread = thread
        if not uwsgi.has_threads():
            _log.warning(
                "uWSGI was started without --enable-threads: audit records are sent only while a "
                "request is served, and when the worker exits"
            )
        self._started()

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            delivery = self._make_delivery()
        except ConfigurationError as error:
            self._health.sink_failed(str(error))
            return
        if delivery is None:
            return
        self._delivery = delivery
        try:
            while not self._stopping:
                self._loop_once(delivery)
        finally:
            delivery.leave()

    def _make_delivery(self) -> Delivery | None:
        """Import what sending needs, however often that takes; None if the process ends before."""
        while not self._stopping:
            try:
                get_ready()
                from otel_audit.pipeline.delivery.rounds import Delivery
            except faults() as error:  # files that this user may not read, or that are being replaced
                self._health.sink_failed(f"what sending needs cannot be imported: {error!r}")
                self._wake.wait(_AFTER_ERROR)
            else:
                return Delivery(self._spool.directory, self._config, self._health, self._tell, self._spool)
        return None

    def _loop_once(self, delivery: Delivery) -> None:
        try:
            self._spool.write_deferred()
            if self._rest == "asked":
                self._rest = "left"
                delivery.take_over(self._leave())
                if self._rest_adopts:
                    delivery.adopt_now()
            pause = delivery.round()
            if self._rest == "left" and delivery.is_done(adopted=self._rest_adopts):
                self._rest = ""
        except Exception:  # noqa: BLE001 - the thread must outlive whatever happened
            self._health.log(logging.ERROR, "sender", "audit sender: unexpected error", exc_info=True)
            pause = _AFTER_ERROR
        if self._moved.acquire(timeout=_PATIENCE):  # a signal handler may have interrupted who holds it
            self._moved.notify_all()
            self._moved.release()
        if self._wake.wait(max(pause, 0)):
            self._awake = False
            if not self._flushing and not self._stopping and not self._rest:
                time.sleep(self._config.max_delay)  # lets others join the batch

    def _leave(self) -> layout.Lock | None:
        """End the own stream as soon as no intent is open."""
        deadline = time.monotonic() + _PATIENCE
        while (lock := self._spool.leave(_PATIENCE)) is None and self._spool.open_intents:
            if time.monotonic() >= deadline:
                break
            time.sleep(_POLL)
        return lock

    def _tell(self, record: AuditRecord) -> None:
        try:
            self._spool.append([encode_record(record)])
        except SpoolError as error:
            self._health.log(logging.ERROR, "tell", "%s not recorded: %s", record.event_name, error)
