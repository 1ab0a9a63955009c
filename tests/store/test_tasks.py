"""Tasks by their state: what the records of publishing and running them say together."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any, Final

import pytest

from otel_audit.audit_record import Actor, AuditRecord, Request, Target, new_record_id
from otel_audit.errors import QueryError
from otel_audit.store.client import StoreClient
from otel_audit.store.query import AuditStore
from otel_audit.store.tasks import TaskEntry, stale_id
from tests.trail import land, record

NOW: Final = int(datetime.datetime.now(datetime.UTC).timestamp()) * 10**9
HOUR: Final = 3600 * 10**9
"""The unit of all ages: the suite may take most of one from when this is imported."""
ANA: Final = Actor("7", "user", "ana")


def told(task: str, event: str, hours_ago: float, outcome: Any = "success", **attributes: Any) -> AuditRecord:
    """Make one record of a task."""
    publishes = event == "publish"
    return record(
        f"task.{event}",
        "PUBLISH" if publishes else "EXECUTE",
        at=NOW - int(hours_ago * HOUR),
        log="activity",
        outcome=outcome,
        error="Timeout" if outcome == "failure" else "",
        actor=ANA if publishes else Actor("shop.ship", "system"),
        target=Target("shop.ship", task),
        request=Request("r-1" if publishes else f"t-{task}", "POST" if publishes else ""),
        attributes={"task.queue": "orders", "task.state": event.upper(), **attributes},
    )


TRAIL: Final = {
    "waiting": [told("waiting", "publish", 90)],
    "later": [told("later", "publish", 90, **{"task.eta": "2199-01-01T00:00:00+00:00"})],
    "refused": [told("refused", "publish", 80, "failure")],
    "unsure": [told("unsure", "publish", 85, "unknown")],
    "running": [told("running", "publish", 70), told("running", "start", 69)],
    "done": [told("done", "publish", 60), told("done", "start", 59), told("done", "run", 59, duration=30)],
    "alone": [told("alone", "run", 58, duration=60)],
    "failed": [told("failed", "publish", 50), told("failed", "run", 49, "failure", duration=1)],
    "killed": [told("killed", "start", 48), told("killed", "run", 48, "unknown")],
    "again": [
        told("again", "publish", 40),
        told("again", "start", 39),
        told("again", "retry", 39, "failure"),
        told("again", "publish", 38),
    ],
    "third": [
        told("third", "start", 37),
        told("third", "retry", 37, "failure"),
        told("third", "start", 36),
        told("third", "run", 36),
    ],
    "twice": [
        told("twice", "publish", 35),
        told("twice", "start", 34),
        told("twice", "run", 34, "unknown"),
        told("twice", "start", 30),
        told("twice", "run", 30),
    ],
    "redelivered": [
        told("redelivered", "publish", 35),
        told("redelivered", "start", 34),
        told("redelivered", "start", 29),
    ],
    "skewed": [told("skewed", "publish", 27), told("skewed", "start", 28), told("skewed", "run", 28)],
    "stale": [told("stale", "publish", 200), told("stale", "stale", 140, "unknown")],
    "late": [told("late", "publish", 200), told("late", "stale", 140, "unknown"), told("late", "run", 20)],
}  # fmt: skip
STATES: Final = {
    "waiting": {"waiting", "later", "unsure", "again"},
    "stale": {"stale"},
    "running": {"running", "redelivered"},
    "failed": {"refused", "failed", "killed"},
    "done": {"done", "alone", "third", "twice", "skewed", "late"},
}


@pytest.fixture(scope="module")
def store(client: StoreClient) -> Iterator[AuditStore]:
    """Every record came twice, in no order."""
    records = [each for records in TRAIL.values() for each in records]
    land(client, records)
    land(client, records[::-1])
    with AuditStore(client.config) as store:
        yield store


def ids(found: list[TaskEntry]) -> set[str]:
    return {each.id for each in found}


@pytest.mark.parametrize("state", STATES)
def test_each_task_is_in_one_state(store: AuditStore, state: str) -> None:
    assert ids(store.tasks(state=state)) == STATES[state]


def test_all_tasks_are_listed_once(store: AuditStore) -> None:
    found = store.tasks()
    assert len(found) == len(TRAIL)
    assert [each.since for each in found] == sorted((each.since for each in found), reverse=True)


def test_published_and_never_ran(store: AuditStore) -> None:
    """For sixty hours: a task to run later waits rightly, and one to be tried again since it failed."""
    assert ids(store.tasks(state="waiting", older_than="60h")) == {"waiting", "unsure"}
    assert ids(store.tasks(state="waiting", older_than=datetime.timedelta(hours=30))) == {
        "waiting",
        "unsure",
        "again",
    }


def test_still_running(store: AuditStore) -> None:
    assert ids(store.tasks(state="running", older_than="60h")) == {"running"}


def test_ran_twice(store: AuditStore) -> None:
    """Begun more often than it asked to be: a retry is no second run, nor is a record that was sent twice."""
    assert ids(store.tasks(ran_twice=True)) == {"twice", "redelivered"}
    [twice] = store.tasks(ran_twice=True, state="done")
    assert (twice.runs, twice.retries, twice.ran_twice) == (2, 0, True)


def test_what_is_known_of_a_task(store: AuditStore) -> None:
    found = {each.id: each for each in store.tasks()}
    done = found["done"]
    assert (done.name, done.queue, done.outcome, done.service) == ("shop.ship", "orders", "success", "shop")
    assert (done.published, done.started) == (NOW - 60 * HOUR, NOW - 59 * HOUR)
    assert (done.ended, done.since) == (done.started + 30 * 10**9,) * 2
    assert (done.publisher, done.request_id, done.duration) == (ANA, "r-1", 30)
    assert done.to_dict()["ended"].endswith("Z")
    assert (found["alone"].publisher, found["alone"].published) == (Actor("unknown", "unknown"), 0)
    assert found["failed"].error == "Timeout"
    assert (found["killed"].outcome, found["refused"].error) == ("unknown", "Timeout")
    assert (found["third"].runs, found["third"].retries, found["third"].ran_twice) == (2, 1, False)
    assert found["stale"].since == NOW - 140 * HOUR


def test_tasks_are_found_by_name_queue_and_time(store: AuditStore) -> None:
    assert len(store.tasks(name="shop.*", queue="orders")) == len(TRAIL)
    assert not store.tasks(name="shop.pay")
    assert not store.tasks(queue="mail*")
    assert ids(store.tasks(until=NOW - 100 * HOUR)) == {"stale", "late"}
    assert ids(store.tasks(since=NOW - 25 * HOUR)) == {"late"}
    assert len(store.tasks(limit=3)) == 3


def test_a_mistake_is_explained(store: AuditStore) -> None:
    with pytest.raises(QueryError, match="valid are waiting, stale, running, failed, done"):
        store.tasks(state="lost")
    with pytest.raises(QueryError, match="limit is 0"):
        store.tasks(limit=0)


def test_the_record_of_a_stale_task_has_one_id() -> None:
    """Whoever makes it: the store keeps it once."""
    task = TaskEntry(name="shop.ship", id="\ud800", state="waiting", since=NOW)
    assert stale_id(task, NOW) == stale_id(task, NOW)
    assert stale_id(task, NOW)[:13] == new_record_id(NOW)[:13]
    assert stale_id(task, NOW) != stale_id(task, NOW + HOUR)
