"""RQ: who enqueued which job, which ran, and how it ended; a job's ``meta`` carries the signed context."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from otel_audit.instrumentation.instrumentor import AuditInstrumentor, Part
from otel_audit.instrumentation.patching import Patch
from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from otel_audit.config.model import AuditConfig
    from otel_audit.pipeline.provider import AuditPipeline
    from otel_audit.tasks.task import Task


class RQAuditInstrumentor(AuditInstrumentor):
    library, section, requires = "RQ", "rq", ("rq >= 2.0",)

    def parts(self, config: AuditConfig, pipeline: AuditPipeline | None) -> Sequence[Part]:
        from otel_audit.tasks.recording import Tasks

        self._tasks = Tasks(self.library, config, pipeline)
        return []

    def patches(self, parts: Sequence[Part]) -> Iterable[Patch]:
        yield Patch("rq.queue:Queue._enqueue_async_job", self._enqueuing, "a job is enqueued", late=True)
        yield Patch("rq.job:Job.perform", self._performing, "a job runs, in a worker or at once", late=True)

    def _enqueuing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def enqueue(queue: Any, job: Any, *args: Any, **kwargs: Any) -> Any:
            publication = self._tasks.publish(_task(job, queue.name))
            job.meta.update(publication.headers)  # enqueued again by a worker, it keeps what it has
            try:
                result = original(queue, job, *args, **kwargs)
            except BaseException as error:
                publication.failed(error)
                raise
            publication.sent()
            return result

        return enqueue

    def _performing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        from otel_audit.propagation.messages import HEADER

        @functools.wraps(original)
        def perform(job: Any, *args: Any, **kwargs: Any) -> Any:
            run = self._tasks.begin(_task(job, job.origin), job.meta.get(HEADER, ""))
            try:
                result = original(job, *args, **kwargs)
            except BaseException as error:
                run.end("RETRY" if job.should_retry else "FAILURE", error=error)
                raise
            run.end("SUCCESS", result)
            return result

        return perform


def _task(job: Any, queue: str) -> Task:
    from otel_audit.tasks.task import Task

    try:
        return Task(str(job.func_name), job.id, queue=queue, args=job.args, kwargs=job.kwargs)
    except faults():  # what it is called with cannot be read, as RQ is about to say
        return Task("unknown", job.id, queue=queue)
