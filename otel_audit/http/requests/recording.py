"""One request on its way to its record: what is kept of it until it is over, and the record then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import INVALID_SPAN, Span

from otel_audit import semconv
from otel_audit.audit_context import AuditContext, ContextFields, Moment, moment_of
from otel_audit.audit_record import Outcome, Target, new_record_id
from otel_audit.http.copies import Copy
from otel_audit.http.headers import size_in
from otel_audit.http.requests.asked import Asked, AskedScope
from otel_audit.http.requests.attributes import answer, asked_for, headers_and_bodies, host_asked_for
from otel_audit.http.requests.marks import Marked, Marks, marks_of
from otel_audit.http.requests.rules import NO_RULE, RequestRules
from otel_audit.http.requests.seen import Seen
from otel_audit.interruptions import faults
from otel_audit.otel_api import current_span
from otel_audit.policy import Decision, Facts, Level

if TYPE_CHECKING:
    from otel_audit.notes import Notes
    from otel_audit.pipeline.logger import AuditLogger
    from otel_audit.pipeline.record_heads import Made

_EVENT: Final = "http.server.request"
_ACTION: Final = "REQUEST"
_ROUTE: Final = "http.route"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_NO_MARKS: Final = Marks()
# A member of an enumeration is looked up anew each time.
_NONE: Final = Level.NONE
_METADATA: Final = Level.METADATA
_REQUEST: Final = Level.REQUEST
_REQUEST_RESPONSE: Final = Level.REQUEST_RESPONSE
_FAILED: Final = 400
_NO_ANSWER: Final = "no_answer"
_ABORTED: Final = "aborted"
"""The server has given up: the client is gone, or the server ends."""


class RequestRecording(Seen):
    """One request that is being answered.

    Attributes:
        error: why it failed, where no status says it.
        span: the request's own, as soon as it is known.
    """

    __slots__ = (
        "_asked",
        "_context",
        "_highest",
        "_inner",
        "_intent",
        "_outer",
        "_over",
        "_record_id",
        "_started",
        "_time",
        "error",
        "span",
    )

    def __init__(self, rules: RequestRules, asked: Asked, context: AuditContext, highest: Level) -> None:
        super().__init__(rules)
        self._asked = asked
        self._context = context
        self._highest = highest
        self._time = time.time_ns()
        self._started = time.perf_counter_ns()
        self._intent: int | None = None
        self._record_id = ""
        self._over = False
        self._inner: RequestRecording | None = None
        self._outer: RequestRecording | None = None
        self.span: Span = current_span()
        self.error = ""

    def within(self, outer: RequestRecording) -> None:
        """Leave the record to an application around this one, which is told what is known here.

        Django's may be mounted in one of Starlette's: one request makes one record.
        """
        self._outer = outer
        outer._inner = self

    @property
    def is_within(self) -> bool:
        """Whether an application around makes the record."""
        return self._outer is not None

    # --- while it goes on -------------------------------------------------------------------------

    def seen_in(self, span: Span) -> None:
        """Take ``span`` for the request's own, unless one is known."""
        if self.span is INVALID_SPAN:
            self.span = span

    @property
    def may_want_request(self) -> bool:
        """Whether headers and body of the request may have to be recorded."""
        return self._highest >= _REQUEST or Marked.highest >= _REQUEST

    def wants_request_body(self) -> bool:
        """Say whether the body of the request may have to be recorded in the end."""
        return self.may_want_request and self.rules.may_copy(self._asked.header("content-type"))

    def wants_request_copy(self) -> bool:
        """Say whether the body of the request is to be copied as it is read: uploads are not."""
        if not self.wants_request_body() or self.is_within:
            return False
        header = self._asked.header
        if not header("content-type").lower().startswith("multipart/"):
            return True
        size = size_in(header("content-length"))
        return size is not None and size <= self.rules.copied

    @property
    def wants_response(self) -> bool:
        """Whether headers and body of the response may have to be recorded."""
        return self._outer is None and (
            self._highest >= _REQUEST_RESPONSE or Marked.highest >= _REQUEST_RESPONSE
        )

    def _wants_response_body(self) -> bool:
        """Say whether the body of the response may have to be recorded: events and downloads are not."""
        if not self.wants_response:
            return False
        headers = self.response_headers
        kind = headers.get("content-type", "").lower()
        return (
            self.rules.may_copy(kind)
            and not kind.startswith("text/event-stream")
            and "attachment" not in headers.get("content-disposition", "").lower()
        )

    def answered(self, status: int | None, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Note the status and the headers of the answer, and have a copy of its body if one may be wanted."""
        super().answered(status, headers)
        if self.response_headers and self._wants_response_body():
            self.response_copy = Copy(self.rules.copied)

    def begin(self) -> None:
        """Write the intent where a rule may ask for one: a request that is killed leaves it behind.

        Raises:
            SpoolError: it cannot be written, and ``on_error`` is ``fail_closed``.
        """
        rules = self.rules
        logger = rules.logger()
        if self._intent is not None or self._outer is not None or logger is None:
            return
        try:
            at = self._moment()
            fields = at.fields()
            if not rules.may_start(self._facts(at, fields)):
                return
            shown: dict[str, Any] = {}
            asked_for(shown, rules, self._asked)
            record = logger.record(
                _EVENT,
                _ACTION,
                at=at,
                outcome="unknown",
                log="activity",
                target=_target(fields),
                attributes=host_asked_for(self._asked),
                shown=shown,
                record_id=self._id(),
            )
        except faults() as fault:
            rules.failures.report("request", fault)
            return
        self._intent = logger.intend([record])

    def failed(self, error: BaseException) -> None:
        """Note an exception that nobody handled."""
        if self._outer is not None:
            self._outer.failed(error)
            return
        if self.error:
            return
        if isinstance(error, GeneratorExit) or type(error).__qualname__ == "CancelledError":
            self.error = _ABORTED
            return
        self.error = type(error).__qualname__
        try:
            self.exception = self.rules.contents.exception(error)
        except faults() as fault:
            self.rules.failures.report("exception", fault)

    # --- when it is over --------------------------------------------------------------------------

    def end(self) -> None:
        """Make the record, once.

        Raises:
            AuditError: it cannot be kept, and ``on_error`` is ``fail_closed``.
        """
        if self._over or self._outer is not None:
            return
        self._over = True
        try:
            logger = self.rules.logger()
            if logger is not None:
                self._keep(logger)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Leave the request to itself: each holds the other, and its bodies, until cycles are collected."""
        recording: RequestRecording | None = self
        while recording is not None:
            recording._over = True
            recording._scope.recording = None
            recording.request_body = recording.response_body = None
            inner, recording._inner = recording._inner, None
            recording = inner

    def _keep(self, logger: AuditLogger) -> None:
        try:
            record = self._decided(logger, self._moment())
        except faults() as fault:
            self._least(logger)
            self.rules.failures.report("request", fault, what=_EVENT)
            return
        if self._intent is not None:
            if record is None:
                logger.settle(self._intent, "unknown", [])
                return
            logger.settle(self._intent, record.outcome, [record])
        elif record is not None:
            logger.keep([record])
        # The summary says what the span of the request says itself; all of the record says more.
        if record is not None and logger.config.span_event.content == "full":
            logger.span_event(record, self._moment())

    def _decided(self, logger: AuditLogger, at: Moment) -> Made | None:
        rules, known = self.rules, self._known()
        asked, notes = known._asked, known._scope.notes
        fields = at.fields()
        decision = rules.policy.decide("request", self._facts(at, fields)) if rules.has_rules else NO_RULE
        marks = marks_of(asked.view(), fields.request.method) or _NO_MARKS
        level = rules.level(decision, marks, notes)
        if level is _NONE:
            return None
        said: dict[str, Any] = {} if decision.rule is None else decision.texts()
        if marks is not _NO_MARKS:
            said |= marks.texts()
        if notes is not None:
            said |= notes.parts()
        related = said.pop("related", ())
        if marks.related:
            related = [*marks.targets(asked.parameters()), *related]
        host = host_asked_for(asked)
        attributes = said.pop("attributes") | host if notes is not None else host
        outcome = self._outcome()
        is_view = outcome == "success" and fields.request.method in _SAFE
        return logger.work(
            _EVENT,
            _ACTION,
            at=at,
            outcome=outcome,
            log="pageview" if is_view and not related and not fields.related else "activity",
            target=_target(fields),
            error=self._error(outcome),
            related=related,
            attributes=attributes,
            shown=self._attributes(level, decision, marks, notes),
            record_id=self._id(),
            fields=fields,
            **said,
        )

    def _attributes(
        self, level: Level, decision: Decision, marks: Marks, notes: Notes | None
    ) -> dict[str, Any]:
        """Return the attributes; what cannot be told costs itself only."""
        micros = (time.perf_counter_ns() - self._started) // 1000
        found: dict[str, Any] = {semconv.DURATION: micros / 1_000_000}
        asked = self._asked
        self._add(asked_for, found, self.rules, asked)
        if level > _METADATA:
            self._add(headers_and_bodies, found, self, asked, level, decision, marks, notes)
        self._add(answer, found, self, asked)  # over what a copy says of sizes
        return found

    def _add(self, tell: Callable[..., None], found: dict[str, Any], *of: Any) -> None:
        try:
            tell(found, *of)
        except faults() as fault:
            self.rules.failures.report("request", fault)

    def _least(self, logger: AuditLogger) -> None:
        """Keep at least that there was a request, and how it was answered."""
        if self._intent is not None:
            logger.settle(self._intent, "unknown")  # the record of the beginning is kept
            return
        at = moment_of(self._context, self._time, self.span, None)
        target = None
        try:
            target = _target(at.fields())
        except faults():  # the logger says so
            pass
        outcome = self._outcome()
        logger.log(
            _EVENT,
            _ACTION,
            at=at,
            outcome=outcome,
            log="activity",
            target=target,
            error=self._error(outcome),
            record_id=self._id(),
            shown=None if self.status is None else {semconv.STATUS_CODE: self.status},
            truncated=True,
        )

    def _outcome(self) -> Outcome:
        if self.error or self.status is None or self.status >= _FAILED:
            return "failure"
        return "success"

    def _error(self, outcome: Outcome) -> str:
        if outcome == "success":
            return ""
        return self.error or (str(self.status) if self.status is not None else _NO_ANSWER)

    def _facts(self, at: Moment, fields: ContextFields) -> Facts:
        request, actor = fields.request, fields.actor
        asked = self._asked
        return Facts(
            path=asked.path(),
            view=request.view or None,
            route=request.route or None,
            method=request.method or None,
            status=self.status,
            host=asked.header("host") or None,
            user=actor.id if actor.type != "unknown" else None,
            tenant=fields.tenant or at.tenant or self.rules.tenant or None,
        )

    def _id(self) -> str:
        if not self._record_id:
            self._record_id = new_record_id(self._time)
        return self._record_id

    @property
    def _scope(self) -> AskedScope:
        scope: Any = self._context.scope
        return scope  # type: ignore[no-any-return]

    def _known(self) -> RequestRecording:
        """Return the recording that knows most of the request."""
        return self if self._inner is None else self._inner._known()

    def _moment(self) -> Moment:
        """Return the moment in which the request began, with what is known of it now."""
        known = self._known()
        span = known.span if self.span is INVALID_SPAN else self.span
        return moment_of(known._context, self._time, span, known._scope.take_requester())


def _target(fields: ContextFields) -> Target:
    return Target(_ROUTE, fields.request.route or fields.request.path)
