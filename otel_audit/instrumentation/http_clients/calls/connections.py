"""``http.client``: a request as it is written to its connection, until there is a response or none."""

from __future__ import annotations

import errno
from collections.abc import Callable
from http.client import ResponseNotReady
from typing import TYPE_CHECKING, Any, Final

from otel_audit.instrumentation.http_clients.calls.attached import attach, call_of, detach
from otel_audit.instrumentation.http_clients.calls.responses import answered
from otel_audit.instrumentation.http_clients.standard_library import destination
from otel_audit.instrumentation.patching import Patch
from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from otel_audit.http.outgoing.call import Call
    from otel_audit.http.outgoing.calls import Calls

_LENGTH: Final = "content-length"
_TOKENS: Final = frozenset({"baggage"})
"""Headers that are not kept: a signed context is as good as a password while it lasts."""
_BROKEN: Final = frozenset({errno.EPIPE, errno.EPROTOTYPE, errno.ECONNRESET})


def table(calls: Calls) -> list[Patch]:
    """List what is wrapped of connections."""
    connection = "http.client:HTTPConnection"
    wrappers = _Wrappers(calls)
    return [
        Patch(f"{connection}.putrequest", wrappers.putrequest, "a call begins", late=True),
        Patch(
            f"{connection}.putheader",
            wrappers.putheader,
            "its headers; one is the size of its body",
            late=True,
        ),
        Patch(f"{connection}.endheaders", wrappers.endheaders, "it is sent, or cannot be", late=True),
        Patch(f"{connection}.send", wrappers.send, "its body is sent, or cannot be", late=True),
        Patch(f"{connection}.getresponse", wrappers.getresponse, "it is answered, or is not", late=True),
        Patch(f"{connection}.close", wrappers.close, "it is given up", late=True),
    ]


def begun(calls: Calls, connection: Any, method: str, url: str) -> Call | None:
    """Begin with a call on a connection; None if it is not recorded."""
    try:
        to = destination(connection, url)
        return calls.begin(str(method), to.scheme, to.host, to.port, str(url))
    except faults() as fault:  # the call goes on
        calls.note(fault)
        return None


class _Wrappers:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def putrequest(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``HTTPConnection.putrequest``."""

        def putrequest(connection: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
            result = original(connection, method, url, *args, **kwargs)
            before = call_of(connection)
            if before is not None:
                if before.awaited:  # urllib3's, which begins before it connects
                    before.awaited = False
                    return result
                detach(connection)
                before.end()
            call = begun(self._calls, connection, method, url)
            if call is not None:
                attach(connection, call)
            return result

        return putrequest

    def putheader(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``HTTPConnection.putheader``."""

        def putheader(connection: Any, header: Any, *values: Any) -> Any:
            call = call_of(connection)
            if call is not None and (call.takes_request or len(header) == len(_LENGTH)):
                try:
                    _note_header(call, header, values)
                except faults():  # whatever is wrong with it, the original will say
                    pass
            return original(connection, header, *values)

        return putheader

    def endheaders(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``HTTPConnection.endheaders``, which sends the request and connects before it."""

        def endheaders(connection: Any, message_body: Any = None, **kwargs: Any) -> Any:
            call = call_of(connection)
            if call is None:
                return original(connection, message_body, **kwargs)
            if message_body is not None:
                call.sent(message_body)
            return _sending(connection, call, original, message_body, **kwargs)

        return endheaders

    def send(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``HTTPConnection.send``."""

        def send(connection: Any, data: Any) -> Any:
            call = call_of(connection)
            if call is None or call.busy or call.awaited:
                return original(connection, data)
            if call.request_size is not None and not call.streams:
                call.sent(data)
            return _sending(connection, call, original, data)

        return send

    def getresponse(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``HTTPConnection.getresponse``."""

        def getresponse(connection: Any, *args: Any, **kwargs: Any) -> Any:
            call = detach(connection)
            if call is None:
                return original(connection, *args, **kwargs)
            try:
                response = original(connection, *args, **kwargs)
            except ResponseNotReady:  # asked too early: the request is still being written
                attach(connection, call)
                raise
            except BaseException as error:
                call.end(error)
                raise
            try:
                answered(response, call)
            except faults() as fault:
                self._calls.note(fault)
                call.end()
            return response

        return getresponse

    def close(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``HTTPConnection.close``."""

        def close(connection: Any) -> Any:
            call = call_of(connection)
            if call is None or call.busy or call.awaited:  # who is busy with it sees why
                return original(connection)
            detach(connection)
            try:
                return original(connection)
            finally:
                call.end()

        return close


def _sending(connection: Any, call: Call, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    call.busy = True
    try:
        return original(connection, *args, **kwargs)
    except OSError as error:
        if call.recovers and error.errno in _BROKEN:  # there may be a response all the same
            call.held = error
        else:
            detach(connection)
            call.end(error)
        raise
    except BaseException as error:
        detach(connection)
        call.end(error)
        raise
    finally:
        call.busy = False


def _note_header(call: Call, header: Any, values: tuple[Any, ...]) -> None:
    name = _text(header)
    lower = name.lower()
    if lower == _LENGTH and len(values) == 1:
        length = _text(values[0])
        if length.isdecimal() and len(length) < 20:
            call.request_size = int(length)
    if call.takes_request and lower not in _TOKENS:
        call.request_headers.append((name, ", ".join(map(_text, values))))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return value.decode("latin-1") if isinstance(value, bytes) else str(int(value))
