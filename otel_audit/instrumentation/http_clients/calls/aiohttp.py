"""``aiohttp``: each request from where it waits for a connection until its response has been read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from otel_audit.instrumentation.http_clients.calls.attached import attach, detach
from otel_audit.instrumentation.patching import Patch
from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from otel_audit.http.outgoing.call import Call
    from otel_audit.http.outgoing.calls import Calls

_Method = Callable[..., Awaitable[Any]]


def table(calls: Calls) -> list[Patch]:
    """List what is wrapped of aiohttp."""
    request, response = "aiohttp.client_reqrep:ClientRequest", "aiohttp.client_reqrep:ClientResponse"
    wrappers = _Wrappers(calls)
    return [
        Patch("aiohttp.connector:BaseConnector.connect", wrappers.connect, "a call begins", late=True),
        Patch(f"{request}.send", wrappers.send, "it is sent, or cannot be", late=True),
        Patch(f"{response}.start", wrappers.start, "it is answered, or is not", late=True),
        Patch(f"{response}.read", wrappers.read, "what the application reads", late=True),
        Patch(f"{response}.release", _leaving, "the application reads no more", late=True),
        Patch(f"{response}.close", _leaving, "the application reads no more", late=True),
    ]


class _Wrappers:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def connect(self, original: _Method) -> _Method:
        """Wrap ``BaseConnector.connect``."""

        async def connect(connector: Any, req: Any, *args: Any, **kwargs: Any) -> Any:
            call = self._begun(req)
            if call is None:
                return await original(connector, req, *args, **kwargs)
            with call:
                connection = await original(connector, req, *args, **kwargs)
            attach(req, call)
            return connection

        return connect

    def send(self, original: _Method) -> _Method:
        """Wrap ``ClientRequest.send``."""

        async def send(request: Any, *args: Any, **kwargs: Any) -> Any:
            call = detach(request)
            if call is None:
                return await original(request, *args, **kwargs)
            with call:
                response = await original(request, *args, **kwargs)
            try:
                _note_request(call, request)
                attach(response, call)
            except faults() as fault:
                self._calls.note(fault)
                call.end()
            return response

        return send

    def start(self, original: _Method) -> _Method:
        """Wrap ``ClientResponse.start``."""

        async def start(response: Any, *args: Any, **kwargs: Any) -> Any:
            call = detach(response)
            if call is None:
                return await original(response, *args, **kwargs)
            with call:
                result = await original(response, *args, **kwargs)
            try:
                call.answered(response.status, list(response.headers.items()))
                if not call.is_over:
                    attach(response, call)
                    if not call.takes_response:
                        response.content.on_eof(_ending(response))
            except faults() as fault:
                self._calls.note(fault)
                call.end()
            return result

        return start

    def read(self, original: _Method) -> _Method:
        """Wrap ``ClientResponse.read``, which ``text`` and ``json`` call."""

        async def read(response: Any) -> Any:
            call = detach(response)  # what it calls, should it fail, does not say why
            if call is None:
                return await original(response)
            with call:
                body = await original(response)
            try:
                call.decoded = True
                call.received(body)
                call.received_size = response.content.total_bytes
            except faults() as fault:
                self._calls.note(fault)
            call.end()
            return body

        return read

    def _begun(self, request: Any) -> Call | None:
        try:
            url = request.url
            target = url.raw_path_qs
            return self._calls.begin(request.method, url.scheme, url.host or "", url.port or 0, target)
        except faults() as fault:  # the call goes on
            self._calls.note(fault)
            return None


def _ending(response: Any) -> Callable[[], None]:
    """Return what ends the call of a response as soon as all of it has come."""

    def end() -> None:
        call = detach(response)
        if call is not None:
            call.received_size = response.content.total_bytes
            call.end()

    return end


def _leaving(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method of ``ClientResponse`` that leaves it, read or not."""

    def leaving(response: Any) -> Any:
        call = detach(response)
        if call is None:
            return original(response)
        content = response.content
        error = None if content is None else content.exception()
        whole = content is not None and content.is_eof()
        if content is not None:
            call.received_size = content.total_bytes
        try:
            return original(response)
        finally:
            call.end(error, ending="" if whole else "closed")

    return leaving


def _note_request(call: Call, request: Any) -> None:
    call.requested(list(request.headers.items()))
    if call.takes_request:
        body = request.body
        if any(
            kind.__name__ == "BytesPayload" for kind in type(body).__mro__
        ):  # text, JSON and forms as well
            body = vars(body).get("_value")
        call.sent(body)
