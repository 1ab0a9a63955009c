"""From the commit of a change to the answer of a query that finds it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.databases import entries, environment
from benchmarks.figures import Figure, quantile, report
from benchmarks.pipelines import configuration
from benchmarks.serving import serve

_CHANGES = 100
_GOAL = 1.0
_PATIENCE = 30


def measure(otlp: str, store_url: str, goal: float = _GOAL) -> Iterator[Figure]:
    import django

    django.setup()

    from django.db import transaction

    import otel_audit
    from benchmarks.bench import models, rows
    from otel_audit.instrumentation.django import DjangoAuditInstrumentor
    from otel_audit.store.query import AuditStore

    rows.fill([models.Article], _CHANGES)
    waits = []
    with (
        configuration(["bench.Article"], endpoint=f"{otlp}/v1/audit") as config,
        AuditStore(store_url) as store,
    ):
        otel_audit.setup(config, instrument=False)
        DjangoAuditInstrumentor().instrument()
        try:
            for article in models.Article.objects.order_by("pk"):
                with transaction.atomic():
                    rows.change(article)
                    article.save()
                committed = time.perf_counter()
                while not store.query(target=f"bench.Article/{article.pk}", action="UPDATE", limit=1).entries:
                    if time.perf_counter() - committed > _PATIENCE:
                        raise TimeoutError(f"no answer about article {article.pk} within {_PATIENCE} s")
                    time.sleep(0.005)
                waits.append(time.perf_counter() - committed)
        finally:
            DjangoAuditInstrumentor().uninstrument()
            otel_audit.shutdown()
    note = f"{len(waits)} transactions, one after the other"
    yield Figure(name="commit → answer, p95", value=quantile(waits, 0.95), unit="s", goal=goal, note=note)
    yield Figure(name="commit → answer, p50", value=quantile(waits, 0.5), unit="s")


if __name__ == "__main__":
    if sys.argv[1:]:
        report(measure(sys.argv[1], sys.argv[2], float(sys.argv[3]) if sys.argv[3:] else _GOAL))
    else:
        with serve() as addresses, entries("sqlite") as [entry]:
            subprocess.run(
                [sys.executable, "-m", "benchmarks.answer", *addresses[:2]],
                check=True,
                env=environment(entry),
            )
