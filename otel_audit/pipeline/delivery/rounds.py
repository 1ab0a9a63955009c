"""All streams that this process ships, its own and those of processes that died, in rounds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import SinkConfig
from otel_audit.pipeline.delivery.otlp_http import Transport
from otel_audit.pipeline.delivery.shipper import Progress, Shipper
from otel_audit.pipeline.health import Health
from otel_audit.pipeline.spool import directory as layout
from otel_audit.pipeline.spool.writer import SpoolWriter

ADOPT_EVERY: Final = 5.0
_MOST_ADOPTED: Final = 4
"""Dead processes' streams shipped at the same time; more wait for their turn."""
_IDLE_WAIT: Final = 5.0
LOOK_AGAIN_EVERY: Final = 60.0
"""Pause before a stream that could not be read is tried again."""

_log = logging.getLogger("otel_audit")


class Delivery:
    """Ships streams to one sink; :meth:`round` is called by one thread at a time.

    Args:
        directory: the spool directory.
        config: where to and how.
        health: counters to keep.
        tell: keeps a record about what happened to another one, in the trail itself.
        spool: the writer of this process, None to ship only what dead processes left.

    Raises:
        ConfigurationError: the endpoint is no http(s) address, or the CA file cannot be read.
    """

    def __init__(
        self,
        directory: Path,
        config: SinkConfig,
        health: Health,
        tell: Callable[[AuditRecord], None],
        spool: SpoolWriter | None = None,
    ) -> None:
        self.unreached = 0
        """Requests nobody answered, but for those that :meth:`hurry` found on their way."""
        self.adopted: list[Shipper] = []
        self._directory = directory
        self._config = config
        self._health = health
        self._tell = tell
        self._spool = spool
        self._transport = Transport(config)
        self._own: Shipper | None = None
        self._left: list[Shipper] = []
        self._all_adopted = False
        self._next_adoption = 0.0
        self._hurried = False
        self._passed_over: dict[Path, float] = {}
        """Streams that cannot be read, and the monotonic time at which each is tried again."""

    def round(self) -> float:
        """Make one step in each stream that is due; gives the seconds until the next one is."""
        self._adopt()
        self._take_own()
        pause = _IDLE_WAIT
        for shipper in self._shippers():
            pause = min(pause, self._step(shipper))
        return pause

    def _take_own(self) -> None:
        """Begin to ship the own stream once there is one; go on with another if its files were taken away."""
        spool = self._spool
        if spool is None:
            return
        spool.look_after()
        if self._own is not None and self._own.lock is not spool.lock:
            self._own.abandon()
            self._own.close()
            self._own = None
        while spool.left:
            lock = spool.left.pop()
            self._adopt_locked(lock) if lock.in_place else lock.release()
        if self._own is not None or spool.lock is None:
            return
        try:
            self._own = self._shipper(spool.lock, limit=lambda: spool.committed)
        except OSError as error:
            self._name(spool.lock.path, error)

    def has_acknowledged(self, target: tuple[int, int]) -> bool:
        """Say whether the sink has all of the own stream up to segment and offset ``target``."""
        own = self._own
        return own is not None and own.acknowledged >= target

    def hurry(self) -> None:
        """Make the next attempt at once, also after one that is under way now and fails. Takes no lock."""
        self._hurried = True
        if self._own is not None:
            self._own.retry_at = 0.0

    def adopt_now(self) -> None:
        """Look for dead processes' streams at the next round."""
        self._all_adopted = False
        self._next_adoption = 0.0

    def take_over(self, lock: layout.Lock | None) -> None:
        """Ship a stream of this process that has ended, and remove it then; None: there was none to end."""
        own, self._own = self._own, None
        if lock is None:
            self._own = own
            self.hurry()
            return
        if own is None:
            own = self._shipper(lock, limit=lambda: (0, 0))
        own.end()
        self._left.append(own)
        self.adopted.append(own)

    def is_done(self, *, adopted: bool) -> bool:
        """Say whether the sink has all that this process wrote; ``adopted``: and all that dead ones left."""
        spool = self._spool
        if spool is not None and spool.lock is not None and not self.has_acknowledged(spool.committed):
            return False
        if adopted:
            return self._all_adopted and not self.adopted
        return not any(shipper in self.adopted for shipper in self._left)

    def abandon(self) -> None:
        """Ignore whatever a request still on its way may answer, and give all locks back."""
        for shipper in self._shippers():
            shipper.abandon()
            shipper.lock.release()

    def leave(self) -> None:
        """Finish the own stream if nothing of it is left, give the others back, close everything."""
        spool, own = self._spool, self._own
        if own is not None and spool is not None and spool.stopped and own.acknowledged >= spool.committed:
            own.finish()
        for shipper in self._shippers():
            shipper.abandon()
            shipper.lock.release()
        self.close()

    def close(self) -> None:
        """Close files and connection, touching neither locks nor cursors: all a forked child may do."""
        for shipper in self._shippers():
            shipper.close()
        self._own, self.adopted, self._left = None, [], []
        self._transport.close()

    def _shippers(self) -> list[Shipper]:
        return [*([] if self._own is None else [self._own]), *self.adopted]

    def _step(self, shipper: Shipper) -> float:
        now = time.monotonic()
        if now < shipper.retry_at:
            return shipper.retry_at - now
        if shipper is not self._own and not shipper.lock.in_place:
            return self._taken_away(shipper)
        self._hurried = False
        progress = shipper.step()
        if shipper is self._own and self._spool is not None:
            self._spool.acknowledged = shipper.position
        if progress is Progress.FINISHED:
            self.adopted.remove(shipper)
            self._left = [left for left in self._left if left is not shipper]
            self.adopt_now()
            return 0.0
        if progress is Progress.UNREADABLE:
            return self._unreadable(shipper)
        if progress is Progress.FAILED and not shipper.last_answer.reached:
            if self._hurried:
                # Its time may have passed while this process stood still, as uWSGI without threads does.
                shipper.retry_at = 0.0
                return 0.0
            self.unreached += 1
            self._hold_all(shipper.retry_at)
        if progress is Progress.IDLE:
            return _IDLE_WAIT
        return max(0.0, shipper.retry_at - time.monotonic())

    def _hold_all(self, until: float) -> None:
        """Nobody is there: one attempt at a time is enough to notice when somebody is again."""
        for shipper in self._shippers():
            shipper.retry_at = max(shipper.retry_at, until)

    def _shipper(self, lock: layout.Lock, limit: Callable[[], tuple[int, int]] | None = None) -> Shipper:
        return Shipper(
            self._directory, lock, self._transport, self._config, self._health, limit=limit, tell=self._tell
        )

    def _adopt(self) -> None:
        """Take over the streams of dead processes, oldest first."""
        now = time.monotonic()
        if now < self._next_adoption:
            return
        self._next_adoption = now + ADOPT_EVERY
        known = {shipper.lock.path for shipper in self.adopted}
        if self._spool is not None and self._spool.lock is not None:
            known.add(self._spool.lock.path)
        streams = layout.list_incarnations(self._directory)
        self._passed_over = {path: again for path, again in self._passed_over.items() if path in streams}
        for path in streams:
            if len(self.adopted) >= _MOST_ADOPTED:
                break
            if path in known or now < self._passed_over.get(path, 0.0):
                continue
            self._take_over(path)
        else:
            self._all_adopted = True
        self._health.unreadable = len(self._passed_over)

    def _take_over(self, path: Path) -> None:
        """Take over one stream if its process is dead; one that cannot be read must not keep the others."""
        try:
            lock = layout.try_lock(path)
        except OSError as error:
            self._pass_over(path, error)
            return
        if lock is None or self._adopt_locked(lock):
            self._passed_over.pop(path, None)
        if lock is not None and path not in self._passed_over:
            self._health.adopted += 1
            _log.info("sending audit records left by a terminated process: %s", path.name)

    def _adopt_locked(self, lock: layout.Lock) -> bool:
        try:
            self.adopted.append(self._shipper(lock))
        except OSError as error:
            lock.release()
            self._pass_over(lock.path, error)
            return False
        return True

    def _taken_away(self, shipper: Shipper) -> float:
        """Say that a dead process's stream vanished while it was shipped; what it still held is not known."""
        self.adopted.remove(shipper)
        shipper.taken_away()
        shipper.close()
        shipper.lock.release()
        return 0.0

    def _unreadable(self, shipper: Shipper) -> float:
        """Leave alone, for a while, a stream of a dead process that cannot be read; gives the pause."""
        path, error = shipper.lock.path, shipper.trouble
        assert error is not None
        if shipper is self._own:
            self._name(path, error)
            return max(0.0, shipper.retry_at - time.monotonic())
        self.adopted.remove(shipper)
        shipper.close()
        shipper.lock.release()
        self._pass_over(path, error)
        self.adopt_now()
        return 0.0

    def _pass_over(self, path: Path, error: OSError) -> None:
        if path not in self._passed_over:
            self._name(path, error)
        self._passed_over[path] = time.monotonic() + LOOK_AGAIN_EVERY
        self._health.unreadable = len(self._passed_over)

    def _name(self, path: Path, error: OSError) -> None:
        self._health.log(
            logging.ERROR,
            f"unreadable {path.name}",
            "audit records wait in a stream that is skipped: %s",
            layout.explain(path, error),
        )
