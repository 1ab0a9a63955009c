"""What is written is read, in the order of its settling, whatever happens to the files in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from otel_audit.audit_record import AuditRecord
from otel_audit.pipeline.provider import AuditPipeline
from otel_audit.pipeline.spool import directory as layout
from otel_audit.pipeline.spool.cursor import Position
from otel_audit.pipeline.spool.reader import Damage, Item, StreamEnd, StreamReader
from tests.pipeline.spooling import audit_config, make_record, spooled, spooled_records, target_ids

Make = Callable[..., AuditPipeline]


def incarnation(pipeline: AuditPipeline) -> Path:
    assert pipeline.spool.lock is not None
    return pipeline.spool.lock.path


BEGIN = Position()


def read(path: Path, place: Position = BEGIN) -> list[Item]:
    reader = StreamReader(path, place)
    try:
        return list(reader.items())
    finally:
        reader.close()


def intend(pipeline: AuditPipeline, *numbers: int) -> int:
    return pipeline.logger.intend([make_record(pipeline, number) for number in numbers])


def test_intents_come_out_where_their_markers_stand(pipeline: AuditPipeline, spool_directory: Path) -> None:
    """And with the outcome of the marker, not the one they were written with."""
    first, second = intend(pipeline, 1), intend(pipeline, 2)
    pipeline.logger.emit(make_record(pipeline, 3))
    pipeline.logger.settle(second, "failure")
    pipeline.logger.settle(first, "success")
    records = spooled_records(spool_directory)
    assert target_ids(records) == ["3", "2", "1"]
    assert [record.outcome for record in records] == ["success", "failure", "success"]


def test_records_given_with_the_marker_replace_the_intended_ones(
    pipeline: AuditPipeline, spool_directory: Path
) -> None:
    """They may be more, fewer or none: an INSERT's key is known only afterwards."""
    more, none = intend(pipeline, 1), intend(pipeline, 2)
    pipeline.logger.settle(more, "success", [make_record(pipeline, 11), make_record(pipeline, 12)])
    pipeline.logger.settle(none, "success", [])
    assert target_ids(spooled_records(spool_directory)) == ["11", "12"]


def test_an_intent_without_a_marker_is_unknown_once_its_process_is_dead(
    pipeline: AuditPipeline, spool_directory: Path
) -> None:
    """After all that was settled, in the order of the intents."""
    intend(pipeline, 1)
    intend(pipeline, 2, 3)
    pipeline.logger.emit(make_record(pipeline, 4))
    records = spooled_records(spool_directory)
    assert [(record.target.id, record.outcome) for record in records if record.target] == [
        ("4", "success"),
        ("1", "unknown"),
        ("2", "unknown"),
        ("3", "unknown"),
    ]


def test_a_live_process_s_open_intents_wait(pipeline: AuditPipeline) -> None:
    """Only its death makes them unknown."""
    handle = intend(pipeline, 1)
    pipeline.logger.emit(make_record(pipeline, 2))
    reader = StreamReader(incarnation(pipeline), Position(), lambda: pipeline.spool.committed)
    assert [type(item.content) for item in reader.items()] == [AuditRecord]
    pipeline.logger.settle(handle, "success")
    assert [item.content.target.id for item in reader.items() if isinstance(item.content, AuditRecord)] == [  # type: ignore[union-attr]
        "1"
    ]
    reader.close()


def test_a_marker_segments_behind_its_intent_finds_it(spool_directory: Path, pipelines: Make) -> None:
    """The place kept with the cursor says how far back a reader must begin."""
    pipeline = pipelines(audit_config(spool_directory, spool_segment_bytes=4096))
    handle = intend(pipeline, 999)
    for number in range(60):
        pipeline.logger.emit(make_record(pipeline, number))
    pipeline.logger.settle(handle, "success")
    path = incarnation(pipeline)
    assert len(layout.list_segments(path)) > 3
    items = read(path)
    before_marker = next(item.after for item in items if _is(item, "59"))
    assert before_marker.low_segment == 1
    assert before_marker.segment > 3
    assert [_id(item) for item in read(path, before_marker)] == ["999"]
    assert items[-1].after.low_segment == items[-1].after.segment


def test_reading_may_stop_and_go_on_anywhere(spool_directory: Path, pipelines: Make) -> None:
    """After every single record, also within a transaction: the rest is the rest, orphans included."""
    pipeline = pipelines(audit_config(spool_directory, spool_segment_bytes=4096))
    open_for_long = intend(pipeline, 100, 101, 102)
    for number in range(25):
        pipeline.logger.emit(make_record(pipeline, number))
        pipeline.logger.settle(intend(pipeline, 200 + number, 300 + number), "success")
    pipeline.logger.settle(open_for_long, "success")
    intend(pipeline, 901)
    intend(pipeline, 902, 903)
    path = incarnation(pipeline)
    items = read(path)
    assert len(items) == 3 + 25 * 3 + 3
    for position, item in enumerate(items):
        assert [_id(later) for later in read(path, item.after)] == [
            _id(later) for later in items[position + 1 :]
        ]


def test_a_graceful_stop_ends_the_stream(pipeline: AuditPipeline, spool_directory: Path) -> None:
    """The end stands behind everything else."""
    pipeline.logger.emit(make_record(pipeline, 1))
    pipeline.shutdown(0)
    assert [type(content) for content in spooled(spool_directory)] == [AuditRecord, StreamEnd]


def test_a_stop_with_a_commit_on_its_way_is_not_graceful(
    pipeline: AuditPipeline, spool_directory: Path
) -> None:
    """Nothing may stand behind an end, and the intent's outcome is still to come: as unknown."""
    intend(pipeline, 1)
    pipeline.shutdown(0)
    assert [record.outcome for record in spooled_records(spool_directory)] == ["unknown"]
    assert not any(isinstance(content, StreamEnd) for content in spooled(spool_directory))


@pytest.mark.parametrize("part", ["begin", "middle", "end"])
def test_the_rest_of_a_damaged_segment_is_read(
    pipeline: AuditPipeline, spool_directory: Path, part: str
) -> None:
    """What is lost is said where it was lost, with its size."""
    for number in range(30):
        pipeline.logger.emit(make_record(pipeline, number))
    pipeline.shutdown(0)
    segment = layout.list_segments(incarnation_in(spool_directory))[0]
    raw = bytearray(segment.path.read_bytes())
    position = {"begin": 20, "middle": len(raw) // 2, "end": len(raw) - 60}[part]
    raw[position] ^= 0xFF
    segment.path.write_bytes(raw)
    content = spooled(spool_directory)
    damages = [item for item in content if isinstance(item, Damage)]
    assert len(damages) == 1
    assert damages[0].offset <= position < damages[0].offset + damages[0].length
    ids = target_ids([item for item in content if isinstance(item, AuditRecord)])
    assert len(ids) == (30 if part == "begin" else 29)  # the begin holds the header only
    assert ids == sorted(ids, key=int)


def test_a_segment_cut_off_between_two_frames_is_noticed(spool_directory: Path, pipelines: Make) -> None:
    """Nothing in the file tells, but the segment after it knows how long it was."""
    pipeline = pipelines(audit_config(spool_directory, spool_segment_bytes=4096))
    for number in range(40):
        pipeline.logger.emit(make_record(pipeline, number))
    path = incarnation(pipeline)
    boundary = [item.after for item in read(path) if item.after.segment == 1][3]
    segment = layout.segment_path(path, 1)
    segment.write_bytes(segment.read_bytes()[: boundary.offset])
    damages = [item.content for item in read(path) if isinstance(item.content, Damage)]
    assert [damage.segment for damage in damages] == [1]
    assert "truncated" in damages[0].what


def test_a_missing_segment_is_noticed(spool_directory: Path, pipelines: Make) -> None:
    """Also the first one."""
    pipeline = pipelines(audit_config(spool_directory, spool_segment_bytes=4096))
    for number in range(60):
        pipeline.logger.emit(make_record(pipeline, number))
    path = incarnation(pipeline)
    layout.segment_path(path, 1).unlink()
    layout.segment_path(path, 3).unlink()
    damages = [item.content for item in read(path) if isinstance(item.content, Damage)]
    assert [(damage.segment, damage.what) for damage in damages] == [
        (1, "the segments from 1 to 1 are missing"),
        (3, "the segments from 3 to 3 are missing"),
    ]


def test_damage_is_the_same_however_often_and_from_where_it_is_read(
    spool_directory: Path, pipelines: Make
) -> None:
    """Its record must be the same when it is sent again."""
    pipeline = pipelines(audit_config(spool_directory))
    for number in range(10):
        pipeline.logger.emit(make_record(pipeline, number))
    path = incarnation(pipeline)
    segment = layout.segment_path(path, 1)
    raw = bytearray(segment.read_bytes())
    raw[len(raw) // 2] ^= 1
    segment.write_bytes(raw)
    items = read(path)
    [damage] = [item.content for item in items if isinstance(item.content, Damage)]
    position = next(n for n, item in enumerate(items) if isinstance(item.content, Damage))
    for earlier in items[:position]:
        again = [item.content for item in read(path, earlier.after) if isinstance(item.content, Damage)]
        assert again == [damage]


def test_nothing_is_made_before_the_first_record(pipeline: AuditPipeline, spool_directory: Path) -> None:
    """A pre-fork server's parent leaves no trace."""
    pipeline.prepare()
    assert list(spool_directory.iterdir()) == []
    pipeline.shutdown(0)
    assert list(spool_directory.iterdir()) == []


def test_only_this_user_may_read_the_spool(pipeline: AuditPipeline, spool_directory: Path) -> None:
    """It holds what the trail holds."""
    pipeline.logger.emit(make_record(pipeline))
    for path in [spool_directory, *spool_directory.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def incarnation_in(directory: Path) -> Path:
    [path] = layout.list_incarnations(directory)
    return path


def _id(item: Item) -> str:
    assert isinstance(item.content, AuditRecord)
    assert item.content.target is not None
    return item.content.target.id


def _is(item: Item, target_id: str) -> bool:
    return isinstance(item.content, AuditRecord) and _id(item) == target_id
