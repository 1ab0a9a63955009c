"""The public processor: redacted spans from a provider built by hand, with audit and without."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import otel_audit
from otel_audit import AuditConfig, RedactingSpanProcessor
from otel_audit.config.model import RedactionConfig, SpoolConfig


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No configuration but the test's own, and no audit that outlives it."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("OTEL_", "DJANGO_")):
            monkeypatch.delenv(name)
    yield
    otel_audit.shutdown()


def sent(provider: TracerProvider, memory: InMemorySpanExporter) -> dict[str, object]:
    """Return the attributes of a span that goes out."""
    attributes = {"password": "hunter2", "maiden.name": "hunter2", "note": "token=hunter2", "plain": "x"}
    with provider.get_tracer("tests").start_as_current_span("GET /?token=hunter2", attributes=attributes):
        pass
    assert provider.force_flush()
    *_, span = memory.get_finished_spans()
    assert "hunter2" not in span.name
    return dict(span.attributes or {})


REDACTED = {"password": "[redacted]", "maiden.name": "hunter2", "note": "token=[redacted]", "plain": "x"}


@pytest.mark.parametrize("kind", [SimpleSpanProcessor, BatchSpanProcessor])
def test_a_provider_built_by_hand_exports_redacted_spans_without_audit(
    kind: type[SpanProcessor],
) -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(RedactingSpanProcessor(kind(memory)))  # type: ignore[call-arg]
    assert sent(provider, memory) == REDACTED
    provider.shutdown()


def test_it_follows_the_configuration_that_is_there_or_the_one_it_is_given(
    tmp_path: Path,
) -> None:
    (tmp_path / "otel-audit.toml").write_text(
        "[redaction]\nnames = ['maiden.*']\npersonal_numbers = true\n", "utf-8"
    )
    given = AuditConfig(redaction=RedactionConfig(replacement="###"))
    found, other = InMemorySpanExporter(), InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(RedactingSpanProcessor(SimpleSpanProcessor(found)))
    provider.add_span_processor(RedactingSpanProcessor(SimpleSpanProcessor(other), given))
    assert sent(provider, found) == REDACTED | {"maiden.name": "[redacted]"}
    assert sent(provider, other)["password"] == "###"


@pytest.mark.parametrize("first", ["processor", "audit"])
def test_beside_audit_a_span_is_redacted_once(tmp_path: Path, first: str) -> None:
    config = AuditConfig(
        spool=SpoolConfig(directory=str(tmp_path)), redaction=RedactionConfig(names=["maiden.*"])
    )
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    inner = SimpleSpanProcessor(memory)
    if first == "processor":
        provider.add_span_processor(RedactingSpanProcessor(inner, config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
        otel_audit.setup(config, instrument=False)
    if first == "audit":
        provider.add_span_processor(RedactingSpanProcessor(inner))  # by the rules of the running audit
    assert inner.span_exporter is memory
    assert sent(provider, memory)["maiden.name"] == "[redacted]"


def test_a_processor_of_any_kind_sees_redacted_copies_and_the_original_is_untouched() -> None:
    class Keeping(SpanProcessor):
        def __init__(self) -> None:
            self.ended: list[ReadableSpan] = []

        def on_end(self, span: ReadableSpan) -> None:
            self.ended.append(span)

    keeping, original = Keeping(), Keeping()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(RedactingSpanProcessor(keeping, AuditConfig()))
    provider.add_span_processor(original)
    with provider.get_tracer("tests").start_as_current_span("x", attributes={"password": "hunter2"}):
        pass
    assert (keeping.ended[0].attributes or {})["password"] == "[redacted]"
    assert (original.ended[0].attributes or {})["password"] == "hunter2"
