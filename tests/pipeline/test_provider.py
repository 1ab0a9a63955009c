"""One pipeline a process: started, found, replaced, stopped, watched from outside."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.util._once import Once

from otel_audit.audit_context import process_scope
from otel_audit.audit_record import Actor, Target
from otel_audit.errors import ConfigurationError
from otel_audit.pipeline import metrics, process_identity, provider
from otel_audit.pipeline.delivery.drain import drain
from otel_audit.pipeline.provider import AuditPipeline
from otel_audit.pipeline.spool import directory as layout
from otel_audit.pipeline.spool.status import read_status
from otel_audit.testing import capture_audit
from tests.pipeline.otlp_sink import Reply, Sink
from tests.pipeline.spooling import NOWHERE, audit_config, make_record, run_script, target_ids, wait_until

Make = Callable[..., AuditPipeline]


@pytest.fixture(autouse=True)
def stopped() -> Iterator[None]:
    """Leave no pipeline running."""
    yield
    provider.stop()


def test_a_started_pipeline_is_the_current_one_until_it_is_stopped(spool_directory: Path, sink: Sink) -> None:
    """Another start stops the one before, which ships what it has."""
    assert provider.current() is None
    first = provider.start(audit_config(spool_directory, sink.url))
    assert provider.current() is first
    first.logger.emit(make_record(first, 1))
    second = provider.start(audit_config(spool_directory, sink.url))
    assert provider.current() is second
    assert target_ids(sink.records) == ["1"]
    provider.stop()
    provider.stop()
    assert provider.current() is None


def test_a_wrong_endpoint_stops_the_start(spool_directory: Path) -> None:
    """And leaves the pipeline before in place."""
    running = provider.start(audit_config(spool_directory))
    with pytest.raises(ConfigurationError, match=r"sink\.endpoint"):
        provider.start(audit_config(spool_directory, "gopher://x"))
    assert provider.current() is running


def test_no_thread_runs_and_no_http_is_imported_before_the_first_record(tmp_path: Path) -> None:
    """A pre-fork server's parent stays single-threaded, and start-up stays quick."""
    run_script(
        """
        pipeline = provider.start(audit_config(Path(sys.argv[1])))
        assert threading.active_count() == 1, threading.enumerate()
        heavy = {"http.client", "ssl", "google.protobuf", "grpc", "django", "sqlalchemy", "requests"}
        assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
        pipeline.logger.emit(make_record(pipeline))
        assert [thread.name for thread in threading.enumerate()][1:] == ["otel-audit-sender"]
        """,
        tmp_path,
    )


def test_flush_says_whether_the_sink_has_everything(spool_directory: Path, sink: Sink) -> None:
    """And waits no longer than told."""
    pipeline = provider.start(audit_config(spool_directory, sink.url))
    assert pipeline.flush(0)
    sink.respond = lambda records: Reply(503)
    pipeline.logger.emit(make_record(pipeline))
    assert not pipeline.flush(0.2)
    sink.respond = lambda records: Reply()
    assert pipeline.flush(20)
    assert target_ids(sink.records) == ["0"]


def test_an_open_intent_holds_up_no_flush(spool_directory: Path, sink: Sink) -> None:
    """What is not settled is not waited for."""
    pipeline = provider.start(audit_config(spool_directory, sink.url))
    handle = pipeline.logger.intend([make_record(pipeline, 1)])
    pipeline.logger.emit(make_record(pipeline, 2))
    assert pipeline.flush(10)
    pipeline.logger.settle(handle, "success")
    assert pipeline.flush(10)
    assert target_ids(sink.records) == ["2", "1"]


def test_twenty_threads_are_shipped_in_one_stream(spool_directory: Path, sink: Sink) -> None:
    """Nothing twice, nothing missing, numbers without a hole, segments rotating meanwhile."""
    pipeline = provider.start(audit_config(spool_directory, sink.url, spool_segment_bytes=16384))

    def work(thread: int) -> None:
        for number in range(50):
            handle = pipeline.logger.intend([make_record(pipeline, thread * 100 + number)])
            pipeline.logger.settle(handle, "success")

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pipeline.flush(30)
    assert sorted(map(int, target_ids(sink.records))) == [t * 100 + n for t in range(20) for n in range(50)]
    numbers = [record.sequence.number for record in sink.records if record.sequence]
    assert numbers == list(range(1, 1002))
    assert len(sink.kept) == len(sink.records)
    assert pipeline.spool.lock is not None
    assert len(layout.list_segments(pipeline.spool.lock.path)) == 1


def test_the_resource_is_that_of_the_process(tmp_path: Path, sink: Sink) -> None:
    """Service name and attributes from the environment, the host, no secret."""
    run_script(
        """
        pipeline = provider.start(audit_config(Path(sys.argv[1]), sys.argv[2]))
        pipeline.logger.emit(make_record(pipeline))
        """,
        tmp_path,
        sink.url,
        env={
            **os.environ,
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test,db.password=hunter2",
        },
    )
    resource = {
        pair.key: pair.value.string_value for pair in sink.requests[0].resource_logs[0].resource.attributes
    }
    assert resource["service.name"] == "shop"
    assert resource["deployment.environment.name"] == "test"
    assert resource["host.name"]
    assert "hunter2" not in str(resource)


# --- capture_audit -----------------------------------------------------------------------------


def test_captured_records_can_be_searched() -> None:
    """By any part; the one expected is given, anything else is an assertion that shows what was recorded."""
    with capture_audit() as captured:
        pipeline = captured.pipeline
        pipeline.logger.emit(make_record(pipeline, 1), make_record(pipeline, 2, outcome="failure"))
        assert len(captured) == 2
        assert captured.one(target="shop.Order/1").outcome == "success"
        assert captured.find(target=Target("shop.Order", "2"))[0].outcome == "failure"
        with pytest.raises(AssertionError, match=r"2 records match.*\n.*shop\.Order/1 success"):
            captured.one(event_name="shop.order.update")
        captured.clear()
        assert captured.records == []
    assert provider.current() is None


def test_capturing_puts_back_what_was_running(spool_directory: Path, sink: Sink) -> None:
    """With its configuration, and none of its spool."""
    running = provider.start(audit_config(spool_directory, sink.url, tenant="t9"))
    with capture_audit() as captured:
        assert provider.current() is captured.pipeline
        captured.pipeline.logger.emit(make_record(captured.pipeline))
        assert captured.records[0].tenant == "t9"
    assert provider.current() is running
    assert running.flush(1)
    assert sink.requests == []


def test_captured_records_stay_readable_after_the_block() -> None:
    """Assertions often stand below it."""
    with capture_audit() as captured:
        captured.pipeline.logger.emit(make_record(captured.pipeline, 5))
    assert target_ids(captured.records) == ["5"]


# --- from outside ------------------------------------------------------------------------------


def test_status_tells_what_waits_and_whose_it_is(spool_directory: Path, pipelines: Make) -> None:
    """Living and dead, and changes nothing."""
    dead = pipelines(audit_config(spool_directory))
    dead.logger.emit(make_record(dead, 1), make_record(dead, 2))
    dead.shutdown(0)
    time.sleep(0.002)  # streams are listed by the millisecond they began in
    alive = pipelines(audit_config(spool_directory))
    record = make_record(alive, 3)
    alive.logger.emit(record)
    alive.logger.intend([make_record(alive, 4)])
    for _ in range(2):
        status = read_status(spool_directory)
        assert (status.exists, status.error, status.waiting) == (True, "", 3)
        assert [(stream.alive, stream.waiting, stream.open_intents) for stream in status.streams] == [
            (False, 2, 0),
            (True, 1, 1),
        ]
        assert status.bytes == sum(stream.bytes for stream in status.streams) > 500
        assert status.streams[1].pid == os.getpid()
        assert status.streams[1].oldest == record.observed_timestamp
    alive.logger.emit(make_record(alive, 5))
    assert read_status(spool_directory).waiting == 4


def test_status_of_no_directory_is_no_error(tmp_path: Path) -> None:
    """Nothing was recorded yet."""
    status = read_status(tmp_path / "none")
    assert (status.exists, status.error, status.waiting, status.streams) == (False, "", 0, [])


def test_status_counts_only_what_is_not_acknowledged(spool_directory: Path, sink: Sink) -> None:
    """Segments go in whole; what was acknowledged in them does not wait."""
    pipeline = provider.start(audit_config(spool_directory, sink.url))
    pipeline.logger.emit(make_record(pipeline, 1))
    assert pipeline.flush(10)
    assert pipeline.status().waiting == 0
    sink.respond = lambda records: Reply(503)
    pipeline.logger.emit(make_record(pipeline, 2))
    assert pipeline.status().waiting == 1
    assert read_status(spool_directory).oldest > 0


def test_draining_leaves_living_processes_alone_and_says_what_is_left(
    spool_directory: Path, pipelines: Make, sink: Sink
) -> None:
    """Dead ones are shipped, with progress."""
    dead = pipelines(audit_config(spool_directory))
    dead.logger.emit(*[make_record(dead, number) for number in range(20)])
    dead.shutdown(0)
    alive = pipelines(audit_config(spool_directory))
    alive.logger.emit(make_record(alive, 100))
    seen: list[int] = []
    config = audit_config(spool_directory, sink.url, sink_batch_records=8)
    result = drain(spool_directory, config, progress=seen.append)
    assert (result.delivered, result.complete, result.remaining) == (20, True, 0)
    assert [stream.alive for stream in result.left.streams] == [True]
    assert target_ids(sink.records) == [str(number) for number in range(20)]
    assert seen == sorted(seen)
    assert seen[-1] == 20


def test_draining_without_a_sink_gives_up_in_time_and_loses_nothing(
    spool_directory: Path, pipelines: Make, sink: Sink
) -> None:
    """With the reason."""
    dead = pipelines(audit_config(spool_directory))
    dead.logger.emit(make_record(dead, 1))
    dead.shutdown(0)
    result = drain(spool_directory, audit_config(spool_directory, NOWHERE), timeout=0.3)
    assert not result.complete
    assert "cannot be reached" in result.error
    assert result.remaining == 1
    assert drain(spool_directory, audit_config(spool_directory, sink.url)).delivered == 1
    assert drain(spool_directory, audit_config(spool_directory, sink.url)).delivered == 0


def test_draining_sets_a_refused_record_aside_and_says_so_in_the_trail(
    spool_directory: Path, pipelines: Make, sink: Sink
) -> None:
    """Its notice is shipped as well."""

    def refuse_seven(records: list[object]) -> Reply:
        return Reply(400) if any('"7"' in str(record) for record in records) else Reply()

    sink.respond = refuse_seven  # type: ignore[assignment]
    dead = pipelines(audit_config(spool_directory))
    dead.logger.emit(*[make_record(dead, number) for number in (6, 7, 8)])
    dead.shutdown(0)
    result = drain(spool_directory, audit_config(spool_directory, sink.url), timeout=20)
    assert (result.complete, result.quarantined) == (True, 1)
    assert target_ids(sink.records) == ["6", "8"]
    assert "audit.record.quarantined" in sink.events
    assert result.left.streams == []
    assert len(result.left.quarantined) == 1


# --- metrics -----------------------------------------------------------------------------------


def test_metrics_tell_what_the_pipeline_counts(spool_directory: Path, sink: Sink) -> None:
    """Through the OpenTelemetry API, read when collected."""
    reader = InMemoryMetricReader()
    meters = MeterProvider(metric_readers=[reader])
    pipeline = provider.start(audit_config(spool_directory, sink.url))
    metrics.register(lambda: pipeline.health, meters.get_meter("test"))

    def values() -> dict[str, float]:
        data = reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: point.value  # type: ignore[union-attr]
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }

    sink.respond = lambda records: Reply(503)
    for number in range(5):
        pipeline.logger.emit(make_record(pipeline, number))
    wait_until(lambda: pipeline.health.failures > 0, "an attempt")
    found = values()
    assert found["audit.records.emitted"] == 5
    assert found["audit.queue.depth"] == 5
    assert found["audit.queue.oldest_age"] > 0
    assert found["audit.delivery.failures"] >= 1
    assert found["audit.records.dropped"] == 0
    sink.respond = lambda records: Reply()
    assert pipeline.flush(20)
    wait_until(lambda: pipeline.health.oldest == 0, "an empty queue")
    found = values()
    assert (found["audit.records.delivered"], found["audit.queue.depth"]) == (5, 0)
    assert found["audit.queue.oldest_age"] == 0
    meters.shutdown()


def test_whoever_forks_imports_what_sending_needs_for_its_children(tmp_path: Path) -> None:
    """Once instead of once a child."""
    run_script(
        """
        pipeline = provider.start(audit_config(Path(sys.argv[1])))
        assert "otel_audit.pipeline.delivery.rounds" not in sys.modules
        pid = os.fork()
        if pid == 0:
            os._exit(0 if "otel_audit.pipeline.delivery.rounds" in sys.modules else 1)
        assert os.waitpid(pid, 0)[1] == 0
        """,
        tmp_path,
    )


def test_the_first_record_waits_for_no_import(spool_directory: Path, sink: Sink) -> None:
    """Only the sender's own thread imports what sending needs: the record is made while somebody waits."""
    run_script(
        """
        import importlib.abc
        imported = []
        class Watch(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                imported.append((threading.current_thread().name, name))
        sys.meta_path.insert(0, Watch())
        pipeline = provider.start(audit_config(Path(sys.argv[1]), sys.argv[2]))
        pipeline.prepare()
        imported.clear()
        pipeline.logger.settle(pipeline.logger.intend([make_record(pipeline, 1)]), "success")
        assert pipeline.flush(20)
        assert ("otel-audit-sender", "otel_audit.pipeline.delivery.rounds") in imported
        heavy = ("google", "http", "ssl", "opentelemetry.proto", "otel_audit.pipeline.delivery")
        assert not [name for thread, name in imported if thread == "MainThread" and name.startswith(heavy)]
        """,
        spool_directory,
        sink.url,
    )


def test_a_sender_that_cannot_import_tries_again(spool_directory: Path, sink: Sink) -> None:
    """A package is being replaced, or its files can be read only later."""
    out = run_script(
        """
        import importlib.abc
        from otel_audit.pipeline import sender
        sender._AFTER_ERROR = 0.05
        class Broken(importlib.abc.MetaPathFinder):
            times = 3
            def find_spec(self, name, path, target=None):
                if name == "otel_audit.pipeline.delivery.shipper" and self.times:
                    self.times -= 1
                    raise PermissionError(13, "not yours", name)
        sys.meta_path.insert(0, Broken())
        pipeline = provider.start(audit_config(Path(sys.argv[1]), sys.argv[2]))
        pipeline.logger.emit(make_record(pipeline, 1))
        assert pipeline.flush(20)
        print(pipeline.health.failures)
        """,
        spool_directory,
        sink.url,
    )
    assert int(out) == 3
    assert target_ids(sink.records) == ["1"]


class Rewrapped:
    """A provider that stands for another, which may change: Logfire's, for example."""

    resource: object = None


def test_the_service_outside_any_work_is_the_one_the_resource_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the application sets its own tracer provider, or changes it, after audit has started."""
    monkeypatch.setattr(process_scope, "service", process_identity.service_name)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(
        process_identity, "_environment_resource", lambda: (Resource({"service.name": "environment"}), 0)
    )
    assert process_scope.fields().actor == Actor("environment", "service")
    wrapper: Any = Rewrapped()
    trace.set_tracer_provider(wrapper)
    resources: list[object] = [Resource({"service.name": name}) for name in ("shop", "depot")]
    names = ("shop", "depot", "", "environment")
    for wrapper.resource, name in zip([*resources, Resource({}), "?"], names, strict=True):
        assert process_identity.service_name() == name
        assert process_scope.fields().actor == Actor(name or "unknown_service", "service")


def test_asking_for_the_service_does_not_look_at_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for each record outside a scope."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    process_identity.service_name()
    with monkeypatch.context() as nowhere:  # pytest itself writes to it when the test is over
        nowhere.setattr(os, "environ", None)
        process_identity.service_name()
