"""What is seen of a request while it is answered: status, headers, sizes, and copies of its bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from otel_audit.http.copies import Copy
from otel_audit.http.requests.rules import RequestRules
from otel_audit.interruptions import faults

if TYPE_CHECKING:
    from otel_audit.http.contents import Body, Contents

BodyOf = Callable[["Contents", int, Sequence[str]], "Body | None"]
"""Given the most that may be recorded and the content types, returns a body; None if there is none."""


class Seen:
    """What has been seen of one request.

    Attributes:
        attributes: more of its record.
        exception: of the exception that nobody handled.
        headers: those of the answer, in order.
        request_copy, response_copy: what has passed by of the bodies, where it is copied.
        request_body, response_body: return the bodies when it is over, where they are known otherwise.
        response_headers: by lower-case name.
        response_size: bytes of the answer's body.
    """

    __slots__ = (
        "attributes",
        "exception",
        "headers",
        "request_body",
        "request_copy",
        "response_body",
        "response_copy",
        "response_headers",
        "response_size",
        "rules",
        "status",
    )

    def __init__(self, rules: RequestRules) -> None:
        self.rules = rules
        self.attributes: dict[str, Any] = {}
        self.exception: dict[str, str] = {}
        self.headers: list[tuple[str, str]] = []
        self.status: int | None = None
        self.request_copy: Copy | None = None
        self.response_copy: Copy | None = None
        self.request_body: BodyOf | None = None
        self.response_body: BodyOf | None = None
        self.response_headers: dict[str, str] = {}
        self.response_size: int | None = None

    def answered(self, status: int | None, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Note the status and the headers of the answer."""
        self.status = status
        if headers or self.headers:
            self.headers = list(headers)
            self.response_headers = {name.lower(): value for name, value in self.headers}

    def response_header(self, name: str) -> str:
        """Return a header of the answer by its lower-case name; empty if there is none."""
        return self.response_headers.get(name, "")

    def sent(self, piece: Any, *, streams: bool = False) -> None:
        """Note a piece of the answer, and keep it if the whole is wanted. Never raises.

        Args:
            piece: bytes.
            streams: more may follow; then it is only kept if the answer said its length.
        """
        try:
            self.response_size = (self.response_size or 0) + len(piece)
            if streams and "content-length" not in self.response_headers:
                self.response_copy = None
            if self.response_copy is not None:
                self.response_copy.take(piece)
        except faults() as fault:  # the server says what is wrong with it
            self.rules.failures.note("message", fault)
