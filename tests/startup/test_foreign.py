"""Records do not depend on who makes spans, keeps the context or counts: providers that are not the SDK's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import otel_audit
from otel_audit import otel_api
from otel_audit.audit_context import AuditContext, current_context
from otel_audit.config.model import AuditConfig, SpanEventConfig
from otel_audit.propagation import ActorSpanProcessor, AuditPropagator, annotate
from otel_audit.testing import capture_audit
from tests.startup.agent import REPORT, run

FOREIGN = """
from opentelemetry import metrics, trace

class TracerProvider(trace.TracerProvider):
    def get_tracer(self, *args, **kwargs):
        return trace.NoOpTracer()

    @property
    def resource(self):
        raise RuntimeError("no resource")

class Meter(metrics.NoOpMeter):
    def create_counter(self, *args, **kwargs):
        raise RuntimeError("no counters")

    create_observable_counter = create_observable_gauge = create_counter

class MeterProvider(metrics.MeterProvider):
    def get_meter(self, *args, **kwargs):
        return Meter("none")
"""
BEFORE = """
trace.set_tracer_provider(TracerProvider())
metrics.set_meter_provider(MeterProvider())
import otel_audit
otel_audit.setup()
"""
AFTER = """
import otel_audit
otel_audit.setup()
trace.set_tracer_provider(TracerProvider())
"""


@pytest.fixture(autouse=True)
def unsaid() -> None:
    otel_api._said.clear()


@pytest.mark.parametrize("order", [BEFORE, AFTER], ids=["before", "after"])
@pytest.mark.parametrize("on_error", ["fail_open", "fail_closed"])
def test_a_tracer_provider_that_is_not_the_sdks_costs_no_record_and_is_named_once(
    tmp_path: Path, order: str, on_error: str
) -> None:
    done = run(tmp_path, FOREIGN + order + REPORT, agent=False, environ={"OTEL_AUDIT_ON_ERROR": on_error})
    assert done.report["running"], done.errors
    assert done.report["recorded"]
    assert "DjangoAuditInstrumentor" in done.report["instrumented"]
    assert done.errors.count("not the OpenTelemetry SDK's: its spans are not redacted") == 1


def test_a_tracer_provider_that_cannot_be_loaded_costs_no_record(tmp_path: Path) -> None:
    program = """
        import otel_audit
        otel_audit.setup()
        print(otel_audit.record("shop.x", "EXPORT").event_name)
    """
    done = run(tmp_path, program, agent=False, environ={"OTEL_PYTHON_TRACER_PROVIDER": "no_such_provider"})
    assert done.output.strip() == "shop.x", done.errors


CONTEXTS = """
from opentelemetry.context.context import Context, _RuntimeContext

class Odd(_RuntimeContext):
    def attach(self, context):
        return None

    def detach(self, token):
        pass

class Raising(Odd):
    def get_current(self):
        raise RuntimeError("no context")

class Empty(Odd):
    def get_current(self):
        return None

class Mapping(Odd):
    def get_current(self):
        return {"current-span": 5}
"""


@pytest.mark.parametrize("kind", ["Raising", "Empty", "Mapping"])
def test_an_odd_implementation_of_the_context_costs_no_record(tmp_path: Path, kind: str) -> None:
    (tmp_path / "contexts.py").write_text(CONTEXTS)
    metadata = tmp_path / "entry" / "contexts-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: contexts\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[opentelemetry_context]\nodd = contexts:{kind}\n")
    program = """
        import otel_audit
        otel_audit.setup()
        from opentelemetry.context import _RUNTIME_CONTEXT
        with otel_audit.context(actor="7"):
            made = [otel_audit.record("shop.x", "EXPORT") for _ in range(3)]
        print(type(_RUNTIME_CONTEXT).__name__, [each.actor.id for each in made])
    """
    done = run(tmp_path, program, agent=False, path=metadata.parent, environ={"OTEL_PYTHON_CONTEXT": "odd"})
    assert done.output.strip() == f"{kind} ['7', '7', '7']", done.errors
    assert done.errors.count("cannot tell which span is current") == (0 if kind == "Mapping" else 1)


class ForeignSpan(trace.NonRecordingSpan):
    """Answers what it is told to; raises what is an exception."""

    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__(trace.INVALID_SPAN_CONTEXT)
        self.answers = answers
        self.told: list[str] = []

    def _answer(self, name: str, otherwise: Any = None) -> Any:
        self.told.append(name)
        answer = self.answers.get(name, otherwise)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def get_span_context(self) -> Any:
        return self._answer("get_span_context", trace.INVALID_SPAN_CONTEXT)

    def is_recording(self) -> Any:
        return self._answer("is_recording", True)

    def set_attributes(self, attributes: Any) -> Any:
        return self._answer("set_attributes")

    def add_event(self, *args: Any, **kwargs: Any) -> Any:
        return self._answer("add_event")


class Ids(NamedTuple):
    trace_id: Any
    span_id: Any


@pytest.mark.parametrize(
    "answers",
    [
        {name: RuntimeError(f"no {name}")}
        for name in ("get_span_context", "is_recording", "set_attributes", "add_event")
    ]
    + [
        {"get_span_context": each}
        for each in (
            None,
            Ids("abc", "def"),
            Ids(1 << 128, 1),
            Ids(-1, 1),
            Ids(1, -1),
            Ids(1.5, 2.5),
            Ids(None, 1),
        )
    ],
    ids=str,
)
@pytest.mark.parametrize("content", ["summary", "full"])
def test_a_span_that_fails_costs_no_record_and_harms_nobody(answers: dict[str, Any], content: Any) -> None:
    config = AuditConfig(on_error="fail_closed", span_event=SpanEventConfig(content=content))
    span = ForeignSpan(answers)
    with capture_audit(config) as captured, trace.use_span(span), otel_audit.context(actor="7"):
        made = otel_audit.record("shop.x", "EXPORT")
        ActorSpanProcessor().on_start(span)
        annotate(span, current_context() or AuditContext(None))
        W3C.inject({})
    assert captured.records == [made]
    assert made is not None
    assert made.trace_id in ("", f"{1:032x}")
    assert set(span.told) >= set(answers)


W3C = AuditPropagator(W3CBaggagePropagator())
SURROGATE: str = json.loads('"\\ud83d"')


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(ActorSpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(memory))
    with provider.get_tracer("tests").start_as_current_span("outer"):
        yield memory


@pytest.mark.parametrize("content", ["summary", "full"])
def test_what_a_record_puts_on_a_span_can_be_exported(spans: InMemorySpanExporter, content: Any) -> None:
    config = AuditConfig(span_event=SpanEventConfig(content=content))
    tracer = trace.get_current_span()
    with capture_audit(config), otel_audit.context(actor=otel_audit.Actor(id=SURROGATE, type="user")):
        otel_audit.record(
            "shop.x",
            "EXPORT",
            target=otel_audit.Target(f"shop{SURROGATE}", SURROGATE),
            changes=[otel_audit.Change(f"f{SURROGATE}", "old", SURROGATE)],
            message=SURROGATE,
        )
        annotate(tracer, current_context() or AuditContext(None))
    tracer.end()
    [span] = spans.get_finished_spans()
    assert span.attributes == {"audit.actor.id": "?"}
    assert span.events[0].attributes["audit.target.id"] == "?"  # type: ignore[index]
    assert encode_spans([span]).SerializeToString()


@pytest.mark.parametrize(
    "context", [{5: "x"}, {("audit.", 1): "x"}, {"audit.actor.id": "forged", 7: "x"}], ids=str
)
def test_baggage_of_any_keys_passes_without_ours(context: dict[Any, Any]) -> None:
    over = Context()
    for name, value in context.items():
        over = baggage.set_baggage(name, value, over)
    carrier: dict[str, str] = {}
    W3C.inject(carrier, over)
    assert "forged" not in str(carrier)
    assert "x" in str(carrier)
