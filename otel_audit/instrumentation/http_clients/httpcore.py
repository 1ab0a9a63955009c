"""``httpcore``: what httpx sends its requests with, below its redirects, authentication and event hooks.

Transports of the application's own, such as those that call an ASGI or WSGI application in the process, are
not concerned: nothing is added there.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from otel_audit.instrumentation.http_clients.wrapping import Wrappers, destination_unknown
from otel_audit.instrumentation.patching import Patch
from otel_audit.interruptions import faults
from otel_audit.propagation.outgoing import HEADER, Destination

if TYPE_CHECKING:
    from otel_audit.instrumentation.http_clients.wrapping import Propagation

_NAME: Final = HEADER.encode()


def table(propagation: Propagation) -> list[Patch]:
    """List what is wrapped of httpcore; pools that go through a proxy inherit it."""
    wrappers = _Wrappers(propagation)
    return [
        Patch(
            "httpcore:ConnectionPool.handle_request",
            wrappers.handle_request,
            "each request of httpx.Client, redirects one by one",
            late=True,
        ),
        Patch(
            "httpcore:AsyncConnectionPool.handle_async_request",
            wrappers.handle_async_request,
            "each request of httpx.AsyncClient",
            late=True,
        ),
    ]


class _Wrappers(Wrappers):
    def handle_request(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``ConnectionPool.handle_request``."""

        def handle_request(pool: Any, request: Any) -> Any:
            return original(pool, self._told(pool, request))

        return handle_request

    def handle_async_request(self, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Wrap ``AsyncConnectionPool.handle_async_request``."""

        async def handle_async_request(pool: Any, request: Any) -> Any:
            return await original(pool, self._told(pool, request))

        return handle_async_request

    def _told(self, pool: Any, request: Any) -> Any:
        """Return the request to send: a copy if its header is to be another."""
        outgoing = self._propagation.outgoing
        if outgoing is None:
            return request
        try:
            before = b",".join(value for name, value in request.headers if name.lower() == _NAME)
            header = outgoing.header(destination(pool, request), before.decode("latin-1"))
            if header is None:
                return request
            others = [pair for pair in request.headers if pair[0].lower() != _NAME]
            told = copy.copy(request)
            told.headers = [*others, (_NAME, header.encode("latin-1"))] if header else others
        except faults() as error:  # the call goes on
            destination_unknown(error)
            return request
        return told


def destination(pool: Any, request: Any) -> Destination:
    url = request.url
    proxy = getattr(getattr(pool, "_proxy", None), "url", None) or getattr(pool, "_proxy_url", None)
    behind = None
    if proxy is not None:
        via = Destination.of(proxy.scheme.decode(), proxy.host.decode("ascii"), proxy.port)
        behind = (via.host, via.port)
    return Destination.of(url.scheme.decode(), url.host.decode("ascii"), url.port, behind)
