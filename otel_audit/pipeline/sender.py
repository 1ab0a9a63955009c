"""The sender: a thread that ships this process's spool, and the spools of processes that died.

The thread is started by the first record a process writes, so a pre-fork server's parent has none. It never
raises and never gives up; what it cannot deliver stays on disk. HTTP and protobuf are imported by the thread.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Final

from otel_audit.config.model import SinkConfig
from otel_audit.errors import ConfigurationError, SpoolError
from otel_audit.pipeline.endpoint import parse_endpoint
from otel_audit.pipeline.health import Health
from otel_audit.pipeline.spool.frames import encode_record
from otel_audit.pipeline.spool.writer import SpoolWriter
from otel_audit.record import AuditRecord

if TYPE_CHECKING:
    from otel_audit.pipeline.delivery import Delivery

_AFTER_ERROR: Final = 5.0
_JOIN: Final = 0.5
_LOOK: Final = 0.5
_LONGEST_IMPORT: Final = 10.0

_log = logging.getLogger("otel_audit")


class _ImportGuard:
    """Keeps forks and the thread's imports apart: a child forked meanwhile has half of a module for ever."""

    def __init__(self) -> None:
        self._begin_in_child()
        os.register_at_fork(
            before=self._hold, after_in_parent=self._let_go, after_in_child=self._begin_in_child
        )

    def _begin_in_child(self) -> None:
        self._mutex = threading.Lock()
        self._held = False

    def _hold(self) -> None:
        self._held = self._mutex.acquire(timeout=_LONGEST_IMPORT)

    def _let_go(self) -> None:
        if self._held:
            self._held = False
            self._mutex.release()

    def __enter__(self) -> None:
        self._mutex.acquire()

    def __exit__(self, *_: object) -> None:
        self._mutex.release()


_importing: Final = _ImportGuard()


class Sender:
    """Ships this process's spool and adopted ones, in a thread of its own.

    Args:
        config: where to and how.
        spool: the writer of this process.
        health: counters to keep.

    Raises:
        ConfigurationError: the endpoint is no http(s) address, or the CA file cannot be read.
    """

    def __init__(self, config: SinkConfig, spool: SpoolWriter, health: Health) -> None:
        parse_endpoint(config)
        self._config = config
        self._spool = spool
        self._health = health
        self._delivery: Delivery | None = None
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._mutex = threading.RLock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._moved = threading.Condition()
        self._awake = False
        self._flushing = 0
        self._stopping = False

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
            self._ensure_thread()
            self._wake.set()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the sink has all that this process has settled so far; True if it has.

        Does not wait out a pause between two attempts: the first one is made at once.
        """
        return self._wait_for(self._spool.committed, timeout, patient=True)

    def stop(self, timeout: float) -> None:
        """Flush for up to ``timeout`` seconds, no longer than somebody answers, and end the thread."""
        self._wait_for(self._spool.committed, timeout, patient=False)
        self._stopping = True
        self._wake.set()
        thread, delivery = self._thread, self._delivery
        if thread is not None:
            thread.join(_JOIN)
            if thread.is_alive() and delivery is not None:
                # A request is still on its way. Its answer must not touch what others may adopt now.
                delivery.abandon()

    def _wait_for(self, target: tuple[int, int], timeout: float | None, *, patient: bool) -> bool:
        if target == (0, 0):  # nothing was ever written
            return True
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
                    if rest <= 0 or not self._is_alive():
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

    def _is_alive(self) -> bool:
        thread = self._thread
        return thread is not None and thread.is_alive()

    def _ensure_thread(self) -> None:
        with self._mutex:
            if self._stopping or self._is_alive():
                return
            thread = threading.Thread(target=self._run, name="otel-audit-sender", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the interpreter is going down: the next process ships it
                _log.debug("audit sender not started: %s", error)
                return
            self._thread = thread

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        with _importing:
            from otel_audit.pipeline.delivery import Delivery

        try:
            delivery = Delivery(self._spool.directory, self._config, self._health, self._tell, self._spool)
        except ConfigurationError as error:
            self._health.sink_failed(str(error))
            return
        self._delivery = delivery
        try:
            while not self._stopping:
                self._loop_once(delivery)
        finally:
            delivery.leave()

    def _loop_once(self, delivery: Delivery) -> None:
        try:
            self._spool.write_deferred()
            pause = delivery.round()
        except Exception:  # noqa: BLE001 - the thread must outlive whatever happened
            self._health.log(logging.ERROR, "sender", "audit sender: unexpected error", exc_info=True)
            pause = _AFTER_ERROR
        with self._moved:
            self._moved.notify_all()
        if pause > 0:
            self._wake.wait(pause)
        if self._wake.is_set():
            self._wake.clear()
            self._awake = False
            if not self._flushing and not self._stopping:
                time.sleep(self._config.max_delay)  # lets others join the batch

    def _tell(self, record: AuditRecord) -> None:
        try:
            self._spool.append([encode_record(record)])
        except SpoolError as error:
            self._health.log(logging.ERROR, "tell", "%s not recorded: %s", record.event_name, error)
