"""The bytes written by hand are the bytes protobuf writes."""

from __future__ import annotations

import types
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from otel_audit import semconv
from otel_audit.audit_record import Actor, AuditRecord, new_record_id
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


@given(records.map(sent), records.map(sent), st.data())
def test_what_is_encoded_once_for_many_records_is_never_that_of_another(
    record: AuditRecord, other: AuditRecord, data: st.DataObject
) -> None:
    """Records that share some of who, where and how, one after the other and again."""
    mixed = msgspec.structs.replace(
        record,
        **{
            name: getattr(other, name)
            for name in data.draw(st.sets(st.sampled_from(AuditRecord.__struct_fields__)))
        },
    )
    written = {}
    for each in (record, mixed, other, mixed, record):
        encoded = otlp_encoding.log_record(each)
        assert rebuild(LogRecord.FromString(encoded)) == each
        assert written.setdefault(id(each), encoded) == encoded


def test_what_is_kept_to_encode_again_is_bounded() -> None:
    """However many users, routes and long texts there are."""
    ways: list[Any] = [encode for _, _, encode in otlp_encoding._STEPS]
    kept: list[Any] = [way.__self__ for way in ways if isinstance(way, types.BuiltinMethodType)]
    assert len(kept) > 5
    for number in range(3000):
        actor = Actor(f"user {number}", "user", "n" * (number % 3000))
        otlp_encoding.log_record(
            AuditRecord(
                id="1", timestamp=1, observed_timestamp=1, event_name=f"e{number}", action="A", actor=actor
            )
        )
    for each in kept:
        assert len(each) <= 1024
        assert max((len(data) for data in each.values()), default=0) <= 2048


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
