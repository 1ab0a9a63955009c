"""A task leaves two records, of its publication and of its run, and does what it does for its publisher."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.beat import Scheduler
from celery.exceptions import OperationalError
from celery.result import AsyncResult
from celery.signals import after_task_publish

from otel_audit.audit_context import current_context
from otel_audit.audit_record import Actor, AuditRecord, Origin
from otel_audit.config.model import AuditConfig, CeleryConfig, ContextConfig
from otel_audit.errors import AuditError
from otel_audit.testing import CapturedAudit
from tests.instrumentation.celery.conftest import KEYS, config, done, visit, worker
from tests.instrumentation.celery.shop import (
    add,
    again,
    app,
    bill,
    fail,
    ignore,
    leave,
    note,
    poll,
    reject,
    retry,
)
from tests.services import wait_until


def tasks(captured: CapturedAudit) -> list[tuple[str, str, str]]:
    """Event, state and outcome of each record of a task, in the order in which it was kept."""
    return [
        (record.event_name, str(record.attributes["task.state"]), record.outcome)
        for record in captured
        if record.event_name.startswith("task.")
    ]


def test_a_task_is_published_by_somebody_and_run_by_a_worker(captured: CapturedAudit) -> None:
    with visit("ana"):
        result = bill.delay(7)
    done(captured, result)
    published = captured.one(event_name="task.publish")
    assert (published.action, published.outcome, published.log) == ("PUBLISH", "success", "activity")
    assert str(published.target) == f"shop.bill/{result.id}"
    assert (published.actor.id, published.request.id) == ("ana", "r-ana")
    assert published.attributes == {
        "task.id": result.id,
        "task.state": "PENDING",
        "task.queue": "celery",
        "task.retries": 0,
    }
    run = captured.one(event_name="task.run")
    assert (run.action, run.outcome, str(run.target)) == ("EXECUTE", "success", f"shop.bill/{result.id}")
    assert (run.actor.type, run.actor.id, run.actor.on_behalf_of) == ("system", "shop.bill", "ana")
    assert run.origin == Origin("ana", "", "r-ana")
    assert (run.tenant, run.request.parent) == ("acme", "r-ana")
    assert run.attributes["task.state"] == "SUCCESS"
    assert isinstance(run.attributes["duration"], float)
    assert isinstance(run.attributes["process.pid"], int)
    assert run.attributes["task.worker"]
    start = captured.one(event_name="task.start")
    assert (start.attributes["task.state"], start.target) == ("STARTED", run.target)
    inside = captured.one(event_name="shop.invoice.create")
    assert inside.request.id == run.request.id == start.request.id != ""
    assert (inside.actor, inside.origin, inside.tenant) == (run.actor, run.origin, "acme")


def runs_of(captured: CapturedAudit, name: str) -> list[AuditRecord]:
    return [
        record
        for record in captured.find(event_name="task.run")
        if record.target is not None and record.target.type == name
    ]


def run_of(captured: CapturedAudit, task_id: str) -> AuditRecord:
    return captured.one(event_name="task.run", target=f"shop.bill/{task_id}")


def test_a_task_that_fails_says_why(captured: CapturedAudit) -> None:
    result = fail.delay("no stock of 7")
    done(captured, result)
    record = captured.one(event_name="task.run")
    assert (record.outcome, record.error) == ("failure", "KeyError")
    assert record.attributes["task.state"] == "FAILURE"
    assert record.attributes["exception.type"] == "KeyError"
    assert record.attributes["exception.message"] == "no stock of 7"
    assert "shop.py" in str(record.attributes["exception.stacktrace"])


def test_each_try_of_a_task_is_a_publication_and_a_run(captured: CapturedAudit) -> None:
    with visit("ana"):
        result = retry.delay()
    done(captured, result)
    assert result.get() == "done"
    assert sorted(tasks(captured)) == sorted(
        [("task.publish", "PENDING", "success"), ("task.start", "STARTED", "success")] * 3
        + [("task.retry", "RETRY", "failure")] * 2
        + [("task.run", "SUCCESS", "success")]
    )
    assert {record.attributes["task.id"] for record in captured if record.event_name != "shop.try"} == {
        result.id
    }
    first, second = captured.find(event_name="task.retry")
    assert (first.error, first.attributes["exception.message"]) == ("ConnectionError", "busy")
    assert [first.attributes["task.retries"], second.attributes["task.retries"]] == [0, 1]
    tried = captured.find(event_name="shop.try")
    assert [record.actor.on_behalf_of for record in tried] == ["ana"] * 3, "each try is for her"
    assert len({record.request.id for record in tried}) == 3


def test_a_task_that_asks_to_be_called_again_has_not_failed(captured: CapturedAudit) -> None:
    result = poll.delay()
    done(captured, result)
    assert captured.one(event_name="task.retry").outcome == "success"


@pytest.mark.parametrize(
    ("task", "state", "outcome", "error"),
    [(ignore, "IGNORED", "success", "Ignore"), (reject, "REJECTED", "failure", "Reject")],
)
def test_what_a_task_says_of_itself_is_its_state(
    captured: CapturedAudit, task: Any, state: str, outcome: str, error: str
) -> None:
    task.delay()
    result = bill.delay(1)
    done(captured, result)
    record = captured.one(event_name="task.run", target=f"{task.name}/{task_id(captured, task.name)}")
    assert (record.attributes["task.state"], record.outcome, record.error) == (state, outcome, error)


def task_id(captured: CapturedAudit, name: str) -> str:
    (record,) = [
        each
        for each in captured.find(event_name="task.publish")
        if each.target is not None and each.target.type == name
    ]
    return str(record.attributes["task.id"])


def test_a_task_that_leaves_its_process_has_failed(captured: CapturedAudit) -> None:
    with pytest.raises(SystemExit):
        leave.apply(throw=True)
    record = captured.one(event_name="task.run")
    assert (record.outcome, record.error, record.attributes["task.state"]) == (
        "failure",
        "SystemExit",
        "FAILURE",
    )
    assert current_context() is None


def test_what_the_application_says_of_its_task_stands_on_its_record(captured: CapturedAudit) -> None:
    note.apply()
    record = captured.one(event_name="task.run")
    assert (record.slug, record.attributes["colour"]) == ("month-end", "red")
    assert [str(target) for target in record.related] == ["shop.Order/7"]
    assert record.attributes["task.state"] == "SUCCESS"


def test_when_it_may_run_stands_on_both_records(captured: CapturedAudit) -> None:
    eta = datetime.now(UTC) + timedelta(seconds=1)
    result = bill.apply_async((1,), eta=eta, expires=eta + timedelta(hours=1))
    counted = bill.apply_async((2,), countdown=1, expires=60, queue="orders", priority=3)
    for each in captured.find(event_name="task.publish"):
        assert datetime.fromisoformat(str(each.attributes["task.eta"])) > datetime.now(UTC) - timedelta(
            hours=1
        )
        assert each.attributes["task.expires"]
    first, second = captured.find(event_name="task.publish")
    assert datetime.fromisoformat(str(first.attributes["task.eta"])) == eta
    assert "task.countdown" not in first.attributes
    assert (second.attributes["task.countdown"], second.attributes["task.queue"]) == (1.0, "orders")
    done(captured, result)
    done(captured, counted)
    assert run_of(captured, result.id).attributes["task.eta"] == first.attributes["task.eta"]
    assert run_of(captured, counted.id).attributes["task.queue"] == "orders"


def test_a_task_is_published_by_its_name_alone(captured: CapturedAudit) -> None:
    with visit("ana"):
        result = app.send_task("shop.bill", (7,))
    done(captured, result)
    assert captured.one(event_name="task.publish").actor.id == "ana"
    assert run_of(captured, result.id).actor.on_behalf_of == "ana"


CANVASES: dict[str, Callable[[], Any]] = {
    "chain": lambda: chain(add.s(1, 1), add.s(1), add.s(1)),
    "group": lambda: group(add.s(1, 1), add.s(2, 2), app=app),
    "chord": lambda: chord([add.s(1, 1), add.s(2, 2)], add.s(), app=app),
    "link": lambda: add.s(1, 1).on_error(fail.si()).set(link=add.s(5)),
    "map": lambda: add.starmap([(1, 2), (3, 4)]),
    "chunks": lambda: add.chunks([(1, 2), (3, 4)], 1).group(),
}


@pytest.mark.parametrize("canvas", CANVASES)
def test_all_parts_of_a_canvas_are_for_whoever_began_it(captured: CapturedAudit, canvas: str) -> None:
    with visit("ana"):
        result = CANVASES[canvas]().apply_async()
    worker()
    result.get(timeout=30, interval=0.02, disable_sync_subtasks=False)
    last = bill.delay(1)
    done(captured, last)
    runs = [run for run in captured.find(event_name="task.run") if str(run.target) != f"shop.bill/{last.id}"]
    assert len(runs) >= {"map": 1, "link": 2, "group": 2, "chunks": 2}.get(canvas, 3)
    assert {run.actor.on_behalf_of for run in runs} == {"ana"}
    assert {run.origin for run in runs} == {Origin("ana", "", "r-ana")}
    published = {record.target for record in captured.find(event_name="task.publish")}
    assert {run.target for run in runs} <= published


def test_a_task_that_publishes_itself_carries_no_more_each_time(captured: CapturedAudit) -> None:
    with visit("ana"):
        again.delay(20)
    worker()
    wait_until(lambda: len(runs_of(captured, "shop.again")) == 21, 60, "all have run")
    runs = runs_of(captured, "shop.again")
    assert {run.actor.on_behalf_of for run in runs} == {"ana"}
    published = [each for each in captured.find(event_name="task.publish") if each.actor.id == "shop.again"]
    assert len(published) == 20
    assert all(record.request.id in {run.request.id for run in runs} for record in published)


def test_the_schedule_publishes_as_itself(captured: CapturedAudit) -> None:
    scheduler = Scheduler(app, lazy=True)
    entry = scheduler.Entry(name="nightly", task="shop.bill", schedule=60, args=(1,), app=app)
    result = scheduler.apply_async(entry)
    unknown = scheduler.Entry(name="monthly", task="shop.elsewhere", schedule=60, app=app)
    scheduler.apply_async(unknown, advance=False)
    first, second = captured.find(event_name="task.publish")
    assert first.actor == second.actor == Actor("celery beat", "system")
    assert (first.attributes["task.schedule"], second.attributes["task.schedule"]) == ("nightly", "monthly")
    done(captured, result)
    run = run_of(captured, result.id)
    assert (run.actor.id, run.actor.on_behalf_of) == ("shop.bill", "")
    assert run.origin is not None
    assert run.origin.actor == "celery beat"


def test_called_eagerly_it_is_part_of_what_calls_it(captured: CapturedAudit) -> None:
    with visit("ana"):
        bill.apply((7,))
    record = captured.one(event_name="task.run")
    assert (record.actor.id, record.request.id) == ("ana", "r-ana")
    assert record.attributes["task.eager"] is True
    assert not captured.find(event_name="task.publish")
    assert captured.one(event_name="shop.invoice.create").actor.id == "ana"


def test_always_eager_is_eager(captured: CapturedAudit) -> None:
    app.conf.task_always_eager = True
    try:
        bill.delay(7)
    finally:
        app.conf.task_always_eager = False
    assert tasks(captured) == [("task.start", "STARTED", "success"), ("task.run", "SUCCESS", "success")]


def test_a_task_that_is_called_as_a_function_is_none(captured: CapturedAudit) -> None:
    bill(7)
    assert tasks(captured) == []


def test_without_keys_a_task_is_done_by_the_task(
    celery_audited: Callable[..., AbstractContextManager[CapturedAudit]],
) -> None:
    with celery_audited(AuditConfig(celery=CeleryConfig(enabled=True))) as captured:
        with visit("ana"):
            result = bill.delay(7)
        done(captured, result)
        run = captured.one(event_name="task.run")
        assert (run.actor, run.origin) == (Actor("shop.bill", "system"), None)
        assert captured.one(event_name="task.publish").actor.id == "ana"


def test_switched_off_nothing_is_wrapped_and_nothing_recorded(
    celery_audited: Callable[..., AbstractContextManager[CapturedAudit]],
) -> None:
    before = vars(Celery)["send_task"]
    with celery_audited(AuditConfig(celery=CeleryConfig(enabled=False))) as captured:
        assert vars(Celery)["send_task"] is before
        bill.delay(7)
        bill.apply((7,))
        assert tasks(captured) == []
    with celery_audited():
        assert vars(Celery)["send_task"] is not before
    assert vars(Celery)["send_task"] is before


def test_a_broker_that_is_away_leaves_a_record_of_the_failure(captured: CapturedAudit) -> None:
    away = Celery("away", broker="redis://127.0.0.1:1/0", set_as_current=False)
    away.conf.update(task_publish_retry=False, broker_transport_options={"socket_connect_timeout": 2})
    with visit("ana"), pytest.raises(OperationalError):
        away.send_task("shop.bill", (7,), task_id="t-1")
    record = captured.one(event_name="task.publish")
    assert (record.outcome, record.error, str(record.target)) == (
        "failure",
        "OperationalError",
        "shop.bill/t-1",
    )
    assert record.actor.id == "ana"
    assert record.attributes["exception.type"] == "kombu.exceptions.OperationalError"


def test_what_cannot_be_published_raises_as_before_and_is_on_record(captured: CapturedAudit) -> None:
    with pytest.raises(Exception, match=r"(?i)serializ|encod"):
        bill.delay(object())
    assert captured.one(event_name="task.publish").outcome == "failure"
    captured.clear()
    with pytest.raises(TypeError):
        app.send_task("shop.bill", "no list")
    record = captured.one(event_name="task.publish")
    assert (record.outcome, record.error) == ("failure", "TypeError")


def test_a_task_that_expired_or_was_revoked_leaves_a_record(captured: CapturedAudit) -> None:
    with visit("ana"):
        expired = bill.apply_async((1,), expires=datetime.now(UTC) - timedelta(seconds=1))
    last = bill.apply_async((2,), countdown=0.5)
    done(captured, last)
    record = run_of(captured, expired.id)
    assert (record.action, record.outcome, record.error) == ("EXECUTE", "failure", "expired")
    assert not captured.find(event_name="task.start", target=f"shop.bill/{expired.id}")
    assert record.attributes["task.state"] == "REVOKED"
    assert (record.actor.on_behalf_of, record.origin) == ("ana", Origin("ana", "", "r-ana"))
    from celery.worker.state import revoked

    revoked.add("t-2")
    bill.apply_async((3,), task_id="t-2")
    last = bill.delay(4)
    done(captured, last)
    revoked.discard("t-2")
    assert run_of(captured, "t-2").error == "revoked"


def test_a_task_that_no_worker_knows_leaves_a_record(captured: CapturedAudit) -> None:
    result = app.send_task("shop.elsewhere")
    last = bill.delay(1)
    done(captured, last)
    record = captured.one(event_name="task.run", target=f"shop.elsewhere/{result.id}")
    assert (record.outcome, record.error) == ("failure", "NotRegistered")
    assert record.attributes["task.state"] == "REJECTED"
    assert isinstance(AsyncResult(result.id, app=app).state, str)


def test_queues_that_are_not_named_are_told_nothing(
    celery_audited: Callable[..., AbstractContextManager[CapturedAudit]],
) -> None:
    only_orders = ContextConfig(keys=KEYS.keys, queues=["orders"])
    with celery_audited(config(context=only_orders)) as captured:
        with visit("ana"):
            told, untold = bill.apply_async((1,), queue="orders"), bill.delay(2)
        done(captured, told)
        done(captured, untold)
        assert run_of(captured, told.id).actor.on_behalf_of == "ana"
        assert run_of(captured, untold.id).actor.on_behalf_of == ""


def test_the_first_protocol_of_celery_has_no_headers_and_its_tasks_have_their_records(
    captured: CapturedAudit,
) -> None:
    old = Celery("old", broker="memory://", set_as_current=False)
    old.conf.task_protocol = 1
    with visit("ana"):
        result = old.send_task("shop.bill", (7,))
    record = captured.one(event_name="task.publish")
    assert (record.outcome, record.actor.id, str(record.target)) == (
        "success",
        "ana",
        f"shop.bill/{result.id}",
    )
    done(captured, result)
    assert run_of(captured, result.id).actor == Actor("shop.bill", "system")


def test_under_fail_closed_what_cannot_be_recorded_is_not_published(
    celery_audited: Callable[..., AbstractContextManager[CapturedAudit]],
) -> None:
    sent: list[str] = []

    def after(sender: str = "", **_: Any) -> None:
        sent.append(sender)

    after_task_publish.connect(after, weak=False)
    try:
        with celery_audited(config(on_error="fail_closed")) as captured:
            bill.delay(1)
            captured.pipeline.spool.close()
            with pytest.raises(AuditError):
                bill.delay(2)
            assert add.apply((1, 2)).get() == 3, "what is delivered runs"
    finally:
        after_task_publish.disconnect(after)
    assert sent == ["shop.bill"]
