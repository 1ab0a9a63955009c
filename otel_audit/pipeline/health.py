"""What the pipeline counts and knows about itself: read by metrics, checks and `otel-audit doctor`.

Plain attributes, added to under the locks of those who write them, read without.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from otel_audit.interruptions import faults

_log = logging.getLogger("otel_audit")
_INTERVAL: Final = 60.0


class Throttle:
    """Let one log line a minute through for each key, and count what was held back."""

    def __init__(self, interval: float = _INTERVAL) -> None:
        self._interval = interval
        self._seen: dict[str, tuple[float, int]] = {}

    def __call__(self, level: int, key: str, message: str, *args: object, exc_info: bool = False) -> None:
        """Log ``message`` unless one with the same ``key`` was logged less than a minute ago."""
        now = time.monotonic()
        last, held_back = self._seen.get(key, (-self._interval, 0))
        if now - last < self._interval:
            self._seen[key] = (last, held_back + 1)
            return
        self._seen[key] = (now, 0)
        if held_back:
            message += f" ({held_back} similar messages suppressed)"
        try:
            _log.log(level, message, *args, exc_info=exc_info)
        except faults():  # a user's log handler may raise; the record comes first
            return


class Health:
    """Counters since the process began (a fork begins anew), and the last trouble of spool and sink."""

    def __init__(self) -> None:
        self.log = Throttle()
        self.reset()

    def reset(self) -> None:
        """Begin anew, as in a forked child."""
        self.emitted = 0
        """Records written to the spool, intents when they were settled."""
        self.dropped = 0
        """Records that could not be kept (``fail_open``)."""
        self.capture_failures: dict[str, int] = {}
        """Failures of ours that cost a record, or detail of one, by the place where they happened."""
        self.delivered = 0
        """Records the sink acknowledged, those adopted from dead processes included."""
        self.own_delivered = 0
        """Records of this process's own spool the sink acknowledged."""
        self.failures = 0
        """Requests the sink did not acknowledge."""
        self.quarantined = 0
        self.damaged = 0
        """Places in segments where bytes were unreadable."""
        self.damaged_bytes = 0
        self.adopted = 0
        """Streams of dead processes taken over."""
        self.unreadable = 0
        """Streams passed over just now because they cannot be read: another user's, on a failing disk."""
        self.oldest = 0
        """Time of the oldest record known to be waiting (ns since the epoch), 0 if none is."""
        self.spool_error = ""
        self._dropped_before = 0
        self.sink_error = ""
        self.sink_error_since = 0
        self.last_delivery = 0

    @property
    def depth(self) -> int:
        """Records of this process waiting for the sink."""
        return max(0, self.emitted - self.own_delivered)

    def failed_at(self, place: str) -> None:
        """Count a failure of ours."""
        self.capture_failures[place] = self.capture_failures.get(place, 0) + 1

    def sink_failed(self, reason: str) -> None:
        """Remember why the sink did not acknowledge; one log line a minute."""
        self.failures += 1
        if not self.sink_error:
            self.sink_error_since = time.time_ns()
        self.sink_error = reason
        self.log(logging.WARNING, "sink", "audit records wait in the spool: %s", reason)

    def sink_answered(self) -> None:
        """Remember that the sink acknowledged."""
        self.last_delivery = time.time_ns()
        if self.sink_error:
            self.sink_error = ""
            self.sink_error_since = 0
            self.log(logging.INFO, "sink again", "the audit sink accepts records again")

    def spool_failed(self, reason: str) -> None:
        """Remember why the spool cannot be written."""
        if not self.spool_error:
            self._dropped_before = self.dropped
        self.spool_error = reason

    def spool_recovered(self) -> None:
        """Remember that the spool was written again."""
        self.spool_error = ""
        self.log(
            logging.WARNING,
            "spool again",
            "the audit spool is writable again; records lost meanwhile: %d",
            self.dropped - self._dropped_before,
        )
