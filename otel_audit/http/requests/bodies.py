"""From the bytes of a body, as they were sent, to what may be recorded of it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_audit.http.contents import Body, Contents
    from otel_audit.http.copies import Copy

_ANY_ZLIB: Final = 47
"""``wbits`` of :mod:`zlib` for gzip and deflate alike."""
_COMPRESSED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_PLAIN: Final = frozenset({"", "identity"})


def sent_body(
    copy: Copy, header: Callable[[str], str], contents: Contents, limit: int, types: Sequence[str]
) -> Body | None:
    """Return what may be recorded of a body that went over the wire.

    Args:
        copy: its beginning.
        header: returns a header it came with, by lower-case name; empty if there is none.
        contents: makes it.
        limit: the most that may be recorded, in bytes.
        types: the content types that are.

    Returns:
        None for an empty body, and one in a coding that nobody here reads.
    """
    if not copy.size:
        return None
    kind = header("content-type")
    coding = header("content-encoding").strip().lower()
    if coding in _PLAIN:
        return contents.body(copy.content, kind, limit, size=copy.size, content_types=types)
    if coding not in _COMPRESSED:
        return None
    try:
        content, size = unpacked(copy.content, copy.limit)
    except zlib.error:
        return None
    return contents.body(content, kind, limit, size=size, whole=size is not None, content_types=types)


def unpacked(content: bytes, limit: int) -> tuple[bytes, int | None]:
    """Return at most ``limit`` bytes of what a gzip or deflate text unpacks to, and the size if it is whole.

    However much it would become, no more is unpacked.

    Raises:
        zlib.error: it is no such text.
    """
    unpacking = zlib.decompressobj(_ANY_ZLIB)
    found = unpacking.decompress(content, limit + 1)
    whole = unpacking.eof and len(found) <= limit
    return found[:limit], len(found) if whole else None
