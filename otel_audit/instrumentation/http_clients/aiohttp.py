"""``aiohttp``: each request as it is written to its connection, below redirects, retries and middlewares."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from otel_audit.instrumentation.http_clients.wrapping import Wrappers, destination_unknown
from otel_audit.instrumentation.patching import Patch
from otel_audit.interruptions import faults
from otel_audit.propagation.outgoing import HEADER, Destination

if TYPE_CHECKING:
    from otel_audit.instrumentation.http_clients.wrapping import Propagation


def table(propagation: Propagation) -> list[Patch]:
    """List what is wrapped of aiohttp."""
    return [
        Patch(
            "aiohttp.client_reqrep:ClientRequest.send",
            _Wrappers(propagation).send,
            "each request, redirects one by one",
            late=True,
        )
    ]


class _Wrappers(Wrappers):
    def send(self, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Wrap ``ClientRequest.send``."""

        async def send(request: Any, /, *args: Any, **kwargs: Any) -> Any:
            header = self._header(request)
            if header is None:
                return await original(request, *args, **kwargs)
            # Responses and exceptions show the headers of the request, so they are put back once written.
            headers = request.headers
            before = headers.popall(HEADER, [])
            if header:
                headers[HEADER] = header
            try:
                return await original(request, *args, **kwargs)
            finally:
                headers.popall(HEADER, None)
                headers.extend((HEADER, value) for value in before)

        return send

    def _header(self, request: Any) -> str | None:
        """Return the header to send; None if it is to stay as it is."""
        outgoing = self._propagation.outgoing
        if outgoing is None or request.method == "CONNECT":  # read by the proxy, for a request that follows
            return None
        try:
            before = ",".join(request.headers.getall(HEADER, ()))
            return outgoing.header(_destination(request), before)
        except faults() as error:  # the call goes on
            destination_unknown(error)
            return None


def _destination(request: Any) -> Destination:
    url, proxy = request.url, request.proxy
    behind = None if proxy is None else (proxy.host or "", proxy.port or 0)
    return Destination.of(url.scheme, url.host or "", url.port, behind)
