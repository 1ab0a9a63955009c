"""Texts longer than a record carries: cut before they are searched, and so that no secret is cut in two.

A cut never goes through a token: it is moved to the end of the one it falls into, a bounded number of
characters further; one that is still open there is left out whole. What stands before it is then redacted as
any text is.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

JSON_LENGTH: Final = 1024 * 1024
"""Of a text that may be a document: longer ones are searched as text."""
_LOOK_AHEAD: Final = 4096
_ROOM: Final = 128
"""For what is said of the rest."""

# Compiled when first used; no character here is part of a key, token, hash or credential.
_END: Final = r"[\s\"'<>{}\[\]()\\]|[^\x00-\x7f]"
_AUTHORITY_END: Final = r"[\s/?#\"'<>\\]"
_PARAMETERS: Final = "[parameters: "
_DIGITS_GO_ON: Final = r"[ .\-]?[0-9]"
_SEPARATORS: Final = " .-"
_GROUPED_DIGITS: Final = "0123456789" + _SEPARATORS
_REST: Final = r"… \([0-9]+ (?:characters|bytes|items|keys)(?:, hmac:[0-9a-f]+)?\)\Z"


@cache
def _compiled(source: str) -> re.Pattern[str]:
    return re.compile(source)


def head_of(text: str, limit: int) -> str:
    """Return the beginning of a text, at most ``limit`` characters with what :func:`rest_of` says."""
    cut = limit - _LOOK_AHEAD - _ROOM
    found = _compiled(_END).search(text, cut, cut + _LOOK_AHEAD)
    end = _start_of_token(text, cut) if found is None else found.start()
    start = text.rfind("://", max(0, end - _LOOK_AHEAD), end)
    if start >= 0 and _compiled(_AUTHORITY_END).search(text, start + 3, end + 1) is None:
        end = _start_of_token(text, start)  # the @ that shows the password may come later
    start = text.rfind(_PARAMETERS, 0, end)
    if start >= 0 and "]" not in text[start:end]:
        end = start  # nothing closes what SQLAlchemy says of a statement's parameters
    if _compiled(_DIGITS_GO_ON).match(text, end):  # a card number may be written in groups
        near = text[max(0, end - _ROOM) : end]
        end -= len(near[len(near.rstrip(_GROUPED_DIGITS)) :].lstrip(_SEPARATORS))
    return text[:end]


def head_of_bytes(data: bytes, limit: int) -> bytes:
    """Return the beginning of binary data, cut as a text is: it may be one."""
    return data[: len(head_of(data[:limit].decode("latin-1"), limit))]


def rest_of(length: int, unit: str = "characters", digest: str = "") -> str:
    """Say how long the whole of a value is, and its keyed hash if there is one."""
    return f"… ({length} {unit}, {digest})" if digest else f"… ({length} {unit})"


def is_rest(text: str) -> bool:
    """Say whether a text says nothing but how long a value was."""
    return len(text) <= _ROOM and _compiled(_REST).match(text) is not None


def cut_again(text: str, limit: int) -> str:
    """Cut a text that is redacted already; what was said of the rest stays."""
    said = _compiled(_REST).search(text, max(0, len(text) - _ROOM))
    if said is None:
        return text[:limit] + rest_of(len(text))
    return text[: min(limit, said.start())] + said.group()


def _start_of_token(text: str, position: int) -> int:
    """Return where the token begins that ``position`` is in."""
    while position > 0:
        start = max(0, position - _LOOK_AHEAD)
        ends: list[re.Match[str]] = list(_compiled(_END).finditer(text, start, position))
        if ends:
            return ends[-1].end()
        position = start
    return 0
