"""What a record says of a call: its attributes, by level."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from otel_audit import semconv
from otel_audit.config.sections.outgoing import OutgoingConfig
from otel_audit.http.contents import Contents
from otel_audit.http.contents.bodies.content_encoding import decoded
from otel_audit.http.outgoing.call import Call, Headers, value_of
from otel_audit.interruptions import faults
from otel_audit.pipeline.failures import Failures
from otel_audit.policy import Decision, Level
from otel_audit.redaction.redactor import Redactor
from otel_audit.redaction.text.patterns import SMALLEST_CARD

EVENT: Final = "http.client.request"
_LONG: Final = 200
"""Characters of what is asked for; shorter ones are likely to be asked for again."""
_MEASURED: Final = (
    *(semconv.DURATION, semconv.STATUS_CODE, semconv.REQUEST_SIZE, semconv.RESPONSE_SIZE),
    semconv.RESPONSE_STATE,
)
PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class CallParts:
    """Makes the attributes of calls.

    Args:
        section: says how much of a body is recorded where no rule does.
        redactor: the rules of what may be shown.
        kept: the most bytes of a body that a call keeps.
        failures: is told of every fault of ours.
    """

    def __init__(self, section: OutgoingConfig, redactor: Redactor, kept: int, failures: Failures) -> None:
        self._section = section
        self._contents = Contents(redactor)
        self._redactor = redactor
        self._known = lru_cache(maxsize=256)(self._redacted)
        # Numbers need no look for secrets, unless they are large or a rule knows their names.
        self._has_rules = redactor.at("queries") is not redactor or any(
            redactor.names.decide(name) != "clean" for name in _MEASURED
        )
        self._kept = kept
        self._failures = failures

    def asked(self, call: Call) -> dict[str, Any]:
        """Return what is known of a call as it begins."""
        return self._asked(call.method, _url(call), call.host, call.port)

    def _asked(self, method: str, url: str, host: str, port: int) -> dict[str, Any]:
        return {
            semconv.METHOD: method,
            semconv.URL: self._contents.url(url),
            semconv.SERVER_ADDRESS: host,
            semconv.SERVER_PORT: port,
        }

    def _redacted(self, method: str, url: str, host: str, port: int) -> dict[str, Any]:
        """Return the same without secrets, as a record would have it."""
        asked = self._asked(method, url, host, port)
        return {name: self._redactor.field(name, value) for name, value in asked.items()}

    def all(self, call: Call, decision: Decision) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what is recorded of a call that is over, and what of it is redacted already."""
        found, shown = self._metadata(call)
        if decision.level >= Level.REQUEST:
            self._add_request(found, shown, call, decision)
        if decision.level >= Level.REQUEST_RESPONSE:
            self._add_response(found, shown, call, decision)
        return found, shown

    def _metadata(self, call: Call) -> tuple[dict[str, Any], dict[str, Any]]:
        asked = (call.method, _url(call), call.host, call.port)
        size = call.received_size or call.response_size
        measured: dict[str, Any] = {semconv.DURATION: round(call.duration, 6)}
        if call.status:
            measured[semconv.STATUS_CODE] = call.status
        if call.request_size is not None:
            measured[semconv.REQUEST_SIZE] = call.request_size
        if size is not None:
            measured[semconv.RESPONSE_SIZE] = size
        if call.ending and call.status:
            measured[semconv.RESPONSE_STATE] = call.ending
        if self._has_rules or (size or 0) >= SMALLEST_CARD or (call.request_size or 0) >= SMALLEST_CARD:
            return self._asked(*asked) | measured, {}
        text = "".join(asked[:3])
        if len(text) <= _LONG and text.isascii():
            return {}, self._known(*asked) | measured
        return self._asked(*asked), measured

    def _add_request(
        self, found: dict[str, Any], shown: dict[str, Any], call: Call, decision: Decision
    ) -> None:
        headers = call.request_headers
        for name, value in self._contents.headers(headers).items():
            shown[f"{semconv.REQUEST_HEADER}{name}"] = value
        if call.request_body is not None:
            limit = _limit(decision.max_request_body, self._section.max_request_body)
            body, size = call.request_body, call.request_size
            encoding = value_of(headers, "content-encoding")
            self._add_body(found, shown, "request", body, headers, encoding, limit, size, decision)

    def _add_response(
        self, found: dict[str, Any], shown: dict[str, Any], call: Call, decision: Decision
    ) -> None:
        headers = call.response_headers
        for name, value in self._contents.headers(headers).items():
            shown[f"{semconv.RESPONSE_HEADER}{name}"] = value
        copy = call.response_copy
        if copy is not None and copy.size:
            limit = _limit(decision.max_response_body, self._section.max_response_body)
            encoding = "" if call.decoded else value_of(headers, "content-encoding")
            body, size = copy.content, copy.size
            self._add_body(found, shown, "response", body, headers, encoding, limit, size, decision)

    def _add_body(
        self,
        found: dict[str, Any],
        shown: dict[str, Any],
        which: str,
        content: bytes,
        headers: Headers,
        encoding: str,
        limit: int,
        size: int | None,
        decision: Decision,
    ) -> None:
        """Put what is recorded of a body into ``shown``; a fault costs this body only."""
        if not (limit and decision.bodies):
            return
        try:
            whole = True
            plain = decoded(content, encoding, self._kept)
            if plain is not None:
                whole = plain.whole and size == len(content)
                content, size, encoding = plain.content, None, ""
                if not content:
                    return
            body = self._contents.body(
                content,
                value_of(headers, "content-type"),
                limit,
                size=size,
                whole=whole,
                content_types=decision.content_types,
                content_encoding=encoding,
            )
            for name, value in body.attributes(which).items():
                if name not in found and name not in shown:  # its size on the way is known better
                    shown[name] = value
        except faults() as fault:
            self._failures.report("body", fault, what=EVENT)


def _limit(of_rule: int | None, of_section: int) -> int:
    return of_section if of_rule is None else of_rule


def _url(call: Call) -> str:
    if not call.target.startswith("/") and "://" in call.target[:8]:
        return call.target
    host = f"[{call.host}]" if ":" in call.host else call.host
    port = "" if call.port == PORTS.get(call.scheme) or not call.port else f":{call.port}"
    return f"{call.scheme}://{host}{port}{call.target}"
