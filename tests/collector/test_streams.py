"""Several services and senders at once: each record in its own stream, in order."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.collector.running import Application, delivered, kill, site
from tests.e2e.running import eventually


def test_each_senders_records_are_in_order_although_batches_arrive_out_of_order(tmp_path: Path) -> None:
    """Three senders of two services; the Collector dies and the store is away meanwhile: batches overtake."""
    services = {"one": "shop", "two": "shop", "three": "billing"}
    with site(tmp_path) as (store, collector, _, trail), ExitStack() as stack:
        applications = {
            name: Application(tmp_path, collector.sink, service=service, name=name)
            for name, service in services.items()
        }
        for application in applications.values():
            stack.callback(kill, application)
        store.start()
        collector.start()
        for application in applications.values():
            application.start(rate=200)
        eventually(lambda: trail.count() > 500, "records arrive")
        store.stop()
        eventually(
            lambda: collector.metrics()["otelcol_exporter_queue_size clickhouse/audit"] > 1000,
            "records wait",
            60,
        )
        collector.kill()
        collector.start()
        store.start()
        for application in applications.values():
            application.stop()
            application.drain()
            delivered(application)

        told = {name: application.told() for name, application in applications.items()}
        trail.wait_for([identifier for each in told.values() for identifier in each.ids])
        for each in told.values():
            trail.check(each)
        rows = store.query(
            "SELECT stream, groupUniqArray(service) AS services, "
            "groupArray(toString(record_id)) AS ids FROM (SELECT * FROM otel.audit_events FINAL "
            "WHERE ordinal = 0 AND event_name = 'billing.invoice.update' ORDER BY stream, sequence) "
            "GROUP BY stream"
        )
        streams = {tuple(row["ids"]): row["services"] for row in rows}
        assert streams == {tuple(told[name].ids): [service] for name, service in services.items()}
