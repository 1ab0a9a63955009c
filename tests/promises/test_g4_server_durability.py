"""G4 at the store: what `otel-audit serve` acknowledged is there after ``kill -9``, and is seen once."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from pathlib import Path

import grpc
import httpx
import pytest

from otel_audit.audit_record import AuditRecord, Bulk, Column, Target
from otel_audit.store.client import StoreClient
from tests.server.otlp_messages import audit, traces
from tests.trail import Serving, land, record, serving

PROTOBUF = {"Content-Type": "application/x-protobuf"}
EXPORT = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
ENOUGH = 600


class Load:
    """Senders of every kind at once, each noting what was acknowledged to it."""

    def __init__(self, running: Serving) -> None:
        self.records: dict[str, int] = {}
        self.spans: list[str] = []
        self.sent_again: list[AuditRecord] = []
        self._running = running
        self._stop = False
        self._threads = [
            threading.Thread(target=work)
            for work in (self._audit, self._audit, self._bulk, self._spans, self._grpc, self._collector)
        ]

    def run_until(self, enough: int) -> None:
        """Send until so many records are acknowledged by each kind together, and go on."""
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + 60
        while (len(self.records) < enough or len(self.spans) < 50) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(self.records) >= enough

    def join(self) -> None:
        """Wait until all senders have noticed that nobody answers."""
        self._stop = True
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _post(self, path: str, body: bytes) -> bool:
        try:
            return (
                httpx.post(self._running.http + path, content=body, headers=PROTOBUF, timeout=20).status_code
                == 200
            )
        except httpx.TransportError:
            self._stop = True
            return False

    def _audit(self) -> None:
        while not self._stop:
            batch = [record("a.b", "READ", at=time.time_ns()) for _ in range(50)]
            if self._post("/v1/audit", audit(batch).SerializeToString()):
                self.records.update((one.id, 1) for one in batch)
                self.sent_again = batch

    def _bulk(self) -> None:
        while not self._stop:
            keys = [str(number) for number in range(40)]
            one = record(
                "a.b",
                "UPDATE",
                at=time.time_ns(),
                target=Target("shop.Product"),
                bulk=Bulk(40, keys, [Column("price", keys, keys)]),
            )
            if self._post("/v1/audit", audit([one]).SerializeToString()):
                self.records[one.id] = 41

    def _spans(self) -> None:
        while not self._stop:
            ids = [uuid.uuid4().hex for _ in range(20)]
            spans = [{"trace_id": one, "span_id": one[:16]} for one in ids]
            if self._post("/v1/traces", traces(spans).SerializeToString()):
                self.spans += ids

    def _grpc(self) -> None:
        with grpc.insecure_channel(self._running.grpc) as channel:
            export = channel.unary_unary(EXPORT)
            while not self._stop:
                batch = [record("a.b", "READ", at=time.time_ns()) for _ in range(5)]
                try:
                    export(audit(batch).SerializeToString(), timeout=20)
                except grpc.RpcError:
                    return
                self.records.update((one.id, 1) for one in batch)

    def _collector(self) -> None:
        client = StoreClient(self._running.clickhouse)
        while not self._stop:
            batch = [record("a.b", "READ", at=time.time_ns()) for _ in range(5)]
            try:
                land(client, batch)
            except Exception:  # noqa: BLE001 - killed in the middle of it
                return
            self.records.update((one.id, 1) for one in batch)


@pytest.mark.parametrize("flush", ["--fsync", "--no-fsync"])
def test_all_that_was_acknowledged_is_there_after_kill_9(tmp_path: Path, flush: str) -> None:
    """Three times in a row, over HTTP, gRPC and the Collector's way: records, their rows, and spans."""
    acknowledged: dict[str, int] = {}
    spans: list[str] = []
    for _ in range(3):
        with serving(tmp_path, flush) as running:
            load = Load(running)
            load.run_until(ENOUGH)
            os.kill(running.pid, signal.SIGKILL)
            load.join()
        acknowledged |= load.records
        spans += load.spans
    with serving(tmp_path, flush) as running:
        client = StoreClient(running.clickhouse)
        # What was sent again because its answer was lost is seen once.
        again = audit(load.sent_again).SerializeToString()
        assert httpx.post(f"{running.http}/v1/audit", content=again, headers=PROTOBUF).status_code == 200
        rows = client.rows(
            "SELECT toString(record_id), count(), uniqExact(ordinal) FROM otel.audit_trail GROUP BY 1"
        )
        traced = client.rows("SELECT TraceId FROM otel.otel_traces")
        located = client.rows("SELECT TraceId FROM otel.otel_traces_trace_id_ts")
        lost = client.rows("SELECT count() FROM otel.otel_logs")
    found = {str(one): (count, distinct) for one, count, distinct in rows}
    assert {one: found.get(one) for one in acknowledged} == {
        one: (count, count) for one, count in acknowledged.items()
    }
    assert set(spans) <= {row[0] for row in traced}
    assert set(spans) <= {row[0] for row in located}
    assert lost == [[0]]


def test_a_record_is_whole_or_not_there(tmp_path: Path) -> None:
    """Also what was not acknowledged: a bulk record has all its rows, or none."""
    with serving(tmp_path) as running:
        load = Load(running)
        load.run_until(ENOUGH)
        os.kill(running.pid, signal.SIGKILL)
        load.join()
    with serving(tmp_path) as running:
        partial = StoreClient(running.clickhouse).rows(
            "SELECT record_id, uniqExact(ordinal) AS n, any(row_count) AS rows FROM otel.audit_events "
            "GROUP BY record_id HAVING n != if(rows > 0, rows + 1, 1)"
        )
    assert partial == []
