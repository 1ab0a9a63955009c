"""Which view and route of an ASGI or WSGI application answer a request, for `otel-audit explain request`.

``python -m otel_audit.instrumentation.application_routes ANSWER APPLICATION DIRECTORY METHOD PATH HOST``
imports the application as uvicorn does (``module:attribute``, looked for in DIRECTORY first), asks its routes
as the running service asks them, calls no view and no middleware, writes the answer to the file ANSWER as
JSON, and ends at once.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from otel_audit.http.request_scope import Endpoint
from otel_audit.http.requests.marks import marks_of, said_of
from otel_audit.location import view_name
from otel_audit.named_tuples import NamedTuple

_DEPTH: Final = 20
_WRAPPED: Final = ("app", "application", "wsgi_app", "asgi_app", "__self__", "__wrapped__")
"""How middlewares call what they are put around."""


class Asked(NamedTuple):
    """A request, as the command line describes it."""

    method: str
    path: str
    host: str


def load(name: str, directory: str) -> Any:
    """Import an application, or call the function that makes it, as uvicorn does.

    Raises:
        ImportError: there is none of that name.
    """
    sys.path.insert(0, os.path.abspath(directory or os.curdir))
    module, _, attributes = name.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in (attributes or "app").split("."):
        if not hasattr(found, attribute):
            raise ImportError(f"{name}: {module} has no {attributes or 'app'!r}")
        found = getattr(found, attribute)
    if _framework(found) is None and _is_factory(found):
        found = found()
    framework = _framework(found)
    if framework is None:
        raise ImportError(f"{name} is no application of Starlette, FastAPI or Flask; name the view by --view")
    return framework


def _is_factory(found: Any) -> bool:
    if not inspect.isfunction(found) or inspect.iscoroutinefunction(found):
        return False
    parameters = inspect.signature(found).parameters.values()
    return all(each.default is not each.empty or each.kind in (2, 4) for each in parameters)


def _framework(application: Any) -> Any:
    """Return the application that has routes, inside the middlewares around it; None if there is none."""
    for _ in range(_DEPTH):
        if application is None or _is_flask(application) or hasattr(application, "routes"):
            return application
        names = (name for name in _WRAPPED if getattr(application, name, None) is not None)
        application = getattr(application, next(names, ""), None)
    return None


def _is_flask(application: Any) -> bool:
    return hasattr(application, "url_map") and hasattr(application, "view_functions")


def find(application: Any, asked: Asked) -> tuple[Endpoint, str]:
    """Return the endpoint as records name it, and what its view says of the records; empty for no route."""
    endpoint, view = (_of_flask if _is_flask(application) else _of_starlette)(application, asked)
    return endpoint, said_of(marks_of(view, asked.method))


def _of_flask(application: Any, asked: Asked) -> tuple[Endpoint, Any]:
    from werkzeug.exceptions import HTTPException

    host = asked.host or application.config.get("SERVER_NAME") or "localhost"
    adapter = application.url_map.bind(host, url_scheme="https")
    try:
        rule, _ = adapter.match(asked.path, method=asked.method, return_rule=True)
    except HTTPException:
        return Endpoint(), None
    view = application.view_functions.get(rule.endpoint)
    return Endpoint(
        rule.rule, asked.path, view_name(getattr(view, "view_class", view)) or rule.endpoint
    ), view


def _of_starlette(application: Any, asked: Asked) -> tuple[Endpoint, Any]:
    from otel_audit.instrumentation.starlette.routes import APPLICATION, starlette_endpoint

    scope: dict[str, Any] = {
        "type": "http",
        "method": asked.method,
        "path": asked.path,
        "root_path": getattr(application, "root_path", "") or "",
        "headers": [(b"host", asked.host.encode("latin-1", "replace"))] if asked.host else [],
        "query_string": b"",
        APPLICATION: application,
    }
    _route(application.routes, scope, 0)
    return starlette_endpoint(scope, lambda name, value: value), scope.get("endpoint")


def _route(routes: Iterable[Any], scope: dict[str, Any], depth: int) -> None:
    """Put into ``scope`` what Starlette's router does: by the first route that matches, else in part."""
    from starlette.routing import Match

    from otel_audit.instrumentation.starlette.routes import each_route

    partial: dict[str, Any] | None = None
    for route in each_route(routes):
        match, child = route.matches(scope)
        if match is Match.FULL:
            scope.update(child)
            inner = getattr(route, "routes", None)
            if inner and depth < _DEPTH:
                _route(inner, scope, depth + 1)
            return
        if match is Match.PARTIAL and partial is None:
            partial = dict(child)
    scope.update(partial or {})


def main() -> None:
    """Answer `otel-audit explain request`."""
    answer, name, directory, *asked = sys.argv[1:]
    endpoint, said = find(load(name, directory), Asked(*asked))
    found = {"view": endpoint.view, "route": endpoint.route, "said": said}
    Path(answer).write_bytes(msgspec.json.encode(found))
    os._exit(0)


if __name__ == "__main__":
    main()
