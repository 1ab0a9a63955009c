"""kill -9: of the Collector, of everything."""

from __future__ import annotations

import random
import time
from pathlib import Path

from tests.collector.running import delivered, kill, site
from tests.e2e.running import eventually

RATE = 500


def test_a_collector_killed_while_the_store_is_down_has_kept_what_it_accepted(tmp_path: Path) -> None:
    with site(tmp_path) as (store, collector, application, trail):
        store.start()
        collector.start()
        application.start(rate=RATE)
        eventually(lambda: trail.count() > RATE, "records arrive")
        store.stop()
        for _ in range(2):
            eventually(
                lambda: collector.metrics()["otelcol_exporter_queue_size clickhouse/audit"] > RATE,
                "records wait",
                60,
            )
            collector.kill()
            collector.start()
        application.stop()
        delivered(application)
        collector.kill()  # now only its disk has them
        collector.start()
        store.start()
        told = application.told()
        trail.wait_for(told.ids)
        trail.check(told)


def test_a_collector_killed_again_and_again_while_it_starts_has_kept_what_it_accepted(
    tmp_path: Path,
) -> None:
    """As where memory or a probe ends it each time: what was being sent is put back before it is forgotten.

    The queue as released loses more than half of it (collector/patches/exporterhelper.patch).
    """
    choose = random.Random(11)
    with site(tmp_path, application={"OTEL_AUDIT_SINK_BATCH_RECORDS": "20"}) as (
        store,
        collector,
        application,
        trail,
    ):
        collector.start()
        application.start(rate=RATE)
        eventually(
            lambda: collector.metrics()["otelcol_exporter_queue_size clickhouse/audit"] > 4 * RATE,
            "records wait",
            60,
        )
        application.stop()
        delivered(application)
        for _ in range(12):
            collector.kill()
            collector.start(wait=False)
            time.sleep(choose.uniform(0.1, 1.5))
        collector.kill()
        collector.start()
        store.start()
        told = application.told()
        trail.wait_for(told.ids)
        trail.check(told)


def test_a_collector_stopped_and_started_while_the_store_is_down_has_kept_what_it_accepted(
    tmp_path: Path,
) -> None:
    """SIGTERM, as an update of the Collector sends it: also where its queue is full and senders wait."""
    environment = {"OTELCOL_QUEUE_RECORDS": "10000"}
    with site(tmp_path, environment=environment, application={"OTEL_AUDIT_SINK_TIMEOUT": "2"}) as (
        store,
        collector,
        application,
        trail,
    ):
        collector.start()
        application.start(rate=2 * RATE)
        for _ in range(2):
            eventually(
                lambda: collector.metrics()["otelcol_receiver_refused_log_records"] > 0,
                "the queue is full",
                90,
            )
            collector.stop()
            collector.start()
        store.start()
        application.stop()
        application.drain()
        delivered(application)
        told = application.told()
        trail.wait_for(told.ids)
        trail.check(told)


def test_a_collector_killed_while_it_is_busy_loses_nothing(tmp_path: Path) -> None:
    """Again and again, in the middle of requests and inserts: what was sent twice is seen once."""
    choose = random.Random(7)
    with site(tmp_path) as (store, collector, application, trail):
        store.start()
        collector.start()
        application.start(rate=RATE)
        for _ in range(6):
            seen = trail.count()
            eventually(lambda seen=seen: trail.count() > seen, "records arrive", 60)  # type: ignore[misc]
            time.sleep(choose.uniform(0, 0.7))
            collector.kill()
            collector.start()
        application.stop()
        application.drain()
        delivered(application)
        told = application.told()
        trail.wait_for(told.ids)
        trail.check(told)


def test_all_killed_at_once_and_started_in_the_worst_order(tmp_path: Path) -> None:
    """Application, Collector and store die in one moment; then each starts before what it depends on."""
    with site(tmp_path) as (store, collector, application, trail):
        store.start()
        collector.start()
        application.start(rate=RATE)
        eventually(lambda: trail.count() > RATE, "records arrive")
        for part in (store, collector, application):
            kill(part)

        application.start(rate=RATE)
        eventually(lambda: application.waiting() > RATE, "the spool holds", 60)
        collector.start()
        eventually(
            lambda: collector.metrics()["otelcol_exporter_queue_size clickhouse/audit"] > RATE,
            "the queue holds",
            60,
        )
        store.start()
        application.stop()
        application.drain()
        delivered(application)
        told = application.told()
        trail.wait_for(told.ids)
        seen = trail.ids()
        assert set(seen.values()) == {1}, "seen twice"
        assert trail.gaps() == []
