"""A dependency of FastAPI's whose result is who makes the request: fastapi-users', one that reads a token.

FastAPI keeps what a request's dependencies returned in a dictionary, by the dependency. It is given one that
tells us of ours at once, so that a refusal by a later dependency names who was refused.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from otel_audit.audit_context import current_context
from otel_audit.http.actor import ActorSource
from otel_audit.http.asgi import ASGIRequestScope
from otel_audit.instrumentation.starlette.routes import APPLICATION, innermost_routes
from otel_audit.interruptions import faults

_logger = logging.getLogger(__name__)
_Solve = Callable[..., Awaitable[Any]]


def is_dependency(function: Any) -> bool:
    """Say whether only FastAPI can call a function: it is asynchronous, or FastAPI fills its parameters."""
    if "fastapi" not in sys.modules or not callable(function):
        return False
    if _is_asynchronous(function) or _is_asynchronous(type(function).__call__):
        return True
    try:
        parameters = inspect.signature(function, eval_str=True).parameters.values()
    except faults():  # a class in C; annotations that exist for the type checker only
        return False
    return any(
        type(each).__module__.startswith("fastapi.")
        for parameter in parameters
        for each in (parameter.default, *getattr(parameter.annotation, "__metadata__", ()))
    )


def _is_asynchronous(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


class _Results(dict[Any, Any]):
    """What the dependencies of one request returned, by (dependency, ...)."""

    __slots__ = ("_request", "_source")

    def __init__(self, source: ActorSource, request: ASGIRequestScope) -> None:
        super().__init__()
        self._source = source
        self._request = request

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        try:
            if key[0] is self._source.dependency():
                actor = self._source.take(value)
                if actor is not None:
                    self._request.found(actor)
        except faults():  # keys of a FastAPI to come
            return


def told_by_dependency(source: ActorSource | None, original: _Solve) -> _Solve:
    """Wrap ``solve_dependencies``; without a dependency to look for it stays as it is."""
    if source is None:
        return original
    looked_through: weakref.WeakSet[Any] = weakref.WeakSet()

    @functools.wraps(original)
    def solve(*args: Any, **kwargs: Any) -> Awaitable[Any]:
        if kwargs.get("dependency_cache") is None:
            dependency = source.dependency()
            context = None if dependency is None else current_context()
            request = None if context is None else context.scope
            if isinstance(request, ASGIRequestScope):
                kwargs["dependency_cache"] = _Results(source, request)
                application = request.asgi.get(APPLICATION)
                try:
                    if application is not None and application not in looked_through:
                        looked_through.add(application)
                        _say_if_nobody_calls(source, dependency, application)
                except faults():  # routes of others, what cannot be compared
                    pass
        return original(*args, **kwargs)

    return solve


def _say_if_nobody_calls(source: ActorSource, dependency: Any, application: Any) -> None:
    """Warn if no route of an application has the dependency: it would name nobody, without a word."""
    if any(dependency in _calls(route) for route in innermost_routes(application)):
        return
    name = getattr(dependency, "__name__", type(dependency).__name__)
    _logger.warning(
        "context.actor_from: no route of this application depends on %s%s, and only FastAPI can call it: it "
        "is asynchronous or has dependencies of its own; records are made without the actor it would name. "
        "Write FastAPI(dependencies=[Depends(%s)]), or give actor_from a plain function of the request",
        source.path,
        source.place(),
        name,
    )


def _calls(route: Any) -> Iterator[Any]:
    """Yield what FastAPI calls for a route: the endpoint, its dependencies, and theirs."""
    waiting = [getattr(route, "dependant", None)]
    while waiting:
        dependant = waiting.pop()
        if dependant is not None:
            yield dependant.call
            waiting += dependant.dependencies
