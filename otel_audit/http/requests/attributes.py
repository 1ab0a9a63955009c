"""The attributes of a record of a request, by level."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any, Final

from otel_audit import semconv
from otel_audit.http.copies import Copy
from otel_audit.http.headers import size_in
from otel_audit.http.requests.asked import Asked
from otel_audit.http.requests.bodies import sent_body
from otel_audit.http.requests.marks import Marks
from otel_audit.http.requests.rules import RequestRules
from otel_audit.http.requests.seen import BodyOf, Seen
from otel_audit.interruptions import faults
from otel_audit.notes import Notes
from otel_audit.policy import Decision, Level

_LONGEST_HOST: Final = 255


def host_asked_for(asked: Asked) -> dict[str, Any]:
    """Return the host that the client asks for, as it says it."""
    host, port = _host(asked.header("host")[:_LONGEST_HOST])
    if not host:
        return {}
    return (
        {semconv.SERVER_ADDRESS: host, semconv.SERVER_PORT: port} if port else {semconv.SERVER_ADDRESS: host}
    )


def asked_for(found: dict[str, Any], rules: RequestRules, asked: Asked) -> None:
    """Add what was asked for: known from the beginning."""
    found[semconv.SCHEME] = asked.scheme()
    if query := asked.query():
        found[semconv.QUERY] = rules.contents.query(query)


def answer(found: dict[str, Any], seen: Seen, asked: Asked) -> None:
    """Add how it was answered, without headers and bodies."""
    if seen.attributes:
        found |= seen.attributes
    if seen.status is not None:
        found[semconv.STATUS_CODE] = seen.status
    size = size_in(asked.header("content-length"))
    if size is None and seen.request_copy is not None and seen.request_copy.size:
        size = seen.request_copy.size
    if size is not None:
        found[semconv.REQUEST_SIZE] = size
    if seen.response_size is not None:
        found[semconv.RESPONSE_SIZE] = seen.response_size
    if seen.exception:
        found |= seen.exception


def headers_and_bodies(
    found: dict[str, Any],
    seen: Seen,
    asked: Asked,
    level: Level,
    decision: Decision,
    marks: Marks,
    notes: Notes | None,
) -> None:
    """Add the headers and bodies that are recorded at ``level``."""
    rules = seen.rules
    hidden = not decision.bodies or bool(marks.hide_body)
    made: dict[str, Any] = {}
    if level >= Level.REQUEST:
        made |= _headers(rules, semconv.REQUEST_HEADER, asked.headers())
        if not hidden and not (notes is not None and notes.hide_request_body):
            body = seen.request_body or _copied(seen.request_copy, asked.header)
            made |= _body(rules, "request", body, rules.request_limit(decision), decision)
    if level >= Level.REQUEST_RESPONSE:
        made |= _headers(rules, semconv.RESPONSE_HEADER, seen.headers)
        if not hidden and not (notes is not None and notes.hide_response_body):
            body = seen.response_body or _copied(seen.response_copy, seen.response_header)
            made |= _body(rules, "response", body, rules.response_limit(decision), decision)
    found |= made


def _headers(rules: RequestRules, prefix: str, headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {f"{prefix}{name}": value for name, value in rules.contents.headers(headers).items()}


def _copied(copy: Copy | None, header: Callable[[str], str]) -> BodyOf | None:
    return None if copy is None else partial(sent_body, copy, header)


def _body(
    rules: RequestRules, which: str, body_of: BodyOf | None, limit: int, decision: Decision
) -> dict[str, Any]:
    """Return what is recorded of a body; a fault costs this body only."""
    types = rules.types(decision)
    if body_of is None or not limit or not types:
        return {}
    try:
        body = body_of(rules.contents, limit, types)
    except faults() as fault:
        rules.failures.report("body", fault)
        return {}
    return {} if body is None else body.attributes(which)


@lru_cache(maxsize=256)
def _host(header: str) -> tuple[str, int]:
    """Split what a client says it asks for; the port is 0 where none is named."""
    name, colon, port = header.rpartition(":")
    if colon and port.isascii() and port.isdecimal() and len(port) <= 5 and not name.endswith(":"):
        return name.strip("[]"), int(port) if int(port) <= 65535 else 0
    return header.strip("[]"), 0
