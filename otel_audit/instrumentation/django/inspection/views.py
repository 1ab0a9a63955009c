"""Which view and route answer a path: asked for by `otel-audit explain request`.

``python -m otel_audit.instrumentation.django.inspection.views ANSWER METHOD PATH [CONFIG]`` loads the
application's apps and URLconf, writes a :class:`FoundView` to the file ANSWER as JSON, and ends at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec


class FoundView(msgspec.Struct, frozen=True):
    """The view and route as records name them, and what the view says of them; empty without a route."""

    view: str = ""
    route: str = ""
    said: str = ""


def find_view(method: str, path: str) -> FoundView:
    """Resolve a path by the application's URLconf; the apps must be ready."""
    from django.urls import Resolver404, resolve

    from otel_audit.http.requests.marks import marks_of, said_of
    from otel_audit.instrumentation.django.scope import route_of, view_of

    try:
        match = resolve(path)
    except Resolver404:
        return FoundView()
    return FoundView(view_of(match), route_of(match), said_of(marks_of(match.func, method)))


def main() -> None:
    """Answer `otel-audit explain request`."""
    answer, method, path, *_ = sys.argv[1:]
    import django

    django.setup()
    Path(answer).write_bytes(msgspec.json.encode(find_view(method, path)))
    os._exit(0)


if __name__ == "__main__":
    main()
