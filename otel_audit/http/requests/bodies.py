"""From the bytes of a body, as they were sent, to what may be recorded of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from otel_audit.http.contents.bodies.content_encoding import decoded, is_plain

if TYPE_CHECKING:
    from otel_audit.http.contents import Body, Contents
    from otel_audit.http.copies import Copy


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
    kind, encoding = header("content-type"), header("content-encoding")
    if is_plain(encoding):
        return contents.body(copy.content, kind, limit, size=copy.size, content_types=types)
    found = decoded(copy.content, encoding, copy.limit)
    if found is None or not found.content:
        return None
    return contents.body(found.content, kind, limit, whole=found.whole, content_types=types)
