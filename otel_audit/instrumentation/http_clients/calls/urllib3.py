"""``urllib3``: what happens above ``http.client``: it connects by itself, and reads chunks by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from otel_audit.instrumentation.http_clients.calls.attached import attach, call_of, detach
from otel_audit.instrumentation.http_clients.calls.connections import begun
from otel_audit.instrumentation.patching import Patch

if TYPE_CHECKING:
    from otel_audit.http.outgoing.calls import Calls


def table(calls: Calls) -> list[Patch]:
    """List what is wrapped of urllib3; requests and what is built on it use that."""
    wrappers = _Wrappers(calls)
    pool, tls = (f"urllib3.connectionpool:{name}ConnectionPool" for name in ("HTTP", "HTTPS"))
    response = "urllib3.response:HTTPResponse"
    return [
        Patch(f"{pool}._make_request", wrappers.make_request, "connections that fail, by TLS", late=True),
        Patch(f"{tls}._prepare_proxy", wrappers.prepare_proxy, "proxies that fail", late=True),
        Patch(f"{response}._update_chunk_length", _reading_chunks, "chunks, of which the last", late=True),
        Patch(f"{response}._handle_chunk", _reading_chunks, "what a chunk contains", late=True),
    ]


class _Wrappers:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def make_request(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``HTTPConnectionPool._make_request``: one attempt, of which there may be several."""

        def make_request(pool: Any, conn: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
            call = begun(self._calls, conn, method, url)
            if call is None:
                return original(pool, conn, method, url, *args, **kwargs)
            call.awaited = call.recovers = True
            call.streams = not isinstance(kwargs.get("body"), str | bytes | bytearray)
            attach(conn, call)
            try:
                return original(pool, conn, method, url, *args, **kwargs)
            except BaseException as error:
                if call_of(conn) is call:
                    detach(conn)
                    call.end(error)
                raise

        return make_request

    def prepare_proxy(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``HTTPSConnectionPool._prepare_proxy``, which asks a proxy for a tunnel before any request."""

        def prepare_proxy(pool: Any, conn: Any, *args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return original(pool, conn, *args, **kwargs)
            except BaseException as error:
                call = self._calls.begin("CONNECT", "https", str(pool.host), pool.port or 0, "/")
                if call is not None:
                    call.started = started
                    call.end(error)
                raise

        return prepare_proxy


def _reading_chunks(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method of ``HTTPResponse`` that reads a part of a chunk, past ``http.client``'s response."""

    def reading(response: Any, *args: Any, **kwargs: Any) -> Any:
        below = getattr(response, "_original_response", None)
        call = detach(below)
        if call is None:
            return original(response, *args, **kwargs)
        with call:
            data = original(response, *args, **kwargs)
        if isinstance(data, bytes):
            call.received(data)
        call.is_whole = response.chunk_left == 0
        if not call.is_over:
            attach(below, call)
        return data

    return reading
