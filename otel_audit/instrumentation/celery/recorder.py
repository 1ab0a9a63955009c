"""What Celery does to a task, as the protocol of :mod:`otel_audit.tasks` has it.

A task is published in ``Celery.send_task``, whatever it was called by: ``delay``, a chain, a retry, the
schedule. Its id and queue are known in the signal on the way. It runs between ``task_prerun`` and
``task_postrun``, in whichever process or thread the pool has.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from otel_audit.audit_context import (
    AuditContext,
    SystemScope,
    current_context,
    enter_context,
    leave_scope,
    restore_context,
)
from otel_audit.audit_record import Actor
from otel_audit.errors import AuditError
from otel_audit.instrumentation import celery_tasks
from otel_audit.instrumentation.celery import messages
from otel_audit.instrumentation.celery.commands import CommandTasks
from otel_audit.instrumentation.instrumentor import Part
from otel_audit.interruptions import faults
from otel_audit.propagation.messages import HEADER
from otel_audit.tasks.publication import Publication
from otel_audit.tasks.recording import Tasks
from otel_audit.tasks.run import Run
from otel_audit.tasks.task import Task

if TYPE_CHECKING:
    from otel_audit.config.model import AuditConfig
    from otel_audit.pipeline.provider import AuditPipeline

_BEAT: Final = Actor(id="celery beat", type="system")
_STATE: Final = {
    "Retry": "RETRY",
    "Ignore": "IGNORED",
    "Reject": "REJECTED",
}
"""By the class that a task raised, where Celery did not get to say its state."""


class _NotKept(BaseException):
    """A record could not be kept under ``fail_closed``: Celery's signals hold back every Exception."""

    def __init__(self, error: AuditError) -> None:
        self.error = error


class _Sending:
    """One call of ``send_task``."""

    __slots__ = ("app", "args", "countdown", "kwargs", "publication")

    def __init__(self, app: Any, args: Any, kwargs: Any, countdown: Any) -> None:
        self.app = app
        self.args = args
        self.kwargs = kwargs
        self.countdown = countdown
        self.publication: Publication | None = None


_sending: ContextVar[_Sending | None] = ContextVar("otel_audit_sending", default=None)
_schedule: ContextVar[str] = ContextVar("otel_audit_schedule", default="")


class CeleryTasks(Part):
    """Records the tasks of Celery."""

    def __init__(self, config: AuditConfig, pipeline: AuditPipeline | None) -> None:
        self._tasks = Tasks("Celery", config, pipeline, once=config.celery.once)
        self._running: dict[int, Run] = {}
        commands = config.celery.commands
        self.commands = CommandTasks(commands, self._tasks.failures) if commands else None

    def start(self) -> None:
        celery_tasks.record_by(self)

    def stop(self) -> None:
        celery_tasks.record_by(None)

    # --- published -----------------------------------------------------------------------------

    def sending(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``Celery.send_task``."""

        @functools.wraps(original)
        def send_task(
            app: Any, /, name: Any, args: Any = None, kwargs: Any = None, *more: Any, **options: Any
        ) -> Any:
            sending = _Sending(app, args, kwargs, more[0] if more else options.get("countdown"))
            token = _sending.set(sending)
            try:
                result = original(app, name, args, kwargs, *more, **options)
            except _NotKept as refused:
                _sending.reset(token)
                raise refused.error from None
            except BaseException as error:
                _sending.reset(token)
                self._failed(sending, name, options, error)
                raise
            _sending.reset(token)
            self._sent(sending, name, options, result)
            return result

        return send_task

    def before_publish(
        self,
        sender: Any = None,
        body: Any = None,
        routing_key: Any = None,
        headers: Any = None,
        **_: Any,
    ) -> None:
        """Take down a task that is about to be published, and say in its message by whom."""
        sending = _sending.get()
        if not isinstance(headers, dict):
            return
        headers.pop(HEADER, None)  # a retry carries on the headers of its message
        if sending is None or sending.publication is not None or "id" not in headers:
            return  # protocol 1, which has no headers
        try:
            task = messages.published(
                headers,
                str(routing_key or ""),
                sending.args,
                sending.kwargs,
                sending.countdown,
                _schedule.get(),
                getattr(sending.app._tasks.get(sender), "run", None),
            )
        except faults() as error:
            self._tasks.failures.note("publish", error, what=str(sender))
            return
        try:
            sending.publication = self._tasks.publish(task)
        except AuditError as error:
            raise _NotKept(error) from error
        headers.update(sending.publication.headers)

    def _sent(self, sending: _Sending, name: Any, options: dict[str, Any], result: Any) -> None:
        publication = sending.publication
        if publication is None:  # protocol 1: its message could not say by whom
            publication = self._late(sending, name, options | {"task_id": getattr(result, "id", "")})
        if publication is not None:
            publication.sent()

    def _failed(self, sending: _Sending, name: Any, options: dict[str, Any], error: BaseException) -> None:
        publication = sending.publication
        if publication is None:  # before its message was made
            publication = self._late(sending, name, options)
        if publication is not None:
            publication.failed(error)

    def _late(self, sending: _Sending, name: Any, options: dict[str, Any]) -> Publication | None:
        """Take down a publication of which only the end is known."""
        try:
            return self._tasks.publish(messages.asked_for(name, options, sending.args, sending.kwargs))
        except faults() as fault:  # it is published, or what is raised says why not
            self._tasks.failures.note("publish", fault)
            return None

    def scheduling(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``Scheduler.apply_async``: the schedule acts, not the service."""

        @functools.wraps(original)
        def apply_async(scheduler: Any, /, entry: Any, *args: Any, **kwargs: Any) -> Any:
            name = str(getattr(entry, "name", ""))
            scope = SystemScope(_BEAT, name)
            token, named = enter_context(AuditContext(scope)), _schedule.set(name)
            try:
                return original(scheduler, entry, *args, **kwargs)
            finally:
                _schedule.reset(named)
                leave_scope(token)
                scope.ended = True

        return apply_async

    # --- run -----------------------------------------------------------------------------------

    def begin(self, task: Any, task_id: Any, args: Any, kwargs: Any) -> None:
        """Begin to record a task that is about to run."""
        outer = current_context()
        key = id(task.request)
        try:
            told, header = self._told(task, task_id, args, kwargs)
            run = self._running[key] = self._tasks.run(told, header)
            run.start()
        except faults() as error:
            self._tasks.failures.note("start", error, what=str(task.name))
        except BaseException:  # a soft time limit, which ends the task: Celery says so to `end`
            if key not in self._running:
                restore_context(outer)
            raise

    def _told(self, task: Any, task_id: Any, args: Any, kwargs: Any) -> tuple[Task, str]:
        """Return a task as its request tells of it, and our header."""
        said = vars(task.request)
        header = said.get(HEADER)
        header = header if type(header) is str else ""
        return messages.received(task, said, str(task_id), args, kwargs), header

    def end(self, task: Any, task_id: Any, args: Any, kwargs: Any, state: Any, retval: Any) -> None:
        """Record how a task ended; called again if a soft time limit comes meanwhile."""
        key = id(task.request)
        run = self._running.get(key)
        if run is not None:
            self._end(run, state, retval)
            self._running.pop(key, None)
        elif state is None and (error := sys.exception()) is not None:  # interrupted before it was known
            try:
                told, header = self._told(task, task_id, args, kwargs)
            except faults() as fault:
                self._tasks.failures.note("end", fault, what=str(task.name))
                return
            self._tasks.never_ran(told, header, "FAILURE", type(error).__qualname__)

    def _end(self, run: Run, state: Any, retval: Any) -> None:
        error = retval if isinstance(retval, BaseException) else None
        if state is None:  # it raises what Celery does not handle, or is to raise what its caller handles
            error = sys.exception()
            state = _STATE.get(type(error).__name__, "FAILURE")
        if state == "SUCCESS":
            run.end(state, retval)
        elif state == "RETRY":
            run.end(state, error=getattr(error, "exc", None))
        else:
            run.end(str(state), error=error)

    # --- never run -----------------------------------------------------------------------------

    def revoked(
        self,
        sender: Any = None,
        request: Any = None,
        terminated: bool = False,
        expired: bool = False,
        **_: Any,
    ) -> None:
        """Record that a task was revoked, or has expired; one that was ended while it ran has its record."""
        if terminated:
            return
        said = vars(request) if request is not None else {}
        error = "expired" if expired else "revoked"
        self._never_ran(said, str(getattr(sender, "name", "") or said.get("task") or ""), "REVOKED", error)

    def unknown(self, message: Any = None, name: Any = None, **_: Any) -> None:
        """Record that a worker did not know a task."""
        self._never_ran(getattr(message, "headers", None) or {}, str(name or ""), "REJECTED", "NotRegistered")

    def rejected(self, message: Any = None, exc: Any = None, **_: Any) -> None:
        """Record that a message could not be read as a task."""
        headers = getattr(message, "headers", None) or {}
        error = "" if exc is None else type(exc).__qualname__
        self._never_ran(
            headers, str(headers.get("task") or "unknown"), "REJECTED", error or "unknown message"
        )

    def _never_ran(self, headers: Any, name: str, state: str, error: str) -> None:
        try:
            task = messages.told(headers, name)
            header = headers.get(HEADER)
        except faults() as fault:
            self._tasks.failures.note("end", fault, what=name)
            return
        self._tasks.never_ran(task, header if type(header) is str else "", state, error)
