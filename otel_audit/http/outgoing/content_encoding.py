"""What a compressed body says, as far as it was kept: never more than a limit, whatever it would grow to."""

from __future__ import annotations

import zlib
from typing import Final

_GZIP: Final = 32 + zlib.MAX_WBITS
"""Of zlib's: take gzip or zlib by what the header says."""


def decoded(body: bytes, encoding: str, limit: int) -> bytes | None:
    """Return at most ``limit`` bytes of the content; None if its encoding is none of the standard library's.

    ``body`` may be cut: what can be read of it is returned. Nothing is, of one that is broken.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body[:limit]
    if name in ("gzip", "x-gzip"):
        return _inflated(body, _GZIP, limit)
    if name == "deflate":
        # Some servers send it without zlib's header (RFC 9110, section 8.4.1.2).
        return _inflated(body, _GZIP, limit) or _inflated(body, -zlib.MAX_WBITS, limit)
    return None


def _inflated(body: bytes, bits: int, limit: int) -> bytes:
    try:
        return zlib.decompressobj(bits).decompress(body, limit)
    except zlib.error:
        return b""
