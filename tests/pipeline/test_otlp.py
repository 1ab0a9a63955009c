"""The bytes written by hand are the bytes protobuf writes."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from otel_audit import semconv
from otel_audit.pipeline import otlp
from otel_audit.record import (
    Actor,
    AuditRecord,
    Bulk,
    Change,
    Column,
    Database,
    Request,
    Sequence,
    Source,
    Target,
    new_record_id,
)
from tests.pipeline.otlp_sink import attributes, rebuild

TEXT = st.text(max_size=40)
PORTABLE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
RECORDS = st.builds(
    AuditRecord,
    id=st.builds(new_record_id),
    timestamp=st.integers(1, 2**63 - 1),
    observed_timestamp=st.integers(1, 2**63 - 1),
    event_name=st.text(min_size=1, max_size=40),
    action=st.text(min_size=1, max_size=10),
    outcome=st.sampled_from(["success", "failure", "unknown"]),
    actor=st.builds(Actor, st.text(min_size=1, max_size=10), st.just("user"), TEXT, TEXT),
    target=st.none() | st.builds(Target, st.text(min_size=1, max_size=10), TEXT),
    source=st.builds(Source, TEXT, TEXT, st.text(max_size=6000), TEXT),
    request=st.builds(Request, TEXT, TEXT, TEXT, TEXT, TEXT),
    database=st.builds(Database, TEXT, TEXT, TEXT, TEXT),
    changes=st.lists(st.builds(Change, st.text(min_size=1, max_size=10), PORTABLE, PORTABLE), max_size=3),
    image=st.dictionaries(TEXT, PORTABLE, max_size=3),
    bulk=st.none() | st.just(Bulk(2, ["1", "2"], [Column("a", [1, None], ["x", "ß"])], "b", 1, 2)),
    fields=st.lists(TEXT, max_size=3),
    message=TEXT,
    attributes=st.dictionaries(TEXT, PORTABLE, max_size=4),
    truncated=st.booleans(),
    trace_id=st.sampled_from(["", "0123456789abcdef0123456789abcdef"]),
    sequence=st.none()
    | st.builds(Sequence, st.just("stream"), st.integers(1, 2**62), TEXT, TEXT, st.booleans()),
)


@given(RECORDS)
def test_protobuf_reads_what_was_written_and_a_record_comes_back(record: AuditRecord) -> None:
    """All attributes, times, ids and the body."""
    message = LogRecord.FromString(otlp.log_record(record))
    assert attributes(message) == semconv.to_attributes(record)
    assert message.observed_time_unix_nano == record.observed_timestamp
    assert message.event_name == record.event_name
    assert message.severity_number == 0
    assert message.HasField("body") == bool(record.message)
    assert rebuild(message) == record


@given(RECORDS)
def test_the_bytes_are_those_protobuf_writes(record: AuditRecord) -> None:
    """So nobody can tell the difference, and the same record gives the same bytes."""
    data = otlp.log_record(record)
    assert data == otlp.log_record(record)
    assert len(data) == LogRecord.FromString(data).ByteSize()


def test_a_request_has_resource_scope_and_records_in_order() -> None:
    """As every OTLP receiver expects."""
    records = [
        AuditRecord(id=new_record_id(), timestamp=1, observed_timestamp=2, event_name=f"e{n}", action="A")
        for n in range(300)
    ]
    resource: dict[str, Any] = {"service.name": "shop", "process.pid": 7, "ratio": 0.5, "up": True, "neg": -1}
    request = ExportLogsServiceRequest.FromString(
        otlp.export_request(resource, map(otlp.log_record, records))
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
