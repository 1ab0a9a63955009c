"""ClickHouse's own framing of compressed data (``compress=1``, ``decompress=1``): checksummed blocks.

A block is 16 bytes of CityHash128 (version 1.0.2, high word first), a method byte, the size of method,
sizes and data together, the size when decompressed, and the data.
"""

from __future__ import annotations

import struct
from typing import Final

import lz4.block
import zstandard
from clickhouse_cityhash.cityhash import CityHash128

from otel_audit.server.bodies import Malformed, TooLarge

_LZ4, _ZSTD, _NONE = 0x82, 0x90, 0x02
_HEADER: Final = struct.Struct("<BII")
_BLOCK: Final = 1024 * 1024


def frame(data: bytes) -> bytes:
    """Compress with LZ4 into blocks of at most one MiB."""
    parts: list[bytes] = []
    for at in range(0, len(data), _BLOCK):
        piece = data[at : at + _BLOCK]
        packed = lz4.block.compress(piece, store_size=False)
        body = _HEADER.pack(_LZ4, len(packed) + _HEADER.size, len(piece)) + packed
        parts += (_checksum(body), body)
    return b"".join(parts)


def unframe(data: bytes, limit: int) -> bytes:
    """Undo :func:`frame`; LZ4, ZSTD and uncompressed blocks.

    Raises:
        Malformed: a block is cut short, its checksum is wrong, its method unknown or its data broken.
        TooLarge: there is more than ``limit`` bytes in it.
    """
    parts: list[bytes] = []
    at = size = 0
    while at < len(data):
        start = at + 16
        if start + _HEADER.size > len(data):
            raise Malformed("a compressed block is incomplete")
        method, packed_size, plain_size = _HEADER.unpack_from(data, start)
        end = start + packed_size
        if packed_size < _HEADER.size or end > len(data):
            raise Malformed("a compressed block is incomplete")
        body = data[start:end]
        if _checksum(body) != data[at:start]:
            raise Malformed("a compressed block has the wrong checksum")
        size += plain_size
        if size > limit:
            raise TooLarge(f"the body is larger than {limit} bytes when decompressed")
        packed = body[_HEADER.size :]
        try:
            if method == _LZ4:
                plain = lz4.block.decompress(packed, uncompressed_size=plain_size)
            elif method == _ZSTD:
                plain = _unzstd(packed, plain_size)
            elif method == _NONE:
                plain = packed
            else:
                raise Malformed(
                    f"compression method {method:#x} of a block is not supported; send LZ4, ZSTD or none"
                )
        except (lz4.block.LZ4BlockError, zstandard.ZstdError) as error:
            raise Malformed(f"a compressed block is not valid: {error}") from error
        if len(plain) != plain_size:
            raise Malformed("a compressed block does not have the size it declares")
        parts.append(plain)
        at = end
    return b"".join(parts)


def _unzstd(packed: bytes, size: int) -> bytes:
    # The frame has a size of its own, which the library would take for the truth.
    with zstandard.ZstdDecompressor().stream_reader(packed) as reader:
        return reader.read(size + 1)


def _checksum(body: bytes) -> bytes:
    value = CityHash128(body)
    return struct.pack("<QQ", value >> 64, value & (2**64 - 1))
