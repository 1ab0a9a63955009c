"""The audit pipeline of this process: its own provider, untouched by the application's settings.

Nothing is opened and no thread runs before the first record, and a forked child begins anew with its own
spool, so it may be started before or after a server forks.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from otel_audit.config.model import AuditConfig
from otel_audit.context import locate_code
from otel_audit.errors import SpoolError
from otel_audit.pipeline import identity, metrics
from otel_audit.pipeline.health import Health
from otel_audit.pipeline.logger import AuditLogger, Hook, Redacts
from otel_audit.pipeline.spool import directory as layout
from otel_audit.pipeline.spool.status import SpoolStatus, read_status
from otel_audit.pipeline.spool.writer import SpoolWriter
from otel_audit.record import search_binary

if TYPE_CHECKING:
    from otel_audit.pipeline.sender import Sender

_log = logging.getLogger(__name__)


class AuditPipeline:
    """Logger, spool and sender of this process.

    Args:
        config: the whole configuration; ``spool.directory`` relative to the working directory.
        redactor: removes sensitive values; default the one the configuration describes.
        hooks: see :class:`AuditLogger`.
        ship: False leaves the records in the spool.
        directory: the spool directory, default ``config.spool.directory``.
    """

    def __init__(
        self,
        config: AuditConfig,
        *,
        redactor: Redacts | None = None,
        hooks: Sequence[Hook] = (),
        ship: bool = True,
        directory: Path | None = None,
    ) -> None:
        if redactor is None:
            from otel_audit.redaction.redactor import Redactor

            redactor = Redactor(config.redaction)
        search_binary(getattr(redactor, "data", None))
        self.config = config
        self.health = Health()
        self.directory = (directory or Path(config.spool.directory)).absolute()
        self.spool = SpoolWriter(
            config.spool,
            self.directory,
            partial(identity.identify, redactor),
            self.health,
            self._forked,
        )
        self.sender: Sender | None = None
        if ship:
            from otel_audit.pipeline.sender import Sender

            self.sender = Sender(config.sink, self.spool, self.health)
            self.spool.written = self.sender.wake
        self.logger = AuditLogger(config, redactor, self.spool, self.health, hooks)

    def _forked(self) -> None:
        self.logger.begin_in_child()
        if self.sender is not None:
            self.sender.begin_in_child()

    def prepare(self) -> None:
        """Check that the spool can be written, and do what a forked child could not do safely.

        Raises:
            SpoolError: it cannot, and ``on_error`` is ``fail_closed``; otherwise it is logged.
        """
        identity.get_ready()
        try:
            layout.prepare(self.directory)
        except SpoolError as error:
            self.health.spool_failed(str(error))
            if self.config.on_error == "fail_closed":
                raise
            _log.error("%s; audit records are lost until it can", error)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait up to ``timeout`` seconds until the sink has all records of this process; True if it has."""
        return self.sender is not None and self.sender.flush(timeout)

    def shutdown(self, timeout: float | None = None) -> None:
        """End the stream, wait up to ``timeout`` (default ``sink.shutdown_timeout``), leave the rest."""
        self.spool.close()
        if self.sender is not None:
            self.sender.stop(self.config.sink.shutdown_timeout if timeout is None else timeout)
        self.spool.release()

    def status(self) -> SpoolStatus:
        """Read the state of the spool directory."""
        return read_status(self.directory)


_current: AuditPipeline | None = None
_registered = False


def start(
    config: AuditConfig, *, redactor: Redacts | None = None, hooks: Sequence[Hook] = (), ship: bool = True
) -> AuditPipeline:
    """Start the pipeline of this process, in place of the one before.

    Raises:
        SpoolError: the spool cannot be written and ``on_error`` is ``fail_closed``.
    """
    global _current, _registered  # noqa: PLW0603 - one pipeline a process is what this module is for
    pipeline = AuditPipeline(config, redactor=redactor, hooks=hooks, ship=ship)
    pipeline.prepare()
    stop()
    _current = pipeline
    locate_code(config.context.code_location)
    if not _registered:
        _registered = True
        atexit.register(stop)
        metrics.register(_health)
    return pipeline


def current() -> AuditPipeline | None:
    """Give the running pipeline, None before :func:`start` and after :func:`stop`."""
    return _current


def _health() -> Health | None:
    return None if _current is None else _current.health


def replace(pipeline: AuditPipeline | None) -> AuditPipeline | None:
    """Make another pipeline the current one and give the one before, neither started nor stopped."""
    global _current
    before, _current = _current, pipeline
    return before


def stop() -> None:
    """Stop the pipeline: flush up to ``sink.shutdown_timeout``; what is left waits in the spool."""
    pipeline = replace(None)
    if pipeline is not None:
        locate_code(False)
        pipeline.shutdown()
