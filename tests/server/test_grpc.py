"""OTLP over gRPC, by the SDK's own exporters and by hand."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from otel_audit.server.access import Access
from otel_audit.server.otlp.commit import Backlog, Busy
from otel_audit.server.otlp.grpc_receiver import grpc_server
from otel_audit.server.otlp.http_receiver import Intake
from otel_audit.store.client import StoreClient
from tests.server.otlp_messages import audit, logs, traces
from tests.trail import Serving, record, serving

LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
NOW = time.time_ns()


@pytest.fixture
def channel(server: Serving) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


def test_records_and_spans_are_there_when_they_are_acknowledged(
    channel: grpc.Channel, store: StoreClient
) -> None:
    """Both services, without stubs; gzip as the exporters send it."""
    sent = record("a.b", "READ", at=NOW)
    body = audit([sent]).SerializeToString()
    answer = channel.unary_unary(LOGS)(body, timeout=30, compression=grpc.Compression.Gzip)  # type: ignore[arg-type]
    assert answer == b""
    assert store.rows(
        "SELECT action FROM otel.audit_events WHERE record_id = {id:UUID}", {"id": sent.id}
    ) == [["READ"]]
    trace_id = uuid.uuid4().hex
    span = traces([{"trace_id": trace_id, "span_id": "ab" * 8}]).SerializeToString()
    assert channel.unary_unary(TRACES)(span, timeout=30) == b""  # type: ignore[arg-type]
    assert store.rows(
        "SELECT SpanId FROM otel.otel_traces WHERE TraceId = {id:String}", {"id": trace_id}
    ) == [["ab" * 8]]


def test_the_sdk_s_exporter_is_served(server: Serving, store: StoreClient) -> None:
    """A span of the real SDK through its real exporter."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"http://{server.grpc}", insecure=True)))
    with provider.get_tracer("t").start_as_current_span("by grpc") as span:
        trace_id = f"{span.get_span_context().trace_id:032x}"
    provider.shutdown()
    assert store.rows(
        "SELECT SpanName FROM otel.otel_traces WHERE TraceId = {id:String}", {"id": trace_id}
    ) == [["by grpc"]]


def test_an_invalid_record_id_is_reported(channel: grpc.Channel) -> None:
    """As over HTTP: stored, nothing rejected, a warning."""
    body = audit([record("a.b", "READ", at=NOW, id="nope")]).SerializeToString()
    partial = ExportLogsServiceResponse.FromString(
        channel.unary_unary(LOGS)(body, timeout=30)  # type: ignore[arg-type]
    ).partial_success
    assert partial.rejected_log_records == 0
    assert "'nope' is not a UUID" in partial.error_message


@pytest.mark.parametrize("body", [b"\xff\xff", b"\x0a\x05abc"])
def test_what_is_malformed_is_an_invalid_argument(channel: grpc.Channel, body: bytes) -> None:
    """For good: the exporters do not try that again."""
    for method in (LOGS, TRACES):
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(method)(body, timeout=30)  # type: ignore[arg-type]
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_token_and_the_limit_hold_here_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Unauthenticated without it; too large is refused before it is decoded."""
    body = audit([record("a.b", "READ", at=NOW)]).SerializeToString()
    large = logs([{"time": 1, "body": "x" * 300_000}]).SerializeToString()
    variables: dict[str, Any] = {
        "OTEL_AUDIT_SERVER_TOKEN": "s3cret",
        "OTEL_AUDIT_SERVER_MAX_REQUEST_BYTES": "200000",
    }
    right = (("authorization", "Bearer s3cret"),)
    with (
        serving(tmp_path_factory.mktemp("grpc"), **variables) as running,
        grpc.insecure_channel(running.grpc) as channel,
    ):
        export = channel.unary_unary(LOGS)
        for metadata in ((), (("authorization", "Bearer s3cre"),)):
            with pytest.raises(grpc.RpcError) as refused:
                export(body, timeout=30, metadata=metadata)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as refused:
            export(large, timeout=30, metadata=right)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert export(body, timeout=30, metadata=right) == b""


class _Full:
    """A committer that has no room."""

    alive = True

    def submit(self, rows: object) -> object:
        raise Busy("full")


def test_a_busy_server_says_when_to_come_back() -> None:
    """Unavailable with the retry info that OTLP wants, so that exporters keep the batch."""
    intake = Intake(_Full(), _Full(), Backlog(10**6), Access({}), 10**6)  # type: ignore[arg-type]
    server, port = grpc_server(intake, "127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(LOGS)(audit([record("a.b", "READ", at=1)]).SerializeToString(), timeout=30)  # type: ignore[arg-type]
    finally:
        stopped: threading.Event = server.stop(0)
        stopped.wait()
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    details = dict(refused.value.trailing_metadata())["grpc-status-details-bin"]  # type: ignore[arg-type,index]
    assert details.startswith(b"\x08\x0e\x12\x04full\x1a")
    assert b"type.googleapis.com/google.rpc.RetryInfo\x12\x04\x0a\x02\x08\x01" in details
