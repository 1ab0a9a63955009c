"""What is recorded of tasks, and whom they are told to be of: made once, asked for each task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from otel_audit.audit_context import Moment, moment
from otel_audit.config.model import AuditConfig
from otel_audit.http.contents import Contents
from otel_audit.pipeline import provider
from otel_audit.pipeline.failures import Failures
from otel_audit.policy import Decision, Facts, Level, Policy
from otel_audit.propagation.incoming import Accepted, count
from otel_audit.propagation.messages import MessageContexts
from otel_audit.tasks.seen import Seen
from otel_audit.tasks.task import Task

if TYPE_CHECKING:
    from otel_audit.pipeline.logger import AuditLogger
    from otel_audit.pipeline.provider import AuditPipeline


class TaskSettings:
    """What records of the tasks of one library are made by.

    Args:
        library: as messages name it: ``Celery``.
        config: the whole configuration.
        pipeline: keeps the records; default the one that runs.
        once: refuse a signed context that was seen before on this machine.
    """

    log: Final = "activity"

    def __init__(
        self,
        library: str,
        config: AuditConfig,
        pipeline: AuditPipeline | None = None,
        *,
        once: bool = False,
    ) -> None:
        self._pipeline = pipeline
        self._tenant = config.tenant
        self._policy = Policy.of(config)
        decisions = list(self._policy.possible("task", Facts()))
        self._always = decisions[0] if len(decisions) == 1 else None
        self._contexts = MessageContexts.of(config)
        self._seen = Seen(Path(config.spool.directory), config.context.queue_lifetime) if once else None
        self.max_output = config.commands.max_output
        self.flush = config.commands.flush
        self.contents = Contents.of(config)
        self.failures = Failures(library, config, provider.current_health)

    @property
    def logger(self) -> AuditLogger | None:
        """What keeps records now; None while nothing is recorded."""
        return provider.current_logger() if self._pipeline is None else self._pipeline.logger

    def decide(self, task: Task, at: Moment) -> Decision:
        """Decide what is recorded of a task."""
        if self._always is not None:  # no rule is about tasks
            return self._always
        fields = at.fields()
        user = fields.actor.on_behalf_of or fields.actor.id
        tenant = fields.tenant or at.tenant or self._tenant or None
        return self._policy.decide("task", Facts(task=task.name, user=user, tenant=tenant))

    def ended(self, task: Task, state: str, error: str) -> None:
        """Record the end of a task that has not begun."""
        at = moment()
        decision = self.decide(task, at)
        logger = self.logger
        if logger is not None and decision.level > Level.NONE:
            logger.log(
                "task.run",
                "EXECUTE",
                at=at,
                outcome="failure",
                log=self.log,
                target=task.target,
                error=error,
                attributes=task.attributes(state),
                **decision.texts(),
            )

    def header(self, task: Task) -> str:
        """Sign who acts now, for a task that is published; empty if it is to carry nothing."""
        if self._contexts is None:
            return ""
        return self._contexts.for_queue(task.queue, task=task.id, retry=task.retries, starts=task.starts)

    def accepted(self, task: Task, header: str) -> Accepted | None:
        """Return what can be believed of who published a task."""
        if self._contexts is None or not header:
            return None
        accepted = self._contexts.accepted(header, task=task.id, retry=task.retries)
        if accepted is None or self._seen is None or self._seen.first(f"{task.id}/{task.retries}"):
            return accepted
        if task.redelivered:
            return accepted
        count("replayed")
        return None
