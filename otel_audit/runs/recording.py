"""What is recorded of commands and jobs by a configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from otel_audit.audit_context import current_context, current_fields, tenant_said_of
from otel_audit.config.globs import Globs
from otel_audit.http.contents import Contents
from otel_audit.pipeline import provider
from otel_audit.pipeline.failures import Failures
from otel_audit.policy import Decision, Facts, Level, Policy

if TYPE_CHECKING:
    from otel_audit.config.model import AuditConfig
    from otel_audit.pipeline.logger import AuditLogger

Kind = Literal["command", "job"]


class Recording:
    """What is recorded of commands and jobs, and where.

    Args:
        config: the whole configuration.
        logger: returns the current logger, if any.
    """

    def __init__(
        self, config: AuditConfig, logger: Callable[[], AuditLogger | None] = provider.current_logger
    ) -> None:
        self.config = config
        self.logger = logger
        self.failures = Failures("commands", config, provider.current_health)
        self.contents = Contents.of(config)
        self._policy = Policy.of(config)
        exclude = config.commands.exclude
        self._is_excluded = Globs.of(exclude).matches if exclude else None

    def decide(self, kind: Kind, name: str, user: str) -> Decision | None:
        """Return what is recorded of a command or job; None for nothing.

        Args:
            kind: what it is.
            name: as the policy and the list of the excluded know it.
            user: the id of the actor.
        """
        if kind == "command" and self._is_excluded is not None and self._is_excluded(name):
            return None
        tenant = current_fields().tenant or tenant_said_of(current_context()) or self.config.tenant or None
        decision = self._policy.decide("command", Facts(command=name, user=user, tenant=tenant))
        return None if decision.level == Level.NONE else decision


class _Jobs:
    """What is recorded of jobs, by the configuration of the pipeline that runs."""

    recording: Recording | None = None


def of_jobs() -> Recording | None:
    """Return what is recorded of jobs; None where audit is off."""
    pipeline = provider.current()
    if pipeline is None:
        return None
    recording = _Jobs.recording
    if recording is None or recording.config is not pipeline.config:
        recording = _Jobs.recording = Recording(pipeline.config)
    return recording
