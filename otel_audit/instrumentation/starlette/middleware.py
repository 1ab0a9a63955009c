"""All that is wrapped of Starlette, in one table.

Not ``build_middleware_stack``: an application may have built its stack before, and OpenTelemetry's
instrumentation keeps the method it found. What every request goes through is ``Starlette.__call__``, also
FastAPI's.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from types import MethodType
from typing import TYPE_CHECKING, Any

from otel_audit.audit_context import current_context
from otel_audit.http.asgi import PEER, ASGIRequestScope, Scope
from otel_audit.http.request_scope import SEEN
from otel_audit.instrumentation.patching import Patch
from otel_audit.instrumentation.starlette.dependencies import told_by_dependency
from otel_audit.instrumentation.starlette.routes import APPLICATION
from otel_audit.otel_api import current_span
from otel_audit.propagation import enter, leave

if TYPE_CHECKING:
    from otel_audit.instrumentation.starlette.scope import StarletteRequests

_Call = Callable[..., Awaitable[None]]


def table(requests: StarletteRequests) -> list[Patch]:
    """List everything that is wrapped of Starlette and of uvicorn."""
    return [
        Patch(
            "starlette.applications:Starlette.__call__",
            functools.partial(in_request_scope, requests),
            "every request, connection and lifespan, of FastAPI's applications too",
        ),
        Patch(
            "starlette.middleware.exceptions:ExceptionMiddleware.__call__",
            knowing_innermost,
            "inside every middleware: one may hand on a copy of the ASGI scope, where users and routes "
            "are put, and OpenTelemetry's begins a new context, with what baggage came in",
        ),
        Patch(
            "fastapi.routing:solve_dependencies",
            functools.partial(told_by_dependency, requests.settings.actor_from),
            "the result of the dependency that `context.actor_from` names is who makes the request",
            late=True,
        ),
        Patch(
            "uvicorn.middleware.proxy_headers:ProxyHeadersMiddleware.__call__",
            keeping_peer,
            "replaces the peer of the socket by what a header says, by default for 127.0.0.1",
            late=True,
        ),
    ]


def in_request_scope(requests: StarletteRequests, original: _Call) -> _Call:
    """Wrap ``Starlette.__call__``."""

    @functools.wraps(original)
    async def call(application: Any, /, scope: Scope, receive: Any, send: Any) -> None:
        if APPLICATION not in scope:
            scope[APPLICATION] = application
        await requests.serve(MethodType(original, application), scope, receive, send)

    return call


def knowing_innermost(original: _Call) -> _Call:
    """Wrap ``ExceptionMiddleware.__call__``, which is inside every middleware of the application."""

    @functools.wraps(original)
    def call(middleware: Any, /, scope: Scope, receive: Any, send: Any) -> Awaitable[None]:
        context = current_context()
        request = None if context is None else context.scope
        if isinstance(request, ASGIRequestScope) and scope.get(SEEN) == request.id:
            request.asgi = scope
            if request.recording is not None:
                request.recording.seen_in(current_span())
            if request.baggage or request.settings.visible:
                return _with_our_baggage(request, original(middleware, scope, receive, send))
        return original(middleware, scope, receive, send)

    return call


async def _with_our_baggage(request: ASGIRequestScope, call: Awaitable[None]) -> None:
    token = enter(request.baggage, visible=request.settings.visible)
    try:
        await call
    finally:
        leave(token)


def keeping_peer(original: _Call) -> _Call:
    """Wrap uvicorn's ``ProxyHeadersMiddleware.__call__``."""

    @functools.wraps(original)
    def call(middleware: Any, /, scope: Scope, receive: Any, send: Any) -> Awaitable[None]:
        if PEER not in scope:
            scope[PEER] = scope.get("client")
        return original(middleware, scope, receive, send)

    return call
