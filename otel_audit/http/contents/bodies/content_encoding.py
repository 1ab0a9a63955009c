"""What a compressed body says, as far as it was kept: never more than a limit, whatever it would grow to."""

from __future__ import annotations

import zlib
from typing import Final

from otel_audit.named_tuples import NamedTuple

_BY_HEADER: Final = 32 + zlib.MAX_WBITS
"""Of zlib's: take gzip or zlib by what the header says."""
_PLAIN: Final = frozenset({"", "identity"})
_GZIP: Final = frozenset({"gzip", "x-gzip"})


class Decoded(NamedTuple):
    """The content of a body; it is ``whole`` if it has come to its end within the limit."""

    content: bytes
    whole: bool


def is_plain(encoding: str) -> bool:
    """Say whether a Content-Encoding header says that there is none."""
    return encoding.strip().lower() in _PLAIN


def decoded(body: bytes, encoding: str, limit: int) -> Decoded | None:
    """Return at most ``limit`` bytes of the content; None if its encoding is none of the standard library's.

    ``body`` may be cut: what can be read of it is returned. Nothing is, of one that is broken.
    """
    name = encoding.strip().lower()
    if name in _GZIP:
        return _inflated(body, _BY_HEADER, limit)
    if name == "deflate":
        found = _inflated(body, _BY_HEADER, limit)
        # Some servers send it without zlib's header (RFC 9110, section 8.4.1.2).
        return found if found.content else _inflated(body, -zlib.MAX_WBITS, limit)
    return None


def _inflated(body: bytes, bits: int, limit: int) -> Decoded:
    unpacking = zlib.decompressobj(bits)
    try:
        content = unpacking.decompress(body, limit + 1)
    except zlib.error:
        return Decoded(b"", whole=False)
    return Decoded(content[:limit], whole=unpacking.eof and len(content) <= limit)
