"""Redaction of a span on its way to the exporter."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import SpanKind

from benchmarks.figures import Figure, each, report
from otel_audit.config.model import RedactionConfig
from otel_audit.redaction.redactor import Redactor
from otel_audit.semconv import EventRecordId

_GOAL_US = 8
_SPANS = 20_000

_ATTRIBUTES = {
    "http.request.method": "POST",
    "http.route": "orders/<int:pk>/",
    "http.response.status_code": 302,
    "url.scheme": "https",
    "url.path": "/orders/7/",
    "server.address": "shop.example",
    "server.port": 443,
    "client.address": "203.0.113.7",
    "client.port": 51234,
    "network.protocol.version": "1.1",
    "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "code.function.name": "shop.views.change_order",
    "shop.branch": "Uji",
    "shop.items": 3,
    "shop.member": True,
}
_EVENT = {
    "audit.record.id": EventRecordId("019ab1c2-7d3e-7c10-9a52-1f0e6c2b8d41"),
    "audit.action": "UPDATE",
    "audit.outcome": "success",
    "audit.target.type": "shop.Order",
    "audit.target.id": "7",
}


def measure() -> Iterator[Figure]:
    redactor = Redactor(RedactionConfig())
    clean = _cost(redactor, lambda number: _span(number, {}))
    yield Figure(
        name="redaction of a clean span",
        value=clean,
        unit="µs",
        goal=_GOAL_US,
        note=f"15 attributes, mean of {_SPANS:,} spans whose values differ",
    )
    yield Figure(
        name="… with five events",
        value=_cost(redactor, lambda number: _span(number, {}, events=5)),
        unit="µs",
    )
    yield Figure(
        name="… with one secret",
        value=_cost(
            redactor, lambda number: _span(number, {"http.request.header.authorization": "Bearer abc"})
        ),
        unit="µs",
    )


_tracer = TracerProvider().get_tracer("benchmarks")


def _span(number: int, more: dict[str, str], events: int = 0) -> ReadableSpan:
    # Paths and ports differ from span to span: a cache keyed by values must not look better than it is.
    varying = {"url.path": f"/orders/{number}/", "client.port": 10_000 + number % 50_000}
    span = _tracer.start_span(
        "POST orders/<int:pk>/", kind=SpanKind.SERVER, attributes=_ATTRIBUTES | varying | more
    )
    for _ in range(events):
        span.add_event("shop.order.update", _EVENT)
    span.end()
    assert isinstance(span, ReadableSpan)
    return span


def _cost(redactor: Redactor, make: Callable[[int], ReadableSpan]) -> float:
    """Return the µs a span costs: the median over twenty batches of their mean."""
    means = []
    for batch in range(20):
        spans = iter([make(batch * _SPANS // 20 + number) for number in range(_SPANS // 20)])
        means.append(statistics.fmean(each(lambda spans=spans: redactor.span(next(spans)), _SPANS // 20)))  # type: ignore[misc]
    return statistics.median(means) * 1e6


if __name__ == "__main__":
    report(measure())
