"""What lies in a spool directory: for `otel-audit spool status`, `doctor` and checks."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from otel_audit.pipeline.spool import directory as layout
from otel_audit.pipeline.spool.cursor import CursorFile, CursorState, Position
from otel_audit.pipeline.spool.reader import Damage, StreamEnd, StreamReader


class StreamStatus(msgspec.Struct, frozen=True):
    """One incarnation: who wrote it, whether that process is alive, what waits there.

    ``waiting`` counts settled records, ``open_intents`` transactions without a marker, ``oldest`` is the
    time (ns) of the first waiting record, 0 if none waits. ``error`` says why it cannot be read, whose it is
    and what to do; then nothing else is known of it.
    """

    incarnation: str
    alive: bool
    service: str
    host: str
    pid: int
    created: int
    segments: int
    bytes: int
    waiting: int
    open_intents: int
    oldest: int
    damaged: int
    error: str = ""


class SpoolStatus(msgspec.Struct, frozen=True):
    """A spool directory. ``error`` says why it cannot be read or written, empty if it can.

    ``unreadable`` says the same of each thing in it that is passed over: another user's, on a failing disk.
    """

    directory: str
    exists: bool
    error: str
    bytes: int
    waiting: int
    oldest: int
    streams: list[StreamStatus]
    damaged_files: list[str]
    quarantined: list[str]
    unreadable: list[str] = []


def read_status(directory: str | Path) -> SpoolStatus:
    """Read the state of a spool directory; never raises, never changes what waits there."""
    root = Path(directory).absolute()
    error = ""
    streams: list[StreamStatus] = []
    damaged: list[str] = []
    quarantined: list[str] = []
    unreadable: list[str] = []
    exists = False
    try:
        exists = root.is_dir()
        if exists:
            streams = [_readable(path) for path in layout.list_incarnations(root) if os.path.lexists(path)]
            unreadable = [stream.error for stream in streams if stream.error]
            for kind, names in ((layout.DAMAGED, damaged), (layout.QUARANTINE, quarantined)):
                kept, problems = layout.list_kept(root, kind)
                names += [path.name for path in kept]
                unreadable += problems
            layout.prepare(root)
    except Exception as problem:  # noqa: BLE001 - the one who asks wants an answer, whatever lies there
        error = str(problem)
    return SpoolStatus(
        directory=str(root),
        exists=exists,
        error=error,
        bytes=sum(stream.bytes for stream in streams),
        waiting=sum(stream.waiting for stream in streams),
        oldest=min((stream.oldest for stream in streams if stream.oldest), default=0),
        streams=streams,
        damaged_files=damaged,
        quarantined=quarantined,
        unreadable=unreadable,
    )


def _readable(incarnation: Path) -> StreamStatus:
    """Read one stream; one that cannot be read must not hide the others."""
    try:
        return _stream(incarnation)
    except OSError as error:
        return StreamStatus(
            incarnation=incarnation.name,
            alive=False,
            service="",
            host="",
            pid=0,
            created=layout.created(incarnation),
            segments=0,
            bytes=0,
            waiting=0,
            open_intents=0,
            oldest=0,
            damaged=0,
            error=layout.explain(incarnation, error),
        )


def _stream(incarnation: Path) -> StreamStatus:
    lock = layout.try_lock(incarnation)
    alive = lock is None and incarnation.exists()
    try:
        cursor = CursorFile(incarnation)
        try:
            state = cursor.load() or CursorState()
        except ValueError:
            state = CursorState()
        finally:
            cursor.close()
        segments = layout.list_segments(incarnation)
        position = state.position
        if segments and segments[0].number > position.low_segment:
            position = Position(segments[0].number, 0, 0, segments[0].number, 0)
        # A live writer's tail is read as far as whole frames stand there.
        reader = StreamReader(incarnation, position, lambda: _end(segments))
        waiting = oldest = damages = 0
        try:
            for item in reader.items():
                if isinstance(item.content, Damage):
                    damages += 0 if alive and item.content.segment == segments[-1].number else 1
                elif not isinstance(item.content, StreamEnd):
                    waiting += 1
                    oldest = oldest or item.content.observed_timestamp
            identity, intents = reader.identity, reader.open_intents
        finally:
            reader.close()
    finally:
        if lock is not None:
            lock.release()
    return StreamStatus(
        incarnation=incarnation.name,
        alive=alive,
        service=str(identity.resource.get("service.name", "")),
        host=identity.host,
        pid=identity.pid,
        created=identity.created,
        segments=len(segments),
        bytes=sum(segment.size for segment in segments),
        waiting=waiting,
        open_intents=intents,
        oldest=oldest,
        damaged=damages,
    )


def _end(segments: list[layout.Segment]) -> tuple[int, int]:
    return (segments[-1].number, segments[-1].size) if segments else (0, 0)
