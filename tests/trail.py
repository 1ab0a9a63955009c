"""A real ``otel-audit serve`` with records in it, for tests that ask the trail."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from otel_audit.record import AuditRecord, new_record_id
from otel_audit.semconv import to_attributes
from otel_audit.store.client import StoreClient
from otel_audit.store.schema import TRACES, landing

COMMAND = (sys.executable, "-c", "from otel_audit.cli import main; main()")
START_SECONDS = 60


class Serving(NamedTuple):
    """Where a server of ours listens."""

    http: str
    grpc: str
    clickhouse: str
    pid: int


def clean_environment(**variables: str) -> dict[str, str]:
    """Give this process's environment without what would configure us or OpenTelemetry."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "DJANGO_"))}
    return kept | variables


@contextlib.contextmanager
def serving(directory: Path, *options: str, **variables: str) -> Iterator[Serving]:
    """Run ``otel-audit serve`` on free ports over ``directory``; stop it as a user would."""
    ports = [text for name in ("http", "grpc", "clickhouse") for text in (f"--{name}-port", "0")]
    process = subprocess.Popen(
        [*COMMAND, "serve", "--data", str(directory / "data"), "--no-fsync", *ports, *options],
        cwd=directory,
        env=clean_environment(**variables),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    said = ""
    try:
        while "queries" not in said:
            line = process.stderr.readline()
            assert line, f"otel-audit serve ended: {said}"
            said += line
        timer.cancel()
        found = {
            name: match.group(1)
            for name, match in (
                (name, re.search(rf"{name}\s+(\S+)", said))
                for name in ("OTLP over HTTP", "OTLP over gRPC", "queries")
            )
            if match
        }
        yield Serving(found["OTLP over HTTP"], found["OTLP over gRPC"], found["queries"], process.pid)
    finally:
        timer.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=START_SECONDS)


def record(event_name: str, action: str, *, at: int, **values: Any) -> AuditRecord:
    """Make a record whose id fits its time."""
    values.setdefault("id", new_record_id(at))
    return AuditRecord(timestamp=at, observed_timestamp=at, event_name=event_name, action=action, **values)


def land(client: StoreClient, records: Iterable[AuditRecord], *, service: str = "shop") -> None:
    """Insert records as a Collector does: routed by their log, every attribute as text."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for each in records:
        attributes = {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in to_attributes(each).items()
        }
        rows.setdefault(landing(each.log), []).append(
            {
                "Timestamp": f"{each.timestamp // 10**9}.{each.timestamp % 10**9:09d}",
                "TraceId": each.trace_id,
                "SpanId": each.span_id,
                "ServiceName": service,
                "Body": each.message,
                "LogAttributes": attributes,
                "ResourceAttributes": {"service.name": service, "host.name": "web-1"},
                "EventName": each.event_name,
            }
        )
    for table, landed in rows.items():
        client.insert(table, landed)


def land_span(client: StoreClient, **values: Any) -> None:
    """Insert one span, given by the columns of the exporter."""
    client.insert(TRACES, [values])
