"""Which attributes of a record show a place with rules of its own: headers, queries, bodies, arguments."""

from __future__ import annotations

from typing import Final

from otel_audit.config.model import Place

_HEADERS: Final = ("http.request.header.", "http.response.header.")
_PLACES: Final[dict[str, Place]] = {
    "url.query": "queries",
    "url.full": "queries",
    "request.body": "bodies",
    "response.body": "bodies",
    "arguments": "arguments",
    "task.result": "arguments",
}


def place_of(attribute: str) -> Place | None:
    """Return the place that an attribute of a record shows; None for all other attributes."""
    if attribute.startswith(_HEADERS):
        return "headers"
    return _PLACES.get(attribute)
