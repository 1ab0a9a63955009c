"""A request becomes no larger than its limits, whatever it looks like on the wire."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import lz4.block
import pytest
import zstandard
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_audit.server import bodies
from otel_audit.server.access import Access
from otel_audit.server.bodies import Malformed, TooLarge
from otel_audit.server.clickhouse import framing
from otel_audit.server.engine.native import varint
from otel_audit.server.otlp import limits, messages
from otel_audit.server.otlp.commit import Backlog, Busy
from otel_audit.server.otlp.engine_rows import rows_by_engine
from otel_audit.server.otlp.http_receiver import Intake, receiver
from otel_audit.server.otlp.limits import Budget, Limits, check_messages, check_nodes, count_messages
from otel_audit.server.otlp.rows import log_rows, span_rows
from tests.server.otlp_messages import any_value, audit, key_values, logs, traces
from tests.trail import Serving, record, serving

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}
LOGS = ExportLogsServiceRequest.DESCRIPTOR
NOW = time.time_ns()


def field(number: int, content: bytes) -> bytes:
    """Encode one length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def resident(pid: int) -> int:
    """Return the most memory a process has had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def repeating(large: bytes, *, where: str, records: int) -> bytes:
    """Make a log request whose records all share one large attribute of their resource or scope."""
    attribute = field(1, field(1, b"big") + field(2, field(1, large)))
    if where == "scope":
        attribute = b"\x1a" + attribute[1:]
        return field(1, field(2, field(1, attribute) + field(2, b"\x09" + b"\1" * 8) * records))
    if where == "scope name":
        return field(1, field(2, field(1, field(1, large)) + field(2, b"") * records))
    if where == "schema url":
        return field(1, field(2, field(2, b"") * records + field(3, large)))
    if where == "service name":
        attribute = field(1, field(1, b"service.name") + field(2, field(1, large)))
    return field(1, field(1, attribute) + field(2, field(2, b"") * records))


# --- rows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["resource", "scope", "scope name", "schema url", "service name"])
def test_what_all_records_share_is_counted_for_each(where: str) -> None:
    """Before it is repeated: the body of 1 MB would become rows of 5 GB."""
    body = repeating(b"x" * 1_000_000, where=where, records=5000)
    taken: list[int] = []
    with pytest.raises(TooLarge, match="each record is stored with its resource and scope"):
        log_rows(body, Budget(100_000_000, taken.append))
    assert sum(taken) < 100_000_000


def test_records_the_engine_reads_itself_are_counted_as_well() -> None:
    """It repeats the resource as rows do."""
    request = audit([record("a.b", "READ", at=NOW) for _ in range(50)])
    request.resource_logs[0].resource.attributes.extend(key_values({"big": "x" * 1_000_000}))
    body = request.SerializeToString()
    assert rows_by_engine(body) is not None
    with pytest.raises(TooLarge):
        rows_by_engine(body, Budget(40_000_000))


def test_spans_are_counted_like_logs() -> None:
    """Their rows have the resource, too."""
    request = traces([{"trace_id": "ab" * 16, "span_id": "cd" * 8}] * 100)
    request.resource_spans[0].resource.attributes.extend(key_values({"big": "x" * 1_000_000}))
    with pytest.raises(TooLarge):
        span_rows(request.SerializeToString(), Budget(50_000_000))


def test_many_resources_are_one_budget() -> None:
    """Each fits, together they do not."""
    one = repeating(b"x" * 100_000, where="resource", records=50)
    log_rows(one, Budget(10_000_000))
    with pytest.raises(TooLarge):
        log_rows(one * 3, Budget(10_000_000))


@pytest.mark.parametrize("place", ["body", "attribute", "resource", "event"])
def test_a_nested_value_that_grows_as_json_is_counted(place: str) -> None:
    """A control character takes six bytes there."""
    value = {"a": ["\0" * 1_000_000]}
    nested = Budget(5_000_000)
    with pytest.raises(TooLarge, match="nested value"):
        if place == "body":
            log_rows(logs([{"body": value}]).SerializeToString(), nested)
        elif place == "attribute":
            log_rows(logs([{"attributes": {"n": value}}]).SerializeToString(), nested)
        elif place == "resource":
            request = logs([{}])
            request.resource_logs[0].resource.attributes.extend(key_values({"n": value}))
            log_rows(request.SerializeToString(), nested)
        else:
            span = {"trace_id": "ab" * 16, "span_id": "cd" * 8, "events": [("e", 1, {"n": value})]}
            span_rows(traces([span]).SerializeToString(), nested)


def test_a_resource_is_kept_once_until_the_block_is_written() -> None:
    """The rows say the same, and what they take is what was counted, not more."""
    request = logs([{"time": number, "body": "b"} for number in range(200)])
    request.resource_logs[0].resource.attributes.extend(key_values({"big": "x" * 10_000}))
    budget = Budget()
    [made] = log_rows(request.SerializeToString(), budget)
    assert 200 * 10_000 < len(made.block) <= budget.size


# --- messages -----------------------------------------------------------------------------------


def test_every_message_and_text_is_counted_once() -> None:
    """Resources, scopes, records, attributes, values, items; as the decoder would make them."""
    request = logs([{"attributes": {"a": [1, "x", {"k": None}]}, "body": "b"}, {}])
    # resource_logs, resource + 3 (attribute, value); scope_logs, scope, 2 records, body,
    # attribute, value, array, 3 items, map, pair, value of the pair
    assert count_messages(request.SerializeToString(), LOGS, 1000) == 2 + 6 + 2 + 2 + 1 + 2 + 1 + 3 + 1 + 2


EMPTY: dict[str, bytes] = {
    "resources": field(1, b"") * 300,
    "scopes": field(1, field(2, b"") * 300),
    "records": field(1, field(2, field(2, b"") * 300)),
    "attributes": field(1, field(2, field(2, field(6, b"") * 300))),
    "resource attributes": field(1, field(1, field(1, b"") * 300)),
    "scope attributes": field(1, field(2, field(1, field(3, b"") * 300))),
    "items": field(1, field(2, field(2, field(5, field(5, field(1, b"") * 300))))),
    "pairs": field(1, field(2, field(2, field(5, field(6, field(1, b"") * 300))))),
    "long tags": field(1, field(2, field(2, b"\xb2\x80\x00\x00" * 300))),
    "entities": field(1, field(1, field(3, field(3, b"") * 300))),
}


@pytest.mark.parametrize("shape", EMPTY)
def test_messages_that_take_two_bytes_each_are_counted(shape: str) -> None:
    """A request of many is refused, however its tags are written; counting stops at the limit."""
    body = EMPTY[shape]
    ExportLogsServiceRequest.FromString(body)
    with pytest.raises(TooLarge, match="more than 100 records, attributes and values"):
        check_messages(body, LOGS, 100)
    assert count_messages(body, LOGS, 100) == 101
    check_messages(body, LOGS, 1000)


@pytest.mark.parametrize(
    "body",
    [
        b"\xff" * 10_000,
        b"\x0a\x05abc" * 100,
        b"\x0b" * 1000,
        b"\x80" * 100_000,
        field(1, b"\x12" + b"\xff" * 9 + b"\x01" + b"a" * 1000),
        bytes(range(256)) * 10,
    ],
    ids=range(6),
)
def test_counting_ends_on_what_is_malformed(body: bytes) -> None:
    """Whether it is well-formed is the decoder's to say."""
    assert count_messages(body, LOGS, 10_000) <= 10_001


def test_an_ordinary_batch_is_not_walked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size, or how often tags can occur in it, tells."""
    monkeypatch.setattr(limits, "count_messages", None)
    batch = audit([record("a.b", "READ", at=NOW, reason="x" * 500) for _ in range(2000)])
    check_messages(batch.SerializeToString(), LOGS, limits.MESSAGES)
    check_messages(field(9, b"y" * 3_000_000), LOGS, limits.MESSAGES)


def test_texts_of_a_json_request_are_not_counted() -> None:
    """What looks like members there is text; what is outside is counted, up to the limit."""
    text = json.dumps({"a": '{"b":[1,2,{' * 1000}).encode()
    check_nodes(text, 10)
    check_nodes(b'"\\', 10)
    for body in (b"[" * 1000, b'{"a":1,' * 100, b"[]," * 100, b'"",' * 100, b'"[",' * 6 + b'"' * 100):
        with pytest.raises(TooLarge):
            check_nodes(body, 10)


def test_half_a_million_attributes_in_json_are_refused_before_they_are_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The decoder takes 20 µs for each."""
    monkeypatch.setattr(json_format, "ParseDict", None)
    attribute = '{"key":"k","value":{"stringValue":"v"}}'
    attributes = ",".join([attribute] * 500_000)
    body = f'{{"resourceLogs":[{{"resource":{{"attributes":[{attributes}]}}}}]}}'.encode()
    with pytest.raises(TooLarge, match="limit for JSON"):
        messages.checked(body, "logs", messages.JSON, Limits.of(64 * 1024 * 1024))


# --- encodings ----------------------------------------------------------------------------------


def test_many_small_members_cost_what_one_large_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step takes a bounded piece: the sum of the pieces grows with the body, not with its square."""
    fed: list[int] = []
    make: Any = zlib.decompressobj

    class Counting:
        def __init__(self, *arguments: int) -> None:
            self.inner = make(*arguments)

        def decompress(self, piece: bytes, most: int) -> bytes:
            fed.append(len(piece))
            found: bytes = self.inner.decompress(piece, most)
            return found

        @property
        def eof(self) -> bool:
            return bool(self.inner.eof)

        @property
        def unused_data(self) -> bytes:
            return bytes(self.inner.unused_data)

    monkeypatch.setattr("otel_audit.server.bodies.zlib.decompressobj", Counting)
    body = gzip.compress(b"a") * 20_000
    assert bodies.decompress(body, "gzip", 100_000) == b"a" * 20_000
    assert sum(fed) <= 1024 * 20_000


def test_all_frames_of_a_body_count() -> None:
    """None is left out without a word, and together they are bounded."""
    frame = zstandard.ZstdCompressor().compress(b"a" * 1000)
    assert bodies.decompress(frame * 3, "zstd", 10_000) == b"a" * 3000
    with pytest.raises(TooLarge):
        bodies.decompress(frame * 30, "zstd", 10_000)


@pytest.mark.parametrize("method", [0x82, 0x90])
def test_a_block_that_lies_about_its_size_is_not_decompressed(method: int) -> None:
    """The Collector's inserts come in such blocks; a frame in one has a size of its own."""
    plain = b"\0" * 50_000_000
    packed = (
        lz4.block.compress(plain, store_size=False)
        if method == 0x82
        else zstandard.ZstdCompressor().compress(plain)
    )
    block = framing._HEADER.pack(method, len(packed) + framing._HEADER.size, 1000) + packed
    with pytest.raises(Malformed):
        framing.unframe(framing._checksum(block) + block, 10_000)
    honest = framing._HEADER.pack(method, len(packed) + framing._HEADER.size, len(plain)) + packed
    with pytest.raises(TooLarge):
        framing.unframe(framing._checksum(honest) + honest, 10_000)


# --- the backlog --------------------------------------------------------------------------------


def test_what_a_request_becomes_is_held_and_released() -> None:
    """Body, decompressed body and rows; nothing remains after it, whichever way it ends."""
    backlog = Backlog(1_000_000)
    intake = Intake(None, None, backlog, Access({}), 10**6)  # type: ignore[arg-type]
    body = logs([{"body": "x" * 100_000}]).SerializeToString()
    with backlog.hold() as held:
        held.grow(len(body))
        intake.rows("logs", body, held)
        assert len(body) <= backlog.held < 2 * len(body)
    with backlog.hold() as held:
        packed = gzip.compress(body)
        held.grow(len(packed))
        intake.rows("logs", packed, held, encoding="gzip")
        assert backlog.held > len(body)
    assert backlog.held == 0
    with backlog.hold(950_000), pytest.raises(Busy), backlog.hold() as held:
        intake.rows("logs", packed, held, encoding="gzip")
    assert backlog.held == 0


def test_a_small_body_that_becomes_large_is_not_decoded_on_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compressed, of many messages, or with a resource for each record: in a thread after all."""
    intake = Intake(None, None, Backlog(10**9), Access({}), 64 * 1024 * 1024)  # type: ignore[arg-type]
    small = audit([record("a.b", "READ", at=NOW)]).SerializeToString()
    with intake.backlog.hold() as held:
        few = intake.few_rows("logs", small, held, messages.PROTOBUF, "")
        assert few is not None
        assert [rows.size for rows in few] == [1]
        before = held.size
        for body, encoding in (
            (gzip.compress(b"\0" * 10_000_000), "gzip"),
            (repeating(b"x" * 8000, where="resource", records=1000), ""),
            (EMPTY["attributes"] * 14, ""),
        ):
            monkeypatch.setattr(
                "otel_audit.server.otlp.http_receiver._FEW",
                Limits(body=128 * 1024, rows=512 * 1024, messages=2000, nodes=2000),
            )
            assert intake.few_rows("logs", body, held, messages.PROTOBUF, encoding) is None
            assert held.size == before


def test_half_sent_bodies_are_held_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """They count from their first byte; others are told to come back; the deadline is for the whole body."""
    backlog = Backlog(1_000_000)
    intake = Intake(None, None, backlog, Access({}), 10_000_000)  # type: ignore[arg-type]
    monkeypatch.setattr("otel_audit.server.otlp.http_receiver._READ_TIMEOUT", 0.3)
    seen: list[int] = []

    async def scenario() -> list[int]:
        transport = httpx.ASGITransport(receiver(intake, lambda: None))

        async def half() -> Any:
            yield b"\0" * 300_000
            await asyncio.sleep(0.05)
            seen.append(backlog.held)
            while True:  # a byte now and then does not extend it
                yield b"\0"
                await asyncio.sleep(0.01)

        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:

            async def send() -> int:
                return (await client.post("/v1/logs", content=half(), headers=PROTOBUF)).status_code

            return list(await asyncio.gather(*(send() for _ in range(5))))

    statuses = asyncio.run(scenario())
    assert set(statuses) <= {408, 503}
    assert 408 in statuses
    assert max(seen) <= backlog.limit
    assert backlog.held == 0


# --- the whole server ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server with 1 GiB for its engine."""
    with serving(tmp_path_factory.mktemp("bombs"), OTEL_AUDIT_SERVER_MEMORY_BYTES=str(2**30)) as running:
        yield running


def test_a_kilobyte_does_not_become_gigabytes(limited: Serving) -> None:
    """413, by HTTP and gRPC, for logs and spans, in each encoding; and the process stays small."""
    bomb = repeating(b"x" * 5_000_000, where="resource", records=5000)
    valid = audit([record("a.b", "READ", at=NOW) for _ in range(2000)])
    valid.resource_logs[0].resource.attributes.extend(key_values({"big": "x" * 5_000_000}))
    spans = ExportTraceServiceRequest()
    spans.resource_spans.add().resource.attributes.add(key="big", value=any_value("x" * 5_000_000))
    for _ in range(5000):
        spans.resource_spans[0].scope_spans.add().spans.add()
    before = resident(limited.pid)
    with httpx.Client(base_url=limited.http, timeout=60) as client:
        for path, body in (
            ("/v1/logs", bomb),
            ("/v1/audit", valid.SerializeToString()),
            ("/v1/traces", spans.SerializeToString()),
            ("/v1/logs", field(1, field(2, field(2, field(6, b"") * 20_000_000)))),
        ):
            for encoding, pack in (("gzip", gzip.compress), ("zstd", zstandard.compress)):
                headers = PROTOBUF | {"Content-Encoding": encoding}
                answer = client.post(path, content=pack(body), headers=headers)
                assert answer.status_code == 413, (path, encoding)
        assert client.get("/ready").status_code == 200
    with grpc.insecure_channel(limited.grpc) as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
        for body in (bomb, b"\0" * 300_000_000):
            with pytest.raises(grpc.RpcError) as refused:
                export(body, timeout=60, compression=grpc.Compression.Gzip)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        sent = audit([record("a.b", "READ", at=NOW)]).SerializeToString()
        for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            assert export(sent, timeout=60, compression=compression) == b""
    assert resident(limited.pid) - before < 1_500_000_000


def test_a_bulk_record_that_would_become_a_billion_cells_is_kept_whole(limited: Serving) -> None:
    """Its rows are left out, not the record, and its neighbours are written as ever."""
    keys = ",".join(['""'] * 30_000)
    columns = ",".join(['{"field":""}'] * 30_000)
    wide = '{"count":30000,"keys":[' + keys + '],"columns":[' + columns + "]}"
    long = '{"count":30000,"keys":[' + keys + '],"columns":[]}'
    sent = [record("a.b", "READ", at=NOW) for _ in range(3)]
    request = audit(sent)
    records = request.resource_logs[0].scope_logs[0].log_records
    records[0].attributes.add(key="otel_audit.bulk").value.string_value = wide
    records[1].attributes.add(key="otel_audit.bulk").value.string_value = long
    records[1].body.string_value = "m" * 1_000_000
    with httpx.Client(base_url=limited.http, timeout=60) as client:
        answer = client.post("/v1/audit", content=request.SerializeToString(), headers=PROTOBUF)
        assert answer.status_code == 200
        ids = ",".join(f"'{one.id}'" for one in sent)
        asked = client.post(
            limited.clickhouse,
            content=f"SELECT count(), max(row_count) FROM otel.audit_events WHERE record_id IN ({ids})",
        )
        assert asked.text == "3\t30000\n"


def test_half_sent_bodies_do_not_add_up(limited: Serving) -> None:
    """Forty connections that each send most of a large body and stop: the process holds a part of it."""
    before = resident(limited.pid)
    host, port = limited.http.removeprefix("http://").split(":")
    head = (
        f"POST /v1/logs HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/x-protobuf\r\n"
        f"Content-Length: {60_000_000}\r\n\r\n"
    ).encode()
    piece = b"\0" * 1_000_000
    sockets = []
    try:
        for _ in range(40):
            connection = socket.create_connection((host, int(port)))
            sockets.append(connection)
            connection.sendall(head)
            for _ in range(25):
                connection.sendall(piece)
        assert resident(limited.pid) - before < 500_000_000
    finally:
        for connection in sockets:
            connection.close()
