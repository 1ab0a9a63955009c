"""Django, plain and audited by us and by others: every kind of write and lists, in one run, round by round.

A time is that of the statements and of COMMIT: records are kept there. The same was done once before: what
is looked up once in a process is none of what a write costs. Of statements on many rows, django-auditlog and
django-simple-history see ``QuerySet.delete`` alone, of which Django sends signals.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from benchmarks.bench import rows
from benchmarks.databases import on_each
from benchmarks.django_jobs import JOBS, LISTS, Job
from benchmarks.figures import Figure, beside_plain, interleaved, report
from benchmarks.pipelines import configuration
from benchmarks.sink import require_posts

Block = Callable[[], AbstractContextManager[Any]]


def measure(vendor: str) -> Iterator[Figure]:
    import django

    django.setup()

    from django.db import transaction

    import otel_audit
    from benchmarks.bench import models
    from otel_audit.instrumentation.django import DjangoAuditInstrumentor

    rows.migrate()
    instrumentor = DjangoAuditInstrumentor()
    others: dict[str, Callable[[Job, Block], float]] = {
        "django-auditlog": partial(_timed, models.LoggedArticle),
        "django-simple-history": partial(_timed, models.HistoricArticle),
    }
    if vendor == "postgresql":
        others["django-pghistory, with context"] = partial(_triggered, models)

    with configuration() as config:
        pipeline = otel_audit.setup(config, instrument=False)
        assert pipeline is not None

        def audited(job: Job, block: Block) -> float:
            rows.refill(models.Article, job.rows)
            instrumentor.instrument(**{job.audited: ["bench.Article"]})
            try:
                _once(models.Article, job, block)
                pipeline.flush(60)
                before = pipeline.health.emitted
                taken = _measured(models.Article, job, block)
                recorded = pipeline.health.emitted > before
            finally:
                instrumentor.uninstrument()
                # What is left to send is sent on our time, not on that of whoever comes next.
                pipeline.flush(60)
            if recorded is (job is LISTS[0]):
                raise RuntimeError(f"{job.what}: what was recorded is not what was to be; this is no figure")
            return taken

        plain = partial(_timed, models.Article)
        modes = {"plain Django": plain, "plain Django again": plain, "otel-audit": audited}
        try:
            for job in JOBS:
                name = f"{job.what} in a transaction, {vendor}"
                yield from _compare(job, name, modes | others, transaction.atomic, job.goal(vendor))
            yield from _compare(
                JOBS[0], f"{JOBS[0].what} in autocommit, {vendor}", modes | others, nullcontext, None
            )
            for job in LISTS:
                yield from _compare(job, f"{job.what}, {vendor}", modes, nullcontext, job.goal(vendor))
            require_posts(config.sink.endpoint)
        finally:
            otel_audit.shutdown()


def _timed(model: Any, job: Job, block: Block) -> float:
    """Return the seconds that one of a job takes."""
    rows.refill(model, job.rows)
    _once(model, job, block)
    return _measured(model, job, block)


def _once(model: Any, job: Job, block: Block) -> None:
    """Do a job; what it changed in a transaction is undone."""
    from django.db import connection, transaction

    with block():
        job.prepare(model)()
        if connection.in_atomic_block:
            transaction.set_rollback(True)


def _measured(model: Any, job: Job, block: Block) -> float:
    work = job.prepare(model)
    gc.collect()
    start = time.perf_counter()
    with block():
        work()
    return (time.perf_counter() - start) / job.times


def _triggered(models: Any, job: Job, block: Block) -> float:
    """Do a job with what pghistory tells its triggers of who acts, as its middleware does."""
    import pghistory

    rows.refill(models.TriggeredArticle, job.rows)
    events = models.TriggeredArticle.pgh_event_model.objects
    before = events.count()
    with pghistory.context(user=1, url="/articles/1/"):
        _once(models.TriggeredArticle, job, block)
        seconds = _measured(models.TriggeredArticle, job, block)
    if events.count() == before:
        raise RuntimeError("django-pghistory recorded nothing: what was measured is no figure")
    return seconds


def _compare(
    job: Job, name: str, modes: dict[str, Callable[[Job, Block], float]], block: Block, goal: float | None
) -> Iterator[Figure]:
    for mode in modes.values():
        mode(job, block)
    times = interleaved({mode: partial(run, job, block) for mode, run in modes.items()}, job.rounds)
    yield from beside_plain(name, times, "plain Django", goal)


if __name__ == "__main__":
    if sys.argv[1:]:
        report(measure(sys.argv[1]))
    else:
        on_each("benchmarks.django_writes")
