"""Headers as servers hand them over, by ASGI and WSGI, as text; and the length one of them says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

_UNPREFIXED: Final = ("CONTENT_TYPE", "CONTENT_LENGTH")
_DIGITS: Final = 18


def asgi_headers(headers: Iterable[Any]) -> list[tuple[str, str]]:
    """Return the headers of an ASGI scope or message."""
    return [(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in headers]


def wsgi_headers(environ: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the headers of a request by its WSGI environment."""
    return [
        (name.removeprefix("HTTP_").replace("_", "-").lower(), str(value))
        for name, value in environ.items()
        if name.startswith("HTTP_") or (name in _UNPREFIXED and value)
    ]


@lru_cache(maxsize=256)
def environ_name(header: str) -> str:
    """Return the name under which a WSGI environment has a header."""
    name = header.upper().replace("-", "_")
    return name if name in _UNPREFIXED else f"HTTP_{name}"


def size_in(header: str) -> int | None:
    """Return the number that a Content-Length header says; None if it says none."""
    return int(header) if header.isascii() and header.isdecimal() and len(header) <= _DIGITS else None
