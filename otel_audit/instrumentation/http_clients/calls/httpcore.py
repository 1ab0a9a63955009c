"""``httpcore``: what httpx sends its requests with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from otel_audit.instrumentation.http_clients.httpcore import destination
from otel_audit.instrumentation.patching import Patch
from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from otel_audit.http.outgoing.call import Call
    from otel_audit.http.outgoing.calls import Calls


def table(calls: Calls) -> list[Patch]:
    """List what is wrapped of httpcore; pools that go through a proxy inherit it."""
    wrappers = _Wrappers(calls)
    return [
        Patch(
            "httpcore:ConnectionPool.handle_request",
            wrappers.handle_request,
            "each request of httpx.Client, and its response",
            late=True,
        ),
        Patch(
            "httpcore:AsyncConnectionPool.handle_async_request",
            wrappers.handle_async_request,
            "each request of httpx.AsyncClient, and its response",
            late=True,
        ),
    ]


class _Wrappers:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def handle_request(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``ConnectionPool.handle_request``."""

        def handle_request(pool: Any, request: Any) -> Any:
            call = self._begun(pool, request)
            if call is None:
                return original(pool, request)
            with call:
                response = original(pool, request)
            self._answered(call, request, response, _Stream)
            return response

        return handle_request

    def handle_async_request(self, original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Wrap ``AsyncConnectionPool.handle_async_request``."""

        async def handle_async_request(pool: Any, request: Any) -> Any:
            call = self._begun(pool, request)
            if call is None:
                return await original(pool, request)
            with call:
                response = await original(pool, request)
            self._answered(call, request, response, _AsyncStream)
            return response

        return handle_async_request

    def _begun(self, pool: Any, request: Any) -> Call | None:
        try:
            to = destination(pool, request)
            method, target = request.method.decode("latin-1"), request.url.target.decode("latin-1")
            call = self._calls.begin(method, to.scheme, to.host, to.port, target)
            if call is None:
                return None
            call.requested(request.headers)
            if call.takes_request:
                call.sent(_content(request.stream))
        except faults() as fault:  # the call goes on
            self._calls.note(fault)
            return None
        return call

    def _answered(self, call: Call, request: Any, response: Any, wrapped: Callable[[Any, Call], Any]) -> None:
        """Go on with a call as its response is read; it ends here if there is nothing to read."""
        try:
            call.answered(response.status, response.headers)
            if request.method == b"HEAD" or response.status in (204, 304) or call.response_size == 0:
                call.end()
            elif not call.is_over:
                response.stream = wrapped(response.stream, call)
        except faults() as fault:
            self._calls.note(fault)
            call.end()


class _Stream:
    """A response's stream as it was, which says what is read of it."""

    def __init__(self, stream: Any, call: Call) -> None:
        self._stream = stream
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        call = self._call
        try:
            for part in self._stream:
                call.received(part)
                yield part
        except GeneratorExit:  # left before the end; close() says so
            raise
        except BaseException as error:
            call.end(error)
            raise
        call.end()

    def close(self) -> None:
        try:
            if hasattr(self._stream, "close"):
                self._stream.close()
        finally:
            self._call.end(ending="closed")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _AsyncStream:
    """The same, read asynchronously."""

    def __init__(self, stream: Any, call: Call) -> None:
        self._stream = stream
        self._call = call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        call = self._call
        try:
            async for part in self._stream:
                call.received(part)
                yield part
        except GeneratorExit:
            raise
        except BaseException as error:
            call.end(error)
            raise
        call.end()

    async def aclose(self) -> None:
        try:
            if hasattr(self._stream, "aclose"):
                await self._stream.aclose()
        finally:
            self._call.end(ending="closed")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _content(stream: Any) -> bytes | None:
    """Return the body of a request that is bytes already: httpx's and httpcore's ``ByteStream`` have it."""
    if type(stream).__name__ != "ByteStream":
        return None
    held = vars(stream)
    content = held.get("_stream", held.get("_content"))
    return content if isinstance(content, bytes) else None
