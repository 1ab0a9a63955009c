"""One call: a request that is written to a connection, and its response until that has been read or left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, Literal, Self, TypeAlias

from otel_audit.audit_context import Moment
from otel_audit.forks import process_id
from otel_audit.http.copies import Copy
from otel_audit.http.headers import size_in
from otel_audit.policy import Level

Ending: TypeAlias = Literal["", "closed", "open"]
"""How the response ended: read to its end, closed by the application before that, or neither so far."""
_PATIENCE: Final = 10.0
"""Seconds after which a response that is still being read no longer holds up the record of its call."""
_STREAMS: Final = ("text/event-stream", "multipart/x-mixed-replace", "application/grpc")
_TOKENS: Final = frozenset({"baggage"})
"""Headers that are not kept: a signed context is as good as a password while it lasts."""
_clock: Final = time.perf_counter


Text: TypeAlias = str | bytes
Headers: TypeAlias = Sequence[tuple[Text, Text]]
"""Names and values, in any case and either type."""


class Call:
    """A call as its client makes it.

    The client's wrappers say what happens: :meth:`sent`, :meth:`answered`, :meth:`received` for what the
    application reads of the response, :meth:`end`; ``with call:`` ends it if what is done then fails. Nothing
    is read for us. The first end counts; a call that nobody ends is recorded when it is collected.

    Attributes:
        level: the highest level that the policy may still give it.
        target: path and query as they were sent, or the whole URL where a proxy was asked to forward it.
        status: 0 until there is a response.
        started, duration: in seconds; ``started`` by a clock that only counts.
        busy: a wrapper is at work that will see how it ends.
        awaited: its client connects before it writes the request.
        recovers: its client may find a response after it failed to send; ``held`` is that failure.
        intent, record_id: of the record that says it has begun, where a rule asks for one.
        streams: its body is read piece by piece as it is sent.
        received_size: bytes of the response that came.
        response_copy: of what the application reads of it, where that may be recorded.
        is_whole: all of its response has been read.
        decoded: what was received is not compressed any more.
    """

    __slots__ = (
        "__weakref__",
        "_answered",
        "_finish",
        "_once",
        "_pid",
        "awaited",
        "busy",
        "decoded",
        "duration",
        "ending",
        "error",
        "held",
        "host",
        "intent",
        "is_whole",
        "level",
        "limit",
        "method",
        "moment",
        "port",
        "received_size",
        "record_id",
        "recovers",
        "request_body",
        "request_headers",
        "request_size",
        "response_copy",
        "response_headers",
        "response_size",
        "scheme",
        "started",
        "status",
        "streams",
        "target",
    )

    def __init__(
        self,
        finish: Callable[[Call], None],
        level: Level,
        moment: Moment,
        method: str,
        scheme: str,
        host: str,
        port: int,
        target: str,
        limit: int,
    ) -> None:
        self._finish = finish
        self._pid = process_id()
        self._once = [True]
        self._answered = 0.0
        self.busy = self.awaited = self.recovers = self.streams = self.is_whole = self.decoded = False
        self.level = level
        self.limit = limit
        self.moment = moment
        self.method = method
        self.scheme = scheme
        self.host = host
        self.port = port
        self.target = target
        self.started = _clock()
        self.duration = 0.0
        self.status = 0
        self.error = ""
        self.ending: Ending = ""
        self.held: BaseException | None = None
        self.intent: int | None = None
        self.record_id = ""
        self.request_headers: Headers = ()
        self.request_body: bytes | None = None
        self.request_size: int | None = None
        self.response_headers: Headers = ()
        self.response_copy: Copy | None = None
        self.response_size: int | None = None
        self.received_size = 0

    @property
    def takes_request(self) -> bool:
        """Whether headers and body of the request may be recorded."""
        return self.level >= Level.REQUEST

    @property
    def takes_response(self) -> bool:
        """Whether the body of the response is to be copied as the application reads it."""
        return self.response_copy is not None

    @property
    def is_over(self) -> bool:
        """Whether it is recorded."""
        return not self._once

    def requested(self, headers: Headers) -> None:
        """Note the headers that are about to be sent: one has the size of the body."""
        self.request_size = size_in(value_of(headers, "content-length"))
        if self.takes_request:
            self.request_headers = [each for each in headers if _text(each[0]).lower() not in _TOKENS]

    def sent(self, body: object) -> None:
        """Note what was handed over as the body: kept if it is bytes and whole, never read."""
        if isinstance(body, bytes | bytearray | memoryview):
            size = len(body) if not isinstance(body, memoryview) else body.nbytes
            if self.request_size is None:
                self.request_size = size
            if self.takes_request and size == self.request_size:
                self.request_body = bytes(body[: self.limit])

    def answered(self, status: int, headers: Headers) -> None:
        """Note the response: its body is still to be read, unless :meth:`end` follows."""
        self._answered = _clock()
        self.status = status
        self.response_headers = headers
        self.response_size = size_in(value_of(headers, "content-length"))
        if status == 101 or value_of(headers, "content-type").lower().startswith(_STREAMS):
            self.end(ending="open")  # it may go on without an end
        elif self.level >= Level.REQUEST_RESPONSE:
            self.response_copy = Copy(self.limit)

    def received(self, data: bytes | bytearray | memoryview) -> None:
        """Note bytes of the response that the application is being given."""
        self.received_size += len(data)
        if self.response_copy is not None:
            self.response_copy.take(data)
        if _clock() - self._answered > _PATIENCE:
            self.end(ending="open")

    def end(self, error: BaseException | str | None = None, *, ending: Ending = "") -> None:
        """Record the call, unless it has been: as failed with ``error``, or as its status says."""
        try:
            self._once.pop()
        except IndexError:
            return
        if self._pid != process_id():  # a child that was forked meanwhile: the call is its parent's
            return
        self.duration = _clock() - self.started
        error = error or self.held
        if error is not None:
            self.error = error if isinstance(error, str) else type(error).__qualname__
        self.ending = ending
        self._finish(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            self.end(error)

    def __del__(self) -> None:
        """Record a call that was given up without a word."""
        if self._once and not sys.is_finalizing():
            self.end(ending="open")


def value_of(headers: Headers, name: str) -> str:
    """Return the value of a header by its name in lower case; empty if there is none."""
    length = len(name)
    for key, value in headers:
        if len(key) == length and (key if type(key) is str else _text(key)).lower() == name:
            return _text(value)
    return ""


def _text(text: Text) -> str:
    return text if isinstance(text, str) else text.decode("latin-1")
