"""Frames: how bytes stand in a file of a spool or journal, and how to find the next whole one after damage.

A frame is ``magic (4) | length (4) | crc32 (4) | kind (1) | payload (length)``, little-endian. The checksum
starts from length and kind, so a flipped bit anywhere in a frame is seen. The magic holds bytes that no
UTF-8 text contains; a candidate found inside a payload by chance still fails its checksum.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import msgspec

from otel_audit.audit_record import AuditRecord, Outcome
from otel_audit.named_tuples import NamedTuple

MAGIC: Final = b"\xf5OA\xfe"
_PREFIX: Final = struct.Struct("<4sIIB")
PREFIX_BYTES: Final = _PREFIX.size
MAX_PAYLOAD: Final = 32 * 1024 * 1024
"""A longer length is damage: no record is near it, and intents are cut into chunks."""

HEADER: Final = 1
RECORD: Final = 2
INTENT: Final = 3
REPLACEMENT: Final = 4
MARKER: Final = 5
END: Final = 6
_KINDS: Final = frozenset({HEADER, RECORD, INTENT, REPLACEMENT, MARKER, END})

CHUNK_BYTES: Final = 256 * 1024
"""Records of one transaction are cut into frames of about this size: a flipped bit costs no more."""

OUTCOMES: Final[tuple[Outcome, ...]] = ("success", "failure", "unknown")
_OUTCOME_NUMBERS: Final = {outcome: number for number, outcome in enumerate(OUTCOMES)}
_MARKER: Final = struct.Struct("<QBB")
_HANDLE: Final = struct.Struct("<Q")
_TIME: Final = struct.Struct("<Q")
_WINDOW: Final = 256 * 1024

_pack_prefix = _PREFIX.pack
_crc32 = zlib.crc32
encode_record = msgspec.msgpack.Encoder().encode
decode_record = msgspec.msgpack.Decoder(AuditRecord).decode
decode_records = msgspec.msgpack.Decoder(list[AuditRecord]).decode


class Identity(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose records a segment holds; the first frame of every segment, should another one be damaged.

    ``created`` is when the process began to spool (nanoseconds), ``previous`` maps a log to the tip
    (stream id, last number, last record id) of the stream before, where one is known. ``before`` is the size
    of the segment before this one, so that one cut off between two frames is noticed.
    """

    incarnation: str
    segment: int = 0
    before: int = 0
    created: int = 0
    pid: int = 0
    host: str = ""
    version: str = ""
    resource: dict[str, str | int | bool | float] = {}
    previous: dict[str, tuple[str, int, str]] = {}


encode_identity = msgspec.msgpack.Encoder().encode
decode_identity = msgspec.msgpack.Decoder(Identity).decode


class Frame(NamedTuple):
    """A whole frame: its kind and payload, where it begins and where the next one does."""

    kind: int
    payload: bytes
    offset: int
    end: int


class Gap(NamedTuple):
    """Bytes between ``offset`` and ``end`` that hold no whole frame."""

    offset: int
    end: int


Piece: TypeAlias = "Frame | Gap"


def frame(kind: int, payload: bytes) -> bytes:
    """Put ``payload`` into a frame."""
    length = len(payload)
    return _pack_prefix(MAGIC, length, _crc32(payload, length << 3 ^ kind), kind) + payload


def intent(kind: int, handle: int, payloads: Sequence[bytes]) -> list[bytes]:
    """Put encoded records into INTENT or REPLACEMENT frames of about ``CHUNK_BYTES`` each."""
    if len(payloads) == 1:
        return [_intent_frame(kind, handle, payloads)]
    frames: list[bytes] = []
    chunk: list[bytes] = []
    size = 0
    for payload in payloads:
        if chunk and size + len(payload) > CHUNK_BYTES:
            frames.append(_intent_frame(kind, handle, chunk))
            chunk, size = [], 0
        chunk.append(payload)
        size += len(payload)
    if chunk:
        frames.append(_intent_frame(kind, handle, chunk))
    return frames


def _intent_frame(kind: int, handle: int, payloads: Sequence[bytes]) -> bytes:
    # The payload after the handle is one msgpack array, written by hand from records already encoded.
    count = len(payloads)
    head = bytes((0x90 | count,)) if count < 16 else b"\xdd" + count.to_bytes(4, "big")
    return frame(kind, b"".join((_HANDLE.pack(handle), head, *payloads)))


def split_intent(payload: bytes) -> tuple[int, memoryview]:
    """Return the handle and the encoded records of an INTENT or REPLACEMENT payload."""
    return _HANDLE.unpack_from(payload)[0], memoryview(payload)[_HANDLE.size :]


def _count(payload: bytes) -> int:
    """Return how many records an INTENT or REPLACEMENT payload holds, by the head of its array."""
    head = payload[_HANDLE.size]
    return (
        head & 0x0F if head != 0xDD else int.from_bytes(payload[_HANDLE.size + 1 : _HANDLE.size + 5], "big")
    )


def copy_settling(descriptor: int, offset: int, limit: int) -> tuple[bytes, int]:
    """Copy the frames of an open file that hold records or settle them; gives how many are settled, too.

    Raises:
        OSError: it cannot be read.
    """
    copied: list[bytes] = []
    settled = 0
    counts: dict[tuple[int, int], int] = {}
    for piece in read_pieces(descriptor, offset, limit):
        if isinstance(piece, Gap) or piece.kind in (HEADER, END):
            continue
        copied.append(frame(piece.kind, piece.payload))
        if piece.kind == RECORD:
            settled += 1
        elif piece.kind == MARKER:
            handle, _, replaced = split_marker(piece.payload)
            settled += counts.get((REPLACEMENT if replaced else INTENT, handle), 0)
        else:
            key = piece.kind, split_intent(piece.payload)[0]
            counts[key] = counts.get(key, 0) + _count(piece.payload)
    return b"".join(copied), settled


def marker(handle: int, outcome: Outcome, *, replaced: bool) -> bytes:
    """Make the MARKER frame that settles an intent; ``replaced``: by what the REPLACEMENT frames hold."""
    return frame(MARKER, _MARKER.pack(handle, _OUTCOME_NUMBERS[outcome], replaced))


def split_marker(payload: bytes) -> tuple[int, Outcome, bool]:
    """Return handle, outcome and whether the intended records were replaced."""
    handle, outcome, replaced = _MARKER.unpack(payload)
    return handle, OUTCOMES[outcome], bool(replaced)


def end(time: int) -> bytes:
    """Make the END frame of a process that stopped gracefully at ``time``."""
    return frame(END, _TIME.pack(time))


def split_end(payload: bytes) -> int:
    """Return the time of an END frame."""
    return int(_TIME.unpack(payload)[0])


def read_pieces(descriptor: int, offset: int, limit: int) -> Iterator[Piece]:
    """Yield the frames of an open file from ``offset``, a frame's begin, up to ``limit``, and the gaps.

    Reads forward in windows, never the whole file. After damage it goes on at the next frame whose
    checksum fits; one gap is yielded for all bytes skipped. Bytes a file promised and does not have
    (truncation) are a gap up to ``limit``.
    """
    window = _Window(descriptor, limit)
    damaged_from: int | None = None
    while offset < limit:
        found = _frame_at(window, offset)
        if found is not None:
            if damaged_from is not None:
                yield Gap(damaged_from, offset)
                damaged_from = None
            yield found
            offset = found.end
            continue
        if damaged_from is None:
            damaged_from = offset
        offset = window.find_magic(offset + 1)
    if damaged_from is not None:
        yield Gap(damaged_from, limit)


def _frame_at(window: _Window, offset: int) -> Frame | None:
    prefix = window.read(offset, PREFIX_BYTES)
    if len(prefix) < PREFIX_BYTES:
        return None
    magic, length, checksum, kind = _PREFIX.unpack(prefix)
    if magic != MAGIC or kind not in _KINDS or length > MAX_PAYLOAD:
        return None
    payload = window.read(offset + PREFIX_BYTES, length)
    if len(payload) < length or _crc32(payload, length << 3 ^ kind) != checksum:
        return None
    return Frame(kind, payload, offset, offset + PREFIX_BYTES + length)


class _Window:
    """A file seen through one buffer, so that small frames do not cost a read each."""

    __slots__ = ("_buffer", "_descriptor", "_limit", "_start")

    def __init__(self, descriptor: int, limit: int) -> None:
        self._descriptor = descriptor
        self._limit = limit
        self._buffer = b""
        self._start = 0

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes at ``offset``; fewer at the end of the file."""
        if offset + length > self._limit:
            length = max(0, self._limit - offset)
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._buffer):
            self._buffer = self._load(offset, max(length, min(_WINDOW, self._limit - offset)))
            self._start, begin = offset, 0
        return self._buffer[begin : begin + length]

    def find_magic(self, offset: int) -> int:
        """Return the next offset at which the magic stands, ``limit`` if there is none."""
        while offset < self._limit:
            window = self.read(offset, min(_WINDOW, self._limit - offset))
            if not window:
                return self._limit
            found = window.find(MAGIC)
            if found >= 0:
                return offset + found
            if len(window) < len(MAGIC):
                return self._limit
            offset += len(window) - len(MAGIC) + 1
        return self._limit

    def _load(self, offset: int, length: int) -> bytes:
        parts: list[bytes] = []
        while length > 0:
            part = os.pread(self._descriptor, length, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)
