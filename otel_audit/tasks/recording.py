"""Tasks: what the instrumentor of a task queue makes once, and calls for each publication and run."""

from __future__ import annotations

from otel_audit.interruptions import faults
from otel_audit.runs.scope import leave
from otel_audit.tasks.publication import Publication
from otel_audit.tasks.run import Run
from otel_audit.tasks.settings import TaskSettings
from otel_audit.tasks.task import Task
from otel_audit.tasks.work import enter_task


class Tasks(TaskSettings):
    """Records the tasks of one library."""

    def publish(self, task: Task) -> Publication:
        """Take down that a task is about to be published, by whoever acts now.

        Raises:
            AuditError: it cannot be recorded, and ``on_error`` is ``fail_closed``.
        """
        return Publication(self, task)

    def begin(self, task: Task, header: str = "") -> Run:
        """Begin to run a task: from here to :meth:`Run.end` it is what acts, unless other work calls it.

        Args:
            task: as it came.
            header: the value of the header that its publication has put into the message.
        """
        run = self.run(task, header)
        try:
            run.start()
        except BaseException as error:  # a time limit of the queue's own: it is over before it has begun
            run.end("FAILURE", error=error)
            raise
        return run

    def run(self, task: Task, header: str = "") -> Run:
        """Enter the scope of a task, for who calls :meth:`Run.start` and :meth:`Run.end` itself."""
        return Run(self, task, self.accepted(task, header))

    def never_ran(self, task: Task, header: str, state: str, error: str) -> None:
        """Record that a task was taken off its queue and will not run.

        Args:
            task: as it came.
            header: as for :meth:`begin`.
            state: ``REVOKED`` or ``REJECTED``.
            error: why.
        """
        entered = enter_task(task.name, self.accepted(task, header))
        try:
            self.ended(task, state, error)
        except faults() as fault:
            self.failures.note("end", fault, what=task.name)
        finally:
            leave(entered)
