"""Metrics: our own are kept for a while, those of others are accepted and counted."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator

import grpc
import httpx
import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from otel_audit.pipeline import metrics
from otel_audit.pipeline.health import Health
from otel_audit.store.client import StoreClient
from tests.server.otlp_messages import key_values
from tests.trail import Serving

PROTOBUF = {"Content-Type": "application/x-protobuf"}


def export(exporter: MetricExporter, service: str) -> None:
    """Export what our pipeline counts, and what an application does, by the SDK."""
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider([reader], Resource.create({"service.name": service}))
    health = Health()
    health.emitted, health.capture_failures = 7, {"read": 2}
    metrics.register(lambda: health, provider.get_meter("otel_audit"))

    def clock(_: CallbackOptions) -> Iterator[Observation]:
        yield Observation(1.5, {"hand": "long"})

    application = provider.get_meter("shop")
    application.create_observable_gauge("clock", [clock])
    application.create_counter("audit.records.emitted").add(99)
    application.create_histogram("duration").record(1)
    assert provider.force_flush(20_000)
    provider.shutdown()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_our_own_counts_are_kept_and_others_are_not(
    server: Serving, store: StoreClient, otlp: httpx.Client, protocol: str
) -> None:
    """By both of the SDK's exporters; nothing is refused, and what is dropped is counted."""
    service = uuid.uuid4().hex
    before = otlp.get("/health").json()["metric_points_dropped"]
    if protocol == "http":
        export(OTLPMetricExporter(f"{server.http}/v1/metrics"), service)
    else:
        export(GrpcExporter(server.grpc, insecure=True), service)
    found = dict(
        store.rows(
            "SELECT MetricName, Value FROM otel.otel_audit_metrics WHERE ServiceName = {name:String}",
            {"name": service},
        )
    )
    assert found["audit.records.emitted"] == 7
    assert found["audit.capture.failures"] == 2
    assert all(name.startswith("audit.") for name in found)
    assert otlp.get("/health").json()["metric_points_dropped"] >= before + 3


def request(service: str) -> ExportMetricsServiceRequest:
    """Make a request of one number of ours, with attributes."""
    message = ExportMetricsServiceRequest()
    resource_metrics = message.resource_metrics.add()
    resource_metrics.resource.attributes.extend(key_values({"service.name": service, "process.pid": 7}))
    scope = resource_metrics.scope_metrics.add()
    scope.scope.name = "otel_audit"
    metric = scope.metrics.add(name="audit.capture.failures", unit="{failure}")
    metric.sum.data_points.add(time_unix_nano=time.time_ns(), as_int=3, attributes=key_values({"place": "x"}))
    return message


def test_a_point_is_kept_with_its_attributes(store: StoreClient, otlp: httpx.Client) -> None:
    """Unit, attributes and resource; by protobuf and JSON."""
    service = uuid.uuid4().hex
    answer = otlp.post("/v1/metrics", content=request(service).SerializeToString(), headers=PROTOBUF)
    assert answer.status_code == 200
    assert not ExportMetricsServiceResponse.FromString(answer.content).HasField("partial_success")
    written = {
        "resourceMetrics": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]},
                "scopeMetrics": [
                    {
                        "scope": {"name": "otel_audit"},
                        "metrics": [
                            {
                                "name": "audit.queue.oldest_age",
                                "gauge": {
                                    "dataPoints": [{"timeUnixNano": str(time.time_ns()), "asDouble": 0.5}]
                                },
                            }
                        ],
                    }
                ],
            }
        ]
    }
    headers = {"Content-Type": "application/json"}
    assert otlp.post("/v1/metrics", content=json.dumps(written), headers=headers).status_code == 200
    rows = store.rows(
        "SELECT MetricName, MetricUnit, Value, Attributes, ResourceAttributes['process.pid'] "
        "FROM otel.otel_audit_metrics WHERE ServiceName = {name:String} ORDER BY MetricName",
        {"name": service},
    )
    assert rows == [
        ["audit.capture.failures", "{failure}", 3, {"place": "x"}, "7"],
        ["audit.queue.oldest_age", "", 0.5, {}, ""],
    ]


def test_what_is_no_request_of_metrics_is_refused(server: Serving, otlp: httpx.Client) -> None:
    """400, as for logs and spans, and 413 for what would become too large."""
    assert otlp.post("/v1/metrics", content=b"\xff", headers=PROTOBUF).status_code == 400
    assert otlp.post("/v1/metrics", content=b"", headers=PROTOBUF).status_code == 200
    large = request("x")
    large.resource_metrics[0].resource.attributes.extend(key_values({"big": "x" * 1_000_000}))
    points = large.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points
    for _ in range(200):
        points.add(as_int=1)
    assert otlp.post("/v1/metrics", content=large.SerializeToString(), headers=PROTOBUF).status_code == 413
    with grpc.insecure_channel(server.grpc) as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")
        with pytest.raises(grpc.RpcError) as refused:
            export(b"\xff", timeout=30)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_no_client_writes_the_table_of_metrics_by_sql(server: Serving) -> None:
    """It is filled by what is exported, and by nothing else."""
    answer = httpx.post(server.clickhouse, content="INSERT INTO otel.otel_audit_metrics (Value) VALUES (1)")
    assert answer.status_code == 403
