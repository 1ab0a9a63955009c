"""Request and response bodies: their encodings, bounded against bombs, and forms."""

from __future__ import annotations

import email.parser
import email.policy
import gzip
import zlib
from collections.abc import Callable
from typing import Any, Final

import lz4.frame
import zstandard


class Malformed(ValueError):
    """The body is not what it claims to be."""


class TooLarge(ValueError):
    """The body is larger than the limit, as it came or decompressed."""


_STEP: Final = 1024
_MOST_STEP: Final = 1024 * 1024


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo ``Content-Encoding``, giving up as soon as the result exceeds ``limit`` bytes.

    Raises:
        Malformed: the encoding is unknown, or the body is not of it.
        TooLarge: there is more than ``limit``.
    """
    if encoding in ("", "identity"):
        return body
    try:
        if encoding == "zstd":
            return _unzstd(body, limit)
        if encoding == "lz4":
            return _unlz4(body, limit)
        if encoding not in ("gzip", "deflate"):
            raise Malformed(
                f"Content-Encoding {encoding!r} is not supported; send gzip, deflate, zstd, lz4 or none"
            )
        return _inflate(body, limit)
    except zlib.error as error:
        raise Malformed(f"the body is not valid {encoding}: {error}") from error


def _inflate(body: bytes, limit: int) -> bytes:
    """Undo gzip or zlib, of several members if need be.

    What follows a member is handed back as a copy: so a member is fed in steps that grow with it, and a body
    of many small members costs no more than one large one.
    """
    parts: list[bytes] = []
    size = at = 0
    view = memoryview(body)
    while at < len(body):
        unpack, step = zlib.decompressobj(47), _STEP  # gzip or zlib, told by the header
        while not unpack.eof:
            if at >= len(body):
                raise Malformed("the compressed body is incomplete")
            piece = view[at : at + step]
            parts.append(unpack.decompress(piece, limit - size + 1))
            size += len(parts[-1])
            if size > limit:
                raise TooLarge(f"the body is larger than {limit} bytes when decompressed")
            at += len(piece) - len(unpack.unused_data)
            step = min(2 * step, _MOST_STEP)
    return b"".join(parts)


def _unzstd(body: bytes, limit: int) -> bytes:
    try:
        with zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(
            body, read_across_frames=True
        ) as reader:
            data = reader.read(limit + 1)
    except zstandard.ZstdError as error:
        raise Malformed(f"the body is not valid zstd: {error}") from error
    if len(data) > limit:
        raise TooLarge(f"the body is larger than {limit} bytes when decompressed")
    return data


def _unlz4(body: bytes, limit: int) -> bytes:
    try:
        plain: bytes = lz4.frame.LZ4FrameDecompressor().decompress(body, max_length=limit + 1)
    except RuntimeError as error:
        raise Malformed(f"the body is not valid lz4: {error}") from error
    if len(plain) > limit:
        raise TooLarge(f"the body is larger than {limit} bytes when decompressed")
    return plain


def compress(body: bytes, accepted: str) -> tuple[bytes, str]:
    """Compress by the best of the encodings in ``Accept-Encoding``; give the result and its name."""
    codecs: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (("zstd", _zstd), ("gzip", _gzip))
    for name, packed in codecs:
        if name in accepted.lower():
            return packed(body), name
    return body, ""


def _zstd(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(body)


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, 1)


def form(content_type: str, body: bytes) -> dict[str, str]:
    """Return the fields of a ``multipart/form-data`` body."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1")
    message: Any = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    fields: dict[str, str] = {}
    for part in message.iter_parts() if message.is_multipart() else ():
        name = part.get_param("name", header="content-disposition")
        if isinstance(name, str):
            fields[name] = (part.get_payload(decode=True) or b"").decode("utf-8", "replace")
    return fields
