"""Calls to other services: which are recorded, and how much of each."""

from __future__ import annotations

import atexit
from typing import Any, Final
from weakref import WeakSet

from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from otel_audit.audit_context import ContextFields, moment
from otel_audit.audit_record import Outcome, Target, new_record_id
from otel_audit.config.host_patterns import Hosts
from otel_audit.config.model import AuditConfig
from otel_audit.http.contents import Contents
from otel_audit.http.outgoing.call import Call
from otel_audit.http.outgoing.call_parts import EVENT, PORTS, CallParts
from otel_audit.interruptions import faults
from otel_audit.pipeline import provider
from otel_audit.pipeline.failures import Failures
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.pipeline.record_heads import Made
from otel_audit.policy import Decision, Facts, Level, Policy
from otel_audit.redaction.redactor import Redactor

_BY_DEFAULT: Final = Decision()
_NOTHING: Final[dict[str, Any]] = {}


class Calls:
    """Makes records of calls, as configured; a part of the instrumentor of HTTP clients."""

    def __init__(self, config: AuditConfig) -> None:
        section = config.outgoing
        rules = [rule for rule in config.policy if "outgoing" in rule.kinds]
        self._policy = Policy.of(config)
        self._ruled = bool(rules)
        self._ignored = Hosts(section.ignore_hosts)
        self._tenant = config.tenant
        limits = [section.max_request_body, section.max_response_body]
        for rule in rules:
            limits += [rule.max_request_body or 0, rule.max_response_body or 0]
        self._kept = Contents.worth_keeping(max(limits))
        self._failures = Failures("HTTP clients", config, provider.current_health)
        self._parts = CallParts(section, Redactor(config.redaction), self._kept, self._failures)
        self._starts = any("start" in (rule.stages or ()) for rule in rules)
        self._open: WeakSet[Call] = WeakSet()
        self._on = False

    def start(self) -> None:
        """Begin to record."""
        self._on = True
        atexit.register(self.stop)

    def stop(self) -> None:
        """Record no longer; calls that go on are recorded as they are now."""
        self._on = False
        atexit.unregister(self.stop)
        for call in list(self._open):
            call.end(ending="open")

    def begin(self, method: str, scheme: str, host: str, port: int, target: str) -> Call | None:
        """Begin with a call; None if it is not recorded.

        Not recorded are ignored hosts, what the policy surely wants no record of, and calls made while
        OpenTelemetry's instrumentation is suppressed, as exporters suppress it: they are the pipeline's own.

        Args:
            method: in upper case.
            scheme: that of the URL asked for: ``https``, ``http``.
            host: that of the URL, not of a proxy.
            port: likewise; 0 for that of the scheme.
            target: path and query, or the whole URL.

        Raises:
            AuditError: it cannot be recorded, and ``on_error`` is ``fail_closed``.
        """
        if not self._on:
            return None
        try:
            # Not is_http_instrumentation_enabled(): OpenTelemetry's own instrumentations switch that off for
            # what happens inside a call they have a span for.
            logger = provider.current_logger()
            if logger is None or not is_instrumentation_enabled():
                return None
            port = port or PORTS.get(scheme, 0)
            if self._ignored and self._ignored.includes(host, port):
                return None
            level, starts = Level.METADATA, False
            if self._ruled:
                facts = Facts(path=_path(target), method=method, host=_address(host, port))
                level = self._policy.highest("outgoing", facts)
                if level is Level.NONE:
                    return None
                starts = self._starts and any(
                    each.level is not Level.NONE and "start" in each.stages
                    for each in self._policy.possible("outgoing", facts)
                )
            call = Call(self._record, level, moment(), method, scheme, host, port, target, self._kept)
            started = self._started(logger, call) if starts else None
        except faults() as fault:  # the call goes on
            self._failures.report("call", fault, what=EVENT, lost=1)
            return None
        if started is not None:
            call.intent = logger.intend([started])
        self._open.add(call)
        return call

    def note(self, fault: BaseException) -> None:
        """Log and count that something of a call could not be noted; raise it under ``fail_closed``."""
        self._failures.report("call", fault, what=EVENT)

    def _started(self, logger: AuditLogger, call: Call) -> Made:
        """Return the record that a call leaves if its process dies before it is over."""
        call.record_id = new_record_id(call.moment.time)
        return logger.work(
            EVENT,
            "CALL",
            at=call.moment,
            target=Target("http.host", call.host),
            outcome="unknown",
            attributes=self._parts.asked(call),
            record_id=call.record_id,
        )

    # --- the record ---------------------------------------------------------------------------------------

    def _record(self, call: Call) -> None:
        self._open.discard(call)
        logger = provider.current_logger()
        if logger is None:
            return
        record: Made | None = None
        try:
            record = self._made(logger, call)
        except faults() as fault:
            self._failures.report("call", fault, what=EVENT, lost=1)
        if call.intent is not None:
            outcome: Outcome = "unknown" if record is None else record.outcome
            logger.settle(call.intent, outcome, [] if record is None else [record])
            if record is not None:
                logger.span_event(record, call.moment)
        elif record is not None:
            logger.emit(record, at=call.moment)

    def _made(self, logger: AuditLogger, call: Call) -> Made | None:
        decision, said = _BY_DEFAULT, _NOTHING
        if self._ruled:
            fields = call.moment.fields()
            decision = self._decided(call, fields)
            if decision.level is Level.NONE:
                return None
            said = _said(decision, fields)
        outcome, error = _outcome(call)
        attributes, shown = self._parts.all(call, decision)
        return logger.work(
            EVENT,
            "CALL",
            at=call.moment,
            target=Target("http.host", call.host),
            outcome=outcome,
            error=error,
            attributes=attributes,
            shown=shown,
            record_id=call.record_id or None,
            **said,
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


def _said(decision: Decision, fields: ContextFields) -> dict[str, Any]:
    """Return the texts that a rule gives a record; a slug of the application's own stands."""
    texts = decision.texts()
    if fields.slug:
        texts.pop("slug", None)
    return texts


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
