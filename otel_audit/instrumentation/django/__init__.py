"""Django: records what the ORM writes, who logs in, and what is read of sensitive models."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

_logger = logging.getLogger(__name__)


class DjangoAuditInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Wrap Django for auditing; ``uninstrument`` leaves no trace.

    ``instrument(pipeline=..., config=...)`` takes an :class:`~otel_audit.pipeline.provider.AuditPipeline`
    and an :class:`~otel_audit.config.model.AuditConfig`; both default to what was started. Neither Django's
    settings nor its apps need to be ready: models are looked at when they are first used. Any other option is
    a setting of ``[django]``, laid over the configuration; one that does not exist is an error.
    """

    _active: Any = None

    def instrumentation_dependencies(self) -> Collection[str]:
        return ("Django >= 5.2",)

    def _instrument(self, **kwargs: Any) -> None:
        from otel_audit import startup
        from otel_audit.instrumentation.django import checks

        checks.register()  # first: they tell of all that may fail below
        pipeline = kwargs.pop("pipeline", None)
        config = kwargs.pop("config", None) or (pipeline.config if pipeline is not None else None)
        if config is None or kwargs:
            config = startup.for_instrumentor("django", kwargs)
        if config is None:
            _logger.error("Django is not audited: %s", startup.why_off())
            return
        if not (config.enabled and config.django.enabled):
            _logger.info("Django is not audited: switched off by configuration")
            return

        from otel_audit.instrumentation.django.auth import AuthCapture
        from otel_audit.instrumentation.django.middleware import RequestCapture
        from otel_audit.instrumentation.django.models import ModelPolicy
        from otel_audit.instrumentation.django.patches import AppliedPatches, table
        from otel_audit.instrumentation.django.reads import ReadCapture
        from otel_audit.instrumentation.django.writes import WriteCapture
        from otel_audit.redaction.names import NameRules

        policy = ModelPolicy(config.django, NameRules.of(config.redaction))
        writes = WriteCapture(policy, config, pipeline)
        capture = writes.capture
        reads = ReadCapture(policy, config.django, capture.logger, capture.place)
        requests = RequestCapture(config, capture.logger, policy)
        parts: list[Any] = [writes, requests]
        if ReadCapture.wanted(config.django):
            parts.append(reads)
        if config.django.auth_events:
            parts.append(AuthCapture(capture.logger, requests, reads.internal))
        patches = AppliedPatches()
        patches.apply(table(writes, reads if reads in parts else None, requests))
        for part in parts:
            part.start()
        self._active = (parts, patches)
        startup.keep_instrumentor(self)

    def _uninstrument(self, **kwargs: Any) -> None:
        active, self._active = self._active, None
        if active is not None:
            parts, patches = active
            for part in reversed(parts):
                part.stop()
            patches.undo()
        from otel_audit.instrumentation.django import checks

        checks.unregister()
