"""G1: a record depends on no sampler, no span limit and no logger setting of the application."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from otel_audit.pipeline.provider import AuditPipeline
from otel_audit.testing import CapturedAudit, capture_audit
from tests.pipeline.otlp_sink import Sink
from tests.pipeline.spooling import make_record, run_script, target_ids

Captured = CapturedAudit


@pytest.fixture
def pipeline() -> object:
    with capture_audit() as captured:
        yield captured


def emit(captured: Captured, count: int = 1, **values: object) -> None:
    for number in range(count):
        captured.pipeline.logger.emit(make_record(captured.pipeline, number, **values))


def test_an_unsampled_span_costs_nothing_but_its_event(pipeline: Captured) -> None:
    """The record is there, with the ids of the trace nobody will see."""
    tracer = TracerProvider(sampler=ALWAYS_OFF).get_tracer("test")
    with tracer.start_as_current_span("request") as span:
        emit(pipeline)
        context = span.get_span_context()
    [record] = pipeline.records
    assert record.trace_id == f"{context.trace_id:032x}"
    assert record.span_id == f"{context.span_id:016x}"


def test_a_span_that_records_nothing_costs_nothing(pipeline: Captured) -> None:
    """As a propagated parent is one."""
    parent = SpanContext(0x1234, 0x5678, is_remote=True, trace_flags=TraceFlags(0))
    with use_span(NonRecordingSpan(parent)):
        emit(pipeline)
    assert pipeline.records[0].trace_id == f"{0x1234:032x}"


def test_no_span_at_all_costs_nothing(pipeline: Captured) -> None:
    """And no ids are invented."""
    emit(pipeline)
    assert (pipeline.records[0].trace_id, pipeline.records[0].span_id) == ("", "")


def test_more_records_than_a_span_keeps_events_are_all_there(pipeline: Captured) -> None:
    """A span keeps its newest 128 events; the trail keeps everything."""
    tracer = TracerProvider(sampler=ALWAYS_ON).get_tracer("test")
    with tracer.start_as_current_span("request"):
        emit(pipeline, 300)
    assert target_ids(pipeline.records) == [str(number) for number in range(300)]


def test_more_attributes_than_a_log_record_may_have_are_all_there(pipeline: Captured) -> None:
    """The SDK's limit of 128 attributes would push out the record's id first."""
    emit(pipeline, attributes={f"a{number}": number for number in range(500)})
    assert len(pipeline.records[0].attributes) == 500


SETTINGS = {
    "OTEL_ATTRIBUTE_COUNT_LIMIT": "1",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "2",
    "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": "1",
    "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT": "2",
    "OTEL_SPAN_EVENT_COUNT_LIMIT": "0",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "0",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "0",
    "OTEL_TRACES_SAMPLER": "always_off",
    "OTEL_TRACES_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_SDK_DISABLED": "true",
    "OTEL_BLRP_MAX_QUEUE_SIZE": "1",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
}


def test_no_opentelemetry_setting_takes_anything_from_a_record(tmp_path: Path) -> None:
    """Limits, samplers and switches of the application's SDK are not ours: what arrives is whole."""
    with Sink() as sink:
        run_script(
            """
            from opentelemetry import trace
            from opentelemetry.sdk.trace import TracerProvider
            trace.set_tracer_provider(TracerProvider())
            pipeline = provider.start(audit_config(Path(sys.argv[1]), sys.argv[2]))
            with trace.get_tracer("t").start_as_current_span("request"):
                for number in range(200):
                    pipeline.logger.emit(make_record(pipeline, number, message="a long message", attributes={
                        f"name{n}": f"a value longer than two characters {n}" for n in range(20)}))
            assert pipeline.flush(30)
            """,
            tmp_path,
            sink.url,
            env={**os.environ, **SETTINGS},
        )
        assert target_ids(sink.records) == [str(number) for number in range(200)]
        record = sink.records[-2]
        assert record.attributes == {
            f"name{number}": f"a value longer than two characters {number}" for number in range(20)
        }
        assert record.message == "a long message"


def test_logging_settings_of_the_application_reach_no_record(pipeline: Captured) -> None:
    """logging.disable and a handler that raises are about log lines."""
    import logging

    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise RuntimeError("handler")

    root, handler = logging.getLogger(), Broken()
    root.addHandler(handler)
    logging.disable(logging.CRITICAL)
    try:
        emit(pipeline, 2)
    finally:
        logging.disable(logging.NOTSET)
        root.removeHandler(handler)
    assert len(pipeline) == 2


def test_a_span_that_raises_costs_no_record(pipeline: Captured) -> None:
    """The event is for readers of traces; the record is the record."""

    class Broken(NonRecordingSpan):
        def is_recording(self) -> bool:
            return True

        def add_event(self, *args: object, **kwargs: object) -> None:
            raise RuntimeError("span")

    with use_span(Broken(SpanContext(1, 2, is_remote=False)), record_exception=False):
        emit(pipeline)
    assert len(pipeline) == 1


def test_the_pipeline_is_not_the_global_logger_provider(pipeline: Captured) -> None:
    """Whoever replaces or shuts down the application's providers takes nothing from us."""
    from opentelemetry._logs import get_logger_provider

    shutdown: Callable[[], None] | None = getattr(get_logger_provider(), "shutdown", None)
    if shutdown is not None:
        shutdown()
    tracer_shutdown = getattr(trace.get_tracer_provider(), "shutdown", None)
    if tracer_shutdown is not None:
        tracer_shutdown()
    emit(pipeline)
    assert len(pipeline) == 1
    assert isinstance(pipeline.pipeline, AuditPipeline)
