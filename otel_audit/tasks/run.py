"""One try of a task: the scope of what it does, and the records of its start and end."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
from opentelemetry.trace import INVALID_SPAN

from otel_audit import forks
from otel_audit.audit_context import Moment, moment
from otel_audit.audit_record import Outcome, new_record_id
from otel_audit.interruptions import faults
from otel_audit.notes import Notes
from otel_audit.otel_api import current_span, trace_ids
from otel_audit.pipeline.record_heads import Made, whole
from otel_audit.policy import Level
from otel_audit.propagation.incoming import Accepted
from otel_audit.runs import rounds
from otel_audit.runs.intent import Intent
from otel_audit.runs.output import Output
from otel_audit.runs.scope import leave
from otel_audit.semconv import (
    ARGUMENTS,
    DURATION,
    OUTPUT,
    TASK_REDELIVERED,
    TASK_RESULT,
    TASK_STATE,
)
from otel_audit.tasks.task import Task
from otel_audit.tasks.work import enter_task

if TYPE_CHECKING:
    from otel_audit.pipeline.logger import AuditLogger
    from otel_audit.tasks.settings import TaskSettings

_START: Final = "task.start"
_RUN: Final = "task.run"
_RETRY: Final = "task.retry"
_OUTPUT: Final = "task.output"
_ACTION: Final = "EXECUTE"
_OUTCOMES: Final[dict[str, Outcome]] = {"SUCCESS": "success", "IGNORED": "success"}


class Run:
    """A task that runs. The intent of its record is on disk: ``unknown`` if its worker is killed."""

    def __init__(self, tasks: TaskSettings, task: Task, accepted: Accepted | None) -> None:
        self._tasks = tasks
        self._task = task
        self._entered = enter_task(task.name, accepted)
        self._began = time.perf_counter()
        self._at: Moment = moment()
        self._intent: Intent | None = None
        self._output: Output | None = None
        self._mutex = threading.Lock()
        self._beginning = True

    def start(self) -> None:
        """Record that it begins. Whatever interrupts this, :meth:`end` must be called."""
        try:
            self._start()
        except faults() as error:
            self._tasks.failures.note("start", error, what=self._task.name)
        self._beginning = False

    def _start(self) -> None:
        tasks = self._tasks
        logger = tasks.logger
        self._decision = decision = tasks.decide(self._task, self._at)
        if logger is None or decision.level == Level.NONE:
            return
        record = logger.work(
            _START, _ACTION, at=self._at, log=tasks.log, target=self._task.target, **self._parts("STARTED")
        )
        if not decision.stages or "start" in decision.stages:
            logger.emit(record, at=self._at)  # "still running" is known by it
        run = msgspec.structs.replace(
            whole(record), id=new_record_id(record.timestamp), event_name=_RUN, outcome="unknown"
        )
        self._intent = Intent(logger, run)
        if decision.output and decision.level >= Level.REQUEST_RESPONSE and tasks.max_output:
            self._output = Output(tasks.max_output, tasks.contents, tasks.failures, self._task.name)
            self._output.begin()
        rounds.add(self, tasks.flush)

    # --- while it runs -------------------------------------------------------------------------

    def look_after(self) -> None:
        """Record what it has printed since, and keep its intent where it holds nothing back."""
        with self._mutex:
            intent = self._intent
            if intent is None or forks.is_unnoticed():
                return
            self._follow_up(intent.logger)
            if intent.holds_back:
                intent.renew(intent.record)

    def _follow_up(self, logger: AuditLogger) -> None:
        news = "" if self._output is None else self._output.news()
        if news:
            logger.log(
                _OUTPUT,
                _ACTION,
                at=msgspec.structs.replace(self._at, time=time.time_ns()),
                log=self._tasks.log,
                target=self._task.target,
                attributes=self._task.attributes("STARTED"),
                shown={OUTPUT: news},
                **self._decision.texts(),
            )

    def killed(self, signal: str) -> None:
        """Leave its intent: how far it got is not known."""

    # --- ended ---------------------------------------------------------------------------------

    def _parts(self, state: str) -> dict[str, Any]:
        task = self._task
        attributes = task.attributes(state)
        if task.redelivered:
            attributes[TASK_REDELIVERED] = True
        shown = {}
        if self._decision.level >= Level.REQUEST:
            shown[ARGUMENTS] = task.arguments(self._tasks.contents)
        return {"attributes": attributes, "shown": shown, **self._decision.texts()}

    def end(self, state: str, result: Any = None, error: BaseException | None = None) -> None:
        """Record how it ended, and leave its scope. To call this again after an interruption is safe.

        Args:
            state: as its library has it: ``SUCCESS``, ``FAILURE``, ``RETRY``, ``REJECTED``, ``IGNORED``.
            result: what it returned.
            error: what it raised, or what it is tried again because of.
        """
        try:
            self._finish(state, result, error)
        except BaseException:  # a time limit, which comes once
            self._finish(state, result, error)
            raise

    def _finish(self, state: str, result: Any, error: BaseException | None) -> None:
        intent = None
        try:
            with self._mutex:
                intent, self._intent = self._intent, None
            if self._at.span is INVALID_SPAN:  # the one who begins a span may have been told after us
                self._at = msgspec.structs.replace(self._at, span=current_span())
            if self._output is not None:
                self._output.end()
            if intent is not None:
                rounds.remove(self)
                self._end(intent, state, result, error)
            elif self._beginning:  # interrupted before anything of it was on disk
                self._tasks.ended(self._task, state, "" if error is None else type(error).__qualname__)
        except faults() as fault:
            self._tasks.failures.note("end", fault, what=self._task.name)
        except BaseException:
            self._intent = intent or self._intent
            raise
        leave(self._entered)
        self._entered = None

    def _end(self, intent: Intent, state: str, result: Any, error: BaseException | None) -> None:
        logger = intent.logger
        scope = None if self._entered is None else self._entered.scope
        notes = None if scope is None else scope.notes
        plain = notes is None and self._decision.level < Level.REQUEST_RESPONSE
        outcome: Outcome = _OUTCOMES.get(state, "failure")
        if state == "RETRY" and error is None:
            outcome = "success"  # it asked to be called again
        duration = round(time.perf_counter() - self._began, 6)
        if plain and state == "SUCCESS" and logger.lone_records() is not None:
            # What was intended, and what no rule or hook has anything to do with: a second look costs most.
            attributes = intent.record.attributes | {TASK_STATE: state, DURATION: duration}
            trace_id, span_id = trace_ids(self._at.span)
            record: Made = msgspec.structs.replace(
                intent.record,
                observed_timestamp=time.time_ns(),
                outcome=outcome,
                attributes=attributes,
                trace_id=trace_id,
                span_id=span_id,
            )
        else:
            record = self._ended(intent, state, outcome, duration, result, error, notes)
        logger.settle(intent.handle, outcome, [record])
        if logger.config.span_event.content != "none":
            logger.span_event(record, self._at)

    def _ended(
        self,
        intent: Intent,
        state: str,
        outcome: Outcome,
        duration: float,
        result: Any,
        error: BaseException | None,
        notes: Notes | None,
    ) -> Made:
        """Make the record of the end anew, with all that is only known now."""
        tasks = self._tasks
        parts = self._parts(state)
        attributes, shown = parts["attributes"], parts["shown"]
        attributes[DURATION] = duration
        if error is not None:
            shown |= tasks.contents.exception(error)
        elif state == "SUCCESS" and self._decision.level >= Level.REQUEST_RESPONSE:
            shown[TASK_RESULT] = tasks.contents.value(result)
        if self._output is not None:
            shown |= self._output.shown()
        if notes is not None:
            said = notes.parts()
            parts["attributes"] = said.pop("attributes") | attributes
            parts |= said
        return intent.logger.work(
            _RETRY if state == "RETRY" else _RUN,
            _ACTION,
            at=self._at,
            log=tasks.log,
            target=self._task.target,
            outcome=outcome,
            error="" if error is None else type(error).__qualname__,
            record_id=intent.record.id,
            **parts,
        )
