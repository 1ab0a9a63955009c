"""What a task carries is anybody's: no secret of it is kept, nothing of it is called, nobody is forged."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kombu import serialization

from otel_audit import otel_api
from otel_audit.audit_context import current_context
from otel_audit.config.model import AuditConfig, CeleryConfig, ContextConfig
from otel_audit.config.sections.policy import PolicyRule
from otel_audit.propagation import refusals
from otel_audit.propagation.messages import HEADER
from otel_audit.propagation.signed_context import Key, SignedContext, sign
from otel_audit.tasks.recording import Tasks
from otel_audit.tasks.task import Task
from otel_audit.testing import CapturedAudit
from tests.instrumentation.celery.conftest import KEYS, SECRET, config, done, new_id, visit, worker
from tests.instrumentation.celery.shop import Angry, app, bill, fail, say

Audited = Callable[..., AbstractContextManager[CapturedAudit]]
EVERYTHING = config(policy=[PolicyRule(kind=["task"], level="request_response")])


def runs(captured: CapturedAudit) -> list[Any]:
    return captured.find(event_name="task.run")


def test_arguments_and_results_are_recorded_where_a_rule_says_so(celery_audited: Audited) -> None:
    with celery_audited(EVERYTHING) as captured:
        result = bill.delay(7, colour="red")
        done(captured, result)
        published, run = captured.one(event_name="task.publish"), captured.one(event_name="task.run")
    assert published.attributes["arguments"] == {"args": [7], "kwargs": {"colour": "red"}}
    assert run.attributes["arguments"] == published.attributes["arguments"]
    assert run.attributes["task.result"]["invoice"] == "R-7"


def test_without_a_rule_neither_is(captured: CapturedAudit) -> None:
    bill.apply((7,), {"colour": "red"})
    (run,) = runs(captured)
    assert "arguments" not in run.attributes
    assert "task.result" not in run.attributes


def test_a_rule_may_say_that_a_task_is_not_recorded(celery_audited: Audited) -> None:
    with celery_audited(
        config(policy=[PolicyRule(kind=["task"], task=["shop.b*"], level="none")])
    ) as captured:
        with visit("ana"):
            result = bill.delay(7)
        worker()
        result.get(timeout=30, interval=0.02)
        assert not [each for each in captured if each.event_name.startswith("task.")]
        made = captured.one(event_name="shop.invoice.create")
        assert (made.actor.id, made.actor.on_behalf_of) == ("shop.bill", "ana"), "its scope stays"


@pytest.mark.parametrize("said", [{"tenant": "acme"}, {"tenant_from": f"{__name__}:whose"}], ids=str)
def test_a_rule_about_a_tenant_knows_whose_the_task_is(celery_audited: Audited, said: Any) -> None:
    """As records have it: by the configuration, or by the application's function."""
    rule = PolicyRule(kind=["task"], tenant=["acme"], level="none")
    with celery_audited(config(policy=[rule], **said)) as captured:
        bill.apply((7,))
        assert captured.one(event_name="shop.invoice.create").tenant == "acme"
        assert not [each for each in captured if each.event_name.startswith("task.")]


def whose(request: Any) -> str:
    return "acme"


def test_what_a_task_prints_is_recorded_where_a_rule_asks_for_it(celery_audited: Audited) -> None:
    rule = PolicyRule(kind=["task"], level="request_response", output=True)
    with celery_audited(config(policy=[rule])) as captured:
        say.apply(("\x1b[31mdone\x1b[0m, password=hunter2-9f8e",))
        bill.apply((1,))
        first, second = runs(captured)
    assert str(first.attributes["output"]).startswith("done, password=")
    assert "hunter2" not in str(first.attributes)
    assert second.attributes["output"] == ""


SECRETS: dict[str, Callable[[str], tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "by name": lambda s: ((1,), {"password": s}),
    "by position": lambda s: ((1, s), {}),
    "nested": lambda s: (({"card": {"api_key": [s]}},), {}),
    "in a list": lambda s: ((1,), {"rows": [{"token": s}, {"Authorization": f"Bearer {s}"}]}),
    "in a text": lambda s: ((f"postgres://shop:{s}@db/shop",), {}),
    "in an address": lambda s: ((f"https://shop.test/?token={s}",), {}),
    "in a command": lambda s: ((f"deploy --password={s}",), {}),
    "in json": lambda s: ((f'{{"password": "{s}"}}',), {}),
    "in a cookie": lambda s: ((1,), {"headers": {"Cookie": f"sessionid={s}"}}),
    "by a long name": lambda s: ((1,), {"stripe_secret_key": s}),
}


@pytest.mark.parametrize("place", SECRETS)
def test_no_secret_of_an_argument_result_or_exception_is_kept(celery_audited: Audited, place: str) -> None:
    secret = "hunter2-s3cr3t-9f8e7d6c5b4a"
    args, kwargs = SECRETS[place](secret)
    with celery_audited(EVERYTHING) as captured:
        result = bill.apply_async(args, kwargs)
        bill.apply(args, kwargs)
        fail.apply((f"postgres://shop:{secret}@db/shop",))
        done(captured, result)
        captured.assert_no_secrets(secret, "result-secret")
        spool = captured.pipeline.directory
        kept = b"".join(path.read_bytes() for path in spool.rglob("*") if path.is_file())
        assert b"task.run" in kept
        assert secret.encode() not in kept
        assert b"result-secret" not in kept


def test_nothing_of_an_argument_is_called(celery_audited: Audited) -> None:
    """Neither ``__repr__``, which raises and takes a second, nor any attribute."""
    with celery_audited(EVERYTHING) as captured:
        began = time.process_time()
        Angry.looks = 0
        bill_of(Angry(seconds=1), captured)
        assert Angry.looks == 0
        assert time.process_time() - began < 30
        (run,) = runs(captured)
        assert run.attributes["arguments"]["args"] == ["<tests.instrumentation.celery.shop.Angry>"]


def bill_of(order: Any, captured: CapturedAudit) -> None:
    """Run a task as a worker does, with an argument that Celery itself does not look at either."""
    from otel_audit.instrumentation.celery.recorder import CeleryTasks

    part = CeleryTasks(captured.pipeline.config, None)
    task = bill
    task.push_request(id="t-1", delivery_info={}, args=(order,), kwargs={})
    try:
        part.begin(task, "t-1", (order,), {})
        part.end(task, "t-1", (order,), {}, "SUCCESS", order)
    finally:
        task.pop_request()


def test_celery_looks_at_arguments_as_often_as_without_us(celery_audited: Audited) -> None:
    registry: Any = serialization.registry
    registry.register("angry", lambda _: "[[1], {}, {}]", lambda _: [[1], {}, {}], "application/x-angry")
    try:
        looks = []
        for enabled in (False, True):
            Angry.looks = 0
            with celery_audited(config(celery=CeleryConfig(enabled=enabled), policy=EVERYTHING.policy)):
                bill.apply_async((Angry(),), serializer="angry")
            looks.append(Angry.looks)
    finally:
        registry.unregister("angry")
    assert looks[0] == looks[1]


def signed(task: str, key: str = SECRET, **changes: Any) -> str:
    claims: dict[str, Any] = {
        "audience": "queue/celery",
        "expiry": int(time.time()) + 60,
        "initiator": "root",
        "kind": "user",
        "task": task,
    }
    return sign(SignedContext(**(claims | changes)), Key("k1", key))


FORGERIES: dict[str, Callable[[str], Any]] = {
    "another key": lambda task: signed(task, "x" * 32),
    "altered": lambda task: signed(task)[:-5] + "AAAAA",
    "of another task": lambda task: signed("t-0"),
    "of another try": lambda task: signed(task, retry=1),
    "of no task": lambda task: signed(""),
    "expired": lambda task: signed(task, expiry=int(time.time()) - 3600),
    "for ever": lambda task: signed(task, expiry=int(time.time()) + 10**9),
    "for another queue": lambda task: signed(task, audience="queue/payroll"),
    "for a host": lambda task: signed(task, audience="shop:80"),
    "oversized": lambda task: "x" * 1_000_000,
    "no text": lambda task: {"actor": "root"},
    "plain": lambda task: "root",
}


@pytest.mark.parametrize("how", FORGERIES)
def test_no_forged_header_names_anybody(celery_audited: Audited, how: str) -> None:
    """The publisher is not audited, as a stranger with access to the broker would not be: 0 accepted."""
    task_id = new_id()
    result = bill.apply_async((1,), task_id=task_id, headers={HEADER: FORGERIES[how](task_id)}, countdown=0.3)
    with celery_audited() as captured:
        done(captured, result)
        run = captured.one(event_name="task.run")
        assert (run.actor.on_behalf_of, run.origin, run.tenant) == ("", None, "")
        if how != "no text":
            assert captured.one(event_name="context.refused").outcome == "failure"
            assert sum(refusals.values()) >= 1


def test_what_an_application_writes_into_our_header_is_replaced(captured: CapturedAudit) -> None:
    with visit("ana"):
        task_id = new_id()
        result = bill.apply_async((1,), headers={HEADER: signed(task_id)}, task_id=task_id)
    done(captured, result)
    assert captured.one(event_name="task.run").actor.on_behalf_of == "ana"


def test_a_good_header_is_good_for_its_eta(celery_audited: Audited) -> None:
    """Expiry counts from then: a task that waits longer than a context is valid still has its publisher."""
    short = ContextConfig(keys=KEYS.keys, queues=["celery"], queue_lifetime=0)
    with celery_audited(config(context=short)) as captured:
        worker()
        with visit("ana"):
            waiting = bill.apply_async((1,), eta=datetime.now(UTC) + timedelta(seconds=1))
        done(captured, waiting)
        assert captured.one(event_name="task.run").actor.on_behalf_of == "ana"


def test_seen_before_is_refused_if_asked_for_and_a_redelivery_is_not(
    celery_audited: Audited, caplog: pytest.LogCaptureFixture
) -> None:
    once = config(celery=CeleryConfig(enabled=True, once=True))
    otel_api._said.clear()
    for redelivered, known in ((False, False), (True, True)):
        with celery_audited(once) as captured:
            tasks = Tasks("Celery", captured.pipeline.config, once=True)
            task = Task("shop.bill", "t-1", queue="celery", redelivered=redelivered)
            tasks.begin(task, signed("t-1")).end("SUCCESS")
            tasks.begin(task, signed("t-1")).end("SUCCESS")
            first, second = runs(captured)
            assert first.actor.on_behalf_of == "root"
            assert (second.actor.on_behalf_of == "root") is known
            assert refusals == ({} if known else {"replayed": 1})
            assert ("was seen before" in caplog.text) is not known
            refusals.clear()
            caplog.clear()


def test_a_context_that_is_too_long_costs_the_header_alone(captured: CapturedAudit) -> None:
    with visit("a" * 600):
        result = bill.delay(1)
    done(captured, result)
    assert captured.one(event_name="task.run").origin is None
    assert captured.one(event_name="task.publish").actor.id == "a" * 600
    assert not refusals


def test_a_spool_that_cannot_be_written_costs_no_task(tmp_path: Any, celery_audited: Audited) -> None:
    with celery_audited() as captured:
        captured.pipeline.spool.close()
        assert bill.apply((7,)).get()["invoice"] == "R-7"
        assert current_context() is None
        app.send_task("shop.bill", (7,))


def test_only_what_is_configured_is_sent(captured: CapturedAudit) -> None:
    seen: list[Any] = []
    from celery.signals import before_task_publish

    def look(headers: Any = None, **_: Any) -> None:
        seen.append(headers.get(HEADER))

    before_task_publish.connect(look, weak=False)
    try:
        with visit("ana"):
            bill.apply_async((1,), queue="orders")
            app.send_task("shop.bill", (1,), queue="strangers")
        bill.apply_async((1,), queue="orders")
    finally:
        before_task_publish.disconnect(look)
    assert [type(value) for value in seen] == [str, type(None), type(None)]
    assert AuditConfig(celery=CeleryConfig()).celery.enabled is False


class Interrupted(Exception):
    """What a signal handler of the queue raises."""


def test_an_interruption_while_a_run_is_recorded_leaves_no_scope_behind(
    captured: CapturedAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a soft time limit may come at any moment; the task has failed, and the next one is itself."""

    def interrupted(signum: int, frame: Any) -> None:
        raise Interrupted

    def intend(*_: Any) -> int:
        signal.raise_signal(signal.SIGUSR1)
        return 1

    before = signal.signal(signal.SIGUSR1, interrupted)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(captured.pipeline.logger, "intend", intend)
            with pytest.raises(Interrupted):
                bill.apply((1,))
            with pytest.raises(Interrupted):
                Tasks("RQ", captured.pipeline.config).begin(Task("shop.bill", "t-1"))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert current_context() is None
    bill.apply((2,))
    assert [record.actor.id for record in captured.find(event_name="shop.invoice.create")] == ["shop.bill"]
    assert [(record.outcome, record.error) for record in runs(captured)] == [
        ("failure", "Interrupted"),
        ("failure", "Interrupted"),
        ("success", ""),
    ]
