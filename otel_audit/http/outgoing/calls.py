"""Calls to other services: which are recorded, and how much of each."""

from __future__ import annotations

from typing import Any, Final
from weakref import WeakSet

from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from otel_audit import semconv
from otel_audit.audit_context import ContextFields, moment
from otel_audit.audit_record import Outcome, Target
from otel_audit.config.host_patterns import Hosts
from otel_audit.config.model import AuditConfig
from otel_audit.http.contents import Contents
from otel_audit.http.outgoing.call import Call, Headers, value_of
from otel_audit.http.outgoing.content_encoding import decoded
from otel_audit.interruptions import faults
from otel_audit.pipeline import provider
from otel_audit.pipeline.failures import Failures
from otel_audit.policy import Decision, Facts, Level, Policy

_EVENT: Final = "http.client.request"
_BY_DEFAULT: Final = Decision()
_NOTHING: Final[dict[str, str]] = {}
_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Calls:
    """Makes records of calls, as configured; a part of the instrumentor of HTTP clients."""

    def __init__(self, config: AuditConfig) -> None:
        section = config.outgoing
        rules = [rule for rule in config.policy if "outgoing" in rule.kinds]
        self._policy = Policy.of(config)
        self._ruled = bool(rules)
        self._contents = Contents.of(config)
        self._ignored = Hosts(section.ignore_hosts)
        self._section = section
        self._tenant = config.tenant
        limits = [section.max_request_body, section.max_response_body]
        for rule in rules:
            limits += [rule.max_request_body or 0, rule.max_response_body or 0]
        self._kept = Contents.worth_keeping(max(limits))
        self._failures = Failures("HTTP clients", config, provider.current_health)
        self._open: WeakSet[Call] = WeakSet()
        self._on = False

    def start(self) -> None:
        """Begin to record."""
        self._on = True

    def stop(self) -> None:
        """Record no longer; calls that go on are recorded as they are now."""
        self._on = False
        for call in list(self._open):
            call.end(ending="open")

    def begin(self, method: str, scheme: str, host: str, port: int, target: str) -> Call | None:
        """Begin with a call; None if it is not recorded. Never raises.

        Not recorded are ignored hosts, what the policy surely wants no record of, and calls made while
        OpenTelemetry's instrumentation is suppressed, as exporters suppress it: they are the pipeline's own.

        Args:
            method: in upper case.
            scheme: that of the URL asked for: ``https``, ``http``.
            host: that of the URL, not of a proxy.
            port: likewise; 0 for that of the scheme.
            target: path and query, or the whole URL.
        """
        if not self._on:
            return None
        try:
            # Not is_http_instrumentation_enabled(): OpenTelemetry's own instrumentations switch that off for
            # what happens inside a call they have a span for.
            if not is_instrumentation_enabled() or provider.current_logger() is None:
                return None
            port = port or _PORTS.get(scheme, 0)
            if self._ignored and self._ignored.includes(host, port):
                return None
            level = Level.METADATA
            if self._ruled:
                facts = Facts(path=_path(target), method=method, host=_address(host, port))
                level = self._policy.highest("outgoing", facts)
                if level is Level.NONE:
                    return None
            call = Call(self._record, level, moment(), method, scheme, host, port, target, self._kept)
            self._open.add(call)
        except faults() as fault:  # the call goes on
            self._failures.note("call", fault, what=_EVENT, lost=1)
            return None
        return call

    def note(self, fault: BaseException) -> None:
        """Log and count that something of a call could not be noted."""
        self._failures.note("call", fault, what=_EVENT)

    # --- the record ---------------------------------------------------------------------------------------

    def _record(self, call: Call) -> None:
        self._open.discard(call)
        logger = provider.current_logger()
        if logger is None:
            return
        decision, parts = _BY_DEFAULT, _NOTHING
        try:
            if self._ruled:
                fields = call.moment.fields()
                decision = self._decided(call, fields)
                if decision.level is Level.NONE:
                    return
                parts = _said(decision, fields)
            outcome, error = _outcome(call)
            attributes = self._attributes(call, decision)
        except faults() as fault:
            self._failures.report("call", fault, what=_EVENT, lost=1)
            return
        logger.log(
            _EVENT,
            "CALL",
            at=call.moment,
            log="activity",
            target=Target("http.host", call.host),
            outcome=outcome,
            error=error,
            attributes=attributes,
            **parts,
        )

    def _decided(self, call: Call, fields: ContextFields) -> Decision:
        actor = fields.actor
        return self._policy.decide(
            "outgoing",
            Facts(
                path=_path(call.target),
                method=call.method,
                status=call.status or None,
                host=_address(call.host, call.port),
                user=actor.id if actor.type != "unknown" else None,
                tenant=fields.tenant or call.moment.tenant or self._tenant or None,
            ),
        )

    def _attributes(self, call: Call, decision: Decision) -> dict[str, Any]:
        found: dict[str, Any] = {
            semconv.METHOD: call.method,
            semconv.URL: self._contents.url(_url(call)),
            semconv.SERVER_ADDRESS: call.host,
            semconv.SERVER_PORT: call.port,
            semconv.DURATION: round(call.duration, 6),
        }
        if call.status:
            found[semconv.STATUS_CODE] = call.status
        if call.request_size is not None:
            found[semconv.REQUEST_SIZE] = call.request_size
        size = call.received_size or call.response_size
        if size is not None:
            found[semconv.RESPONSE_SIZE] = size
        if call.ending and call.status:
            found[semconv.RESPONSE_STATE] = call.ending
        if decision.level >= Level.REQUEST:
            self._add_request(found, call, decision)
        if decision.level >= Level.REQUEST_RESPONSE:
            self._add_response(found, call, decision)
        return found

    def _add_request(self, found: dict[str, Any], call: Call, decision: Decision) -> None:
        headers = call.request_headers
        for name, value in self._contents.headers(headers).items():
            found[f"{semconv.REQUEST_HEADER}{name}"] = value
        if call.request_body is not None:
            limit = _limit(decision.max_request_body, self._section.max_request_body)
            body, size = call.request_body, call.request_size
            encoding = value_of(headers, "content-encoding")
            self._add_body(found, "request", body, headers, encoding, limit, size, decision)

    def _add_response(self, found: dict[str, Any], call: Call, decision: Decision) -> None:
        headers = call.response_headers
        for name, value in self._contents.headers(headers).items():
            found[f"{semconv.RESPONSE_HEADER}{name}"] = value
        if call.response_body:
            limit = _limit(decision.max_response_body, self._section.max_response_body)
            body, size = bytes(call.response_body), call.taken
            encoding = "" if call.decoded else value_of(headers, "content-encoding")
            self._add_body(found, "response", body, headers, encoding, limit, size, decision)

    def _add_body(
        self,
        found: dict[str, Any],
        which: str,
        content: bytes,
        headers: Headers,
        encoding: str,
        limit: int,
        size: int | None,
        decision: Decision,
    ) -> None:
        """Put what is recorded of a body into ``found``; a fault costs this body only."""
        if not (limit and decision.bodies):
            return
        try:
            plain = decoded(content, encoding, self._kept) if encoding else None
            if plain is not None:
                whole = size == len(content) and len(plain) < self._kept
                content, size, encoding = plain, len(plain) + (not whole), ""
            body = self._contents.body(
                content,
                value_of(headers, "content-type"),
                limit,
                size=size,
                content_types=decision.content_types,
                content_encoding=encoding,
            )
            for name, value in body.attributes(which).items():
                found.setdefault(name, value)  # its size on the way is known better
        except faults() as fault:
            self._failures.report("body", fault, what=_EVENT)


def _said(decision: Decision, fields: ContextFields) -> dict[str, str]:
    """Return the texts that a rule gives a record; a slug of the application's own stands."""
    texts = {name: getattr(decision, name) for name in ("event_code", "event_type", "system")}
    if not fields.slug:
        texts["slug"] = decision.slug
    return {name: text for name, text in texts.items() if text}


def _limit(of_rule: int | None, of_section: int) -> int:
    return of_section if of_rule is None else of_rule


def _outcome(call: Call) -> tuple[Outcome, str]:
    if call.error:
        return "failure", call.error
    if not call.status:
        return "unknown", ""
    return ("failure", str(call.status)) if call.status >= 400 else ("success", "")


def _path(target: str) -> str:
    if target[:8].lower().startswith(("http://", "https://")):
        target = target[target.find("/", 8) :] if target.find("/", 8) > 0 else "/"
    for mark in "?#":
        target = target.partition(mark)[0]
    return target or "/"


def _address(host: str, port: int) -> str:
    return f"{host}:{port}" if port else host


def _url(call: Call) -> str:
    if not call.target.startswith("/") and "://" in call.target[:8]:
        return call.target
    host = f"[{call.host}]" if ":" in call.host else call.host
    port = "" if call.port == _PORTS.get(call.scheme) or not call.port else f":{call.port}"
    return f"{call.scheme}://{host}{port}{call.target}"
