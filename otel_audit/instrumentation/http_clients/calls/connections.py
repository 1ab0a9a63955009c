"""``http.client``: a request as it is written to its connection, until there is a response or none."""

from __future__ import annotations

import errno
from collections.abc import Callable
from http.client import ResponseNotReady
from typing import TYPE_CHECKING, Any, Final

from otel_audit.instrumentation.http_clients.calls.attached import CALL, attach, call_of, detach
from otel_audit.instrumentation.http_clients.calls.responses import answered
from otel_audit.instrumentation.http_clients.standard_library import destination
from otel_audit.instrumentation.patching import Patch
from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from otel_audit.http.outgoing.call import Call
    from otel_audit.http.outgoing.calls import Calls

_BROKEN: Final = frozenset({errno.EPIPE, errno.EPROTOTYPE, errno.ECONNRESET})


def table(calls: Calls) -> list[Patch]:
    """List what is wrapped of connections."""
    connection = "http.client:HTTPConnection"
    wrappers = _Wrappers(calls)
    return [
        Patch(f"{connection}.putrequest", wrappers.putrequest, "a call begins", late=True),
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

    def endheaders(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``HTTPConnection.endheaders``, which sends the request and connects before it."""

        def endheaders(connection: Any, message_body: Any = None, **kwargs: Any) -> Any:
            call = connection.__dict__.get(CALL)
            if call is None:
                return original(connection, message_body, **kwargs)
            try:
                call.requested(_headers(connection))
                if message_body is not None:
                    call.sent(message_body)
            except faults() as fault:
                self._calls.note(fault)
            return _sending(connection, call, original, message_body, **kwargs)

        return endheaders

    def send(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``HTTPConnection.send``."""

        def send(connection: Any, data: Any) -> Any:
            call = connection.__dict__.get(CALL)
            if call is None or call.busy or call.awaited:
                return original(connection, data)
            if call.request_size is not None and not call.streams:
                call.sent(data)
            return _sending(connection, call, original, data)

        return send

    def getresponse(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap ``HTTPConnection.getresponse``."""

        def getresponse(connection: Any, *args: Any, **kwargs: Any) -> Any:
            call = connection.__dict__.pop(CALL, None)
            if call is None:
                return original(connection, *args, **kwargs)
            try:
                response = original(connection, *args, **kwargs)
            except (ResponseNotReady, TypeError):  # too early, or as urllib3 1.26 asks Python 2 at first
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
            call = connection.__dict__.get(CALL)
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


def _headers(connection: Any) -> list[tuple[bytes, bytes]]:
    """Return the headers that are about to be sent; the request's line stands before them.

    The buffer is private, and has been the same since Python 2. Every header would have to be looked at by a
    wrapper of its own otherwise.
    """
    found = []
    for line in getattr(connection, "_buffer", ())[1:]:
        name, colon, value = line.partition(b": ")
        if colon:
            found.append((name, value))
    return found
