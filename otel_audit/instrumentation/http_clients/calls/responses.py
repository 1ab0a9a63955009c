"""``http.client``: a response while the application reads it, also through urllib3."""

from __future__ import annotations

from collections.abc import Callable
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any

from otel_audit.instrumentation.http_clients.calls.attached import CALL, attach
from otel_audit.instrumentation.patching import Patch

if TYPE_CHECKING:
    from otel_audit.http.outgoing.call import Call
    from otel_audit.http.outgoing.calls import Calls


def table(calls: Calls) -> list[Patch]:
    """List what is wrapped of responses; each of these may reach the end."""
    response = "http.client:HTTPResponse"
    why = "what the application reads, and whether it reaches the end"
    return [
        Patch(f"{response}.read", _reading, why, late=True),
        Patch(f"{response}.read1", _reading, why, late=True),
        Patch(f"{response}.readline", _reading, why, late=True),
        Patch(f"{response}.readinto", _reading_into, why, late=True),
        Patch(f"{response}.close", _closing, "the application reads no more", late=True),
    ]


def answered(response: Any, call: Call) -> None:
    """Go on with a call as its response is read; it ends here if there is nothing to read."""
    headers = list(response.headers.raw_items())
    call.answered(response.status, headers)
    if not isinstance(response, HTTPResponse):  # a class of the application's own
        call.end(ending="open")
        return
    if response.length == 0 or response.isclosed():
        call.end()
    elif not call.is_over:
        attach(response, call)


def _reading(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method of ``HTTPResponse`` that returns bytes."""

    def reading(response: Any, *args: Any, **kwargs: Any) -> Any:
        call = response.__dict__.pop(CALL, None)  # what the method itself calls must not be noted once more
        if call is None:
            return original(response, *args, **kwargs)
        with call:
            data = original(response, *args, **kwargs)
        call.received(data)
        _go_on(response, call)
        return data

    return reading


def _reading_into(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``HTTPResponse.readinto``."""

    def readinto(response: Any, buffer: Any) -> Any:
        call = response.__dict__.pop(CALL, None)
        if call is None:
            return original(response, buffer)
        with call:
            size = original(response, buffer)
        call.received(memoryview(buffer).cast("B")[:size])
        _go_on(response, call)
        return size

    return readinto


def _closing(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``HTTPResponse.close``."""

    def close(response: Any) -> Any:
        call = response.__dict__.pop(CALL, None)
        if call is None:
            return original(response)
        unread = not (response.isclosed() or response.length == 0 or call.is_whole)
        try:
            return original(response)
        finally:
            call.end(ending="closed" if unread else "")

    return close


def _go_on(response: Any, call: Call) -> None:
    """End a call whose response has been read; it waits for more otherwise."""
    if response.isclosed() or response.length == 0:
        # The end of the connection ends the file, whatever the header promised.
        call.end("IncompleteRead" if response.length and not response.chunked else None)
    elif not call.is_over:
        attach(response, call)
