"""OTLP over HTTP: what is taken, in which forms, and how what is not taken is answered."""

from __future__ import annotations

import gzip
import json
import time
import uuid
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import zstandard
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from otel_audit.audit_record import Target, new_record_id
from otel_audit.store.client import StoreClient
from tests.server.otlp_messages import audit, logs, traces
from tests.trail import Serving, record, serving

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}
NOW = time.time_ns()


def status_of(answer: httpx.Response) -> tuple[int, str]:
    """Read a google.rpc.Status of an error, protobuf or JSON: its code and message."""
    if answer.headers["content-type"] == "application/json":
        body = answer.json()
        return body["code"], body["message"]
    data = answer.content
    assert data[0] == 0x08
    assert data[2] == 0x12
    length = data[3] if data[3] < 128 else data[3] & 127 | data[4] << 7
    return data[1], data[-length:].decode()


def log_with(marker: str, store: StoreClient) -> list[dict[str, Any]]:
    """Find ordinary logs by a marker in their body."""
    return store.query("SELECT * FROM otel.otel_logs WHERE Body = {marker:String}", {"marker": marker})


@pytest.mark.parametrize("path", ["/v1/logs", "/v1/audit"])
@pytest.mark.parametrize("encoding", ["", "gzip", "deflate", "zstd"])
def test_a_record_is_there_when_it_is_acknowledged(
    otlp: httpx.Client, store: StoreClient, path: str, encoding: str
) -> None:
    """In every encoding, at both addresses, at once."""
    sent = record("shop.order.read", "READ", at=NOW, target=Target("shop.Order", "7"))
    body = audit([sent]).SerializeToString()
    packed = {  # type: ignore[operator]
        "": bytes,
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "zstd": zstandard.ZstdCompressor().compress,
    }[encoding](body)
    answer = otlp.post(path, content=packed, headers=PROTOBUF | {"Content-Encoding": encoding})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-protobuf"
    assert not ExportLogsServiceResponse.FromString(answer.content).HasField("partial_success")
    found = store.rows("SELECT target FROM otel.audit_events WHERE record_id = {id:UUID}", {"id": sent.id})
    assert found == [["shop.Order/7"]]


def test_json_is_taken_as_the_specification_writes_it(otlp: httpx.Client, store: StoreClient) -> None:
    """Ids in hex, numbers as text or number, names in camel case, unknown fields ignored."""
    marker = str(uuid.uuid4())
    request = {
        "resourceLogs": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "js"}}]},
                "scopeLogs": [
                    {
                        "scope": {"name": "x", "somethingNew": 1},
                        "logRecords": [
                            {
                                "timeUnixNano": "1790000000000000001",
                                "observedTimeUnixNano": 1790000000000000002,
                                "severityNumber": 9,
                                "severityText": "INFO",
                                "traceId": "4BF92F3577B34DA6A3CE929D0E0E4736",
                                "spanId": "00f067aa0ba902b7",
                                "eventName": "hello",
                                "body": {"stringValue": marker},
                                "attributes": [
                                    {"key": "n", "value": {"intValue": "9007199254740993"}},
                                    {"key": "d", "value": {"doubleValue": 0.25}},
                                    {"key": "b", "value": {"boolValue": True}},
                                    {"key": "a", "value": {"arrayValue": {"values": [{"intValue": 1}]}}},
                                ],
                            }
                        ],
                    }
                ],
            }
        ]
    }
    answer = otlp.post("/v1/logs", content=json.dumps(request), headers=JSON)
    assert (answer.status_code, answer.json()) == (200, {})
    (row,) = log_with(marker, store)
    assert row["TraceId"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (row["SpanId"], row["EventName"]) == ("00f067aa0ba902b7", "hello")
    assert (row["ServiceName"], row["SeverityNumber"]) == ("js", 9)
    assert row["Timestamp"].endswith(".000000001")
    assert row["LogAttributes"] == {"n": "9007199254740993", "d": "0.25", "b": "true", "a": "[1]"}


def test_every_kind_of_value_is_kept_as_text(otlp: httpx.Client, store: StoreClient) -> None:
    """As the Collector's exporter would write it; lists and maps as JSON."""
    marker = str(uuid.uuid4())
    attributes = {
        "text": "ü" * 70,
        "long": "x" * 20_000,
        "medium": "y" * 5_000,
        "empty": "",
        "int": -(2**63),
        "zero": 0,
        "false": False,
        "true": True,
        "whole": 3.0,
        "half": 0.5,
        "bytes": b"\0\xff",
        "list": [1, "a", [None, True], {"k": 2.5}],
        "map": {"a": {"b": "ü"}},
        "unset": None,
        "k" * 200: "long key",
        "": "no key",
    }
    sent = logs([{"time": 1, "body": marker, "attributes": attributes}])
    assert otlp.post("/v1/logs", content=sent.SerializeToString(), headers=PROTOBUF).status_code == 200
    (row,) = log_with(marker, store)
    assert row["LogAttributes"] == attributes | {
        "int": "-9223372036854775808",
        "zero": "0",
        "false": "false",
        "true": "true",
        "whole": "3",
        "half": "0.5",
        "bytes": "AP8=",
        "list": '[1,"a",[null,true],{"k":2.5}]',
        "map": '{"a":{"b":"ü"}}',
        "unset": "",
    }
    assert row["ResourceAttributes"] == {"service.name": "shop", "host.name": "web-1", "process.pid": "12"}


def test_spans_are_there_with_events_and_links(otlp: httpx.Client, store: StoreClient) -> None:
    """All that the exporter's table has a column for."""
    trace_id = uuid.uuid4().hex
    span = {
        "trace_id": trace_id,
        "span_id": "00f067aa0ba902b7",
        "parent": "00f067aa0ba902b8",
        "name": "POST /orders/",
        "start": 1_790_000_000_000_000_000,
        "end": 1_790_000_000_005_000_000,
        "attributes": {"http.request.method": "POST", "n": 3},
        "status": 2,
        "message": "boom",
        "events": [
            ("shop.order.update", 1_790_000_000_001_000_000, {"audit.action": "UPDATE"}),
            ("e", 1, {}),
        ],
        "links": [("ab" * 16, "cd" * 8, {"why": "retry"})],
    }
    plain = {"trace_id": trace_id, "span_id": "00f067aa0ba902b9", "kind": 77, "end": 5}
    body = traces([span, plain]).SerializeToString()
    assert otlp.post("/v1/traces", content=body, headers=PROTOBUF).status_code == 200
    first, second = store.query(
        "SELECT * FROM otel.otel_traces WHERE TraceId = {id:String} ORDER BY SpanId", {"id": trace_id}
    )
    assert (first["ParentSpanId"], first["SpanName"], first["SpanKind"]) == (
        "00f067aa0ba902b8",
        "POST /orders/",
        "Server",
    )
    assert (first["Duration"], first["StatusCode"], first["StatusMessage"]) == (5_000_000, "Error", "boom")
    assert first["SpanAttributes"] == {"http.request.method": "POST", "n": "3"}
    assert (first["Events.Name"], first["Events.Attributes"]) == (
        ["shop.order.update", "e"],
        [{"audit.action": "UPDATE"}, {}],
    )
    assert (first["Links.SpanId"], first["Links.Attributes"]) == (["cd" * 8], [{"why": "retry"}])
    assert (second["SpanKind"], second["StatusCode"], second["Duration"]) == ("77", "Unset", 0)
    times = store.rows(
        "SELECT count() FROM otel.otel_traces_trace_id_ts WHERE TraceId = {id:String}", {"id": trace_id}
    )
    assert times == [[1]]


def test_the_sdk_s_exporter_is_served(server: Serving, store: StoreClient) -> None:
    """A span of the real SDK through its real exporter."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{server.http}/v1/traces")))
    with provider.get_tracer("t").start_as_current_span("a span") as span:
        trace_id = f"{span.get_span_context().trace_id:032x}"
    provider.shutdown()
    assert store.rows(
        "SELECT SpanName FROM otel.otel_traces WHERE TraceId = {id:String}", {"id": trace_id}
    ) == [["a span"]]


def test_an_invalid_record_id_is_reported_and_nothing_rejected(otlp: httpx.Client) -> None:
    """The sender is told in the answer's warning; rejecting would make it send the batch for ever."""
    sent = [
        record("a.b", "READ", at=NOW, id="7"),
        record("a.b", "READ", at=NOW),
        record("a.b", "READ", at=NOW, id="x"),
    ]
    answer = otlp.post("/v1/audit", content=audit(sent).SerializeToString(), headers=PROTOBUF)
    assert answer.status_code == 200
    partial = ExportLogsServiceResponse.FromString(answer.content).partial_success
    assert partial.rejected_log_records == 0
    assert partial.error_message == (
        "audit.record.id '7' is not a UUID; kept as an ordinary log, not as an audit record (and 1 more)"
    )


@pytest.mark.parametrize("time_given", [2**64 - 1, 2**63, 0])
def test_a_wrong_clock_does_not_lose_the_record(
    otlp: httpx.Client, store: StoreClient, time_given: int
) -> None:
    """A time the store has no room for becomes its last; none becomes the time of observation."""
    sent = record("a.b", "READ", at=NOW)
    request = audit([sent])
    request.resource_logs[0].scope_logs[0].log_records[0].time_unix_nano = time_given
    assert otlp.post("/v1/audit", content=request.SerializeToString(), headers=PROTOBUF).status_code == 200
    found = store.rows(
        "SELECT toUnixTimestamp64Nano(timestamp) FROM otel.audit_events WHERE record_id = {id:UUID}",
        {"id": sent.id},
    )
    assert found == [[min(time_given, 2**63 - 1) or sent.observed_timestamp]]


def test_a_batch_that_spans_decades_is_one_batch(otlp: httpx.Client, store: StoreClient) -> None:
    """More months and days in one request than the engine writes partitions by default."""
    month = 31 * 86_400 * 10**9
    sent = [record("a.b", "READ", at=10**18 + number * month, reason="decades") for number in range(130)]
    assert (
        otlp.post("/v1/audit", content=audit(sent).SerializeToString(), headers=PROTOBUF).status_code == 200
    )
    ids = [one.id for one in sent]
    found = store.rows(
        "SELECT uniqExact(record_id) FROM otel.audit_events WHERE record_id IN {ids:Array(UUID)}",
        {"ids": ids},
    )
    assert found == [[130]]


def test_an_empty_request_is_a_request(otlp: httpx.Client) -> None:
    """Nothing to write is no error."""
    assert otlp.post("/v1/logs", content=b"", headers=PROTOBUF).status_code == 200
    assert otlp.post("/v1/traces", content="{}", headers=JSON).status_code == 200


def deep(levels: int) -> bytes:
    """Make a log request whose attribute nests lists."""
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return logs([{"time": 1, "attributes": {"deep": value}}]).SerializeToString()


NESTED_TOO_DEEP = b'{"resourceLogs":' + b'[{"a":' * 5_000 + b"1" + b"}]" * 5_000 + b"}"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"\xff\xff\xff", PROTOBUF),
        (b"\x0a\x05abc", PROTOBUF),
        (audit([record("a.b", "READ", at=1)]).SerializeToString()[:-3], PROTOBUF),
        (deep(48), PROTOBUF),
        (b"not json", JSON),
        (b"[]", JSON),
        (b"1", JSON),
        (b"\xff", JSON),
        (b'{"resourceLogs": 7}', JSON),
        (b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"traceId":"xyz"}]}]}]}', JSON),
        (NESTED_TOO_DEEP, JSON),
        (b"[" * 100_000, JSON),
        (b"abc", PROTOBUF | {"Content-Encoding": "gzip"}),
        (gzip.compress(b"abc" * 1000)[:-5], PROTOBUF | {"Content-Encoding": "gzip"}),
        (b"abc", PROTOBUF | {"Content-Encoding": "zstd"}),
        (b"abc", PROTOBUF | {"Content-Encoding": "br"}),
        (b"\x1f\x8b", JSON | {"Content-Encoding": "gzip"}),
    ],
    ids=range(17),
)
def test_what_is_malformed_is_refused_for_good(
    otlp: httpx.Client, body: bytes, headers: dict[str, str]
) -> None:
    """400, so that no sender tries again, with the reason in the form it asked in."""
    answer = otlp.post("/v1/logs", content=body, headers=headers)
    assert answer.status_code == 400
    code, message = status_of(answer)
    assert code == 3
    assert message
    assert otlp.get("/health").status_code == 200


def test_a_value_as_deep_as_the_decoder_goes_is_kept(otlp: httpx.Client) -> None:
    """Whatever decodes is stored; the encoder of nested values has no limit of its own below that."""
    accepted = [
        otlp.post("/v1/logs", content=deep(levels), headers=PROTOBUF).status_code for levels in (1, 20, 40)
    ]
    assert accepted == [200, 200, 200]


def test_other_content_types_are_refused(otlp: httpx.Client) -> None:
    """415 names what is spoken; a charset beside the type is no other type."""
    answer = otlp.post("/v1/logs", content=b"", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415
    assert "application/x-protobuf or application/json" in status_of(answer)[1]
    assert otlp.post("/v1/logs", content=b"").status_code == 415
    with_charset = {"Content-Type": "application/json; charset=utf-8"}
    assert otlp.post("/v1/logs", content=b"{}", headers=with_charset).status_code == 200


def test_other_addresses_and_methods_are_refused(otlp: httpx.Client) -> None:
    """Plain HTTP errors, no traceback."""
    assert otlp.get("/v1/logs").status_code == 405
    assert otlp.post("/v1/profiles", content=b"", headers=PROTOBUF).status_code == 404


def test_health_and_readiness(otlp: httpx.Client) -> None:
    """Both say ok while rows are written and the engine answers."""
    assert otlp.get("/health").json()["status"] == "ok"
    assert otlp.get("/ready").json() == {"status": "ok"}


def test_a_body_over_the_limit_is_refused_however_it_is_packed(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """413 for a large body, announced or not, and for a small one that grows; the server lives on."""
    limit = 200_000
    directory = tmp_path_factory.mktemp("limit")
    zeros = logs([{"time": 1, "body": "0" * 50_000_000}]).SerializeToString()
    fits = logs([{"time": 1, "body": "0" * (limit - 200)}]).SerializeToString()
    bombs = {"gzip": gzip.compress(zeros), "zstd": zstandard.ZstdCompressor().compress(zeros)}
    bombs["deflate"] = zlib.compress(zeros)
    with (
        serving(directory, OTEL_AUDIT_SERVER_MAX_REQUEST_BYTES=str(limit)) as running,
        httpx.Client(base_url=running.http, timeout=30) as client,
    ):
        assert client.post("/v1/logs", content=fits, headers=PROTOBUF).status_code == 200
        answer = client.post("/v1/logs", content=zeros[: limit + 1], headers=PROTOBUF)
        assert answer.status_code == 413
        assert "smaller batches" in status_of(answer)[1]
        chunked = client.post("/v1/logs", content=iter([zeros[:150_000]] * 2), headers=PROTOBUF)
        assert chunked.status_code == 413
        for encoding, bomb in bombs.items():
            assert len(bomb) < limit
            headers = PROTOBUF | {"Content-Encoding": encoding}
            assert client.post("/v1/logs", content=bomb, headers=headers).status_code == 413, encoding
        joined = gzip.compress(zeros[:100_000]) * 5
        headers = PROTOBUF | {"Content-Encoding": "gzip"}
        assert client.post("/v1/logs", content=joined, headers=headers).status_code == 413
        sql = client.post(running.clickhouse, content=b"SELECT '" + b"x" * limit + b"'")
        assert sql.status_code == 413
        assert client.get("/ready").status_code == 200


def test_many_senders_at_once_each_get_their_own_answer(otlp: httpx.Client, store: StoreClient) -> None:
    """A malformed request fails alone, whatever group its neighbours are written in."""
    good = [record("a.b", "READ", at=NOW, id=new_record_id()) for _ in range(60)]

    def send(number: int) -> int:
        body = b"\xff" if number % 5 == 4 else audit([good[number]]).SerializeToString()
        return otlp.post("/v1/audit", content=body, headers=PROTOBUF).status_code

    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(send, range(60)))
    assert statuses == [400 if number % 5 == 4 else 200 for number in range(60)]
    ids = [one.id for one in good]
    found = store.rows(
        "SELECT toString(record_id) FROM otel.audit_events WHERE record_id IN {ids:Array(UUID)}", {"ids": ids}
    )
    assert {row[0] for row in found} == {one.id for number, one in enumerate(good) if number % 5 != 4}


def test_a_record_no_part_of_which_fits_another_is_written_with_its_batch(
    otlp: httpx.Client, store: StoreClient
) -> None:
    """No record, however broken, may keep its batch from being written: the sender would try for ever."""
    good = record("a.b", "READ", at=NOW)
    hostile = [
        '{"keys":["1","2"],"columns":[{"field":"a","old":[1],"new":[]}]}',
        '{"keys":"no","columns":7}',
        "[]",
        "{",
        "null",
        '{"keys":[null],"columns":[null]}',
        '{"count":-1,"keys":["1"],"columns":[{"old":["x"]}]}',
    ]
    changes = '[{"field":"a"},{"field":"b"},7,null,{"old":{"x":[1]}}]'
    broken = [record("a.b", "READ", at=NOW) for _ in hostile]
    request = audit([good, *broken])
    for log, bulk in zip(request.resource_logs[0].scope_logs[0].log_records[1:], hostile, strict=True):
        log.attributes.add(key="otel_audit.bulk").value.string_value = bulk
        log.attributes.add(key="otel_audit.changes").value.string_value = changes
        log.attributes.add(key="otel_audit.related").value.string_value = bulk
        log.attributes.add(key="otel_audit.fields").value.string_value = bulk
        log.attributes.add(key="audit.sequence.number").value.string_value = "minus"
    assert otlp.post("/v1/audit", content=request.SerializeToString(), headers=PROTOBUF).status_code == 200
    ids = [one.id for one in (good, *broken)]
    found = store.rows(
        "SELECT uniqExact(record_id) FROM otel.audit_events "
        "WHERE ordinal = 0 AND record_id IN {ids:Array(UUID)}",
        {"ids": ids},
    )
    assert found == [[len(ids)]]


def test_a_repeated_attribute_does_not_stop_a_record(otlp: httpx.Client, store: StoreClient) -> None:
    """It is stored, under its first value."""
    sent = record("a.b", "READ", at=NOW)
    request = audit([sent])
    again = request.resource_logs[0].scope_logs[0].log_records[0].attributes.add(key="audit.action")
    again.value.string_value = "DELETE"
    assert otlp.post("/v1/audit", content=request.SerializeToString(), headers=PROTOBUF).status_code == 200
    found = store.rows("SELECT action FROM otel.audit_events WHERE record_id = {id:UUID}", {"id": sent.id})
    assert found == [["READ"]]


def test_a_token_is_wanted_on_every_port(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without it, or with another, nothing is taken or told; health needs none."""
    directory = tmp_path_factory.mktemp("token")
    sent = record("a.b", "READ", at=NOW)
    body = audit([sent]).SerializeToString()
    right = {"Authorization": "Bearer s3cret-token!"}
    with (
        serving(directory, OTEL_AUDIT_SERVER_TOKEN="s3cret-token!") as running,
        httpx.Client(base_url=running.http, timeout=30) as client,
    ):
        wrong: list[dict[str, Any]] = [
            {},
            {"Authorization": "Bearer s3cret"},
            {"Authorization": "s3cret-token"},
            {"Authorization": "Basic !!!"},
        ]
        for headers in wrong:
            answer = client.post("/v1/audit", content=body, headers=PROTOBUF | headers)
            assert answer.status_code == 401
            assert status_of(answer)[0] == 16
            refused = client.post(running.clickhouse, content="SELECT 1", headers=headers)
            assert (refused.status_code, refused.headers["X-ClickHouse-Exception-Code"]) == (403, "516")
        assert client.post("/v1/audit", content=body, headers=PROTOBUF | right).status_code == 200
        assert client.get("/health").status_code == 200
        assert client.get(f"{running.clickhouse}/ping").text == "Ok.\n"
        for accepted in (
            {"headers": right},
            {"headers": {"X-ClickHouse-User": "default", "X-ClickHouse-Key": "s3cret-token!"}},
            {"auth": httpx.BasicAuth("default", "s3cret-token!")},
        ):
            told = client.post(
                running.clickhouse, content="SELECT count() FROM otel.audit_events", **accepted
            )
            assert told.text == "1\n", accepted
        in_url = client.post(running.clickhouse, content="SELECT 1", params={"password": "s3cret-token!"})
        assert in_url.status_code == 403
        assert "never in the URL" in in_url.text


@pytest.mark.parametrize("written", [str.upper, lambda plain: plain.replace("-", "")])
def test_an_id_written_another_way_is_an_id(
    otlp: httpx.Client, store: StoreClient, written: Callable[[str], str]
) -> None:
    """No warning, and found by its usual form."""
    plain = new_record_id()
    sent = record("a.b", "READ", at=NOW, id=written(plain))
    answer = otlp.post("/v1/audit", content=audit([sent]).SerializeToString(), headers=PROTOBUF)
    assert answer.content == b""
    assert store.rows("SELECT 1 FROM otel.audit_events WHERE record_id = {id:UUID}", {"id": plain}) == [[1]]
