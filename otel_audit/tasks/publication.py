"""One task being published: what its message carries, and the record of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_audit.audit_context import moment
from otel_audit.interruptions import faults
from otel_audit.policy import Level
from otel_audit.propagation.messages import HEADER
from otel_audit.semconv import ARGUMENTS
from otel_audit.tasks.task import Task

if TYPE_CHECKING:
    from otel_audit.tasks.settings import TaskSettings

_EVENT: Final = "task.publish"


class Publication:
    """A task that is about to be published, until it is known whether it was.

    Attributes:
        headers: what the message is to carry; empty if nothing.
    """

    def __init__(self, tasks: TaskSettings, task: Task) -> None:
        self._tasks = tasks
        self._task = task
        self._at = moment()
        self._intent: tuple[Any, int] | None = None
        self.headers: dict[str, str] = {}
        try:
            self._begin()
        except faults() as error:
            tasks.failures.report("publish", error, what=task.name)

    def _begin(self) -> None:
        tasks, task = self._tasks, self._task
        header = tasks.header(task)
        if header:
            self.headers = {HEADER: header}
        logger = tasks.logger
        self._decision = tasks.decide(task, self._at)
        if logger is None or self._decision.level == Level.NONE:
            return
        # An intent: whether the broker took it is known afterwards, if this process still lives then.
        self._record = logger.work(_EVENT, "PUBLISH", outcome="unknown", **self._parts())
        self._intent = logger, logger.intend([self._record])

    def _parts(self) -> dict[str, Any]:
        tasks, task = self._tasks, self._task
        shown = {}
        if self._decision.level >= Level.REQUEST:
            shown[ARGUMENTS] = task.arguments(tasks.contents)
        return {
            "at": self._at,
            "log": tasks.log,
            "target": task.target,
            "attributes": task.attributes("PENDING"),
            "shown": shown,
            **self._decision.texts(),
        }

    def sent(self) -> None:
        """Record that the broker has taken it."""
        self._settle(None)

    def failed(self, error: BaseException) -> None:
        """Record that it could not be published."""
        self._settle(error)

    def _settle(self, error: BaseException | None) -> None:
        intent, self._intent = self._intent, None
        if intent is None:
            return
        logger, handle = intent
        try:
            if error is None:
                logger.settle(handle, "success")
                if logger.config.span_event.content != "none":
                    logger.span_event(self._record, self._at)
                return
            parts = self._parts()
            parts["shown"] |= self._tasks.contents.exception(error)
            record = logger.work(
                _EVENT,
                "PUBLISH",
                outcome="failure",
                error=type(error).__qualname__,
                record_id=self._record.id,
                **parts,
            )
            logger.settle(handle, "failure", [record])
        except faults() as fault:
            self._tasks.failures.note("publish", fault, what=self._task.name)
