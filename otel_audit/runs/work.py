"""One command or job: its scope, and its records if there are to be any."""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType

from otel_audit.audit_context import current_context, current_fields
from otel_audit.errors import AuditError
from otel_audit.interruptions import faults
from otel_audit.policy import Decision
from otel_audit.runs.recording import Kind, Recording
from otel_audit.runs.run import Invocation, Run
from otel_audit.runs.scope import Entered, enter, leave


class Work:
    """A command or job, from :meth:`begin` to :meth:`end`, or the end of a ``with`` block, in one context."""

    __slots__ = ("_entered", "_run")

    def __init__(self) -> None:
        self._entered: Entered | None = None
        self._run: Run | None = None

    @classmethod
    def begin(cls, recording: Recording, kind: Kind, invocation: Invocation) -> Work:
        """Begin it.

        Raises:
            AuditError: it cannot be recorded, and ``on_error`` is ``fail_closed``.
        """
        work = cls()
        try:
            decision = _decide(recording, kind, invocation)
            work._entered = enter(invocation.actor, invocation.view, recorded=decision is not None)
            logger = recording.logger()
            if decision is not None and logger is not None:
                work._run = Run(logger, recording, kind, invocation, decision)
                work._run.begin()
        except AuditError as error:
            work._abandon(error)
            raise
        except faults() as error:
            try:
                recording.failures.report("begin", error, what=invocation.name)
            except AuditError:
                work._abandon(error)
                raise
        except BaseException as error:
            work._abandon(error)
            raise
        return work

    def __enter__(self) -> None:
        """Do nothing: it has begun."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it, as :meth:`end` does."""
        self.end(error)

    def end(self, error: BaseException | None) -> None:
        """End it: it returned, or ``error`` left it.

        Raises:
            AuditError: it has not failed itself, cannot be recorded, and ``on_error`` is ``fail_closed``.
        """
        try:
            if self._run is not None:
                self._run.end(error)
        finally:
            self._leave()

    def _abandon(self, error: BaseException) -> None:
        """Leave before anything was done: nothing is going to be."""
        with suppress(AuditError):
            self.end(error)

    def _leave(self) -> None:
        entered, self._entered = self._entered, None
        leave(entered)


def _decide(recording: Recording, kind: Kind, invocation: Invocation) -> Decision | None:
    context = current_context()
    inside = context is not None and context.scope is not None
    user = current_fields().actor.id if inside else invocation.actor
    return recording.decide(kind, invocation.name, user)
