"""The bytes written by hand are the bytes protobuf writes."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from otel_audit import semconv
from otel_audit.audit_record import AuditRecord, new_record_id
from otel_audit.pipeline.delivery import otlp_encoding
from tests.pipeline.otlp_sink import attributes, rebuild
from tests.trail import records, sent


@given(records.map(sent))
def test_protobuf_reads_what_was_written_and_a_record_comes_back(record: AuditRecord) -> None:
    """All attributes, times, ids and the body."""
    message = LogRecord.FromString(otlp_encoding.log_record(record))
    assert attributes(message) == semconv.to_attributes(record)
    assert message.observed_time_unix_nano == record.observed_timestamp
    assert message.event_name == record.event_name
    assert message.severity_number == 0
    assert message.HasField("body") == bool(record.message)
    assert rebuild(message) == record


@given(records.map(sent))
def test_the_bytes_are_those_protobuf_writes(record: AuditRecord) -> None:
    """So nobody can tell the difference, and the same record gives the same bytes."""
    data = otlp_encoding.log_record(record)
    assert data == otlp_encoding.log_record(record)
    assert len(data) == LogRecord.FromString(data).ByteSize()


def test_a_request_has_resource_scope_and_records_in_order() -> None:
    """As every OTLP receiver expects."""
    records = [
        AuditRecord(id=new_record_id(), timestamp=1, observed_timestamp=2, event_name=f"e{n}", action="A")
        for n in range(300)
    ]
    resource: dict[str, Any] = {"service.name": "shop", "process.pid": 7, "ratio": 0.5, "up": True, "neg": -1}
    request = ExportLogsServiceRequest.FromString(
        otlp_encoding.export_request(resource, map(otlp_encoding.log_record, records))
    )
    [resource_logs] = request.resource_logs
    found = {
        pair.key: getattr(pair.value, str(pair.value.WhichOneof("value")))
        for pair in resource_logs.resource.attributes
    }
    assert found == resource
    [scope_logs] = resource_logs.scope_logs
    assert scope_logs.scope.name == "otel_audit"
    assert [rebuild(message) for message in scope_logs.log_records] == records
