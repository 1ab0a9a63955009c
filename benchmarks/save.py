"""`Model.save()`, plain and audited by us and by others: in one run, in random order, round by round."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from benchmarks.databases import on_each
from benchmarks.figures import Figure, interleaved, noise, ratio, report, spread
from benchmarks.pipelines import configuration
from benchmarks.sink import require_posts

_ROUNDS = 40
_ROWS = 100
_GOALS = {"sqlite": 1.15, "postgresql": 1.10}


def measure(vendor: str) -> Iterator[Figure]:
    import django

    django.setup()

    import otel_audit
    from benchmarks.bench import models, rows
    from otel_audit.instrumentation.django import DjangoAuditInstrumentor

    measured = [models.Article, models.LoggedArticle, models.HistoricArticle]
    if vendor == "postgresql":
        measured.append(models.TriggeredArticle)
    rows.fill(measured, _ROWS)
    instrumentor = DjangoAuditInstrumentor()

    with configuration(["bench.Article"]) as config:
        pipeline = otel_audit.setup(config, instrument=False)
        try:

            def audited(block: Callable[[], AbstractContextManager[Any]]) -> float:
                instrumentor.instrument()
                try:
                    return _saves(models.Article, block)
                finally:
                    instrumentor.uninstrument()
                    # What is left to send is sent on our time, not on that of whoever comes next.
                    pipeline.flush(60)

            def modes(block: Callable[[], AbstractContextManager[Any]]) -> dict[str, Callable[[], float]]:
                modes = {
                    "plain Django": lambda: _saves(models.Article, block),
                    "plain Django again": lambda: _saves(models.Article, block),
                    "otel-audit": lambda: audited(block),
                    "django-auditlog": lambda: _saves(models.LoggedArticle, block),
                    "django-simple-history": lambda: _saves(models.HistoricArticle, block),
                }
                if vendor == "postgresql":
                    modes["django-pghistory, with context"] = lambda: _triggered(models, block)
                return modes

            from django.db import transaction

            yield from _compare(
                f"save() in a transaction, {vendor}", modes(transaction.atomic), _GOALS[vendor]
            )
            yield from _compare(f"save() in autocommit, {vendor}", modes(nullcontext), None)
            require_posts(config.sink.endpoint)
        finally:
            otel_audit.shutdown()


def _saves(model: Any, block: Callable[[], AbstractContextManager[Any]]) -> float:
    """Load every row, change it, save it; return the seconds a save took, loading left out."""
    from benchmarks.bench.rows import change

    rows = list(model.objects.order_by("pk"))
    for row in rows:
        change(row)
    start = time.perf_counter()
    with block():
        for row in rows:
            row.save()
    return (time.perf_counter() - start) / len(rows)


def _triggered(models: Any, block: Callable[[], AbstractContextManager[Any]]) -> float:
    """Save with what pghistory tells its triggers of who acts, as its middleware does."""
    import pghistory

    with pghistory.context(user=1, url="/articles/1/"):
        seconds = _saves(models.TriggeredArticle, block)
    if not pghistory.models.Events.objects.tracks(models.TriggeredArticle.objects.first()).exists():
        raise RuntimeError("django-pghistory recorded nothing: what was measured is no figure")
    return seconds


def _compare(name: str, modes: dict[str, Callable[[], float]], goal: float | None) -> Iterator[Figure]:
    for mode in modes.values():
        mode()
    times = interleaved(modes, _ROUNDS)
    base = times.pop("plain Django")
    plain = sorted(base)[len(base) // 2] * 1e6
    again = times.pop("plain Django again")
    yield Figure(
        name=f"{name}: plain Django again",
        value=ratio(again, base),
        unit="x plain",
        noise=noise(again, base),
        note="the same against itself",
    )
    for mode, taken in times.items():
        yield Figure(
            name=f"{name}: {mode}",
            value=ratio(taken, base),
            unit="x plain",
            noise=noise(taken, base),
            goal=goal if mode == "otel-audit" else None,
            note=f"middle half {spread(taken, base)}; plain {plain:.0f} µs"
            if mode == "otel-audit"
            else "for comparison",
        )


if __name__ == "__main__":
    if sys.argv[1:]:
        report(measure(sys.argv[1]))
    else:
        on_each("benchmarks.save")
