"""A table is missing in the store: what belongs there is kept, and somebody can see it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tests.collector.running import delivered, mirrored_ids, site
from tests.e2e.running import eventually


def test_records_for_a_missing_table_are_kept_and_written_once_it_is_back(tmp_path: Path) -> None:
    """Kept twice: in the queue, which tries for ever and shows how much waits, and in the mirror's files."""
    with site(tmp_path, ["config.yaml", "profiles/mirror.yaml"]) as (store, collector, application, trail):
        store.arguments = [sys.executable, "-m", "tests.collector.operated_store", "audit_log"]
        store.start()
        assert store.process is not None
        os.kill(store.process.pid, signal.SIGUSR1)
        eventually(lambda: not store.query("EXISTS otel.audit_log")[0]["result"], "the table is gone")

        collector.start()
        application.start(rate=200)
        eventually(lambda: len(application.told().ids) > 500, "it records")
        application.stop()
        delivered(application)
        told = application.told()

        eventually(lambda: set(told.ids) <= set(mirrored_ids(collector.mirrored())), "the mirror has all")
        eventually(lambda: "audit_log" in collector.output(), "its log names the table")
        metrics = collector.metrics()
        assert metrics["otelcol_exporter_queue_size clickhouse/audit"] >= len(told.ids)
        assert metrics["otelcol_exporter_sent_log_records clickhouse/audit"] == 0
        assert metrics["otelcol_exporter_send_failed_log_records clickhouse/audit"] == 0  # nothing given up
        assert trail.count() == 0

        os.kill(store.process.pid, signal.SIGUSR2)
        trail.wait_for(told.ids)
        trail.check(told)
        eventually(
            lambda: collector.metrics()["otelcol_exporter_queue_size clickhouse/audit"] == 0,
            "the queue is empty",
        )
