"""The cursor: what the sink has acknowledged of a stream, and how its numbering goes on from there.

Two slots written in turns, in place: an update needs no free disk space, and a torn one leaves the slot
before it whole.
"""

import os
import struct
import zlib
from pathlib import Path
from typing import Final

import msgspec

from otel_audit.named_tuples import NamedTuple
from otel_audit.pipeline.spool import directory as layout

_SLOT_HEAD: Final = struct.Struct("<4sIIQ")
_MAGIC: Final = b"OACU"
_SMALLEST_SLOT: Final = 4096


class Position(NamedTuple):
    """A position in a stream.

    ``segment`` and ``offset`` say which settled entry comes next, ``done`` how many of its records are done.
    ``low_segment`` and ``low_offset`` say where a reader must begin to know the intents still open there.
    ``time`` is the latest observed time (ns) of a record before it.
    """

    segment: int = 1
    offset: int = 0
    done: int = 0
    low_segment: int = 1
    low_offset: int = 0
    time: int = 0


class StreamState(msgspec.Struct, frozen=True, array_like=True):
    """How the sequence of one log goes on: stream id, last number, last record id, whether it has ended."""

    stream: str
    number: int = 0
    record: str = ""
    ended: bool = False


class CursorState(msgspec.Struct, frozen=True):
    """All that is kept with the cursor.

    ``epoch`` is above 0 if the numbering had to begin anew because an earlier cursor was lost. ``damaged``
    segments are kept aside when their time comes, not deleted.
    """

    position: Position = msgspec.field(default=Position(), name="place")
    streams: dict[str, StreamState] = {}
    epoch: int = 0
    reason: str = ""
    damaged: list[int] = []


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(CursorState).decode


class CursorFile:
    """The cursor file of one incarnation; whoever holds the incarnation's lock may write it."""

    def __init__(self, incarnation: Path) -> None:
        self._path = incarnation / layout.CURSOR
        self._descriptor = -1
        self._slot = 0
        self._generation = 0

    def load(self) -> CursorState | None:
        """Read the newest whole slot; None if there is no cursor yet.

        Raises:
            ValueError: there is one, and neither slot holds anything that can be understood.
            OSError: it cannot be opened or read. It may be whole all the same: another user's.
        """
        self.close()
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            raw = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        except OSError:
            os.close(descriptor)
            raise
        slot = len(raw) // 2
        found = [part for part in (_parse(raw[:slot]), _parse(raw[slot:])) if part is not None]
        if not found:
            os.close(descriptor)
            raise ValueError("cursor is damaged")
        self._descriptor, self._slot = descriptor, slot
        self._generation, state = max(found, key=lambda part: part[0])
        return state

    def save(self, state: CursorState) -> None:
        """Write the state over the older slot.

        Raises:
            OSError: it could not be written; the state before it is still there.
        """
        self._generation += 1
        data = _slot(self._generation, _encode(state))
        if self._descriptor < 0 or len(data) > self._slot:
            self._make(data)
        else:
            os.pwrite(self._descriptor, data, self._slot * (self._generation % 2))

    def sync(self) -> None:
        """Flush to the disk; needed before acknowledged segments are deleted."""
        if self._descriptor >= 0:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _make(self, data: bytes) -> None:
        """Make the file, both slots allocated and ``data`` in its own, in place of the one before."""
        slot = _SMALLEST_SLOT
        while slot < 2 * len(data):
            slot *= 2
        content = bytearray(2 * slot)
        start = slot * (self._generation % 2)
        content[start : start + len(data)] = data
        temporary = self._path.with_name(layout.NEW_CURSOR)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.replace(temporary, self._path)
        except BaseException:
            os.close(descriptor)
            raise
        self.close()
        self._descriptor, self._slot = descriptor, slot


def _slot(generation: int, payload: bytes) -> bytes:
    checksum = zlib.crc32(payload, generation & 0xFFFF_FFFF)
    return _SLOT_HEAD.pack(_MAGIC, len(payload), checksum, generation) + payload


def _parse(slot: bytes) -> tuple[int, CursorState] | None:
    if len(slot) < _SLOT_HEAD.size:
        return None
    magic, length, checksum, generation = _SLOT_HEAD.unpack_from(slot)
    payload = slot[_SLOT_HEAD.size : _SLOT_HEAD.size + length]
    if magic != _MAGIC or len(payload) < length or zlib.crc32(payload, generation & 0xFFFF_FFFF) != checksum:
        return None
    try:
        return generation, _decode(payload)
    except msgspec.MsgspecError:
        return None
