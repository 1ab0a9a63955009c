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
ATTRIBUTES = 25
MEMORY = 480 * 2**20


def block() -> bytes:
    """Return rows for a landing table in one block; the first has no valid id, so it is no record."""
    names = native.text(RECORD_ID) + b"".join(native.text(f"name {n}") for n in range(ATTRIBUTES))
    values = b"".join(native.text(f"a value of some length {n:4}") for n in range(ATTRIBUTES))
    attributes = (
        native.uint64s(range(ATTRIBUTES + 1, (ATTRIBUTES + 1) * RECORDS + 1, ATTRIBUTES + 1))
        + names * RECORDS
        + (native.text("none") + values)
        + (native.text(str(uuid.uuid4())) + values) * (RECORDS - 1)
    )
    nothing = native.uint64s([0] * RECORDS)
    columns = [
        Column("Timestamp", "DateTime64(9)", native.int64s(range(10**18, 10**18 + RECORDS))),
        *(Column(name, "String", b"\0" * RECORDS) for name in ("TraceId", "SpanId", "ServiceName", "Body")),
        Column("LogAttributes", "Map(String, String)", attributes),
        Column("ResourceAttributes", "Map(String, String)", nothing),
    ]
    return native.block(RECORDS, columns)


def test_a_block_of_65536_records_fits(tmp_path: Path) -> None:
    """60 MB in one insert, through the views, to an engine of 480 MB: all are kept."""
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
