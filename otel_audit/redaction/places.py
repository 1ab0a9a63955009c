"""Which attributes of a record show a place with rules of its own: headers, queries, bodies, arguments."""

from __future__ import annotations

from typing import Final

from otel_audit import semconv
from otel_audit.config.model import Place

_HEADERS: Final = (semconv.REQUEST_HEADER, semconv.RESPONSE_HEADER)
_PLACES: Final[dict[str, Place]] = {
    semconv.QUERY: "queries",
    semconv.URL: "queries",
    semconv.REQUEST_BODY: "bodies",
    semconv.RESPONSE_BODY: "bodies",
    semconv.ARGUMENTS: "arguments",
    semconv.TASK_RESULT: "arguments",
}


def place_of(attribute: str) -> Place | None:
    """Return the place that an attribute of a record shows; None for all other attributes."""
    if attribute.startswith(_HEADERS):
        return "headers"
    return _PLACES.get(attribute)
