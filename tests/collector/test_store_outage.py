"""The store is away: what the Collector has accepted waits on its disk."""

from __future__ import annotations

import time
from pathlib import Path

from tests.collector.running import OUTAGES, delivered, site
from tests.e2e.running import eventually

RATE = 500


@OUTAGES
def test_nothing_is_lost_while_the_store_is_down(tmp_path: Path, outage: float) -> None:
    """500 records a second go on; the application's spool stays short, for the Collector takes them all."""
    with site(tmp_path) as (store, collector, application, trail):
        store.start()
        collector.start()
        application.start(rate=RATE)
        eventually(lambda: trail.count() > RATE, "records arrive")

        store.stop()
        time.sleep(outage)
        assert collector.metrics()["otelcol_exporter_queue_size clickhouse/audit"] > RATE * outage / 4
        store.start()

        application.stop()
        delivered(application)
        told = application.told()
        assert len(told.ids) > RATE * outage / 4
        trail.wait_for(told.ids)
        trail.check(told)
        eventually(
            lambda: collector.metrics()["otelcol_exporter_queue_size clickhouse/audit"] == 0,
            "the queue is empty",
        )
        assert collector.metrics()["otelcol_exporter_send_failed_log_records"] == 0


def test_a_store_that_is_down_when_the_collector_starts_costs_the_event_name_only_where_nobody_looks(
    tmp_path: Path,
) -> None:
    """The exporter then leaves ``EventName`` empty for the rest of its life; the trail is whole."""
    with site(tmp_path) as (store, collector, application, trail):
        collector.start()
        application.start(rate=100)
        eventually(lambda: len(application.told().ids) > 200, "it records")
        eventually(
            lambda: collector.metrics()["otelcol_exporter_queue_size clickhouse/audit"] > 100, "they wait"
        )
        store.start()
        application.stop()
        delivered(application)
        told = application.told()
        trail.wait_for(told.ids)
        trail.check(told)
        assert "schema detection failed" in collector.output()
        names = store.query("SELECT event_name, count() AS n FROM otel.audit_trail GROUP BY event_name")
        assert {row["event_name"] for row in names} >= {"billing.invoice.update"}
        assert "" not in {row["event_name"] for row in names}
