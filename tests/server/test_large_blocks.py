"""A client's block of many records is inserted in pieces, so that the memory of the engine suffices."""

from __future__ import annotations

import uuid
from pathlib import Path

import httpx

from otel_audit.semconv import RECORD_ID
from otel_audit.server.engine import native
from otel_audit.server.engine.native import Column
from otel_audit.store.schema import EVENTS, LANDING, LOGS_TABLE
from tests.trail import DRIVER, serving

RECORDS = 65_536
SIZE = 850
MEMORY = 340 * 2**20


def block() -> bytes:
    """Return rows for a landing table in one block; the first has no valid id, so it is no record."""
    names = (native.text(RECORD_ID) + native.text("note")) * RECORDS
    note = native.text("x" * SIZE)
    values = native.text("none") + note + (native.text(str(uuid.uuid4())) + note) * (RECORDS - 1)
    offsets = native.uint64s(range(2, 2 * RECORDS + 1, 2))
    nothing = native.uint64s([0] * RECORDS)
    columns = [
        Column("Timestamp", "DateTime64(9)", native.int64s(range(10**18, 10**18 + RECORDS))),
        *(Column(name, "String", b"\0" * RECORDS) for name in ("TraceId", "SpanId", "ServiceName", "Body")),
        Column("LogAttributes", "Map(String, String)", offsets + names + values),
        Column("ResourceAttributes", "Map(String, String)", nothing),
    ]
    return native.block(RECORDS, columns)


def test_a_block_of_65536_records_fits(tmp_path: Path) -> None:
    """55 MB in one insert, through the views: all are kept, by an engine of half a gigabyte."""
    rows = block()
    columns = "Timestamp, TraceId, SpanId, ServiceName, Body, LogAttributes, ResourceAttributes"
    with (
        serving(tmp_path, OTEL_AUDIT_SERVER_MEMORY_BYTES=str(MEMORY)) as running,
        httpx.Client(base_url=running.clickhouse, timeout=120) as client,
    ):
        statement = f"INSERT INTO otel.{LANDING} ({columns}) FORMAT Native"
        inserted = client.post("/", params={"query": statement}, content=rows, headers=DRIVER)
        assert inserted.status_code == 200, inserted.text
        counts = [
            client.get("/", params={"query": f"SELECT count() FROM otel.{table}"}).text.strip()
            for table in (EVENTS, LOGS_TABLE)
        ]
    assert counts == [str(RECORDS - 1), "1"]
