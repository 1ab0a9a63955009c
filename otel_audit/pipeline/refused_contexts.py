"""A record of signed contexts that were refused: the first at once, then one a minute at most."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from otel_audit import forks
from otel_audit.audit_record import Target
from otel_audit.errors import AuditError

_INTERVAL: Final = 60.0
_TARGET: Final = Target("otel_audit.context")


class RefusedContexts:
    """Takes each refusal, and makes a record with the numbers since the last one.

    Args:
        log: makes and keeps a record, as :meth:`otel_audit.pipeline.logger.AuditLogger.log`.
        now: seconds of a clock that never goes back.
    """

    def __init__(self, log: Callable[..., Any], now: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._now = now
        self.begin()

    def begin(self) -> None:
        """Forget what was noted, as in a forked child."""
        self._mutex = threading.Lock()
        self._last: float | None = None
        self._since: dict[str, int] = {}

    def __call__(self, reason: str) -> None:
        """Note a context that was refused because of ``reason``."""
        forks.check()
        with self._mutex:
            self._since[reason] = self._since.get(reason, 0) + 1
            now = self._now()
            if self._last is not None and now - self._last < _INTERVAL:
                return
            self._last, numbers, self._since = now, self._since, {}
        with suppress(AuditError):  # of `fail_closed`: a stranger's header must not refuse a request
            self._log(
                "context.refused",
                "REFUSE",
                outcome="failure",
                target=_TARGET,
                error=reason,
                attributes={"refused": numbers},
            )
