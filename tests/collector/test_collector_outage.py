"""The Collector is away, or takes no more: the application's spool holds."""

from __future__ import annotations

import time
from pathlib import Path

from tests.collector.running import OUTAGES, delivered, site
from tests.e2e.running import eventually

RATE = 500


@OUTAGES
def test_the_spool_holds_while_the_collector_is_stopped(tmp_path: Path, outage: float) -> None:
    with site(tmp_path) as (store, collector, application, trail):
        store.start()
        collector.start()
        application.start(rate=RATE)
        eventually(lambda: trail.count() > RATE, "records arrive")

        collector.stop()
        time.sleep(outage)
        assert application.waiting() > RATE * outage / 4
        collector.start()

        application.stop()
        application.drain()
        delivered(application)
        told = application.told()
        assert len(told.ids) > RATE * outage / 4
        trail.wait_for(told.ids)
        trail.check(told)


def test_a_full_queue_pushes_back_and_the_spool_waits(tmp_path: Path) -> None:
    """A sender is kept waiting, gives up, and comes again; nothing is dropped to make room."""
    capacity = 10_000  # no less: the least batch must fit
    with site(
        tmp_path,
        environment={"OTELCOL_QUEUE_RECORDS": str(capacity)},
        application={"OTEL_AUDIT_SINK_TIMEOUT": "1"},
    ) as (store, collector, application, trail):
        collector.start()
        application.start(rate=RATE)
        eventually(lambda: len(application.told().ids) > capacity + 2000, "more than fits is recorded", 60)
        eventually(
            lambda: collector.metrics()["otelcol_receiver_refused_log_records"] > 0, "it pushes back", 60
        )
        metrics = collector.metrics()
        assert 0 < metrics["otelcol_exporter_queue_size clickhouse/audit"] <= capacity
        assert metrics["otelcol_exporter_queue_capacity clickhouse/audit"] == capacity
        assert application.waiting() > 1000

        store.start()
        application.stop()
        application.drain()
        delivered(application)
        told = application.told()
        trail.wait_for(told.ids)
        trail.check(told)
