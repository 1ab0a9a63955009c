"""Ship what dead processes left in a spool directory, without an application: `otel-audit spool drain`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from otel_audit.audit_record import AuditRecord
from otel_audit.config.headers import sink_header_problems
from otel_audit.config.model import AuditConfig
from otel_audit.errors import ConfigurationError, SpoolError
from otel_audit.pipeline.delivery.rounds import Delivery
from otel_audit.pipeline.health import Health
from otel_audit.pipeline.process_identity import identify
from otel_audit.pipeline.spool import directory as layout
from otel_audit.pipeline.spool.frames import encode_record
from otel_audit.pipeline.spool.status import SpoolStatus, read_status
from otel_audit.pipeline.spool.writer import SpoolWriter
from otel_audit.redaction.redactor import Redactor


class DrainResult(msgspec.Struct, frozen=True):
    """What draining came to.

    ``delivered`` records were acknowledged, ``quarantined`` set aside because the sink refuses them,
    ``damaged`` places were unreadable. ``error`` is the sink's last word if something is left that no living
    process owns, else empty. ``left`` is the spool as it is now.
    """

    delivered: int
    quarantined: int
    damaged: int
    error: str
    left: SpoolStatus

    @property
    def remaining(self) -> int:
        """Records of dead processes still waiting."""
        return sum(stream.waiting for stream in self.left.streams if not stream.alive)

    @property
    def complete(self) -> bool:
        """Whether nothing of dead processes is left."""
        return not self.error


def drain(
    directory: str | Path,
    config: AuditConfig,
    *,
    timeout: float = 30.0,
    progress: Callable[[int], None] | None = None,
) -> DrainResult:
    """Ship the streams of dead processes; those of living ones are theirs to ship.

    Args:
        directory: the spool directory.
        config: the sink's settings.
        timeout: seconds without any progress after which the rest stays in the spool.
        progress: called with the number of records delivered so far.

    Raises:
        ConfigurationError: the endpoint is no http(s) address, the CA file cannot be read, or the token or
            another header cannot be sent.
        SpoolError: the directory cannot be read or written.
    """
    for problem in sink_header_problems(config.sink):
        raise ConfigurationError(problem)
    root = Path(directory).absolute()
    health = Health()
    if not os.path.lexists(root):
        return DrainResult(0, 0, 0, "", read_status(root))
    layout.prepare(root)
    spool = SpoolWriter(config.spool, root, partial(identify, Redactor(config.redaction)), health)

    def tell(record: AuditRecord) -> None:
        with suppress(SpoolError):  # said in the log and in the result already
            spool.append([encode_record(record)])

    delivery = Delivery(root, config.sink, health, tell, spool)
    try:
        error = _ship(delivery, health, timeout, progress)
        if spool.lock is not None:  # something was told: ship that, too
            spool.close()
            error = error or _ship(delivery, health, timeout, progress, until=spool.committed)
    finally:
        delivery.leave()
        spool.release()
    return DrainResult(health.delivered, health.quarantined, health.damaged, error, read_status(root))


def _ship(
    delivery: Delivery,
    health: Health,
    timeout: float,
    progress: Callable[[int], None] | None,
    until: tuple[int, int] | None = None,
) -> str:
    """Make rounds until all is shipped; gives the sink's last word if ``timeout`` seconds brought nothing."""
    last = time.monotonic()
    before = (0, 0)
    while True:
        pause = delivery.round()
        done = (health.delivered, health.quarantined)
        if done != before:
            before, last = done, time.monotonic()
            if progress is not None:
                progress(health.delivered)
            continue
        if not delivery.adopted and (until is None or delivery.has_acknowledged(until)):
            delivery.adopt_now()
            delivery.round()
            if not delivery.adopted:
                return ""
        if time.monotonic() - last >= timeout:
            return health.sink_error or "no progress"
        time.sleep(min(pause, 0.2, max(0.0, timeout - (time.monotonic() - last))))
