"""A spool that cannot be written: back-pressure, then the policy; never a silent drop, and it recovers."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from otel_audit.audit_record import AuditRecord
from otel_audit.errors import SpoolError
from otel_audit.pipeline import provider
from otel_audit.pipeline.provider import AuditPipeline
from otel_audit.pipeline.spool import directory as layout
from otel_audit.pipeline.spool.reader import Damage
from tests.pipeline.otlp_sink import Sink
from tests.pipeline.spooling import (
    NOWHERE,
    audit_config,
    make_record,
    run_script,
    spooled,
    spooled_records,
    target_ids,
    wait_until,
)

Make = Callable[..., AuditPipeline]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB, really full when it is full."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root; RLIMIT_FSIZE stands for it in another test")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], check=False)
    if done.returncode:
        pytest.skip("a tmpfs cannot be mounted here; RLIMIT_FSIZE stands for it in another test")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte free."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return filler


def test_a_full_disk_costs_no_exception_and_is_told_of_afterwards(
    small_disk: Path, pipelines: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Dropped records are logged, counted, and named in the trail as soon as there is room again."""
    pipeline = pipelines(audit_config(small_disk / "spool"))
    pipeline.logger.emit(make_record(pipeline, 1))
    filler = fill(small_disk)
    for number in range(2, 30):
        pipeline.logger.emit(make_record(pipeline, number, message="x" * 1000))
    dropped = pipeline.health.dropped
    assert dropped >= 20
    assert "No space left" in pipeline.health.spool_error
    assert len([line for line in caplog.records if "cannot be written" in line.message]) == 1

    filler.unlink()
    pipeline.logger.emit(make_record(pipeline, 100))
    assert pipeline.health.spool_error == ""
    records = spooled_records(small_disk / "spool")
    kept = target_ids(records)
    assert kept[0] == "1"
    assert kept[-1] == "100"
    assert len(kept) + dropped == 30
    [notice] = [record for record in records if record.event_name == "audit.records.dropped"]
    assert notice.attributes["count"] == dropped
    assert notice.attributes["events"] == {"shop.order.update": dropped}
    assert not [item for item in spooled(small_disk / "spool") if isinstance(item, Damage)]


def test_a_full_disk_raises_into_the_application_that_asked_for_it(small_disk: Path, pipelines: Make) -> None:
    """fail_closed: the caller knows that nothing was recorded."""
    pipeline = pipelines(audit_config(small_disk / "spool", on_error="fail_closed"))
    pipeline.logger.emit(make_record(pipeline, 1))
    fill(small_disk)
    with pytest.raises(SpoolError, match="No space left"):
        for number in range(50):
            pipeline.logger.emit(make_record(pipeline, number, message="x" * 1000))
    with pytest.raises(SpoolError, match="No space left"):
        pipeline.logger.intend([make_record(pipeline, 3, message="x" * 5000)])


def test_acknowledged_records_make_room_on_a_full_disk(small_disk: Path, sink: Sink) -> None:
    """The cursor needs no free space, so the sender gets a full disk free again."""
    config = audit_config(small_disk / "spool", sink.url, spool_segment_bytes=16384, spool_block_timeout=5.0)
    pipeline = AuditPipeline(config)
    gate = threading.Event()
    answer = sink.respond

    def wait_at_gate(records: list[object]) -> object:
        gate.wait(20)
        return answer(records)  # type: ignore[arg-type]

    sink.respond = wait_at_gate  # type: ignore[assignment]
    for number in range(20):
        pipeline.logger.emit(make_record(pipeline, number, message="x" * 1000))
    fill(small_disk)
    gate.set()
    for number in range(20, 60):
        pipeline.logger.emit(make_record(pipeline, number, message="x" * 1000))
    assert pipeline.flush(20)
    assert pipeline.health.dropped == 0
    assert target_ids(sink.records) == [str(number) for number in range(60)]
    pipeline.shutdown(5)


def test_a_marker_that_found_no_room_is_written_as_soon_as_there_is(
    small_disk: Path, pipelines: Make
) -> None:
    """The commit has happened: its outcome must not get lost with it."""
    pipeline = pipelines(audit_config(small_disk / "spool"))
    handle = pipeline.logger.intend([make_record(pipeline, 1)])
    filler = fill(small_disk)
    page = b"x" * 8192  # the file's last page may still have room for a marker
    replaced = [make_record(pipeline, number, message=page.decode()) for number in (1, 2)]
    pipeline.logger.settle(handle, "success", replaced)
    assert [record.outcome for record in spooled_records(small_disk / "spool")] == ["unknown"]
    filler.unlink()
    pipeline.spool.write_deferred()
    records = spooled_records(small_disk / "spool")
    assert [record.outcome for record in records] == ["success", "success"]
    assert target_ids(records) == ["1", "2"]


def test_an_intent_that_found_no_room_is_recorded_when_the_transaction_has_ended(
    small_disk: Path, pipelines: Make
) -> None:
    """It waits in memory; by then there may be room."""
    pipeline = pipelines(audit_config(small_disk / "spool"))
    pipeline.logger.emit(make_record(pipeline, 0))
    filler = fill(small_disk)
    kept = pipeline.logger.intend([make_record(pipeline, 1, message="x" * 9000)])
    lost = pipeline.logger.intend([make_record(pipeline, 2, message="x" * 9000)])
    pipeline.logger.settle(lost, "success")
    filler.unlink()
    pipeline.logger.settle(kept, "failure")
    records = spooled_records(small_disk / "spool")
    assert target_ids(records) == ["0", "1"]
    assert records[-1].outcome == "failure"
    assert pipeline.health.dropped == 1


def test_a_file_that_may_not_grow_leaves_no_torn_frame(tmp_path: Path) -> None:
    """A write cut short by the file size limit is taken back; the whole frames before it stay."""
    run_script(
        """
        import resource
        config = audit_config(Path(sys.argv[1]))
        pipeline = provider.AuditPipeline(config, ship=False)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))
        for number in range(100):
            pipeline.logger.emit(make_record(pipeline, number))
        assert pipeline.health.dropped > 10
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        pipeline.logger.emit(make_record(pipeline, 100))
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path,
        expect=-9,
    )
    content = spooled(tmp_path)
    assert not [item for item in content if isinstance(item, Damage)]
    records = [item for item in content if isinstance(item, AuditRecord)]
    ids = target_ids(records)
    assert ids == [*map(str, range(len(ids) - 1)), "100"]
    [notice] = [record for record in records if record.event_name == "audit.records.dropped"]
    assert notice.attributes["count"] == 101 - len(ids)


def test_the_size_limit_counts_all_processes(spool_directory: Path, pipelines: Make) -> None:
    """The limit is the directory's, not one process's."""
    limit = 65536
    first = pipelines(audit_config(spool_directory, spool_max_bytes=limit, spool_block_timeout=0.0))
    second = pipelines(audit_config(spool_directory, spool_max_bytes=limit, spool_block_timeout=0.0))
    for number in range(40):
        first.logger.emit(make_record(first, number, message="x" * 1000))
    for number in range(40):
        second.logger.emit(make_record(second, number, message="x" * 1000))
    assert first.health.dropped == 0
    assert second.health.dropped > 0
    assert layout.spooled_bytes(spool_directory) <= limit
    assert "spool.max_bytes" in second.health.spool_error


def test_a_spool_at_its_limit_goes_on_once_the_sink_has_taken_some(spool_directory: Path, sink: Sink) -> None:
    """Even if all of it stood in the segment being written."""
    config = audit_config(
        spool_directory, sink.url, spool_max_bytes=65536, spool_block_timeout=10.0, on_error="fail_closed"
    )
    pipeline = AuditPipeline(config)
    for number in range(500):
        pipeline.logger.emit(make_record(pipeline, number, message="x" * 1000))
    assert pipeline.flush(20)
    assert target_ids(sink.records) == [str(number) for number in range(500)]
    pipeline.shutdown(5)


@pytest.mark.parametrize("trouble", ["a file in its place", "a file for a parent"])
def test_a_spool_that_cannot_be_made_is_said_at_start(tmp_path: Path, trouble: str) -> None:
    """fail_closed refuses to start; the message names the directory and the setting."""
    (tmp_path / "file").write_text("")
    directory = tmp_path / "file" if trouble == "a file in its place" else tmp_path / "file" / "spool"
    with pytest.raises(SpoolError, match=r"spool directory .*file.*set spool\.directory"):
        provider.start(audit_config(directory, on_error="fail_closed"))
    assert provider.current() is None


def test_an_application_runs_on_without_a_spool(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """fail_open: an error at start, records dropped and counted, and kept once it can be written."""
    blocker = tmp_path / "spool"
    blocker.write_text("")
    pipeline = provider.start(audit_config(blocker), ship=False)
    try:
        assert any(line.levelno == logging.ERROR for line in caplog.records)
        pipeline.logger.emit(make_record(pipeline, 1))
        assert pipeline.health.dropped == 1
        blocker.unlink()
        pipeline.logger.emit(make_record(pipeline, 2))
        assert target_ids(spooled_records(blocker)) == ["2"]
    finally:
        provider.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_directory_of_somebody_else_is_said(tmp_path: Path) -> None:
    """Root may write everywhere, so a process that is not root tries."""
    tmp_path.chmod(0o755)
    directory = tmp_path / "theirs"
    directory.mkdir(mode=0o755)
    for parent in directory.parents:
        if parent.stat().st_mode & 0o005 != 0o005:
            parent.chmod(parent.stat().st_mode | 0o005)
    out = run_script(
        """
        pipeline = provider.AuditPipeline(audit_config(Path(sys.argv[1])), ship=False)
        make_record(pipeline)
        provider.process_identity.get_ready()  # nobody may import from root's Python later
        os.setuid(65534)
        pipeline.prepare()
        pipeline.logger.emit(make_record(pipeline))
        print(pipeline.health.dropped, pipeline.health.spool_error)
        """,
        directory,
    )
    assert out.startswith("1 ")
    assert "Permission denied" in out


def test_records_written_by_the_sender_itself_do_not_block_it(spool_directory: Path, pipelines: Make) -> None:
    """A deferred marker is tried without waiting for room."""
    pipeline = pipelines(audit_config(spool_directory, NOWHERE, spool_block_timeout=30.0), ship=True)
    pipeline.logger.emit(make_record(pipeline))
    wait_until(lambda: pipeline.health.failures > 0, "an attempt")
    pipeline.spool.write_deferred()
    assert pipeline.spool.open_intents == 0
