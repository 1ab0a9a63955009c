"""RQ by the protocol of ``otel_audit.tasks``: a real worker over a real Redis."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from rq import Queue, Retry

from otel_audit.audit_record import AuditRecord, Origin
from otel_audit.config.model import AuditConfig, RQConfig
from otel_audit.instrumentation.rq import RQAuditInstrumentor
from otel_audit.propagation import refusals
from tests.audited import audited
from tests.e2e.running import Process, command
from tests.instrumentation.celery.conftest import KEYS, visit
from tests.instrumentation.celery.workers import workers
from tests.services import RedisServer

TOML = """\
[rq]
enabled = true

[context]
queues = ["orders"]
"""
CONFIG = AuditConfig(rq=RQConfig(enabled=True), context=KEYS)


@pytest.mark.timeout(200)
def test_a_worker_does_a_job_for_whoever_enqueued_it(tmp_path: Path, redis: RedisServer) -> None:
    with workers(tmp_path, redis, TOML) as place, redis.client() as client:
        orders = Queue("orders", connection=client)
        with audited(RQAuditInstrumentor(), CONFIG) as captured:
            with visit("ana"):
                done = orders.enqueue("tests.instrumentation.rq.work.bill", 7, password="hunter2")
                failed = orders.enqueue("tests.instrumentation.rq.work.fail", retry=Retry(max=1))
            published = captured.one(
                event_name="task.publish", target=f"tests.instrumentation.rq.work.bill/{done.id}"
            )
            captured.assert_no_secrets("hunter2")
        stranger = orders.enqueue(
            "tests.instrumentation.rq.work.bill", 8, meta={"otel-audit-context": "root"}
        )
        process = Process(
            [
                command("opentelemetry-instrument"),
                command("rq"),
                "worker",
                "--burst",
                f"--url={redis.url}",
                "orders",
            ],
            place.environment,
            tmp_path / "rq.log",
            cwd=tmp_path,
        )
        place.processes.append(process)
        assert process.wait(120) == 0, process.output()
        (run,) = place.wait_for(done, "task.run")
        (retried,) = place.wait_for(failed, "task.retry")
        (failure,) = place.wait_for(failed, "task.run")
        (unknown,) = place.wait_for(stranger, "task.run")
        made = [each for each in place.sink.records if each.event_name == "shop.invoice.create"]
    assert (published.outcome, published.actor.id) == ("success", "ana")
    assert published.attributes["task.queue"] == "orders"
    assert (run.outcome, for_whom(run), run.origin) == ("success", "ana", Origin("ana", "", "r-ana"))
    assert (retried.error, failure.error, failure.outcome) == ("KeyError", "KeyError", "failure")
    assert (for_whom(retried), for_whom(failure)) == ("ana", "ana")
    assert (for_whom(unknown), unknown.origin) == ("", None)
    assert {each.request.id for each in made} == {run.request.id, unknown.request.id}
    assert not refusals


def for_whom(record: AuditRecord) -> str:
    return record.actor.on_behalf_of


def test_a_job_that_runs_at_once_is_part_of_what_enqueues_it(redis: RedisServer) -> None:
    with redis.client() as client, audited(RQAuditInstrumentor(), CONFIG) as captured, visit("ana"):
        Queue("orders", connection=client, is_async=False).enqueue("tests.instrumentation.rq.work.bill", 7)
    assert [record.event_name for record in captured] == ["task.start", "shop.invoice.create", "task.run"]
    assert {record.actor.id for record in captured} == {"ana"}


def test_the_instrumentor_is_a_proof_of_the_protocol() -> None:
    """Less than 60 lines, as the documents say."""
    module = inspect.getmodule(RQAuditInstrumentor)
    assert module is not None
    source = inspect.getsource(module)
    assert len(source[source.index("class RQAuditInstrumentor") :].splitlines()) < 60
