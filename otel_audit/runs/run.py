"""One command or job from its start to its end: the record of its start, what it prints, and its record.

Its own record is on disk before it does anything, as an intent: if the process is killed, it is sent with the
outcome ``unknown``. While it runs, :mod:`otel_audit.runs.rounds` comes by every few seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from otel_audit import semconv
from otel_audit.audit_context import SystemScope, moment
from otel_audit.audit_record import AuditRecord, Outcome, Target, new_record_id
from otel_audit.errors import AuditError
from otel_audit.forks import process_id
from otel_audit.interruptions import faults
from otel_audit.named_tuples import NamedTuple
from otel_audit.notes import Notes
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.policy import Decision, Level
from otel_audit.runs import rounds
from otel_audit.runs.ending import Ending, ending_of
from otel_audit.runs.intent import Intent
from otel_audit.runs.output import Output
from otel_audit.runs.recording import Kind, Recording
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
        logger: keeps them.
        recording: what is recorded of such.
        kind: a command or a job.
        invocation: what is run.
        decision: what the policy says about it.
    """

    def __init__(
        self,
        logger: AuditLogger,
        recording: Recording,
        kind: Kind,
        invocation: Invocation,
        decision: Decision,
    ) -> None:
        self._logger = logger
        self._recording = recording
        self._kind = kind
        self._invocation = invocation
        self._decision = decision
        self._stages = ("end",) if invocation.only_failures else decision.stages or ("start", "end")
        self._target = Target(kind, invocation.name)
        self._shown: dict[str, Any] = {}
        self._at = moment()
        self._id = new_record_id(self._at.time)
        self._begin = time.perf_counter()
        self._intent: Intent | None = None
        self._output: Output | None = None
        self._mutex = threading.Lock()
        self._ended = False
        self._pid = process_id()

    def begin(self) -> None:
        """Record that it begins.

        Raises:
            AuditError: it cannot be recorded, and ``on_error`` is ``fail_closed``.
        """
        recording, invocation = self._recording, self._invocation
        contents, failures, commands = recording.contents, recording.failures, recording.config.commands
        try:
            arguments = contents.arguments(invocation.arguments(), invocation.secret)
            if arguments:
                self._shown[semconv.ARGUMENTS] = arguments
        except faults() as error:
            failures.report("arguments", error, what=invocation.name)
        if "start" in self._stages:
            record = self._record("unknown", self._shown)
            if record is not None:
                self._intent = Intent(self._logger, record)  # first: who has begun must end
            if self._kind == "command":
                self._logger.log(f"{self._kind}.start", _ACTION, **self._parts(), shown=self._shown)
        if self._decision.level >= Level.REQUEST_RESPONSE and commands.max_output:
            self._output = Output(commands.max_output, contents, failures, invocation.name)
            self._output.begin(*invocation.streams)
        rounds.add(self, commands.flush)

    def end(self, error: BaseException | None) -> None:
        """Record how it ended: it returned, or ``error`` left it.

        Raises:
            AuditError: it has not failed itself, cannot be recorded, and ``on_error`` is ``fail_closed``.
        """
        duration = time.perf_counter() - self._begin
        try:
            if self._output is not None:
                self._output.end()
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
            if self._ended or self._pid != process_id():
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
            if self._output is not None:
                printed = self._output.shown()
                if printed.get(semconv.OUTPUT):
                    shown |= printed
        except faults() as fault:  # the record has less
            self._recording.failures.note("details", fault, what=self._invocation.name)
        forked = self._pid != process_id()
        if forked:
            shown[semconv.FORKED_FROM] = self._pid
        self._settle(ending.outcome, self._record(ending.outcome, shown, name, forked=forked))

    # --- while it runs -------------------------------------------------------------------------

    def look_after(self) -> None:
        """Record what it has printed, and keep its intent where it holds nothing back."""
        with self._mutex:
            if self._ended or self._pid != process_id():
                return
            self._follow_up()
            self._renew()

    def _follow_up(self) -> None:
        news = self._output.news() if self._output is not None and self._kind == "command" else ""
        if news:
            parts = self._parts() | {"at": msgspec.structs.replace(self._at, time=time.time_ns())}
            self._logger.log(f"{self._kind}.output", _ACTION, **parts, shown={semconv.OUTPUT: news})

    def _renew(self) -> None:
        intent = self._intent
        if intent is not None and intent.holds_back:
            record = self._record("unknown", self._shown)  # with what was said of it since
            if record is not None:
                intent.renew(record)

    # --- records -------------------------------------------------------------------------------

    def _parts(self) -> dict[str, Any]:
        return {"at": self._at, "target": self._target, "log": _LOG, **self._decision.texts()}

    def _record(
        self, outcome: Outcome, shown: dict[str, Any], error: str = "", *, forked: bool = False
    ) -> AuditRecord | None:
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

    def _notes(self) -> Notes | None:
        """Return what the application has said of the work; that of a request is the request's."""
        scope = None if self._at.context is None else self._at.context.scope
        return scope.notes if isinstance(scope, SystemScope) else None

    def _settle(self, outcome: Outcome, record: AuditRecord | None) -> None:
        logger, intent = self._logger, self._intent
        # In a child that was forked in it, the intent is the parent's.
        if intent is None or self._pid != process_id():
            if record is not None:
                logger.emit(record, at=self._at)
            return
        self._intent = None
        logger.settle(intent.handle, outcome, None if record is None else [record])
        if record is not None:
            logger.span_event(record, self._at)
