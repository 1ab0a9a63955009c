"""The transaction buffer: holds captured changes until the database has said how their transaction ended.

Framework-neutral. An instrumentor keeps one buffer for each database connection and tells it what the
connection does; the records are built once, before the commit, and are on disk before the commit is sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from otel_audit.audit_context import Moment
from otel_audit.audit_record import AuditRecord, Outcome, new_record_id
from otel_audit.forks import process_id
from otel_audit.interruptions import faults
from otel_audit.pipeline import provider
from otel_audit.pipeline.failures import Failures
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.pipeline.lone_records import LoneRecords
from otel_audit.pipeline.record_heads import Made, RecordHeads, whole
from otel_audit.pipeline.span_event import MAX_EVENTS


class Pending(Protocol):
    """A captured change, cheap to hold; its records are built when the outcome is known or about to be."""

    @property
    def moment(self) -> Moment:
        """When it happened, under which context and span."""
        ...

    def build(self, logger: AuditLogger, outcome: Outcome, transaction: str) -> Iterable[AuditRecord]:
        """Make its records, none if there is nothing to record. Must not query the database."""
        ...

    def undo(self) -> None:
        """Take back what was remembered of the write, because the database rolled it back."""
        ...


class Waiting(Pending, Protocol):
    """A captured change that can be made smaller while it waits.

    It may have a quicker way to make its records of a success as well: ``build_with(heads, logger,
    transaction)`` as one of many alike, with what they share encoded once
    (:mod:`otel_audit.pipeline.record_heads`), and ``build_alone(lone, logger, transaction)``
    (:mod:`otel_audit.pipeline.lone_records`).
    """

    def shorten(self) -> None:
        """Let go of what no record carries."""
        ...


class _Intent:
    __slots__ = ("events", "handle", "logger")

    def __init__(self, logger: AuditLogger, handle: int, events: list[tuple[Made, Moment]]) -> None:
        self.logger = logger
        self.handle = handle
        self.events = events


class TransactionBuffer:
    """What one database connection has written since its transaction began.

    Args:
        logger: keeps the records; default the current pipeline's at the time.
        failures: take what fails in making them; default the logger's.
        keep_failed: record what was rolled back, with the outcome ``failure``.
    """

    def __init__(
        self,
        logger: AuditLogger | None = None,
        failures: Failures | None = None,
        *,
        keep_failed: bool = True,
    ) -> None:
        self.keep_failed = keep_failed
        self._failures = failures
        self._logger = logger
        self._clear()

    def _clear(self) -> None:
        self._pid = process_id()
        self._pendings: list[Pending] = []
        self._marks: list[tuple[object, int]] = []
        self._intent: _Intent | None = None
        self._doubtful: list[Pending] = []
        self._transaction = ""

    def _forget_parent(self) -> None:
        """After a fork inside a transaction: what is held is the parent's, which tells how it ended."""
        if self._pid != process_id():
            self._clear()

    def __len__(self) -> int:
        """The number of changes held."""
        self._forget_parent()
        return len(self._pendings)

    @property
    def transaction(self) -> str:
        """The id on every record of this transaction, made when it is first asked for."""
        self._forget_parent()
        if not self._transaction:
            self._transaction = new_record_id()
        return self._transaction

    # --- inside the transaction ----------------------------------------------------------------

    def add(self, pending: Pending) -> None:
        """Hold a change of the open transaction."""
        self._forget_parent()
        self._pendings.append(pending)

    def holds(self, pending: Pending) -> bool:
        """Say whether a change is held."""
        return any(held is pending for held in self._pendings)

    def doubt(self, pending: Pending) -> None:
        """Say of a change held that nobody knows whether it was made: no commit makes it a ``success``."""
        self._doubtful.append(pending)

    def is_last(self, pending: Pending, position: int) -> bool:
        """Say whether what was added at ``position`` is still held, and no savepoint stands behind it."""
        self._forget_parent()
        if position >= len(self._pendings) or self._pendings[position] is not pending:
            return False
        return not self._marks or self._marks[-1][1] <= position

    def savepoint(self, sid: object) -> None:
        """Remember where a savepoint stands."""
        self._forget_parent()
        self._marks.append((sid, len(self._pendings)))

    def rollback_to(self, sid: object) -> None:
        """Fail what came after a savepoint; the savepoint stays and can be rolled back to again."""
        self._forget_parent()
        position = self._position(sid)
        if position is None:
            return
        length = self._marks[position][1]
        try:
            self._fail(self._pendings[length:])
        except faults():
            self._forget_after(position, length)
            raise
        self._forget_after(position, length)

    def _forget_after(self, position: int, length: int) -> None:
        del self._marks[position + 1 :]
        del self._pendings[length:]

    def release(self, sid: object) -> None:
        """Forget a savepoint; what came after it belongs to what encloses it."""
        self._forget_parent()
        position = self._position(sid)
        if position is not None:
            del self._marks[position:]

    def is_outermost(self, sid: object) -> bool:
        """Say whether no savepoint stands around the last one of this name."""
        return self._position(sid) == 0

    def _position(self, sid: object) -> int | None:
        for position in range(len(self._marks) - 1, -1, -1):
            if self._marks[position][0] == sid:
                return position
        return None

    # --- its end ---------------------------------------------------------------------------------
    # Each of these may be interrupted by an exception of the application's, and is then called once more.

    def before_commit(self) -> None:
        """Write the intents of all changes, in one go; to be called before COMMIT is sent.

        Raises:
            AuditError: they cannot be kept and ``on_error`` is ``fail_closed``: the commit must not happen.
        """
        self._forget_parent()
        if not self._pendings:
            return
        if self._intent is not None:  # of a commit that did not come to pass
            self._intent.logger.settle(self._intent.handle, "failure", [])
            self._intent = None
        if self._doubtful:
            self._keep_doubtful()
        self._intent = self._intend(self._pendings, self.transaction)

    def _keep_doubtful(self) -> None:
        logger, doubtful = self.logger, self._doubtful
        held = [pending for pending in self._pendings if any(pending is one for one in doubtful)]
        if logger is not None and held:
            logger.keep([record for record, _ in self._build(held, logger, "unknown", self.transaction)])
        self._pendings = [pending for pending in self._pendings if not any(pending is one for one in held)]
        self._doubtful = []

    def committed(self) -> None:
        """The database has committed."""
        self._forget_parent()
        if not self._pendings:
            self._reset()
            return
        if self._intent is None:  # a commit nobody announced: SQL text, or the driver's own
            self.before_commit()
        self._settle("success")

    def unknown(self) -> None:
        """The answer to COMMIT was lost: nobody knows."""
        self._forget_parent()
        if not self._pendings:
            self._reset()
            return
        if self._intent is None:
            self.before_commit()
        self._settle("unknown")

    def rolled_back(self) -> None:
        """The database has rolled back, or refused to commit."""
        self._forget_parent()
        pendings, intent = self._pendings, self._intent
        if not pendings:
            self._reset()
            return
        if intent is None:
            self._fail_and_clear(pendings)
            return
        try:
            self._fail_intended(pendings, intent)
        except faults():
            self._clear()
            raise
        self._clear()

    def _fail_intended(self, pendings: list[Pending], intent: _Intent) -> None:
        transaction, logger = self.transaction, intent.logger
        self._undo(pendings, logger)
        # Built again: what refused the commit was not known when the intent was written.
        built = self._build(pendings, logger, "failure", transaction) if self.keep_failed else []
        logger.settle(intent.handle, "failure", [record for record, _ in built])
        for record, at in built[:MAX_EVENTS]:
            logger.span_event(record, at)

    def _reset(self) -> None:
        if self._marks or self._transaction or self._intent is not None:
            self._clear()

    def _fail_and_clear(self, pendings: list[Pending]) -> None:
        try:
            self._fail(pendings)
        except faults():
            self._clear()
            raise
        self._clear()

    def _settle(self, outcome: Outcome) -> None:
        intent = self._intent
        if intent is None:
            self._clear()
            return
        try:
            intent.logger.settle(intent.handle, outcome)
        except faults():
            self._clear()
            raise
        self._clear()
        for record, at in intent.events:
            intent.logger.span_event(_with_outcome(record, outcome), at)

    def _intend(self, pendings: list[Pending], transaction: str) -> _Intent | None:
        logger = self.logger
        if logger is None:
            return None
        built = self._build(pendings, logger, "success", transaction)
        if not built:
            return None
        # Only the events are needed from here on; a large transaction must not be held twice.
        intent = _Intent(logger, 0, built[:MAX_EVENTS])
        try:
            intent.handle = logger.intend([record for record, _ in built])
            return intent
        except BaseException:
            if intent.handle:  # interrupted: nobody else will settle it, and nothing will be sent
                logger.settle(intent.handle, "failure", [])
            raise

    def _fail(self, pendings: list[Pending]) -> None:
        """Record changes that the database rolled back before any commit was sent."""
        logger = self.logger
        self._undo(pendings, logger)
        if not pendings or logger is None or not self.keep_failed:
            return
        # Nothing was committed unrecorded: not even fail_closed may hide the error that rolled back.
        built = self._build(pendings, logger, "failure", self.transaction, may_raise=False)
        if built:
            logger.keep([record for record, _ in built], may_raise=False)
            for record, at in built[:MAX_EVENTS]:
                logger.span_event(record, at)

    # --- autocommit ------------------------------------------------------------------------------

    def intend_now(self, pending: Pending) -> _Intent | None:
        """Write the intent of a statement that commits by itself; to be called before it is sent.

        Raises:
            AuditError: it cannot be kept and ``on_error`` is ``fail_closed``.
        """
        return self._intend([pending], new_record_id())

    def settle_now(
        self, intent: _Intent | None, pending: Pending | None, outcome: Outcome, *more: Pending
    ) -> None:
        """Say how a statement that commits by itself ended.

        Interrupted, it may be called once more: an intent is settled once.

        Args:
            intent: what :meth:`intend_now` gave; None if there was none, and the records are made now.
            pending: what it did, known better now (an INSERT's key); None: what was intended.
            outcome: ``failure`` also takes the pending back.
            more: what else it did.
        """
        logger = intent.logger if intent is not None else self.logger
        if logger is None:
            return
        if outcome == "failure" and pending is not None:
            self._undo([pending], logger)
        built: list[tuple[Made, Moment]] | None = None
        if outcome == "failure" and not self.keep_failed:
            built = []
        elif pending is not None:
            transaction = ""
            if intent is not None and intent.events:
                transaction = whole(intent.events[0][0]).database.transaction
            built = self._build([pending, *more], logger, outcome, transaction or new_record_id())
        if intent is not None:
            logger.settle(intent.handle, outcome, None if built is None else [record for record, _ in built])
        elif built:
            logger.keep([record for record, _ in built])
        events = intent.events if intent is not None and built is None else (built or [])[:MAX_EVENTS]
        for record, at in events:
            logger.span_event(_with_outcome(record, outcome), at)

    @property
    def logger(self) -> AuditLogger | None:
        """What keeps the records: the logger given, or the current pipeline's."""
        return provider.current_logger() if self._logger is None else self._logger

    def _build(
        self,
        pendings: list[Pending],
        logger: AuditLogger,
        outcome: Outcome,
        transaction: str,
        *,
        may_raise: bool = True,
    ) -> list[tuple[Made, Moment]]:
        """Build all records; one that fails is counted and logged, and costs no other one."""
        built: list[tuple[Made, Moment]] = []
        way = ""
        quickly: RecordHeads | LoneRecords | None = None
        if outcome == "success":
            if len(pendings) > 1:
                way, quickly = "build_with", logger.heads()
            else:
                way, quickly = "build_alone", logger.lone_records()
        for pending in pendings:
            try:
                at = pending.moment
                build = None if quickly is None else getattr(pending, way, None)
                if build is None:
                    made = pending.build(logger, outcome, transaction)
                else:
                    made = build(quickly, logger, transaction)
                built.extend([(record, at) for record in made])
            except faults() as error:
                failures = self._failures or logger.failures
                fail = failures.report if may_raise else failures.note
                fail("build", error, what=type(pending).__name__, lost=1)
        return built

    def _undo(self, pendings: list[Pending], logger: AuditLogger | None) -> None:
        for pending in reversed(pendings):
            try:
                pending.undo()
            except faults() as error:
                failures = self._failures or (None if logger is None else logger.failures)
                if failures is not None:
                    failures.note("undo", error, what=type(pending).__name__)


def _with_outcome(record: Made, outcome: Outcome) -> Made:
    if record.outcome == outcome:
        return record
    return msgspec.structs.replace(whole(record), outcome=outcome)
