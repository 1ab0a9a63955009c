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

from otel_audit import forks
from otel_audit.audit_context import ask_tenant, locate_code, process_scope
from otel_audit.config.headers import sink_header_problems
from otel_audit.config.model import AuditConfig
from otel_audit.errors import ConfigurationError, SpoolError
from otel_audit.pipeline import metrics, pipeline_records, process_end, process_identity, uwsgi
from otel_audit.pipeline.health import Health
from otel_audit.pipeline.logger import AuditLogger, Hook, Redacts
from otel_audit.pipeline.refused_contexts import RefusedContexts
from otel_audit.pipeline.spool import directory as layout
from otel_audit.pipeline.spool.frames import encode_record
from otel_audit.pipeline.spool.writer import SpoolWriter
from otel_audit.propagation import tell_of_refusals
from otel_audit.values import search_binary

if TYPE_CHECKING:
    from otel_audit.pipeline.sender import Sender
    from otel_audit.pipeline.spool.status import SpoolStatus
    from otel_audit.pipeline.tenants import TenantSource

_log = logging.getLogger(__name__)


def _tenants(path: str) -> TenantSource:
    from otel_audit.pipeline.tenants import TenantSource

    return TenantSource(path)


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
        process_scope.service = process_identity.service_name
        self.config = config
        self.health = Health()
        self.tenants = _tenants(config.tenant_from) if config.tenant_from else None
        self.directory = (directory or Path(config.spool.directory)).absolute()
        self.spool = SpoolWriter(
            config.spool,
            self.directory,
            partial(process_identity.identify, redactor),
            self.health,
            self._forked,
            lambda count, reason: encode_record(pipeline_records.Loss(count, reason=reason).record()),
        )
        self.sender: Sender | None = None
        if ship:
            from otel_audit.pipeline.sender import Sender

            self.sender = Sender(
                config.sink, self.spool, self.health, partial(process_end.arrange, self.rest)
            )
            self.spool.written = self.sender.wake
        self.logger = AuditLogger(config, redactor, self.spool, self.health, hooks)
        self.refused_contexts = RefusedContexts(self.logger.log)

    def _forked(self) -> None:
        self.logger.begin_in_child()
        self.refused_contexts.begin()
        if self.sender is not None:
            self.sender.begin_in_child()

    def prepare(self) -> None:
        """Check that the spool can be written, and do what a forked child could not do safely.

        Raises:
            SpoolError: it cannot, and ``on_error`` is ``fail_closed``; otherwise it is logged.
            ConfigurationError: a header of the sink cannot be sent, likewise.
        """
        process_identity.get_ready()
        self._check_headers()
        try:
            layout.prepare(self.directory)
        except SpoolError as error:
            self.health.spool_failed(str(error))
            if self.config.fail_closed:
                raise
            _log.error("%s; audit records are lost until this is corrected", error)

    def get_ready_to_fork(self) -> None:
        """Import what sending needs if uWSGI will fork this process: its workers share the memory then.

        Python's forks need no call; any other process imports it with its first record.
        """
        if self.sender is not None and uwsgi.will_fork():
            from otel_audit.pipeline.sender import get_ready

            get_ready()

    def _check_headers(self) -> None:
        """Say which headers of the sink cannot be sent; the others are, and records wait at the worst."""
        for problem in sink_header_problems(self.config.sink):
            if self.config.fail_closed:
                raise ConfigurationError(problem)
            _log.error("%s; it is omitted from requests to the sink", problem)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait up to ``timeout`` seconds until the sink has all records of this process; True if it has."""
        return self.sender is not None and self.sender.flush(timeout)

    def rest(self, timeout: float | None = None) -> bool:
        """End the stream; wait up to ``timeout`` (default ``sink.shutdown_timeout``) until the sink has it.

        The next record begins another stream: for ends after which something may still be recorded. Takes no
        lock.
        """
        if self.sender is None or not self.sender.is_running:
            return False
        timeout = self.config.sink.shutdown_timeout if timeout is None else timeout
        return self.sender.rest(timeout, adopt=process_end.has_children())

    def shutdown(self, timeout: float | None = None) -> None:
        """End the stream, wait up to ``timeout`` (default ``sink.shutdown_timeout``), leave the rest."""
        self.spool.close()
        if self.sender is not None:
            timeout = self.config.sink.shutdown_timeout if timeout is None else timeout
            self.sender.stop(timeout, adopt=process_end.has_children())
        self.spool.release()

    def status(self) -> SpoolStatus:
        """Read the state of the spool directory."""
        from otel_audit.pipeline.spool.status import read_status

        return read_status(self.directory)


_current: AuditPipeline | None = None
_held: list[AuditPipeline | None] = []
_holds: list[str] = []
_registered = False


def start(
    config: AuditConfig, *, redactor: Redacts | None = None, hooks: Sequence[Hook] = (), ship: bool = True
) -> AuditPipeline:
    """Start the pipeline of this process, in place of the one before.

    Raises:
        SpoolError: the spool cannot be written and ``on_error`` is ``fail_closed``.
    """
    global _registered  # noqa: PLW0603 - one pipeline a process is what this module is for
    pipeline = AuditPipeline(config, redactor=redactor, hooks=hooks, ship=ship)
    pipeline.prepare()
    stop()
    replace(pipeline)
    process_end.handle_signals(_rest)
    locate_code(config.context.code_location)
    if not _registered:
        _registered = True
        atexit.register(stop)
        metrics.register(current_health)
    return pipeline


def current() -> AuditPipeline | None:
    """Return the running pipeline, None before :func:`start` and after :func:`stop`."""
    return _current


def current_logger() -> AuditLogger | None:
    """Return the logger of the running pipeline, if any."""
    return None if _current is None else _current.logger


def current_health() -> Health | None:
    """Return what the running pipeline counts, if any."""
    forks.check()
    return None if _current is None else _current.health


def _rest() -> None:
    if _current is not None:
        _current.rest()


def replace(pipeline: AuditPipeline | None) -> AuditPipeline | None:
    """Make another pipeline the current one and give the one before, neither started nor stopped."""
    global _current
    before, _current = _current, pipeline
    ask_tenant(None if pipeline is None else pipeline.tenants)
    tell_of_refusals(None if pipeline is None else pipeline.refused_contexts)
    return before


def hold(reason: str) -> None:
    """Keep the running pipeline back: until :func:`release`, what happens is not recorded.

    Holds nest. A pipeline that is started meanwhile is not held back.
    """
    if not _holds:
        _held.append(replace(None))
    _holds.append(reason)


def release() -> None:
    """End one :func:`hold`; with the last one the pipeline that was held back goes on."""
    _holds.pop()
    if not _holds:
        held = _held.pop()
        if _current is None:
            replace(held)
        elif held is not None:
            held.shutdown()


def held_because() -> str | None:
    """Return why the pipeline is held back, None if it is not."""
    return _holds[-1] if _holds and _current is None else None


def configured() -> AuditPipeline | None:
    """Return the running pipeline, or the one that is held back: for its configuration."""
    return _current or (_held[-1] if _held else None)


def stop() -> None:
    """Stop the pipeline: flush up to ``sink.shutdown_timeout``; what is left waits in the spool."""
    pipeline = replace(None)
    if pipeline is None and _held:
        pipeline, _held[-1] = _held[-1], None
    if pipeline is not None:
        process_end.leave_signals()
        locate_code(False)
        pipeline.shutdown()
