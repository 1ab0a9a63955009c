"""G5: a sensitive value never reaches a span, the spool or the wire, wherever it came from.

Secrets are driven through every part of a record and of a span; then the raw bytes are searched: those of the
spool while the sink is down, and those a sink and a collector received over OTLP.
"""

from __future__ import annotations

import base64
import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.trace import Link, SpanContext, Status, StatusCode

import otel_audit
from otel_audit.audit_context import moment
from otel_audit.audit_record import AuditRecord, Bulk, Change, Column, Target
from otel_audit.config.model import AuditConfig, RedactionConfig, SinkConfig, SpanEventConfig, SpoolConfig
from otel_audit.pipeline import provider

SECRET = "hunter2-q7x"
CARD = "4111111111111111"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV"
AWS = "AKIAIOSFODNN7EXAMPLE"
BASIC = base64.b64encode(f"bob:{SECRET}".encode()).decode()
PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIq7xq7xq7x\n-----END EC PRIVATE KEY-----"
OWN = "patient-4711"
NEEDLES = (SECRET, CARD, JWT, AWS, BASIC, "MHcCAQEEIq7xq7xq7x", OWN, "4111 1111 1111 1111")
CANARY = "canary-that-must-arrive"

# Texts a secret hides in, with no help from the name they stand under.
HIDING = [
    f"password={SECRET}",
    f"/login?next=%2F&password={SECRET}#x",
    f"next={quote(f'/login?token={SECRET}', safe='')}",
    f"https://bob:{SECRET}@db.example/x",
    json.dumps({"outer": [{"api_key": SECRET}]}),
    json.dumps(json.dumps({"client_secret": SECRET})),
    repr({"password": SECRET, "n": 1}),
    f"Authorization: Bearer {SECRET}\r\nHost: x",
    f"Cookie: a=b; sessionid={SECRET}; c=d",
    f"UPDATE u SET password = '{SECRET}' WHERE id = 7",
    f"INSERT INTO u (id, token) VALUES (1, '{SECRET}'), (2, '{SECRET}')",
    f"DETAIL:  Key (session_key)=({SECRET}) already exists.",
    f"DETAIL:  Failing row contains (1, {SECRET}, 2).",
    f"(x) boom [SQL: UPDATE u SET password = %s]\n[parameters: ('{SECRET}',)]\n",
    f"mysql --password {SECRET} --user bob",
    f"<secret>{SECRET}</secret>",
    f"paid with {CARD}",
    "paid with 4111 1111 1111 1111, thanks",
    f"token {JWT}",
    f"key {AWS}",
    f"sent Basic {BASIC}",
    f"key\n{PEM}",
    f"see {OWN}",
]
NAMED: dict[str, Any] = {
    "password": SECRET,
    "api_key": SECRET,
    "refreshToken": SECRET,
    "http.request.header.authorization": SECRET,
    "http.request.header.cookie": [SECRET],
    "credentials": {"user": SECRET},
    "tokens": [SECRET, SECRET],
    "cvv": SECRET,
}


class Sink:
    """Receives OTLP over HTTP and keeps the raw bodies, decompressed."""

    def __init__(self, port: int = 0) -> None:
        bodies: list[bytes] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                bodies.append(
                    gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                )
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._bodies = bodies
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def received(self) -> bytes:
        return b"\n".join(self._bodies)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.close()


def started(directory: Path, endpoint: str) -> provider.AuditPipeline:
    pipeline = otel_audit.setup(
        AuditConfig(
            spool=SpoolConfig(directory=str(directory)),
            sink=SinkConfig(endpoint=endpoint, shutdown_timeout=0.0, compression="none"),
            redaction=RedactionConfig(values=[r"patient-\d+"], hmac_key="sixteen letters!"),
            span_event=SpanEventConfig(content="full"),
        ),
        instrument=False,
    )
    assert pipeline is not None
    return pipeline


@pytest.fixture(autouse=True)
def stopped() -> Iterator[None]:
    yield
    otel_audit.shutdown()


def seeded(pipeline: provider.AuditPipeline) -> list[AuditRecord]:
    """Make records with secrets in every part that takes what an application or a client hands in."""
    records = []
    for text in HIDING:
        records.append(
            pipeline.logger.record(
                "shop.order.update",
                "UPDATE",
                target=Target("shop.Order", f"{CANARY}/{text}"),
                related=[Target("shop.Order", text)],
                changes=[
                    Change("note", text, {"deep": [text, {"deeper": text}]}),
                    Change("password", SECRET, SECRET),
                    Change("listed", [text], (text,)),
                ],
                image={"note": text, "secret": SECRET},
                message=text,
                error=text,
                attributes={"note": text, "list": [text]} | NAMED,
                strategies={"listed": "hmac"},
            )
        )
        records.append(
            pipeline.logger.record(
                "shop.order.update",
                "UPDATE",
                bulk=Bulk(
                    count=2,
                    keys=["1", text],
                    columns=[
                        Column("note", old=[text, "x"], new=["x", text]),
                        Column("token", new=[SECRET, SECRET]),
                    ],
                ),
            )
        )
    return records


def assert_clean(raw: bytes) -> None:
    found = [needle for needle in NEEDLES if needle.encode() in raw]
    assert not found, [raw[raw.index(n.encode()) - 120 : raw.index(n.encode()) + 40] for n in found]
    for needle in NEEDLES:
        assert base64.b64encode(needle.encode())[:-4] not in raw, f"{needle} in base64"


def spool_bytes(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(directory.rglob("*")) if file.is_file())


def test_nothing_sensitive_is_in_the_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", f"deployment.token={SECRET},service.name={CANARY}")
    pipeline = started(tmp_path, "http://127.0.0.1:9/v1/audit")
    with otel_audit.context(
        actor=f"token={SECRET}", reason=f"secret: {SECRET}", password=SECRET, note=HIDING[0]
    ):
        records = seeded(pipeline)
        handle = pipeline.logger.intend(records)
        pipeline.logger.settle(handle, "success")
        pipeline.logger.intend(records)  # without its marker: a crash would leave it like this
        pipeline.logger.emit(*records)
    raw = spool_bytes(tmp_path)
    assert raw.count(CANARY.encode()) > len(HIDING), "something must be there to be searched"
    assert_clean(raw)


def test_nothing_sensitive_is_on_the_wire_of_records(tmp_path: Path, sink: Sink) -> None:
    pipeline = started(tmp_path, sink.url + "/v1/audit")
    pipeline.logger.emit(*seeded(pipeline))
    assert pipeline.flush(30)
    assert CANARY.encode() in sink.received
    assert_clean(sink.received)


def drive_spans(tracer_provider: TracerProvider) -> None:
    tracer = tracer_provider.get_tracer("tests")
    for text in HIDING:
        link = Link(SpanContext(1, 2, is_remote=False), {"note": text} | {"password": SECRET})
        with tracer.start_as_current_span(text, attributes={"note": text} | NAMED, links=[link]) as span:
            span.set_attributes(
                {
                    "url.query": text,
                    "url.full": text,
                    "http.target": text,
                    "db.query.text": text,
                    "db.statement": text,
                    "canary": CANARY,
                    "list": [text, "plain"],
                    "bytes": text.encode(),
                }
            )
            span.add_event(text, {"note": text, "password": SECRET})
            try:
                raise ValueError(text)
            except ValueError as error:
                span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, text))


@pytest.mark.parametrize("order", ["exporters before audit", "exporters after audit"])
def test_nothing_sensitive_is_on_the_wire_of_spans(tmp_path: Path, sink: Sink, order: str) -> None:
    resource = Resource({"process.command_args": ["serve", "--token", SECRET], "service.name": CANARY})
    tracer_provider = TracerProvider(resource=resource, shutdown_on_exit=False)

    def add_exporters() -> None:
        for processor in (BatchSpanProcessor, SimpleSpanProcessor):
            tracer_provider.add_span_processor(processor(OTLPSpanExporter(sink.url + "/v1/traces")))

    if order == "exporters before audit":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("opentelemetry.trace.get_tracer_provider", lambda: tracer_provider)
            add_exporters()
            started(tmp_path, "http://127.0.0.1:9/v1/audit")
    else:
        started(tmp_path, "http://127.0.0.1:9/v1/audit")
        add_exporters()
    drive_spans(tracer_provider)
    tracer_provider.shutdown()
    assert sink.received.count(CANARY.encode()) >= 2 * len(HIDING)
    assert_clean(sink.received)


def test_the_full_event_of_a_record_carries_nothing_sensitive(tmp_path: Path, sink: Sink) -> None:
    pipeline = started(tmp_path, "http://127.0.0.1:9/v1/audit")
    tracer_provider = TracerProvider(shutdown_on_exit=False)
    tracer_provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(sink.url + "/v1/traces")))
    with tracer_provider.get_tracer("tests").start_as_current_span("request"):
        pipeline.logger.emit(*seeded(pipeline)[:20], at=moment())
    assert CANARY.encode() in sink.received
    assert_clean(sink.received)


def test_binary_values_are_searched_before_they_become_base64(tmp_path: Path) -> None:
    pipeline = started(tmp_path, "http://127.0.0.1:9/v1/audit")
    data = b"\x00\xff note password=" + SECRET.encode() + b"\x00 " + CANARY.encode()
    record = pipeline.logger.record(
        "shop.order.update",
        "UPDATE",
        changes=[Change("document", data, memoryview(data))],
        image={"document": data, "blob": b"\x00\xff\x10"},
        attributes={"list": [bytearray(data)]},
    )
    assert record.image["blob"] == base64.b64encode(b"\x00\xff\x10").decode()
    texts = [
        record.changes[0].old,
        record.changes[0].new,
        record.image["document"],
        record.attributes["list"][0],
    ]
    for text in texts:
        found = base64.b64decode(text)
        assert SECRET.encode() not in found
        assert CANARY.encode() in found


def test_when_redaction_itself_fails_the_values_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = started(tmp_path, "http://127.0.0.1:9/v1/audit")
    monkeypatch.setattr("otel_audit.redaction.value_redactor.ValueRedactor.text", lambda *_: 1 / 0)
    for text in HIDING:
        pipeline.logger.emit(
            pipeline.logger.record(
                "shop.order.update",
                "UPDATE",
                target=Target("shop.Order", "7"),
                related=[Target("shop.Order", text)],
                changes=[Change("note", text, [text])],
                image={"note": text},
                message=text,
                error=text,
                attributes={"note": text},
            )
        )
    raw = spool_bytes(tmp_path)
    assert raw.count(b"shop.order.update") >= len(HIDING)
    assert_clean(raw)
