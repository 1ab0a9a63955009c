"""Celery: who published which task, which ran, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from otel_audit.instrumentation.instrumentor import AuditInstrumentor, Part
from otel_audit.instrumentation.patching import Listener, Patch

if TYPE_CHECKING:
    from otel_audit.config.model import AuditConfig
    from otel_audit.pipeline.provider import AuditPipeline


class CeleryAuditInstrumentor(AuditInstrumentor):
    """Record tasks of all applications of Celery in this process, made before or after this.

    Celery itself is not imported for this.
    """

    library = "Celery"
    section = "celery"
    requires = ("celery >= 5.3",)

    def parts(self, config: AuditConfig, pipeline: AuditPipeline | None) -> Sequence[Part]:
        from otel_audit.instrumentation.celery.recorder import CeleryTasks

        return [CeleryTasks(config, pipeline)]

    def patches(self, parts: Sequence[Part]) -> Iterable[Patch | Listener]:
        from otel_audit.instrumentation.celery.patches import table
        from otel_audit.instrumentation.celery.recorder import CeleryTasks

        for part in parts:
            if isinstance(part, CeleryTasks):
                yield from table(part)
