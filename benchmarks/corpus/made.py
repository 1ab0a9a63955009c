"""Make the records, in a process of its own: ``python -m benchmarks.corpus.made FILE ROUNDS``.

They are captured by the real instrumentor, read back from the spool, and then shipped to a sink of our own:
what is kept and what is sent are both compared.
"""

from __future__ import annotations

import datetime
import gzip
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import django
from django.core.management import call_command
from opentelemetry import trace
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from benchmarks.corpus.canonical import Canonical
from benchmarks.pipelines import directory
from otel_audit.audit_record import AuditRecord
from otel_audit.config.model import (
    AuditConfig,
    ContextConfig,
    DjangoConfig,
    ModelConfig,
    RedactionConfig,
    SinkConfig,
    SpoolConfig,
)
from otel_audit.pipeline import provider
from otel_audit.pipeline.delivery.drain import drain
from otel_audit.pipeline.spool import directory as layout
from otel_audit.pipeline.spool.cursor import Position
from otel_audit.pipeline.spool.reader import StreamReader

_SEED = 20_26
_NOW = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC)


def _configuration(spool: Path, endpoint: str) -> AuditConfig:
    return AuditConfig(
        django=DjangoConfig(
            models=["corpus.*", "auth.*", "!corpus.Unaudited"],
            reads=["corpus.Watched"],
            max_bulk_rows=30,
            max_bulk_ids=60,
            max_read_ids=10,
            model={
                "corpus.Card": ModelConfig(
                    fields={"number": "keep_last:4", "pin": "drop", "email": "mask", "phone": "hmac"}
                ),
                "corpus.Exact": ModelConfig(old_values="exact"),
                "corpus.Snapshot": ModelConfig(snapshot=True),
                "corpus.Plain": ModelConfig(ignore=["updated"]),
            },
        ),
        context=ContextConfig(code_location=True, actor_roles=True),
        redaction=RedactionConfig(hmac_key="a key for benchmarks only", unknown_user_names="hmac"),
        spool=SpoolConfig(directory=str(spool)),
        sink=SinkConfig(endpoint=endpoint),
    )


class _Events(SpanProcessor):
    """Keeps the events of all spans, in the order in which the spans end."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Take the events of a span."""
        self.events += [(event.name, dict(event.attributes or {})) for event in span.events]


@contextmanager
def _sink() -> Iterator[tuple[str, list[bytes]]]:
    """Run a sink that keeps what it is sent; return its address, and the list it keeps it in."""
    bodies: list[bytes] = []

    class Keep(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            bodies.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Keep) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1/audit", bodies
        finally:
            server.shutdown()
            thread.join()


def _captured(config: AuditConfig, rounds: int) -> list[tuple[str, dict[str, Any]]]:
    """Do all the work ``rounds`` times, leaving the records in the spool; return the events on spans."""
    events = _Events()
    tracers = TracerProvider()
    tracers.add_span_processor(events)
    trace.set_tracer_provider(tracers)
    logging.getLogger("django.request").setLevel(logging.CRITICAL)  # pages fail and refuse on purpose
    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)

    from benchmarks.corpus import work
    from benchmarks.corpus.chance import Chance
    from otel_audit.instrumentation.django import DjangoAuditInstrumentor

    provider.start(config, ship=False)
    instrumentor = DjangoAuditInstrumentor()
    instrumentor.instrument()
    try:
        work.prepare()
        for number in range(rounds):
            for step in work.WORK:
                # Each step has a seed of its own: what one draws does not move the values of the next.
                step(Chance(f"{_SEED} {number} {step.__name__}"))
    finally:
        instrumentor.uninstrument()
        provider.stop()
    return events.events


def _kept(spool: Path) -> Iterator[AuditRecord]:
    for incarnation in layout.list_incarnations(spool):
        reader = StreamReader(incarnation, Position())
        for item in reader.items():
            if isinstance(item.content, AuditRecord):
                yield item.content
        reader.close()


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


def _sent(bodies: list[bytes], canonical: Canonical) -> Iterator[str]:
    for body in bodies:
        request = ExportLogsServiceRequest.FromString(body)
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                for log in scope.log_records:
                    yield canonical.sent(
                        {pair.key: _value(pair.value) for pair in log.attributes},
                        {
                            "event_name": log.event_name,
                            "body": _value(log.body),
                            "trace": log.trace_id.hex(),
                            "span": log.span_id.hex(),
                            "severity": log.severity_number,
                            "flags": log.flags,
                        },
                    )


def main(file: str, rounds: int) -> None:
    """Write the records of ``rounds`` to ``file``, in the order in which they were kept, then sent."""
    canonical = Canonical()
    with directory() as path, _sink() as (endpoint, bodies), Path(file).open("w", encoding="utf-8") as out:
        config = _configuration(path / "spool", endpoint)
        with mock.patch("django.utils.timezone.now", return_value=_NOW):
            events = _captured(config, rounds)
        count = 0
        for record in _kept(path / "spool"):
            out.write(f"{canonical.record(record)}\n")
            count += 1
        for name, attributes in events:
            out.write(f"{canonical.event(name, attributes)}\n")
        drained = drain(path / "spool", config)
        if not drained.complete:
            raise RuntimeError(f"not all records were sent: {drained.error}")
        for line in _sent(bodies, canonical):
            out.write(f"{line}\n")
    print(f"{count} records", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
