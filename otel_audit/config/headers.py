"""What HTTP can carry as a header. No message shows a value: most headers of ours are secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from otel_audit.config.model import SinkConfig

_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SET_BY_US: Final = frozenset(
    {"connection", "content-encoding", "content-length", "content-type", "transfer-encoding"}
)


def is_header_name(name: str) -> bool:
    """Say whether a text is a name that HTTP takes (RFC 9110, 5.1)."""
    return re.fullmatch(_NAME, name) is not None


def value_problem(value: str) -> str:
    """Return what keeps a text from being the value of a header (RFC 9110, 5.5); empty if nothing does."""
    for position, character in enumerate(value, 1):
        if character in "\r\n":
            what = "a line break"
        elif "\ud800" <= character <= "\udfff":
            what = "half of a surrogate pair"
        elif (character < " " and character != "\t") or "\x7f" <= character <= "\x9f":
            what = "a control character"
        elif character > "\xff":
            what = "a character outside Latin-1"
        else:
            continue
        return f"has {what} at position {position}, which no HTTP header can carry"
    return "starts or ends with a space, which HTTP strips" if value != value.strip() else ""


def sink_header_problems(sink: SinkConfig) -> Iterator[str]:
    """Yield a message for each header of the sink that cannot be sent."""
    problem = value_problem(sink.token)
    if problem:
        yield f"sink.token (OTEL_AUDIT_SINK_TOKEN) {problem}"
    for number, (name, value) in enumerate(sink.headers.items(), 1):
        problem = _header_problem(name, value, number)
        if problem:
            yield f"sink.headers (OTEL_AUDIT_SINK_HEADERS): {problem}"


def sink_headers(sink: SinkConfig) -> dict[str, str]:
    """Return the headers of the configuration that can be sent; the token's wins over one of that name."""
    headers = {name: value for name, value in sink.headers.items() if not _header_problem(name, value)}
    if sink.token and not value_problem(sink.token):
        headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
        headers["Authorization"] = f"Bearer {sink.token}"
    return headers


def _header_problem(name: str, value: str, number: int = 0) -> str:
    if not is_header_name(name):  # not shown: whoever wrote `authorization: Bearer …` wrote a secret
        return f"header number {number} has no valid name: write name=value"
    if name.lower() in _SET_BY_US:
        return f"{name!r} is set by otel-audit and cannot be configured"
    problem = value_problem(value)
    return f"the value of {name!r} {problem}" if problem else ""
