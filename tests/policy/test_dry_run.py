"""What a policy would have recorded of records that are there."""

from __future__ import annotations

import pytest

from otel_audit import semconv
from otel_audit.audit_record import Target
from otel_audit.config.model import PolicyRule
from otel_audit.policy import Level, Policy
from otel_audit.policy.dry_run import dry_run, kind_of
from tests.trail import record


@pytest.mark.parametrize("kind", semconv.WORK_EVENTS)
def test_a_policy_decides_about_every_record_of_work(kind: str) -> None:
    for name in semconv.WORK_EVENTS[kind]:
        if name != "task.stale":
            assert kind_of(record(name, "EXECUTE", at=1)) == ("command" if kind == "job" else kind)


def test_that_a_task_is_stale_is_said_by_whoever_asks() -> None:
    assert kind_of(record("task.stale", "EXECUTE", at=1)) is None


def test_what_a_task_has_printed_so_far_is_counted_with_it() -> None:
    names = ("task.start", "task.output", "task.run")
    records = [record(name, "EXECUTE", at=1, target=Target("shop.ship", "1")) for name in names]
    found = dry_run(Policy([PolicyRule(task="shop.*", level="none")]), records)
    assert (found.dropped, found.others) == (3, 0)
    assert {each.difference.after for each in found.counted} == {Level.NONE}
