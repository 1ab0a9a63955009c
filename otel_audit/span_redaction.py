"""Redaction of spans for tracer providers that are built by hand."""

from __future__ import annotations

from opentelemetry.sdk.trace import SpanProcessor

from otel_audit.config.model import AuditConfig
from otel_audit.pipeline import provider
from otel_audit.redaction.redactor import Redactor
from otel_audit.redaction.spans import exporters
from otel_audit.startup import load_config


class RedactingSpanProcessor(exporters.RedactingSpanProcessor):
    """Hands redacted copies of finished spans to another processor.

    ::

        provider.add_span_processor(RedactingSpanProcessor(BatchSpanProcessor(OTLPSpanExporter())))

    Where audit runs, every exporter has this already, and a span is not redacted twice. It is for processes
    without audit, and for providers that are not OpenTelemetry's own.
    """

    def __init__(self, processor: SpanProcessor, config: AuditConfig | None = None) -> None:
        """Wrap ``processor``.

        Args:
            processor: what exports.
            config: whose ``redaction`` has the rules; by default that of the running audit, or what
                ``otel-audit config show`` prints.

        Raises:
            ConfigurationError: the configuration is wrong.
        """
        if config is None:
            running = provider.current()
            config = load_config().config if running is None else running.config
        super().__init__(processor, Redactor(config.redaction))
