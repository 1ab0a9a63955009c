"""The transaction buffer: what the database says decides what the records say."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from otel_audit.audit_context import Moment, moment
from otel_audit.audit_record import AuditRecord, Database, Outcome, Target
from otel_audit.capture.transactions.transaction_buffer import TransactionBuffer
from otel_audit.errors import AuditError, SpoolError
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.pipeline.provider import AuditPipeline
from otel_audit.testing import capture_audit
from tests.pipeline.spooling import audit_config, spooled_records


class Write:
    """A captured write of one row."""

    def __init__(self, name: str, undone: list[str] | None = None, fails: bool = False) -> None:
        self.moment: Moment = moment()
        self.name = name
        self.fails = fails
        self.builds = 0
        self._undone = [] if undone is None else undone

    def build(self, logger: AuditLogger, outcome: Outcome, transaction: str) -> Iterable[AuditRecord]:
        self.builds += 1
        if self.fails:
            raise RuntimeError("cannot be built")
        return [
            logger.record(
                "shop.order.update",
                "UPDATE",
                at=self.moment,
                outcome=outcome,
                target=Target("shop.Order", self.name),
                database=Database("sqlite", transaction=transaction),
            )
        ]

    def undo(self) -> None:
        self._undone.append(self.name)


@pytest.fixture
def buffer(pipeline: AuditPipeline) -> TransactionBuffer:
    return TransactionBuffer(pipeline.logger)


def outcomes(directory: Path) -> list[tuple[str, str]]:
    """Targets and outcomes as a dead process's spool would be shipped."""
    return [(record.target.id, record.outcome) for record in spooled_records(directory) if record.target]


def test_a_commit_makes_success(buffer: TransactionBuffer, spool_directory: Path) -> None:
    """Before the commit the records are unknown, after it success; one transaction id."""
    for name in "ab":
        buffer.add(Write(name))
    assert not spool_directory.exists()
    buffer.before_commit()
    assert outcomes(spool_directory) == [("a", "unknown"), ("b", "unknown")]
    buffer.committed()
    assert outcomes(spool_directory) == [("a", "success"), ("b", "success")]
    assert len({record.database.transaction for record in spooled_records(spool_directory)}) == 1
    assert len(buffer) == 0


def test_intents_of_a_transaction_are_one_write(
    buffer: TransactionBuffer, monkeypatch: pytest.MonkeyPatch, pipeline: AuditPipeline
) -> None:
    """And its marker is another one."""
    pipeline.logger.emit(*Write("first").build(pipeline.logger, "success", ""))  # opens the segment
    writes: list[int] = []
    real = os.write

    def count(descriptor: int, data: bytes) -> int:
        writes.append(len(data))
        return real(descriptor, data)

    monkeypatch.setattr(
        "otel_audit.pipeline.spool.writer.os.write",
        count,
    )
    for number in range(200):
        buffer.add(Write(str(number)))
    buffer.before_commit()
    buffer.committed()
    assert len(writes) == 2
    assert writes[1] < 100


def test_a_rollback_makes_failure_and_takes_back_in_reverse(
    buffer: TransactionBuffer, spool_directory: Path
) -> None:
    """What was remembered of the writes must not outlive them."""
    undone: list[str] = []
    for name in "abc":
        buffer.add(Write(name, undone))
    buffer.rolled_back()
    assert outcomes(spool_directory) == [(name, "failure") for name in "abc"]
    assert undone == ["c", "b", "a"]


def test_a_commit_the_database_refused_is_failure(buffer: TransactionBuffer, spool_directory: Path) -> None:
    """A deferred constraint speaks up at COMMIT, after the intents were written."""
    undone: list[str] = []
    buffer.add(Write("a", undone))
    buffer.before_commit()
    buffer.rolled_back()
    assert outcomes(spool_directory) == [("a", "failure")]
    assert undone == ["a"]


def test_a_lost_answer_is_unknown(buffer: TransactionBuffer, spool_directory: Path) -> None:
    """Nobody knows, and nobody claims to."""
    undone: list[str] = []
    buffer.add(Write("a", undone))
    buffer.before_commit()
    buffer.unknown()
    assert outcomes(spool_directory) == [("a", "unknown")]
    assert undone == []


def test_a_savepoint_rolled_back_fails_what_came_after_it(
    buffer: TransactionBuffer, spool_directory: Path
) -> None:
    """It stays, and can be rolled back to again; a released one belongs to what encloses it."""
    buffer.add(Write("a"))
    buffer.savepoint("s1")
    buffer.add(Write("b"))
    buffer.savepoint("s2")
    buffer.add(Write("c"))
    buffer.release("s2")
    buffer.rollback_to("s1")
    buffer.add(Write("d"))
    buffer.rollback_to("s1")
    buffer.add(Write("e"))
    buffer.release("s1")
    buffer.before_commit()
    buffer.committed()
    assert outcomes(spool_directory) == [
        ("b", "failure"),
        ("c", "failure"),
        ("d", "failure"),
        ("a", "success"),
        ("e", "success"),
    ]
    assert len({record.database.transaction for record in spooled_records(spool_directory)}) == 1


def test_an_unknown_savepoint_changes_nothing(buffer: TransactionBuffer, spool_directory: Path) -> None:
    """One that was made before we looked."""
    buffer.add(Write("a"))
    buffer.rollback_to("never seen")
    buffer.release("never seen")
    buffer.before_commit()
    buffer.committed()
    assert outcomes(spool_directory) == [("a", "success")]


def test_each_transaction_has_its_own_id_and_no_savepoints(
    buffer: TransactionBuffer, spool_directory: Path
) -> None:
    """However the one before ended, one without changes included."""
    buffer.savepoint("s")
    buffer.add(Write("a"))
    buffer.rolled_back()
    buffer.savepoint("empty")
    buffer.before_commit()
    buffer.committed()
    buffer.add(Write("b"))
    buffer.rollback_to("s")
    buffer.rollback_to("empty")
    buffer.before_commit()
    buffer.committed()
    assert outcomes(spool_directory) == [("a", "failure"), ("b", "success")]
    assert len({record.database.transaction for record in spooled_records(spool_directory)}) == 2


def test_failures_may_be_left_out(pipeline: AuditPipeline, spool_directory: Path) -> None:
    """Configured away; what was remembered is taken back all the same."""
    undone: list[str] = []
    buffer = TransactionBuffer(pipeline.logger, keep_failed=False)
    buffer.add(Write("a", undone))
    buffer.rolled_back()
    buffer.add(Write("b", undone))
    buffer.before_commit()
    buffer.rolled_back()
    intent = buffer.intend_now(Write("c", undone))
    buffer.settle_now(intent, None, "failure")
    assert outcomes(spool_directory) == []
    assert undone == ["a", "b"]


def test_a_commit_nobody_announced_is_recorded(buffer: TransactionBuffer, spool_directory: Path) -> None:
    """SQL text or the driver may commit by itself."""
    buffer.add(Write("a"))
    buffer.committed()
    assert outcomes(spool_directory) == [("a", "success")]


def test_autocommit_writes_ahead_and_knows_better_afterwards(
    buffer: TransactionBuffer, spool_directory: Path
) -> None:
    """An INSERT's key comes with the marker; one transaction id for both."""
    intent = buffer.intend_now(Write(""))
    [before] = spooled_records(spool_directory)
    buffer.settle_now(intent, Write("7"), "success")
    [after] = spooled_records(spool_directory)
    assert (before.outcome, after.outcome) == ("unknown", "success")
    assert after.target == Target("shop.Order", "7")
    assert before.database.transaction == after.database.transaction != ""


def test_autocommit_without_an_intent_is_recorded_afterwards(
    buffer: TransactionBuffer, spool_directory: Path
) -> None:
    """The statement has committed either way."""
    buffer.settle_now(None, Write("7"), "success")
    assert outcomes(spool_directory) == [("7", "success")]


def test_a_statement_that_failed_is_taken_back(buffer: TransactionBuffer, spool_directory: Path) -> None:
    """In autocommit, too."""
    undone: list[str] = []
    write = Write("7", undone)
    intent = buffer.intend_now(write)
    buffer.settle_now(intent, write, "failure")
    assert outcomes(spool_directory) == [("7", "failure")]
    assert undone == ["7"]


def test_a_change_that_cannot_be_built_costs_no_other(
    buffer: TransactionBuffer, spool_directory: Path, pipeline: AuditPipeline
) -> None:
    """It is counted, logged, and the commit goes on."""
    for write in (Write("a"), Write("b", fails=True), Write("c")):
        buffer.add(write)
    buffer.before_commit()
    buffer.committed()
    assert outcomes(spool_directory) == [("a", "success"), ("c", "success")]
    assert pipeline.health.capture_failures == {"build": 1}


def test_fail_closed_stops_the_commit(tmp_path: Path) -> None:
    """Nothing unrecorded may be committed; a rollback goes on whatever happens."""
    blocker = tmp_path / "spool"
    blocker.write_text("")
    pipeline = AuditPipeline(audit_config(blocker, on_error="fail_closed"), ship=False)
    buffer = TransactionBuffer(pipeline.logger)
    buffer.add(Write("a"))
    with pytest.raises(SpoolError):
        buffer.before_commit()
    buffer.rolled_back()
    buffer.add(Write("b", fails=True))
    with pytest.raises(AuditError):
        buffer.before_commit()
    buffer.rolled_back()
    assert len(buffer) == 0


def test_events_come_with_the_outcome_and_the_time_of_the_write(buffer: TransactionBuffer) -> None:
    """Not before: a trace must not show a commit that did not happen."""
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("request") as span:
        first, second = Write("a"), Write("b")
        buffer.add(first)
        buffer.savepoint("s")
        buffer.add(second)
        buffer.rollback_to("s")
        buffer.before_commit()
        assert isinstance(span, ReadableSpan)
        assert [event.timestamp for event in span.events] == [second.moment.time]
        buffer.committed()
    assert [(event.timestamp, dict(event.attributes or {})["audit.outcome"]) for event in span.events] == [
        (second.moment.time, "failure"),
        (first.moment.time, "success"),
    ]


def test_a_forked_child_drops_what_its_parent_holds(buffer: TransactionBuffer, spool_directory: Path) -> None:
    """The transaction is the parent's; so are its records."""
    buffer.add(Write("a"))
    pid = os.fork()
    if pid == 0:
        try:
            buffer.before_commit()
            buffer.committed()
            buffer.add(Write("child"))
            buffer.before_commit()
            buffer.committed()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    buffer.before_commit()
    buffer.committed()
    assert sorted(outcomes(spool_directory)) == [("a", "success"), ("child", "success")]


def test_without_a_logger_it_uses_the_pipeline_of_the_time() -> None:
    """Connections live longer than pipelines."""
    buffer = TransactionBuffer()
    buffer.add(Write("before"))
    buffer.before_commit()
    buffer.committed()
    with capture_audit() as captured:
        buffer.add(Write("during"))
        buffer.before_commit()
        buffer.committed()
    assert [record.target.id for record in captured if record.target] == ["during"]
