"""Every record reaches the sink, whatever it answers; what it refuses is set aside in plain sight."""

from __future__ import annotations

import email.utils
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from otel_audit.config.model import AuditConfig, SinkConfig
from otel_audit.pipeline.provider import AuditPipeline
from otel_audit.pipeline.spool import directory as layout
from otel_audit.pipeline.spool.frames import MAGIC, PREFIX_BYTES
from otel_audit.pipeline.spool.status import read_status
from tests.pipeline.otlp_sink import Reply, Sink, partial_success, record_id
from tests.pipeline.spooling import NOWHERE, audit_config, make_record, run_script, target_ids, wait_until

Make = Callable[..., AuditPipeline]


@pytest.fixture
def shipping(spool_directory: Path, sink: Sink) -> Iterator[AuditPipeline]:
    """A pipeline that ships to the sink."""
    pipeline = AuditPipeline(audit_config(spool_directory, sink.url))
    yield pipeline
    pipeline.shutdown(0)


def emit(pipeline: AuditPipeline, *numbers: int) -> None:
    for number in numbers:
        pipeline.logger.emit(make_record(pipeline, number))


def emit_together(pipeline: AuditPipeline, *numbers: int) -> None:
    pipeline.logger.emit(*[make_record(pipeline, number) for number in numbers])


def has(record: LogRecord, target_id: str) -> bool:
    return any(
        pair.key == "audit.target.id" and pair.value.string_value == target_id for pair in record.attributes
    )


def leave_damaged(pipeline: AuditPipeline, records: int, places: int) -> tuple[str, bytes]:
    """Leave a spool behind with a bit flipped in so many records; gives its name and its segment's bytes."""
    emit(pipeline, *range(records))
    assert pipeline.spool.lock is not None
    path = pipeline.spool.lock.path
    pipeline.shutdown(0)
    segment = layout.segment_path(path, 1)
    raw = bytearray(segment.read_bytes())
    for place in range(1, places + 1):
        raw[raw.index(MAGIC, len(raw) * place // (places + 1)) + PREFIX_BYTES + 8] ^= 0x10
    segment.write_bytes(raw)
    return path.name, bytes(raw)


def adopt(config: AuditConfig, name: str) -> AuditPipeline:
    """Ship a spool that was left behind, and a record of one's own; gives the pipeline, which has ended."""
    adopter = AuditPipeline(config)
    emit(adopter, 100)
    left = Path(config.spool.directory) / name
    wait_until(lambda: adopter.health.adopted == 1 and not left.exists(), "adoption")
    assert adopter.flush(10)
    adopter.shutdown(10)
    return adopter


def answer_in_turn(sink: Sink, *replies: Reply) -> None:
    rest = list(replies)
    sink.respond = lambda records: rest.pop(0) if rest else Reply()


def test_records_arrive_in_order_between_start_and_end(shipping: AuditPipeline, sink: Sink) -> None:
    """One stream: numbers without a hole, each naming the record before."""
    emit(shipping, 1, 2, 3)
    assert shipping.flush(10)
    shipping.shutdown(10)
    assert sink.events == ["audit.stream.start", *["shop.order.update"] * 3, "audit.stream.end"]
    sequences = [record.sequence for record in sink.records if record.sequence]
    assert [sequence.number for sequence in sequences] == [1, 2, 3, 4, 5]
    assert len({sequence.stream for sequence in sequences}) == 1
    assert [sequence.previous_record for sequence in sequences] == [
        "",
        *[record.id for record in sink.records[:-1]],
    ]
    assert [sequence.end for sequence in sequences] == [False, False, False, False, True]


def test_each_log_is_a_stream_of_its_own(shipping: AuditPipeline, sink: Sink) -> None:
    """Logs are kept in different tables, for different times."""
    for log in ("audit", "activity", "audit"):
        shipping.logger.emit(make_record(shipping, log=log))
    shipping.shutdown(10)
    numbers: dict[str, list[int]] = {}
    for record in sink.records:
        assert record.sequence is not None
        numbers.setdefault(f"{record.log} {record.sequence.stream}", []).append(record.sequence.number)
    assert sorted(key.split()[0] for key in numbers) == ["activity", "audit"]
    assert sorted(numbers.values()) == [[1, 2, 3], [1, 2, 3, 4]]


def test_what_is_acknowledged_leaves_the_disk(
    shipping: AuditPipeline, sink: Sink, spool_directory: Path
) -> None:
    """After a graceful stop nothing but the tip of the stream is left."""
    emit(shipping, 1, 2, 3)
    shipping.shutdown(10)
    assert layout.list_incarnations(spool_directory) == []
    assert [path.parent.name for path in spool_directory.rglob("*.json")] == ["tips"]


def test_a_stream_names_the_one_before(spool_directory: Path, sink: Sink) -> None:
    """So that a stream lost as a whole is noticed."""
    last = []
    for number in range(2):
        pipeline = AuditPipeline(audit_config(spool_directory, sink.url))
        emit(pipeline, number)
        pipeline.shutdown(10)
        last.append(sink.records[-1])
    [first, second] = [record for record in sink.records if record.event_name == "audit.stream.start"]
    assert "previous_stream" not in first.attributes
    assert last[0].sequence is not None
    assert second.attributes["previous_stream"] == last[0].sequence.stream
    assert second.attributes["previous_number"] == last[0].sequence.number
    assert second.attributes["previous_record"] == last[0].id


def test_partial_success_is_a_failure_of_the_batch(shipping: AuditPipeline, sink: Sink) -> None:
    """The same bytes come again until all are taken."""
    answer_in_turn(sink, partial_success(1), partial_success(2))
    emit_together(shipping, 1, 2, 3)
    assert shipping.flush(20)
    assert target_ids(sink.records) == ["1", "2", "3"]
    bodies = [request.SerializeToString(deterministic=True) for request in sink.requests]
    assert len(bodies) >= 3
    assert bodies[0] == bodies[1] == bodies[2]
    assert shipping.health.quarantined == 0


@pytest.mark.parametrize(
    "reply",
    [
        Reply(503),
        Reply(500, b"oops"),
        Reply(429),
        Reply(401, b"no token"),
        Reply(403),
        Reply(404),
        Reply(301, b"", {"Location": "http://elsewhere/"}),
        Reply(200, b"<html>welcome</html>", {"Content-Type": "text/html"}, kept=False),
        Reply(200, b"\xff\xff\xff", {"Content-Type": "application/x-protobuf"}, kept=False),
        Reply(
            200,
            b'{"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "x"}}',
            {"Content-Type": "application/json"},
            kept=False,
        ),
    ],
    ids=lambda reply: f"{reply.status}{reply.content[:8]!r}",
)
def test_whatever_is_no_acknowledgement_is_tried_again(
    shipping: AuditPipeline, sink: Sink, reply: Reply
) -> None:
    """And the health says why."""
    reasons: list[str] = []

    def respond(records: list[LogRecord]) -> Reply:
        reasons.append(shipping.health.sink_error)
        return reply if len(reasons) < 4 else Reply()

    sink.respond = respond
    emit(shipping, 1)
    assert shipping.flush(20)
    assert target_ids(sink.records) == ["1"]
    assert sink.url in reasons[-1]
    assert shipping.health.sink_error == ""


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "sink.token"), (403, "sink.token"), (404, "sink.endpoint")]
)
def test_a_wrong_setting_is_named(shipping: AuditPipeline, sink: Sink, status: int, hint: str) -> None:
    """Only people can change it; the records wait for them."""
    sink.respond = lambda records: Reply(status, b"go away")
    emit(shipping, 1)
    wait_until(lambda: shipping.health.failures > 2, "three attempts")
    assert f"answered {status} (go away)" in shipping.health.sink_error
    assert hint in shipping.health.sink_error
    sink.respond = lambda records: Reply()
    assert shipping.flush(20)
    assert target_ids(sink.records) == ["1"]


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_obeyed(shipping: AuditPipeline, sink: Sink, form: str) -> None:
    """Both forms of the header."""
    times: list[float] = []

    def respond(records: list[LogRecord]) -> Reply:
        times.append(time.time())
        if len(times) > 1:
            return Reply()
        value = "2" if form == "seconds" else email.utils.formatdate(time.time() + 3, usegmt=True)
        return Reply(503, b"", {"Retry-After": value})

    sink.respond = respond
    emit(shipping, 1)
    wait_until(lambda: len(times) > 1, "a second attempt")
    assert times[1] - times[0] >= 1.9


def test_a_batch_too_large_is_sent_in_parts(shipping: AuditPipeline, sink: Sink) -> None:
    """413: halves, until they fit."""
    sink.respond = lambda records: Reply(413) if len(records) > 3 else Reply()
    emit_together(shipping, *range(20))
    assert shipping.flush(20)
    assert target_ids(sink.records) == [str(number) for number in range(20)]
    assert len(sink.kept) == len(sink.records)


@pytest.mark.parametrize("reply", [Reply(400, b"bad record"), Reply(413), partial_success(1, "bad record")])
def test_one_record_the_sink_refuses_does_not_block_the_others(
    shipping: AuditPipeline, sink: Sink, spool_directory: Path, caplog: pytest.LogCaptureFixture, reply: Reply
) -> None:
    """It is set aside in a file, said in the log, counted, and named in the trail; nothing else is."""
    sink.respond = lambda records: reply if any(has(record, "7") for record in records) else Reply()
    emit_together(shipping, *range(20))
    wait_until(lambda: shipping.health.quarantined == 1, "the refused record set aside", 40)
    assert shipping.flush(20)
    assert target_ids(sink.records) == [str(number) for number in range(20) if number != 7]
    [path] = (spool_directory / "quarantine").iterdir()
    kept = json.loads(path.read_text())
    assert kept["record"]["target"]["id"] == "7"
    assert str(reply.status) in kept["reason"] or "rejected" in kept["reason"]
    assert [line.levelno for line in caplog.records if "refuses record" in line.message] == [logging.ERROR]
    [notice] = [record for record in sink.records if record.event_name == "audit.record.quarantined"]
    assert notice.target is not None
    assert notice.target.id == kept["record"]["id"]
    assert notice.attributes["number"] == kept["record"]["sequence"]["number"]
    assert read_status(spool_directory).quarantined == [path.name]


def test_a_gap_from_a_refused_record_is_the_only_one(shipping: AuditPipeline, sink: Sink) -> None:
    """Its number is used up; nobody else gets it, and no number is given twice."""
    sink.respond = lambda records: Reply(400) if any(has(record, "7") for record in records) else Reply()
    emit_together(shipping, *range(20))
    wait_until(lambda: shipping.health.quarantined == 1, "the refused record set aside")
    shipping.shutdown(10)
    numbers = [record.sequence.number for record in sink.records if record.sequence]
    assert sorted(set(range(1, max(numbers) + 1)) - set(numbers)) == [9]  # behind the start and 0 to 6
    seen = {(record_id(record), record.SerializeToString(deterministic=True)) for record in sink.kept}
    assert len(seen) == len({record_id(record) for record in sink.kept})


def test_a_sink_that_refuses_everything_gets_nothing_set_aside(
    shipping: AuditPipeline, sink: Sink, spool_directory: Path
) -> None:
    """That is a broken sink, not a bad record: all of it waits."""
    sink.respond = lambda records: Reply(400, b"I do not like audit")
    emit_together(shipping, *range(20))
    wait_until(lambda: shipping.health.failures > 30, "many attempts")
    assert shipping.health.quarantined == 0
    sink.respond = lambda records: Reply()
    assert shipping.flush(20)
    assert sorted(target_ids(sink.records), key=int) == [str(number) for number in range(20)]
    assert not (spool_directory / "quarantine").exists()


def test_a_single_refused_record_waits_until_the_sink_takes_another(
    shipping: AuditPipeline, sink: Sink
) -> None:
    """With nothing to compare it to, nobody can say whose fault it is, and it is in nobody's way."""
    sink.respond = lambda records: Reply(400) if any(has(record, "0") for record in records) else Reply()
    emit(shipping, 0)
    wait_until(lambda: shipping.health.failures > 10, "attempts")
    assert shipping.health.quarantined == 0
    emit(shipping, 1)
    wait_until(lambda: shipping.health.quarantined == 1, "set aside")
    assert shipping.flush(20)
    assert target_ids(sink.records) == ["1"]


def test_a_sink_that_answers_a_poisoned_batch_with_503_is_not_blocked_for_ever(
    shipping: AuditPipeline, sink: Sink
) -> None:
    """Some do: a Collector's processor that cannot sign one record fails the batch as retryable."""
    sink.respond = lambda records: Reply(503) if any(has(record, "3") for record in records) else Reply()
    emit_together(shipping, *range(8))
    wait_until(lambda: shipping.health.quarantined == 1, "the refused record set aside", 60)
    assert shipping.flush(20)
    assert target_ids(sink.records) == [str(number) for number in range(8) if number != 3]


def test_a_busy_sink_gets_nothing_set_aside(shipping: AuditPipeline, sink: Sink) -> None:
    """429 and Retry-After are about the sink, never about a record."""
    replies = iter([Reply(429), Reply(), Reply(503, b"", {"Retry-After": "0"})] * 40)
    sink.respond = lambda records: next(replies, Reply())
    for number in range(40):
        emit(shipping, number)
        assert shipping.flush(20)
    assert shipping.health.quarantined == 0
    assert target_ids(sink.records) == [str(number) for number in range(40)]


def test_records_wait_for_a_sink_that_is_down(
    spool_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Down, then up: one log line a minute meanwhile, memory flat, nothing lost, order kept."""
    with Sink() as gone:
        port, url = gone.port, gone.url
    pipeline = AuditPipeline(audit_config(spool_directory, url, sink_max_backoff=0.01))
    emit_together(pipeline, *range(3000))
    wait_until(lambda: pipeline.health.failures > 20, "attempts")
    assert pipeline.health.depth == 3000
    assert pipeline.health.oldest > 0
    assert len([line for line in caplog.records if "wait in the spool" in line.message]) == 1
    assert "cannot be reached" in pipeline.health.sink_error
    with Sink(port=port) as sink:
        assert pipeline.flush(30)
        assert target_ids(sink.records) == [str(number) for number in range(3000)]
        assert pipeline.health.depth == 0
        pipeline.shutdown(10)
    sizes = [len(batch.resource_logs[0].scope_logs[0].log_records) for batch in sink.requests]
    assert max(sizes) <= SinkConfig().batch_records < sum(sizes)


def test_memory_stays_flat_while_the_sink_is_down(spool_directory: Path) -> None:
    """Records wait on disk: forty thousand of them, 30 MB, cost the process next to nothing."""
    out = run_script(
        """
        import resource
        pipeline = provider.start(audit_config(Path(sys.argv[1]), sys.argv[2], sink_max_backoff=0.01))
        emit = lambda number: pipeline.logger.emit(make_record(pipeline, number, message="x" * 500))
        for number in range(2000): emit(number)
        while pipeline.health.failures < 3: time.sleep(0.01)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(40000): emit(number)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, flush=True)
        os._exit(0)
        """,
        spool_directory,
        NOWHERE,
    )
    assert int(out) < 8 * 1024  # KiB
    assert layout.spooled_bytes(spool_directory) > 30_000_000


def test_an_exit_does_not_wait_long_for_a_sink_that_is_not_there(spool_directory: Path) -> None:
    """A short command must not hang: one look, then the records wait for the next process."""
    out = run_script(
        """
        began = time.monotonic()
        pipeline = provider.start(audit_config(Path(sys.argv[1]), sys.argv[2], sink_shutdown_timeout=30.0))
        pipeline.logger.emit(make_record(pipeline, 1))
        provider.stop()
        print(time.monotonic() - began < 15)
        """,
        spool_directory,
        NOWHERE,
    )
    assert out.strip() == "True"
    assert read_status(spool_directory).waiting == 1


def test_a_process_that_ends_ships_what_it_has(spool_directory: Path, sink: Sink) -> None:
    """At exit, without being asked."""
    run_script(
        """
        pipeline = provider.start(audit_config(Path(sys.argv[1]), sys.argv[2]))
        for number in range(50):
            pipeline.logger.emit(make_record(pipeline, number))
        """,
        spool_directory,
        sink.url,
    )
    assert target_ids(sink.records) == [str(number) for number in range(50)]
    assert sink.events[-1] == "audit.stream.end"


def test_a_server_that_closes_idle_connections_is_no_failure(shipping: AuditPipeline, sink: Sink) -> None:
    """The request is made again on a new connection, at once."""
    sink.respond = lambda records: Reply(200, b"", {"Connection": "close"})
    for number in range(3):
        emit(shipping, number)
        assert shipping.flush(10)
    assert shipping.health.failures == 0


def test_bearer_token_and_headers_are_sent(spool_directory: Path, sink: Sink) -> None:
    """And the body is gzip unless told otherwise."""
    config = audit_config(spool_directory, sink.url, sink_token="t0ken", sink_headers={"X-Scope": "audit"})
    pipeline = AuditPipeline(config)
    emit(pipeline, 1)
    assert pipeline.flush(10)
    pipeline.shutdown(5)
    assert sink.headers[0]["Authorization"] == "Bearer t0ken"
    assert sink.headers[0]["X-Scope"] == "audit"
    assert sink.headers[0]["Content-Encoding"] == "gzip"


def test_the_sender_traces_nothing_of_itself(shipping: AuditPipeline, sink: Sink) -> None:
    """Instrumented clients must see that they are suppressed."""
    from opentelemetry.instrumentation.utils import is_instrumentation_enabled

    seen: list[bool] = []
    import http.client

    original = http.client.HTTPConnection.request

    def request(self: http.client.HTTPConnection, *args: object, **kwargs: object) -> None:
        if threading.current_thread().name == "otel-audit-sender":
            seen.append(is_instrumentation_enabled())
        original(self, *args, **kwargs)  # type: ignore[arg-type]

    http.client.HTTPConnection.request = request  # type: ignore[method-assign]
    try:
        emit(shipping, 1)
        assert shipping.flush(10)
    finally:
        http.client.HTTPConnection.request = original  # type: ignore[method-assign]
    assert seen
    assert not any(seen)


def test_damaged_bytes_are_reported_in_the_trail_and_the_file_is_kept(
    spool_directory: Path, pipelines: Make, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest is shipped; what was lost is said in the log, in the metrics and where it was lost."""
    name, raw = leave_damaged(pipelines(audit_config(spool_directory)), 10, 1)
    adopter = adopt(audit_config(spool_directory, sink.url), name)
    assert adopter.health.damaged == 1
    assert adopter.health.damaged_bytes > 100
    assert len(target_ids(sink.records)) == 10
    [notice] = [record for record in sink.records if record.event_name == "audit.spool.damaged"]
    assert notice.outcome == "failure"
    assert notice.attributes["bytes"] == adopter.health.damaged_bytes
    kept = spool_directory / "damaged" / f"{name}-00000001.seg"
    assert kept.read_bytes() == raw
    assert any("unreadable bytes" in line.message for line in caplog.records)


def test_a_segment_full_of_damage_does_not_fill_the_log(
    spool_directory: Path, pipelines: Make, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says it; every place is counted, and named in the trail."""
    name, _ = leave_damaged(pipelines(audit_config(spool_directory)), 40, 20)
    adopter = adopt(audit_config(spool_directory, sink.url), name)
    assert adopter.health.damaged > 10
    notices = [record for record in sink.records if record.event_name == "audit.spool.damaged"]
    assert len(notices) == adopter.health.damaged
    assert len([line for line in caplog.records if "unreadable bytes" in line.message]) == 1


def test_a_lost_cursor_begins_another_stream_that_says_why(
    spool_directory: Path, pipelines: Make, sink: Sink
) -> None:
    """Numbers given under the old id must not be given again to other records."""
    dead = pipelines(audit_config(spool_directory))
    emit(dead, 1, 2)
    assert dead.spool.lock is not None
    path = dead.spool.lock.path
    dead.shutdown(0)
    (path / "cursor").write_bytes(b"x" * 8192)
    adopter = AuditPipeline(audit_config(spool_directory, sink.url))
    emit(adopter, 100)
    wait_until(lambda: not path.exists(), "adoption")
    adopter.shutdown(10)
    starts = [record for record in sink.records if record.event_name == "audit.stream.start"]
    assert sorted(str(record.attributes.get("reason", "")) for record in starts) == ["", "cursor is damaged"]
    assert sorted(target_ids(sink.records), key=int) == ["1", "2", "100"]


def test_the_same_spool_is_sealed_the_same_by_whoever_ships_it(
    spool_directory: Path, pipelines: Make, sink: Sink
) -> None:
    """Bytes that were sent and not acknowledged come again as they were, from another process."""
    dead = pipelines(audit_config(spool_directory))
    emit(dead, *range(30))
    dead.shutdown(0)
    answers = iter([Reply(), Reply(503), Reply(503)])
    sink.respond = lambda records: next(answers, Reply())
    for _ in range(2):
        out = run_script(
            """
            from otel_audit.pipeline.delivery.drain import drain
            config = audit_config(Path(sys.argv[1]), sys.argv[2], sink_batch_records=10)
            found = drain(sys.argv[1], config, timeout=0)
            print(found.remaining)
            """,
            spool_directory,
            sink.url,
        )
    wait_until(lambda: len(sink.requests) >= 3, "attempts")
    run_script(
        """
        from otel_audit.pipeline.delivery.drain import drain
        print(drain(sys.argv[1], audit_config(Path(sys.argv[1]), sys.argv[2], sink_batch_records=7)))
        """,
        spool_directory,
        sink.url,
    )
    assert out
    versions: dict[str, set[bytes]] = {}
    for request in sink.requests:
        for scope in request.resource_logs[0].scope_logs:
            for record in scope.log_records:
                versions.setdefault(record_id(record), set()).add(
                    record.SerializeToString(deterministic=True)
                )
    assert len(versions) == 32
    assert all(len(bodies) == 1 for bodies in versions.values())
    assert target_ids(sink.records) == [str(number) for number in range(30)]
