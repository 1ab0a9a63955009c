"""One command or job from its start to its end: the record of its start, what it prints, and its record.

Its own record is on disk before it does anything, as an intent: if the process is killed, it is sent with the
outcome ``unknown``. While it runs, :mod:`otel_audit.runs.rounds` comes by every few seconds.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import msgspec

from otel_audit import semconv
from otel_audit.audit_context import Moment, SystemScope, moment
from otel_audit.audit_record import AuditRecord, Outcome, Target, new_record_id
from otel_audit.errors import AuditError
from otel_audit.interruptions import faults
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.policy import Decision, Level
from otel_audit.runs import rounds
from otel_audit.runs.ending import Ending, ending_of
from otel_audit.runs.recording import Kind, Recording
from otel_audit.runs.streams import Listening
from otel_audit.values import portable

_ACTION: Final = "EXECUTE"
_LOG: Final = "activity"


class Invocation(NamedTuple):
    """What is run.

    Attributes:
        name: as the policy knows it, and the target: ``migrate``, ``fleet scrap-old``, ``billing.nightly``.
        actor: the id of the actor where nobody else acts: ``manage.py migrate``.
        view: the function, as the way through.
        arguments: returns them, as on a command line; called only if they are recorded.
        secret: options whose values are secret, whatever their names say.
        streams: what it prints to, beside those of the process.
        exit_code: returns the status that its library gives to an exception; None: Python's.
        only_failures: it is recorded only if it fails.
    """

    name: str
    actor: str
    view: str
    arguments: Callable[[], Iterable[Any]] = tuple
    secret: tuple[str, ...] = ()
    streams: tuple[Any, ...] = ()
    exit_code: Callable[[BaseException], int | None] = lambda error: None
    only_failures: bool = False


class Run:
    """The records of one command or job. It begins in its own context.

    Args:
        recording: what is recorded of such.
        kind: a command or a job.
        invocation: what is run.
        decision: what the policy says about it.
    """

    def __init__(self, recording: Recording, kind: Kind, invocation: Invocation, decision: Decision) -> None:
        self._recording = recording
        self._kind = kind
        self._invocation = invocation
        self._decision = decision
        self._stages = ("end",) if invocation.only_failures else decision.stages or ("start", "end")
        self._target = Target(kind, invocation.name)
        self._shown: dict[str, Any] = {}
        self._id = ""
        self._at: Moment | None = None
        self._begin = 0.0
        self._logger: AuditLogger | None = None
        self._intent: int | None = None
        self._segment = 0
        self._listening: Listening | None = None
        self._mutex = threading.Lock()
        self._ended = False
        self._pid = os.getpid()

    def begin(self) -> None:
        """Record that it begins.

        Raises:
            AuditError: it cannot be recorded, and ``on_error`` is ``fail_closed``.
        """
        recording = self._recording
        self._logger = recording.logger()
        if self._logger is None:
            return
        self._at = at = moment()
        self._id = new_record_id(at.time)
        self._begin = time.perf_counter()
        try:
            arguments = recording.contents.arguments(self._invocation.arguments(), self._invocation.secret)
            if arguments:
                self._shown[semconv.ARGUMENTS] = arguments
        except faults() as error:
            recording.failures.report("arguments", error, what=self._invocation.name)
        if "start" in self._stages:
            self._intend(self._record("unknown", self._shown))  # first: who has begun must end
            if self._kind == "command":
                self._logger.log(f"{self._kind}.start", _ACTION, **self._parts(), shown=self._shown)
        if self._decision.level >= Level.REQUEST_RESPONSE and recording.config.commands.max_output:
            self._listen()
        rounds.add(self, recording.config.commands.flush)

    def _listen(self) -> None:
        listening = Listening(self._recording.config.commands.max_output)
        try:
            listening.begin(*self._invocation.streams)
            self._listening = listening
        except faults() as error:
            self._recording.failures.note("output", error, what=self._invocation.name)

    def _listen_no_longer(self) -> None:
        if self._listening is not None:
            try:
                self._listening.end()
            except faults() as error:
                self._recording.failures.note("output", error, what=self._invocation.name)

    def end(self, error: BaseException | None) -> None:
        """Record how it ended: it returned, or ``error`` left it.

        Raises:
            AuditError: it has not failed itself, cannot be recorded, and ``on_error`` is ``fail_closed``.
        """
        if self._at is None or self._logger is None:
            return
        duration = time.perf_counter() - self._begin
        try:
            self._listen_no_longer()
            with self._mutex:
                self._ended = True
            ending = ending_of(error, self._exit_code(error))
            if ending.outcome != "success" or not self._invocation.only_failures:
                self._finish(ending, duration)
        except AuditError:
            if error is None:
                raise
        except faults() as fault:
            self._recording.failures.note("end", fault, what=self._invocation.name)
        finally:
            rounds.remove(self)

    def killed(self, signal: str) -> None:
        """Record that a signal is about to end the process, while it runs."""
        with self._mutex:
            if self._ended or self._at is None or self._pid != os.getpid():
                return
            self._ended = True
        self._finish(Ending("failure", 0), time.perf_counter() - self._begin, signal)

    def _exit_code(self, error: BaseException | None) -> int | None:
        if error is None:
            return 0
        try:
            return self._invocation.exit_code(error)
        except faults():  # an exception of the application's may do anything
            return None

    def _finish(self, ending: Ending, duration: float, signal: str = "") -> None:
        shown = self._shown | {semconv.DURATION: round(duration, 6)}
        if not signal and self._kind == "command":
            shown[semconv.EXIT_CODE] = portable(ending.exit_code)
        name = signal
        try:
            if ending.error is not None:
                name = type(ending.error).__qualname__
                shown |= self._recording.contents.exception(ending.error)
            if self._listening is not None:
                shown |= self._output(self._listening)
        except faults() as fault:  # the record has less
            self._recording.failures.note("details", fault, what=self._invocation.name)
        forked = self._pid != os.getpid()
        if forked:
            shown[semconv.FORKED_FROM] = self._pid
        self._settle(ending.outcome, self._record(ending.outcome, shown, name, forked=forked))

    def _output(self, listening: Listening) -> dict[str, Any]:
        printed = listening.printed
        text = printed.text(self._recording.contents)
        return {semconv.OUTPUT: text, semconv.OUTPUT_SIZE: printed.size} if text else {}

    # --- while it runs -------------------------------------------------------------------------

    def look_after(self) -> None:
        """Record what it has printed, and keep its intent where it holds nothing back."""
        with self._mutex:
            if self._ended or self._pid != os.getpid():
                return
            self._follow_up()
            self._renew()

    def _follow_up(self) -> None:
        listening, logger, at = self._listening, self._logger, self._at
        if listening is None or logger is None or at is None or self._kind != "command":
            return
        listening.renew()
        news = listening.printed.news(self._recording.contents)
        if news:
            parts = self._parts() | {"at": msgspec.structs.replace(at, time=time.time_ns())}
            logger.log(f"{self._kind}.output", _ACTION, **parts, shown={semconv.OUTPUT: news})

    def _renew(self) -> None:
        """Write the intent again, behind what was written since: segments after an open one are kept."""
        logger, before = self._logger, self._intent
        if logger is None or before is None or logger.segment == self._segment:
            return
        self._intend(self._record("unknown", self._shown))
        logger.settle(before, "unknown", [])

    # --- records -------------------------------------------------------------------------------

    def _parts(self) -> dict[str, Any]:
        return {"at": self._at, "target": self._target, "log": _LOG, **self._decision.texts()}

    def _record(
        self, outcome: Outcome, shown: dict[str, Any], error: str = "", *, forked: bool = False
    ) -> AuditRecord | None:
        assert self._logger is not None
        try:
            parts = self._parts()
            notes = self._notes()
            if notes is not None:
                parts |= notes.parts()
            return self._logger.record(
                f"{self._kind}.run",
                _ACTION,
                outcome=outcome,
                shown=shown,
                error=error,
                record_id=new_record_id() if forked else self._id,
                **parts,
            )
        except faults() as fault:
            lost = int(self._intent is None)  # what was intended is sent otherwise
            self._recording.failures.note("record", fault, what=self._invocation.name, lost=lost)
            return None

    def _notes(self) -> Any:
        """Return what the application has said of the work; that of a request is the request's."""
        context = None if self._at is None else self._at.context
        scope = None if context is None else context.scope
        return getattr(scope, "notes", None) if isinstance(scope, SystemScope) else None

    def _intend(self, record: AuditRecord | None) -> None:
        logger = self._logger
        if logger is None or record is None:
            return
        self._intent = logger.intend([record])
        self._segment = logger.segment

    def _settle(self, outcome: Outcome, record: AuditRecord | None) -> None:
        logger, intent, at = self._logger, self._intent, self._at
        if logger is None or at is None:
            return
        if (
            intent is None or self._pid != os.getpid()
        ):  # a child that was forked in it: the intent is the parent's
            if record is not None:
                logger.emit(record, at=at)
            return
        self._intent = None
        logger.settle(intent, outcome, None if record is None else [record])
        if record is not None:
            logger.span_event(record, at)
