"""The reading side of the spool: segments in, settled records out, in the order of their markers.

An intent comes out where its marker stands, with the marker's outcome. What cannot be read comes out as a
:class:`Damage` at its place. Reading is a function of the files' content alone: whoever reads the same
segments from the same position gets the same.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from otel_audit.audit_record import AuditRecord, Outcome
from otel_audit.named_tuples import NamedTuple
from otel_audit.pipeline.spool import directory as layout
from otel_audit.pipeline.spool import frames
from otel_audit.pipeline.spool.cursor import Position


class Damage(NamedTuple):
    """Bytes of a segment that hold nothing readable; ``after`` is the time of the last record before them."""

    segment: int
    offset: int
    length: int
    after: int
    what: str


class StreamEnd(NamedTuple):
    """The process stopped gracefully at ``time`` (ns)."""

    time: int


_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, IndexError, struct.error)

Content: TypeAlias = "AuditRecord | Damage | StreamEnd"


class Item(NamedTuple):
    """What stands at one position of the stream, and the position after it."""

    content: Content
    after: Position


class _Chunk(NamedTuple):
    """Where an INTENT or REPLACEMENT payload lies on disk: its content is read again when it is settled."""

    segment: int
    offset: int
    length: int


class _Intent:
    __slots__ = ("chunks", "replacements", "start")

    def __init__(self, start: tuple[int, int]) -> None:
        self.start = start
        self.chunks: list[_Chunk] = []
        self.replacements: list[_Chunk] = []


class StreamReader:
    """Reads one incarnation forward from a position.

    Args:
        incarnation: its directory.
        position: where to go on.
        limit: gives segment and offset up to which whole batches stand (a live writer's), or None to
            read all there is and then give the intents left open as ``unknown`` (a dead process's).
    """

    def __init__(
        self, incarnation: Path, position: Position, limit: Callable[[], tuple[int, int]] | None = None
    ) -> None:
        self.identity = frames.Identity(incarnation=incarnation.name)
        self.damaged_segments: set[int] = set()
        self.position = position
        """The position after all that has been read."""
        self._incarnation = incarnation
        self._limit = limit
        self._start = position
        self._at = (position.low_segment, position.low_offset)
        self._open: dict[int, _Intent] = {}
        self._descriptors: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._time = position.time
        self._orphans_given = False

    def close(self) -> None:
        """Close the segment files."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    @property
    def open_intents(self) -> int:
        """Intents read whose marker has not been read."""
        return len(self._open)

    def items(self) -> Iterator[Item]:
        """Yield what is settled and has not been read yet; ends where the limit stands now.

        May be called again later: it goes on where it stopped.

        Raises:
            OSError: a segment cannot be opened or read.
        """
        last_segment, last_offset = (0, 0) if self._limit is None else self._limit()
        segments = layout.list_segments(self._incarnation)
        if not self.identity.created:
            self.identity = self._load_identity(segments)
        for segment in segments:
            number = segment.number
            self._sizes[number] = segment.size
            if number < self._at[0]:
                continue
            if self._limit is not None and number > last_segment:
                return
            if number > self._at[0]:
                yield from self._missing_segments(number)
            begin = self._at[1]
            end = last_offset if self._limit is not None and number == last_segment else segment.size
            if begin > end:
                yield from self._cut_off(number, begin, end)
            yield from self._segment(number, begin, end)
            if self._limit is None or number < last_segment:
                self._at = (number + 1, 0)
                self._move_on()
        if self._limit is None and not self._orphans_given:
            yield from self._orphans()

    # --- one segment -------------------------------------------------------------------------

    def _segment(self, number: int, begin: int, end: int) -> Iterator[Item]:
        if begin >= end:
            return
        for piece in frames.read_pieces(self._descriptor(number), begin, end):
            at = (number, piece.offset)
            self._at = (number, piece.end)
            if isinstance(piece, frames.Gap):
                what = (
                    "the end of the segment is truncated or unreadable"
                    if piece.end == end
                    else "unreadable bytes"
                )
                yield from self._damage(at, piece.end - piece.offset, what)
            else:
                yield from self._frame(at, piece)
            self._move_on()

    def _frame(self, at: tuple[int, int], piece: frames.Frame) -> Iterator[Item]:
        try:
            if piece.kind == frames.RECORD:
                yield from self._settled(at, iter((frames.decode_record(piece.payload),)), self._low(at))
            elif piece.kind == frames.INTENT or piece.kind == frames.REPLACEMENT:
                self._intent(at, piece)
            elif piece.kind == frames.MARKER:
                yield from self._marker(at, piece)
            elif piece.kind == frames.HEADER:
                yield from self._header(at, frames.decode_identity(piece.payload))
            elif at >= self._start[:2]:
                yield Item(StreamEnd(frames.split_end(piece.payload)), self._after())
        except _UNREADABLE as error:
            yield from self._damage(at, piece.end - piece.offset, f"a frame with invalid content: {error}")

    def _header(self, at: tuple[int, int], identity: frames.Identity) -> Iterator[Item]:
        before = at[0] - 1
        missing = identity.before - self._sizes.get(before, identity.before)
        if missing > 0:
            self.damaged_segments.add(before)
            yield from self._damage(
                (at[0], at[1]), missing, f"segment {before} is truncated", in_segment=before
            )

    def _intent(self, at: tuple[int, int], piece: frames.Frame) -> None:
        handle, _ = frames.split_intent(piece.payload)
        intent = self._open.get(handle)
        if intent is None:
            intent = self._open[handle] = _Intent(at)
        chunk = _Chunk(at[0], piece.offset + frames.PREFIX_BYTES, len(piece.payload))
        (intent.chunks if piece.kind == frames.INTENT else intent.replacements).append(chunk)

    def _marker(self, at: tuple[int, int], piece: frames.Frame) -> Iterator[Item]:
        handle, outcome, replaced = frames.split_marker(piece.payload)
        low = self._low(at)
        intent = self._open.pop(handle, None)
        if intent is None:
            # Its intent lies in bytes reported as damage, or there was nothing to ship.
            return
        chunks = intent.replacements if replaced else intent.chunks
        yield from self._settled(at, self._records(chunks, outcome), low)

    def _settled(
        self, at: tuple[int, int], records: Iterator[AuditRecord], low: tuple[int, int]
    ) -> Iterator[Item]:
        """Yield the records of one settled entry, those before the starting position left out."""
        start = self._start
        if at < start[:2]:
            return
        skip = start.done if at == start[:2] else 0
        held: AuditRecord | None = None
        index = 0
        try:
            for record in records:
                # One behind, because the position after the last record is the position after the entry.
                if held is not None:
                    index += 1
                    if index > skip:
                        yield Item(held, Position(*at, index, *low, self._time))
                held = record
                self._time = max(self._time, record.observed_timestamp)
        except _UNREADABLE:
            if held is not None and index + 1 > skip:
                yield Item(held, Position(*at, index + 1, *low, self._time))
            raise
        if held is not None and index + 1 > skip:
            yield Item(held, self._after())

    def _records(self, chunks: list[_Chunk], outcome: Outcome) -> Iterator[AuditRecord]:
        failed: Exception | None = None
        for chunk in chunks:
            payload = os.pread(self._descriptor(chunk.segment), chunk.length, chunk.offset)
            try:
                records = frames.decode_records(frames.split_intent(payload)[1])
            except _UNREADABLE as error:
                failed = error
                continue
            for record in records:
                if record.outcome != outcome:
                    record = msgspec.structs.replace(record, outcome=outcome)
                yield record
        if failed is not None:
            raise failed

    def _orphans(self) -> Iterator[Item]:
        """Yield the intents whose process died without a marker: their outcome is unknown."""
        self._orphans_given = True
        segment = self._at[0]
        low = self._low(self._at)
        orphans = sorted(self._open.values(), key=lambda intent: intent.start)
        for ordinal, intent in enumerate(orphans):
            # Low stays at the first of them until all are done: ordinals must mean the same when read again.
            records = self._records(intent.chunks, "unknown")
            self._at = (segment, ordinal + 1)
            if ordinal + 1 == len(orphans):
                self._open.clear()
            yield from self._settled((segment, ordinal), records, low)
            self._move_on()

    # --- places ------------------------------------------------------------------------------

    def _low(self, at: tuple[int, int]) -> tuple[int, int]:
        """Where a reader must begin to know the intents that are open now."""
        return min([intent.start for intent in self._open.values()]) if self._open else at

    def _after(self) -> Position:
        at = self._at
        if at < self._start[:2]:
            return self._start
        return Position(*at, 0, *self._low(at), self._time)

    def _move_on(self) -> None:
        self.position = self._after()

    # --- damage ------------------------------------------------------------------------------

    def _damage(
        self, at: tuple[int, int], length: int, what: str, *, in_segment: int | None = None
    ) -> Iterator[Item]:
        segment = at[0] if in_segment is None else in_segment
        self.damaged_segments.add(segment)
        if at >= self._start[:2]:
            time = self._time or self.identity.created
            yield Item(Damage(segment, at[1], length, time, what), self._after())

    def _cut_off(self, number: int, begin: int, end: int) -> Iterator[Item]:
        """Report that a segment ends before the position up to which it was read last time."""
        self._at = (number, begin)
        self.damaged_segments.add(number)
        time = self._time or self.identity.created
        yield Item(Damage(number, begin, begin - end, time, "the segment is truncated"), self._after())

    def _missing_segments(self, found: int) -> Iterator[Item]:
        """Report that segments between the last one read and ``found`` are gone."""
        at, self._at = self._at, (found, 0)
        yield from self._damage(at, 0, f"the segments from {at[0]} to {found - 1} are missing")
        self._move_on()

    def _load_identity(self, segments: list[layout.Segment]) -> frames.Identity:
        """Read the header of any segment; if none is readable, what the directory's name says."""
        for segment in segments:
            for piece in frames.read_pieces(self._descriptor(segment.number), 0, segment.size):
                if isinstance(piece, frames.Frame) and piece.kind == frames.HEADER:
                    try:
                        return frames.decode_identity(piece.payload)
                    except _UNREADABLE:
                        pass
                break
        created = layout.created(self._incarnation)
        return frames.Identity(incarnation=self._incarnation.name, created=created)

    def _descriptor(self, number: int) -> int:
        descriptor = self._descriptors.get(number)
        if descriptor is None:
            path = layout.segment_path(self._incarnation, number)
            descriptor = self._descriptors[number] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return descriptor

    def forget_segments_before(self, number: int) -> None:
        """Close the files of segments that are no longer needed."""
        for old in [known for known in self._descriptors if known < number]:
            os.close(self._descriptors.pop(old))
