"""G2: when ``emit`` returns, killing the process loses nothing."""

from __future__ import annotations

import mmap
import os
import random
import signal
import time
from pathlib import Path

import pytest

from otel_audit.audit_record import AuditRecord
from otel_audit.pipeline.spool.reader import Damage
from tests.pipeline.otlp_sink import Sink
from tests.pipeline.spooling import (
    NOWHERE,
    run_script,
    spooled,
    spooled_records,
    start_script,
    target_ids,
    wait_until,
)

LOOP = """
pipeline = provider.start(audit_config(Path(sys.argv[1]), sys.argv[2], **eval(sys.argv[3])))
out = os.open(sys.argv[4], os.O_WRONLY | os.O_CREAT)
for number in range(10**9):
    pipeline.logger.emit(make_record(pipeline, number))
    os.write(out, b"%d\\n" % number)
"""


def run_and_kill(directory: Path, seconds: float, *arguments: object) -> list[str]:
    """Run LOOP and kill -9 it some time after its first emit; gives the numbers whose emit had returned."""
    returned = directory.with_name(f"{directory.name}-returned")
    returned.unlink(missing_ok=True)
    process = start_script(LOOP, directory, *arguments, returned)
    wait_until(lambda: returned.exists() and returned.stat().st_size > 0, "a first record")
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return [line.strip() for line in returned.read_text().splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.parametrize("settings", [{}, {"spool_segment_bytes": 4096}, {"spool_fsync": "always"}], ids=str)
def test_every_emit_that_returned_is_found_after_kill_9(tmp_path: Path, settings: dict[str, object]) -> None:
    """Killed in the middle of a loop, several times, wherever that hits."""
    for attempt in range(3):
        directory = tmp_path / str(attempt)
        returned = run_and_kill(directory, random.uniform(0.01, 0.3), NOWHERE, settings)
        found = target_ids(spooled_records(directory))
        assert returned
        assert set(returned) <= set(found)
        # One more may be there: written, and killed before it could say so.
        assert len(found) <= len(returned) + 1
        # So may a part of one: a write is cut short at the end of a page, where the kernel looks for signals.
        for item in spooled(directory):
            assert not isinstance(item, Damage) or (item.offset + item.length) % mmap.PAGESIZE == 0, item


def test_every_emit_that_returned_arrives_once_after_kill_9_under_delivery(tmp_path: Path) -> None:
    """The sender was in the middle of something, too; the next process adopts what is left."""
    with Sink() as sink:
        returned: list[str] = []
        for _ in range(4):
            returned += run_and_kill(
                tmp_path / "spool", random.uniform(0.05, 0.4), sink.url, {"spool_segment_bytes": 4096}
            )
        run_script(
            """
            from otel_audit.pipeline.delivery.drain import drain
            found = drain(sys.argv[1], audit_config(Path(sys.argv[1]), sys.argv[2]))
            assert found.complete, found
            """,
            tmp_path / "spool",
            sink.url,
        )
        counts: dict[str, int] = {}
        for number in target_ids(sink.records):
            counts[number] = counts.get(number, 0) + 1
        expected: dict[str, int] = {}
        for number in returned:
            expected[number] = expected.get(number, 0) + 1
        assert all(counts.get(number, 0) >= count for number, count in expected.items())
        assert sum(counts.values()) - sum(expected.values()) <= 4
        streams: dict[str, list[int]] = {}
        for record in sink.records:
            assert record.sequence is not None
            streams.setdefault(record.sequence.stream, []).append(record.sequence.number)
        assert len(streams) == 4
        for numbers in streams.values():
            assert sorted(numbers) == list(range(1, len(numbers) + 1))


def test_an_intent_is_durable_before_the_commit(tmp_path: Path) -> None:
    """Killed between intent and marker, the outcome is unknown; with the marker it is what it was."""
    run_script(
        """
        pipeline = provider.start(audit_config(Path(sys.argv[1])))
        logger = pipeline.logger
        settled = logger.intend([make_record(pipeline, 1), make_record(pipeline, 2)])
        logger.intend([make_record(pipeline, 3)])
        logger.settle(settled, "success")
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path,
        expect=-signal.SIGKILL,
    )
    outcomes = {
        record.target.id: record.outcome for record in spooled_records(tmp_path) if record.target is not None
    }
    assert outcomes == {"1": "success", "2": "success", "3": "unknown"}


def test_twenty_threads_lose_nothing_and_keep_each_one_s_order(tmp_path: Path) -> None:
    """Killed when all have returned, without any flush."""
    run_script(
        """
        pipeline = provider.start(audit_config(Path(sys.argv[1]), spool_segment_bytes=16384))
        def work(thread):
            for number in range(100):
                if number % 3:
                    pipeline.logger.emit(make_record(pipeline, thread * 1000 + number))
                else:
                    handle = pipeline.logger.intend([make_record(pipeline, thread * 1000 + number)])
                    pipeline.logger.settle(handle, "success")
        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(20)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path,
        expect=-signal.SIGKILL,
    )
    numbers = [int(target) for target in target_ids(spooled_records(tmp_path))]
    assert sorted(numbers) == [thread * 1000 + number for thread in range(20) for number in range(100)]
    for thread in range(20):
        own = [number for number in numbers if number // 1000 == thread]
        assert own == sorted(own)
    ids = [item.id for item in spooled(tmp_path) if isinstance(item, AuditRecord)]
    assert len(set(ids)) == len(ids)


def test_fsync_always_is_on_the_disk_when_emit_returns(tmp_path: Path) -> None:
    """Each write is followed by a flush of its segment before emit returns, a new file by its directory's."""
    out = run_script(
        """
        calls = []
        from otel_audit.pipeline.spool import writer, directory
        flush, flush_directory = writer._sync, directory.sync_directory
        def sync(descriptor):
            calls.append(("file", os.fstat(descriptor).st_size)); flush(descriptor)
        def sync_directory(path):
            calls.append(("directory", path.name)); flush_directory(path)
        writer._sync, writer.layout.sync_directory = sync, sync_directory
        pipeline = provider.start(audit_config(Path(sys.argv[1]), spool_fsync="always"), ship=False)
        for number in range(3):
            pipeline.logger.emit(make_record(pipeline, number))
            segment = next(pipeline.spool.lock.path.glob("*.seg"))
            assert calls[-1] == ("file", segment.stat().st_size), calls
            print(calls[-1][0])
        assert ("directory", pipeline.spool.lock.path.name) in calls
        assert ("directory", Path(sys.argv[1]).name) in calls
        """,
        tmp_path,
    )
    assert out.split() == ["file"] * 3


@pytest.mark.parametrize("when", ["before the first record", "after records and a running sender"])
def test_fork_gives_parent_and_child_streams_of_their_own(tmp_path: Path, when: str) -> None:
    """Nothing of the parent's is written or sent by the child, and the other way round."""
    with Sink() as sink:
        run_script(
            """
            pipeline = provider.start(audit_config(Path(sys.argv[1]), sys.argv[2]))
            emit = lambda number: pipeline.logger.emit(make_record(pipeline, number))
            open_intent = None
            if sys.argv[3].startswith("after"):
                for number in range(10): emit(number)
                open_intent = pipeline.logger.intend([make_record(pipeline, 77)])
            children = []
            for child in range(1, 4):
                pid = os.fork()
                if pid == 0:
                    for number in range(10): emit(child * 100 + number)
                    if open_intent is not None:
                        pipeline.logger.settle(open_intent, "failure")  # the parent's: not ours to settle
                    provider.stop()
                    os._exit(0)
                children.append(pid)
            for number in range(10, 20): emit(number)
            for pid in children:
                assert os.waitpid(pid, 0)[1] == 0
            if open_intent is not None:
                pipeline.logger.settle(open_intent, "success")
            provider.stop()
            """,
            tmp_path,
            sink.url,
            when,
        )
        expected = [*range(10, 20), *[child * 100 + number for child in (1, 2, 3) for number in range(10)]]
        if when.startswith("after"):
            expected += [*range(10), 77]
        assert sorted(map(int, target_ids(sink.records))) == sorted(expected)
        assert len(sink.kept) == len(sink.records)
        assert {record.outcome for record in sink.records} == {"success"}
        by_stream: dict[str, set[int]] = {}
        for record in sink.records:
            if (
                record.sequence is not None
                and record.target is not None
                and record.target.type == "shop.Order"
            ):
                by_stream.setdefault(record.sequence.stream, set()).add(int(record.target.id) // 100)
        assert sorted(map(sorted, by_stream.values())) == [[0], [1], [2], [3]]
        assert sink.events.count("audit.stream.end") == 4


def test_a_dead_parent_s_stream_is_adopted_although_its_child_lives(tmp_path: Path) -> None:
    """A lock belongs to the open file, which a child inherits: the child must not keep it."""
    with Sink() as sink:
        process = start_script(
            """
            pipeline = provider.start(audit_config(Path(sys.argv[1])))
            pipeline.logger.emit(make_record(pipeline, 1))
            if os.fork() == 0:
                print("child", os.getpid(), flush=True)
                time.sleep(60)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
            """,
            tmp_path,
        )
        assert process.stdout is not None
        child = int(process.stdout.readline().split()[1])
        try:
            process.wait(20)
            run_script(
                """
                from otel_audit.pipeline.delivery.drain import drain
                assert drain(sys.argv[1], audit_config(Path(sys.argv[1]), sys.argv[2])).delivered == 1
                """,
                tmp_path,
                sink.url,
            )
            os.kill(child, 0)  # still alive
            assert target_ids(sink.records) == ["1"]
        finally:
            os.kill(child, signal.SIGKILL)
            process.stdout.close()
            if process.stderr is not None:
                process.stderr.close()


def test_a_fork_in_the_middle_of_other_threads_writing_hangs_nobody(tmp_path: Path) -> None:
    """Locks held by threads that do not exist in the child are not the child's."""
    run_script(
        """
        pipeline = provider.start(audit_config(Path(sys.argv[1])))
        stop = threading.Event()
        def work(thread):
            while not stop.is_set():
                pipeline.logger.emit(make_record(pipeline, thread))
        threads = [threading.Thread(target=work, args=(thread,), daemon=True) for thread in range(4)]
        for thread in threads: thread.start()
        for _ in range(30):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                pipeline.logger.emit(make_record(pipeline, 1000))
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        stop.set()
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path,
        expect=-signal.SIGKILL,
    )
    assert target_ids(spooled_records(tmp_path)).count("1000") == 30


def test_emit_in_a_signal_handler_does_not_hang(tmp_path: Path) -> None:
    """The handler may run while this very thread is writing."""
    run_script(
        """
        pipeline = provider.start(audit_config(Path(sys.argv[1])))
        pipeline.logger.emit(make_record(pipeline, 0))  # Python 3.11 breaks if its imports are interrupted
        signal.signal(signal.SIGALRM, lambda *_: pipeline.logger.emit(make_record(pipeline, 5000)))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
        for number in range(1, 1000):
            pipeline.logger.emit(make_record(pipeline, number))
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path,
        expect=-signal.SIGKILL,
    )
    ids = target_ids(spooled_records(tmp_path))
    assert ids.count("5000") > 5
    assert [number for number in ids if number != "5000"] == [str(number) for number in range(1000)]
    assert not [item for item in spooled(tmp_path) if isinstance(item, Damage)]
