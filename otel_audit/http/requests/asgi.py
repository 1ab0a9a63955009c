"""A request to an ASGI application, recorded: what passes through ``receive`` and ``send``.

A body that streams is not copied, whoever sends it, and no message is held back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from otel_audit import semconv
from otel_audit.http.copies import Copy
from otel_audit.http.headers import asgi_headers
from otel_audit.http.requests.recorder import RequestRecords
from otel_audit.http.requests.recording import RequestRecording
from otel_audit.interruptions import faults

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

_MAPPINGS: Final = (dict, MutableMapping)
_UPGRADED: Final = 101
_REFUSED: Final = 403
_BYTES: Final = (bytes, bytearray, memoryview)


class ASGIRecords(RequestRecords):
    """Records the requests and connections of ASGI applications."""

    async def serve(
        self,
        recording: RequestRecording,
        application: Callable[..., Awaitable[None]],
        asgi: Any,
        receive: _Receive,
        send: _Send,
    ) -> None:
        """Have ``application`` answer, and record it when it has."""
        kind = _Connection if asgi["type"] == "websocket" else _Exchange
        messages = kind(self, recording, receive, send)
        if self.starts:
            recording.begin()
        try:
            await application(asgi, messages.receive, messages.send)
        except BaseException as error:
            recording.failed(error)
            raise
        finally:
            recording.end()


class _Messages:
    """What passes between a server and an application; a fault of ours lets every message pass."""

    def __init__(
        self, records: RequestRecords, recording: RequestRecording, receive: _Receive, send: _Send
    ) -> None:
        self.records = records
        self.recording = recording
        self._receive = receive
        self._send = send
        self.listens = False

    @property
    def receive(self) -> _Receive:
        """What the application is given to receive by."""
        return self._receiving if self.listens else self._receive

    async def _receiving(self) -> _Message:
        message = await self._receive()
        try:
            self.came(message)
        except faults() as fault:  # a server's or a middleware's message may be anything
            self.records.failures.note("message", fault)
        return message

    def send(self, message: _Message) -> Awaitable[None]:
        """Note a message of the answer, and send it."""
        try:
            if isinstance(message, _MAPPINGS):
                self.goes(message)
        except faults() as fault:
            self.records.failures.note("message", fault)
        return self._send(message)

    def came(self, message: _Message) -> None:
        """Note a message of the client."""
        raise NotImplementedError

    def goes(self, message: _Message) -> None:
        """Note a message of the application."""
        raise NotImplementedError


class _Exchange(_Messages):
    """The messages of a request and its answer."""

    def __init__(
        self, records: RequestRecords, recording: RequestRecording, receive: _Receive, send: _Send
    ) -> None:
        super().__init__(records, recording, receive, send)
        if recording.wants_request_copy():
            recording.request_copy = Copy(records.copied)
            self.listens = True

    def came(self, message: _Message) -> None:
        piece = message.get("body")
        copy = self.recording.request_copy
        if copy is not None and isinstance(piece, _BYTES):
            copy.take(piece)

    def goes(self, message: _Message) -> None:
        kind = message.get("type")
        if kind == "http.response.body":
            self._goes_on(message)
        elif kind == "http.response.start":
            self._starts(message)

    def _starts(self, message: _Message) -> None:
        headers: Any = message.get("headers")
        # Any iterable is allowed; what can be gone through once only is the server's.
        wanted = isinstance(headers, list | tuple) and self.recording.wants_response
        pairs = asgi_headers(headers) if wanted else []
        status = message.get("status")
        self.recording.answered(int(status) if isinstance(status, int) else None, pairs)
        self.recording.response_size = 0

    def _goes_on(self, message: _Message) -> None:
        piece = message.get("body", b"")
        if isinstance(piece, _BYTES):
            self.recording.sent(piece, streams=bool(message.get("more_body", False)))


class _Connection(_Messages):
    """The messages of a websocket connection: nothing is kept of what is said in it."""

    def __init__(
        self, records: RequestRecords, recording: RequestRecording, receive: _Receive, send: _Send
    ) -> None:
        super().__init__(records, recording, receive, send)
        self._is_accepted = False
        self.listens = True

    def came(self, message: _Message) -> None:
        if message.get("type") == "websocket.disconnect":
            self._closed(message)

    def goes(self, message: _Message) -> None:
        kind = message.get("type")
        if kind == "websocket.accept":
            self._is_accepted = True
            self.recording.answered(_UPGRADED, asgi_headers(message.get("headers") or ()))
        elif kind == "websocket.close":
            if self._is_accepted:
                self._closed(message)
            else:
                self.recording.answered(_REFUSED)  # what the server answers then
        elif kind == "websocket.http.response.start":
            self.recording.answered(message.get("status"), asgi_headers(message.get("headers") or ()))

    def _closed(self, message: _Message) -> None:
        code = message.get("code")
        if isinstance(code, int):
            self.recording.attributes.setdefault(semconv.CLOSE_CODE, code)
