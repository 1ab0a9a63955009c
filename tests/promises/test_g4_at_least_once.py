"""G4: retried until acknowledged, and the same record each time."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from tests.pipeline.otlp_sink import Reply, Sink, log_records, partial_success, record_id
from tests.pipeline.spooling import NOWHERE, run_script, start_script, target_ids, wait_until

DRAIN = """
from otel_audit.pipeline.delivery.drain import drain
found = drain(sys.argv[1], audit_config(Path(sys.argv[1]), sys.argv[2]))
assert found.complete, found
"""


def versions(sink: Sink) -> dict[str, set[bytes]]:
    """The bytes of each record in everything that was ever sent, acknowledged or not."""
    found: dict[str, set[bytes]] = {}
    for request in sink.requests:
        for record in log_records(request):
            found.setdefault(record_id(record), set()).add(record.SerializeToString(deterministic=True))
    return found


def test_a_sender_killed_before_the_answer_is_followed_by_one_that_sends_the_same_bytes(
    tmp_path: Path,
) -> None:
    """The sink got the batch, the process died; numbers, ids and times are those of the first time."""
    with Sink() as sink:

        def swallow(records: list[LogRecord]) -> Reply:
            time.sleep(20)  # the process is dead long before
            return Reply(kept=False)

        sink.respond = swallow
        process = start_script(
            """
            pipeline = provider.start(audit_config(Path(sys.argv[1]), sys.argv[2], spool_segment_bytes=4096))
            for number in range(40):
                handle = pipeline.logger.intend([make_record(pipeline, number)])
                pipeline.logger.settle(handle, "failure" if number % 2 else "success")
            pipeline.logger.intend([make_record(pipeline, 100)])
            time.sleep(60)
            """,
            tmp_path,
            sink.url,
        )
        wait_until(lambda: len(sink.requests) == 1, "a request")
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert versions(sink), "it was killed before it sent any record"
        sink.respond = lambda records: Reply()
        run_script(DRAIN, tmp_path, sink.url)
        assert all(len(bodies) == 1 for bodies in versions(sink).values())
        assert target_ids(sink.records) == [*map(str, range(40)), "100"]
        assert sink.records[-1].outcome == "unknown"


def test_an_answer_of_partial_success_is_never_taken_for_an_acknowledgement(tmp_path: Path) -> None:
    """Whatever a sink rejected, it gets again."""
    with Sink() as sink:
        answers = iter([partial_success(1), partial_success(512), Reply(), partial_success(3)])
        sink.respond = lambda records: next(answers, Reply())
        run_script(
            """
            pipeline = provider.start(audit_config(Path(sys.argv[1]), sys.argv[2], sink_batch_records=8))
            for number in range(30):
                pipeline.logger.emit(make_record(pipeline, number))
            assert pipeline.flush(30)
            """,
            tmp_path,
            sink.url,
        )
        assert target_ids(sink.records) == [str(number) for number in range(30)]
        assert all(len(bodies) == 1 for bodies in versions(sink).values())


def test_a_dead_process_s_records_are_shipped_by_a_living_one(tmp_path: Path) -> None:
    """Also if the living one came later and has little to say itself."""
    with Sink() as sink:
        run_script(
            """
            pipeline = provider.start(audit_config(Path(sys.argv[1])))
            for number in range(20):
                pipeline.logger.emit(make_record(pipeline, number))
            os.kill(os.getpid(), signal.SIGKILL)
            """,
            tmp_path,
            expect=-signal.SIGKILL,
        )
        process = start_script(
            """
            pipeline = provider.start(audit_config(Path(sys.argv[1]), sys.argv[2]))
            pipeline.logger.emit(make_record(pipeline, 100))
            sys.stdin.read()
            """,
            tmp_path,
            sink.url,
            stdin=-1,
        )
        wait_until(lambda: len(target_ids(sink.records)) == 21, "delivery")
        process.communicate("")
        assert sorted(map(int, target_ids(sink.records))) == [*range(20), 100]
        dead = [
            record for record in sink.records if record.target and record.target.id in map(str, range(20))
        ]
        assert [record.sequence.number for record in dead if record.sequence] == list(range(2, 22))
        # The records keep the Resource of the process that made them, not of the one that ships them.
        pids = {
            request.resource_logs[0].SerializeToString() != b"" and record.attributes["pid"]
            for request in sink.requests
            for record in sink.records
            if record.event_name == "audit.stream.start"
        }
        assert len(pids) == 2
        assert sink.events.count("audit.stream.end") == 1  # nobody ends a stream for a crash


def test_a_living_process_s_records_are_left_alone(tmp_path: Path) -> None:
    """It ships them itself: two senders of one stream would number it twice."""
    with Sink() as sink:
        process = start_script(
            """
            pipeline = provider.start(audit_config(Path(sys.argv[1]), sys.argv[2]))
            pipeline.logger.emit(make_record(pipeline, 1))
            print("written", flush=True)
            sys.stdin.read()
            """,
            tmp_path,
            NOWHERE,
            stdin=-1,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        run_script(DRAIN, tmp_path, sink.url)
        assert sink.requests == []
        process.kill()
        process.communicate()
        run_script(DRAIN, tmp_path, sink.url)
        assert target_ids(sink.records) == ["1"]


def test_two_that_adopt_at_the_same_time_do_not_share(tmp_path: Path) -> None:
    """Ten dead processes, three drains at once: each stream is shipped by one of them."""
    with Sink() as sink:
        run_script(
            """
            pipeline = provider.start(audit_config(Path(sys.argv[1])))
            for batch in range(10):
                pid = os.fork()
                if pid == 0:
                    for number in range(5):
                        pipeline.logger.emit(make_record(pipeline, batch * 100 + number))
                    os.kill(os.getpid(), signal.SIGKILL)
                os.waitpid(pid, 0)
            """,
            tmp_path,
        )
        drains = [start_script(DRAIN, tmp_path, sink.url) for _ in range(3)]
        for process in drains:
            _, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
        expected = [batch * 100 + number for batch in range(10) for number in range(5)]
        assert sorted(map(int, target_ids(sink.records))) == expected
        assert len(sink.kept) == 60  # with ten starts; none twice


def test_a_clock_set_back_an_hour_breaks_nothing(tmp_path: Path) -> None:
    """No record is observed before it happened, order and numbers stay, ids stay unique."""
    with Sink() as sink:
        run_script(
            """
            real, jump = time.time_ns, 0
            time.time_ns = lambda: real() + jump
            from otel_audit.audit_context import moment
            pipeline = provider.start(audit_config(Path(sys.argv[1]), sys.argv[2]))
            for number in range(60):
                at = moment()
                if number == 20: jump = -3600 * 10**9
                if number == 40: jump = 7200 * 10**9
                pipeline.logger.emit(make_record(pipeline, number, at=at))
                assert pipeline.flush(20)
            """,
            tmp_path,
            sink.url,
        )
        assert target_ids(sink.records) == [str(number) for number in range(60)]
        assert all(record.timestamp <= record.observed_timestamp for record in sink.records)
        assert [record.sequence.number for record in sink.records if record.sequence] == list(
            range(1, len(sink.records) + 1)
        )
        times = [record.timestamp for record in sink.records]
        assert times != sorted(times)  # the clock did jump


@pytest.mark.parametrize("times", [3])
def test_a_sink_killed_and_restarted_gets_everything(tmp_path: Path, times: int) -> None:
    """Connections die under requests; each record arrives, in one stream without a hole."""
    with Sink() as first:
        port = first.port
    process = start_script(
        """
        pipeline = provider.start(audit_config(Path(sys.argv[1]), sys.argv[2]))
        for number in range(600):
            pipeline.logger.emit(make_record(pipeline, number))
            time.sleep(0.002)
        assert pipeline.flush(30)
        """,
        tmp_path,
        f"http://127.0.0.1:{port}/v1/audit",
    )
    kept: list[LogRecord] = []
    for attempt in range(times):
        sink = Sink(port=port)
        if attempt < times - 1:
            wait_until(lambda sink=sink: len(sink.requests) >= 2, "requests")  # type: ignore[misc]
        else:
            _, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
        sink.close()
        kept += sink.kept
    everything = Sink()
    everything.kept = kept
    everything.close()
    assert sorted(map(int, target_ids(everything.records))) == list(range(600))
    numbers = sorted(record.sequence.number for record in everything.records if record.sequence)
    assert numbers == list(range(1, len(numbers) + 1))
