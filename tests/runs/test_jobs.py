"""``otel_audit.job``: batch work that is no command says who did it, and how it ended."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import otel_audit
from otel_audit import annotate, context, job, record, relate
from otel_audit.audit_context import SystemScope, current_context, enter_scope, leave_scope
from otel_audit.audit_record import Actor, AuditRecord, Target
from otel_audit.config.model import AuditConfig, SpoolConfig
from otel_audit.config.sections.policy import PolicyRule
from otel_audit.errors import AuditError
from otel_audit.pipeline.logger import AuditLogger
from otel_audit.runs import rounds
from otel_audit.testing import CapturedAudit, capture_audit

HERE = __name__


@pytest.fixture
def audit() -> Iterator[CapturedAudit]:
    """Nothing instrumented: a job needs no instrumentor."""
    with capture_audit(AuditConfig()) as captured:
        yield captured


def bill(customer: str = "") -> str:
    record("billing.customer.bill", "BILL", target=Target("shop.Customer", customer))
    return f"billed {customer}"


def ran(audit: CapturedAudit, name: str) -> AuditRecord:
    return audit.one(event_name="job.run", target=f"job/{name}")


def test_a_decorated_function_is_who_acts_and_the_way_through(audit: CapturedAudit) -> None:
    nightly = job("billing.nightly")(bill)
    assert nightly("7") == "billed 7"
    billed, run = audit.one(event_name="billing.customer.bill"), ran(audit, "billing.nightly")
    assert billed.actor == run.actor == Actor("billing.nightly", "system")
    assert billed.request.view == run.request.view == f"{HERE}.bill"
    assert billed.request.id == run.request.id != ""
    assert (run.action, run.outcome, run.error, run.log) == ("EXECUTE", "success", "", "activity")
    assert run.attributes["duration"] >= 0
    assert current_context() is None


def test_without_a_name_it_is_named_after_the_function(audit: CapturedAudit) -> None:
    job(bill)("1")
    job()(bill)("2")
    assert [r.target for r in audit.find(event_name="job.run")] == [Target("job", f"{HERE}.bill")] * 2


def test_a_block_is_a_job_of_the_function_it_stands_in(audit: CapturedAudit) -> None:
    with job("billing.block"):
        bill("7")
    run = ran(audit, "billing.block")
    assert audit.one(event_name="billing.customer.bill").request.id == run.request.id
    assert run.request.view == f"{HERE}.test_a_block_is_a_job_of_the_function_it_stands_in"


def test_each_run_has_a_request_id_of_its_own(audit: CapturedAudit) -> None:
    nightly = job("billing.nightly")(bill)
    nightly("1")
    nightly("2")
    assert len({r.request.id for r in audit.find(event_name="job.run")}) == 2


def test_a_coroutine_is_a_job_from_its_start_to_its_end(audit: CapturedAudit) -> None:
    @job("billing.async")
    async def nightly(name: str, pause: float) -> str:
        await asyncio.sleep(pause)
        record("billing.step", "STEP", attributes={"of": name})
        return name

    async def both() -> list[str]:
        return list(await asyncio.gather(nightly("a", 0.02), nightly("b", 0.01)))

    assert asyncio.iscoroutinefunction(nightly)
    assert asyncio.run(both()) == ["a", "b"]
    steps = {r.request.id for r in audit.find(event_name="billing.step")}
    assert len(steps) == 2
    assert {r.request.id for r in audit.find(event_name="job.run")} == steps


def test_a_block_inside_a_coroutine_is_its_tasks_alone(audit: CapturedAudit) -> None:
    shared = job("billing.shared")

    async def work(name: str) -> None:
        with shared:
            await asyncio.sleep(0.01)
            record("billing.step", "STEP", attributes={"of": name})

    async def both() -> None:
        await asyncio.gather(work("a"), work("b"))

    asyncio.run(both())
    runs = audit.find(event_name="job.run")
    assert {r.request.id for r in audit.find(event_name="billing.step")} == {r.request.id for r in runs}
    assert len(runs) == 2


def test_a_cancelled_job_has_failed(audit: CapturedAudit) -> None:
    @job("billing.slow")
    async def slow() -> None:
        await asyncio.sleep(60)

    async def cancel() -> None:
        task = asyncio.ensure_future(slow())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    run = ran(audit, "billing.slow")
    assert (run.outcome, run.error) == ("failure", "CancelledError")


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("by nothing"),
        KeyboardInterrupt(),
        SystemExit(3),
        SystemExit("no"),
        BaseException("odd"),
        ExceptionGroup("two", [ValueError("a")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_passes_unchanged_and_is_on_record(audit: CapturedAudit, error: BaseException) -> None:
    @job("billing.broken")
    def broken() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        broken()
    assert caught.value is error
    assert error.__context__ is None
    run = ran(audit, "billing.broken")
    assert (run.outcome, run.error) == ("failure", type(error).__name__)
    assert run.attributes["exception.type"].endswith(type(error).__name__)


@pytest.mark.parametrize("code", [None, 0, False])
def test_to_exit_with_zero_is_success(audit: CapturedAudit, code: Any) -> None:
    with pytest.raises(SystemExit), job("billing.exit"):
        raise SystemExit(code)
    run = ran(audit, "billing.exit")
    assert (run.outcome, run.error) == ("success", "")


def test_jobs_nest_with_the_outer_one_as_parent_and_actor(audit: CapturedAudit) -> None:
    inner = job("billing.inner")(bill)
    with job("billing.outer"):
        inner("7")
    outer, nested = ran(audit, "billing.outer"), ran(audit, "billing.inner")
    assert nested.request.parent == outer.request.id
    assert outer.request.parent == ""
    assert nested.actor == outer.actor == Actor("billing.outer", "system")
    assert nested.request.view == f"{HERE}.bill"


def test_a_job_that_calls_itself_is_a_job_within_a_job(audit: CapturedAudit) -> None:
    @job("billing.deep")
    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)

    deep(2)
    runs = audit.find(event_name="job.run")
    assert [r.request.parent for r in runs] == [runs[1].request.id, runs[2].request.id, ""]


def test_a_job_in_a_task_keeps_the_task_as_who_acts(audit: CapturedAudit) -> None:
    token = enter_scope(SystemScope(Actor("shop.tasks.tidy", "system"), "shop.tasks.tidy"))
    try:
        job("billing.nightly")(bill)("7")
    finally:
        leave_scope(token)
    assert ran(audit, "billing.nightly").actor == Actor("shop.tasks.tidy", "system")


def test_methods_of_every_kind_may_be_jobs(audit: CapturedAudit) -> None:
    class Billing:
        rate = 3

        @job("billing.method")
        def method(self, by: int) -> int:
            return self.rate * by

        @job("billing.class")
        @classmethod
        def of_class(cls) -> int:
            return cls.rate

        @staticmethod
        @job("billing.static")
        def static() -> str:
            return "static"

        @job("billing.static.inside")
        @staticmethod
        def inside() -> str:
            return "inside"

    assert Billing().method(2) == 6
    assert Billing.of_class() == 3
    assert (Billing.static(), Billing().inside()) == ("static", "inside")
    assert len(audit.find(event_name="job.run")) == 4
    assert ran(audit, "billing.method").request.view.endswith("Billing.method")


def test_a_partial_and_a_callable_object_may_be_jobs(audit: CapturedAudit) -> None:
    class Nightly:
        def __call__(self) -> str:
            return bill("9")

    assert job("a")(partial(bill, "8"))() == "billed 8"
    assert job("b")(Nightly())() == "billed 9"
    assert len(audit.find(event_name="job.run")) == 2


def test_what_does_not_run_from_start_to_end_is_refused() -> None:
    def rows() -> Iterator[int]:
        yield 1

    async def events() -> AsyncIterator[int]:
        yield 1

    for function in (rows, events):
        with pytest.raises(TypeError, match=r"generator.*Write `with otel_audit\.job"):
            job("billing.rows")(function)
    with pytest.raises(TypeError, match="a class: decorate its methods"):
        job("billing.class")(AuditConfig)
    with pytest.raises(TypeError, match="neither a name nor a function"):
        job(7)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="a block needs a name"), job():
        pass


def test_the_function_looks_as_before() -> None:
    def nightly(customer: str, *, force: bool = False) -> None:
        """Bill them."""

    made = job("billing.nightly")(nightly)
    assert (made.__name__, made.__doc__, made.__wrapped__) == (  # type: ignore[attr-defined]
        "nightly",
        "Bill them.",
        nightly,
    )


def test_what_the_application_says_of_the_job_is_on_its_record(audit: CapturedAudit) -> None:
    with context(reason="ticket 7", tenant="acme"), job("billing.nightly"):
        annotate(slug="nightly-bill", event_code="B7", customers=3)
        relate("shop.Customer/7")
    run = ran(audit, "billing.nightly")
    assert (run.slug, run.event_code, run.reason, run.tenant) == ("nightly-bill", "B7", "ticket 7", "acme")
    assert run.attributes["customers"] == 3
    assert run.related == [Target("shop.Customer", "7")]


def test_a_job_may_say_for_whom_it_acts(audit: CapturedAudit) -> None:
    with job("billing.nightly"), context(on_behalf_of="alice"):
        bill("7")
    assert audit.one(event_name="billing.customer.bill").actor.on_behalf_of == "alice"


def test_a_policy_decides_about_jobs_by_name() -> None:
    rules = [
        PolicyRule(command="noise.*", level="none"),
        PolicyRule(command="billing.*", level="metadata", slug="billing"),
    ]
    with capture_audit(AuditConfig(policy=rules)) as audit:
        job("noise.tick")(bill)("1")
        job("billing.nightly")(bill)("2")
    assert [r.slug for r in audit.find(event_name="job.run")] == ["billing"]
    # Who acted is said all the same.
    assert {r.actor.id for r in audit.find(event_name="billing.customer.bill")} == {
        "noise.tick",
        "billing.nightly",
    }


def test_a_thread_may_run_a_job(audit: CapturedAudit) -> None:
    thread = threading.Thread(target=job("billing.thread")(bill), args=("7",))
    thread.start()
    thread.join()
    assert audit.one(event_name="billing.customer.bill").actor == Actor("billing.thread", "system")
    assert current_context() is None


def test_jobs_in_many_threads_do_not_mix(audit: CapturedAudit) -> None:
    @job("billing.thread")
    def work(number: int) -> None:
        for _ in range(20):
            record("billing.step", "STEP", attributes={"of": number})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    by_request: dict[str, set[int]] = {}
    for step in audit.find(event_name="billing.step"):
        by_request.setdefault(step.request.id, set()).add(step.attributes["of"])
    assert len(by_request) == 8
    assert all(len(numbers) == 1 for numbers in by_request.values())


def test_apscheduler_runs_jobs(audit: CapturedAudit) -> None:
    from apscheduler.schedulers.background import BackgroundScheduler

    done = threading.Event()

    @job("billing.scheduled")
    def scheduled(customer: str) -> None:
        bill(customer)
        done.set()

    scheduler = BackgroundScheduler()
    scheduler.start()
    try:
        scheduler.add_job(scheduled, args=["7"])
        assert done.wait(30)
    finally:
        scheduler.shutdown(wait=True)
    billed, run = audit.one(event_name="billing.customer.bill"), ran(audit, "billing.scheduled")
    assert billed.actor == Actor("billing.scheduled", "system")
    assert billed.request.id == run.request.id


def test_apscheduler_runs_coroutines_as_jobs(audit: CapturedAudit) -> None:
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    async def main() -> None:
        done = asyncio.Event()

        @job("billing.scheduled")
        async def scheduled() -> None:
            await asyncio.sleep(0)
            bill("7")
            done.set()

        scheduler = AsyncIOScheduler()
        scheduler.start()
        scheduler.add_job(scheduled)
        await asyncio.wait_for(done.wait(), 30)
        await asyncio.sleep(0.05)
        scheduler.shutdown()

    asyncio.run(main())
    assert ran(audit, "billing.scheduled").outcome == "success"
    assert audit.one(event_name="billing.customer.bill").actor == Actor("billing.scheduled", "system")


def test_where_audit_is_off_a_job_is_just_a_function() -> None:
    calls: list[Any] = []
    function: Callable[[], None] = job("billing.nightly")(lambda: calls.append(current_context()))
    function()
    with job("billing.block"):
        calls.append(current_context())
    assert calls == [None, None]


def test_job_is_public() -> None:
    assert otel_audit.job is job
    assert "job" in dir(otel_audit)


@pytest.mark.filterwarnings("ignore:capture_audit")
def test_what_cannot_be_recorded_is_not_run_under_fail_closed(tmp_path: Path) -> None:
    ran_at_all = []
    spool = tmp_path / "spool"
    with capture_audit(AuditConfig(on_error="fail_closed", spool=SpoolConfig(block_timeout=0))) as audit:
        nightly = job("billing.nightly")(lambda: ran_at_all.append(1))
        audit.pipeline.spool.close()
        with pytest.raises(AuditError):
            nightly()
        assert current_context() is None
    assert ran_at_all == []
    assert not spool.exists()


@pytest.mark.filterwarnings("ignore:capture_audit")
def test_what_cannot_be_recorded_is_run_under_fail_open() -> None:
    ran_at_all = []
    with capture_audit(AuditConfig(spool=SpoolConfig(block_timeout=0))) as audit:
        audit.pipeline.spool.close()
        job("billing.nightly")(lambda: ran_at_all.append(1))()
        with pytest.raises(ZeroDivisionError), job("billing.broken"):
            raise ZeroDivisionError
    assert ran_at_all == [1]


@pytest.mark.filterwarnings("ignore:capture_audit")
def test_an_error_of_the_jobs_own_is_not_hidden_by_ours() -> None:
    with capture_audit(AuditConfig(on_error="fail_closed", spool=SpoolConfig(block_timeout=0))) as audit:

        @job("billing.broken")
        def broken() -> None:
            audit.pipeline.spool.close()
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            broken()


@pytest.mark.filterwarnings("ignore:capture_audit")
def test_jobs_begun_and_ended_in_other_contexts_do_no_harm(audit: CapturedAudit) -> None:
    block = job("billing.block")
    contextvars.Context().run(block.__enter__)
    block.__exit__(None, None, None)
    outside = current_context()
    assert outside is None
    assert audit.find(event_name="job.run") == []


def test_a_request_id_leads_from_the_job_to_the_change_and_its_trace(audit: CapturedAudit) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("tests")
    with tracer.start_as_current_span("cron") as span:
        job("billing.nightly")(bill)("7")
    trace = f"{span.get_span_context().trace_id:032x}"
    assert {record.trace_id for record in audit} == {trace}
    assert len({record.request.id for record in audit}) == 1


def test_what_a_job_prints_is_recorded_where_a_rule_says_so() -> None:
    rules = [PolicyRule(command="billing.*", level="request_response")]

    async def bill_one(name: str) -> None:
        for _ in range(3):
            print("billing", name)
            await asyncio.sleep(0)

    async def both() -> None:
        made = [job(f"billing.{name}")(bill_one)(name) for name in ("ann", "bob")]
        await asyncio.gather(*made)

    with capture_audit(AuditConfig(policy=rules)) as audit:
        asyncio.run(both())
        with job("other"):
            print("not on record")
    outputs = {str(r.target): r.attributes.get("output") for r in audit.find(event_name="job.run")}
    assert outputs == {
        "job/billing.ann": "billing ann\n" * 3,
        "job/billing.bob": "billing bob\n" * 3,
        "job/other": None,
    }


def test_what_cannot_be_written_again_stays_as_it_is_on_disk(
    audit: CapturedAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An intent that segments wait for is replaced by another one, or stays: a killed job has a record."""
    settled: list[Any] = []

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise ValueError("no record")

    with job("billing.nightly"):
        *_, run = rounds._rounds.due
        with monkeypatch.context() as patch:
            patch.setattr(AuditLogger, "segment", 1_000_000)
            patch.setattr(AuditLogger, "record", fail)
            patch.setattr(AuditLogger, "settle", lambda *args: settled.append(args))
            run.look_after()
    assert not settled
    assert ran(audit, "billing.nightly").outcome == "success"


@pytest.mark.parametrize("said", [{"tenant": "acme"}, {"tenant_from": f"{__name__}:whose"}], ids=str)
def test_a_rule_about_a_tenant_knows_whose_the_job_is(said: Any) -> None:
    """As records have it: by the configuration, or by the application's function."""
    rule = PolicyRule(kind=["command"], tenant=["acme"], level="none")
    with capture_audit(AuditConfig(policy=[rule], **said)) as audit:
        job("billing.nightly")(bill)("7")
    assert audit.one().tenant == "acme"


def whose(request: Any) -> str:
    return "acme"
