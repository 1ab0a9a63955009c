"""Workers of every pool: who published is known in them, and no run is lost or told twice, also if killed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from otel_audit.audit_record import Actor, Origin
from otel_audit.testing import CapturedAudit
from tests.instrumentation.celery.workers import POOLS, Workers, kill, marked, workers
from tests.rabbitmq import rabbitmq
from tests.services import RedisServer, wait_until

Audited = Callable[..., AbstractContextManager[CapturedAudit]]
GEVENT = {"OTEL_PYTHON_AUTO_INSTRUMENTATION_EXPERIMENTAL_GEVENT_PATCH": "patch_all"}


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_of_any_pool_does_a_task_for_its_publisher(
    tmp_path: Path, redis: RedisServer, celery_audited: Audited, pool: str
) -> None:
    done_for_its_publisher(tmp_path, redis, celery_audited, pool)


@pytest.mark.timeout(400)
def test_a_worker_of_rabbitmq_does_a_task_for_its_publisher(
    tmp_path: Path, redis: RedisServer, celery_audited: Audited
) -> None:
    with rabbitmq() as broker:
        done_for_its_publisher(tmp_path, redis, celery_audited, "prefork", broker)


def done_for_its_publisher(
    directory: Path, redis: RedisServer, celery_audited: Audited, pool: str, broker: str = ""
) -> None:
    with workers(directory, redis, broker=broker) as shop, celery_audited() as captured:
        done, failed, again = shop.send("shop.bill", 7), shop.send("shop.fail"), shop.send("shop.retry")
        shop.start(*POOLS[pool], **(GEVENT if pool == "gevent" else {}))
        (run,) = shop.wait_for(done, "task.run")
        (failure,) = shop.wait_for(failed, "task.run")
        (last,) = shop.wait_for(again, "task.run")
        shop.stop()
        published = captured.one(event_name="task.publish", target=f"shop.bill/{done.id}")
    assert (published.actor.id, published.target) == ("ana", run.target)
    assert (run.actor.id, run.actor.on_behalf_of, run.origin) == (
        "shop.bill",
        "ana",
        Origin("ana", "", "r-ana"),
    )
    assert (run.attributes["task.state"], run.outcome) == ("SUCCESS", "success")
    assert str(run.attributes["task.worker"]).startswith("celery@")
    assert (failure.outcome, failure.error) == ("failure", "KeyError")
    assert (last.attributes["task.retries"], last.actor.on_behalf_of) == (2, "ana")
    assert len(shop.of(again, "task.retry")) == len(shop.of(again, "task.publish")) == 2
    (made,) = [each for each in shop.sink.records if each.event_name == "shop.invoice.create"]
    assert (made.request.id, made.origin, made.tenant) == (run.request.id, run.origin, "acme")
    assert len({record.id for record in shop.sink.records}) == len(shop.sink.records)


def killed_midway(shop: Workers, mark: Path) -> None:
    """Kill the child that runs a task; what is on record says that nobody knows how far it got."""
    mark.unlink(missing_ok=True)
    task = shop.send("shop.sleep", 60, str(mark))
    wait_until(lambda: marked(mark), 60, "the task runs")
    shop.wait_for(task, "task.start")
    kill(marked(mark)[0])
    after = shop.send("shop.bill", 1)  # whoever records something sends what the dead have left
    shop.wait_for(after, "task.run")
    (run,) = shop.wait_for(task, "task.run")
    assert (run.outcome, run.attributes["task.state"]) == ("unknown", "STARTED")
    (start,) = shop.of(task, "task.start")
    assert start.request.id == run.request.id
    assert Counter(record.event_name for record in shop.of(task)) == {"task.start": 1, "task.run": 1}


@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.attack)])
@pytest.mark.timeout(1800)
def test_a_worker_that_is_killed_leaves_the_run_unknown(
    tmp_path: Path, redis: RedisServer, celery_audited: Audited, times: int
) -> None:
    with workers(tmp_path, redis) as shop, celery_audited():
        shop.start(*POOLS["prefork"])
        for _ in range(times):
            killed_midway(shop, tmp_path / "mark")
        shop.stop()
        assert len({record.id for record in shop.sink.records}) == len(shop.sink.records)


def test_a_task_that_is_delivered_again_is_a_second_run(
    tmp_path: Path, redis: RedisServer, celery_audited: Audited
) -> None:
    """With ``acks_late`` the broker gives what nobody acknowledged to the next worker."""
    mark = tmp_path / "mark"
    with workers(tmp_path, redis) as shop, celery_audited():
        first = shop.start("--pool=solo", SHOP_ACKS_LATE="1", SHOP_VISIBILITY="1")
        task = shop.send("shop.sleep", 3, str(mark))
        wait_until(lambda: marked(mark), 60, "the task runs")
        shop.wait_for(task, "task.start")
        first.kill()
        shop.start("--pool=solo", SHOP_ACKS_LATE="1", SHOP_VISIBILITY="1")
        runs = shop.wait_for(task, "task.run", times=2)
        shop.stop()
    assert sorted(run.outcome for run in runs) == ["success", "unknown"]
    assert len(shop.of(task, "task.start")) == 2
    assert {run.actor.on_behalf_of for run in runs} == {"ana"}, "the same id may come twice"
    (again,) = [run for run in runs if run.outcome == "success"]
    assert again.attributes["task.redelivered"] is True


def test_a_schedule_publishes_by_a_process_of_its_own(tmp_path: Path, redis: RedisServer) -> None:
    with workers(tmp_path, redis) as shop:
        shop.start("--pool=solo", "--beat", f"--schedule={tmp_path / 'schedule'}")
        wait_until(
            lambda: [each for each in shop.sink.records if each.event_name == "task.run"], 60, "it has run"
        )
        shop.stop()
    published = [each for each in shop.sink.records if each.event_name == "task.publish"]
    assert {(each.actor.type, each.actor.id) for each in published} == {("system", "celery beat")}
    assert {each.attributes["task.schedule"] for each in published} == {"nightly"}
    runs = [each for each in shop.sink.records if each.event_name == "task.run"]
    assert {run.origin.actor for run in runs if run.origin} == {"celery beat"}
    assert {run.actor for run in runs} == {Actor("shop.bill", "system")}
