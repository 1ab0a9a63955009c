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
    settings nor its apps need to be ready: models are looked at when they are first used.
    """

    _active: Any = None

    def instrumentation_dependencies(self) -> Collection[str]:
        return ("Django >= 5.2",)

    def _instrument(self, **kwargs: Any) -> None:
        from otel_audit.pipeline import provider

        pipeline = kwargs.get("pipeline") or provider.current()
        config = kwargs.get("config") or (pipeline.config if pipeline is not None else None)
        if config is None:
            _logger.error("Django is not audited: no audit pipeline was started; call otel_audit.setup()")
            return
        if not (config.enabled and config.django.enabled):
            _logger.info("Django is not audited: switched off by configuration")
            return

        from otel_audit.instrumentation.django.models import ModelPolicy
        from otel_audit.instrumentation.django.patches import AppliedPatches, table
        from otel_audit.instrumentation.django.writes import WriteCapture

        policy = ModelPolicy(config.django)
        writes = WriteCapture(policy, config, kwargs.get("pipeline"))
        patches = AppliedPatches()
        patches.apply(table(writes))
        writes.start()
        self._active = (writes, patches)

    def _uninstrument(self, **kwargs: Any) -> None:
        active, self._active = self._active, None
        if active is not None:
            writes, patches = active
            writes.stop()
            patches.undo()
