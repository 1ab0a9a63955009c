"""Redaction gets in front of every exporter: there before, added later, hidden inside, or unknown."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk import trace as sdk_trace
from opentelemetry.sdk.trace import (
    ConcurrentMultiSpanProcessor,
    ReadableSpan,
    Span,
    SpanProcessor,
    TracerProvider,
)
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider

from otel_audit.config.model import RedactionConfig
from otel_audit.errors import StartupError
from otel_audit.redaction import Redactor
from otel_audit.redaction.exporters import PATCHES, ExporterRedaction


@pytest.fixture
def redaction() -> Iterator[ExporterRedaction]:
    redaction = ExporterRedaction(Redactor(RedactionConfig()))
    yield redaction
    redaction.undo()


def leak(provider: TracerProvider) -> None:
    with provider.get_tracer("tests").start_as_current_span("x", attributes={"password": "hunter2"}):
        pass
    provider.force_flush()


def seen(memory: InMemorySpanExporter) -> list[object]:
    return [(span.attributes or {})["password"] for span in memory.get_finished_spans()]


def test_exporters_registered_before_are_wrapped_and_unwrapped_again(redaction: ExporterRedaction) -> None:
    simple, batch = InMemorySpanExporter(), InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(simple))
    provider.add_span_processor(BatchSpanProcessor(batch))
    redaction.apply(provider)
    leak(provider)
    assert seen(simple) == seen(batch) == ["[redacted]"]
    redaction.undo()
    leak(provider)
    assert seen(simple) == seen(batch) == ["[redacted]", "hunter2"]
    provider.shutdown()


def test_exporters_added_later_are_wrapped(redaction: ExporterRedaction) -> None:
    memory, named = InMemorySpanExporter(), InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    redaction.apply(provider)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    provider.add_span_processor(span_processor=SimpleSpanProcessor(named))
    leak(provider)
    assert seen(memory) == seen(named) == ["[redacted]"]


@pytest.mark.parametrize("placeholder", [ProxyTracerProvider(), NoOpTracerProvider()])
def test_providers_made_later_are_covered(redaction: ExporterRedaction, placeholder: object) -> None:
    redaction.apply(placeholder)
    memory, alone = InMemorySpanExporter(), InMemorySpanExporter()
    concurrent = ConcurrentMultiSpanProcessor()
    concurrent.add_span_processor(SimpleSpanProcessor(memory))
    for active in (concurrent, SimpleSpanProcessor(alone)):
        leak(TracerProvider(active_span_processor=active, shutdown_on_exit=False))  # type: ignore[arg-type]
    assert seen(memory) == seen(alone) == ["[redacted]"]


class Filtering(SpanProcessor):
    """A processor that hands on to another, as tail filters do."""

    def __init__(self, inner: SpanProcessor) -> None:
        self._inner = inner

    def on_end(self, span: ReadableSpan) -> None:
        self._inner.on_end(span)


class SelfMade(SpanProcessor):
    """An exporter of its own kind, hidden where nobody looks."""

    def __init__(self) -> None:
        self.sent: list[ReadableSpan] = []
        self.started: list[Span] = []

    def on_start(self, span: Span, parent_context: object = None) -> None:
        self.started.append(span)

    def on_end(self, span: ReadableSpan) -> None:
        self.sent.append(span)


class Slotted(SpanProcessor):
    __slots__ = ("exporter",)

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self.exporter = exporter

    def on_end(self, span: ReadableSpan) -> None:
        self.exporter.export([span])


def test_exporters_inside_other_processors_are_found(redaction: ExporterRedaction) -> None:
    memory, slotted = InMemorySpanExporter(), InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Filtering(Filtering(SimpleSpanProcessor(memory))))
    provider.add_span_processor(Slotted(slotted))
    redaction.apply(provider)
    leak(provider)
    assert seen(memory) == seen(slotted) == ["[redacted]"]


def test_a_processor_of_unknown_kind_gets_redacted_copies(redaction: ExporterRedaction) -> None:
    unknown = SelfMade()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(unknown)
    redaction.apply(provider)
    leak(provider)
    assert [span.attributes for span in unknown.sent] == [{"password": "[redacted]"}]
    assert len(unknown.started) == 1


def test_covering_twice_wraps_once(redaction: ExporterRedaction) -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    processor = SimpleSpanProcessor(memory)
    provider.add_span_processor(processor)
    redaction.apply(provider)
    wrapped = processor.span_exporter
    redaction.cover(provider)
    assert processor.span_exporter is wrapped
    assert wrapped.exporter is memory  # type: ignore[attr-defined]


def test_an_sdk_that_keeps_its_exporter_elsewhere_is_refused_with_a_reason(
    redaction: ExporterRedaction,
) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    processor = SimpleSpanProcessor(InMemorySpanExporter())
    vars(processor)["hidden"] = vars(processor).pop("span_exporter")
    provider.add_span_processor(processor)
    with pytest.raises(StartupError, match=r"SimpleSpanProcessor.*redaction\.spans = false"):
        redaction.apply(provider)
    assert not hasattr(sdk_trace.TracerProvider.__init__, "__wrapped__"), "nothing stays wrapped"


def test_a_provider_that_is_not_the_sdks_is_refused_with_a_reason(redaction: ExporterRedaction) -> None:
    class Foreign:
        pass

    with pytest.raises(StartupError, match=r"Foreign, not the OpenTelemetry SDK's"):
        redaction.apply(Foreign())


def test_undo_leaves_the_sdk_as_it_was(redaction: ExporterRedaction) -> None:
    def methods() -> list[object]:
        return [owner.__dict__[method] for owner, method, _ in PATCHES]

    before = methods()
    redaction.apply(ProxyTracerProvider())
    assert all(now is not original for now, original in zip(methods(), before, strict=True))
    redaction.undo()
    assert methods() == before
