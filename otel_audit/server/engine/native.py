"""Build blocks of ClickHouse's Native format, column by column, in the form without revision."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final

from otel_audit.named_tuples import NamedTuple

_LENGTHS: Final = [bytes([n]) for n in range(128)] + [
    bytes([n & 127 | 128, n >> 7]) for n in range(128, 1 << 14)
]
_SHORT: Final = len(_LENGTHS)


class Column(NamedTuple):
    """One column of a block: name, ClickHouse type, the values already encoded."""

    name: str
    type: str
    data: bytes


def varint(number: int) -> bytes:
    """Encode an unsigned number, seven bits a byte, lowest first."""
    if number < _SHORT:
        return _LENGTHS[number]
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def text(value: str) -> bytes:
    """Encode one String value; lone surrogates, which UTF-8 has no form for, become question marks."""
    try:
        data = value.encode()
    except UnicodeEncodeError:
        data = value.encode("utf-8", "replace")
    return prefixed(data)


def prefixed(data: bytes) -> bytes:
    """Encode one String value that is bytes already."""
    length = len(data)
    return (_LENGTHS[length] if length < _SHORT else varint(length)) + data


def int64s(values: Iterable[int]) -> bytes:
    """Encode an Int64 or DateTime64 column."""
    return array("q", values).tobytes()


def float64s(values: Iterable[float]) -> bytes:
    """Encode a Float64 column."""
    return array("d", values).tobytes()


def uint64s(values: Iterable[int]) -> bytes:
    """Encode a UInt64 column, or the offsets of an array or map column."""
    return array("Q", values).tobytes()


def uint16s(values: Iterable[int]) -> bytes:
    """Encode a UInt16 column."""
    return array("H", values).tobytes()


def uint8s(values: Iterable[int]) -> bytes:
    """Encode a UInt8 column."""
    return array("B", values).tobytes()


def block(rows: int, columns: Iterable[Column]) -> bytes:
    """Put the columns of one block together."""
    parts = [b"", varint(rows)]
    count = 0
    for column in columns:
        parts += (text(column.name), text(column.type), column.data)
        count += 1
    parts[0] = varint(count)
    return b"".join(parts)
