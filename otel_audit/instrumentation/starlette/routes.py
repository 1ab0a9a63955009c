"""The templates of an application's routes, by endpoint: Starlette tells the endpoint, and not the route.

An application is looked through once, with all that is mounted in it or included; a route added later is
found when it is first asked for.
"""

from __future__ import annotations

import re
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, Final

from otel_audit.http.asgi import Scope, shown_path
from otel_audit.http.request_scope import Endpoint
from otel_audit.interruptions import faults
from otel_audit.location import view_name
from otel_audit.named_tuples import NamedTuple

APPLICATION: Final = "otel_audit.application"
"""In an ASGI scope: the outermost application."""
_DEPTH: Final = 20
_PAUSE: Final = 0.1
"""Seconds until an application is looked through again for a route that was not there."""


class _Template(NamedTuple):
    text: str
    pattern: re.Pattern[str]
    endpoint: Any  # kept alive: it is found by its id


class _Routes:
    """The templates of one application."""

    def __init__(self, application: Any) -> None:
        self._templates: dict[int, list[_Template]] = {}
        self._look(application)

    def _look(self, application: Any) -> None:
        from starlette.routing import compile_path

        self._looked = time.monotonic()
        found: dict[int, list[_Template]] = {}
        for text, endpoint in _flattened(getattr(application, "routes", ()), "", 0):
            try:
                template = _Template(text, compile_path(text)[0], endpoint)
            except faults():  # a parameter twice, on a mount and below it; its own router does not mind
                template = _Template(text, _NEVER, endpoint)
            found.setdefault(id(endpoint), []).append(template)
        self._templates = found

    def of(self, application: Any, endpoint: Any, path: str) -> tuple[str, re.Match[str] | None]:
        """Return the template of the route to ``endpoint`` that ``path`` takes, and its match."""
        found = self._find(endpoint, path)
        if found is None and time.monotonic() - self._looked > _PAUSE:
            self._look(application)
            found = self._find(endpoint, path)
        return found or ("", None)

    def _find(self, endpoint: Any, path: str) -> tuple[str, re.Match[str] | None] | None:
        templates = self._templates.get(id(endpoint), ())
        for template in templates:
            match = template.pattern.match(path)
            if match is not None:
                return template.text, match
        if len(templates) == 1 and templates[0].pattern is _NEVER:
            return templates[0].text, None
        return None


_NEVER: Final = re.compile(r"(?!)")
_known: Final[weakref.WeakKeyDictionary[Any, _Routes]] = weakref.WeakKeyDictionary()


def innermost_routes(application: Any) -> Iterator[Any]:
    """Yield the routes of an application, of the routers it includes and of all that is mounted in it."""
    waiting = [(getattr(application, "routes", None) or (), 0)]
    while waiting:
        routes, depth = waiting.pop()
        for route in each_route(routes):
            inner = getattr(route, "routes", None)
            if inner is None:
                yield route
            elif depth < _DEPTH:
                waiting.append((inner, depth + 1))


def each_route(routes: Iterable[Any]) -> Iterable[Any]:
    """Return routes in order, and those of the routers among them that FastAPI includes."""
    fastapi = sys.modules.get("fastapi.routing")
    contexts = getattr(fastapi, "iter_route_contexts", iter)  # routers included keep their own routes
    return contexts(routes)


def _flattened(routes: Iterable[Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for route in each_route(routes):
        inner = getattr(route, "routes", None)
        if inner is None:
            path = getattr(route, "path", None)
            endpoint = getattr(route, "endpoint", None)
            if path is not None and endpoint is not None:
                yield f"{prefix}{path}", endpoint
        elif depth < _DEPTH:  # Mount, or Host, which has no path
            path = f"{prefix}{getattr(route, 'path', None) or ''}"
            yield f"{path}/{{path:path}}", getattr(route, "app", None)
            yield from _flattened(inner, path, depth + 1)


def starlette_endpoint(asgi: Scope, show: Callable[[str, str], Any]) -> Endpoint:
    """Say through which route and function of a Starlette application a request came."""
    path = str(asgi.get("path") or "")
    endpoint = asgi.get("endpoint")
    application = asgi.get(APPLICATION)
    if endpoint is None or application is None:
        return Endpoint("", path, "")
    routes = _known.get(application)
    if routes is None:
        routes = _known[application] = _Routes(application)
    root = str(asgi.get("app_root_path", asgi.get("root_path")) or "")
    below = path[len(root) :] if root and path.startswith(f"{root}/") else path
    template, match = routes.of(application, endpoint, below)
    if match is None:
        shown = shown_path(path, asgi.get("path_params") or {}, show)
    else:
        shown = path[: len(path) - len(below)] + _without_secrets(match, show)
    return Endpoint(_format(template), shown, view_name(endpoint))


def _without_secrets(match: re.Match[str], show: Callable[[str, str], Any]) -> str:
    text = match.string
    for name in sorted(match.groupdict(), key=match.start, reverse=True):
        value = match[name]
        shown = show(name, value)
        if shown != value:
            start, end = match.span(name)
            text = text[:start] + (shown if isinstance(shown, str) else "") + text[end:]
    return text


@lru_cache(maxsize=1024)
def _format(template: str) -> str:
    """Return a template without the converters of its parameters: ``/shipments/{id}``."""
    return _CONVERTER.sub("}", template)


_CONVERTER: Final = re.compile(r":[a-zA-Z_]\w*\}")
