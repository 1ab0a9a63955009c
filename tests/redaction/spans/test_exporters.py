"""Redaction gets in front of every exporter: there before, added later, hidden inside, or unknown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import (
    ConcurrentMultiSpanProcessor,
    ReadableSpan,
    Span,
    SpanProcessor,
    TracerProvider,
)
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider

from otel_audit import otel_api
from otel_audit.config.model import RedactionConfig
from otel_audit.redaction import Redactor
from otel_audit.redaction.spans.exporters import PATCHES, ExporterRedaction, RedactingSpanProcessor


@pytest.fixture
def redaction() -> Iterator[ExporterRedaction]:
    otel_api._said.clear()
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


class Elsewhere(SimpleSpanProcessor):
    """Keeps its exporter where no SDK of today has it."""

    def __init__(self, exporter: SpanExporter) -> None:
        self.hidden = [exporter]

    def on_end(self, span: ReadableSpan) -> None:
        self.hidden[0].export([span])

    def shutdown(self) -> None:
        self.hidden[0].shutdown()


class ReadOnly(SpanProcessor):
    """Does not let its exporter be replaced."""

    def __init__(self, exporter: SpanExporter) -> None:
        vars(self)["exporter"] = exporter

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} is read-only")

    def on_end(self, span: ReadableSpan) -> None:
        vars(self)["exporter"].export([span])


class Unequal(ReadOnly):
    """Cannot be compared or looked into."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    __hash__ = None  # type: ignore[assignment]

    @property
    def _span_processors(self) -> tuple[SpanProcessor, ...]:
        raise RuntimeError("looked into")


@pytest.mark.parametrize("kind", [Elsewhere, ReadOnly, Unequal])
@pytest.mark.parametrize("late", [False, True])
def test_a_processor_whose_exporter_cannot_be_wrapped_gets_redacted_copies(
    redaction: ExporterRedaction, kind: Any, late: bool
) -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    if late:
        redaction.apply(provider)
    provider.add_span_processor(kind(memory))
    if not late:
        redaction.apply(provider)
    leak(provider)
    assert seen(memory) == ["[redacted]"]


def test_the_processor_behind_redacted_copies_stays_in_reach(redaction: ExporterRedaction) -> None:
    class Fanning(SelfMade):
        def add_span_processor(self, processor: SpanProcessor) -> None:
            self.added = processor

    redaction.apply(ProxyTracerProvider())
    provider = TracerProvider(active_span_processor=Fanning(), shutdown_on_exit=False)  # type: ignore[arg-type]
    added = SelfMade()
    provider.add_span_processor(added)
    assert isinstance(provider._active_span_processor, RedactingSpanProcessor)
    assert provider._active_span_processor.added is added


class Wrapper(trace.TracerProvider):
    """Another vendor's, around the SDK's."""

    def __init__(self, inner: object) -> None:
        self.inner = inner

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return trace.NoOpTracer()


class SlottedWrapper(Wrapper):
    __slots__ = ("_kept",)

    def __init__(self, inner: object) -> None:
        self._kept = inner


@pytest.mark.parametrize(
    "around",
    [Wrapper, SlottedWrapper, lambda inner: Wrapper(Wrapper(inner))],
    ids=["attribute", "slot", "twice"],
)
def test_the_sdks_provider_inside_another_is_covered(
    redaction: ExporterRedaction, around: Callable[[object], object], caplog: pytest.LogCaptureFixture
) -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    redaction.apply(around(provider))
    leak(provider)
    assert seen(memory) == ["[redacted]"]
    assert not caplog.records


def test_a_processor_inside_another_kind_of_provider_is_covered(redaction: ExporterRedaction) -> None:
    memory = InMemorySpanExporter()
    redaction.apply(Wrapper(SimpleSpanProcessor(memory)))
    other = TracerProvider(shutdown_on_exit=False)
    provider = Wrapper(SimpleSpanProcessor(memory))
    redaction.cover(provider)
    with other.get_tracer("tests").start_as_current_span("x", attributes={"password": "hunter2"}) as span:
        pass
    provider.inner.on_end(span)  # type: ignore[attr-defined]
    assert seen(memory) == ["[redacted]"]


class Hostile:
    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return object.__getattribute__(self, name)
        raise RuntimeError(f"no {name}")


@pytest.mark.parametrize(
    "make",
    [object, lambda: Wrapper(None), lambda: Wrapper(NoOpTracerProvider()), Hostile, str],
    ids=["object", "wrapper of nothing", "wrapper of a no-op", "hostile", "text"],
)
def test_what_a_provider_that_is_not_the_sdks_means_is_said_once(
    redaction: ExporterRedaction, make: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    foreign = make()
    redaction.apply(foreign)
    redaction.cover(foreign)
    [said] = caplog.messages
    assert f"{type(foreign).__qualname__}, not the OpenTelemetry SDK's" in said
    assert "its spans are not redacted and do not name the actor" in said
    assert "Records do not depend on it" in said


def test_no_provider_at_all_is_nothing_to_talk_about(
    redaction: ExporterRedaction, caplog: pytest.LogCaptureFixture
) -> None:
    for nothing in (None, ProxyTracerProvider(), NoOpTracerProvider()):
        redaction.apply(nothing)
    assert not caplog.records


def test_undo_leaves_the_sdk_as_it_was(redaction: ExporterRedaction) -> None:
    def methods() -> list[object]:
        return [vars(owner)[name] for owner, name, _ in PATCHES]

    before = methods()
    redaction.apply(ProxyTracerProvider())
    assert all(now is not original for now, original in zip(methods(), before, strict=True))
    redaction.undo()
    assert methods() == before
