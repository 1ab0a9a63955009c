"""A spool that is removed, renamed or mounted over while it is written to: no record vanishes unsaid."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from otel_audit.errors import SpoolError
from otel_audit.pipeline.delivery.drain import drain
from otel_audit.pipeline.provider import AuditPipeline
from otel_audit.pipeline.spool import directory as layout
from tests.pipeline.otlp_sink import Reply, Sink
from tests.pipeline.spooling import (
    NOWHERE,
    audit_config,
    make_record,
    spooled_records,
    target_ids,
    wait_until,
)

Make = Callable[..., AuditPipeline]


@pytest.fixture
def spool_directory(tmp_path: Path) -> Iterator[Path]:
    """A spool directory in one of its own, which can be renamed; what is mounted there is unmounted."""
    directory = tmp_path / "application" / "spool"
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=False, capture_output=True)


def stream(spool: Path) -> Path:
    [incarnation] = layout.list_incarnations(spool)
    return incarnation


def mount_over(spool: Path) -> None:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "tmpfs", str(spool)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, f"mounting a tmpfs needs root and the capability: {done.stderr}"


def make_anew(spool: Path) -> None:
    spool.rename(spool.with_name("old"))
    spool.mkdir()


def clean_old_files(spool: Path) -> None:
    """What cleaners of temporary directories do: files go, directories stay."""
    for path in spool.rglob("*"):
        if path.is_file():
            path.unlink()


def remove(path: Path) -> None:
    """At one moment, or the process would write what was removed anew in between."""
    shutil.rmtree(path.rename(path.with_name("removed")))


def put_in_its_place(spool: Path) -> None:
    """Put a file there, however often the process has made the directory anew meanwhile."""
    while True:
        remove(spool)
        with suppress(IsADirectoryError):
            spool.write_text("in its place")
            return


GONE: dict[str, Callable[[Path], Any]] = {
    "the spool is removed": remove,
    "all above it is removed": lambda spool: remove(spool.parent),
    "the stream is removed": lambda spool: remove(stream(spool)),
    "the spool is renamed": lambda spool: spool.rename(spool.with_name("old")),
    "the parent is renamed": lambda spool: spool.parent.rename(spool.parent.with_name("old")),
    "the spool is renamed and made anew": make_anew,
    "the stream is renamed": lambda spool: stream(spool).rename(spool / "old"),
    "the spool is mounted over": mount_over,
    "files are cleaned": clean_old_files,
    "the segment is removed": lambda spool: next(stream(spool).glob("*.seg")).unlink(),
    "the lock is removed": lambda spool: (stream(spool) / "lock").unlink(),
}


def emit(pipeline: AuditPipeline, *numbers: int, **values: Any) -> None:
    for number in numbers:
        pipeline.logger.emit(make_record(pipeline, number, **values))


@pytest.mark.parametrize("policy", ["fail_open", "fail_closed"])
@pytest.mark.parametrize("way", GONE)
def test_records_written_after_it_was_taken_away_arrive(
    spool_directory: Path, sink: Sink, caplog: pytest.LogCaptureFixture, way: str, policy: str
) -> None:
    """The process goes on in a stream of its own, made anew, and says so once."""
    pipeline = AuditPipeline(audit_config(spool_directory, sink.url, on_error=policy))
    emit(pipeline, 0)
    assert pipeline.flush(20)
    GONE[way](spool_directory)
    with caplog.at_level(logging.ERROR, logger="otel_audit"):
        emit(pipeline, 1, 2)
        wait_until(lambda: {"1", "2"} <= set(target_ids(sink.records)), "records in a deleted file arrive")
        emit(pipeline, 3)
        assert pipeline.flush(20)
    pipeline.shutdown(5)
    assert sorted(target_ids(sink.records)) == ["0", "1", "2", "3"]
    assert pipeline.health.dropped == 0
    assert pipeline.health.depth == 0
    assert len([line for line in caplog.messages if "removed, renamed or mounted over" in line]) == 1
    assert sink.events.count("audit.stream.start") == 2
    drained = drain(spool_directory, audit_config(spool_directory, sink.url), timeout=5)
    assert drained.left.waiting == 0
    assert sorted(target_ids(sink.records)) == ["0", "1", "2", "3"]


# A cleaner takes file by file: what was still there when the sender looked counts as left for adoption.
@pytest.mark.parametrize("way", [way for way in GONE if "lock" not in way and "cleaned" not in way])
def test_what_waited_for_the_sink_is_carried_over_or_counted_as_lost(
    spool_directory: Path, sink: Sink, way: str
) -> None:
    """What stood in the open segment goes on; what stood in closed ones is sent or counted."""
    sink.respond = lambda records: Reply(503)
    config = audit_config(spool_directory, sink.url, spool_segment_bytes=8192)
    pipeline = AuditPipeline(config)
    emit(pipeline, *range(120))
    assert len(layout.list_segments(stream(spool_directory))) > 3
    GONE[way](spool_directory)
    sink.respond = lambda records: Reply()
    emit(pipeline, *range(120, 130))
    assert pipeline.flush(20)
    pipeline.shutdown(5)
    drain(spool_directory, config, timeout=5)

    arrived = [int(number) for number in target_ids(sink.records)]
    assert {119, *range(120, 130)} <= set(arrived)
    assert len(arrived) == len(set(arrived))
    told = sum(r.attributes["count"] for r in sink.records if r.event_name == "audit.records.dropped")
    if "segment" in way:  # the other segments are still there, and are sent from there
        assert sorted(arrived) == list(range(130))
    else:
        assert told == pipeline.health.dropped == 130 - len(arrived)
    assert pipeline.health.depth == 0


def test_a_transaction_that_spans_it_keeps_its_outcome(spool_directory: Path, sink: Sink) -> None:
    """The intent stood in the file that is gone; marker and intent meet in the new one."""
    pipeline = AuditPipeline(audit_config(spool_directory, sink.url))
    emit(pipeline, 0)
    committed = pipeline.logger.intend([make_record(pipeline, 1), make_record(pipeline, 2)])
    undone = pipeline.logger.intend([make_record(pipeline, 3)])
    remove(spool_directory)
    pipeline.logger.settle(committed, "success")
    pipeline.logger.settle(undone, "failure")
    wait_until(lambda: "3" in target_ids(sink.records), "the transactions arrive")
    pipeline.shutdown(5)
    outcomes = {r.target.id: r.outcome for r in sink.records if r.target and r.target.type == "shop.Order"}
    assert outcomes == {"0": "success", "1": "success", "2": "success", "3": "failure"}
    assert pipeline.health.dropped == 0


def test_without_a_sender_the_writer_notices_by_itself(spool_directory: Path, pipelines: Make) -> None:
    """At the latest after some bytes; what stood in the file by then is carried over."""
    pipeline = pipelines(audit_config(spool_directory))
    emit(pipeline, 0)
    remove(spool_directory)
    emit(pipeline, *range(1, 300), message="x" * 1000)
    pipeline.spool.close()
    assert target_ids(spooled_records(spool_directory)) == [str(number) for number in range(300)]
    assert pipeline.health.dropped == 0


def test_the_end_of_a_process_notices_as_well(spool_directory: Path, pipelines: Make) -> None:
    """Few records, and no round of a sender between the removal and the end."""
    pipeline = pipelines(audit_config(spool_directory))
    emit(pipeline, 0)
    spool_directory.rename(spool_directory.with_name("old"))
    emit(pipeline, 1)
    pipeline.shutdown(0)
    assert target_ids(spooled_records(spool_directory)) == ["0", "1"]


def test_a_spool_that_cannot_be_made_again_obeys_the_policy(spool_directory: Path) -> None:
    """fail_closed raises as soon as it is known; what was carried over is written once it can be."""
    pipeline = AuditPipeline(audit_config(spool_directory, NOWHERE, on_error="fail_closed"))
    emit(pipeline, 0)
    put_in_its_place(spool_directory)
    written = [0]

    def refused() -> bool:
        try:
            emit(pipeline, written[-1] + 1)
        except SpoolError:
            return True
        written.append(written[-1] + 1)
        return False

    wait_until(refused, "an exception under fail_closed")
    spool_directory.unlink()
    emit(pipeline, 1000)
    pipeline.shutdown(0)
    assert target_ids(spooled_records(spool_directory)) == [*map(str, written), "1000"]


def test_records_lost_while_it_cannot_be_made_again_are_counted_in_the_log(
    spool_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = AuditPipeline(audit_config(spool_directory, NOWHERE))
    emit(pipeline, 0)
    put_in_its_place(spool_directory)
    numbers = iter(range(1, 10_000))

    def refused() -> bool:
        emit(pipeline, next(numbers))
        return pipeline.health.dropped > 0

    wait_until(refused, "a record that is lost")
    emit(pipeline, *range(10_000, 10_003))
    lost = pipeline.health.dropped
    spool_directory.unlink()
    emit(pipeline, 20_000)
    pipeline.shutdown(0)
    assert lost == 4
    assert "the audit spool is writable again; records lost meanwhile: 4" in caplog.messages


def test_a_dead_process_s_stream_that_vanishes_is_reported(
    spool_directory: Path, sink: Sink, pipelines: Make
) -> None:
    """While it was adopted: what it still held is not known, that something is missing is in the trail."""
    dead = pipelines(audit_config(spool_directory))
    emit(dead, *range(5))
    assert dead.spool.lock is not None
    path = dead.spool.lock.path
    dead.spool.lock.release()
    sink.respond = lambda records: Reply(503)
    pipeline = AuditPipeline(audit_config(spool_directory, sink.url))
    emit(pipeline, 10)
    wait_until(lambda: pipeline.health.adopted == 1, "the adoption")
    remove(path)
    wait_until(lambda: pipeline.health.damaged == 1, "the loss is noticed")
    sink.respond = lambda records: Reply()
    assert pipeline.flush(20)
    pipeline.shutdown(5)
    [notice] = [record for record in sink.records if record.event_name == "audit.spool.damaged"]
    assert notice.target is not None
    assert notice.target.id.startswith(path.name)
    assert "removed or renamed" in notice.message


def test_looking_costs_the_write_path_next_to_nothing(
    pipeline: AuditPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a system call per record: some per 64 KiB."""
    calls = 0
    real = os.stat

    def count(path: Any, **options: Any) -> os.stat_result:
        nonlocal calls
        calls += str(path).startswith(str(pipeline.directory))
        return real(path, **options)

    emit(pipeline, 0)
    monkeypatch.setattr(os, "stat", count)
    emit(pipeline, *range(2000))
    assert pipeline.spool.committed[1] > 400_000
    assert calls <= 2 * (pipeline.spool.committed[1] // 60_000 + 2)
