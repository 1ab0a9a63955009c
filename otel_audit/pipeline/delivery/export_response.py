"""Read an ``ExportLogsServiceResponse`` by hand: protobuf's runtime would cost each process megabytes for it.

What protobuf refuses is refused, what it skips is skipped, and of what comes twice the last counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_PARTIAL_SUCCESS: Final = 1
_REJECTED: Final = 1
_MESSAGE: Final = 2

# Wire types of the encoding: protobuf.dev/programming-guides/encoding.
_VARINT: Final = 0
_FIXED64: Final = 1
_SIZED: Final = 2
_GROUP: Final = 3
_GROUP_END: Final = 4
_FIXED32: Final = 5

_MOST_VARINT_BYTES: Final = 10
_MOST_TAG: Final = 0xFFFF_FFFF
_DEEPEST: Final = 100
_MALFORMED: Final = "its body is not an ExportLogsServiceResponse"


def partial_success(content: bytes) -> tuple[int, str]:
    """Return how many records were rejected, and the sink's message.

    Raises:
        ValueError: this is no such message.
    """
    rejected, message = 0, ""
    for field, kind, value in _fields(content, 1):
        if field != _PARTIAL_SUCCESS or kind != _SIZED:
            continue
        for inner, inner_kind, part in _fields(value, 2):
            if inner == _REJECTED and inner_kind == _VARINT:
                rejected = int.from_bytes(part, "little", signed=True)
            elif inner == _MESSAGE and inner_kind == _SIZED:
                try:
                    message = part.decode()
                except UnicodeDecodeError as error:
                    raise ValueError(_MALFORMED) from error
    return rejected, message


def _fields(content: bytes, depth: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, wire type and value of each field; a varint as 8 bytes, little-endian."""
    index = 0
    while index < len(content):
        field, kind, index = _tag(content, index)
        begin = index
        if kind == _VARINT:
            number, index = _varint(content, index)
            yield field, kind, (number & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little")
        else:
            if kind == _SIZED:
                _, begin = _varint(content, index)
            index = _after(content, index, field, kind, depth)
            yield field, kind, content[begin:index]


def _after(content: bytes, index: int, field: int, kind: int, depth: int) -> int:
    """Return where the value that begins at ``index`` ends."""
    if kind == _VARINT:
        return _varint(content, index)[1]
    if kind == _SIZED:
        length, index = _varint(content, index)
        end = index + length
    elif kind == _FIXED64:
        end = index + 8
    elif kind == _FIXED32:
        end = index + 4
    elif kind == _GROUP and depth < _DEEPEST:
        while True:
            inner, inner_kind, index = _tag(content, index)
            if inner_kind == _GROUP_END:
                if inner != field:
                    raise ValueError(_MALFORMED)
                return index
            index = _after(content, index, inner, inner_kind, depth + 1)
    else:
        raise ValueError(_MALFORMED)
    if end > len(content):
        raise ValueError(_MALFORMED)
    return end


def _tag(content: bytes, index: int) -> tuple[int, int, int]:
    """Return field number and wire type of the tag at ``index``, and where it ends."""
    tag, index = _varint(content, index)
    if tag > _MOST_TAG or tag >> 3 == 0:
        raise ValueError(_MALFORMED)
    return tag >> 3, tag & 7, index


def _varint(content: bytes, index: int) -> tuple[int, int]:
    """Return the varint at ``index``, and where it ends."""
    value = 0
    for count, byte in enumerate(content[index : index + _MOST_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value, index + count + 1
    raise ValueError(_MALFORMED)
