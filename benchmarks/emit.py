"""From a call to a record on disk: ten attributes and a change of eight fields."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from benchmarks.figures import Figure, each, quantile, report
from benchmarks.pipelines import configuration
from otel_audit.audit_context import context
from otel_audit.audit_record import Actor, Change, Target
from otel_audit.pipeline import provider

_BURST = 100
_BURSTS = 60
_GOAL_US = 30

_CHANGES = [
    Change("name", "Assam", "Assam, second flush"),
    Change("sku", "A-000017", "A-000018"),
    Change("price", "9.99", "10.99", "decimal"),
    Change("stock", 12, 11),
    Change("weight", 0.5, 0.25),
    Change("active", True, False),
    Change("category", "black", "black tea"),
    Change("updated", "2026-11-23T12:00:00+00:00", "2026-11-23T12:00:01+00:00", "datetime"),
]
_ATTRIBUTES = {
    "shop.till": "3",
    "shop.shift": "late",
    "shop.branch": "Uji",
    "shop.channel": "counter",
    "shop.currency": "JPY",
    "shop.total": 1099,
    "shop.items": 3,
    "shop.member": True,
    "shop.campaign": "autumn",
    "shop.note": "gift",
}


def measure() -> Iterator[Figure]:
    with configuration() as config:
        pipeline = provider.start(config)
        try:
            with context(actor=Actor(id="7", type="user")):
                yield from _emit(pipeline)
        finally:
            provider.stop()


def _emit(pipeline: provider.AuditPipeline) -> Iterator[Figure]:
    logger = pipeline.logger
    target = Target("shop.Product", "7")

    def record() -> Any:
        return logger.record(
            "shop.product.update", "UPDATE", target=target, changes=_CHANGES, attributes=_ATTRIBUTES
        )

    made, kept, both = [], [], []
    for _ in range(_BURSTS):
        # In bursts, so that the sender takes its share of the time and yet catches up, as in an application.
        ready = iter([record() for _ in range(_BURST)])
        made += each(record, _BURST)
        kept += each(lambda ready=ready: logger.emit(next(ready)), _BURST)  # type: ignore[misc]
        both += each(lambda: logger.emit(record()), _BURST)
        time.sleep(0.05)
    note = f"{len(both)} records of 10 attributes and 8 changed fields, sender running"
    yield _figure("emit → spool, p50", kept, 0.5, _GOAL_US, note)
    yield _figure("emit → spool, p95", kept, 0.95)
    yield _figure("make and redact a record, p50", made, 0.5)
    yield _figure("make, redact, emit → spool, p50", both, 0.5)
    yield _figure("make, redact, emit → spool, p95", both, 0.95)


def _figure(
    name: str, samples: list[float], fraction: float, goal: float | None = None, note: str = ""
) -> Figure:
    return Figure(name=name, value=quantile(samples, fraction) * 1e6, unit="µs", goal=goal, note=note)


if __name__ == "__main__":
    report(measure())
